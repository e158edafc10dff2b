"""What needs no network: principal components, the linear VAE, the nearest training image.

All images are uint8 (N, 3, S, S) unless it says otherwise.
"""

import math

import torch
import torch.nn as nn
from sklearn.decomposition import PCA
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal

from ..models.inference import to_float
from ..models.losses import BETA, noise_variance
from ..models.vae import BaseVAE
from .metrics import BYTE_WIDTH


def principal_components(train: Tensor, n_components: int) -> PCA:
    """scikit-learn's PCA fitted on images in [-1, 1], with at most N - 1 components; the same every time."""
    pca = PCA(min(n_components, len(train) - 1), svd_solver="randomized", random_state=0, copy=False)
    return pca.fit(to_float(train).flatten(1).numpy())


def nearest_images(queries: Tensor, pixels: Tensor, batch_size: int = 1024) -> tuple[Tensor, Tensor]:
    """(indices, distances), each (B,), of the image in `pixels` closest to each query: root mean squared difference.

    queries: float (B, 3, S, S) in [-1, 1]; pixels: uint8 (N, 3, S, S), turned into floats batch by batch.
    """
    queries = queries.detach().cpu().float()
    distances = [torch.cdist(queries.flatten(1), to_float(batch).flatten(1)) for batch in pixels.split(batch_size)]
    index = torch.cat(distances, 1).argmin(1)
    differences = [(q - to_float(pixels[i])).square().mean().sqrt() for q, i in zip(queries, index, strict=True)]
    return index, torch.stack(differences)


class LinearVAE(BaseVAE):
    """Probabilistic PCA as a VAE: the best VAE whose encoder and decoder are linear, with log P(x) in closed form.

    The decoder is x_hat = mean + z @ loadings, with noise of the variance s that `beta` stands for. Along a principal axis with
    eigenvalue l > s the loading is sqrt(l - s) and the posterior's variance s / l; axes with l < s stay unused. As beta goes to
    0 it becomes PCA: the least error of any linear autoencoder of that width, which pays nothing for its code. pca: the
    `principal_components` of train. posterior_scale widens the posterior's sigma (1: exact), so that a bound has something to
    lose. Raises ValueError for a beta that is not above 0. Tipping & Bishop 1999, eq. 7 and 15; Lucas et al. 2019.
    """

    def __init__(self, pca: PCA, beta: float = BETA, posterior_scale: float = 1.0):
        super().__init__(math.isqrt(pca.n_features_in_ // 3), (pca.n_components_,))
        if not beta > 0:
            raise ValueError(f"beta={beta} must be above 0: it stands for the noise of the decoder")
        self.noise_variance = noise_variance(beta, pca.n_features_in_)
        eigenvalue = torch.from_numpy(pca.explained_variance_).double().clamp_min(self.noise_variance)
        loadings = (eigenvalue - self.noise_variance).sqrt()[:, None] * torch.from_numpy(pca.components_)
        gains, variance = loadings / eigenvalue[:, None], self.noise_variance / eigenvalue * posterior_scale**2
        fixed = torch.from_numpy(pca.mean_), loadings, gains, variance.log()
        self.mean, self.loadings, self.posterior_gains, self.logvar = (nn.Parameter(x.float(), False) for x in fixed)

    def encoder(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) in [-1, 1] -> mu, logvar, each (B, latent_dim)."""
        mu = (x.flatten(1) - self.mean) @ self.posterior_gains.T
        return mu, self.logvar.expand_as(mu)

    def decoder(self, z: Tensor) -> Tensor:
        """(B, latent_dim) -> x_hat (B, 3, S, S)."""
        return (self.mean + z @ self.loadings).view(-1, 3, self.image_size, self.image_size)

    def log_likelihood(self, pixels: Tensor) -> Tensor:
        """log P(x) in nats of each image, exactly: x is Gaussian with the data's mean and covariance. (N,) float64."""
        x, mean = to_float(pixels).flatten(1).double(), self.mean.double()
        density = LowRankMultivariateNormal(mean, self.loadings.T.double(), torch.full_like(mean, self.noise_variance))
        return density.log_prob(x) + x.shape[1] * math.log(BYTE_WIDTH)
