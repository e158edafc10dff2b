"""Figures of samples: how far generated images are from real photos, seen through the features of a network.

pixels, uint8 (N, 3, S, S) → extract_features → (N, F) → compare_features, nearest_training → SampleMetrics

A distance alone means little: between two sets of photos of the same dogs it is above zero, and falls with their number.
So each figure comes with its floor: the same for as many other real photos against the same reference. Figures do not
depend on the order of the images nor, beyond float32 rounding, on the batch size.
"""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn as nn
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3
from torchmetrics.image.kid import KernelInceptionDistance

INCEPTION = "inception"
Extractor = Callable[[Tensor], Tensor]  # uint8 (B, 3, S, S) -> (B, F)


class Comparison(NamedTuple):
    """Images against a reference of as many. A ball is around one point and reaches, open, to its k-th neighbour in its set.

    precision: share of the images in any of the reference's balls; recall: the other way round (Kynkäänniemi et al. 2019).
    density: how many of the reference's balls an image is in, over k; coverage: share of the reference's balls that hold an
    image (Naeem et al. 2020, eq. 3 and 4). For two sets of one source: 1 on average, and about 1 - 2^-k.
    """

    frechet: float
    kernel: float
    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True)
class NearestTraining:
    """index, distance (M,): of each sample's nearest training photo; held_out_distance (H,): of each held-out photo's."""

    index: Tensor
    distance: Tensor
    held_out_distance: Tensor

    @property
    def median_ratio(self) -> float:
        """Median distance of the samples over that of held-out photos: near 0 when training photos are repeated."""
        return float(self.distance.quantile(0.5) / self.held_out_distance.quantile(0.5))

    @property
    def fraction_nearer(self) -> float:
        """Share of the samples as near to a training photo as the nearest 1 % of held-out photos: about 0.01 if all is well."""
        return float((self.distance <= self.held_out_distance.quantile(0.01)).double().mean())

    def closest(self, n: int) -> list[tuple[int, int, float]]:
        """(sample, training photo, distance) of the `n` closest pairs, closest first."""
        order = self.distance.argsort(stable=True)[:n].tolist()
        return [(i, int(self.index[i]), float(self.distance[i])) for i in order]


@dataclass(frozen=True)
class SampleMetrics:
    """samples: generated against real images; floor: other real images against the same ones; `n_images` on every side."""

    n_images: int
    features: str  # the network's name
    weights: str | None  # which weights, where the network says so
    reference: str  # what the real images are
    resize: str  # how they became this small
    k: int
    seed: int
    samples: Comparison
    floor: Comparison
    nearest: NearestTraining | None  # None without training photos

    def summary(self) -> dict[str, float | str | None]:
        """All figures as plain values, for a table or a JSON file. Only in Inception's features are they called FID and KID."""
        distances = ("fid", "kid") if self.features == INCEPTION else (f"frechet_{self.features}", f"kernel_{self.features}")
        names = (*distances, "precision", "recall", "density", "coverage")
        about = ("n_images", "features", "weights", "reference", "resize", "k", "seed")
        values = {name: getattr(self, name) for name in about}
        values |= dict(zip(names, self.samples, strict=True))
        values |= {f"{name}_floor": value for name, value in zip(names, self.floor, strict=True)}
        if self.nearest is not None:
            values |= {"nearest_median_ratio": self.nearest.median_ratio, "nearest_share": self.nearest.fraction_nearer}
        return values


def sample_metrics(
    generated: Tensor,
    real: Tensor,
    extractor: Extractor | str,
    *,
    reference: str,
    resize: str,
    train: Tensor | None = None,
    k: int = 5,
    seed: int = 0,
    batch_size: int = 256,
) -> SampleMetrics:
    """Compare generated images with real ones; all uint8 (N, 3, S, S) of one size.

    One half of `real` is the reference, the other gives the floor, and as many generated images are taken; `seed` and what
    is in the pictures decide which. extractor: a network like `load_dog_features()`, or "inception" for torchmetrics' own.
    train: the training photos, for `nearest`, which looks at every image. Raises ValueError for other shapes, too few images
    and features that are not finite, OSError when Inception's weights cannot be had.
    """
    sets = {"generated": generated, "real": real} | ({} if train is None else {"train": train})
    for which, pixels in sets.items():
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (3, *real.shape[2:]):
            raise ValueError(f"{which} is {pixels.dtype} {tuple(pixels.shape)}: give uint8 (N, 3, S, S), all of one size")
    n = min(len(generated), len(real) // 2)
    if n <= k:
        raise ValueError(
            f"{len(generated)} generated and {len(real)} real images: k={k} needs at least {k + 1} and {2 * k + 2}"
        )
    network, name = _network_and_name(extractor)
    features = {which: extract_features(network, pixels, batch_size) for which, pixels in sets.items()}
    ours = features["generated"][_by_content(generated, seed)[:n]]
    half, other_half = features["real"][_by_content(real, seed)[: 2 * n]].split(n)
    samples, floor = compare_features(half, ours, k), compare_features(half, other_half, k)
    nearest = None
    if train is not None:
        held_out_distance = nearest_training(features["real"], features["train"])[1]
        nearest = NearestTraining(*nearest_training(features["generated"], features["train"]), held_out_distance)
    return SampleMetrics(n, name, getattr(network, "weights", None), reference, resize, k, seed, samples, floor, nearest)


@torch.no_grad()
def extract_features(extractor: Extractor, pixels: Tensor, batch_size: int = 256) -> Tensor:
    """Features (N, F), float64 on the CPU, of uint8 images (N, 3, S, S). Puts a module into eval mode."""
    device = next(extractor.eval().parameters(), pixels).device if isinstance(extractor, nn.Module) else pixels.device
    features = torch.cat([extractor(some.to(device)).cpu().double() for some in pixels.split(batch_size)])
    if features.ndim != 2 or not features.isfinite().all():
        broken = int((~features.isfinite()).sum())
        raise ValueError(f"features must be finite and (N, F); the extractor gave {tuple(features.shape)}, {broken} not finite")
    return features


def compare_features(real: Tensor, ours: Tensor, k: int = 5) -> Comparison:
    """Compare features (N, F) with those of a reference, float64 and as many, because the figures depend on how many."""
    if real.shape != ours.shape or len(real) <= k:
        raise ValueError(f"features {tuple(real.shape)} and {tuple(ours.shape)}: both sides need the same number, above k={k}")
    given = nn.Identity()  # torchmetrics is given features for images
    given.num_features = real.shape[1]
    with warnings.catch_warnings(action="ignore"), torch.random.fork_rng(devices=[]):
        frechet = FrechetInceptionDistance(feature=given)
        kernel = KernelInceptionDistance(feature=given, subsets=1, subset_size=len(real))  # the unbiased one, of all there are
        for metric in (frechet, kernel):
            metric.update(real, real=True)
            metric.update(ours, real=False)
        figures = frechet.compute().item(), kernel.compute()[0].item()
    # each point is its own nearest one, so its k-th neighbour comes as number k + 1
    radius, our_radius = (_distances(some, some).kthvalue(k + 1).values for some in (real, ours))
    distance = _distances(real, ours)
    in_real = distance < radius[:, None]  # [i, j]: is image j in the ball of real image i?
    in_ours = distance < our_radius  # [i, j]: is real image i in the ball of image j?
    shares = in_real.any(0), in_ours.any(1), in_real.double().sum(0) / k, in_real.any(1)
    return Comparison(*figures, *(share.double().mean().item() for share in shares))


def nearest_training(features: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """(indices, Euclidean distances), each (M,), of the training features (N, F) nearest to each of (M, F)."""
    distance, index = zip(*(_distances(some, train).min(1) for some in features.split(512)), strict=True)
    return torch.cat(index), torch.cat(distance)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")  # exactly 0 between equal points


def _by_content(pixels: Tensor, seed: int) -> Tensor:
    """A seeded order of the images, (N,), that follows from what is in each, wherever it stands."""
    keys = [hashlib.sha256(b"%d:" % seed + image.tobytes()).digest() for image in pixels.cpu().numpy()]
    return torch.tensor(sorted(range(len(keys)), key=keys.__getitem__))


def _network_and_name(extractor: Extractor | str) -> tuple[Extractor, str]:
    function_or_class = extractor if hasattr(extractor, "__name__") else type(extractor)
    name = extractor if isinstance(extractor, str) else getattr(extractor, "name", function_or_class.__name__)
    if isinstance(extractor, str) != (name == INCEPTION):
        raise ValueError(f"extractor {name!r}: give a network not called {INCEPTION!r}, or that word for torchmetrics' own")
    if name != INCEPTION:
        return extractor, name
    try:
        return NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"]), name
    except (ModuleNotFoundError, OSError, RuntimeError) as error:  # not installed; not reached; not whole
        raise OSError(
            f"Inception's weights cannot be had ({error}): FID and KID need torch-fidelity and, once, the internet; "
            "load_dog_features() needs neither"
        ) from error
