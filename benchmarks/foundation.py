"""What the foundation costs on this machine: `make bench`, or `DOGS=folder make bench`.

Prints a Markdown table: decoding, training throughput against the bare training step on ready tensors (medians of turns
taken one after the other, since machines are noisy), the same without bfloat16, and the peak memory of this process.
"""

import os
import platform
import resource
import statistics
import sys
import tempfile
import time

import torch

from vae_helpers import toy_dogs
from vae_helpers.data import load_images, split_validation, to_signed
from vae_helpers.loss import vae_loss
from vae_helpers.model import VAE
from vae_helpers.settings import best_device, bf16_pays, dogs_source
from vae_helpers.train import TrainingSettings, fit

TURNS = 3
SETTINGS = TrainingSettings(epochs=1)


def bare_steps(pixels: torch.Tensor, n_steps: int) -> float:
    """Images per second of forward, loss, backward and step on one batch that is ready."""
    device = best_device()
    vae = VAE().to(device=device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(vae.parameters())
    x = to_signed(pixels[: SETTINGS.batch_size], device).contiguous(memory_format=torch.channels_last)
    started = time.perf_counter()
    for _ in range(n_steps):
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16_pays(device)):
            x_hat, mu, logvar = vae(x)
        optimizer.zero_grad()
        vae_loss(x_hat, x, mu, logvar).loss.backward()
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return n_steps * len(x) / (time.perf_counter() - started)


def throughput(pixels: torch.Tensor) -> tuple[float, float]:
    """Median images per second of (an epoch of `fit`, the bare step), turn about."""
    epochs, bare = [], []
    for turn in range(TURNS + 1):
        history = fit(VAE(), pixels, pixels[:8], SETTINGS)
        speed = bare_steps(pixels, len(pixels) // SETTINGS.batch_size)
        if turn:  # the first warms up
            epochs.append(history[0]["images_per_second"])
            bare.append(speed)
    return statistics.median(epochs), statistics.median(bare)


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        source = dogs_source()
        if source is None:
            started = time.perf_counter()
            source = cache + "/toy"
            toy_dogs.write_toy_dogs(source)
            rows.append(("drawing 4,096 toy dogs", f"{time.perf_counter() - started:.1f} s"))
        for turn in ("first", "second"):
            started = time.perf_counter()
            images = load_images(source, cache_dir=cache)
            rows.append((f"loading {len(images):,} images, {turn} time", f"{time.perf_counter() - started:.2f} s"))
        learn, _ = split_validation(images)
        pixels = learn.pixels[:3200]
        before = os.environ.get("VAE_BF16")
        for label, switch in (("", before), (", bfloat16 off", "0")):
            if switch is not None:
                os.environ["VAE_BF16"] = switch
            epoch, bare = throughput(pixels)
            rows.append((f"training epoch{label}", f"{epoch:.0f} images/s"))
            rows.append((f"bare training step{label}", f"{bare:.0f} images/s"))
            rows.append((f"time per epoch over the bare steps' time{label}", f"{bare / epoch:.2f}"))
    unit = 1e9 if sys.platform == "darwin" else 1e6  # bytes there, kilobytes elsewhere
    rows.append(("peak memory", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.1f} GB"))
    name = getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name", platform.machine())
    print(
        f"\n{name}, {os.cpu_count()} cores, {best_device().type}, torch {torch.__version__}\n\n| what | measured |\n|---|---|"
    )
    for what, value in rows:
        print(f"| {what} | {value} |")


if __name__ == "__main__":
    main()
