"""What the environment says, and what it means."""

from pathlib import Path

import pytest
import torch

from vae_helpers import config
from vae_helpers.config import CROPS, NAMED_DOGS, best_device, crop_wanted, dogs_wanted, folders, full_or_smoke
from vae_helpers.data import COLLECTIONS

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    for name in ("VAE_HOME", "DOGS", "VAE_CROP", "VAE_SMOKE", "VAE_BF16", "VAE_COMPILE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_everything_written_is_under_vae_home(monkeypatch, tmp_path):
    monkeypatch.setenv("VAE_HOME", str(tmp_path))
    where = folders()
    written = (where.train, where.test, where.toy_dogs, where.photos, where.cache, where.checkpoints, where.outputs)
    assert all(path.is_relative_to(tmp_path) for path in written) and len(set(written)) == 7
    assert where.checkpoints.parent == where.models and not any(path.exists() for path in written)


def test_without_vae_home_the_workspace_is_the_project_around_the_current_folder_or_that_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(PROJECT / "notebooks")
    assert folders().root == PROJECT
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('name = "something else"')
    assert folders().root == tmp_path


def test_a_relative_vae_home_is_the_same_for_a_notebook_and_a_command_line(monkeypatch, tmp_path):
    monkeypatch.setenv("VAE_HOME", "mine")
    for folder in (PROJECT, PROJECT / "notebooks"):
        monkeypatch.chdir(folder)
        assert folders().root == PROJECT / "mine"
    monkeypatch.chdir(tmp_path)
    assert folders().root == tmp_path / "mine"


@pytest.mark.parametrize("word", ["", " ", *NAMED_DOGS])
def test_dogs_may_have_a_name(monkeypatch, tmp_path, word):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy").mkdir()  # a name is no folder
    monkeypatch.setenv("DOGS", word)
    assert dogs_wanted() == (word.strip() or None)
    assert set(NAMED_DOGS) == {"toy", *COLLECTIONS}


def test_a_folder_of_dogs_is_looked_for_from_here_and_then_from_the_project(monkeypatch, tmp_path):
    monkeypatch.chdir(PROJECT / "notebooks")
    for word in ("https://example.com/dogs.zip", "TOY", "'Stanford-Dogs'"):
        monkeypatch.setenv("DOGS", word)
        assert dogs_wanted() == (word if "://" in word else word.lower().strip("'"))
    for word, path in (
        ("solutions", "notebooks/solutions"),
        (" tests/slow ", "tests/slow"),
        ("no/such", None),
        ('"solutions"', "notebooks/solutions"),
    ):
        monkeypatch.setenv("DOGS", word)
        assert dogs_wanted() == str(PROJECT / (path or "notebooks/no/such"))


FLAGS = {
    "VAE_SMOKE": lambda: full_or_smoke(False, True),
    "VAE_COMPILE": config.compile_wanted,
    "VAE_BF16": config.precision_wanted,
}
MEANINGS = {"VAE_BF16": {True: "bfloat16", False: "float32", None: "auto"}}
ANSWERS = {"1": True, "Yes": True, "on": True, "TRUE": True, "0": False, "no": False, "off": False, "false": False, "": None}


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize(("word", "answer"), [*ANSWERS.items(), (None, None)])
def test_yes_and_no_have_their_words(monkeypatch, name, word, answer):
    if word is not None:
        monkeypatch.setenv(name, word)
    assert FLAGS[name]() == MEANINGS.get(name, {True: True, False: False, None: False})[answer]


@pytest.mark.parametrize("read", [*FLAGS.items(), ("VAE_CROP", crop_wanted)], ids=lambda read: read[0])
def test_any_other_word_is_refused_in_a_sentence_that_names_it(monkeypatch, read):
    name, wanted = read
    monkeypatch.setenv(name, "maybe")
    with pytest.raises(ValueError, match=rf"{name}='maybe': say 1, true, yes, on, 0, .*or leave it out"):
        wanted()


@pytest.mark.parametrize(("word", "crop"), [("", "none"), ("0", "none"), ("1", "box"), *((word, word) for word in CROPS)])
def test_images_are_cropped_in_the_way_that_vae_crop_names(monkeypatch, word, crop):
    assert crop_wanted() == "none"
    monkeypatch.setenv("VAE_CROP", word)
    assert crop_wanted() == crop


def test_a_smoke_run_takes_the_small_value(monkeypatch):
    assert full_or_smoke("full", "small") == "full"
    monkeypatch.setenv("VAE_SMOKE", "1")
    assert full_or_smoke("full", "small") == "small"


@pytest.mark.parametrize(("world_size", "expected"), [(None, "mps"), ("1", "mps"), ("2", "cpu")])
def test_several_processes_do_not_share_an_mps(monkeypatch, world_size, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    if world_size is not None:
        monkeypatch.setenv("WORLD_SIZE", world_size)
    assert best_device().type == expected


def test_the_memory_that_a_choice_rests_on_is_the_same_however_much_of_it_is_in_use():
    """Else `train --auto` might choose another batch size after a stop, or in another process."""
    before = config.memory()
    held = torch.ones(50_000_000, device=best_device())
    assert config.memory() == before and held.all()
