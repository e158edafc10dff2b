"""How `toy` was made: a small VAE on toy dogs, so that chapters which need a trained model open alone.

    python recipes/toy.py toy.safetensors

The shipped weights took 21 minutes of a busy core: their history says so.
Its dogs are drawn with seed 1, those of the notebooks with seed 0: it has seen none of them.
Its noise is calibrated (Rybkin et al. 2021), so 32 numbers hold most of a dog; its latents are then far from N(0, I), which is
what chapter 09 is about.
"""

import sys
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from vae_helpers.data import draw_dog, sample_factors
from vae_helpers.models import VAE, Checkpoint, save_checkpoint
from vae_helpers.training import TrainingSettings, fit

SETTINGS = TrainingSettings(epochs=28, calibrated=True)


def draw_dogs(n: int, seed: int) -> Tensor:
    """Toy dogs, uint8 (n, 3, 56, 56)."""
    return torch.from_numpy(np.stack([np.array(draw_dog(row, 56)) for row in sample_factors(n, seed)])).permute(0, 3, 1, 2)


def train(dogs: Tensor, settings: TrainingSettings = SETTINGS) -> Checkpoint:
    """A VAE of 1.1 million weights after `settings.epochs` passes; the last 32nd of the dogs is for validation."""
    torch.manual_seed(settings.seed)
    vae, held_out = VAE(latent_dim=32, widths=(24, 48, 64)), len(dogs) // 32
    history = fit(vae, dogs[:-held_out], dogs[-held_out:], settings)
    return Checkpoint(vae, settings.epochs, history, asdict(settings))


if __name__ == "__main__":
    save_checkpoint(sys.argv[1], train(draw_dogs(8192, seed=1)), torch.float16)
