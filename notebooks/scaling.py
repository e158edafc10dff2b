"""For notebook 10: a step's time by kind of work, and a training run in several processes."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

KINDS = {  # the first kind with a part that is in an operation's name
    "Adam": ("adam", "optimizer"),
    "convolutions": ("conv",),
    "linear layers": ("mm", "linear"),
    "normalisation": ("norm",),
    "activations, sums": ("silu", "shuffle", "pool", "mul", "add", "div", "exp", "sum", "mean"),
    "copies and changes of type": ("copy", "contiguous", "clone"),
    "everything else": ("",),
}


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what libraries below Python write to standard error: the profiler greets there."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def time_by_kind(step: Callable[[], object], n: int) -> dict[str, float]:
    """Shares of the time of `n` calls of `step`, as torch's profiler sees it; they sum to 1."""
    step()
    with quiet(), profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(n):
            step()
    seconds = Counter()
    for event in profiler.key_averages():
        kind = next(k for k, names in KINDS.items() if any(n in event.key.lower() for n in names))
        seconds[kind] += event.self_cpu_time_total
    total = seconds.total()
    return {kind: part / total for kind, part in seconds.most_common()}


def train(home: Path, processes: int, *options: str) -> str:
    """`python -m vae_helpers train` in a workspace of its own, in so many processes on this CPU.

    Returns what was printed. Raises RuntimeError with it when training fails.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *torchrun, "-m", "vae_helpers", "train", *options]
    float32 = os.environ | {"VAE_HOME": str(home), "VAE_BF16": "0", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, env=float32, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(result.stdout + result.stderr)
    return result.stdout
