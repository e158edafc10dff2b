"""The VAE of dog heads: a latent that is a vector, and a decoder in which it speaks at every size.

Its decoder is trained with an adversary (`training.adversarial`), under which two things matter: pictures are doubled by
nearest neighbours, since pixel shuffles draw checkerboards, and the latent enters every block, as in Karras et al. 2019.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .layers import GroupNorm, ResBlock, conv, sequential, zeroed
from .vae import LOGVAR_RANGE, BaseVAE

STYLE = 256  # numbers that the latent becomes before it enters the blocks


def nearest_upsample(c_in: int, c_out: int) -> nn.Sequential:
    """(B, c_in, H, W) -> (B, c_out, 2H, 2W) by nearest neighbours."""
    return sequential(narrow=nn.Conv2d(c_in, c_out, kernel_size=1), up=nn.Upsample(scale_factor=2.0), conv=conv(c_out, c_out))


class ResidualEncoder(nn.Module):
    """Images (B, 3, S, S) in [-1, 1] -> mean and log-variance, each (B, latent_dim), float32.

    smallest: S / 8. halve: take images of twice the size.
    """

    def __init__(self, latent_dim: int, widths: tuple[int, int, int], smallest: int, halve: bool):
        super().__init__()
        a, b, c = widths
        self.halve = halve
        self.down = nn.ModuleList([nn.Conv2d(3, a, 4, 2, 1), conv(a, b, stride=2), conv(b, c, stride=2)])  # S = 56: 28, 14, 7
        blocks = zip(widths, (1, 1, 2), strict=True)
        self.blocks = nn.ModuleList(nn.Sequential(*(ResBlock(width, width) for _ in range(n))) for width, n in blocks)
        self.norm_out, self.conv_out = GroupNorm(8, c), nn.Conv2d(c, 64, 1)
        self.linear_out = nn.Linear(64 * smallest**2, 2 * latent_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.avg_pool2d(x, 2) if self.halve else x
        for down, blocks in zip(self.down, self.blocks, strict=True):
            x = blocks(down(x))
        mu, logvar = self.linear_out(self.conv_out(F.silu(self.norm_out(x))).flatten(1)).float().chunk(2, dim=1)
        return mu, (logvar - 2).clamp(*LOGVAR_RANGE)  # sigma starts near 1/e, so that the latent says something at first


class ResidualDecoder(nn.Module):
    """Latents (B, latent_dim) -> images (B, 3, S, S), or twice as wide when grown, float32. halve: these become S x S again.

    smallest: S / 8. Grown, it has one more stage, whose picture is a correction to the enlarged one and starts at zero. Karras
    et al. 2018. labels: how many labels may enter beside the latent, label 0 meaning any.
    """

    def __init__(
        self, latent_dim: int, widths: tuple[int, int, int, int], smallest: int, grown: bool, halve: bool, labels: int = 0
    ):
        super().__init__()
        self.halve, last = halve, widths[-1]
        self.embedding = nn.Embedding(labels, STYLE) if labels else None
        self.mapping = nn.Sequential(nn.Linear(latent_dim, STYLE), nn.SiLU(), nn.Linear(STYLE, STYLE), nn.SiLU())
        self.linear_in, self.conv_in = nn.Linear(latent_dim, 64 * smallest**2), nn.Conv2d(64, widths[0], 1)
        self.start = (64, smallest, smallest)
        blocks = zip(widths, (2, 2, 2, 1), strict=True)
        self.blocks = nn.ModuleList(nn.ModuleList(ResBlock(c, c, style=STYLE) for _ in range(n)) for c, n in blocks)
        self.up = nn.ModuleList(nearest_upsample(a, b) for a, b in pairwise(widths))
        self.norm_out, self.conv_out = GroupNorm(8, last), conv(last, 3)
        nn.init.normal_(self.conv_out.weight, std=0.01)
        self.fine = nn.ModuleDict()
        if grown:
            self.fine["up"], self.fine["block"] = nearest_upsample(last, last // 2), ResBlock(last // 2, last // 2, style=STYLE)
            self.fine["norm_out"], self.fine["conv_out"] = GroupNorm(8, last // 2), zeroed(conv(last // 2, 3))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        style, h = self.mapping(z), self.conv_in(self.linear_in(z).unflatten(1, self.start))
        if self.embedding:
            style = style + self.embedding(torch.zeros_like(z[:, 0], dtype=torch.long) if label is None else label)
        for i, stage in enumerate(self.blocks):
            h = self.up[i - 1](h) if i else h
            for block in stage:
                h = block(h, style)
        x = self.conv_out(F.silu(self.norm_out(h))).float()
        if self.fine:
            h = self.fine["block"](self.fine["up"](h), style)
            correction = self.fine["conv_out"](F.silu(self.fine["norm_out"](h)))
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear") + correction.float()
        return F.avg_pool2d(x, 2) if self.halve else x


class ResidualVAE(BaseVAE):
    """A VAE with a vector as latent and a residual decoder.

    latent_dim: numbers in a latent. image_size: S, a multiple of 8. widths: the decoder's channels at S/8, S/4, S/2 and S;
    encoder_widths: the encoder's at S/2, S/4 and S/8. Each is a multiple of 8, the decoder's last of 16. grown: whether the
    decoder of a VAE for 56 x 56 has a stage for 112 x 112; then image_size is 56 or 112, with the same weights and latents,
    since at 112 its encoder halves the picture, and at 56 its decoder does. breeds: names of the labels that its decoder takes,
    from 1, if any. Raises ValueError for sizes that do not fit.
    """

    def __init__(
        self,
        latent_dim: int = 128,
        widths: tuple[int, int, int, int] = (256, 128, 64, 32),
        encoder_widths: tuple[int, int, int] = (48, 96, 192),
        grown: bool = False,
        image_size: int = 56,
        breeds: Sequence[str] = (),
    ):
        super().__init__(image_size, (latent_dim,))
        if grown and image_size not in (56, 112):
            raise ValueError(f"image_size={image_size} must be 56 or 112 for a VAE that is grown")
        sizes = (*widths, *encoder_widths)
        if (len(widths), len(encoder_widths)) != (4, 3) or any(c < 8 or c % 8 for c in sizes) or widths[3] % 16:
            raise ValueError(f"{widths=} and {encoder_widths=} must be four and three multiples of 8, widths[3] of 16")
        self.architecture = {"kind": "residual", "latent_dim": latent_dim, "widths": list(widths)}
        self.architecture |= {"encoder_widths": list(encoder_widths), "grown": grown, "image_size": image_size}
        self.architecture |= {"breeds": list(breeds)} if breeds else {}
        self.breeds, labels = tuple(breeds), len(breeds) + 1 if breeds else 0
        smallest = 7 if grown else image_size // 8
        self.encoder = ResidualEncoder(latent_dim, encoder_widths, smallest, halve=grown and image_size == 112)
        self.decoder = ResidualDecoder(latent_dim, widths, smallest, grown, grown and image_size == 56, labels)
