"""The VAE: an encoder to mean and log-variance, `z = mu + sigma * eps`, a decoder.

Encoder and decoder have two branches whose outputs are added: a convolutional network, and one linear layer from pixels to
latent (and back). The linear branch finds what principal components would find, within the first epochs; the convolutions
learn what no linear map can. Their costly layers work at 14 x 14 and 7 x 7 pixels, where a laptop keeps up.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .hub import HubMixin
from .layers import GroupNorm, Residual, conv, sequential, upsample

LOGVAR_RANGE = (-20.0, 10.0)  # sigma from 0.00005 to 150: beyond it exp() overflows long before it means anything


class Encoder(nn.Module):
    """Images (B, 3, S, S) in [-1, 1] -> mean and log-variance, each (B, latent_dim), float32."""

    def __init__(self, latent_dim: int = 128, widths: tuple[int, int, int] = (32, 64, 128), image_size: int = 56):
        super().__init__()
        a, b, c = widths
        self.conv_branch = sequential(  # shapes for S = 56
            conv_in=nn.Conv2d(3, a, kernel_size=4, stride=2, padding=1),  # (B, a, 28, 28)
            act_in=nn.SiLU(),
            down1=conv(a, b, stride=2),  # (B, b, 14, 14)
            block1=Residual(b),
            down2=conv(b, c, stride=2),  # (B, c, 7, 7)
            block2=Residual(c),
            mid=Residual(c),
            norm_out=GroupNorm(8, c),
            act_out=nn.SiLU(),
            conv_out=nn.Conv2d(c, 64, kernel_size=1),  # (B, 64, 7, 7)
            flatten=nn.Flatten(),
            linear_out=nn.Linear(64 * (image_size // 8) ** 2, 2 * latent_dim),
        )
        self.linear_branch = nn.Linear(3 * (image_size // 2) ** 2, latent_dim)  # sees the image at half its size
        nn.init.normal_(self.linear_branch.weight, std=0.3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = self.conv_branch(x).float().chunk(2, dim=1)
        # Thousands of pixels change together, so a small step in every weight would be a large one in mu: hence the 0.01
        small = F.avg_pool2d(x, 2).flatten(1)
        # torch 2.14 ends the process (division by zero) in a bfloat16 product of 32 x 49,152 numbers: images of 256 x 256
        with torch.autocast(x.device.type, enabled=False) if small.shape[1] > 2**15 else nullcontext():
            mu = mu + 0.01 * self.linear_branch(small).float()
        return mu, logvar.clamp(*LOGVAR_RANGE)


class Decoder(nn.Module):
    """Latents (B, latent_dim) -> images (B, 3, S, S), float32: the mean of a Gaussian, so not squeezed into [-1, 1]."""

    def __init__(self, latent_dim: int = 128, widths: tuple[int, int, int] = (32, 64, 128), image_size: int = 56):
        super().__init__()
        a, b, c = widths
        smallest = image_size // 8
        self.image_shape = (3, image_size, image_size)
        self.conv_branch = sequential(  # shapes for S = 56
            linear_in=nn.Linear(latent_dim, 64 * smallest**2),
            unflatten=nn.Unflatten(1, (64, smallest, smallest)),  # (B, 64, 7, 7)
            conv_in=nn.Conv2d(64, c, kernel_size=1),  # (B, c, 7, 7)
            mid=Residual(c),
            block2=Residual(c),
            up2=upsample(c, b),  # (B, b, 14, 14)
            block1=Residual(b),
            up1=upsample(b, a),  # (B, a, 28, 28)
            norm_out=GroupNorm(8, a),
            act_out=nn.SiLU(),
            conv_out=conv(a, 12),
            shuffle=nn.PixelShuffle(2),  # (B, 3, 56, 56)
        )
        self.linear_branch = nn.Linear(latent_dim, 3 * image_size**2)
        nn.init.normal_(self.linear_branch.weight, std=0.01)
        nn.init.zeros_(self.conv_branch.conv_out.weight)

    def forward(self, z: Tensor) -> Tensor:
        return self.conv_branch(z).float() + self.linear_branch(z).float().unflatten(1, self.image_shape)


def reparameterize(mu: Tensor, logvar: Tensor, eps: Tensor | None = None) -> Tensor:
    """A sample of N(mu, sigma²) through which gradients reach mu and logvar: z = mu + sigma * eps.

    eps: noise of mu's shape; drawn from N(0, I) when not given. Kingma & Welling 2014, section 2.4.
    """
    eps = torch.randn_like(mu) if eps is None else eps
    return mu + (0.5 * logvar).exp() * eps


class VAEOutput(NamedTuple):
    """x_hat: (B, 3, S, S) in about [-1, 1]; mu, logvar: (B, *latent_shape). All float32."""

    x_hat: Tensor
    mu: Tensor
    logvar: Tensor


class BaseVAE(nn.Module, HubMixin):
    """What every VAE here can do. A kind of VAE sets encoder, decoder and `architecture`, its own arguments.

    encoder: images -> mu, logvar. decoder: z -> images. latent_shape: of one z, (latent_dim,) or (C, H, W). image_size: S.
    crop: how photos are cut for this model before they are scaled to S x S: "none", "center", "box" or "head". breeds: names of
    the breeds that its decoder knows, if any.
    """

    architecture: dict
    breeds: tuple[str, ...] = ()
    encoder: nn.Module
    decoder: nn.Module

    def __init__(self, image_size: int, latent_shape: tuple[int, ...]):
        super().__init__()
        if image_size < 8 or image_size % 8:
            raise ValueError(f"image_size={image_size} must be a multiple of 8 (56 by default): it is halved three times")
        if min(latent_shape) < 1:
            raise ValueError(f"{latent_shape=}: latent_dim, or latent_channels, must be at least 1")
        self.image_size, self.latent_shape, self.crop = image_size, latent_shape, "none"

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) in [-1, 1] -> mu, logvar, each (B, *latent_shape). Raises ValueError for another shape or for bytes."""
        _check("encode", x, "images", (3, self.image_size, self.image_size), " in [-1, 1]")
        return self.encoder(x)

    def decode(self, z: Tensor, breed: str | Sequence[str] | None = None) -> Tensor:
        """(B, *latent_shape) -> x_hat (B, 3, S, S). Raises ValueError for another shape.

        breed: of all, or of each, from `breeds`; any when left out. Raises ValueError for one that is not known.
        """
        _check("decode", z, "latents", self.latent_shape)
        each = [breed] * len(z) if isinstance(breed, str) else breed or ()
        if unknown := sorted({*each} - {*self.breeds}):
            raise ValueError(f"breed={unknown[0]!r} is none that this model knows: {', '.join(self.breeds) or 'it knows none'}")
        label = torch.tensor([1 + self.breeds.index(one) for one in each], device=z.device)
        return self.decoder(z, label) if each else self.decoder(z)

    def forward(self, x: Tensor, eps: Tensor | None = None) -> VAEOutput:
        """One pass with z sampled. eps: the noise, (B, *latent_shape); drawn when not given."""
        mu, logvar = self.encode(x)
        return VAEOutput(self.decode(reparameterize(mu, logvar, eps)), mu, logvar)

    def reconstruct(self, x: Tensor) -> Tensor:
        """x_hat from the mean, without sampling: (B, 3, S, S) -> (B, 3, S, S)."""
        return self.decode(self.encode(x)[0])

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Decode `n` draws from the prior N(0, I): (n, 3, S, S). generator: a CPU generator, for the same dogs again."""
        z = torch.randn(n, *self.latent_shape, generator=generator)
        return self.decode(z.to(next(self.parameters()).device))


def _check(where: str, x: Tensor, what: str, shape: tuple[int, ...], values: str = "") -> None:
    if tuple(x.shape[1:]) != shape or not x.is_floating_point():
        wanted = f"float {what} (B, {', '.join(map(str, shape))}){values}"
        raise ValueError(f"{where} takes {wanted}; got {x.dtype} {tuple(x.shape)}")


class VAE(BaseVAE):
    """Encoder, reparameterisation and decoder in one, with a vector as latent.

    latent_dim: numbers in a latent. widths: channels at 28, 14 and 7 pixels, each a multiple of 8. image_size: S, a
    multiple of 8. Raises ValueError for sizes that do not fit.
    """

    def __init__(self, latent_dim: int = 128, widths: tuple[int, int, int] = (32, 64, 128), image_size: int = 56):
        super().__init__(image_size, (latent_dim,))
        if len(widths) != 3 or any(width < 8 or width % 8 for width in widths) or image_size == widths[2] == 8:
            last = "; the last 16 or more for image_size=8, where it normalises over one pixel"
            raise ValueError(f"widths={widths} must be multiples of 8, one each for 28, 14 and 7 pixels{last}")
        self.architecture = {"latent_dim": latent_dim, "widths": list(widths), "image_size": image_size}
        self.encoder = Encoder(latent_dim, widths, image_size)
        self.decoder = Decoder(latent_dim, widths, image_size)
