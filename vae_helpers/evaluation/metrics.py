"""Figures on held-out images, and the two linear baselines that a network has to beat.

Every function is told which images it is on; none depends on the batch size: noise belongs to an image, not to a batch, and
averages are taken over images in float64.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from ..models.inference import decode_latents, encode_images, to_float
from ..models.losses import BETA, kl_per_dim, noise_variance
from ..models.vae import VAE, reparameterize

USED_KL = 0.01  # nats: a latent dimension that carries less is counted as unused


@dataclass(frozen=True)
class EvalMetrics:
    """What a model does on images it was not trained on.

    recon_sampled, recon_mean: mean squared error of x_hat from a sampled z and from the mean. psnr_*: the same in dB.
    kl: nats per image; kl_by_dimension: (latent_dim,), its parts. loss: recon_sampled + beta * kl.
    """

    n_images: int
    beta: float
    loss: float
    recon_sampled: float
    recon_mean: float
    kl: float
    kl_by_dimension: np.ndarray

    @property
    def psnr_sampled(self) -> float:
        return psnr(self.recon_sampled)

    @property
    def psnr_mean(self) -> float:
        return psnr(self.recon_mean)

    @property
    def dimensions_used(self) -> int:
        """How many latent dimensions carry at least 0.01 nats on average."""
        return int((self.kl_by_dimension >= USED_KL).sum())

    def summary(self) -> dict[str, float]:
        """The figures as plain numbers with their names, for a table or a JSON file."""
        names = (
            "n_images",
            "beta",
            "loss",
            "recon_sampled",
            "recon_mean",
            "psnr_sampled",
            "psnr_mean",
            "kl",
            "dimensions_used",
        )
        return {name: getattr(self, name) for name in names}


def psnr(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of images in [-1, 1] (peak 2), from an error averaged over all of them."""
    return 10 * math.log10(4 / mean_squared_error) if mean_squared_error > 0 else math.inf


@torch.no_grad()
def evaluate_vae(vae: VAE, pixels: Tensor, beta: float = BETA, seed: int = 0, batch_size: int = 256) -> EvalMetrics:
    """The figures of `vae` on uint8 images (N, 3, S, S). seed: of the noise for the sampled z."""
    mu, logvar = encode_images(vae, pixels, batch_size)
    eps = torch.randn(mu.shape, generator=torch.Generator().manual_seed(seed))

    def error(z: Tensor) -> float:
        total = 0.0
        for some, x in zip(z.split(batch_size), pixels.split(batch_size), strict=True):
            total += (decode_latents(vae, some) - to_float(x)).double().square().sum().item()
        return total / pixels.numel()

    by_dimension = kl_per_dim(mu, logvar).flatten(1).double().mean(0).numpy()
    recon, kl = error(reparameterize(mu, logvar, eps)), float(by_dimension.sum())
    return EvalMetrics(len(pixels), beta, recon + beta * kl, recon, error(mu), kl, by_dimension)


@dataclass(frozen=True)
class ImageQuality:
    """How like their originals pictures are. mse: in the range [-1, 1]; psnr: dB, peak 2; ssim: 1 for the same (Wang 2004)."""

    mse: float
    psnr: float
    ssim: float


def image_quality(x_hat: Tensor, pixels: Tensor, batch_size: int = 256) -> ImageQuality:
    """MSE, PSNR and SSIM over all images, by torchmetrics (SSIM: Gaussian window of 11 pixels, averaged over images).

    x_hat: float (N, 3, S, S), taken as what can be shown, so held to [-1, 1]; pixels: uint8, the originals. Raises
    ValueError for other shapes or types.
    """
    if x_hat.shape != pixels.shape or pixels.dtype != torch.uint8 or not x_hat.is_floating_point() or not len(pixels):
        raise ValueError(
            f"similarity compares float images with as many uint8 ones; got {x_hat.dtype} {tuple(x_hat.shape)} "
            f"and {pixels.dtype} {tuple(pixels.shape)}"
        )
    psnr_of, ssim_of = PeakSignalNoiseRatio(data_range=(-1.0, 1.0)), StructuralSimilarityIndexMeasure(data_range=2.0)
    for some, x in zip(x_hat.cpu().float().split(batch_size), pixels.split(batch_size), strict=True):
        for figure in (psnr_of, ssim_of):
            figure.update(some.clamp(-1, 1), to_float(x))
    mse = (psnr_of.sum_squared_error / psnr_of.total).item()
    return ImageQuality(mse, psnr_of.compute().item(), ssim_of.compute().item())


def webp(pixels: Tensor, quality: int = 0) -> tuple[Tensor, float]:
    """Images through WebP and back: (uint8 (N, 3, S, S), bytes a picture on average). quality: 0, the smallest, to 100."""
    back, sizes = [], []
    for image in pixels.permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "WEBP", quality=quality, method=6)
        sizes.append(file.tell())
        back.append(torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1))
    return torch.stack(back), sum(sizes) / len(sizes)


def active_units(mu: Tensor, threshold: float = 0.01) -> int:
    """How many latent numbers answer to the picture: the variance of their means over images is above `threshold`.

    mu: (N, *latent_shape). Burda, Grosse & Salakhutdinov 2016, section 5.2.
    """
    return int((mu.flatten(1).double().var(0) > threshold).sum())


@dataclass(frozen=True)
class AggregatePosteriorGap:
    """Where the encoder puts images, against where N(0, I) would.

    spectrum, prior_spectrum: (L,), variances along the principal axes of the images' z and of as many draws from N(0, I),
    largest first: were the images' z like the prior, they would agree. distance, prior_distance: (N,), from each z to the
    closest mean of a training image, over the latent numbers that carry nats: draws that lie further out are in the holes.
    """

    spectrum: np.ndarray
    prior_spectrum: np.ndarray
    distance: np.ndarray
    prior_distance: np.ndarray

    @property
    def fraction_beyond(self) -> float:
        """Share of the prior's draws that are further from every training image than 95% of the held-out images' z are."""
        return float((self.prior_distance > np.quantile(self.distance, 0.95)).mean())


def aggregate_posterior_gap(
    mu: Tensor, logvar: Tensor, train_mu: Tensor, seed: int = 0, carries: float = 0.1
) -> AggregatePosteriorGap:
    """The aggregate posterior of held-out images beside the prior, N(0, I).

    mu, logvar: (N, *latent_shape) of held-out images; train_mu: (M, *latent_shape) of training images. seed: of the draws.
    carries: nats (KL, on average) from which on a latent number counts in the distances.
    """
    generator = torch.Generator().manual_seed(seed)
    z = reparameterize(mu, logvar, torch.randn(mu.shape, generator=generator)).flatten(1).double()
    prior = torch.randn(z.shape, generator=generator).double()
    used = kl_per_dim(mu, logvar).flatten(1).mean(0) >= carries
    used = used if used.any() else torch.ones_like(used)
    near = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(train_mu.flatten(1).double()[:, used].numpy())
    distances = [near.kneighbors(points[:, used].numpy())[0][:, 0] for points in (z, prior)]
    spectra = [torch.linalg.eigvalsh(torch.cov(points.T)).flip(0).numpy() for points in (z, prior)]
    return AggregatePosteriorGap(*spectra, *distances)


def pca_error(train: Tensor, test: Tensor, n_dimensions: int) -> float:
    """Mean squared error on `test` of PCA with so many dimensions, fitted on `train`; both uint8 (N, 3, S, S).

    The best any linear autoencoder of that width can do; it pays nothing for its code.
    """
    _, coordinates, squared_norm = _pca(train, test, n_dimensions)
    return float((squared_norm - coordinates.square().sum(1)).mean() / test[0].numel())


def ppca_figures(train: Tensor, test: Tensor, n_dimensions: int, beta: float = BETA, fitted: PCA | None = None) -> EvalMetrics:
    """Probabilistic PCA with the noise that `beta` stands for: the linear VAE at its optimum, in closed form.

    With noise variance s = beta·D/2 and the covariance's eigenvalues l > s, the loadings are sqrt(l - s) along each principal
    axis and the posterior has variance s/l (Tipping & Bishop 1999, eq. 7 and 15; Lucas et al. 2019 for the linear VAE).
    Eigenvalues below s are left unused. train, test: uint8 (N, 3, S, S). fitted: `principal_components` of train, if at hand.
    """
    pca, coordinates, squared_norm = _pca(train, test, n_dimensions, fitted)
    n_dims = test[0].numel()
    noise = noise_variance(beta, n_dims)
    eigenvalue = torch.from_numpy(pca.explained_variance_).double()
    used = eigenvalue > noise
    gain = torch.where(used, 1 - noise / eigenvalue, 0)  # of reconstruction: loading times posterior mean
    variance = torch.where(used, noise / eigenvalue, 1)
    mu = coordinates * (gain / eigenvalue).sqrt()
    by_dimension = 0.5 * (mu.square() + variance - 1 - variance.log()).mean(0)
    left_out = squared_norm - coordinates.square().sum(1)
    from_mean = (left_out + ((1 - gain) * coordinates).square().sum(1)).mean().item() / n_dims
    sampled = from_mean + ((eigenvalue - noise).clamp(min=0) * variance).sum().item() / n_dims
    kl = float(by_dimension.sum())
    return EvalMetrics(len(test), beta, sampled + beta * kl, sampled, from_mean, kl, by_dimension.numpy())


def pca_reconstructions(train: Tensor, test: Tensor, n_dimensions: int, fitted: PCA | None = None) -> Tensor:
    """x_hat (N, 3, S, S) of `test` from so many principal components of `train`; both uint8. fitted: these, if at hand."""
    pca = fitted or principal_components(train, n_dimensions)
    back = pca.inverse_transform(pca.transform(to_float(test).flatten(1).numpy()))
    return torch.from_numpy(back).float().view(test.shape)


def principal_components(train: Tensor, n_dimensions: int) -> PCA:
    """scikit-learn's PCA fitted on uint8 images (N, 3, S, S) in [-1, 1], with at most N - 1 dimensions; always the same."""
    flat = to_float(train).flatten(1).numpy()
    return PCA(min(n_dimensions, len(train) - 1), svd_solver="randomized", random_state=0).fit(flat)


def _pca(train: Tensor, test: Tensor, n_dimensions: int, fitted: PCA | None = None) -> tuple[PCA, Tensor, Tensor]:
    pca = fitted or principal_components(train, n_dimensions)
    centred = to_float(test).flatten(1).numpy() - pca.mean_
    coordinates = torch.from_numpy(centred @ pca.components_.T).double()
    return pca, coordinates, torch.from_numpy(centred).double().square().sum(1)


def nearest_images(queries: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(indices, distances) of the image in `pixels` closest to each query: root mean squared difference, range [-1, 1].

    queries: float (B, 3, S, S) in [-1, 1]; pixels: uint8 (N, 3, S, S).
    """
    search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(to_float(pixels).flatten(1).numpy())
    distance, index = search.kneighbors(queries.detach().cpu().float().flatten(1).numpy())
    return torch.from_numpy(index[:, 0]), torch.from_numpy(distance[:, 0]) / math.sqrt(queries[0].numel())
