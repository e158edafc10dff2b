"""What a training run is made with."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingSettings:
    """What a training run is made with, apart from its data and its network."""

    epochs: int = 25
    """Passes over the training images."""
    batch_size: int = 32
    """Images in a step, over all processes."""
    learning_rate: float = 2e-3
    """Adam's step at its largest: it rises over the first steps, then falls to zero along a cosine."""
    beta: float = 0.00025  # `models.BETA`, written out: importing it would load torch, for which --help need not wait
    """Weight of the KL divergence: loss = recon + beta * kl."""
    calibrated: bool = False
    """Instead of a given beta, the one whose noise is the decoder's own error: 2 * recon / D, anew in every step."""
    kl_warmup: float = 0.0
    """Fraction of the training over which the KL's weight rises from 0 to beta."""
    free_bits: float = 0.0
    """Nats that every latent number may carry unpunished."""
    flip: bool = True
    """Mirror every image left to right half of the time."""
    max_shift: int = 0
    """Move every image by up to so many pixels each way, its border mirrored: a few photos are memorised more slowly."""
    ema_decay: float = 0.999
    """The model is a moving average of the weights in training, so much of it kept at every step; 0: the newest weights."""
    max_grad_norm: float = 1.0
    """Longer gradients are shortened to this norm."""
    seed: int = 0
    """Order of the images, flips and noise follow from it."""

    def __post_init__(self) -> None:
        positive = ("epochs", "batch_size", "learning_rate", "max_grad_norm")
        most = {"kl_warmup": 1, "ema_decay": 1, "seed": 2**32 - 1}
        for name, value in vars(self).items():
            if not 0 <= value < math.inf or (name in positive and value == 0) or value > most.get(name, math.inf):
                allowed = "positive" if name in positive else f"from 0 to {most[name]}" if name in most else "at least 0"
                raise ValueError(f"{name}={value} must be {allowed}, and finite")
