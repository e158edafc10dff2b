"""From pictures to tensors a network takes, through a network in batches, and back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .vae import BaseVAE


def to_float(pixels: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 pixels (…, 3, S, S) to float32 in [-1, 1] on `device`; the bytes travel, not the floats."""
    return pixels.to(device).float().div(127.5).sub(1)


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1] back to uint8, rounded, what lies outside clipped."""
    return x.detach().float().add(1).mul(127.5).round().clamp(0, 255).to("cpu", torch.uint8)


@torch.no_grad()
def encode_images(vae: BaseVAE, pixels: Tensor, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """(mu, logvar) of uint8 images (N, 3, S, S), each (N, *latent_shape) float32 on the CPU."""
    device = next(vae.parameters()).device
    vae.eval()
    batches = [vae.encode(to_float(batch, device)) for batch in pixels.split(batch_size)]
    mu, logvar = (torch.cat(parts).cpu() for parts in zip(*batches, strict=True))
    return mu, logvar


@torch.no_grad()
def decode_latents(vae: BaseVAE, z: Tensor, batch_size: int = 256, breed: str | Sequence[str] | None = None) -> Tensor:
    """x_hat (N, 3, S, S) in float32 on the CPU of latents (N, *latent_shape). breed: as in `vae.decode`."""
    device = next(vae.parameters()).device
    vae.eval()
    each = [breed] * len(z) if isinstance(breed, str) else breed or ()
    parts = [slice(i, i + batch_size) for i in range(0, len(z), batch_size)]
    return torch.cat([vae.decode(z[part].to(device), **({"breed": each[part]} if each else {})).cpu() for part in parts])
