"""Weights in the hub's layout: folders that tell what they were made from, and a push and a pull against a stand-in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from short_runs import same_weights
from tiny import stirred, tiny_vae

from vae_helpers.models import AttentionVAE, FullGaussian, ResidualVAE, SpatialVAE, load_checkpoint, load_pretrained, load_prior

KINDS = [
    tiny_vae,
    lambda: ResidualVAE(4, (16, 16, 16, 16), (8, 8, 8), image_size=32, breeds=("Pug", "Chow")),
    lambda: SpatialVAE(8, 2, 4, 16),
    lambda: AttentionVAE(8, 2, 4, 16),
]


@pytest.mark.parametrize("make", KINDS)
def test_what_is_saved_comes_back_by_its_folder(make, tmp_path):
    vae = stirred(make())
    vae.crop = "head"
    vae.save_pretrained(tmp_path)
    again = load_pretrained(tmp_path)
    assert same_weights(again, vae) and (again.crop, again.architecture) == ("head", vae.architecture)
    assert same_weights(load_checkpoint(tmp_path).vae, vae)


def test_a_prior_in_the_folder_is_its_prior(tmp_path):
    tiny_vae().save_pretrained(tmp_path)
    assert type(load_prior(tmp_path)).__name__ == "StandardNormal"
    FullGaussian((4,)).fit(torch.randn(50, 4)).save(tmp_path / "prior.safetensors")
    assert isinstance(load_prior(tmp_path), FullGaussian)


def test_the_card_says_data_recipe_figures_and_the_licence_of_the_data_or_that_it_is_not_known(tmp_path):
    said = {"data": "my 300 pugs", "data_license": "CC BY 4.0", "recipe": "train --auto", "figures": "24 dB"}
    tiny_vae().save_pretrained(tmp_path / "told", model_card_kwargs=said)
    tiny_vae().save_pretrained(tmp_path / "untold")
    told, untold = ((tmp_path / name / "README.md").read_text("utf-8") for name in ("told", "untold"))
    assert all(text in told for text in said.values()) and "does not say" not in told
    assert "Ask before you use these weights" in untold


@pytest.mark.parametrize("content", ["", "[1]", '{"kind": "cat"}', '{"latent_dim": 5}'])
def test_a_damaged_folder_is_refused(content, tmp_path):
    tiny_vae().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=str(tmp_path.name)):
        load_pretrained(tmp_path)


PUSH_AND_PULL = """
import sys
from tiny import tiny_vae
from short_runs import same_weights
from vae_helpers import load_pretrained
vae = tiny_vae()
vae.push_to_hub("somebody/dogs", token="hf_x", model_card_kwargs={"data": "toy dogs", "data_license": "ours"})
assert same_weights(load_pretrained("somebody/dogs"), vae)
try:
    load_pretrained("somebody/cats")
except ValueError as error:
    print(error)
"""


def test_weights_are_pushed_to_a_hub_and_pulled_by_its_name(tmp_path):
    server = [sys.executable, Path(__file__).with_name("hub_stand_in.py"), tmp_path / "hub"]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as hub:
        try:
            endpoint = f"http://127.0.0.1:{hub.stdout.readline().strip()}"
            here = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "no_proxy": "*"}
            here["PYTHONPATH"] = os.pathsep.join(sys.path)
            done = subprocess.run([sys.executable, "-c", PUSH_AND_PULL], env=os.environ | here, capture_output=True, text=True)
        finally:
            hub.kill()
    assert done.returncode == 0, done.stderr
    assert "'somebody/cats' is no file or folder, and the hub does not give it" in done.stdout
    pushed = tmp_path / "hub" / "somebody" / "dogs"
    assert json.loads((pushed / "config.json").read_text())["latent_dim"] == 4
    assert "toy dogs" in (pushed / "README.md").read_text("utf-8")
