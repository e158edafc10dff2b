"""The layers that the networks are built from."""

from collections import OrderedDict

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class GroupNorm(nn.GroupNorm):
    """GroupNorm that answers in the type of its input; on a CPU it computes in float32.

    There torch's kernel for bfloat16 with channels last is several times slower than to float32 and back (notebook 10).
    """

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # on a GPU it would widen what a SiLU then has to move
            wide = x.float() if x.device.type == "cpu" else x  # sums are kept in float32 in any case
            weight, bias = self.weight.to(wide.dtype), self.bias.to(wide.dtype)
            return F.group_norm(wide, self.num_groups, weight, bias, self.eps).to(x.dtype)


def sequential(**layers: nn.Module) -> nn.Sequential:
    """Layers one after another, each with a name, which its weights have in files."""
    return nn.Sequential(OrderedDict(layers))


def conv(c_in: int, c_out: int, **kw) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel_size=3, padding=1, **kw)


def zeroed(layer: nn.Module) -> nn.Module:
    """`layer` with weights of zero, so that what it is added to starts alone."""
    for weight in layer.parameters():
        nn.init.zeros_(weight)
    return layer


def upsample(c_in: int, c_out: int) -> nn.Sequential:
    """(B, c_in, H, W) -> (B, c_out, 2H, 2W): four times the channels, laid out as 2 x 2 pixels. Shi et al. 2016."""
    return nn.Sequential(nn.Conv2d(c_in, 4 * c_out, kernel_size=1), nn.PixelShuffle(2))


class Residual(nn.Module):
    """x + f(x): normalise, convolve, activation, convolve. (B, C, H, W) -> (B, C, H, W). Starts as the identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.conv1 = GroupNorm(8, channels), conv(channels, channels)
        self.conv2 = zeroed(conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(self.norm1(x))))


class ResBlock(nn.Module):
    """x + f(x), f twice: normalise, activation, convolve. (B, c_in, H, W) -> (B, c_out, H, W). Starts as its skip alone.

    style: size of a vector (B, style) that enters between the two convolutions, as a bias of every channel; 0 without one.
    """

    def __init__(self, c_in: int, c_out: int, groups: int = 8, eps: float = 1e-5, style: int = 0):
        super().__init__()
        self.norm1, self.conv1 = GroupNorm(groups, c_in, eps), conv(c_in, c_out)
        self.norm2, self.conv2 = GroupNorm(groups, c_out, eps), zeroed(conv(c_out, c_out))
        self.skip = nn.Conv2d(c_in, c_out, kernel_size=1) if c_in != c_out else nn.Identity()
        if style:
            self.bias = zeroed(nn.Linear(style, c_out))
            nn.init.normal_(self.bias.weight, std=0.3 / style**0.5)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h if style is None else h + self.bias(style)[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


def use_bfloat16(device: torch.device, precision: str = "auto") -> bool:
    """Whether to compute in bfloat16 on `device`. precision: "bfloat16", "float32", or "auto": where it is the faster one.

    It is faster only where the hardware has units for it. Raises ValueError for another word.
    """
    if precision not in ("auto", "bfloat16", "float32"):
        raise ValueError(f"precision={precision!r} must be auto, bfloat16 or float32")
    if precision == "auto" and device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "auto" and device.type == "cpu":
        can = getattr(torch.cpu, "get_capabilities", dict)()  # not there in an older torch: then float32
        return bool(can.get("amx_bf16") or can.get("avx512_bf16"))
    return precision == "bfloat16"
