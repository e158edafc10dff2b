"""The two kinds of training in the recipe: each runs its schedule to the end in so many seconds, and gives back the average."""

import copy
import math
import time
from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F
from photos_data import random_batch
from torch import Tensor

from vae_helpers.config import best_device, precision_wanted
from vae_helpers.models import BaseVAE, calibrated_beta, use_bfloat16, vae_loss
from vae_helpers.training import learning_rate_factor, optimizer_step, update_ema

DEVICE = best_device()
EMA_DECAY = 0.999  # how much of the moving average of the weights stays at every step


def autocast() -> torch.autocast:
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=use_bfloat16(DEVICE, precision_wanted()))


class Budget:
    """A stage's time. `progress`: how much of it is gone, from 0 to 1; `due()` is true at the start, then forty times."""

    def __init__(self, seconds: float):
        self.seconds, self.started, self.reports = seconds, time.perf_counter(), 0

    @property
    def gone(self) -> float:
        return time.perf_counter() - self.started

    @property
    def progress(self) -> float:
        return min(1.0, self.gone / self.seconds)

    def due(self) -> bool:
        if self.progress < 1 and self.progress * 40 < self.reports:
            return False
        self.reports = int(self.progress * 40) + 1
        return True

    def set_learning_rate(self, optimizer: torch.optim.Optimizer, largest: float, step: int) -> None:
        """As in every training here, over as many steps as will fit, judged by those so far."""
        factor = learning_rate_factor(step, (step + 1) / self.progress, warmup=300)
        for group in optimizer.param_groups:
            group["lr"] = largest * factor


def train_vae(vae: BaseVAE, photos: dict[int, Tensor], seconds: float, batch: int, rate: float, report: Callable) -> BaseVAE:
    """The moving average of `vae`, trained with the noise that is best at every step. Rybkin et al. 2021, eq. 6.

    Not `fit`: this one ends on time, cuts photos out of larger ones, and draws everything on the device.
    """
    budget, step, recon = Budget(seconds), 0, torch.zeros(())
    vae = vae.to(device=DEVICE, memory_format=torch.channels_last).train()
    ema = copy.deepcopy(vae).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    while True:
        if budget.due():
            report(ema, budget.gone, step, step * batch, {"train_recon": recon.item()})
        if budget.progress >= 1:
            return ema
        x = random_batch(photos, batch)
        with autocast():
            x_hat, mu, logvar = vae(x)
        recon = F.mse_loss(x_hat, x).detach()
        loss = vae_loss(x_hat, x, mu, logvar, calibrated_beta(recon, x[0].numel())).loss
        budget.set_learning_rate(optimizer, rate, step)
        optimizer_step(loss, optimizer, vae.parameters())
        update_ema(ema, vae, step, EMA_DECAY)
        step += 1


class PatchDiscriminator(nn.ModuleList):
    """Images (B, 3, S, S) -> what each layer makes of them; the last, (B, 1, S/4, S/4), says how real each patch looks."""

    def __init__(self, width: int = 64):
        def layer(c_in: int, c_out: int, stride: int) -> nn.Sequential:
            convolution = nn.Conv2d(c_in, c_out, kernel_size=2 + stride, stride=stride, padding=1, bias=False)
            return nn.Sequential(convolution, nn.GroupNorm(8, c_out), nn.LeakyReLU(0.2))

        first = nn.Sequential(nn.Conv2d(3, width, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(0.2))
        last = nn.Conv2d(4 * width, 1, kernel_size=3, padding=1)
        super().__init__([first, layer(width, 2 * width, 2), layer(2 * width, 4 * width, 1), last])

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x := layer(x) for layer in self]


def sharpen(vae: BaseVAE, photos: dict[int, Tensor], seconds: float, batch: int, rate: float, report: Callable) -> BaseVAE:
    """`vae` with a decoder that also learned to pass for photos, patch by patch; its encoder, and so latents, unchanged.

    Squared error, how real the discriminator finds x_hat, and the distance between its features of x and x_hat; the latter
    two weighed so that their gradient at the last layer is half as long as the first's. Esser et al. 2021, eq. 7. The
    discriminator learns alone for the first tenth of the time.
    """
    budget, step, recon = Budget(seconds), 0, torch.zeros(())
    vae = copy.deepcopy(vae).to(DEVICE).requires_grad_(False)
    decoder = vae.decoder.requires_grad_(True).train()
    last_layer = decoder.conv_branch.conv_out.weight
    ema = copy.deepcopy(vae).requires_grad_(False).eval()
    discriminator = PatchDiscriminator().to(DEVICE)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=rate, betas=(0.5, 0.99), fused=True)
    discriminator_optimizer = torch.optim.AdamW(discriminator.parameters(), lr=2 * rate, betas=(0.5, 0.99), fused=True)
    while True:
        if budget.due():
            report(ema, budget.gone, step, step * batch, {"train_recon": recon.item()})
        if budget.progress >= 1:
            return ema
        x = random_batch(photos, batch)
        budget.set_learning_rate(optimizer, rate, step)
        budget.set_learning_rate(discriminator_optimizer, 2 * rate, step)
        with autocast():
            x_hat = vae(x).x_hat
            real, fake = discriminator(x), discriminator(x_hat.detach())
        hinge_loss = F.relu(1 - real[-1].float()).mean() + F.relu(1 + fake[-1].float()).mean()
        optimizer_step(hinge_loss, discriminator_optimizer, discriminator.parameters(), max_grad_norm=math.inf)
        if budget.progress > 0.1:
            with autocast():
                fake = discriminator(x_hat)
            error, adversarial = F.mse_loss(x_hat, x), feature_matching_loss(fake, real) - fake[-1].float().mean()
            lengths = [torch.autograd.grad(part, last_layer, retain_graph=True)[0].norm() for part in (error, adversarial)]
            weight = (0.5 * lengths[0] / (lengths[1] + 1e-8)).detach()
            optimizer_step(error + weight * adversarial, optimizer, decoder.parameters())
            recon = error.detach()
        update_ema(ema.decoder, decoder, step, EMA_DECAY)
        step += 1


def feature_matching_loss(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """Mean absolute difference of what the discriminator's layers but the last make of two batches. Wang et al. 2018, eq. 4."""
    return sum(F.l1_loss(a.float(), b.detach().float()) for a, b in zip(fake[:-1], real[:-1], strict=True))
