"""The attention VAE: residual blocks, self-attention where the picture is smallest, a latent that keeps its shape.

At width 128 with 32 groups it is, layer for layer, the autoencoder of Stable Diffusion (Rombach et al. 2022, after Esser
et al. 2021), about 84M parameters. `SpatialVAE` is its relative for laptops. `to_diffusers` and `from_diffusers` convert it.
"""

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .layers import GroupNorm, ResBlock, conv, sequential
from .vae import LOGVAR_RANGE, BaseVAE

EPS = 1e-6  # of every normalisation, as in Stable Diffusion
MULTIPLES = (1, 2, 4, 4)  # of the width: channels at 56, 28, 14 and 7 pixels (SpatialVAE: at 28, 14 and 7)


class Attention(nn.Module):
    """x + what each position gathers from all others. (B, C, H, W) -> the same. One head; Vaswani et al. 2017, eq. 1."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = GroupNorm(groups, channels, EPS)
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.norm(x).flatten(2).transpose(1, 2)  # (B, H·W, C): one row a position
        gathered = F.scaled_dot_product_attention(self.query(rows), self.key(rows), self.value(rows))
        return x + self.out(gathered).transpose(1, 2).reshape(x.shape)


def downsample(channels: int) -> nn.Sequential:
    """(B, C, H, W) -> (B, C, H/2, W/2): a convolution that looks at every second pixel, padded at the right and below."""
    return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, kernel_size=3, stride=2))


def resolution_stages(way: str, channels: list[int], blocks: int, groups: int) -> dict[str, nn.Module]:
    """At each of the `channels` so many residual blocks, and from one to the next half the size ("down") or twice ("up")."""
    layers, c_in = {}, channels[0]
    for i, c in enumerate(channels):
        if i:
            layers[f"{way}{i - 1}_resample"] = (
                downsample(c_in) if way == "down" else nn.Sequential(nn.Upsample(scale_factor=2.0), conv(c_in, c_in))
            )
        for j in range(blocks):
            layers[f"{way}{i}_block{j}"] = ResBlock(c if j else c_in, c, groups, EPS)
        c_in = c
    return layers


def middle_stage(channels: int, groups: int) -> dict[str, nn.Module]:
    """Two residual blocks with attention between them."""
    first, attention = ResBlock(channels, channels, groups, EPS), Attention(channels, groups)
    return {"mid_block0": first, "mid_attention": attention, "mid_block1": ResBlock(channels, channels, groups, EPS)}


class AttentionEncoder(nn.Module):
    """Images (B, 3, S, S) in [-1, 1] -> mean and log-variance, each (B, C, S/8, S/8), float32."""

    def __init__(self, channels: list[int], latent_channels: int, groups: int, patch: int, blocks: int):
        super().__init__()
        self.conv_branch = sequential(  # shapes for S = 56, patch = 1
            **({"patches": nn.PixelUnshuffle(patch)} if patch > 1 else {}),  # each a pixel of 3·patch² channels
            conv_in=conv(3 * patch**2, channels[0]),  # (B, a, 56, 56)
            **resolution_stages("down", channels, blocks, groups),  # (B, b, 28, 28), (B, c, 14, 14), (B, d, 7, 7)
            **middle_stage(channels[-1], groups),
            norm_out=GroupNorm(groups, channels[-1], EPS),
            act_out=nn.SiLU(),
            conv_out=conv(channels[-1], 2 * latent_channels),  # (B, 2C, 7, 7)
            quant_conv=nn.Conv2d(2 * latent_channels, 2 * latent_channels, kernel_size=1),
        )
        self.linear_branch = None  # SpatialVAE has one

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = self.conv_branch(x).float().chunk(2, dim=1)
        if self.linear_branch is not None:
            mu = mu + 0.03 * self.linear_branch(x).float()  # 0.03: as in `vae.Encoder`, small steps must stay small in mu
        return mu, logvar.clamp(*LOGVAR_RANGE)


class AttentionDecoder(nn.Module):
    """Latents (B, C, S/8, S/8) -> images (B, 3, S, S), float32: the mean of a Gaussian, so not squeezed into [-1, 1]."""

    def __init__(self, channels: list[int], latent_channels: int, groups: int, patch: int, blocks: int):
        super().__init__()
        self.conv_branch = sequential(  # shapes for S = 56, patch = 1
            post_quant_conv=nn.Conv2d(latent_channels, latent_channels, kernel_size=1),
            conv_in=conv(latent_channels, channels[-1]),  # (B, d, 7, 7)
            **middle_stage(channels[-1], groups),
            **resolution_stages("up", channels[::-1], blocks, groups),  # (B, c, 14, 14), (B, b, 28, 28), (B, a, 56, 56)
            norm_out=GroupNorm(groups, channels[0], EPS),
            act_out=nn.SiLU(),
            conv_out=conv(channels[0], 3 * patch**2),
            **({"pixels": nn.PixelShuffle(patch)} if patch > 1 else {}),  # (B, 3, 56, 56)
        )
        self.linear_branch = None

    def forward(self, z: Tensor) -> Tensor:
        x_hat = self.conv_branch(z).float()
        return x_hat if self.linear_branch is None else x_hat + self.linear_branch(z).float()


class AttentionVAE(BaseVAE):
    """A VAE whose latent is a small picture, (C, S/8, S/8).

    width: channels at full size (128 is Stable Diffusion's). latent_channels: C; 8 make 8·7·7 = 392 numbers. groups: of
    each normalisation, a divisor of the width (32 at full width). image_size: S, a multiple of 8. Raises ValueError for
    sizes that do not fit.
    """

    kind, patch, blocks = "attention", 1, (2, 3)  # residual blocks at each size: in the encoder, in the decoder

    def __init__(self, width: int = 32, latent_channels: int = 8, groups: int = 8, image_size: int = 56):
        super().__init__(image_size, (latent_channels, image_size // 8, image_size // 8))
        if min(width, groups) < 1 or width % groups:
            raise ValueError(f"width={width} must be a multiple of groups={groups}; both at least 1")
        sizes = {"latent_channels": latent_channels, "groups": groups}
        self.architecture = {"kind": self.kind, "width": width, "image_size": image_size} | sizes
        channels = [width * multiple for multiple in MULTIPLES[: 5 - self.patch.bit_length()]]
        self.encoder = AttentionEncoder(channels, **sizes, patch=self.patch, blocks=self.blocks[0])
        self.decoder = AttentionDecoder(channels, **sizes, patch=self.patch, blocks=self.blocks[1])


class SpatialVAE(AttentionVAE):
    """The attention VAE for a laptop: it takes 2 x 2 pixels as one, has fewer blocks, and a linear branch.

    The linear branch is that of `VAE`, in place: one linear map from every window of 16 x 16 pixels to the numbers of its
    place, another back. It finds what principal components of windows would find within the first epochs. width: channels at
    half of the full size; everything else as in `AttentionVAE`.
    """

    kind, patch, blocks = "spatial", 2, (1, 1)

    def __init__(self, width: int = 32, latent_channels: int = 8, groups: int = 8, image_size: int = 56):
        super().__init__(width, latent_channels, groups, image_size)
        window = {"kernel_size": 16, "stride": 8, "padding": 4}
        self.encoder.linear_branch = nn.Conv2d(3, latent_channels, **window)
        self.decoder.linear_branch = nn.ConvTranspose2d(latent_channels, 3, **window)
        nn.init.normal_(self.encoder.linear_branch.weight, std=0.3)
        nn.init.normal_(self.decoder.linear_branch.weight, std=0.01)
        nn.init.zeros_(self.decoder.linear_branch.bias)
        nn.init.zeros_(self.decoder.conv_branch.conv_out.weight)  # the convolutions start at nothing
