"""What every step of an epoch is given: which images, mirrored or not, moved how far, with which noise.

Drawn on the CPU for the whole batch, whoever computes it, so that every device and any number of processes learn the same.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.inference import to_float

if TYPE_CHECKING:
    from .settings import TrainingSettings


class Batch(NamedTuple):
    """One step's share of the data. indices: (B,) into the images; eps: (B, *latent_shape) noise.

    flip: (B,) bool; shift: (B, 2) pixels down and right, from 0 to twice the setting, which is the middle.
    """

    indices: Tensor
    flip: Tensor
    eps: Tensor
    shift: Tensor

    def share(self, process: int, processes: int) -> "Batch":
        """The part of one process of several: every so-many-th image, with its own flip, noise and shift."""
        return Batch(*(part[process::processes] for part in self))


def epoch_batches(n: int, settings: "TrainingSettings", epoch: int, latent_shape: tuple[int, ...]) -> Iterator[Batch]:
    """The batches of one epoch: every image once, in batches of `batch_size` that differ by one image at the most.

    Drawn from (seed, epoch) alone.
    """
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
    order = torch.randperm(n, generator=generator)
    for indices in order.tensor_split(math.ceil(n / settings.batch_size)):
        flip = (torch.rand(len(indices), generator=generator) < 0.5) & settings.flip
        eps = torch.randn(len(indices), *latent_shape, generator=generator)
        shift = torch.zeros(len(indices), 2, dtype=torch.long)
        if settings.shift:
            shift = torch.randint(2 * settings.shift + 1, shift.shape, generator=generator)
        yield Batch(indices, flip, eps, shift)


def near(pixels: Tensor, device: torch.device) -> Tensor:
    """Images (N, 3, S, S) where batches of them are quickest to make: on a GPU that has room for them, else where they are."""
    if device.type == "cuda" and pixels.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
        return pixels.to(device)
    return pixels


def make_batch(batch: Batch, pixels: Tensor, device: torch.device, most: int = 0) -> Tensor:
    """x (B, 3, S, S) in [-1, 1] on `device`, channels last: the batch's images, mirrored and moved as it says.

    pixels: uint8 (N, 3, S, S), anywhere; bytes travel, not floats. most: the largest shift, each way.
    """
    x = to_float(pixels[batch.indices.to(pixels.device)], device)
    x = torch.where(batch.flip.to(device)[:, None, None, None], x.flip(3), x)
    x = random_translate(x, batch.shift, most) if most else x
    return x.contiguous(memory_format=torch.channels_last)


def random_translate(x: Tensor, shift: Tensor, most: int) -> Tensor:
    """Images (B, 3, S, S) cut out of themselves with `most` mirrored pixels added on each side, at shift (B, 2) from there."""
    n, channels, _, size = x.shape
    along = torch.arange(size, device=x.device)
    rows, columns = (shift.to(x.device).T[..., None] + along).unbind()  # each (B, S)
    which, channel = (
        torch.arange(n, device=x.device).view(n, 1, 1, 1),
        torch.arange(channels, device=x.device).view(1, -1, 1, 1),
    )
    return F.pad(x, [most] * 4, mode="reflect")[which, channel, rows.view(n, 1, size, 1), columns.view(n, 1, 1, size)]
