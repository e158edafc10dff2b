from pathlib import Path

import pytest
import torch

from vae_helpers import config as settings
from vae_helpers.config import (
    best_device,
    compile_wanted,
    crop_wanted,
    dogs_wanted,
    folders,
    full_or_smoke,
    smoke,
    use_bfloat16,
)


def test_everything_written_is_under_vae_home(monkeypatch, tmp_path):
    monkeypatch.setenv("VAE_HOME", str(tmp_path))
    where = folders()
    written = (where.train, where.test, where.toy_dogs, where.cache, where.checkpoints, where.outputs)
    assert all(path.is_relative_to(tmp_path) for path in written) and len(set(written)) == 6
    assert not any(path.exists() for path in written)


@pytest.mark.parametrize("value", [None, ""])
def test_without_vae_home_the_root_is_the_project(monkeypatch, value):
    monkeypatch.delenv("VAE_HOME") if value is None else monkeypatch.setenv("VAE_HOME", value)
    assert folders().root == Path(settings.__file__).parents[1]


def test_a_path_is_shown_from_the_root_and_never_with_where_the_root_is(monkeypatch, tmp_path):
    monkeypatch.setenv("VAE_HOME", str(tmp_path / "home"))
    where = folders()
    assert where.shown(where.train) == "data/train/dogs"
    assert where.shown(tmp_path / "elsewhere" / "dog.png") == "dog.png"


@pytest.mark.parametrize(("value", "wanted"), [(None, None), ("", None), (" ", None), ("toy", "toy"), (" a/b ", "a/b")])
def test_dogs_says_which_dogs_are_wanted(monkeypatch, value, wanted):
    monkeypatch.delenv("DOGS", raising=False) if value is None else monkeypatch.setenv("DOGS", value)
    assert dogs_wanted() == wanted


@pytest.mark.parametrize(("value", "expected"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_images_are_cropped_when_vae_crop_says_so(monkeypatch, value, expected):
    monkeypatch.delenv("VAE_CROP", raising=False) if value is None else monkeypatch.setenv("VAE_CROP", value)
    assert crop_wanted() is expected


@pytest.mark.parametrize(("value", "expected"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_smoke_mode_follows_vae_smoke(monkeypatch, value, expected):
    monkeypatch.delenv("VAE_SMOKE") if value is None else monkeypatch.setenv("VAE_SMOKE", value)
    assert smoke() is expected
    assert full_or_smoke("full", "small") == ("small" if expected else "full")


@pytest.mark.parametrize(("value", "expected"), [("0", False), ("1", True)])
@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_vae_bf16_overrules_what_the_machine_can_do(monkeypatch, device, value, expected):
    monkeypatch.setenv("VAE_BF16", value)
    assert use_bfloat16(torch.device(device)) is expected


@pytest.mark.parametrize("units", [{}, {"amx_bf16": True}, {"avx512_bf16": True}])
def test_a_cpu_computes_in_bf16_only_where_it_has_units_for_it(monkeypatch, units):
    monkeypatch.delenv("VAE_BF16", raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units, raising=False)
    assert use_bfloat16(torch.device("cpu")) is bool(units)


@pytest.mark.parametrize(("value", "expected"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_networks_are_compiled_when_vae_compile_says_so(monkeypatch, value, expected):
    monkeypatch.delenv("VAE_COMPILE", raising=False) if value is None else monkeypatch.setenv("VAE_COMPILE", value)
    assert compile_wanted() is expected


@pytest.mark.parametrize(("world_size", "expected"), [(None, "mps"), ("1", "mps"), ("2", "cpu")])
def test_several_processes_do_not_share_an_mps(monkeypatch, world_size, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.delenv("WORLD_SIZE", raising=False) if world_size is None else monkeypatch.setenv("WORLD_SIZE", world_size)
    assert best_device().type == expected
