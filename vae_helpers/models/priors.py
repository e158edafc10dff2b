"""Where new latents come from: priors p(z), each learned from the latents of the training photos.

`StandardNormal` (what the VAE was trained towards) → `FullGaussian` → `GaussianMixture` → `flow.LatentFlow`

Each has `sample(n, generator)`, `log_prob(z)` and `save(path)`, which `load_prior` reads. The Gaussians have `fit(mu, std)`;
the flow is trained by `training.fit_flow`.
"""

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import sklearn.mixture
import torch
import torch.nn as nn
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal
from torch.nn.functional import one_hot

from ..files import save_weights


class Prior(nn.Module):
    """A distribution of latents. latent_shape: (latent_dim,) or (C, H, W) of one z.

    A kind of prior has these methods, takes `latent_shape` first, and keeps each further argument in an attribute of its name.
    """

    def __init__(self, latent_shape: tuple[int, ...]):
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        self.latent_size = math.prod(self.latent_shape)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n, *latent_shape), float32 on the CPU. generator: a CPU generator, for the same latents again."""

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, (N,) float64 on the CPU, of latents z (N, *latent_shape)."""

    def check_latents(self, mu: Tensor, std: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(mu, std), detached, float32, std zero where it is None. Raises ValueError for what no prior can be learned from."""
        std = torch.zeros_like(mu) if std is None else std
        if tuple(mu.shape[1:]) != self.latent_shape or len(mu) < 2 or mu.shape != std.shape:
            wanted = f"latents (N, {', '.join(map(str, self.latent_shape))}), N > 1"
            raise ValueError(f"a prior learns from {wanted}; got mu {tuple(mu.shape)} and std {tuple(std.shape)}")
        bad = ~(mu.isfinite() & std.isfinite() & (std >= 0)).flatten(1).all(1)
        if bad.any():
            raise ValueError(f"{bad.sum()} of {len(mu)} latents hold NaN, infinite numbers or a negative std")
        return mu.detach().float(), std.detach().float()

    def save(self, path: str | Path, dtype: torch.dtype = torch.float32, encoder: str = "") -> None:
        """Write the prior to one safetensors file, whole or not at all.

        dtype: torch.float16 takes half the room. encoder: the digest of the one whose latents it has learned, if known.
        """
        arguments = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        about = {"prior": type(self).__name__, "arguments": arguments, "encoder": encoder}
        save_weights(path, self.state_dict(), about, dtype)


class StandardNormal(Prior):
    """N(0, I), the prior of Kingma & Welling 2014: nothing to learn."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, *self.latent_shape, generator=generator)

    def log_prob(self, z: Tensor) -> Tensor:
        return Normal(0.0, 1.0).log_prob(z.flatten(1).cpu().double()).sum(1)


class GaussianMixture(Prior):
    """`n_components` Gaussians with means of their own and one covariance for all, by expectation maximisation.

    One covariance, since a photo collection has too few latents for one per component: 392 numbers have 77,028 covariances.
    names: of the components, where each is a breed, say; there are as many as names then.
    """

    def __init__(self, latent_shape: tuple[int, ...], n_components: int = 16, names: Sequence[str] = ()):
        super().__init__(latent_shape)
        n_components = len(names) or n_components
        self.n_components, self.names = n_components, tuple(names)
        self.register_buffer("weights", torch.full((n_components,), 1 / n_components))
        self.register_buffer("means", torch.zeros(n_components, self.latent_size))
        self.register_buffer("scale_tril", torch.eye(self.latent_size))  # L with L·Lᵀ = covariance

    def fit(self, mu: Tensor, std: Tensor | None = None, label: Tensor | None = None) -> Self:
        """Learn from posterior means and standard deviations (N, *latent_shape), or from draws z alone; returns itself.

        label: (N,), the component that each latent is of, where that is known: every one has at least one.

        The covariance of draws from posteriors is that of their means, plus the mean of their variances. With the root of that
        mean as the unit of each number, it is 1: scikit-learn adds as much (`reg_covar`) to every covariance that it estimates.
        (Of several components, all that may be drawn from one posterior goes to each in the same share.) A millionth of the
        means' variance is added, too, since fewer latents than numbers leave directions without width.
        Raises ValueError for latents of another shape, NaN or infinite ones.
        """
        means, stds = (x.flatten(1).cpu().double() for x in self.check_latents(mu, std))
        unit = (stds.square().mean(0) + 1e-6 * means.var(0)).sqrt().clamp(min=1e-9)
        x = means / unit
        if label is None:
            em = sklearn.mixture.GaussianMixture(self.n_components, covariance_type="tied", random_state=0, reg_covar=1.0)
            em.fit(x.numpy())
            weights, centres, covariance = (torch.from_numpy(found) for found in (em.weights_, em.means_, em.covariances_))
        else:
            member = one_hot(label, self.n_components).double()
            weights, centres = member.mean(0), member.T @ x / member.sum(0)[:, None]
            covariance = torch.cov((x - centres[label]).T, correction=0) + torch.eye(self.latent_size)
        self.weights, self.means = weights.float(), (centres * unit).float()
        self.scale_tril = (unit[:, None] * torch.linalg.cholesky(covariance)).float().contiguous()
        return self

    def sample(self, n: int, generator: torch.Generator | None = None, name: str | Sequence[str] | None = None) -> Tensor:
        """As every prior's `sample`; of the component `name`, or one for each, where given (ValueError: there is none)."""
        eps = torch.randn(n, self.latent_size, generator=generator)
        component = torch.multinomial(self.weights.cpu(), n, replacement=True, generator=generator)
        if name:
            component = torch.tensor([self.names.index(each) for each in ([name] * n if isinstance(name, str) else name)])
        return (self.means.cpu()[component] + eps @ self.scale_tril.cpu().T).unflatten(1, self.latent_shape)

    def log_prob(self, z: Tensor) -> Tensor:
        weights, means, scale_tril = (x.cpu().double() for x in (self.weights, self.means, self.scale_tril))
        parts = MultivariateNormal(means, scale_tril=scale_tril)
        return MixtureSameFamily(Categorical(weights), parts).log_prob(z.flatten(1).cpu().double())


class FullGaussian(GaussianMixture):
    """One Gaussian with the mean and the whole covariance of the latents: what every richer prior has to beat."""

    def __init__(self, latent_shape: tuple[int, ...]):
        super().__init__(latent_shape, n_components=1)
