"""How far a set of generated images is from real ones, seen through the features of a network.

`DogFeatures` comes with the package: small, trained without labels on dog photos by `recipes/dog_features.py`. Distances in its
features are not FID, which is defined by Inception's.

uint8 images (N, 3, S, S) -> extract_features -> features (N, F) -> sample_metrics, compare_features

A distance alone means little: between two sets of photos of the same dogs it is above zero, and it falls with their number. So
each number comes with its real-vs-real baseline: the same for as many other real images against the same reference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from ..files import WEIGHTS, load_weights
from ..models.layers import conv

Extractor = Callable[[Tensor], Tensor]  # uint8 (B, 3, S, S) -> (B, F)


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


@dataclass(frozen=True)
class Comparison:
    """Generated images against as many real ones.

    frechet: the squared distance of two Gaussians fitted to the features (Heusel et al. 2017); in Inception's features, FID.
    The others use balls around each image that reach, open, to its k-th neighbour in its own set. precision: fraction of
    generated images inside any real one's ball; recall: of real images inside a generated one's (Kynkäänniemi et al. 2019,
    who take k = 3). coverage: fraction of real images whose ball holds a generated one (Naeem et al. 2020, with k = 5).
    """

    frechet: float
    precision: float
    recall: float
    coverage: float


@dataclass(frozen=True)
class SampleMetrics:
    """generated: against real images; real_vs_real: other real images against the same ones; `n_images` on every side.

    nearest_ratio: median distance from generated images to the nearest training image, over that of held-out real images, among
    features: near 0 where training images are repeated. None without training images.
    """

    n_images: int
    k: int
    seed: int
    generated: Comparison
    real_vs_real: Comparison
    nearest_ratio: float | None = None


@torch.no_grad()
def extract_features(extractor: Extractor, pixels: Tensor, batch_size: int = 256) -> Tensor:
    """Features (N, F), float64 on the CPU, of uint8 images (N, 3, S, S). Puts a module into eval mode.

    Raises ValueError for other images, and for features that are not finite or not (N, F).
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ValueError(f"images must be uint8 (N, 3, S, S), not {pixels.dtype} {tuple(pixels.shape)}")
    device = next(extractor.eval().parameters(), pixels).device if isinstance(extractor, nn.Module) else pixels.device
    features = torch.cat([extractor(batch.to(device)).cpu().double() for batch in pixels.split(batch_size)])
    if features.ndim != 2 or not features.isfinite().all():
        broken = int((~features.isfinite()).sum())
        raise ValueError(f"features must be finite and (N, F); the extractor gave {tuple(features.shape)}, {broken} not finite")
    return features


def sample_metrics(*, generated: Tensor, real: Tensor, train: Tensor | None = None, k: int = 5, seed: int = 0) -> SampleMetrics:
    """Compare features of generated images with those of real ones; each (N, F), from `extract_features`.

    A random half of `real` (seed: of the choice) is the reference, the other half gives the real-vs-real baseline, and as many
    generated images are taken. train: features of training images, for `nearest_ratio`. k: see `Comparison`. Raises ValueError
    for too few images, and for features that do not fit.
    """
    n = min(len(generated), len(real) // 2)
    if n <= k:
        found = f"{len(generated)} generated and {len(real)} real images"
        raise ValueError(f"{found}: k={k} needs at least {k + 1} and {2 * k + 2}")
    generator = torch.Generator().manual_seed(seed)
    reference, others = real[torch.randperm(len(real), generator=generator)[: 2 * n]].split(n)
    drawn = generated[torch.randperm(len(generated), generator=generator)[:n]]
    compared = [compare_features(generated=features, real=reference, k=k) for features in (drawn, others)]
    if train is None:
        return SampleMetrics(n, k, seed, *compared)
    distance, held_out = (nearest_features(features, train)[1] for features in (generated, real))
    return SampleMetrics(n, k, seed, *compared, float(distance.median() / held_out.median()))


def compare_features(*, generated: Tensor, real: Tensor, k: int = 5) -> Comparison:
    """Compare features (N, F) with as many of real images, float64: the numbers depend on how many there are."""
    if real.shape != generated.shape or len(real) <= k:
        found = f"features {tuple(generated.shape)} (generated) and {tuple(real.shape)} (real)"
        raise ValueError(f"{found}: both sides need the same number, above k={k}")
    identity = nn.Identity()  # torchmetrics is given features for images
    identity.num_features = real.shape[1]
    frechet = FrechetInceptionDistance(feature=identity)
    frechet.update(real, real=True)
    frechet.update(generated, real=False)
    # each point is its own nearest one, so its k-th neighbour comes as number k + 1
    radius, generated_radius = (_distances(x, x).kthvalue(k + 1).values for x in (real, generated))
    distance = _distances(real, generated)
    in_real = distance < radius[:, None]  # [i, j]: is generated image j in the ball of real image i?
    in_generated = distance < generated_radius  # [i, j]: is real image i in the ball of generated image j?
    inside = in_real.any(0), in_generated.any(1), in_real.any(1)
    return Comparison(frechet.compute().item(), *(fraction.double().mean().item() for fraction in inside))


def nearest_features(features: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """(indices, Euclidean distances), each (M,), of the training features (N, F) nearest to each of (M, F)."""
    distance, index = zip(*(_distances(batch, train).min(1) for batch in features.split(512)), strict=True)
    return torch.cat(index), torch.cat(distance)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")  # exactly 0 between equal points
