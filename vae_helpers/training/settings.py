"""What a training run is made with."""

from dataclasses import dataclass

from ..models.losses import BETA


@dataclass(frozen=True)
class TrainingSettings:
    """What a training run is made with, apart from its data and its network."""

    epochs: int = 25
    """Passes over the training images."""
    batch_size: int = 32
    """Images in a step, over all processes."""
    learning_rate: float = 2e-3
    """Adam's step at its largest: it rises over the first steps, then falls to zero along a cosine."""
    beta: float = BETA
    """Weight of the KL divergence: loss = recon + beta * kl."""
    calibrated: bool = False
    """Instead of a given beta, the one whose noise is the decoder's own error: 2 * recon / D, anew in every step."""
    kl_warmup: float = 0.0
    """Share of the training (of each cycle) over which the KL's weight rises from 0 to beta."""
    kl_cycles: int = 1
    """How often the KL's weight starts again from 0."""
    free_bits: float = 0.0
    """Nats that every latent number may carry unpunished."""
    flip: bool = True
    """Mirror every image left to right half of the time."""
    shift: int = 0
    """Move every image by up to so many pixels each way, its border mirrored: few photos are learned by heart more slowly."""
    average: float = 0.999
    """The model is a moving average of the weights in training, so much of it kept at every step; 0: the newest weights."""
    max_grad_norm: float = 1.0
    """Longer gradients are shortened to this norm."""
    seed: int = 0
    """Order of the images, flips and noise follow from it."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        for name in ("beta", "free_bits"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if not 0 <= self.kl_warmup <= 1:
            raise ValueError(f"kl_warmup={self.kl_warmup} must be a share of the training, from 0 to 1")
        if self.shift < 0:
            raise ValueError(f"shift={self.shift} must not be negative")
        if not 0 <= self.average < 1:
            raise ValueError(f"average={self.average} must be at least 0 and below 1")
        if self.kl_cycles < 1 or (self.kl_cycles > 1 and not self.kl_warmup):
            raise ValueError(f"kl_cycles={self.kl_cycles} must be at least 1, and more than one needs kl_warmup above 0")
