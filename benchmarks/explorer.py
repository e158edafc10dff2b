"""How quick the explorer is: `python benchmarks/explorer.py`, in the environment of `make test` and with Chromium.

Prints a Markdown table: in the kernel, from a slider's event to the new PNG bytes; in JupyterLab in a real browser, from a key
press to changed pixels, and how a fast run of keys ends. The model is the newest checkpoint, or an untrained one.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import torch

from vae_helpers.config import best_device, folders
from vae_helpers.data import load_images, toy_dogs
from vae_helpers.latent import LatentExplorer
from vae_helpers.models import VAE, Checkpoint, list_checkpoints, load_checkpoint, save_checkpoint

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "slow"))
from lab_and_browser import CHROMIUM, Lab, chromium, open_notebook, run_all_cells

EVENTS, KEYS = 400, 120
CELL = """
from vae_helpers import LatentExplorer, load_checkpoint, load_images
LatentExplorer(load_checkpoint("model.pth", {device!r}).vae, load_images("toy_dogs"))
"""
WATCH = """() => {
    const image = document.querySelector('.explorer-picture');
    window.latencies = []; window.frames = 0; let pressed = null;
    document.addEventListener('keydown', () => { pressed = performance.now(); }, true);
    image.addEventListener('load', () => requestAnimationFrame(() => {
        window.frames += 1; window.lastFrame = performance.now();
        if (pressed !== null) window.latencies.push(window.lastFrame - pressed);
        pressed = null;
    }));
}"""


async def in_the_kernel(vae: VAE, dogs: torch.Tensor) -> list[float]:
    """Seconds from each of many slider events to the new picture's bytes. The hand never rests: no other task has a turn."""
    explorer = LatentExplorer(vae, dogs)
    seconds = []
    for i in range(EVENTS):
        started = time.perf_counter()
        explorer.sliders[i % 8].value = 7 * i % 50
        seconds.append(time.perf_counter() - started)
    explorer.close()
    return seconds


def in_the_browser(folder: Path) -> tuple[list[float], int, float]:
    """(seconds from key to pixels, frames shown for a fast run of keys, seconds from its last key to its last frame)."""
    nbformat.write(
        nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(CELL.format(device=str(best_device())))],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        ),
        folder / "explorer.ipynb",
    )
    lab = Lab(folder)
    try:
        with chromium() as browser:
            page, _ = open_notebook(lab, browser, "explorer.ipynb", height=1100)
            run_all_cells(lab, page, "explorer.ipynb")
            page.wait_for_selector(".explorer .noUi-handle")
            page.wait_for_timeout(2000)
            page.locator(".explorer .noUi-handle").nth(0).focus()
            page.keyboard.press("Home")
            page.wait_for_timeout(1000)
            page.evaluate(WATCH)
            for i in range(KEYS):
                page.keyboard.press("ArrowLeft" if i // 20 % 2 else "ArrowRight")
                page.wait_for_timeout(120)
            page.wait_for_timeout(1000)
            latencies = [ms / 1000 for ms in page.evaluate("() => window.latencies")]
            page.keyboard.press("Home")
            page.wait_for_timeout(1500)
            page.evaluate("() => { window.frames = 0; }")
            for _ in range(40):
                page.keyboard.press("ArrowRight")
            ended = page.evaluate("() => performance.now()")
            page.wait_for_timeout(1500)
            frames, last = page.evaluate("() => [window.frames, window.lastFrame]")
            return latencies, frames, (last - ended) / 1000
    finally:
        lab.end()


def row(what: str, seconds: list[float]) -> str:
    p95 = statistics.quantiles(seconds, n=20)[-1]
    return f"| {what} | {1000 * statistics.median(seconds):.0f} ms | {1000 * p95:.0f} ms |"


def main() -> None:
    found = list_checkpoints(folders().checkpoints)
    vae = load_checkpoint(list(found.values())[-1], best_device()).vae if found else VAE().to(best_device()).eval()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        toy_dogs.write_toy_dogs(folder / "toy_dogs", 256)
        save_checkpoint(folder / "model.pth", Checkpoint(vae, 0, [], {}))
        dogs = load_images(folder / "toy_dogs", vae.image_size, cache_dir=folder).pixels
        kernel = asyncio.run(in_the_kernel(vae, dogs))
        print(f"\n{'trained' if found else 'untrained'} model, {best_device().type}, torch {torch.__version__}\n")
        print("| what | median | 95% |\n|---|---|---|")
        print(row("kernel: slider event to new PNG bytes", kernel))
        if CHROMIUM is None:
            sys.exit("no Chromium on this machine: the browser's part was not measured")
        keys, frames, rest = in_the_browser(folder)
        print(row("browser: key press to changed pixels", keys))
        print(f"\n{len(keys)} of {KEYS} presses made a frame of their own. A fast run of 40 keys: {frames} frames,")
        print(f"the last of them {1000 * rest:.0f} ms after the last key.")


if __name__ == "__main__":
    main()
