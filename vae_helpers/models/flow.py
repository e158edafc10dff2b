"""A latent flow: a learned prior that carries noise to latents along straight lines.

Rectified flow (Liu et al. 2023), also flow matching (Lipman et al. 2023): on the line x_t = (1 - t)·noise + t·z from noise to
a latent, a network learns the velocity z - noise from x_t and t alone. Following what it learned from t = 0 to 1 makes new
latents. It is what diffusion models such as Stable Diffusion 3 do (Esser et al. 2024), on latents of dogs.
"""

import math
from itertools import pairwise

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .layers import zeroed
from .priors import FullGaussian, Prior, StandardNormal


class Block(nn.Module):
    """Attention among positions, then a small network at each. (B, T, width) -> the same. Peebles & Xie 2023, figure 3.

    Time enters as six vectors: what is normalised is shifted and scaled, and what is added to x is gated, by them.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Dropout(dropout), nn.Linear(4 * width, width))
        self.block_modulation = nn.Parameter(torch.zeros(6, width))  # added to what all blocks share. Chen et al. 2023, 2.3

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        modulation = (modulation + self.block_modulation).unsqueeze(2)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.unbind(1)  # each (B, 1, width)
        h = self.norm(x) * (1 + scale1) + shift1
        x = x + gate1 * self.attention(h, h, h, need_weights=False)[0]
        return x + gate2 * self.mlp(self.norm(x) * (1 + scale2) + shift2)


class VelocityNet(nn.Module):
    """x_t (B, *latent_shape) and t (B,) -> velocity (B, *latent_shape), float32: a transformer over the H·W positions.

    A latent that is a vector has one position, and the transformer is a residual network on it.
    """

    def __init__(self, latent_shape: tuple[int, ...], width: int, depth: int, heads: int, dropout: float):
        super().__init__()
        channels, *sides = latent_shape
        self.proj_in = nn.Linear(channels, width)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(math.prod(sides), width))
        self.time_embed = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.modulation, self.final_modulation = zeroed(nn.Linear(width, 6 * width)), zeroed(nn.Linear(width, 2 * width))
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.proj_out = zeroed(nn.Linear(width, channels))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.proj_in(x.reshape(*x.shape[:2], -1).transpose(1, 2)) + self.pos_embed  # (B, T, width)
        angles = 1000 * t[:, None] * torch.logspace(0, -4, 128, device=t.device)
        time = self.time_embed(torch.cat([angles.cos(), angles.sin()], 1))  # (B, width)
        modulation = self.modulation(time).unflatten(1, (6, -1))
        for block in self.blocks:
            h = block(h, modulation)
        shift, scale = self.final_modulation(time).unsqueeze(1).chunk(2, 2)
        return self.proj_out(self.norm(h) * (1 + scale) + shift).transpose(1, 2).reshape(x.shape).float()


class LatentFlow(Prior):
    """The learned prior. latent_shape: (C, H, W) or (latent_dim,). width, depth, heads, dropout: of its transformer (defaults:
    8.5M weights). `training.fit_flow` trains it.

    gaussian_baseline: the network learns only what is to be added to the velocity towards a Gaussian with the covariance of the
    latents, so it starts as `FullGaussian` and gets beyond it sooner; for short trainings.
    Works on latents scaled to mean 0 and variance 1. Computes in float32, unless called under `torch.autocast`.
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
        if width % heads or not self.latent_shape:
            raise ValueError(f"width={width} must be a multiple of heads={heads}, and latent_shape={latent_shape} not empty")
        self.width, self.depth, self.heads, self.dropout = width, depth, heads, dropout
        self.network = VelocityNet(self.latent_shape, width, depth, heads, dropout)
        self.register_buffer("mean", torch.zeros(self.latent_shape))
        self.register_buffer("std", torch.ones(self.latent_shape))
        self.gaussian_baseline = gaussian_baseline
        if gaussian_baseline:
            self.register_buffer("axes", torch.eye(self.latent_size))  # principal axes of the scaled latents, in columns
            self.register_buffer("variances", torch.ones(self.latent_size))  # along them
        self.eval()  # `fit_flow` trains a copy, and keeps the moving average of its weights here

    def set_statistics(self, mu: Tensor, std: Tensor) -> None:
        """Take over mean and width of latents with these posterior means and widths; for the baseline, their covariance."""
        self.mean = mu.mean(0)
        self.std = (mu.var(0) + std.square().mean(0)).sqrt().clamp(min=1e-6)
        if self.gaussian_baseline:
            gaussian = FullGaussian(self.latent_shape).fit((mu - self.mean) / self.std, std / self.std)
            axes, widths, _ = torch.linalg.svd(gaussian.scale_tril)
            self.axes, self.variances = axes.contiguous().to(self.mean), widths.square().clamp(min=1e-4).to(self.mean)

    def loss(self, z: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of the velocity at times t (B,) on the lines from noise to z, both (B, *latent_shape).

        Liu et al. 2023, eq. 1.
        """
        z, t_each = (z - self.mean) / self.std, t.view(-1, *[1] * len(self.latent_shape))
        x = (1 - t_each) * noise + t_each * z
        return F.mse_loss(self.velocity(x, t), z - noise)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """The velocity at x (B, *latent_shape), scaled to mean 0 and variance 1, at times t (B,)."""
        v = self.network(x, t)
        if not self.gaussian_baseline:
            return v
        with torch.autocast(x.device.type, enabled=False):  # to a Gaussian it is known: z - noise regressed on x
            t, along = t.float()[:, None], x.float().flatten(1) @ self.axes
            along = along * (t * self.variances - (1 - t)) / (t.square() * self.variances + (1 - t).square())
            return v + (along @ self.axes.T).view_as(x)

    @torch.no_grad()
    def validation_loss(self, latents: Tensor, seed: int = 0) -> float:
        """`loss` on latents (N, *latent_shape) not trained on, always at the same times and with the same noise."""
        generator, device = torch.Generator().manual_seed(seed), self.mean.device
        noise = torch.randn(latents.shape, generator=generator)
        t = torch.randn(len(latents), generator=generator).sigmoid()
        return self.loss(latents.to(device), t.to(device), noise.to(device)).item()

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None, steps: int = 12, batch_size: int = 256) -> Tensor:
        """(n, *latent_shape) on the CPU: noise carried along the learned velocity in `steps` of Heun's second-order method."""
        times, latents = torch.linspace(0, 1, steps + 1).to(self.mean), []
        for noise in torch.randn(n, *self.latent_shape, generator=generator).split(batch_size):
            x = noise.to(self.mean)
            for t, t_next in pairwise(times):
                v = self.velocity(x, t.expand(len(x)))
                v_next = self.velocity(x + (t_next - t) * v, t_next.expand(len(x)))
                x = x + (t_next - t) * (v + v_next) / 2
            latents.append(x.cpu())
        return torch.cat(latents) * self.std.cpu() + self.mean.cpu()

    @torch.no_grad()
    def log_prob(self, z: Tensor, steps: int = 32, n_probes: int = 4, seed: int = 0, batch_size: int = 256) -> Tensor:
        """log p(z) in nats, (N,) float64 on the CPU: that of the noise z comes from, plus how much log volume grows back to it.

        The velocity's divergence, by which volumes grow, is estimated with `n_probes` vectors of random signs for each latent,
        drawn from the seed (Hutchinson). Chen et al. 2018, eq. 8; Grathwohl et al. 2019, eq. 8. Always in float32.
        """
        scaled = (z.cpu().float() - self.mean.cpu()) / self.std.cpu()
        signs = 2.0 * torch.randint(2, (n_probes, *z.shape), generator=torch.Generator().manual_seed(seed)) - 1
        times, nats = 0.5 + 0.5 * torch.linspace(0, math.pi, steps + 1).cos(), []  # 1 to 0, with short steps where it is steep
        for some, probes in zip(scaled.split(batch_size), signs.split(batch_size, 1), strict=True):
            x, probes, growth = some.to(self.mean), probes.to(self.mean), torch.zeros(len(some)).to(self.mean)
            if self.gaussian_baseline:  # turned so that the estimate has no error in what the baseline adds
                probes = (probes.flatten(2) @ self.axes.T).view_as(probes)
            for t, t_next in pairwise(times.to(self.mean)):
                v, divergence = self._velocity_and_divergence(x, t, probes)
                v_next, divergence_next = self._velocity_and_divergence(x + (t_next - t) * v, t_next, probes)
                x = x + (t_next - t) * (v + v_next) / 2
                growth += (t_next - t) * (divergence + divergence_next) / 2
            nats.append(StandardNormal(self.latent_shape).log_prob(x) + growth.cpu())
        return torch.cat(nats) - self.std.cpu().double().log().sum()

    def _velocity_and_divergence(self, x: Tensor, t: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
            x = x.detach().requires_grad_()
            v = self.velocity(x, t.expand(len(x)))
        growth = [torch.autograd.grad(v, x, probe, retain_graph=True)[0].mul(probe).flatten(1).sum(1) for probe in probes]
        return v.detach(), torch.stack(growth).mean(0)
