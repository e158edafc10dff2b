import errno
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from PIL import Image
from tiny import tiny_vae, tree

from vae_helpers import files
from vae_helpers.data import load_images, split, split_dataset
from vae_helpers.files import atomic_write, remove_stale_temp_files
from vae_helpers.models import Checkpoint, save_checkpoint


def test_the_new_content_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "new folder" / "file.txt"
    for content in ("first", "second"):
        with atomic_write(path) as partial:
            partial.write_text(content)
        assert tree(tmp_path) == {"new folder/file.txt": content.encode()}


def test_until_the_block_ends_the_old_content_is_in_place(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with atomic_write(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_content_and_no_partial_file(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as partial:
        partial.write_text("half of the n")
        raise error
    assert tree(tmp_path) == {"file.txt": b"old"}


def test_without_room_nothing_is_begun_and_the_path_and_what_is_needed_are_told(tmp_path, monkeypatch):
    (tmp_path / "file.txt").write_text("old")
    monkeypatch.setattr(files, "free_bytes", lambda path: 12_000_000)
    with (
        pytest.raises(
            OSError, match=r"cannot write '.*file.txt': No space left .*it needs 50.0 MB, 12.0 MB are free"
        ) as raised,
        atomic_write(tmp_path / "file.txt", size=50_000_000),
    ):
        pytest.fail("it was begun")
    assert raised.value.errno == errno.ENOSPC
    assert tree(tmp_path) == {"file.txt": b"old"}


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_takes_no_files_is_named_and_another_is_asked_for(tmp_path, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    told = rf"cannot write '.*file.txt': {os.strerror(number)}. Choose another folder"
    with pytest.raises(OSError, match=told) as raised, atomic_write(tmp_path / "file.txt") as partial:
        partial.write_text("new")
        monkeypatch.setattr(files.Path, "replace", refuse)
    assert raised.value.errno == number and not tree(tmp_path)


@contextmanager
def full_disk():
    """Within, no file can grow beyond 20,000 bytes."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("epoch", [1, 2])
def test_on_a_full_disk_the_checkpoint_before_stays_and_no_half_of_one_is_left(tmp_path, suffix, epoch):
    path = tmp_path / f"vae_model_epoch_{epoch}.{suffix}"
    save_checkpoint(path.with_stem("vae_model_epoch_1"), Checkpoint(tiny_vae(), 1, [], {}))
    before = tree(tmp_path)
    with full_disk(), pytest.raises(OSError, match=f"cannot write .*{path.name}.*it needs 0.1 MB"):
        save_checkpoint(path, Checkpoint(tiny_vae(seed=1), 2, [], {}))
    assert tree(tmp_path) == before


def test_on_a_full_disk_a_split_and_a_cache_say_so_and_are_finished_once_there_is_room(tmp_path):
    source, train, test = tmp_path / "dogs", tmp_path / "train", tmp_path / "test"
    source.mkdir()
    generator = torch.Generator().manual_seed(0)
    for i in range(6):
        noise = torch.randint(0, 256, (120, 120, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(noise.numpy()).save(source / f"{i}.png")
    told = r"cannot write '.*train.*png': File too large: .*MB are free there. Make room"
    with full_disk(), pytest.raises(OSError, match=told):
        split_dataset(source, train, test)
    with full_disk(), pytest.raises(OSError, match=r"cannot write '.*dogs-.*safetensors'.*it needs 0.1 MB"):
        load_images(source, 56, cache_dir=tmp_path / "cache")
    assert not tree(tmp_path / "cache")
    split = split_dataset(source, train, test)
    assert load_images(train, 56, cache_dir=tmp_path / "cache").names == split.train


def test_a_split_that_will_not_fit_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    source = tmp_path / "dogs"
    source.mkdir()
    for i in range(5):
        (source / f"{i}.jpg").write_bytes(bytes(10**6))
    for room in (split, files):
        monkeypatch.setattr(room, "free_bytes", lambda path: 4_500_000)
    with pytest.raises(OSError, match=r"train': no room for 5 images: it needs 5.0 MB, 4.5 MB are free"):
        split_dataset(source, tmp_path / "train", tmp_path / "test")
    assert not (tmp_path / "train").exists()


def test_what_killed_processes_left_is_cleared_and_what_others_are_writing_is_not(tmp_path):
    script = (
        "import sys, os\nfrom vae_helpers.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as partial:\n"
        "    partial.write_text('half'); print('there', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "below" / "file.txt")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"there\n"
        (tmp_path / "mine.partial").write_text("not ours")
        remove_stale_temp_files(tmp_path)
        assert len(tree(tmp_path)) == 2, "it is still being written"
        process.kill()
        process.wait()
        assert len(tree(tmp_path)) == 2, "a kill leaves it"
        remove_stale_temp_files(tmp_path)
    assert tree(tmp_path) == {"mine.partial": b"not ours"}
