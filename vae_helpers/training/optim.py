"""What every training here shares: one learning rate schedule, one step of an optimizer, one average of the weights.

`fit_flow` is the shortest training that uses them: of the latent flow in `models/flow.py`.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..models.flow import LatentFlow
from ..models.layers import use_bfloat16
from ..models.pretrained import digest
from .progress import forget, resumable_steps

MAX_SKIPPED_STEPS = 10  # in a row, before training is given up
EMA_DECAY = 0.9995
"""How much of the moving average of a flow's weights stays at each step."""


def learning_rate_factor(step: float, total: float, warmup: float = 100) -> float:
    """What the learning rate is multiplied with at `step` of `total`: a linear rise over `warmup`, then a cosine down to zero.

    All three in steps, or in seconds for a training that ends on time. The rise takes a third of the training at most.
    Loshchilov & Hutter 2017 for the cosine.
    """
    warmup = min(warmup, max(1, total // 3))
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / total))


def optimizer_step(loss: Tensor, optimizer: Optimizer, parameters: Iterable[Tensor], max_grad_norm: float = 1.0) -> bool:
    """One step down the gradient of `loss`, shortened to `max_grad_norm`. Returns whether the gradient was finite.

    Where it holds NaN or infinity the step is skipped: `parameters` and the optimizer's averages stay as they are, since one
    bad batch must not spoil them for good. Raises FloatingPointError after ten such steps in a row. While a CUDA graph is
    captured nothing can be asked: every step is taken.
    """
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    finite = (norm.is_cuda and torch.cuda.is_current_stream_capturing()) or bool(norm.isfinite())
    first = optimizer.param_groups[0]  # counted in the optimizer, so that two of them do not share a count
    first["skipped_in_a_row"] = 0 if finite else first.get("skipped_in_a_row", 0) + 1
    if finite:
        optimizer.step()
    elif first["skipped_in_a_row"] >= MAX_SKIPPED_STEPS:
        raise FloatingPointError(
            f"the gradient was NaN or infinite {MAX_SKIPPED_STEPS} times in a row: lower the learning_rate, "
            "or compute in float32 (precision='float32'; VAE_BF16=0 on the command line)"
        )
    return finite


def update_ema(ema: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Move the weights of `ema` a step towards those of `model`: an exponential moving average, which jumps about less.

    step: counted from 0; the first ones weigh more, so that the average does not remember the untrained weights. decay: how
    much of the average stays (0.999, say). Polyak & Juditsky 1992.
    """
    decay = min(decay, (1 + step) / (10 + step))
    get_ema_multi_avg_fn(decay)(list(ema.parameters()), list(model.parameters()), None)


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
    on_report: Callable[[dict[str, float]], bool | None] | None = None,
    state_path: Path | None = None,
) -> LatentFlow:
    """Train `flow` where its weights are (`.to("cuda")` first for a GPU).

    mu: (N, *latent_shape), posterior means when `std`, the posterior's width, is given: then z is drawn anew at every use.
    learning_rate: at its largest; rises at first, then falls to zero along a cosine. precision: "float32", "bfloat16", or
    "auto" for bfloat16 where the machine has units for it. on_report: called fifty times with step, seconds and loss (the
    average since the last call) while the weights of `flow` are the moving average, as after training; True as its answer ends
    the training there. state_path: a file that keeps what a stopped training goes on from. Returns `flow`.

    Everything random follows from `seed`, and torch's global generators are left as they were (but Apple's MPS, which is seeded
    with it). Raises ValueError for latents that do not fit or are not finite, FloatingPointError when the gradient is NaN or
    infinite ten times in a row.
    """
    device = flow.mean.device
    mu, std = (x.to(device) for x in flow.check_latents(mu, std))
    flow.set_statistics(mu, std)
    learner, generator = copy.deepcopy(flow).train(), None
    optimizer = torch.optim.AdamW(learner.parameters(), learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    parts, run = {"flow": flow, "learner": learner, "optimizer": optimizer}, f"{steps} {batch_size} {seed} {digest(mu, std)}"
    started, losses = time.perf_counter(), []
    with torch.random.fork_rng(range(torch.cuda.device_count())):  # for dropout, which takes no generator of its own
        for step in resumable_steps(steps, parts, state_path, run, "the flow"):
            if generator is None:
                torch.manual_seed(seed + step)
                generator = torch.Generator(device).manual_seed(seed + step)
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
                losses.clear()
                if on_report({"step": step + 1, "seconds": time.perf_counter() - started, "loss": loss}):
                    break
    forget(state_path)
    return flow
