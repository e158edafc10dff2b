"""How well known factors can be read from latent means, and from which latent numbers."""

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
    """R² on held-out images, (K,), of ridge regression (linear) and of kernel ridge regression (nonlinear).

    1 is perfect, 0 is no better than predicting the average. importance: (K, L); row k shares out the nonlinear R² of factor k
    (or 0, where that is negative) among the L latent numbers.
    """

    names: list[str]
    linear: np.ndarray
    nonlinear: np.ndarray
    importance: np.ndarray

    def summary(self) -> dict[str, dict[str, float]]:
        """Both R² of each factor, the best read first."""
        order = (-self.nonlinear).argsort(kind="stable")
        return {self.names[k]: {"linear": float(self.linear[k]), "nonlinear": float(self.nonlinear[k])} for k in order}


def recover_factors(mu: Tensor, labels: Mapping[str, Tensor], seed: int = 0) -> FactorRecovery:
    """Predict every factor from the means: fit on three quarters of the images (seed: of that choice), score on the others.

    mu: posterior means (N, *latent_shape). labels: factor -> (N,) numbers; yes and no are 1 and 0. Importance is by permutation
    (Breiman 2001): the increase of the squared error when one latent number is shuffled among held-out images, 3 times. Raises
    ValueError for fewer than 8 images or 2 latent numbers, and for labels of another length, all equal or not finite.
    """
    x, y = _check(mu, labels)
    fitted, held_out = train_test_split(range(len(x)), test_size=0.25, random_state=seed)
    linear = Ridge(alpha=1.0).fit(x[fitted], y[fitted]).predict(x[held_out]).reshape(len(held_out), -1)
    predict, rng = _kernel_regression(x[fitted], y[fitted], seed), np.random.default_rng(seed)
    prediction = predict(x[held_out])
    repeated = np.tile(held_out, 3)
    shuffled = np.concatenate([rng.permutation(held_out) for _ in range(3)])
    error, error_increase = ((prediction - y[held_out]) ** 2).mean(0), np.empty((y.shape[1], x.shape[1]))
    for i in range(x.shape[1]):
        z = x[repeated]
        z[:, i] = x[shuffled, i]
        error_increase[:, i] = (((predict(z) - y[repeated]) ** 2).mean(0) - error).clip(min=0)
    linear_r2, nonlinear_r2 = (r2_score(y[held_out], p, multioutput="raw_values") for p in (linear, prediction))
    shares = error_increase / error_increase.sum(1, keepdims=True).clip(min=1e-300)
    return FactorRecovery(list(labels), linear_r2, nonlinear_r2, shares * nonlinear_r2.clip(min=0)[:, None])


def _check(mu: Tensor, labels: Mapping[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """The means (N, L) and the labels (N, K) in float64."""
    x, lengths = mu.flatten(1).double().numpy(), sorted({len(values) for values in labels.values()})
    if lengths != [len(x)] or len(x) < 8 or x.shape[1] < 2:
        found = f"{len(labels)} factors of {lengths} images, latents {x.shape}"
        raise ValueError(f"{found}: give one number an image, for at least 8 images, and 2 latent numbers or more")
    y = np.stack([torch.as_tensor(values).double().numpy() for values in labels.values()], axis=1)
    for name, spread in zip(labels, np.ptp(y, axis=0), strict=True):
        if not 0 < spread < np.inf:  # also for nan
            raise ValueError(f"factor {name!r} is the same for all images, or not finite: leave it out")
    return x, y


def _kernel_regression(x: np.ndarray, y: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """(B, L) -> (B, K): ridge regression on a wide RBF kernel, with 1,000 landmarks at most (Williams & Seeger 2001).

    Each factor's penalty is chosen by leave-one-out error. With 0.03 or 0.2 for 0.1 mean R² on toy dogs moved by < 0.01.
    """
    gamma = 0.1 / max(x.var(0).sum(), 1e-12)
    kernel = Nystroem(gamma=gamma, n_components=min(len(x), 1000), random_state=seed).fit(x)
    ridge = RidgeCV(alphas=np.logspace(-6, 2, 9), alpha_per_target=True).fit(kernel.transform(x), y)
    coef = kernel.normalization_.T @ np.atleast_2d(ridge.coef_).T  # applied at once: cheaper than `kernel.transform`
    return lambda z: rbf_kernel(z, kernel.components_, gamma) @ coef + ridge.intercept_
