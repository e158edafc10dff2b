"""Slow checks (`make check`): what is killed loses nothing that was finished; two processes train as one does."""

import csv
import hashlib
import io
import itertools
import multiprocessing
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from vae_helpers import data
from vae_helpers.config import folders
from vae_helpers.data import (
    draw_dog,
    fetch_photos,
    load_images,
    sample_factors,
    split_dataset,
    write_toy_dogs,
)
from vae_helpers.models import list_checkpoints, load_checkpoint

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("train_tiny.py")


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1"}


def train(folder, epochs, launcher=()):
    command = [sys.executable, *launcher, str(SCRIPT), str(folder), str(epochs)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)


# ---------------------------------------------------------------- jobs to be killed


def splitting(dogs, photos):
    for seed in (1, 42):  # the second removes what the first put elsewhere
        split_dataset(dogs, folders().train, folders().test, random_state=seed)


def caching(dogs, photos):
    load_images(dogs, image_size=160, cache_dir=folders().cache)


def training(dogs, photos):
    sys.argv = [str(SCRIPT), str(folders().checkpoints), "10"]
    runpy.run_path(str(SCRIPT))


def downloading(dogs, photos):
    data.photos.REGISTRIES = photos
    fetch_photos("stanford-dogs", folders().photos)


KILLS = {splitting: 7, caching: 8, training: 6, downloading: 8}
SECONDS = 60  # more than any of them takes

WARM = multiprocessing.get_context("forkserver")  # to import torch anew for each of them would take most of the time
WARM.set_forkserver_preload(
    [
        "pytest",
        "pooch",
        "requests",
        "torch._dynamo",
        "vae_helpers.data.photos",
        "vae_helpers.data.split",
        "vae_helpers.training.loop",
    ]
)


def write_slowly(path, content, pause):
    """As on a slow disk: a kill now and then finds a file half written."""
    with path.open("wb", buffering=0) as file:
        file.write(content[: len(content) // 2])
        time.sleep(pause)
        file.write(content[len(content) // 2 :])


def carry_out(job, home, source, begun):
    os.environ |= {"VAE_HOME": str(home), "no_proxy": "127.0.0.1"}
    Path.write_bytes = lambda path, content: write_slowly(path, content, min(len(content) / 2e6, 0.05))
    Path.write_text = lambda path, text, **how: write_slowly(path, text.encode(), 0.05)
    begun.set()
    job(*source)
    os._exit(0)


def attempt(job, home, source, kill_after=SECONDS):
    """Do `job` in a process of its own: (whether it came to its end before it was killed, how long it was in it)."""
    begun = WARM.Event()
    process = WARM.Process(target=carry_out, args=(job, home, source, begun))
    process.start()
    assert begun.wait(SECONDS)
    started = time.monotonic()
    process.join(kill_after)
    seconds = time.monotonic() - started
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == 0, seconds


class SlowHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        content = self.server.files[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with suppress(ConnectionError):  # who asked was killed
            for start in range(0, len(content), 200_000):
                self.wfile.write(content[start : start + 200_000])
                time.sleep(0.005)

    def log_message(self, *_):
        pass


def tar(files):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as writer:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            writer.addfile(about, io.BytesIO(content))
    return archive.getvalue()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder of dogs in many small subfolders, and a collection of photos whose server takes its time."""
    dogs, drawn = tmp_path_factory.mktemp("dogs"), [draw_dog(row, 32) for row in sample_factors(10)]
    for i in range(1000):
        path = dogs / f"breed {i // 3}" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        drawn[i % 10].save(path)

    box = "<object><bndbox><xmin>{}</xmin><ymin>2</ymin><xmax>40</xmax><ymax>20</ymax></bndbox></object>"
    note = f"<annotation><size><width>40</width><height>20</height></size>{100 * box}</annotation>"
    names = {f"n02085620-Chihuahua/n02085620_{i}": i for i in range(500)}
    files = {
        "/images.tar": tar({f"Images/{name}.jpg": random.Random(i).randbytes(5000) for name, i in names.items()}),
        "/annotation.tar": tar({f"Annotation/{name}": note.replace("{}", str(i % 30)).encode() for name, i in names.items()}),
    }
    with ThreadingHTTPServer(("127.0.0.1", 0), SlowHandler) as server:
        server.files = files
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        registries, address = tmp_path_factory.mktemp("registries"), f"http://127.0.0.1:{server.server_port}"
        lines = [f"{name[1:]} sha256:{hashlib.sha256(files[name]).hexdigest()} {address}{name}" for name in files]
        (registries / "stanford-dogs.txt").write_text("\n".join(["# small", *lines]))
        yield dogs, registries
        server.shutdown()


def contents(folder):
    """Everything below, hidden or not, with a digest of what is in it; in a checkpoint its weights, since it tells the time."""

    def content(path):
        if path.is_dir():
            return b""
        if path.name == "history.csv":  # without what tells the time
            rows = list(csv.DictReader(path.read_text().splitlines()))
            for row in rows:
                del row["seconds"], row["images_per_second"]
            return repr(rows).encode()
        if path.suffix == ".safetensors":  # whose notes are in no order
            with safe_open(path, "pt") as file:
                return repr(sorted(file.metadata().items())).encode() + file.get_tensor("pixels").numpy().tobytes()
        if path.suffix == ".pth":
            saved = torch.load(path, weights_only=True)
            return b"".join(tensor.numpy().tobytes() for tensor in saved.get("weights", saved.get("model")).values())
        return path.read_bytes()

    paths = (path for path in folder.rglob("*") if path.suffix != ".holder")  # the note of a lock: who, and when
    return {str(path.relative_to(folder)): hashlib.sha256(content(path)).hexdigest() for path in paths}


@pytest.mark.parametrize(("job", "kills"), KILLS.items(), ids=[job.__name__ for job in KILLS])
def test_killed_at_any_moment_the_same_command_ends_as_if_it_never_had_been(job, kills, source, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # what is forked must have one thread
    undisturbed, killed, copy = tmp_path / "undisturbed", tmp_path / "killed", tmp_path / "copy"
    duration = min(attempt(job, home, source)[1] for home in (undisturbed, tmp_path / "again"))  # first, the disk is cold
    expected, rng, moments, turns = contents(undisturbed), random.Random(job.__name__), [], itertools.count()
    while len(moments) < kills:  # at random, but early and late alike
        killed.mkdir(exist_ok=True)
        ended, seconds = attempt(job, killed, source, duration * ((next(turns) + rng.random()) / kills % 1))
        if not ended:
            moments.append(seconds)
        finished = killed if ended else shutil.copytree(killed, copy)  # what was killed goes on, to be killed again
        for left in finished.glob("data/cache/.tmp-*.partial"):  # as if a day had passed: others might write there
            os.utime(left, (0, 0))
        assert attempt(job, finished, source)[0]
        assert contents(finished) == expected
        shutil.rmtree(finished)
    print(f"{job.__name__}: {kills} kills,", *(f"{moment:.2f}" for moment in moments), f"s into what takes {duration:.2f} s")


# ---------------------------------------------------------------- in several processes


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
        name = f"model{len(launcher)}"
        command = [sys.executable, *launcher, "-m", "vae_helpers", "train", "--epochs", "2", "--name", name]
        result = subprocess.run(command, env=os.environ | home, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stderr
        assert ("2 processes share every batch" in result.stdout) == (launcher == LAUNCH)
        assert result.stdout.count("epoch  2/2") == 1, result.stdout
        curves.append(history(tmp_path / "models" / name, 2))
    assert_same_curve(*curves)
    assert len(list((tmp_path / "data" / "cache").iterdir())) == 1
