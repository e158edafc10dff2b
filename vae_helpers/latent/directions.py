"""Ways through the latent space: between two dogs, along one dimension, along what many dogs or their labels show."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from torch import Tensor

from ..models.losses import kl_per_dim


def lerp(z_from: Tensor, z_to: Tensor, steps: int | Tensor) -> Tensor:
    """Points on the straight line from one latent to the other: (steps, *latent_shape).

    steps: how many, evenly from end to end, both included; or a tensor of the places themselves, from 0 to 1.
    """
    t = _places(steps).view(-1, *[1] * z_from.dim()).to(z_from)
    return torch.lerp(z_from[None], z_to[None], t)


def slerp(z_from: Tensor, z_to: Tensor, steps: int | Tensor) -> Tensor:
    """Points on the great-circle arc from one latent to the other: (steps, *latent_shape). steps: as in `interpolate`.

    The norm goes evenly from one end's to the other's, where a straight line cuts through the inside of the shell on which
    N(0, I) has its mass. Falls back to the line for latents that point the same or the opposite way. Shoemake 1985 (slerp).
    """
    a, b = z_from.flatten().float(), z_to.flatten().float()
    cosine = torch.dot(a, b) / (a.norm() * b.norm())
    angle = torch.arccos(cosine.clamp(-1, 1))
    if not 1e-4 < angle < math.pi - 1e-4:  # also when a latent is all zeros
        return lerp(z_from, z_to, steps)
    t = _places(steps)[:, None].to(a)
    direction = (torch.sin((1 - t) * angle) * a / a.norm() + torch.sin(t * angle) * b / b.norm()) / torch.sin(angle)
    points = direction * torch.lerp(a.norm(), b.norm(), t)
    points = torch.where(t == 0, a, torch.where(t == 1, b, points))  # the ends to the last bit
    return points.view(-1, *z_from.shape).to(z_from)


def traverse(z: Tensor, dimension: int, values: Tensor) -> Tensor:
    """Copies of one latent `z` in which number `dimension` (of the flattened latent) takes each of `values`.

    Returns (len(values), *latent_shape). Raises IndexError for a dimension that `z` does not have.
    """
    if not 0 <= dimension < z.numel():
        raise IndexError(f"dimension {dimension} of a latent with {z.numel()} numbers (0..{z.numel() - 1})")
    walked = z.flatten().repeat(len(values), 1)
    walked[:, dimension] = values.to(walked)
    return walked.view(len(values), *z.shape)


@dataclass(frozen=True)
class Directions:
    """Ways to walk, each with a coordinate that says how far along it a latent lies.

    names: K labels. vectors: (K, *latent_shape); adding the k-th to a latent raises its k-th coordinate by one and leaves the
    other coordinates alone. readouts: (K, *latent_shape) and offsets: (K,) give a latent's coordinates, readout · z + offset.
    low, high: (K,), the 1% and 99% quantiles of the coordinates over the dogs that the directions were made from. scores:
    (K,), what they are ordered by, largest first, and score_name, what that is.
    """

    names: list[str]
    vectors: Tensor
    readouts: Tensor
    offsets: Tensor
    low: Tensor
    high: Tensor
    scores: Tensor
    score_name: str

    def __len__(self) -> int:
        return len(self.names)

    def coordinates(self, z: Tensor) -> Tensor:
        """(B, *latent_shape) -> (B, K)"""
        return z.flatten(1) @ self.readouts.flatten(1).T + self.offsets

    def move(self, z: Tensor, k: int, value: float | Tensor) -> Tensor:
        """Latents whose k-th coordinate is `value`, the others as in z. (B, *latent_shape) -> (B, *latent_shape).

        value: a number, or one for each latent, (B,).
        """
        gap = (value - self.coordinates(z)[:, k]).view(-1, *[1] * (z.dim() - 1))
        return z + gap * self.vectors[k]

    def take(self, indices: Sequence[int]) -> "Directions":
        """The directions at `indices`, in that order."""
        i = list(indices)
        picked = {name: getattr(self, name)[i] for name in ("vectors", "readouts", "offsets", "low", "high", "scores")}
        return replace(self, names=[self.names[j] for j in i], **picked)


def principal_axes(mu: Tensor, n: int = 8) -> Directions:
    """The axes along which the dogs' means spread most, orthogonal; coordinates in standard deviations from the average dog.

    mu: (N, *latent_shape), posterior means. n: how many, at most N - 1 and the latent's size. Scores: share of variance.
    """
    n = min(n, len(mu) - 1, mu[0].numel())
    x = mu.flatten(1).double()
    variance, axes = torch.linalg.eigh(torch.cov(x.T).view(x.shape[1], -1))  # smallest first
    variance, axes = variance.flip(0)[:n].clamp_min(1e-12), axes.T.flip(0)[:n]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()  # a sign of its own, the same on every machine
    readouts = axes / variance.sqrt()[:, None]
    scores = variance / x.var(0).sum().clamp_min(1e-12)
    names = [f"axis {i + 1}" for i in range(n)]
    vectors = axes * variance.sqrt()[:, None]
    return _directions(mu, names, vectors, readouts, -readouts @ x.mean(0), scores, "share of variance")


def dimensions_by_kl(mu: Tensor, logvar: Tensor, n: int = 8) -> Directions:
    """Single latent numbers, those that carry most nats first; the coordinate is the number itself.

    mu, logvar: (N, *latent_shape), the dogs' posteriors. Scores: KL per dimension in nats, averaged over the dogs.
    """
    kl = kl_per_dim(mu, logvar).flatten(1).double().mean(0)
    order = kl.argsort(descending=True)[:n]
    one_hot = torch.eye(len(kl), dtype=torch.float64)[order]
    return _directions(
        mu, [f"z[{d}]" for d in order.tolist()], one_hot, one_hot, torch.zeros(len(order)), kl[order], "KL (nats)"
    )


def attribute_directions(mu: Tensor, labels: Mapping[str, Tensor], seed: int = 0, ridge: float = 1.0) -> Directions:
    """Directions that move one named attribute and hold the other attributes still, fitted by linear regression.

    A ridge regression reads every attribute off the latent means. It is fitted on three quarters of the dogs (seed: of
    that choice); its R² on the others are the scores. The vectors come from the regression the other way round, of the
    latents on all readings: how dogs differ for each unit of one reading while the others stay. With the readouts as rows
    of W and the means' covariance C that is V = (W C Wᵀ)⁻¹ W C. (The shortest step that changes one reading only, the
    pseudo-inverse of W, leans on numbers that hardly vary among dogs; the decoder does not follow it.)

    mu: (N, *latent_shape). labels: name -> (N,) numbers, one for each dog; coordinates are in their units. Raises ValueError
    for labels of another length, that are not finite or the same for all dogs, and for fewer than 8 dogs.
    """
    x = mu.flatten(1).double()
    lengths = {len(values) for values in labels.values()}
    if lengths != {len(x)} or len(x) < 8:
        raise ValueError(
            f"{len(labels)} attributes of {sorted(lengths)} dogs, {len(x)} latents: give one number a dog, for at least 8 dogs"
        )
    y = torch.stack([torch.as_tensor(values).double() for values in labels.values()], dim=1)
    spread = y.std(0)
    for name, s in zip(labels, spread.tolist(), strict=True):
        if not s > 0:  # also for nan
            raise ValueError(f"attribute {name!r} is the same for all dogs, or not finite: leave it out")
    fit, rest = train_test_split(range(len(x)), test_size=0.25, random_state=seed)
    model = Ridge(alpha=ridge).fit(x[fit].numpy(), (y / spread)[fit].numpy())
    score = torch.from_numpy(r2_score(y[rest] / spread, model.predict(x[rest].numpy()), multioutput="raw_values"))
    readouts = torch.from_numpy(np.atleast_2d(model.coef_)) * spread[:, None]
    offsets = torch.from_numpy(np.atleast_1d(model.intercept_)) * spread
    usual = readouts @ torch.cov(x[fit].T)
    vectors = torch.linalg.lstsq(usual @ readouts.T, usual).solution
    order = score.argsort(descending=True).tolist()
    found = _directions(mu, list(labels), vectors, readouts, offsets, score, "held-out R²")
    return found.take(order)


def _directions(mu, names, vectors, readouts, offsets, scores, score_name: str) -> Directions:
    """`Directions` in float32 and the latents' shape, with the quantiles of the dogs' coordinates."""
    shape = (len(names), *mu.shape[1:])
    coordinates = mu.flatten(1).double() @ readouts.double().T + offsets
    low, high = torch.quantile(coordinates, torch.tensor([0.01, 0.99]).double(), dim=0).float()
    numbers = (vectors.float().view(shape), readouts.float().view(shape), offsets.float(), low, high, scores.float())
    return Directions(names, *numbers, score_name)


def _places(steps: int | Tensor) -> Tensor:
    return torch.linspace(0, 1, steps) if isinstance(steps, int) else steps
