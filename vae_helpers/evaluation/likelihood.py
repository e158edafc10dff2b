"""How probable an image is to a model: lower bounds on log P(x), in nats and in bits per dimension.

A byte stands for an interval of width 2/255 in [-1, 1], so P(x), the probability of the 8-bit image, is the decoder's
density times that width for each of its D numbers. That is the interval's mass to second order in its width: good while the
noise is some ten bytes wide or more, and no longer a bound once it is narrower.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn as nn
from sklearn.decomposition import PCA
from torch import Tensor

from ..models.inference import decode_latents, encode_images, to_float
from ..models.losses import BETA, kl_divergence, noise_variance
from ..models.vae import VAE, reparameterize
from .metrics import principal_components

BYTE_WIDTH = 2 / 255


def bits_per_dimension(nats: Tensor | float, n_dims: int) -> Tensor | float:
    """Bits that each of the `n_dims` numbers of an image costs, from log P(x) in nats: -nats / (D ln 2). Raw bytes: 8."""
    return -nats / (n_dims * math.log(2))


def elbo(vae: VAE, pixels: Tensor, variance: float, n_samples: int = 1, seed: int = 0, batch_size: int = 256) -> Tensor:
    """The evidence lower bound on log P(x) in nats, for each image: E[log P(x|z)] - KL(q ‖ p), (N,) float64.

    pixels: uint8 (N, 3, S, S). variance: of the decoder's Gaussian noise, σ². The expectation is a mean over `n_samples`
    draws (seed: of these), the KL is closed-form. Raises ValueError for a variance or a number of samples that cannot be.
    Kingma & Welling 2014, eq. 3.
    """
    mu, logvar = encode_images(vae, pixels, batch_size)
    log_px = [_log_px(vae, pixels, z, variance, batch_size) for z, _ in _draws(mu, logvar, n_samples, seed)]
    return torch.stack(log_px).mean(0) - kl_divergence(mu, logvar).double()


def importance_weighted_bound(
    vae: VAE, pixels: Tensor, variance: float, n_samples: int = 64, seed: int = 0, batch_size: int = 256
) -> Tensor:
    """log of the mean over `n_samples` draws of P(x|z) p(z) / q(z|x), in nats, for each image: (N,) float64.

    On average never above log P(x), and nearer to it with more samples; with one it is the ELBO, on average. Arguments as in
    `elbo`. Burda, Grosse & Salakhutdinov 2016, eq. 8.
    """
    mu, logvar = encode_images(vae, pixels, batch_size)
    log_weights = []
    for z, eps in _draws(mu, logvar, n_samples, seed):
        # log p(z) - log q(z|x); the constants of both Gaussians cancel
        log_ratio = 0.5 * (eps.square() + logvar - z.square()).flatten(1).double().sum(1)
        log_weights.append(_log_px(vae, pixels, z, variance, batch_size) + log_ratio)
    return torch.stack(log_weights).logsumexp(0) - math.log(n_samples)


def _draws(mu: Tensor, logvar: Tensor, n_samples: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(z, eps) of all images, for each sample in turn. Noise belongs to an image, so batches change nothing."""
    if n_samples < 1:
        raise ValueError(f"n_samples={n_samples} must be at least 1")
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n_samples):
        eps = torch.randn(mu.shape, generator=generator)
        yield reparameterize(mu, logvar, eps), eps


def _log_px(vae: VAE, pixels: Tensor, z: Tensor, variance: float, batch_size: int) -> Tensor:
    """log P(x|z) of each image with the z beside it, (N,) float64."""
    if not variance > 0:
        raise ValueError(f"variance={variance} must be above 0")
    both = zip(pixels.split(batch_size), z.split(batch_size), strict=True)
    errors = [(decode_latents(vae, some) - to_float(x)).double().square().flatten(1).sum(1) for x, some in both]
    constant = math.log(BYTE_WIDTH) - 0.5 * math.log(2 * math.pi * variance)
    return pixels[0].numel() * constant - torch.cat(errors) / (2 * variance)


class LinearVAE(nn.Module):
    """Probabilistic PCA as a VAE: linear decoder, exact posterior, and log P(x) in closed form to check bounds against.

    Its decoder is x_hat = mean + z @ loadings with noise of `variance`; fitted on uint8 images (N, 3, S, S) by `n_dimensions`
    principal components, with the noise that `beta` stands for. `spread` widens the posterior that `encode` gives (1:
    exact), so that a bound has something to lose. fitted: `principal_components` of train, if at hand. Tipping & Bishop 1999;
    Lucas et al. 2019.
    """

    def __init__(self, train: Tensor, n_dimensions: int, beta: float = BETA, spread: float = 1.0, fitted: PCA | None = None):
        super().__init__()
        pca = fitted or principal_components(train, n_dimensions)
        self.latent_shape, self.image_shape = (pca.n_components_,), train.shape[1:]
        self.variance = noise_variance(beta, train[0].numel())
        eigenvalue = torch.from_numpy(pca.explained_variance_.astype(np.float64)).clamp_min(self.variance)
        fixed = {
            "mean": torch.from_numpy(pca.mean_),
            "axes": torch.from_numpy(pca.components_),
            "gain": (eigenvalue - self.variance).sqrt() / eigenvalue,  # from a coordinate to the posterior's mean
            "stretch": (eigenvalue - self.variance).sqrt(),
            "logvar": (self.variance / eigenvalue * spread**2).log(),
            "eigenvalue": eigenvalue,
        }
        for name, value in fixed.items():
            setattr(self, name, nn.Parameter(value.float(), requires_grad=False))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) in [-1, 1] -> mu, logvar, each (B, n_dimensions)."""
        mu = (x.flatten(1) - self.mean) @ self.axes.T * self.gain
        return mu, self.logvar.expand_as(mu)

    def decode(self, z: Tensor) -> Tensor:
        """(B, n_dimensions) -> x_hat (B, 3, S, S)."""
        return (self.mean + (z * self.stretch) @ self.axes).unflatten(1, self.image_shape)

    def log_likelihood(self, pixels: Tensor) -> Tensor:
        """log P(x) in nats of uint8 images, exactly: x is Gaussian with the data's mean and covariance. (N,) float64."""
        x = to_float(pixels).flatten(1).double() - self.mean.double()
        along, eigenvalue = x @ self.axes.double().T, self.eigenvalue.double()
        n_dims, n = x.shape[1], len(eigenvalue)
        beside = x.square().sum(1) - along.square().sum(1)
        mahalanobis = (along.square() / eigenvalue).sum(1) + beside / self.variance
        log_det = eigenvalue.log().sum() + (n_dims - n) * math.log(self.variance)
        return n_dims * (math.log(BYTE_WIDTH) - 0.5 * math.log(2 * math.pi)) - 0.5 * (log_det + mahalanobis)
