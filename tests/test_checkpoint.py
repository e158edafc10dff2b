import pickle
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from tiny import random_pixels, tiny_vae, tree, write_files

from vae_helpers.checkpoint import (
    STATE_FILE,
    Checkpoint,
    checkpoint_path,
    list_checkpoints,
    load_checkpoint,
    load_training_state,
    move_run,
    newest_checkpoint,
    save_checkpoint,
    save_training_state,
)
from vae_helpers.data import to_signed

CHECKPOINT_NAMES = [f"vae_model_epoch_{epoch}.pth" for epoch in (1, 2, 9, 10, 100)]


@pytest.fixture
def saved(tmp_path):
    path = checkpoint_path(tmp_path / "models", 3)
    save_checkpoint(path, Checkpoint(tiny_vae(widths=(8, 16, 8)), 3, [{"epoch": 1, "train_loss": 0.5}], {"beta": 0.1}))
    return path


def test_a_model_gives_the_same_outputs_after_being_saved_and_loaded(saved):
    before, after = tiny_vae(widths=(8, 16, 8)), load_checkpoint(saved)
    x, eps = to_signed(random_pixels(3)), torch.randn(3, 4)
    torch.testing.assert_close(tuple(after.vae(x, eps)), tuple(before(x, eps)))
    assert all(torch.equal(a, b) for a, b in zip(after.vae.state_dict().values(), before.state_dict().values(), strict=True))
    assert after.vae.architecture == before.architecture and not after.vae.training
    assert (after.epoch, after.history, after.settings) == (3, [{"epoch": 1, "train_loss": 0.5}], {"beta": 0.1})


class Malicious:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize(
    "write", [torch.save, lambda what, path: path.write_bytes(pickle.dumps(what, 2))], ids=["torch.save", "pickle.dumps"]
)
@pytest.mark.parametrize("wrap", [lambda bad: bad, lambda bad: {"architecture": {}, "weights": {}, "epoch": bad}])
def test_code_in_a_file_is_refused_and_does_not_run(tmp_path, write, wrap):
    mark, path = tmp_path / "it ran", tmp_path / "vae_model_epoch_1.pth"
    write(wrap(Malicious(mark)), path)
    with pytest.raises(ValueError, match="was not loaded"):
        load_checkpoint(path)
    assert not mark.exists()
    with suppress(RuntimeError):
        torch.load(path, weights_only=False)  # it would have
    assert mark.exists()


@pytest.mark.parametrize(
    "content", [b"", b".", b"hello", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"h" * 60, bytes(1000)], ids=repr
)
def test_a_file_that_is_something_else_is_refused_by_name(saved, content):
    saved.write_bytes(content)
    with pytest.raises(ValueError, match=saved.name):
        load_checkpoint(saved)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_a_file_cut_short_is_refused_by_name(saved, share):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=saved.name):
        load_checkpoint(saved)


def test_a_single_byte_gone_bad_among_the_weights_is_noticed(saved):
    whole = bytearray(saved.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    saved.write_bytes(whole)
    with pytest.raises(ValueError, match=saved.name):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("weights"),
        lambda content: content.pop("history"),
        lambda content: content["weights"].popitem(),
        lambda content: content["architecture"].update(latent_dim=5),
        lambda content: content["architecture"].update(image_size=13),
        lambda content: content["architecture"].update(depth=3),
        lambda content: content.update(architecture=None),
        lambda content: content.update(weights=[1, 2]),
    ],
)
def test_a_checkpoint_that_does_not_fit_what_it_names_is_refused(saved, change):
    content = torch.load(saved, weights_only=True)
    change(content)
    torch.save(content, saved)
    with pytest.raises(ValueError, match=f"{saved.name}' is not a checkpoint of this package"):
        load_checkpoint(saved)


def test_a_missing_checkpoint_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="train first"):
        load_checkpoint(tmp_path / "vae_model_epoch_1.pth")
    with pytest.raises(FileNotFoundError, match="train first"):
        newest_checkpoint(tmp_path / "no folder yet")


def test_the_newest_checkpoint_is_the_one_of_the_highest_number(tmp_path):
    others = ["vae_model_epoch_final.pth", "vae_model_epoch_200.pth.partial", "other.pth", "run-1/vae_model_epoch_300.pth"]
    write_files(tmp_path, [*CHECKPOINT_NAMES, *others])
    assert newest_checkpoint(tmp_path).name == "vae_model_epoch_100.pth"
    assert [path.name for path in list_checkpoints(tmp_path).values()] == CHECKPOINT_NAMES


def test_the_training_state_is_kept_once_and_comes_back(tmp_path):
    assert load_training_state(tmp_path) is None
    for epoch in (1, 2):
        save_training_state(tmp_path, {"epoch": epoch, "optimizer": {"step": torch.tensor(3.0)}})
    assert load_training_state(tmp_path) == {"epoch": 2, "optimizer": {"step": torch.tensor(3.0)}}
    assert list(tree(tmp_path)) == [STATE_FILE]


def test_moving_a_run_takes_all_of_it_and_nothing_else_and_never_overwrites(tmp_path):
    write_files(tmp_path, ["notes.txt"])
    for i in range(3):
        write_files(tmp_path, [*CHECKPOINT_NAMES, STATE_FILE])
        (tmp_path / STATE_FILE).write_text(f"of run {i}")
        moved = move_run(tmp_path, "run-1")
        assert set(tree(moved)) == {*CHECKPOINT_NAMES, STATE_FILE}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "run-1", "run-1-2", "run-1-3"]
    assert [(folder / STATE_FILE).read_text() for folder in sorted(tmp_path.glob("run*"))] == [f"of run {i}" for i in range(3)]
