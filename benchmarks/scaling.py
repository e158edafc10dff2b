"""What `vae-helpers train --auto` chooses from: time and memory of a training step, by network and size of the images.

    python benchmarks/scaling.py            # prints the table of docs/scaling.md; each row in a process of its own

Time is CPU time of one thread, which other programs change little: that of the fastest of four steps. Memory is what a process
holds at most with batches of 32, less what it holds at most with batches of 8, by image.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from vae_helpers.models import VAE, AttentionVAE, BaseVAE, ResidualVAE, SpatialVAE, use_bfloat16, vae_loss

NETWORKS: dict[str, Callable[[int], BaseVAE]] = {
    "vector": lambda size: VAE(image_size=size),
    "residual": lambda size: ResidualVAE(image_size=size),
    "spatial": lambda size: SpatialVAE(image_size=size),
    "attention": lambda size: AttentionVAE(image_size=size),
}
SIZES = (32, 56, 64, 112, 256)


def step_of(what: str, size: int, batch_size: int) -> Callable[[], object]:
    vae = NETWORKS[what](size).to(memory_format=torch.channels_last)
    x = torch.randn(batch_size, 3, size, size).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(vae.parameters(), fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=use_bfloat16(torch.device("cpu"))):
            x_hat, mu, logvar = vae(x)
        optimizer.zero_grad()
        vae_loss(x_hat, x, mu, logvar).loss.backward()
        optimizer.step()

    return step


def measure(what: str, size: int, batch_size: int) -> tuple[float, float]:
    """(CPU seconds of a step, megabytes at most)"""
    torch.set_num_threads(1), torch.manual_seed(0)
    step, seconds = step_of(what, size, batch_size), []
    for _ in range(4):
        began = time.process_time()
        step()
        seconds.append(time.process_time() - began)
    return min(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    print("| network | size | images a CPU second | MB an image of a batch |\n|---|---|---|---|")
    for what in NETWORKS:
        for size in SIZES:
            found = []
            for batch_size in (8, 32):
                command = [sys.executable, __file__, what, str(size), str(batch_size)]
                said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                found.append([float(word) for word in said.split()])
            (_, small), (seconds, large) = found
            print(f"| {what} | {size} | {32 / seconds:.0f} | {max(0, large - small) / 24:.1f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(*measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
    else:
        main()
