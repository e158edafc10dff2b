"""How probable an image is to a model: lower bounds on log P(x), in nats and in bits per dimension.

A byte stands for an interval of width 2/255 in [-1, 1], so P(x), the probability of the 8-bit image, is the decoder's
density times that width for each of its D numbers. That is the interval's mass to second order in its width: good while the
noise is some ten bytes wide or more, and no longer a bound once it is narrower.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..models.inference import decode_latents, encode_images, to_float
from ..models.losses import kl_divergence
from ..models.vae import BaseVAE, reparameterize

BYTE_WIDTH = 2 / 255


def bits_per_dimension(nats: Tensor | float, n_dims: int) -> Tensor | float:
    """Bits that each of the `n_dims` numbers of an image costs, from log P(x) in nats: -nats / (D ln 2). Raw bytes: 8."""
    return -nats / (n_dims * math.log(2))


def elbo(
    vae: BaseVAE, pixels: Tensor, noise_variance: float, n_samples: int = 1, seed: int = 0, batch_size: int = 256
) -> Tensor:
    """The evidence lower bound on log P(x) in nats, for each image: E[log P(x|z)] - KL(q ‖ p), (N,) float64.

    pixels: uint8 (N, 3, S, S). noise_variance: of the decoder's Gaussian noise, σ². The expectation is a mean over `n_samples`
    draws of z (seed: of these), the KL is in closed form. Raises ValueError for a variance that is not above 0 and for fewer
    than one sample. Kingma & Welling 2014, eq. 3.
    """
    mu, logvar = encode_images(vae, pixels, batch_size)
    log_px = [_log_px(vae, pixels, z, noise_variance, batch_size) for z, _ in _posterior_samples(mu, logvar, n_samples, seed)]
    return torch.stack(log_px).mean(0) - kl_divergence(mu, logvar).double()


def importance_weighted_bound(
    vae: BaseVAE, pixels: Tensor, noise_variance: float, n_importance_samples: int = 64, seed: int = 0, batch_size: int = 256
) -> Tensor:
    """log of the mean over `n_importance_samples` draws of P(x|z) p(z) / q(z|x), in nats, for each image: (N,) float64.

    On average never above log P(x), and nearer to it with more samples; with one it is the ELBO, on average. Arguments and
    errors as in `elbo`. Burda, Grosse & Salakhutdinov 2016, eq. 8.
    """
    mu, logvar = encode_images(vae, pixels, batch_size)
    log_weights = []
    for z, eps in _posterior_samples(mu, logvar, n_importance_samples, seed):
        # log p(z) - log q(z|x); the constants of both Gaussians cancel
        log_ratio = 0.5 * (eps.square() + logvar - z.square()).flatten(1).double().sum(1)
        log_weights.append(_log_px(vae, pixels, z, noise_variance, batch_size) + log_ratio)
    return torch.stack(log_weights).logsumexp(0) - math.log(n_importance_samples)


def _posterior_samples(mu: Tensor, logvar: Tensor, n: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(z, eps) of all images, `n` times. Noise belongs to an image, so the batch size changes nothing."""
    if n < 1:
        raise ValueError(f"{n} samples of z: must be at least 1")
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n):
        eps = torch.randn(mu.shape, generator=generator)
        yield reparameterize(mu, logvar, eps), eps


def _log_px(vae: BaseVAE, pixels: Tensor, z: Tensor, noise_variance: float, batch_size: int) -> Tensor:
    """log P(x|z) of each image with the z beside it, (N,) float64."""
    if not noise_variance > 0:
        raise ValueError(f"noise_variance={noise_variance} must be above 0")
    batches = zip(pixels.split(batch_size), z.split(batch_size), strict=True)
    errors = [(decode_latents(vae, zs) - to_float(x)).double().square().flatten(1).sum(1) for x, zs in batches]
    constant = math.log(BYTE_WIDTH) - 0.5 * math.log(2 * math.pi * noise_variance)
    return pixels[0].numel() * constant - torch.cat(errors) / (2 * noise_variance)
