"""Networks that turn images into feature vectors, so that sets of images can be compared.

`DogFeatures` comes with the package: small, trained without labels on dog photos by `recipes/dog_features.py`. Distances in its
features are not FID, which is defined by Inception's.
"""

from pathlib import Path

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.image.fid import NoTrainInceptionV3

from ..files import WEIGHTS, load_weights
from ..models.layers import conv


def conv_norm(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(conv(c_in, c_out, stride=stride, bias=False), nn.BatchNorm2d(c_out))


class Residual(nn.Module):
    """relu(x + f(x)): two convolutions beside a skip. (B, C, H, W) -> (B, C, H, W)"""

    def __init__(self, width: int):
        super().__init__()
        self.f = nn.Sequential(conv_norm(width, width), nn.ReLU(), conv_norm(width, width))

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

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(
            *(conv_norm(3, 24), nn.ReLU()),  # (B, 24, 56, 56): every pixel is looked at, so noise and blur are seen
            *(conv_norm(24, 48, stride=2), nn.ReLU(), Residual(48)),  # (B, 48, 28, 28)
            *(conv_norm(48, 96, stride=2), nn.ReLU(), Residual(96), Residual(96)),  # (B, 96, 14, 14)
            *(conv_norm(96, 192, stride=2), nn.ReLU(), Residual(192)),  # (B, 192, 7, 7)
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),  # (B, 192)
            *(nn.Linear(192, self.num_features), nn.BatchNorm1d(self.num_features, affine=False)),  # (B, 128)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.float()
        if x.shape[-2:] != (self.image_size, self.image_size):
            x = F.interpolate(x, (self.image_size, self.image_size), mode="bilinear", antialias=True)
        return self.network(x / 127.5 - 1)


def load_dog_features(path: str | Path = WEIGHTS / "dog_features.safetensors") -> DogFeatures:
    """The trained network on the CPU, in eval mode, without gradients.

    Raises FileNotFoundError when there is no such file, ValueError for one that is damaged or belongs to another network.
    """
    extractor, (state, _) = DogFeatures(), load_weights(path)
    try:
        extractor.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{str(path)!r} is not for DogFeatures: {str(error).splitlines()[-1].strip()}") from None
    return extractor.eval().requires_grad_(False)


def load_inception() -> nn.Module:
    """Inception v3 as FID is defined by it: uint8 images -> features (B, 2048). Its weights (95 MB) are downloaded once.

    Raises OSError when they cannot be had.
    """
    try:
        return NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"])
    except (ModuleNotFoundError, OSError, RuntimeError) as error:  # not installed; not reached; not whole
        raise OSError(f"Inception's weights cannot be had ({error}); load_dog_features() needs no download") from error
