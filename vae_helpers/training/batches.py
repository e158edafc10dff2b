"""What every step of an epoch is given: which images, mirrored or not, moved how far, with which noise.

Drawn on the CPU for the whole batch, whoever computes it, so that every device and any number of processes learn the same.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.inference import to_float
from .settings import TrainingSettings


class Batch(NamedTuple):
    """What one step learns from. indices: (B,) into the images; eps: (B, *latent_shape) noise.

    flip: (B,) bool; shift: (B, 2) pixels down and right, from -max_shift to max_shift.
    """

    indices: Tensor
    flip: Tensor
    eps: Tensor
    shift: Tensor

    def shard(self, rank: int, world_size: int) -> "Batch":
        """The part of process `rank` of `world_size`: every so-many-th image, with its own flip, noise and shift."""
        return Batch(*(part[rank::world_size] for part in self))


def epoch_batches(n: int, settings: TrainingSettings, epoch: int, latent_shape: tuple[int, ...]) -> Iterator[Batch]:
    """The batches of one epoch: each of `n` images once, in batches of `batch_size` that differ by one image at the most.

    Drawn from (seed, epoch) alone.
    """
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
    order = torch.randperm(n, generator=generator)
    for indices in order.tensor_split(math.ceil(n / settings.batch_size)):
        flip = (torch.rand(len(indices), generator=generator) < 0.5) & settings.flip
        eps = torch.randn(len(indices), *latent_shape, generator=generator)
        shift = torch.zeros(len(indices), 2, dtype=torch.long)
        if settings.max_shift:
            shift = settings.max_shift - torch.randint(2 * settings.max_shift + 1, shift.shape, generator=generator)
        yield Batch(indices, flip, eps, shift)


def make_batch(batch: Batch, pixels: Tensor, device: torch.device) -> Tensor:
    """x (B, 3, S, S) in [-1, 1] on `device`, channels last: the batch's images, mirrored and moved as it says.

    pixels: uint8 (N, 3, S, S), anywhere; bytes travel, not floats.
    """
    x = to_float(pixels[batch.indices.to(pixels.device)], device)
    x = torch.where(batch.flip.to(device)[:, None, None, None], x.flip(3), x)
    x = random_translate(x, batch.shift, int(batch.shift.abs().max())) if batch.shift.any() else x
    return x.contiguous(memory_format=torch.channels_last)


def random_translate(x: Tensor, shift: Tensor, most: int) -> Tensor:
    """Images (B, 3, S, S), each moved by its shift (B, 2): pixels down and right. What is behind the border is its mirror.

    most: the largest shift that may be asked for, less than S.
    """
    size, padded = x.shape[-1], F.pad(x, [most] * 4, mode="reflect")
    rows, columns = (torch.arange(size, device=x.device) + most - shift.to(x.device)[..., None]).unbind(1)  # (B, S)
    padded = padded.gather(2, rows[:, None, :, None].expand(*x.shape[:2], size, padded.shape[-1]))
    return padded.gather(3, columns[:, None, None].expand_as(x))
