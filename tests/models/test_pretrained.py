import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import write_tiny_weights

from vae_helpers.models import (
    INDEX,
    LATENTS,
    PRETRAINED,
    BaseVAE,
    StandardNormal,
    decode_latents,
    load_pretrained,
    shipped_dogs,
    to_uint8,
    write_index,
)


@pytest.fixture
def shipped(tmp_path):
    return write_tiny_weights(tmp_path)


def test_what_is_shipped_loads_by_name(shipped):
    names = set(json.loads((shipped / INDEX).read_text())) - {LATENTS}
    kinds = {name: type(load_pretrained(name, shipped)).__name__ for name in names}
    assert kinds == {"faithful": "AttentionVAE", "vector": "VAE", "flow": "LatentFlow", "gaussian": "FullGaussian"}


def test_dogs_for_those_without_photos_are_the_examples_then_dreams_that_follow_from_the_seed(shipped):
    vae, numbers = load_pretrained("vector", shipped), load_file(shipped / f"{LATENTS}.safetensors")
    dogs = shipped_dogs(30, folder=shipped)
    assert dogs.shape == (30, 3, 16, 16) and dogs.dtype == torch.uint8
    assert torch.equal(dogs[:24], to_uint8(decode_latents(vae, numbers["examples"])))
    assert torch.equal(shipped_dogs(30, folder=shipped), dogs) and torch.equal(shipped_dogs(26, folder=shipped), dogs[:26])
    other = shipped_dogs(30, seed=1, folder=shipped)
    assert torch.equal(other[:24], dogs[:24]) and not torch.equal(other[24:], dogs[24:])


def test_dreams_have_the_mean_and_the_covariance_that_are_shipped(shipped):
    latents = {"mean": torch.tensor([1.0, -2.0, 0.0, 3.0]), "factor": torch.diag(torch.tensor([0.5, 0.1, 1.0, 0.0]))}
    latents["factor"][2, 0] = 1.0  # the third number follows the first, too
    save_file(latents | {"examples": torch.zeros(1, 4)}, shipped / f"{LATENTS}.safetensors")
    write_index(shipped)
    drawn = []

    def see(vae, z):
        drawn.append(z)
        return torch.zeros(len(z), 3, 16, 16)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vae_helpers.pretrained.decode_latents", see)
        shipped_dogs(20_001, folder=shipped)
    torch.testing.assert_close(drawn[0][1:].mean(0), latents["mean"], atol=0.05, rtol=0)
    torch.testing.assert_close(drawn[0][1:].T.cov(), latents["factor"] @ latents["factor"].T, atol=0.05, rtol=0)


def test_a_changed_byte_is_noticed(shipped):
    path = shipped / "flow.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"flow.safetensors' is not the file that was shipped \(SHA-256"):
        load_pretrained("flow", shipped)


def test_latents_of_another_shape_than_listed_are_noticed(shipped):
    index = json.loads((shipped / INDEX).read_text())
    index["flow"]["latent_shape"] = [8, 7, 7]
    (shipped / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match="'flow' has latents"):
        load_pretrained("flow", shipped)


def test_a_name_that_is_not_shipped_is_refused_with_those_that_are(shipped):
    with pytest.raises(ValueError, match="faithful, flow, gaussian, vector"):
        load_pretrained("cats", shipped)


def test_a_missing_file_or_folder_is_an_error_that_says_so(shipped, tmp_path):
    (shipped / "flow.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"flow.safetensors.*lists them"):
        load_pretrained("flow", shipped)
    with pytest.raises(ValueError, match="there are none"):
        load_pretrained("flow", tmp_path / "nowhere")


SHAPES = {"vector": (128,), "faithful": (8, 7, 7), "gaussian": (8, 7, 7), "flow": (8, 7, 7)}


def test_the_project_ships_these_weights_a_card_that_names_them_and_no_more_than_it_should():
    files = sorted(PRETRAINED.glob("*.safetensors"))
    assert {path.stem for path in files} == set(json.loads((PRETRAINED / INDEX).read_text())) == {*SHAPES, LATENTS}
    card = (PRETRAINED / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in card for name in (*SHAPES, LATENTS))
    assert sum(path.stat().st_size for path in files) <= 60e6
    assert not [path for path in PRETRAINED.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")]


def test_a_thousand_different_photos_are_named_as_unseen():
    assert len(set((PRETRAINED / "unseen.txt").read_text().split())) == 1000


@pytest.mark.parametrize("name", SHAPES)
def test_shipped_weights_make_pictures(name):
    shipped = load_pretrained(name)
    assert shipped.latent_shape == SHAPES[name]
    vae, prior = (
        (shipped, StandardNormal(SHAPES[name])) if isinstance(shipped, BaseVAE) else (load_pretrained("faithful"), shipped)
    )
    with torch.no_grad():
        pictures = vae.decode(prior.sample(2, torch.Generator().manual_seed(0)))
    assert pictures.shape == (2, 3, 56, 56) and pictures.isfinite().all()
    assert (pictures.flatten(1).std(1) > 0.05).all() and (pictures[0] - pictures[1]).abs().mean() > 0.05


def test_shipped_weights_give_back_a_picture_that_they_never_saw():
    ramp = torch.linspace(-0.8, 0.8, 56)
    x = torch.stack([ramp.expand(56, 56), ramp.view(56, 1).expand(56, 56), torch.zeros(56, 56)])[None]
    with torch.no_grad():
        errors = {name: (load_pretrained(name).reconstruct(x) - x).square().mean().item() for name in ("vector", "faithful")}
    assert errors["faithful"] < 0.02 and errors["vector"] < 0.1


def test_the_dogs_that_are_shipped_are_pictures_with_something_in_them():
    dogs = shipped_dogs(64).float() / 255
    detail = (dogs[..., 1:] - dogs[..., :-1]).abs().mean((1, 2, 3))
    assert dogs.shape == (64, 3, 56, 56) and (detail > 0.005).all() and dogs.flatten(1).std(1).min() > 0.05
