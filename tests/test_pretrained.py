import json

import pytest
import torch
from tiny import random_pixels, write_tiny_weights

from vae_helpers.data import to_signed
from vae_helpers.model import BaseVAE
from vae_helpers.pretrained import INDEX, PRETRAINED, load_pretrained
from vae_helpers.priors import StandardNormal


@pytest.fixture
def shipped(tmp_path):
    return write_tiny_weights(tmp_path)


def test_what_is_shipped_loads_by_name(shipped):
    kinds = {name: type(load_pretrained(name, shipped)).__name__ for name in json.loads((shipped / INDEX).read_text())}
    attention = {"faithful": "AttentionVAE", "sharp": "AttentionVAE"}
    assert kinds == attention | {"vector": "VAE", "flow": "LatentFlow", "gaussian": "FullGaussian"}


def test_a_vae_without_an_encoder_of_its_own_has_that_of_the_other(shipped):
    faithful, sharp = load_pretrained("faithful", shipped), load_pretrained("sharp", shipped)
    x = to_signed(random_pixels(2))
    assert torch.equal(faithful.encode(x)[0], sharp.encode(x)[0])
    assert not torch.equal(faithful.reconstruct(x), sharp.reconstruct(x))


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
    with pytest.raises(ValueError, match="faithful, flow, gaussian, sharp, vector"):
        load_pretrained("cats", shipped)


def test_a_missing_file_or_folder_is_an_error_that_says_so(shipped, tmp_path):
    (shipped / "flow.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"flow.safetensors.*lists them"):
        load_pretrained("flow", shipped)
    with pytest.raises(ValueError, match="there are none"):
        load_pretrained("flow", tmp_path / "nowhere")


SHAPES = {"vector": (128,), "faithful": (8, 7, 7), "sharp": (8, 7, 7), "gaussian": (8, 7, 7), "flow": (8, 7, 7)}


def test_the_project_ships_these_weights_a_card_that_names_them_and_no_more_than_it_should():
    files = sorted(PRETRAINED.glob("*.safetensors"))
    assert {path.stem for path in files} == set(json.loads((PRETRAINED / INDEX).read_text())) == set(SHAPES)
    card = (PRETRAINED / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in card for name in SHAPES)
    assert sum(path.stat().st_size for path in files) < 60.5e6
    assert not [path for path in PRETRAINED.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")]


def test_a_thousand_different_photos_are_named_as_unseen():
    assert len(set((PRETRAINED / "unseen.txt").read_text().split())) == 1000


@pytest.mark.parametrize("name", SHAPES)
def test_shipped_weights_make_pictures(name):
    shipped = load_pretrained(name)
    assert shipped.latent_shape == SHAPES[name]
    vae, prior = (
        (shipped, StandardNormal(SHAPES[name])) if isinstance(shipped, BaseVAE) else (load_pretrained("sharp"), shipped)
    )
    with torch.no_grad():
        pictures = vae.decode(prior.sample(2, torch.Generator().manual_seed(0)))
    assert pictures.shape == (2, 3, 56, 56) and pictures.isfinite().all()
    assert (pictures.flatten(1).std(1) > 0.05).all() and (pictures[0] - pictures[1]).abs().mean() > 0.05


def test_shipped_weights_give_back_a_picture_that_they_never_saw():
    ramp = torch.linspace(-0.8, 0.8, 56)
    x = torch.stack([ramp.expand(56, 56), ramp.view(56, 1).expand(56, 56), torch.zeros(56, 56)])[None]
    with torch.no_grad():
        errors = {
            name: (load_pretrained(name).reconstruct(x) - x).square().mean().item() for name in ("vector", "faithful", "sharp")
        }
    assert errors["faithful"] < 0.02 and errors["sharp"] < 0.02 and errors["vector"] < 0.1
