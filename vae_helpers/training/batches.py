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

    flip: (B,) bool; shift: (B, 2) pixels down and right, from 0 to 2 * max_shift, where max_shift leaves the image in place.
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
            shift = torch.randint(2 * settings.max_shift + 1, shift.shape, generator=generator)
        yield Batch(indices, flip, eps, shift)


def to_device_if_fits(pixels: Tensor, device: torch.device) -> Tensor:
    """Images (N, 3, S, S) where batches of them are quickest to make: on a GPU that has room for them, else where they are."""
    if device.type == "cuda" and pixels.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
        return pixels.to(device)
    return pixels


def make_batch(batch: Batch, pixels: Tensor, device: torch.device, max_shift: int = 0) -> Tensor:
    """x (B, 3, S, S) in [-1, 1] on `device`, channels last: the batch's images, mirrored and moved as it says.

    pixels: uint8 (N, 3, S, S), anywhere; bytes travel, not floats. max_shift: the one that `batch.shift` was drawn with.
    """
    x = to_float(pixels[batch.indices.to(pixels.device)], device)
    x = torch.where(batch.flip.to(device)[:, None, None, None], x.flip(3), x)
    x = random_translate(x, batch.shift, max_shift) if max_shift else x
    return x.contiguous(memory_format=torch.channels_last)


def random_translate(x: Tensor, shift: Tensor, max_shift: int) -> Tensor:
    """Images (B, 3, S, S), each cut out of itself with `max_shift` mirrored pixels added on every side, at shift (B, 2)."""
    padded = F.pad(x, [max_shift] * 4, mode="reflect")
    along = torch.arange(x.shape[-1], device=x.device)
    rows, columns = (shift.to(x.device).T[..., None] + along).unbind()  # each (B, S)
    image = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # (B, S, S, 3) -> (B, 3, S, S)
