"""Slow check (`make check`): from a folder of photos to sharp new dogs by commands, killed and gone on in between."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae_helpers.data import draw_dog, sample_factors

pytestmark = pytest.mark.slow
SECONDS = 300
# The command line, with states kept every second instead of every minute, so that a kill need not wait for one
COMMAND = "import vae_helpers.training.progress as p; p.SAVE_EVERY = 1; from vae_helpers.cli import main; main()"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python", sys.executable)


@pytest.fixture
def start(tmp_path):
    """Start a command of the package in a workspace of its own."""
    environment = os.environ | {"VAE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)

    def start(*words: str | int, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
        command = [sys.executable, *launcher, "-c", COMMAND, *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes)

    return start


def finish(process: subprocess.Popen) -> str:
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    return said


def kill_when(process: subprocess.Popen, path: Path) -> None:
    """Kill a command as soon as `path` is there."""
    until = time.monotonic() + SECONDS
    while not path.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert process.poll() is None and path.exists(), process.communicate()[0]
    process.send_signal(signal.SIGKILL)
    process.communicate()


def write_photos(folder: Path, n: int) -> None:
    folder.mkdir()
    for i, factors in enumerate(sample_factors(n, seed=0)):
        draw_dog(factors).save(folder / f"{i:03}.png")


@pytest.mark.parametrize(("n", "size"), [(96, 64), (24, 32)])
@pytest.mark.parametrize("launcher", [(), TORCHRUN], ids=["one process", "two processes"])
def test_the_whole_way_is_gone_on_after_kills(start, tmp_path, n, size, launcher):
    write_photos(tmp_path / "photos", n)
    model, options = tmp_path / "models/mine", ("--model", "mine")
    finish(start("split", "photos"))
    train = ("train", "--network", "residual", "--width", 16, "--image-size", size, "--epochs", 8, "--name", "mine")
    if not launcher:
        kill_when(start(*train), model / "vae_model_epoch_2.pth")
    said = finish(start(*train, launcher=launcher))
    assert launcher or "Going on from vae_model_epoch_" in said
    assert (model / "vae_model_epoch_8.pth").exists() and (model / "history.csv").read_text().count("\n") == 9

    finish(start("sample", *options, "-n", 8, "--out", "raw"))
    assert "likeliest" in finish(start("train-prior", *options, "--steps", 100, launcher=launcher))
    sharpen = ("sharpen", *options, "--features", "off", "--batch-size", 8, "--images", 400)
    if not launcher:
        kill_when(start(*sharpen), model / "sharpen_state.pth")
    said = finish(start(*sharpen, launcher=launcher))
    assert launcher or "Going on with sharpening: " in said
    finish(start("sample", *options, "-n", 8, "--out", "sharp"))
    finish(start("evaluate", *options))
    finish(start("walk", *options, "--steps", 5))

    raw, sharp = (np.stack([Image.open(path) for path in sorted((tmp_path / name).iterdir())]) for name in ("raw", "sharp"))
    assert raw.shape == sharp.shape == (8, size, size, 3) and np.abs(raw.astype(int) - sharp).mean() > 1
    assert [path.name for path in model.glob("*_state.pth")] == ["training_state.pth"]
    assert {path.name for path in (tmp_path / "outputs").iterdir()} >= {"report.html", "metrics.json", "walk.gif"}
