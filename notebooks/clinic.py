"""The patients of notebook 06: one small VAE, one training loop, one broken piece for each case.

Guess first: from `case_1_loss` down, every docstring gives its bug away.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from vae_helpers.models import BETA, VAE, VAELoss, kl_divergence, reparameterize, vae_loss

LossOf = Callable[[VAE, Tensor], VAELoss]


def new_vae() -> VAE:
    """A small VAE, always with the same weights to begin with."""
    torch.manual_seed(0)
    return VAE(latent_dim=32, widths=(16, 32, 64))


def train(
    vae: VAE,
    x: Tensor,
    loss_of: LossOf,
    epochs: int,
    batch_size: int = 16,
    watch: Callable[[VAE], float] | None = None,
) -> list[dict[str, float]]:
    """The plain loop of notebook 03: `vae` learns images `x` (N, 3, S, S) in place.

    Returns one record per epoch: the averages of `loss`, `recon` and `kl` as they were reported
    while learning, and `watched`, what `watch(vae)` said at its end.
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
        record = dict(zip(parts._fields, torch.stack(steps).mean(0).tolist(), strict=True))
        history.append(record | ({"watched": watch(vae)} if watch else {}))
    vae.eval()
    return history


def healthy_loss(vae: VAE, x: Tensor, beta: float = BETA) -> VAELoss:
    """The loss of notebook 03, from the package."""
    x_hat, mu, logvar = vae(x)
    return vae_loss(x_hat, x, mu, logvar, beta)


class Finding(NamedTuple):
    """One case's number: above `limit` where the bug is, below it where it is not."""

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
        measured = f"{self.broken:.4g} broken, {self.fixed:.4g} fixed"
        return f"{self.what}: {measured} (ill above {self.limit:g})"


# ---- the bugs: below here every docstring gives one away ----


def case_1_loss(vae: VAE, x: Tensor) -> VAELoss:
    """BUG: takes the two halves of the sampled latent for mean and log-variance."""
    z = reparameterize(*vae.encode(x))
    x_hat = vae.decode(z)
    mu, logvar = z.chunk(2, dim=1)
    kl = kl_divergence(mu, logvar).mean()
    recon = F.mse_loss(x_hat, x)
    return VAELoss(recon + BETA * kl, recon, kl)


def case_2_loss(vae: VAE, x: Tensor) -> VAELoss:
    """BUG: sums the KL over the batch, while the error is an average."""
    x_hat, mu, logvar = vae(x)
    recon = F.mse_loss(x_hat, x)
    kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()
    return VAELoss(recon + BETA * kl, recon, kl)


class Case3Decoder(nn.Module):
    """BUG: divides in place, so whoever passed z in finds it changed."""

    def __init__(self, decoder: nn.Module, scale: float = 0.18215):
        super().__init__()
        self.decoder, self.scale = decoder, scale

    def forward(self, z: Tensor) -> Tensor:
        z /= self.scale
        return self.decoder(z)


class Case3FixedDecoder(Case3Decoder):
    """The same arithmetic on a new tensor."""

    def forward(self, z: Tensor) -> Tensor:
        z = z / self.scale
        return self.decoder(z)


def case_4_draw(mu: Tensor, logvar: Tensor) -> Tensor:
    """BUG: multiplies the noise with the log-variance instead of the standard deviation."""
    return mu + logvar * torch.randn_like(mu)


def case_4_loss(vae: VAE, x: Tensor) -> VAELoss:
    """A loss without fault around `case_4_draw`."""
    mu, logvar = vae.encode(x)
    return vae_loss(vae.decode(case_4_draw(mu, logvar)), x, mu, logvar)


def case_5_data(pixels: Tensor) -> Tensor:
    """BUG: bytes to [0, 1], where everything else in this project means [-1, 1]."""
    return pixels.float() / 255


def case_6_loss(vae: VAE, x: Tensor) -> VAELoss:
    """BUG: "beta = 1, as in the paper", beside an error averaged over pixels, not summed."""
    return healthy_loss(vae, x, beta=1.0)


def case_7_split(source: Path, train_dir: Path, test_dir: Path, random_state: int) -> None:
    """BUG: copies into folders that may hold another split already."""
    names = sorted(path.name for path in source.glob("*.png"))
    train_names, test_names = train_test_split(names, test_size=0.2, random_state=random_state)
    for folder, chosen in ((train_dir, train_names), (test_dir, test_names)):
        folder.mkdir(parents=True, exist_ok=True)
        for name in chosen:
            shutil.copy(source / name, folder / name)
