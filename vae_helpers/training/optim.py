"""What every training here shares: one learning rate schedule, one step of an optimizer, one average of the weights."""

import math
from collections.abc import Iterable

import torch
import torch.nn as nn
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

MAX_SKIPPED_STEPS = 10  # in a row, before training is given up


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
