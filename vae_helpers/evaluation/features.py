"""A small network that turns an image of a dog into 128 numbers, so that sets of images can be compared without the internet.

It was trained without labels on dog photos by `models/features/train.py`; figures taken in its features are not FID.
"""

import hashlib
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor

from ..files import WEIGHTS

SHIPPED = WEIGHTS / "dog_features.safetensors"
# of the file above, as the recipe prints it: figures from other weights cannot be compared
SHIPPED_SHA256 = "b562680170b12e2c5a660147f3828177858f39c22a88d97ff319b12bcb885692"


def conv(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(c_out))


class Residual(nn.Module):
    """relu(x + f(x)): two convolutions beside a skip. (B, C, H, W) -> (B, C, H, W)"""

    def __init__(self, width: int):
        super().__init__()
        self.f = nn.Sequential(conv(width, width), nn.ReLU(), conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.f(x))


class DogFeatures(nn.Module):
    """uint8 images (B, 3, S, S) -> features (B, 128) float32; what torchmetrics asks of a feature network.

    Images of another size are first resized to 56 x 56, bilinear, antialiased. Over the photos it was trained on, each
    feature has mean 0 and variance 1. In eval mode the features of an image do not depend on its batch.
    """

    image_size = 56
    num_features = 128
    name = "dog_features"
    weights: str | None = None  # which weights these are, for reports

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(
            *(conv(3, 24), nn.ReLU()),  # (B, 24, 56, 56): every pixel is looked at, so noise and blur are seen
            *(conv(24, 48, stride=2), nn.ReLU(), Residual(48)),  # (B, 48, 28, 28)
            *(conv(48, 96, stride=2), nn.ReLU(), Residual(96), Residual(96)),  # (B, 96, 14, 14)
            *(conv(96, 192, stride=2), nn.ReLU(), Residual(192)),  # (B, 192, 7, 7)
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),  # (B, 192)
            *(nn.Linear(192, self.num_features), nn.BatchNorm1d(self.num_features, affine=False)),  # (B, 128)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(f"images must be uint8 (B, 3, S, S), not {pixels.dtype} {tuple(pixels.shape)}")
        x = pixels.float()
        if x.shape[-2:] != (self.image_size, self.image_size):
            x = F.interpolate(x, (self.image_size, self.image_size), mode="bilinear", antialias=True)
        return self.network(x / 127.5 - 1)


def load_dog_features(path: str | Path = SHIPPED) -> DogFeatures:
    """The trained network on the CPU, in eval mode, without gradients.

    Raises FileNotFoundError when there are no weights, ValueError for a file that is damaged, belongs to another network
    or, at the shipped path, is not the one that was shipped.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights {str(path)!r}: restore the file, or train them (models/features/README.md)")
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if path.resolve() == SHIPPED.resolve() and sha256 != SHIPPED_SHA256:
        raise ValueError(f"{str(path)!r} is not the file that was shipped: its SHA-256 is {sha256}, not {SHIPPED_SHA256}")
    extractor = DogFeatures()
    try:
        extractor.load_state_dict(load(content))
    except Exception as error:  # a damaged file can make a reader raise anything
        reason = str(error).strip().split("\n")[-1].strip()
        raise ValueError(f"{str(path)!r} does not hold the weights of DogFeatures: {reason}") from None
    extractor.weights = sha256[:8]
    return extractor.eval().requires_grad_(False)
