import shutil

import pytest
import torch
import torch.nn.functional as F
from tiny import random_pixels, stirred, tiny_vae, toy_pixels

from vae_helpers.files import WEIGHTS
from vae_helpers.models import (
    BaseVAE,
    Checkpoint,
    FullGaussian,
    ResidualVAE,
    StandardNormal,
    checkpoint_path,
    load_pretrained,
    load_prior,
    save_checkpoint,
    to_float,
)

VAES = {"dogs", "heads", "vector", "toy"}


def same_weights(a: BaseVAE, b: BaseVAE) -> bool:
    return all(torch.equal(weight, b.state_dict()[name]) for name, weight in a.state_dict().items())


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_is_loaded_whatever_its_name(tmp_path, suffix):
    vae = tiny_vae()
    vae.crop = "box"
    save_checkpoint(tmp_path / f"mine.{suffix}", Checkpoint(vae))
    loaded = load_pretrained(str(tmp_path / f"mine.{suffix}"))
    assert same_weights(loaded, vae) and loaded.crop == "box"


def test_a_folder_stands_for_its_newest_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="train first"):
        load_pretrained(tmp_path)
    for epoch in (2, 10):
        save_checkpoint(checkpoint_path(tmp_path, epoch), Checkpoint(tiny_vae(seed=epoch), epoch))
    assert same_weights(load_pretrained(tmp_path), tiny_vae(seed=10))


def test_the_prior_of_a_vae_is_the_one_beside_it_or_the_standard_normal(tmp_path):
    with pytest.raises(FileNotFoundError, match="train first"):
        load_prior(tmp_path)
    save_checkpoint(checkpoint_path(tmp_path, 1), Checkpoint(tiny_vae()))
    save_checkpoint(tmp_path / "mine.safetensors", Checkpoint(tiny_vae()))
    for vae, beside in ((tmp_path, "prior"), (tmp_path / "mine.safetensors", "mine_prior")):
        prior = load_prior(vae)
        assert isinstance(prior, StandardNormal) and prior.latent_shape == (4,)
        FullGaussian((4,)).fit(torch.randn(50, 4)).save(tmp_path / f"{beside}.safetensors")
        assert isinstance(load_prior(vae), FullGaussian)
    assert isinstance(load_prior("vector"), FullGaussian)


def test_a_grown_vae_serves_at_56_and_at_112_with_the_same_latents_and_pictures(tmp_path):
    path, x = tmp_path / "heads.safetensors", to_float(random_pixels(2, 112))
    vae = stirred(ResidualVAE(4, (8, 8, 8, 16), (8, 8, 8), grown=True, image_size=112))
    vae.crop = "head"
    save_checkpoint(path, Checkpoint(vae))
    small, large = load_pretrained(path, image_size=56), load_pretrained(path, image_size=112)
    assert (small.image_size, large.image_size, load_pretrained(path).image_size) == (56, 112, 112)
    assert same_weights(small, vae) and same_weights(large, vae) and small.crop == large.crop == "head" and not small.training
    torch.testing.assert_close(small.encode(F.avg_pool2d(x, 2)), large.encode(x))
    z = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(small.decode(z), F.avg_pool2d(large.decode(z), 2))
    with pytest.raises(ValueError, match=r"image_size=64 must be 56 or 112"):
        load_pretrained(path, image_size=64)


def test_a_size_that_a_vae_does_not_have_is_refused_with_the_one_it_has(tmp_path):
    save_checkpoint(tmp_path / "small.pth", Checkpoint(ResidualVAE(4, (8, 8, 8, 16), (8, 8, 8))))
    with pytest.raises(ValueError, match=r"small.pth' has one size, 56 x 56 pixels; image_size=112"):
        load_pretrained(tmp_path / "small.pth", image_size=112)
    with pytest.raises(ValueError, match=r"'vector' has one size, 56 x 56"):
        load_pretrained("vector", image_size=112)
    assert load_pretrained("vector", image_size=56).image_size == 56


def test_the_name_of_shipped_weights_comes_before_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(checkpoint_path("vector", 1), Checkpoint(tiny_vae()))
    assert load_pretrained("vector").latent_shape == (128,) and load_pretrained("./vector").latent_shape == (4,)


@pytest.mark.parametrize("load", [load_pretrained, load_prior])
def test_what_means_nothing_is_refused_with_what_there_is(load):
    with pytest.raises(ValueError, match=r"'cats' .*heads.*toy, vector"):
        load("cats")
    with pytest.raises(ValueError, match=r"gone\.pth"):
        load("models/gone.pth")


def test_weights_that_are_of_no_vae_are_refused_by_name():
    with pytest.raises(ValueError, match=r"vector_prior.*a prior, which load_prior reads"):
        load_pretrained("vector_prior")
    for load in (load_pretrained, load_prior):
        with pytest.raises(ValueError, match="dog_features"):
            load("dog_features")


def test_a_damaged_file_is_refused_by_name(tmp_path):
    path = tmp_path / "mine.safetensors"
    shutil.copy(WEIGHTS / "vector_prior.safetensors", path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for load in (load_pretrained, load_prior):
        with pytest.raises(ValueError, match=r"mine\.safetensors.*checksum"):
            load(path)


def test_the_package_ships_these_weights_a_card_that_names_them_and_no_more_than_it_should():
    files = sorted(WEIGHTS.glob("*.safetensors"))
    assert {path.stem for path in files} == VAES | {"dogs_prior", "heads_prior", "vector_prior", "head_finder", "dog_features"}
    card = (WEIGHTS / "README.md").read_text(encoding="utf-8")
    assert all(f"`{path.stem}`" in card for path in files)
    assert sum(path.stat().st_size for path in files) <= 60e6
    assert not [path for path in WEIGHTS.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")]


@pytest.mark.parametrize("name", sorted(VAES))
def test_shipped_weights_make_pictures(name):
    vae = load_pretrained(name)
    for prior in (load_prior(name), StandardNormal(vae.latent_shape)):
        with torch.no_grad():
            pictures = vae.decode(prior.sample(2, generator=torch.Generator().manual_seed(0)))
        assert pictures.shape == (2, 3, vae.image_size, vae.image_size) and pictures.isfinite().all()
        assert (pictures.flatten(1).std(1) > 0.05).all() and (pictures[0] - pictures[1]).abs().mean() > 0.05


def test_the_prior_of_dogs_knows_the_same_breeds_as_its_decoder():
    vae, prior = load_pretrained("dogs"), load_prior("dogs")
    assert len(vae.breeds) == 120 and {"Samoyed", "Pug", "Golden retriever"} < set(vae.breeds)
    assert prior.names == vae.breeds


@pytest.mark.parametrize("name", sorted(VAES))
def test_shipped_weights_give_back_dogs_that_they_never_saw(name):
    vae = load_pretrained(name)
    x = to_float(toy_pixels(8, seed=123, image_size=vae.image_size))
    with torch.no_grad():
        x_hat = vae.reconstruct(x)
    assert F.mse_loss(x_hat, x) < 0.5 * F.mse_loss(x_hat.roll(1, 0), x)  # each is its own dog, not another
