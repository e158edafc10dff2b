"""Metrics of a model and of pictures, on images that are named by the caller.

None depends on the batch size: noise belongs to an image, not to a batch, and averages are taken over images in float64.

Bounds on log P(x): a byte stands for an interval of width 2/255 in [-1, 1], so P(x), the probability of the 8-bit image, is the
decoder's density times that width for each of its D numbers. That is the interval's mass to second order in its width: good
while the noise is some ten bytes wide or more, and no longer a bound once it is narrower.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from torchmetrics.image import StructuralSimilarityIndexMeasure

from ..models.inference import decode_latents, encode_images, to_float
from ..models.losses import BETA, kl_divergence, kl_per_dim
from ..models.vae import BaseVAE, reparameterize
from .sample_metrics import nearest_features

BYTE_WIDTH = 2 / 255


@dataclass(frozen=True)
class EvalMetrics:
    """What a model does on a set of images.

    recon_sampled, recon_mean: mean squared error of x_hat from a sampled z, and from the mean; psnr_*: the same in dB. kl: nats
    per image; kl_per_dim: (L,), its parts. loss: recon_sampled + beta * kl. active_units: see the function.
    """

    n_images: int
    beta: float
    loss: float
    recon_sampled: float
    recon_mean: float
    psnr_sampled: float
    psnr_mean: float
    kl: float
    active_units: int
    kl_per_dim: np.ndarray

    def summary(self) -> dict[str, float]:
        """All but kl_per_dim: plain numbers with their names, for a table or a JSON file."""
        return {name: value for name, value in asdict(self).items() if name != "kl_per_dim"}


def psnr(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of images in [-1, 1] (peak 2), from an error averaged over all of them."""
    return 10 * math.log10(4 / mean_squared_error) if mean_squared_error > 0 else math.inf


def squared_errors(vae: BaseVAE, z: Tensor, pixels: Tensor, batch_size: int = 256) -> Tensor:
    """‖x - x_hat‖² of each uint8 image and what the z beside it is decoded to: (N,) float64."""
    batches = zip(z.split(batch_size), pixels.split(batch_size), strict=True)
    return torch.cat([(decode_latents(vae, zs) - to_float(x)).double().square().flatten(1).sum(1) for zs, x in batches])


def evaluate_vae(vae: BaseVAE, pixels: Tensor, beta: float = BETA, seed: int = 0, batch_size: int = 256) -> EvalMetrics:
    """The metrics of `vae` on uint8 images (N, 3, S, S). seed: of the noise for the sampled z."""
    mu, logvar = encode_images(vae, pixels, batch_size)
    z = reparameterize(mu, logvar, torch.randn(mu.shape, generator=torch.Generator().manual_seed(seed)))
    drawn, mean = (squared_errors(vae, at, pixels, batch_size).sum().item() / pixels.numel() for at in (z, mu))
    kls = kl_per_dim(mu, logvar).flatten(1).double().mean(0).numpy()
    kl = float(kls.sum())
    return EvalMetrics(len(pixels), beta, drawn + beta * kl, drawn, mean, psnr(drawn), psnr(mean), kl, active_units(mu), kls)


def active_units(mu: Tensor, threshold: float = 0.01) -> int:
    """How many latent numbers respond to the image: the variance of their means over images is above `threshold`.

    mu: (N, *latent_shape). Burda, Grosse & Salakhutdinov 2016, section 5.2.
    """
    return int((mu.flatten(1).double().var(0) > threshold).sum())


@dataclass(frozen=True)
class ImageQuality:
    """How alike images and originals are. mse: of the range [-1, 1]; psnr: dB, peak 2; ssim: 1 for the same (Wang 2004)."""

    mse: float
    psnr: float
    ssim: float


def image_quality(x_hat: Tensor, pixels: Tensor, batch_size: int = 256) -> ImageQuality:
    """MSE, PSNR and SSIM over all images (SSIM by torchmetrics: Gaussian window of 11 pixels, averaged over images).

    x_hat: float (N, 3, S, S), clamped to [-1, 1] as if shown; pixels: uint8, the originals. Raises ValueError for other
    shapes or types.
    """
    if x_hat.shape != pixels.shape or pixels.dtype != torch.uint8 or not x_hat.is_floating_point() or not len(pixels):
        found = f"{x_hat.dtype} {tuple(x_hat.shape)} and {pixels.dtype} {tuple(pixels.shape)}"
        raise ValueError(f"image_quality compares float images with as many uint8 ones; got {found}")
    squared_error, ssim = 0.0, StructuralSimilarityIndexMeasure(data_range=2.0)
    for batch, x in zip(x_hat.cpu().float().split(batch_size), pixels.split(batch_size), strict=True):
        squared_error += (batch.clamp(-1, 1) - to_float(x)).double().square().sum().item()
        ssim.update(batch.clamp(-1, 1), to_float(x))
    mse = squared_error / pixels.numel()
    return ImageQuality(mse, psnr(mse), ssim.compute().item())


@dataclass(frozen=True)
class AggregatePosteriorGap:
    """Where the encoder puts images, against where N(0, I) would.

    spectrum, prior_spectrum: (L,), variances along the principal axes of the images' z and of as many draws from N(0, I),
    largest first: alike when the aggregate posterior has the prior's moments. distance, prior_distance: (N,), from each z to
    the closest mean of a training image, over the latent numbers that carry nats: draws that lie further out are in holes.
    """

    spectrum: np.ndarray
    prior_spectrum: np.ndarray
    distance: np.ndarray
    prior_distance: np.ndarray

    @property
    def fraction_beyond(self) -> float:
        """Fraction of the prior's draws that are further from every training image than 95% of the held-out images' z are."""
        return float((self.prior_distance > np.quantile(self.distance, 0.95)).mean())


def aggregate_posterior_gap(mu: Tensor, logvar: Tensor, train_mu: Tensor, seed: int = 0) -> AggregatePosteriorGap:
    """The aggregate posterior of held-out images beside the prior, N(0, I).

    mu, logvar: (N, *latent_shape) of held-out images; train_mu: (M, *latent_shape) of training images. seed: of the draws.
    In the distances, latent numbers count that carry 0.1 nats or more on average.
    """
    generator = torch.Generator().manual_seed(seed)
    z = reparameterize(mu, logvar, torch.randn(mu.shape, generator=generator)).flatten(1).double()
    prior = torch.randn(z.shape, generator=generator).double()
    used = kl_per_dim(mu, logvar).flatten(1).mean(0) >= 0.1
    used = used if used.any() else torch.ones_like(used)
    train = train_mu.flatten(1).double()[:, used]
    distances = [nearest_features(points[:, used], train)[1].numpy() for points in (z, prior)]
    spectra = [torch.linalg.eigvalsh(torch.cov(points.T)).flip(0).numpy() for points in (z, prior)]
    return AggregatePosteriorGap(*spectra, *distances)


def bits_per_dimension(nats: Tensor | float, n_dims: int) -> Tensor | float:
    """Bits that each of the `n_dims` numbers of an image costs, from log P(x) in nats: -nats / (D ln 2). Raw bytes: 8."""
    return -nats / (n_dims * math.log(2))


def elbo(vae: BaseVAE, pixels: Tensor, noise_variance: float, n_samples: int = 1, seed: int = 0) -> Tensor:
    """The evidence lower bound on log P(x) in nats, for each image: E[log P(x|z)] - KL(q ‖ p), (N,) float64.

    pixels: uint8 (N, 3, S, S). noise_variance: of the decoder's Gaussian noise, σ². The expectation is a mean over `n_samples`
    draws of z (seed: of these), the KL is in closed form. Raises ValueError for a variance that is not above 0 and for fewer
    than one sample. Kingma & Welling 2014, eq. 3.
    """
    log_px, _, kl = _posterior_samples(vae, pixels, noise_variance, n_samples, seed)
    return log_px.mean(0) - kl


def importance_weighted_bound(
    vae: BaseVAE, pixels: Tensor, noise_variance: float, n_importance_samples: int = 64, seed: int = 0
) -> Tensor:
    """log of the mean over `n_importance_samples` draws of P(x|z) p(z) / q(z|x), in nats, for each image: (N,) float64.

    On average never above log P(x), and nearer to it with more samples; with one it is the ELBO, on average. Arguments and
    errors as in `elbo`. Burda, Grosse & Salakhutdinov 2016, eq. 8.
    """
    log_px, log_ratio, _ = _posterior_samples(vae, pixels, noise_variance, n_importance_samples, seed)
    return (log_px + log_ratio).logsumexp(0) - math.log(n_importance_samples)


def _posterior_samples(vae: BaseVAE, pixels: Tensor, noise_variance: float, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """log P(x|z) and log p(z) / q(z|x) of `n` draws of z for each image, each (n, N), and the KL, (N,); all float64."""
    if n < 1 or not noise_variance > 0:
        raise ValueError(f"{n} samples of z must be at least 1, noise_variance={noise_variance} must be above 0")
    (mu, logvar), generator = encode_images(vae, pixels), torch.Generator().manual_seed(seed)
    constant = math.log(BYTE_WIDTH) - 0.5 * math.log(2 * math.pi * noise_variance)
    log_px, log_ratio = [], []
    for _ in range(n):
        eps = torch.randn(mu.shape, generator=generator)
        z = reparameterize(mu, logvar, eps)
        log_px.append(pixels[0].numel() * constant - squared_errors(vae, z, pixels) / (2 * noise_variance))
        # the constants of both Gaussians cancel
        log_ratio.append(0.5 * (eps.square() + logvar - z.square()).flatten(1).double().sum(1))
    return torch.stack(log_px), torch.stack(log_ratio), kl_divergence(mu, logvar).double()
