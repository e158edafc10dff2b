"""What needs no network: principal components, the linear VAE, the nearest training image.

All images are uint8 (N, 3, S, S) unless it says otherwise.
"""

import math

import torch
import torch.nn as nn
from sklearn.decomposition import PCA
from torch import Tensor

from ..models.inference import to_float
from ..models.losses import BETA, noise_variance
from ..models.vae import BaseVAE
from .likelihood import BYTE_WIDTH


def principal_components(train: Tensor, n_components: int) -> PCA:
    """scikit-learn's PCA fitted on images in [-1, 1], with at most N - 1 components; the same every time."""
    pca = PCA(min(n_components, len(train) - 1), svd_solver="randomized", random_state=0, copy=False)
    return pca.fit(to_float(train).flatten(1).numpy())


def pca_reconstructions(train: Tensor, test: Tensor, n_components: int, pca: PCA | None = None) -> Tensor:
    """x_hat (N, 3, S, S) of `test` from so many principal components of `train`. pca: these, where they are at hand."""
    pca = pca or principal_components(train, n_components)
    x_hat = pca.inverse_transform(pca.transform(to_float(test).flatten(1).numpy()))
    return torch.from_numpy(x_hat).float().reshape(test.shape)


def pca_error(train: Tensor, test: Tensor, n_components: int) -> float:
    """Mean squared error on `test`: the least of any linear autoencoder of that width, which pays nothing for its code."""
    return (pca_reconstructions(train, test, n_components) - to_float(test)).double().square().mean().item()


def nearest_images(queries: Tensor, pixels: Tensor, batch_size: int = 1024) -> tuple[Tensor, Tensor]:
    """(indices, distances), each (B,), of the image in `pixels` closest to each query: root mean squared difference.

    queries: float (B, 3, S, S) in [-1, 1]; pixels: uint8 (N, 3, S, S), turned into floats batch by batch.
    """
    queries = queries.detach().cpu().float()
    least, index = torch.full((len(queries),), math.inf), torch.zeros(len(queries), dtype=torch.long)
    for start in range(0, len(pixels), batch_size):
        batch = to_float(pixels[start : start + batch_size])
        distance, nearest = torch.cdist(queries.flatten(1), batch.flatten(1)).min(1)
        index = torch.where(distance < least, start + nearest, index)
        least = least.minimum(distance)
    differences = [(q - to_float(pixels[i])).square().mean().sqrt() for q, i in zip(queries, index, strict=True)]
    return index, torch.stack(differences)


class LinearVAE(BaseVAE):
    """Probabilistic PCA as a VAE: the best VAE whose encoder and decoder are linear, with log P(x) in closed form.

    The decoder is x_hat = mean + z @ loadings, with noise of the variance s that `beta` stands for. Along a principal axis with
    eigenvalue l > s the loading is sqrt(l - s) and the posterior's variance s / l; axes with l < s stay unused. latent_dim: how
    many axes. posterior_scale widens the posterior's sigma (1: exact), so that a bound has something to lose. pca:
    `principal_components` of train, where they are at hand. Raises ValueError for a beta that is not above 0. Tipping & Bishop
    1999, eq. 7 and 15; Lucas et al. 2019.
    """

    def __init__(
        self, train: Tensor, latent_dim: int, beta: float = BETA, posterior_scale: float = 1.0, pca: PCA | None = None
    ):
        super().__init__(train.shape[-1])
        if not beta > 0:
            raise ValueError(f"beta={beta} must be above 0: it stands for the noise of the decoder")
        pca = pca or principal_components(train, latent_dim)
        self.latent_shape, self.noise_variance = (pca.n_components_,), noise_variance(beta, train[0].numel())
        eigenvalue = torch.from_numpy(pca.explained_variance_).double().clamp_min(self.noise_variance)
        loading_scale = (eigenvalue - self.noise_variance).sqrt()
        fixed = {
            "mean": torch.from_numpy(pca.mean_),
            "axes": torch.from_numpy(pca.components_),
            "eigenvalue": eigenvalue,
            "loading_scale": loading_scale,
            "posterior_gain": loading_scale / eigenvalue,  # from a coordinate to the posterior's mean
            "logvar": (self.noise_variance / eigenvalue * posterior_scale**2).log(),
        }
        for name, value in fixed.items():
            setattr(self, name, nn.Parameter(value.float(), requires_grad=False))

    def encoder(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) in [-1, 1] -> mu, logvar, each (B, latent_dim)."""
        mu = (x.flatten(1) - self.mean) @ self.axes.T * self.posterior_gain
        return mu, self.logvar.expand_as(mu)

    def decoder(self, z: Tensor) -> Tensor:
        """(B, latent_dim) -> x_hat (B, 3, S, S)."""
        return (self.mean + (z * self.loading_scale) @ self.axes).view(-1, 3, self.image_size, self.image_size)

    def log_likelihood(self, pixels: Tensor) -> Tensor:
        """log P(x) in nats of each image, exactly: x is Gaussian with the data's mean and covariance. (N,) float64."""
        x = to_float(pixels).flatten(1).double() - self.mean.double()
        along, eigenvalue = x @ self.axes.double().T, self.eigenvalue.double()
        beside = x.square().sum(1) - along.square().sum(1)
        mahalanobis = (along.square() / eigenvalue).sum(1) + beside / self.noise_variance
        n_dims, n_axes = x.shape[1], len(eigenvalue)
        log_det = eigenvalue.log().sum() + (n_dims - n_axes) * math.log(self.noise_variance)
        return n_dims * (math.log(BYTE_WIDTH) - 0.5 * math.log(2 * math.pi)) - 0.5 * (log_det + mahalanobis)
