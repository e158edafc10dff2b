"""The patients of notebook 06: one small VAE, one training loop, one broken piece for each.

Guess first: the docstrings of patients 1 to 6 say what is wrong. Patients 7 to 9 are exercises.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.distributions import Normal
from torch.utils.data import DataLoader

from vae_helpers.models import BETA, VAE, VAELoss, kl_divergence, reparameterize, to_float, vae_loss

Draw = Callable[[Tensor, Tensor], Tensor]
LossOf = Callable[[VAE, Tensor], VAELoss]


def new_vae() -> VAE:
    """A small VAE, always with the same weights to begin with."""
    torch.manual_seed(0)
    return VAE(latent_dim=32, widths=(16, 32, 64))


def train(
    vae: VAE, x: Tensor, loss_of: LossOf, epochs: int, batch_size: int = 16
) -> list[dict[str, float]]:
    """The plain loop of notebook 03: `vae` learns images `x` (N, 3, S, S) in place.

    Returns one record per epoch: the averages of `loss`, `recon` and `kl` while it was learning.
    """
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(vae.parameters(), lr=2e-3)
    history = []
    for _ in range(epochs):
        steps = []
        for batch in x[torch.randperm(len(x))].split(batch_size):
            parts = loss_of(vae, batch)
            optimizer.zero_grad()
            parts.loss.backward()
            optimizer.step()
            steps.append(torch.stack(parts).detach())
        means = torch.stack(steps).mean(0).tolist()
        history.append(dict(zip(VAELoss._fields, means, strict=True)))
    vae.eval()
    return history


def loss_with(draw: Draw, beta: float = BETA) -> LossOf:
    """The loss of notebook 03, with z drawn by `draw(mu, logvar)`."""

    def loss_of(vae: VAE, x: Tensor) -> VAELoss:
        mu, logvar = vae.encode(x)
        return vae_loss(vae.decode(draw(mu, logvar)), x, mu, logvar, beta)

    return loss_of


healthy_loss = loss_with(reparameterize)


class Finding(NamedTuple):
    """One patient's number: above `limit` where the bug is, below it where it is not."""

    case: str
    what: str
    broken: float
    fixed: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the symptom appears in the broken code and is gone from the fixed."""
        return self.broken > self.limit > self.fixed

    def __str__(self) -> str:
        measured = f"patient {self.broken:.3g}, cured {self.fixed:.3g}"
        return f"{self.what}: {measured} (ill above {self.limit:g})"


# ---- patients 1 to 6: every docstring gives its bug away ----


def case_1_data(pixels: Tensor) -> Tensor:
    """BUG: bytes to [0, 1], where everything else in this project means [-1, 1]."""
    return pixels.float() / 255


def case_2_draw(mu: Tensor, logvar: Tensor) -> Tensor:
    """BUG: a direct draw, through which no gradient reaches the encoder."""
    return Normal(mu, (0.5 * logvar).exp()).sample()


def case_3_loss(vae: VAE, x: Tensor) -> VAELoss:
    """BUG: "beta = 1, as in the paper", beside an error averaged over pixels, not summed."""
    x_hat, mu, logvar = vae(x)
    return vae_loss(x_hat, x, mu, logvar, beta=1.0)


def case_4_draw(mu: Tensor, logvar: Tensor) -> Tensor:
    """BUG: multiplies the noise with the log-variance instead of the standard deviation."""
    return mu + logvar * torch.randn_like(mu)


def case_5_split(source: Path, train_dir: Path, test_dir: Path, random_state: int) -> None:
    """BUG: copies into folders that may hold another split already."""
    names = sorted(path.name for path in source.glob("*.png"))
    train_names, test_names = train_test_split(names, test_size=0.2, random_state=random_state)
    for folder, chosen in ((train_dir, train_names), (test_dir, test_names)):
        folder.mkdir(parents=True, exist_ok=True)
        for name in chosen:
            shutil.copy(source / name, folder / name)


@torch.no_grad()
def case_6_means(vae: VAE, pixels: Tensor) -> Tensor:
    """BUG: the loader shuffles, so the means come in another order than the labels."""
    loader = DataLoader(to_float(pixels), batch_size=64, shuffle=True)
    return torch.cat([vae.encode(batch)[0] for batch in loader])


# ---- patients 7 to 9, exercises: the docstrings are complaints ----


def case_7_loss(vae: VAE, x: Tensor) -> VAELoss:
    """ "It reconstructs well, at a KL of a few nats, but new dogs are garish and torn." """
    z = reparameterize(*vae.encode(x))
    x_hat = vae.decode(z)
    mu, logvar = z.chunk(2, dim=1)
    kl = kl_divergence(mu, logvar).mean()
    recon = F.mse_loss(x_hat, x)
    return VAELoss(recon + BETA * kl, recon, kl)


class Case8Decoder(nn.Module):
    """ "The KL is fine while it learns and several times as large on validation: it overfits." """

    def __init__(self, decoder: nn.Module, scale: float = 0.2):
        super().__init__()
        self.decoder, self.scale = decoder, scale

    def forward(self, z: Tensor) -> Tensor:
        z /= self.scale
        return self.decoder(z)


def case_9_loss(vae: VAE, x: Tensor) -> VAELoss:
    """ "With a larger batch my VAE forgets everything, though I gave it more epochs." """
    x_hat, mu, logvar = vae(x)
    recon = F.mse_loss(x_hat, x)
    kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()
    return VAELoss(recon + BETA * kl, recon, kl)
