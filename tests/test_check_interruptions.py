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
from vae_helpers.data import split_dataset
from vae_helpers.toy_dogs import write_toy_dogs

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


LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def history(folder, epoch=4):
    return load_checkpoint(folder / f"vae_model_epoch_{epoch}.pth").history


def assert_same_curve(one, other):
    """Up to the order in which floats are added."""
    for a, b in zip(one, other, strict=True):
        for name in ("train_loss", "train_recon", "train_kl", "validation_loss", "validation_kl", "beta"):
            assert a[name] == pytest.approx(b[name], rel=1e-4), name


def files(folder):
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def test_two_processes_give_the_loss_curve_and_the_files_of_one(tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert "finished" in train(alone, 4).stdout
    result = train(together, 4, LAUNCH)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("finished in 2 processes") == 2
    assert result.stdout.count("epoch  4/4") == 1, "more than one process spoke"
    assert_same_curve(history(alone), history(together))
    assert files(alone) == files(together)


@pytest.mark.parametrize(("first", "then"), [(LAUNCH, ()), ((), LAUNCH)], ids=["two-then-one", "one-then-two"])
def test_a_run_goes_on_in_another_number_of_processes(tmp_path, first, then):
    straight, changed = tmp_path / "straight", tmp_path / "changed"
    train(straight, 4)
    stopped = train(changed, "2/4", first)  # stops itself after the second of four epochs
    assert ("2 processes share every batch" in stopped.stdout) == (first == LAUNCH)
    assert list(list_checkpoints(changed)) == [1, 2], stopped.stderr
    result = train(changed, 4, then)
    assert "Going on from vae_model_epoch_2.pth: 2 epochs done, 2 to go." in result.stdout, result.stderr
    assert ("finished in 2 processes" in result.stdout) == (then == LAUNCH)
    assert_same_curve(history(straight), history(changed))
    assert files(straight) == files(changed)


def test_processes_that_do_not_see_the_same_checkpoints_do_not_go_on(tmp_path):
    folder = tmp_path / "of-{rank}"  # as on two machines without a shared disk
    train(folder, "2/4", LAUNCH)
    assert list(list_checkpoints(tmp_path / "of-0")) == [1, 2]
    result = train(folder, 4, LAUNCH)
    assert result.returncode and "it must be one folder for all" in result.stderr
    assert list(list_checkpoints(tmp_path / "of-0")) == [1, 2]


def test_the_command_line_trains_in_two_processes(tmp_path):
    home = {"VAE_HOME": str(tmp_path), "VAE_BF16": "0", "OMP_NUM_THREADS": "1"}
    write_toy_dogs(tmp_path / "dogs", 40)
    split_dataset(tmp_path / "dogs", tmp_path / "data" / "train" / "dogs", tmp_path / "data" / "test" / "dogs")
    curves = []
    for launcher in ((), LAUNCH):
        where = tmp_path / f"models{len(launcher)}"
        command = [sys.executable, *launcher, "-m", "vae_helpers", "train", "--epochs", "2", "--checkpoint-dir", str(where)]
        result = subprocess.run(command, env=os.environ | home, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stderr
        assert ("2 processes share every batch" in result.stdout) == (launcher == LAUNCH)
        assert result.stdout.count("epoch  2/2") == 1, result.stdout
        curves.append(history(where, 2))
    assert_same_curve(*curves)
    assert len(list((tmp_path / "data" / "cache").iterdir())) == 1
