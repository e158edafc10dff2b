"""A latent flow: a learned prior that carries noise to latents along straight lines.

Rectified flow (Liu et al. 2023), also flow matching (Lipman et al. 2023): on the line x_t = (1 - t)·noise + t·z from noise to
a latent, a network learns the velocity z - noise from x_t and t alone. Following what it learned from t = 0 to 1 makes new
latents. It is what diffusion models such as Stable Diffusion 3 do (Esser et al. 2024), on latents of dogs.
"""

import copy
import math
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Self

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..config import use_bfloat16
from .layers import update_ema
from .priors import Prior


class Block(nn.Module):
    """Attention among positions, then a small network at each. (B, T, width) -> the same. Peebles & Xie 2023, figure 3.

    Time enters as six vectors: what is normalised is shifted and scaled, and what is added to x is gated, by them.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Dropout(dropout), nn.Linear(4 * width, width))
        self.own = nn.Parameter(torch.zeros(6, width))  # added to what all blocks share. Chen et al. 2023, section 2.3

    def forward(self, x: Tensor, shared: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = (shared + self.own).unsqueeze(2).unbind(1)  # each (B, 1, width)
        x = x + gate1 * self.attend(self.norm(x) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp(self.norm(x) * (1 + scale2) + shift2)

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, heads, T, width / heads)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class VelocityNet(nn.Module):
    """x_t (B, C, H, W) and t (B,) -> velocity (B, C, H, W), float32: a transformer over the H·W positions."""

    def __init__(self, latent_shape: tuple[int, ...], width: int, depth: int, heads: int, dropout: float):
        super().__init__()
        channels, *sides = latent_shape
        self.enter = nn.Linear(channels, width)
        self.place = nn.Parameter(0.02 * torch.randn(math.prod(sides), width))
        self.when = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.shared, self.last = nn.Linear(width, 6 * width), nn.Linear(width, 2 * width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.leave = nn.Linear(width, channels)
        for weight in (*self.shared.parameters(), *self.last.parameters(), *self.leave.parameters()):
            nn.init.zeros_(weight)  # so that every block starts as the identity

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.enter(x.flatten(2).transpose(1, 2)) + self.place  # (B, T, width)
        angles = 1000 * t[:, None] * torch.logspace(0, -4, 128, device=t.device)
        time = self.when(torch.cat([angles.cos(), angles.sin()], 1))  # (B, width)
        shared = self.shared(time).unflatten(1, (6, -1))
        for block in self.blocks:
            h = block(h, shared)
        shift, scale = self.last(time).unsqueeze(1).chunk(2, 2)
        return self.leave(self.norm(h) * (1 + scale) + shift).transpose(1, 2).reshape(x.shape).float()


class LatentFlow(Prior):
    """The learned prior. latent_shape: (C, H, W). width, depth, heads, dropout: of its transformer (defaults: 8.5M weights).

    gaussian_baseline: the network learns only what is to be added to the velocity towards a Gaussian with the covariance of the
    latents, so it starts as `FullGaussian` and gets beyond it sooner; for short trainings.
    Keeps the exponential moving average of the weights it trains, and works on latents scaled to mean 0 and variance 1.
    """

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        width: int = 288,
        depth: int = 8,
        heads: int = 6,
        dropout: float = 0.1,
        gaussian_baseline: bool = False,
    ):
        super().__init__(latent_shape)
        if len(self.latent_shape) != 3 or width % heads:
            raise ValueError(f"latent_shape={latent_shape} must be (C, H, W), and width={width} a multiple of heads={heads}")
        self.width, self.depth, self.heads, self.dropout = width, depth, heads, dropout
        self.network = VelocityNet(self.latent_shape, width, depth, heads, dropout)
        self.register_buffer("mean", torch.zeros(self.latent_shape))
        self.register_buffer("std", torch.ones(self.latent_shape))
        self.gaussian_baseline = gaussian_baseline
        if gaussian_baseline:
            self.register_buffer("axes", torch.eye(self.latent_size))  # principal axes of the latents, in columns
            self.register_buffer("variances", torch.ones(self.latent_size))  # along them

    def fit(
        self,
        latents: Tensor,
        std: Tensor | None = None,
        steps: int = 20_000,
        seconds: float = math.inf,
        batch_size: int = 256,
        learning_rate: float = 1e-3,
        seed: int = 0,
        on_report: Callable[[dict[str, float]], None] | None = None,
    ) -> Self:
        """Train where the weights are (`.to("cuda")` first for a GPU), for so many steps or seconds, what comes first.

        latents: (N, C, H, W), means when `std`, the posterior's width, is given: then z is drawn anew at every use.
        learning_rate: at its largest; falls to zero along a cosine. on_report: called fifty times with step, seconds and
        loss (the average since the last call) while the weights are the moving average, as after training.
        """
        device = self.mean.device
        latents = self._checked(latents).to(device)
        std = torch.zeros_like(latents) if std is None else std.to(device)
        self.mean = latents.mean(0)
        self.std = (latents.var(0) + std.square().mean(0)).sqrt().clamp(min=1e-6)
        if self.gaussian_baseline:
            covariance = ((latents - self.mean) / self.std).flatten(1).T.cov()
            covariance += (std / self.std).flatten(1).square().mean(0).diag()
            variances, axes = torch.linalg.eigh(covariance.cpu().double())
            self.variances, self.axes = variances.clamp(min=1e-4).float().to(device), axes.float().to(device)
        torch.manual_seed(seed)
        learner = copy.deepcopy(self.network).train()
        self.eval()
        optimizer = torch.optim.AdamW(learner.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        step, share, reports, losses, started = 0, 0.0, 0, [], time.perf_counter()
        while share < 1:
            some = torch.randint(len(latents), (batch_size,), device=device)
            z = latents[some] + std[some] * torch.randn_like(latents[some])
            t = torch.randn(batch_size, device=device).sigmoid()  # most often the middle. Esser et al. 2024, section 3.1
            loss = self._loss(learner, z, t, torch.randn_like(z))
            optimizer.param_groups[0]["lr"] = (
                learning_rate * min(1, (step + 1) / min(500, 0.1 * steps)) * 0.5 * (1 + math.cos(math.pi * share))
            )
            optimizer.zero_grad()
            loss.backward()
            if nn.utils.clip_grad_norm_(learner.parameters(), 1.0).isfinite():
                optimizer.step()
            update_ema(self.network, learner, step, decay=0.9995)
            step += 1
            losses.append(loss.detach())
            share = max(step / steps, (time.perf_counter() - started) / seconds)
            if on_report is not None and (due := int(50 * min(1, share))) > reports:
                average = torch.stack(losses).mean().item()
                on_report({"step": step, "seconds": time.perf_counter() - started, "loss": average})
                reports, losses = due, []
        return self

    def velocity(self, x: Tensor, t: Tensor, network: nn.Module | None = None) -> Tensor:
        """The velocity at x (B, C, H, W), scaled as above, at times t (B,); by another network than its own when given."""
        v = (network or self.network)(x, t)
        if not self.gaussian_baseline:
            return v
        with torch.autocast(x.device.type, enabled=False):  # to a Gaussian it is known: z - noise regressed on x
            t, spread = t.float()[:, None], self.variances
            along = x.float().flatten(1) @ self.axes
            along = along * (t * spread - (1 - t)) / (t.square() * spread + (1 - t).square())
            return v + (along @ self.axes.T).view_as(x)

    def _loss(self, network: nn.Module, z: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of the velocity. Liu et al. 2023, eq. 1."""
        z, t4 = (z - self.mean) / self.std, t[:, None, None, None]
        with torch.autocast(z.device.type, torch.bfloat16, enabled=use_bfloat16(z.device)):
            velocity = self.velocity((1 - t4) * noise + t4 * z, t, network)
        return F.mse_loss(velocity, z - noise)

    @torch.no_grad()
    def loss(self, latents: Tensor, seed: int = 0) -> float:
        """The same error on latents (N, C, H, W) not trained on, always at the same times and with the same noise."""
        generator, device = torch.Generator().manual_seed(seed), self.mean.device
        noise = torch.randn(latents.shape, generator=generator)
        t = torch.randn(len(latents), generator=generator).sigmoid()
        return self._loss(self.network, latents.to(device), t.to(device), noise.to(device)).item()

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None, steps: int = 12, batch_size: int = 256) -> Tensor:
        """(n, C, H, W) on the CPU: noise carried along the learned velocity in `steps` of Heun's second-order method."""
        device = self.mean.device
        times = torch.linspace(0, 1, steps + 1, device=device)
        done = []
        for x in torch.randn(n, *self.latent_shape, generator=generator).to(device).split(batch_size):
            with torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16(device)):
                for now, then in pairwise(times):
                    here = self.velocity(x, now.expand(len(x)))
                    there = self.velocity(x + (then - now) * here, then.expand(len(x)))
                    x = x + (then - now) * (here + there) / 2
            done.append((x * self.std + self.mean).cpu())
        return torch.cat(done)
