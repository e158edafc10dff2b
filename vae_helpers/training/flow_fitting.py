"""Training a latent flow, the prior that is learned by gradients. The network is in `models/flow.py`."""

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ..models.flow import LatentFlow
from ..models.layers import use_bfloat16
from .optim import learning_rate_factor, optimizer_step, update_ema

EMA_DECAY = 0.9995
"""How much of the moving average of the weights stays at each step."""


def fit_flow(
    flow: LatentFlow,
    mu: Tensor,
    std: Tensor | None = None,
    *,
    steps: int = 20_000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
    precision: str = "auto",
    on_report: Callable[[dict[str, float]], None] | None = None,
) -> LatentFlow:
    """Train `flow` where its weights are (`.to("cuda")` first for a GPU).

    mu: (N, *latent_shape), posterior means when `std`, the posterior's width, is given: then z is drawn anew at every use.
    learning_rate: at its largest; rises at first, then falls to zero along a cosine. precision: "float32", "bfloat16", or
    "auto" for bfloat16 where the machine has units for it. on_report: called fifty times with step, seconds and loss (the
    average since the last call) while the weights of `flow` are the moving average, as after training. Returns `flow`.

    Everything random follows from `seed`, and torch's global generators are left as they were (but Apple's MPS, which is seeded
    with it). Raises ValueError for latents that do not fit or are not finite, FloatingPointError when the gradient is NaN or
    infinite ten times in a row.
    """
    device = flow.mean.device
    mu, std = (x.to(device) for x in flow.check_latents(mu, std))
    flow.set_statistics(mu, std)
    learner, generator = copy.deepcopy(flow).train(), torch.Generator(device).manual_seed(seed)
    optimizer = torch.optim.AdamW(learner.parameters(), learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    started, losses = time.perf_counter(), []
    with torch.random.fork_rng(range(torch.cuda.device_count())):  # for dropout, which takes no generator of its own
        torch.manual_seed(seed)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = learning_rate * learning_rate_factor(step, steps, warmup=500)
            chosen = torch.randint(len(mu), (batch_size,), generator=generator, device=device)
            eps, noise = torch.randn(2, *mu[chosen].shape, generator=generator, device=device)
            t = torch.randn(batch_size, generator=generator, device=device).sigmoid()  # most often the middle
            with torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16(device, precision)):
                loss = learner.loss(mu[chosen] + std[chosen] * eps, t, noise)
            optimizer_step(loss, optimizer, learner.parameters())
            update_ema(flow, learner, step, EMA_DECAY)
            losses.append(loss.detach())
            if on_report is not None and 50 * (step + 1) // steps > 50 * step // steps:
                loss = torch.stack(losses).mean().item()
                on_report({"step": step + 1, "seconds": time.perf_counter() - started, "loss": loss})
                losses.clear()
    return flow
