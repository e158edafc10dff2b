"""How probable an image is to a model: lower bounds on log P(x), in nats and in bits per dimension.

A byte stands for an interval of width 2/255 in [-1, 1], so P(x), the probability of the 8-bit image, is the decoder's
density times that width for each of its D numbers. That is the interval's mass to second order in its width: good while the
noise is some ten bytes wide or more, and no longer a bound once it is narrower.
"""

import math

import torch
from torch import Tensor

from ..models.inference import encode_images
from ..models.losses import kl_divergence
from ..models.vae import BaseVAE, reparameterize
from .metrics import squared_errors

BYTE_WIDTH = 2 / 255


def bits_per_dimension(nats: Tensor | float, n_dims: int) -> Tensor | float:
    """Bits that each of the `n_dims` numbers of an image costs, from log P(x) in nats: -nats / (D ln 2). Raw bytes: 8."""
    return -nats / (n_dims * math.log(2))


def elbo(vae: BaseVAE, pixels: Tensor, noise_variance: float, n_samples: int = 1, seed: int = 0) -> Tensor:
    """The evidence lower bound on log P(x) in nats, for each image: E[log P(x|z)] - KL(q ‖ p), (N,) float64.

    pixels: uint8 (N, 3, S, S). noise_variance: of the decoder's Gaussian noise, σ². The expectation is a mean over `n_samples`
    draws of z (seed: of these), the KL is in closed form. Raises ValueError for a variance that is not above 0 and for fewer
    than one sample. Kingma & Welling 2014, eq. 3.
    """
    mu, logvar = encode_images(vae, pixels)
    log_px, _ = _posterior_samples(vae, pixels, mu, logvar, noise_variance, n_samples, seed)
    return log_px.mean(0) - kl_divergence(mu, logvar).double()


def importance_weighted_bound(
    vae: BaseVAE, pixels: Tensor, noise_variance: float, n_importance_samples: int = 64, seed: int = 0
) -> Tensor:
    """log of the mean over `n_importance_samples` draws of P(x|z) p(z) / q(z|x), in nats, for each image: (N,) float64.

    On average never above log P(x), and nearer to it with more samples; with one it is the ELBO, on average. Arguments and
    errors as in `elbo`. Burda, Grosse & Salakhutdinov 2016, eq. 8.
    """
    mu, logvar = encode_images(vae, pixels)
    log_px, log_ratio = _posterior_samples(vae, pixels, mu, logvar, noise_variance, n_importance_samples, seed)
    return (log_px + log_ratio).logsumexp(0) - math.log(n_importance_samples)


def _posterior_samples(
    vae: BaseVAE, pixels: Tensor, mu: Tensor, logvar: Tensor, noise_variance: float, n: int, seed: int
) -> tuple[Tensor, Tensor]:
    """log P(x|z) and log p(z) / q(z|x) of `n` draws of z for each image, each (n, N) float64."""
    if n < 1 or not noise_variance > 0:
        raise ValueError(f"{n} samples of z must be at least 1, noise_variance={noise_variance} must be above 0")
    generator = torch.Generator().manual_seed(seed)
    constant = math.log(BYTE_WIDTH) - 0.5 * math.log(2 * math.pi * noise_variance)
    log_px, log_ratio = [], []
    for _ in range(n):
        eps = torch.randn(mu.shape, generator=generator)
        z = reparameterize(mu, logvar, eps)
        log_px.append(pixels[0].numel() * constant - squared_errors(vae, z, pixels) / (2 * noise_variance))
        # the constants of both Gaussians cancel
        log_ratio.append(0.5 * (eps.square() + logvar - z.square()).flatten(1).double().sum(1))
    return torch.stack(log_px), torch.stack(log_ratio)
