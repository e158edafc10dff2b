"""How well known factors are recovered from latent means, and whether each has a latent number of its own.

mu: posterior means (N, *latent_shape), L numbers each. labels: K factors, name -> (N,) numbers; yes and no are 1 and 0.
ValueError: labels of another length, the same for all dogs or not finite, fewer than 8 dogs or 2 latent numbers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.metrics import r2_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import train_test_split
from torch import Tensor


@dataclass(frozen=True)
class FactorRecovery:
    """R² on held-out dogs, (K,), of ridge regression (linear) and kernel ridge regression (nonlinear): 1 is perfect, 0 no
    better than the average. importance: (K, L), in each row a factor's nonlinear R², or 0, shared out among latent numbers.
    """

    names: list[str]
    linear: np.ndarray
    nonlinear: np.ndarray
    importance: np.ndarray


def recover_factors(mu: Tensor, labels: Mapping[str, Tensor], seed: int = 0) -> FactorRecovery:
    """Read every factor off the means: fit on three quarters of the dogs (seed: of that choice), score on the others.

    The linear regression is that of `attribute_directions`. Shares of importance are by permutation (Breiman 2001): how much
    the kernel regression's squared error grows when one latent number is shuffled among held-out dogs, thrice.
    """
    x, y = _table(mu, labels)
    fit, rest = train_test_split(range(len(x)), test_size=0.25, random_state=seed)
    linear = Ridge(alpha=1.0).fit(x[fit], y[fit]).predict(x[rest]).reshape(len(rest), -1)
    read, rng = _kernel_regression(x[fit], y[fit], seed), np.random.default_rng(seed)
    shuffled, thrice = np.concatenate([rng.permutation(rest) for _ in range(3)]), np.tile(rest, 3)
    guess, growth = read(x[rest]), np.empty((y.shape[1], x.shape[1]))
    for i in range(x.shape[1]):
        z = x[thrice]
        z[:, i] = x[shuffled, i]
        growth[:, i] = ((read(z) - y[thrice]) ** 2).mean(0) - ((guess - y[rest]) ** 2).mean(0)
    linear_r2, r2 = (r2_score(y[rest], found, multioutput="raw_values") for found in (linear, guess))
    shares = growth.clip(min=0) / growth.clip(min=0).sum(1, keepdims=True).clip(min=1e-300)
    return FactorRecovery(list(labels), linear_r2, r2, shares * r2.clip(min=0)[:, None])


@dataclass(frozen=True)
class MIG:
    """gap: (K,), by which share of a factor's entropy the best latent number knows more of it than the second best; mean of
    these. In nats: information (K, L), and chance (K,), what latents shuffled among the dogs, which know nothing, seem to.
    """

    names: list[str]
    gap: np.ndarray
    mean: float
    information: np.ndarray
    chance: np.ndarray


def mutual_information_gap(mu: Tensor, labels: Mapping[str, Tensor], bins: int = 20) -> MIG:
    """Chen et al. 2018 (eq. 6), of the means in bins, as in Locatello et al. 2019, but in bins of equally many dogs.

    With few dogs independent numbers seem to share about (bins - 1)² / 2N nats (Miller 1955), 0.2 for 800 dogs: see `chance`.
    From the gap most of that cancels, since it raises all latents alike; not if one number holds a factor perfectly, which
    nothing raises: that gap falls short of 1. Factors and latents with no more than `bins` values are taken as they are.
    """
    latents, factors = ([_binned(column, bins) for column in table.T] for table in _table(mu, labels))
    order = np.random.default_rng(0).permutation(len(mu))
    information = np.array([[_information(z, v) for z in latents] for v in factors])
    chance = np.array([np.mean([_information(z[order], v) for z in latents]) for v in factors])
    second, best = np.sort(information, axis=1)[:, -2:].T
    gap = (best - second) / [_information(v, v) for v in factors]
    return MIG(list(labels), gap, float(gap.mean()), information, chance)


@dataclass(frozen=True)
class DCI:
    """disentanglement: average of by_latent (L,), 1 where a latent number serves one factor only, 0 where all alike.
    completeness: of by_factor (K,), 1 where a factor is read from one latent number only. informativeness: mean nonlinear R²,
    in the paper an error. Rotating the latent space changes the first two, not the third; where it is near 0, they are noise.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    by_latent: np.ndarray
    by_factor: np.ndarray


def dci(recovery: FactorRecovery) -> DCI:
    """Eastwood & Williams 2018 (sec. 2): 1 minus the entropy of importance, in a latent's column, in a factor's row.

    To the base K and L; 0 where nothing is read. Averages are weighted by importance, as in Locatello et al. 2019; the paper's
    completeness is `by_factor.mean()`, in which unread factors count as much. Its importances are a lasso's or a forest's.
    """
    r = recovery.importance
    if min(r.shape) < 2:
        raise ValueError(f"importance of {r.shape[0]} factors, {r.shape[1]} latent numbers: needs at least 2 of each")
    by_latent, by_factor = (np.where(r.sum(a) > 0, 1 - _entropy(r, a) / np.log(r.shape[a]), 0) for a in (0, 1))
    d, c = (float((score * r.sum(a)).sum() / max(r.sum(), 1e-300)) for a, score in enumerate((by_latent, by_factor)))
    return DCI(d, c, float(recovery.nonlinear.mean()), by_latent, by_factor)


def _table(mu: Tensor, labels: Mapping[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    x, lengths = mu.flatten(1).double().numpy(), sorted({len(values) for values in labels.values()})
    if lengths != [len(x)] or len(x) < 8 or x.shape[1] < 2:
        found = f"{len(labels)} factors of {lengths} dogs, latents {x.shape}"
        raise ValueError(f"{found}: give one number a dog, for at least 8 dogs, and 2 latent numbers or more")
    y = np.stack([torch.as_tensor(values).double().numpy() for values in labels.values()], axis=1)
    for name, spread in zip(labels, np.ptp(y, axis=0), strict=True):
        if not 0 < spread < np.inf:  # also for nan
            raise ValueError(f"factor {name!r} is the same for all dogs, or not finite: leave it out")
    return x, y


def _kernel_regression(x: np.ndarray, y: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """(B, L) -> (B, K): ridge regression on a wide RBF kernel, with 1,000 landmarks at most (Williams & Seeger 2001).

    Each factor's penalty is chosen by leave-one-out error. With 0.03 or 0.2 for 0.1 mean R² on toy dogs moved by < 0.01.
    """
    gamma = 0.1 / max(x.var(0).sum(), 1e-12)
    kernel = Nystroem(gamma=gamma, n_components=min(len(x), 1000), random_state=seed).fit(x)
    ridge = RidgeCV(alphas=np.logspace(-6, 2, 9), alpha_per_target=True).fit(kernel.transform(x), y)
    weights = kernel.normalization_.T @ np.atleast_2d(ridge.coef_).T
    return lambda z: rbf_kernel(z, kernel.components_, gamma) @ weights + ridge.intercept_


def _binned(values: np.ndarray, bins: int) -> np.ndarray:
    """(N,) -> (N,) whole numbers from 0. Equal values share a bin."""
    different, index = np.unique(values, return_inverse=True)
    return index if len(different) <= bins else np.digitize(values, np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))


def _information(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information in nats, H(a) + H(b) - H(a, b), of whole numbers (N,); of a with itself, its entropy."""
    n = max(a.max(), b.max()) + 1
    counts = np.bincount(a * n + b, minlength=n * n).reshape(n, n)
    return float(_entropy(counts.sum(0)) + _entropy(counts.sum(1)) - _entropy(counts))


def _entropy(weights: np.ndarray, axis: int | None = None) -> np.ndarray:
    """In nats, along an axis or of all, of weights scaled to sum to 1."""
    p = weights / np.maximum(weights.sum(axis, keepdims=True), 1e-300)
    return -(p * np.log(np.where(p > 0, p, 1))).sum(axis)
