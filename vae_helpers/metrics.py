"""Figures on held-out images, and the two linear baselines that a network has to beat.

Every function is told which images it is on; none depends on the batch size: noise belongs to an image, not to a batch, and
averages are taken over images in float64.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from .data import to_signed
from .loss import BETA, kl_per_dimension, noise_variance
from .model import VAE, reparameterize

USED_KL = 0.01  # nats: a latent dimension that carries less is counted as unused


@dataclass(frozen=True)
class HeldOutFigures:
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
def encode_images(vae: VAE, pixels: Tensor, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """(mu, logvar) of uint8 images (N, 3, S, S), each (N, *latent_shape) float32 on the CPU."""
    device = next(vae.parameters()).device
    vae.eval()
    parts = [vae.encode(to_signed(some, device)) for some in pixels.split(batch_size)]
    mu, logvar = (torch.cat(some).cpu() for some in zip(*parts, strict=True))
    return mu, logvar


@torch.no_grad()
def decode_latents(vae: VAE, z: Tensor, batch_size: int = 256) -> Tensor:
    """x_hat (N, 3, S, S) in float32 on the CPU of latents (N, *latent_shape)."""
    device = next(vae.parameters()).device
    vae.eval()
    return torch.cat([vae.decode(some.to(device)).cpu() for some in z.split(batch_size)])


@torch.no_grad()
def evaluate_vae(vae: VAE, pixels: Tensor, beta: float = BETA, seed: int = 0, batch_size: int = 256) -> HeldOutFigures:
    """The figures of `vae` on uint8 images (N, 3, S, S). seed: of the noise for the sampled z."""
    mu, logvar = encode_images(vae, pixels, batch_size)
    eps = torch.randn(mu.shape, generator=torch.Generator().manual_seed(seed))

    def error(z: Tensor) -> float:
        total = 0.0
        for some, x in zip(z.split(batch_size), pixels.split(batch_size), strict=True):
            total += (decode_latents(vae, some) - to_signed(x)).double().square().sum().item()
        return total / pixels.numel()

    by_dimension = kl_per_dimension(mu, logvar).flatten(1).double().mean(0).numpy()
    recon, kl = error(reparameterize(mu, logvar, eps)), float(by_dimension.sum())
    return HeldOutFigures(len(pixels), beta, recon + beta * kl, recon, error(mu), kl, by_dimension)


def pca_error(train: Tensor, test: Tensor, n_dimensions: int) -> float:
    """Mean squared error on `test` of PCA with so many dimensions, fitted on `train`; both uint8 (N, 3, S, S).

    The best any linear autoencoder of that width can do; it pays nothing for its code.
    """
    _, coordinates, squared_norm = _pca(train, test, n_dimensions)
    return float((squared_norm - coordinates.square().sum(1)).mean() / test[0].numel())


def ppca_figures(train: Tensor, test: Tensor, n_dimensions: int, beta: float = BETA) -> HeldOutFigures:
    """Probabilistic PCA with the noise that `beta` stands for: the linear VAE at its optimum, in closed form.

    With noise variance s = beta·D/2 and the covariance's eigenvalues l > s, the loadings are sqrt(l - s) along each principal
    axis and the posterior has variance s/l (Tipping & Bishop 1999, eq. 7 and 15; Lucas et al. 2019 for the linear VAE).
    Eigenvalues below s are left unused. train, test: uint8 (N, 3, S, S).
    """
    pca, coordinates, squared_norm = _pca(train, test, n_dimensions)
    n_pixels = test[0].numel()
    noise = noise_variance(beta, n_pixels)
    eigenvalue = torch.from_numpy(pca.explained_variance_).double()
    used = eigenvalue > noise
    gain = torch.where(used, 1 - noise / eigenvalue, 0)  # of reconstruction: loading times posterior mean
    variance = torch.where(used, noise / eigenvalue, 1)
    mu = coordinates * (gain / eigenvalue).sqrt()
    by_dimension = 0.5 * (mu.square() + variance - 1 - variance.log()).mean(0)
    left_out = squared_norm - coordinates.square().sum(1)
    from_mean = (left_out + ((1 - gain) * coordinates).square().sum(1)).mean().item() / n_pixels
    sampled = from_mean + ((eigenvalue - noise).clamp(min=0) * variance).sum().item() / n_pixels
    kl = float(by_dimension.sum())
    return HeldOutFigures(len(test), beta, sampled + beta * kl, sampled, from_mean, kl, by_dimension.numpy())


def principal_components(train: Tensor, n_dimensions: int) -> PCA:
    """scikit-learn's PCA fitted on uint8 images (N, 3, S, S) in [-1, 1], with at most N - 1 dimensions; always the same."""
    flat = to_signed(train).flatten(1).numpy()
    return PCA(min(n_dimensions, len(train) - 1), svd_solver="randomized", random_state=0).fit(flat)


def _pca(train: Tensor, test: Tensor, n_dimensions: int) -> tuple[PCA, Tensor, Tensor]:
    pca = principal_components(train, n_dimensions)
    centred = to_signed(test).flatten(1).numpy() - pca.mean_
    coordinates = torch.from_numpy(centred @ pca.components_.T).double()
    return pca, coordinates, torch.from_numpy(centred).double().square().sum(1)


def nearest_images(queries: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(indices, distances) of the image in `pixels` closest to each query: root mean squared difference, range [-1, 1].

    queries: float (B, 3, S, S) in [-1, 1]; pixels: uint8 (N, 3, S, S).
    """
    search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(to_signed(pixels).flatten(1).numpy())
    distance, index = search.kneighbors(queries.detach().cpu().float().flatten(1).numpy())
    return torch.from_numpy(index[:, 0]), torch.from_numpy(distance[:, 0]) / math.sqrt(queries[0].numel())
