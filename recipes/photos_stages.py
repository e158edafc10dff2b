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
from vae_helpers.training import update_ema

DEVICE = best_device()
AVERAGE = 0.999  # of the weights, kept at every step


def autocast() -> torch.autocast:
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=use_bfloat16(DEVICE, precision_wanted()))


class Budget:
    """A stage's time. `share` of it that is gone, from 0 to 1; `due()` is true at the start, then forty times."""

    def __init__(self, seconds: float):
        self.seconds, self.started, self.reports = seconds, time.perf_counter(), 0

    @property
    def gone(self) -> float:
        return time.perf_counter() - self.started

    @property
    def share(self) -> float:
        return min(1.0, self.gone / self.seconds)

    def due(self) -> bool:
        if self.share < 1 and self.share * 40 < self.reports:
            return False
        self.reports = int(self.share * 40) + 1
        return True


def learning_rate(peak: float, step: int, share: float) -> float:
    return peak * min(1.0, (step + 1) / 300) * 0.5 * (1 + math.cos(math.pi * share))


def train_vae(vae: BaseVAE, photos: dict[int, Tensor], seconds: float, batch: int, rate: float, report: Callable) -> BaseVAE:
    """The moving average of `vae`, trained with the noise that is best at every step. Rybkin et al. 2021, eq. 6.

    Not `fit`: this one ends on time, cuts photos out of larger ones, and draws everything on the device.
    """
    budget, step, recon = Budget(seconds), 0, torch.zeros(())
    vae = vae.to(device=DEVICE, memory_format=torch.channels_last).train()
    average = copy.deepcopy(vae).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    while True:
        if budget.due():
            report(average, budget.gone, step, step * batch, {"train_recon": recon.item()})
        if budget.share >= 1:
            return average
        x = random_batch(photos, batch)
        with autocast():
            x_hat, mu, logvar = vae(x)
        recon = F.mse_loss(x_hat, x).detach()
        loss = vae_loss(x_hat, x, mu, logvar, calibrated_beta(recon, x[0].numel())).loss
        optimizer.param_groups[0]["lr"] = learning_rate(rate, step, budget.share)
        optimizer.zero_grad()
        loss.backward()
        if nn.utils.clip_grad_norm_(vae.parameters(), 1.0).isfinite():
            optimizer.step()
        update_ema(average, vae, step, AVERAGE)
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

    Squared error, the discriminator's verdict and the distance between its features of x and x_hat; the latter two weighed
    so that their gradient at the last layer is half as long as the first's. Esser et al. 2021, eq. 7. The discriminator
    learns alone for the first tenth of the time.
    """
    budget, step, recon = Budget(seconds), 0, torch.zeros(())
    vae = copy.deepcopy(vae).to(DEVICE).requires_grad_(False)
    decoder = vae.decoder.requires_grad_(True).train()
    average = copy.deepcopy(vae).requires_grad_(False).eval()
    judge = PatchDiscriminator().to(DEVICE)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=rate, betas=(0.5, 0.99), fused=True)
    judge_optimizer = torch.optim.AdamW(judge.parameters(), lr=2 * rate, betas=(0.5, 0.99), fused=True)
    last = list(decoder.parameters())[-2]
    while True:
        if budget.due():
            report(average, budget.gone, step, step * batch, {"train_recon": recon.item()})
        if budget.share >= 1:
            return average
        x = random_batch(photos, batch)
        for group in (*optimizer.param_groups, *judge_optimizer.param_groups):
            peak = rate if group in optimizer.param_groups else 2 * rate
            group["lr"] = learning_rate(peak, step, budget.share)
        with autocast():
            x_hat = vae(x).x_hat
            real, fake = judge(x), judge(x_hat.detach())
        judge_loss = F.relu(1 - real[-1].float()).mean() + F.relu(1 + fake[-1].float()).mean()
        judge_optimizer.zero_grad()
        judge_loss.backward()
        judge_optimizer.step()
        if budget.share > 0.1:
            with autocast():
                fake = judge(x_hat)
            alike = sum(F.l1_loss(a.float(), b.detach().float()) for a, b in zip(fake[:-1], real[:-1], strict=True))
            error, seen = F.mse_loss(x_hat, x), alike - fake[-1].float().mean()
            of_error, of_seen = (torch.autograd.grad(part, last, retain_graph=True)[0].norm() for part in (error, seen))
            weight = (0.5 * of_error / (of_seen + 1e-8)).detach()
            optimizer.zero_grad()
            (error + weight * seen).backward()
            if nn.utils.clip_grad_norm_(decoder.parameters(), 1.0).isfinite():
                optimizer.step()
            recon = error.detach()
        update_ema(average.decoder, decoder, step, AVERAGE)
        step += 1
