import errno
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny import tiny_vae, tree

from vae_helpers.data import load_images, split_dataset
from vae_helpers.files import atomic_write, load_weights, lock_folder, remove_stale_temp_files, save_weights
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


def test_without_room_nothing_is_begun_and_the_path_and_what_is_needed_are_told(tmp_path):
    (tmp_path / "file.txt").write_text("old")
    told = r"cannot write '.*file.txt': No space left .*it needs 1,000,000,000,000.0 MB, .* MB are free"
    with pytest.raises(OSError, match=told) as raised, atomic_write(tmp_path / "file.txt", size=10**18):
        pytest.fail("it was begun")
    assert raised.value.__cause__.errno == errno.ENOSPC
    assert tree(tmp_path) == {"file.txt": b"old"}


def test_a_place_that_takes_no_files_is_named_and_another_is_asked_for(tmp_path):
    (tmp_path / "folder").write_text("a file")
    told = r"cannot write '.*file.txt': .*\. Choose another folder \(VAE_HOME"
    with pytest.raises(OSError, match=told), atomic_write(tmp_path / "folder" / "file.txt") as partial:
        partial.write_text("new")


@contextmanager
def full_disk():
    """Within, no file can grow beyond 20,000 bytes."""
    resource = pytest.importorskip("resource")  # not on Windows
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
    with full_disk(), pytest.warns(UserWarning, match="not kept for the next time: .*File too large"):
        load_images(source, 56, cache_dir=tmp_path / "cache")
    assert not tree(tmp_path / "cache")
    split = split_dataset(source, train, test)
    assert load_images(train, 56, cache_dir=tmp_path / "cache").names == split.train


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
        remove_stale_temp_files(tmp_path, idle_seconds=3600)
        assert len(tree(tmp_path)) == 2, "it is still being written"
        process.kill()
        process.wait()
        assert len(tree(tmp_path)) == 2, "a kill leaves it"
        remove_stale_temp_files(tmp_path)
    assert tree(tmp_path) == {"mine.partial": b"not ours"}


# ---------------------------------------------------------------- one writer for a folder

HOLD = (
    "import sys\nfrom vae_helpers.files import lock_folder\n"
    "with lock_folder(sys.argv[1], 'the checkpoints'):\n"
    "    print('held', flush=True); sys.stdin.read()\n"
)


@contextmanager
def held_by_another_process(folder):
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_the_second_process_is_told_who_writes_in_a_folder_and_since_when_and_changes_nothing(tmp_path):
    with held_by_another_process(tmp_path / "dogs") as process:
        before = tree(tmp_path)
        told = rf"the checkpoints in '.*dogs' are being written by process {process.pid} on \S+ \(.*\) since 20\d\d-\d\d-\d\d"
        with pytest.raises(BlockingIOError, match=told), lock_folder(tmp_path / "dogs", "the checkpoints"):
            pytest.fail("both write")
        assert tree(tmp_path) == before
        with lock_folder(tmp_path / "cats", "the checkpoints"):
            pass
        process.stdin.close()
        process.wait()
        with lock_folder(tmp_path / "dogs", "the checkpoints"):
            pass


def test_a_crash_releases_a_folder(tmp_path):
    with held_by_another_process(tmp_path / "dogs") as process:
        process.kill()
        process.wait()
        with lock_folder(tmp_path / "dogs", "the checkpoints"):
            pass


def test_an_error_and_ctrl_c_release_a_folder(tmp_path):
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), lock_folder(tmp_path / "dogs", "the checkpoints"):
            raise error
    with lock_folder(tmp_path / "dogs", "the checkpoints"):
        pass


# ---------------------------------------------------------------- weights


def test_weights_come_back_with_their_metadata(tmp_path):
    state = {"a": torch.randn(2, 3), "b": torch.tensor(1.5), "c": torch.randn(4, 3).T}
    metadata = {"architecture": {"widths": [8, 8], "kind": "vector"}, "note": "brown dogs", "crop": None}
    save_weights(tmp_path / "new folder" / "weights.safetensors", state, metadata)
    loaded, said = load_weights(tmp_path / "new folder" / "weights.safetensors")
    assert said == metadata and loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_weights_take_half_the_room_in_half_precision(tmp_path):
    for name, dtype in (("whole", None), ("half", torch.float16)):
        save_weights(tmp_path / name, {"a": torch.randn(100, 100)}, {}, dtype)
    assert (tmp_path / "half").stat().st_size < 0.51 * (tmp_path / "whole").stat().st_size
    assert load_weights(tmp_path / "half")[0]["a"].dtype == torch.float16


def test_weights_of_another_program_have_its_metadata_as_text(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "weights.safetensors", {"format": "pt"})
    assert load_weights(tmp_path / "weights.safetensors")[1] == {"format": "pt"}


def test_a_missing_file_of_weights_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        load_weights(tmp_path / "gone.safetensors")
