"""Ways through the latent space: between two dogs, and along what many dogs or their labels show."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from torch import Tensor

from ..models.losses import kl_per_dim


def lerp(z_from: Tensor, z_to: Tensor, t: Tensor) -> Tensor:
    """Points on the straight line from one latent (t = 0) to the other (t = 1): (T,) -> (T, *latent_shape)."""
    return torch.lerp(z_from[None], z_to[None], t.view(-1, *[1] * z_from.dim()).to(z_from))


def slerp(z_from: Tensor, z_to: Tensor, t: Tensor) -> Tensor:
    """Points on the great-circle arc from one latent (t = 0) to the other (t = 1): (T,) -> (T, *latent_shape).

    The norm goes evenly from one end's to the other's, where a straight line cuts through the inside of the shell on which
    N(0, I) has its mass. Falls back to the line for latents that point the same or the opposite way. Shoemake 1985 (slerp).
    """
    a, b = z_from.flatten().float(), z_to.flatten().float()
    angle = torch.arccos((torch.dot(a, b) / (a.norm() * b.norm())).clamp(-1, 1))
    if not 1e-4 < angle < math.pi - 1e-4:  # also when a latent is all zeros
        return lerp(z_from, z_to, t)
    t = t[:, None].to(a)
    direction = (torch.sin((1 - t) * angle) * a / a.norm() + torch.sin(t * angle) * b / b.norm()) / torch.sin(angle)
    points = direction * torch.lerp(a.norm(), b.norm(), t)
    points = torch.where(t == 0, a, torch.where(t == 1, b, points))  # the ends to the last bit
    return points.view(-1, *z_from.shape).to(z_from)


@dataclass(frozen=True)
class Directions:
    """Ways to walk, each with a coordinate that says how far along it a latent lies.

    names: K labels. vectors: (K, *latent_shape); adding the k-th to a latent raises its k-th coordinate by one and leaves the
    other coordinates alone. coef: (K, *latent_shape) and intercept: (K,) give a latent's coordinates, coef · z + intercept.
    low, high: (K,), the 1% and 99% quantiles of the coordinates over the dogs that the directions were made from. scores:
    (K,), what they are ordered by, largest first, and score_name, what that is.
    """

    names: list[str]
    vectors: Tensor
    coef: Tensor
    intercept: Tensor
    low: Tensor
    high: Tensor
    scores: Tensor
    score_name: str

    def __len__(self) -> int:
        return len(self.names)

    def coordinates(self, z: Tensor) -> Tensor:
        """(B, *latent_shape) -> (B, K)"""
        return z.flatten(1) @ self.coef.flatten(1).T + self.intercept

    def move(self, z: Tensor, k: int, value: float | Tensor) -> Tensor:
        """Latents whose k-th coordinate is `value`, the others as in z. (B, *latent_shape) -> (B, *latent_shape).

        value: a number, or one for each latent, (B,).
        """
        gap = (value - self.coordinates(z)[:, k]).view(-1, *[1] * (z.dim() - 1))
        return z + gap * self.vectors[k]

    def take(self, indices: Sequence[int]) -> "Directions":
        """The directions at `indices`, in that order."""
        i = list(indices)
        picked = {name: getattr(self, name)[i] for name in ("vectors", "coef", "intercept", "low", "high", "scores")}
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
    spread, scores = variance.sqrt()[:, None], variance / x.var(0).sum().clamp_min(1e-12)
    coef, names = axes / spread, [f"axis {i + 1}" for i in range(n)]
    return _directions(mu, names, axes * spread, coef, -coef @ x.mean(0), scores, "share of variance")


def dimensions_by_kl(mu: Tensor, logvar: Tensor, n: int = 8) -> Directions:
    """Single latent numbers, those that carry most nats first; the coordinate is the number itself.

    mu, logvar: (N, *latent_shape), the dogs' posteriors. Scores: KL per dimension in nats, averaged over the dogs.
    """
    kl = kl_per_dim(mu, logvar).flatten(1).double().mean(0)
    order = kl.argsort(descending=True)[:n]
    one_hot = torch.eye(len(kl), dtype=torch.float64)[order]
    names = [f"z[{d}]" for d in order.tolist()]
    return _directions(mu, names, one_hot, one_hot, torch.zeros(len(order)), kl[order], "KL (nats)")


def attribute_directions(mu: Tensor, labels: Mapping[str, Tensor], seed: int = 0, ridge: float = 1.0) -> Directions:
    """Directions that move one named attribute and hold the other attributes still, fitted by linear regression.

    A ridge regression reads every attribute off the latent means. It is fitted on three quarters of the dogs (seed: of
    that choice); its R² on the others are the scores. The vectors come from the regression the other way round, of the
    latents on all readings: how dogs differ for each unit of one reading while the others stay. With coef as the rows
    of W and the means' covariance C that is V = (W C Wᵀ)⁻¹ W C. (The shortest step that changes one reading only, the
    pseudo-inverse of W, leans on numbers that hardly vary among dogs; the decoder does not follow it.)

    mu: (N, *latent_shape). labels: name -> (N,) numbers, one for each dog; coordinates are in their units. Raises ValueError
    for labels of another length, that are not finite or the same for all dogs, and for fewer than 8 dogs.
    """
    x = mu.flatten(1).double()
    ys = {name: torch.as_tensor(values).double() for name, values in labels.items()}
    wrong = [name for name, y in ys.items() if len(y) != len(x) or not y.std() > 0]  # not > 0: also for nan
    if wrong or not ys or len(x) < 8:
        raise ValueError(f"{len(x)} dogs, attributes {wrong or list(ys)}: each needs 8 dogs or more, finite and not all alike")
    y = torch.stack(list(ys.values()), dim=1)
    spread = y.std(0)
    fit, rest = train_test_split(range(len(x)), test_size=0.25, random_state=seed)
    model = Ridge(alpha=ridge).fit(x[fit].numpy(), (y / spread)[fit].numpy())
    score = torch.from_numpy(r2_score(y[rest] / spread, model.predict(x[rest].numpy()), multioutput="raw_values"))
    coef, intercept = (torch.from_numpy(found) for found in (model.coef_, model.intercept_))
    coef, intercept = coef.view(len(ys), -1) * spread[:, None], intercept * spread
    covariance = coef @ torch.cov(x[fit].T)
    vectors = torch.linalg.lstsq(covariance @ coef.T, covariance).solution
    found = _directions(mu, list(ys), vectors, coef, intercept, score, "held-out R²")
    return found.take(score.argsort(descending=True).tolist())


def _directions(mu, names, vectors, coef, intercept, scores, score_name: str) -> Directions:
    """`Directions` in float32 and the latents' shape, with the quantiles of the dogs' coordinates."""
    shape = (len(names), *mu.shape[1:])
    coordinates = mu.flatten(1).double() @ coef.double().T + intercept
    low, high = torch.quantile(coordinates, torch.tensor([0.01, 0.99]).double(), dim=0).float()
    numbers = (vectors.float().view(shape), coef.float().view(shape), intercept.float(), low, high, scores.float())
    return Directions(names, *numbers, score_name)
