"""Slow checks (`make check`): a run that is killed loses nothing that was finished; two processes train as one does."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from vae_helpers.checkpoint import list_checkpoints, load_checkpoint

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("train_tiny.py")
EPOCHS = 30


def environment():
    return os.environ | {"VAE_BF16": "0", "OMP_NUM_THREADS": "1"}


def train(folder, epochs=EPOCHS, launcher=()):
    command = [sys.executable, *launcher, str(SCRIPT), str(folder), str(epochs)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)


def weights(folder, epoch):
    return load_checkpoint(folder / f"vae_model_epoch_{epoch}.pth").vae.state_dict()


def test_training_killed_again_and_again_ends_with_the_very_same_weights(tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert "finished" in train(straight).stdout
    rng, kills = random.Random(0), 0
    for attempt in range(12):
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(killed), str(EPOCHS)], env=environment(), stdout=subprocess.DEVNULL
        )
        before = len(list_checkpoints(killed)) if killed.exists() else 0
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:  # let it get a little further, then kill it anywhere
            if killed.exists() and len(list_checkpoints(killed)) > before:
                break
            time.sleep(0.01)
        time.sleep(rng.random() * 0.3)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        if len(list_checkpoints(killed)) >= EPOCHS and attempt >= 5:
            break
    assert kills >= 3, "it was never caught in the middle"
    result = train(killed)
    assert "finished" in result.stdout, result.stderr
    assert sorted(list_checkpoints(killed)) == list(range(1, EPOCHS + 1))
    ours, theirs = weights(killed, EPOCHS), weights(straight, EPOCHS)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not [path for path in killed.iterdir() if path.is_dir()], "a killed run was taken for another"


def test_two_processes_give_the_loss_curve_and_the_files_of_one(tmp_path):
    launcher = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1")
    launcher += ("--mixed_precision", "no", "--dynamo_backend", "no")
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert "finished" in train(alone, 4).stdout
    result = train(together, 4, launcher)
    assert result.returncode == 0, result.stderr
    one, two = (load_checkpoint(folder / "vae_model_epoch_4.pth").history for folder in (alone, together))
    for a, b in zip(one, two, strict=True):
        for name in ("train_loss", "train_kl", "validation_loss"):
            assert a[name] == pytest.approx(b[name], rel=2e-3), name
    assert {path.name for path in alone.iterdir()} == {path.name for path in together.iterdir()}
