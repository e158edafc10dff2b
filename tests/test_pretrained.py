import json

import pytest
import torch
from tiny import random_pixels, tiny_vae

from vae_helpers.attention import AttentionVAE
from vae_helpers.data import to_signed
from vae_helpers.flow import LatentFlow
from vae_helpers.pretrained import INDEX, load_pretrained, save_weights, write_index
from vae_helpers.priors import FullGaussian


@pytest.fixture
def shipped(tmp_path):
    torch.manual_seed(0)
    faithful, sharp = AttentionVAE(8, 3, 4, 16), AttentionVAE(8, 3, 4, 16)
    save_weights(tmp_path / "vector.safetensors", tiny_vae())
    save_weights(tmp_path / "faithful.safetensors", faithful)
    save_weights(tmp_path / "sharp.safetensors", sharp, only="decoder")
    LatentFlow((3, 2, 2), width=16, depth=1, heads=2).save(tmp_path / "flow.safetensors", torch.float16)
    FullGaussian((3, 2, 2)).save(tmp_path / "gaussian.safetensors")
    write_index(tmp_path, rest={"sharp": "faithful"})
    return tmp_path


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
