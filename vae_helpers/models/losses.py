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


def vae_loss(
    x_hat: Tensor,
    x: Tensor,
    mu: Tensor,
    logvar: Tensor,
    beta: float | Tensor = BETA,
    free_bits: float = 0.0,
    kl_of_all: Tensor | None = None,
) -> VAELoss:
    """The beta-VAE objective (Kingma & Welling 2014, eq. 10; Higgins et al. 2017 for beta), in float32.

    x_hat, x: (B, 3, S, S) in [-1, 1]; mu, logvar: (B, *latent_shape). Raises ValueError for shapes that differ, which
    would otherwise broadcast without a word.

    free_bits: nats that every latent number may carry unpunished: its mean KL over the batch counts as this much when it is
    less (Kingma et al. 2016, eq. 15). Then `loss` is above `recon + beta * kl`; `kl` stays what it is. kl_of_all: that mean,
    (*latent_shape), over a larger batch of which this is a process's share; over this one when left out.

    With D = 3·S·S numbers in an image this is, up to a constant and the factor beta, the negative evidence lower bound
    of a decoder with Gaussian noise of variance `noise_variance(beta, D)`: choosing beta is choosing that noise.
    """
    if x_hat.shape != x.shape:
        raise ValueError(f"x_hat is {tuple(x_hat.shape)} but x is {tuple(x.shape)}; they must be alike")
    if mu.shape != logvar.shape or len(mu) != len(x):
        raise ValueError(f"mu is {tuple(mu.shape)} and logvar {tuple(logvar.shape)} for {len(x)} images; they must be alike")
    recon = F.mse_loss(x_hat.float(), x.float())
    by_dimension = kl_per_dim(mu, logvar).mean(0)
    kl = by_dimension.sum()
    counted = kl
    if free_bits:
        enough = (by_dimension if kl_of_all is None else kl_of_all) > free_bits
        counted = torch.where(enough, by_dimension, free_bits).sum()
    return VAELoss(recon + beta * counted, recon, kl)


def calibrated_beta(recon: Tensor | float, n_dims: int) -> Tensor | float:
    """The beta of a decoder that knows its noise: 2 · recon / D, with D = `n_dims` numbers in an image.

    -log p(x|z) is smallest where the noise variance σ² is the mean squared error itself; `noise_variance` of this beta is
    that. No gradient goes through it. Rybkin, Daniilidis & Levine 2021, eq. 6 (optimal σ-VAE).
    """
    return 2 * (recon.detach() if isinstance(recon, Tensor) else recon) / n_dims


def kl_weight(progress: float, warmup: float = 0.0, cycles: int = 1) -> float:
    """What beta is multiplied with when a share `progress` of the training is done: it rises from 0 to 1, then stays.

    The training is cut into `cycles` equal parts; in each the weight rises over a share `warmup` of the part (0: at 1 from
    the start). One cycle is KL warm-up (Bowman et al. 2016), several the cyclical schedule (Fu et al. 2019).
    """
    if progress >= 1:  # the end of the last cycle, not the start of another
        return 1.0
    return min(1.0, (progress * cycles % 1) / warmup) if warmup else 1.0


def noise_variance(beta: float, n_dims: int) -> float:
    """The decoder's noise variance σ² that a `beta` stands for: beta · D / 2, with D = `n_dims` numbers in an image.

    From -log p(x|z) = ‖x - x_hat‖² / (2σ²) + const = recon · D / (2σ²) + const: multiply by 2σ²/D to get recon + beta·kl.
    """
    return beta * n_dims / 2
