"""Where new latents come from: a ladder of priors p(z), each fitted to the latents of the training photos.

`StandardNormal` (what the VAE was trained towards) → `FullGaussian` → `GaussianMixture` → `flow.LatentFlow`
Each has `fit(latents)`, `sample(n, generator)`, `save(path)` and `load(path)`.
"""

import inspect
import json
import math
from pathlib import Path
from typing import Self

import sklearn.mixture
import torch
import torch.nn as nn
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ..files import atomic_write


class Prior(nn.Module):
    """A distribution of latents. latent_shape: (latent_dim,) or (C, H, W) of one z.

    A kind of prior takes `latent_shape` first and keeps each further argument in an attribute of its name.
    """

    def __init__(self, latent_shape: tuple[int, ...]):
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        self.latent_size = math.prod(self.latent_shape)

    def fit(self, latents: Tensor) -> Self:
        """Learn from latents (N, *latent_shape), best z and not only mu; returns itself. Raises ValueError for others."""
        raise NotImplementedError

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n, *latent_shape), float32 on the CPU. generator: a CPU generator, for the same latents again."""
        raise NotImplementedError

    def save(self, path: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the prior to one safetensors file, whole or not at all. dtype: torch.float16 takes half the room."""
        arguments = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        about = {"prior": type(self).__name__, "arguments": json.dumps(arguments)}
        with atomic_write(path) as partial:
            weights = {name: x.detach().cpu().to(dtype).contiguous() for name, x in self.state_dict().items()}
            partial.write_bytes(save(weights, about))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote, in float32 and eval mode. Raises ValueError for a file of another kind of prior."""
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("prior") != cls.__name__:
                raise ValueError(f"{str(path)!r} holds {about.get('prior', 'no prior')}, not a {cls.__name__}")
            prior = cls(**json.loads(about["arguments"]))
            prior.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
        return prior.eval()

    def _checked(self, latents: Tensor) -> Tensor:
        if tuple(latents.shape[1:]) != self.latent_shape or len(latents) < 2:
            raise ValueError(
                f"fit takes latents (N, {', '.join(map(str, self.latent_shape))}), N > 1; got {tuple(latents.shape)}"
            )
        return latents.detach().float()


class StandardNormal(Prior):
    """N(0, I), the prior of Kingma & Welling 2014: nothing to learn."""

    def fit(self, latents: Tensor) -> Self:
        self._checked(latents)
        return self

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, *self.latent_shape, generator=generator)


class FullGaussian(Prior):
    """One Gaussian with the mean and the whole covariance of the latents: what every richer prior has to beat."""

    def __init__(self, latent_shape: tuple[int, ...]):
        super().__init__(latent_shape)
        self.register_buffer("mean", torch.zeros(self.latent_size))
        self.register_buffer("factor", torch.eye(self.latent_size))  # L with L·Lᵀ = covariance

    def fit(self, latents: Tensor) -> Self:
        flat = self._checked(latents).flatten(1).cpu().double()
        covariance = torch.cov(flat.T).reshape(self.latent_size, self.latent_size)
        tiny = 1e-6 * covariance.diagonal().mean() + 1e-12  # fewer latents than numbers leave directions without width
        self.mean = flat.mean(0).float()
        self.factor = torch.linalg.cholesky(covariance + tiny * torch.eye(len(covariance))).float().contiguous()
        return self

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        eps = torch.randn(n, self.latent_size, generator=generator)
        return (self.mean.cpu() + eps @ self.factor.cpu().T).unflatten(1, self.latent_shape)


class GaussianMixture(Prior):
    """`n_components` Gaussians with means of their own and one covariance for all, by expectation maximisation.

    One covariance, since a photo collection has too few latents for one per component: 392 numbers have 77,028 covariances.
    """

    def __init__(self, latent_shape: tuple[int, ...], n_components: int = 16):
        super().__init__(latent_shape)
        self.n_components = n_components
        self.register_buffer("weights", torch.full((n_components,), 1 / n_components))
        self.register_buffer("means", torch.zeros(n_components, self.latent_size))
        self.register_buffer("factor", torch.eye(self.latent_size))  # L with L·Lᵀ = covariance

    def fit(self, latents: Tensor) -> Self:
        flat = self._checked(latents).flatten(1).cpu().double().numpy()
        found = sklearn.mixture.GaussianMixture(self.n_components, covariance_type="tied", random_state=0).fit(flat)
        self.weights, self.means = (torch.from_numpy(x).float() for x in (found.weights_, found.means_))
        self.factor = torch.linalg.cholesky(torch.from_numpy(found.covariances_)).float().contiguous()
        return self

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        which = torch.multinomial(self.weights.cpu(), n, replacement=True, generator=generator)
        eps = torch.randn(n, self.latent_size, generator=generator)
        return (self.means.cpu()[which] + eps @ self.factor.cpu().T).unflatten(1, self.latent_shape)
