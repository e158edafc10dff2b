"""The objective: `loss = recon + beta * kl`.

Scales matter more here than anywhere. `recon` is averaged over batch AND pixels, `kl` is summed over the latent and
averaged over the batch, so neither depends on the batch size and beta alone weighs one against the other.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BETA = 0.00025


class VAELoss(NamedTuple):
    """Three scalars: `loss = recon + beta * kl`, `recon` (mean squared error), `kl` (nats per image)."""

    loss: Tensor
    recon: Tensor
    kl: Tensor


def kl_per_dim(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, sigma²) ‖ N(0, 1)) in nats of every latent number by itself.

    mu, logvar: (B, *latent_shape). Returns the same shape, float32. Kingma & Welling 2014, appendix B.
    """
    mu, logvar = mu.float(), logvar.float()
    return -0.5 * (1 + logvar - mu.square() - logvar.exp())


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, sigma²) ‖ N(0, I)) in nats, one value per image.

    mu, logvar: (B, *latent_shape). Returns (B,), float32: the sum of `kl_per_dim`.
    """
    return kl_per_dim(mu, logvar).flatten(1).sum(1)


def vae_loss(x_hat: Tensor, x: Tensor, mu: Tensor, logvar: Tensor, beta: float | Tensor = BETA) -> VAELoss:
    """The beta-VAE objective (Kingma & Welling 2014, eq. 10; Higgins et al. 2017 for beta), in float32.

    x_hat, x: (B, 3, S, S) in [-1, 1]; mu, logvar: (B, *latent_shape). Raises ValueError for shapes that differ, which
    would otherwise broadcast without a word.

    With D = 3·S·S numbers in an image this is, up to a constant and the factor beta, the negative evidence lower bound
    of a decoder with Gaussian noise of variance `noise_variance(beta, D)`: choosing beta is choosing that noise.
    """
    if x_hat.shape != x.shape:
        raise ValueError(f"x_hat is {tuple(x_hat.shape)} but x is {tuple(x.shape)}; they must be alike")
    if mu.shape != logvar.shape or len(mu) != len(x):
        raise ValueError(f"mu is {tuple(mu.shape)} and logvar {tuple(logvar.shape)} for {len(x)} images; they must be alike")
    recon = F.mse_loss(x_hat.float(), x.float())
    kl = kl_per_dim(mu, logvar).mean(0).sum()
    return VAELoss(recon + beta * kl, recon, kl)


def free_bits_kl(kl_per_dim: Tensor, global_kl_per_dim: Tensor, free_bits: float) -> Tensor:
    """The KL with so many nats free in every latent number: what is below `free_bits` counts as that much, without a gradient.

    kl_per_dim: (*latent_shape), the mean over this process's images, in nats; global_kl_per_dim: over all of the batch, of
    which several processes have parts. Returns a scalar. Kingma et al. 2016, eq. 15.
    """
    return torch.where(global_kl_per_dim > free_bits, kl_per_dim, free_bits).sum()


def kl_weight(progress: float, warmup: float = 0.0) -> float:
    """What beta is multiplied with when the fraction `progress` of the training is done: KL warm-up (Bowman et al. 2016).

    It rises from 0 to 1 over the fraction `warmup` of the training, then stays (0: at 1 from the start).
    """
    return min(1.0, progress / warmup) if warmup else 1.0


def noise_variance(beta: float | Tensor, n_dims: int) -> float | Tensor:
    """The decoder's noise variance σ² that a `beta` stands for: beta · D / 2.

    n_dims: D, how many numbers an image has, channels included: 3·S·S, so 9,408 for S = 56 (`x[0].numel()`), not the number
    of its pixels, S·S. From -log p(x|z) = ‖x - x_hat‖² / (2σ²) + const = recon · D / (2σ²) + const: multiply by 2σ²/D to get
    recon + beta·kl. A beta of 0 gives 0: a decoder without noise, which has no density.
    """
    return beta * n_dims / 2


def calibrated_beta(recon: Tensor | float, n_dims: int) -> Tensor | float:
    """The beta of a decoder that knows its noise: 2 · recon / D. n_dims: D, as in `noise_variance`.

    -log p(x|z) is smallest where the noise variance σ² is the mean squared error itself; `noise_variance` of this beta is
    that. No gradient goes through it. Rybkin, Daniilidis & Levine 2021, eq. 6 (optimal σ-VAE).
    """
    return 2 * (recon.detach() if isinstance(recon, Tensor) else recon) / n_dims
