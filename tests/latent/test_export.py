import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tiny import stirred, vivid_vae

from vae_helpers.cli import main
from vae_helpers.data.heads import load_head_finder
from vae_helpers.files import WEIGHTS
from vae_helpers.latent import Directions, export_explorer, head_measures
from vae_helpers.models import Checkpoint, GaussianMixture, ResidualVAE, checkpoint_path, save_checkpoint

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"latent_dim": 16, "widths": (8, 8, 8, 16), "encoder_widths": (8, 8, 8)}


def exported(vae, prior, folder: Path) -> Path:
    for part in (vae, prior):
        part.half().float()  # what half precision holds, as in shipped weights
    export_explorer(vae, prior, "ours", folder)
    return folder


def run(path: Path, **given) -> list[torch.Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(x) for x in session.run(None, {name: x.numpy() for name, x in given.items()})]


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """A small VAE of heads that knows two breeds, its prior, and the folder that they were exported to."""
    vae = stirred(ResidualVAE(**SIZES, breeds=["Beagle", "Pug"]))
    vae.crop = "head"
    z = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))
    prior = GaussianMixture((16,), 2).fit(torch.cat([z[:200] - 5, z[200:] + 5]))
    return vae, prior, exported(vae, prior, tmp_path_factory.mktemp("heads"))


def test_the_exported_networks_answer_as_those_of_torch(heads):
    vae, _, folder = heads
    z, image, large = torch.randn(1, 16), torch.rand(1, 3, 56, 56) * 2 - 1, torch.rand(1, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        for label in (torch.tensor([0]), torch.tensor([2])):
            drawn = run(folder / "decoder.onnx", z=z, label=label)[0]
            torch.testing.assert_close(drawn, vae.decoder(z, label), atol=1e-4, rtol=1e-4)
        for one, other in zip(run(folder / "encoder.onnx", image=image), vae.encode(image), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
        found = run(folder / "head_finder.onnx", image=large)[0]
        torch.testing.assert_close(found, load_head_finder()(large), atol=0.02, rtol=0.01)  # norms are now part of weights


def test_weights_take_two_bytes_each(heads):
    vae, _, folder = heads
    for network, name in ((vae.encoder, "encoder"), (load_head_finder(), "head_finder")):
        n = sum(weight.numel() for weight in network.parameters())
        assert 2 * n <= (folder / f"{name}.onnx").stat().st_size <= 2 * n + 250_000  # the graph comes with its names


def test_the_directions_and_their_ranges_are_those_that_the_draws_show(heads):
    _, prior, folder = heads
    numbers = json.loads((folder / "directions.json").read_text())
    assert len(numbers["directions"]["named"]["names"]) == 6 and "fur: dark to light" in numbers["directions"]["named"]["names"]
    z = prior.sample(20_000, torch.Generator().manual_seed(1))
    for found in numbers["directions"].values():
        directions = Directions(**{name: x if "name" in name else torch.tensor(x) for name, x in found.items()})
        quantiles = directions.coordinates(z).quantile(torch.tensor([0.01, 0.99]), dim=0)
        spread = directions.high - directions.low
        assert ((quantiles - torch.stack([directions.low, directions.high])).abs() / spread).max() < 0.1
        moved = directions.coordinates(directions.move(z[:1], 0, directions.high[0])) - directions.coordinates(z[:1])
        assert (moved[0, 1:].abs() < 0.05 * spread[1:]).all()


def test_the_prior_is_exported_as_a_mean_for_each_breed_and_the_root_of_a_covariance(heads):
    _, prior, folder = heads
    numbers = json.loads((folder / "directions.json").read_text())
    assert numbers["breeds"] == ["Beagle", "Pug"] and np.shape(numbers["prior"]["means"]) == (2, 16)
    for name, value in {"weights": prior.weights, "means": prior.means, "root": prior.scale_tril}.items():
        assert np.allclose(numbers["prior"][name], value, atol=1e-4)


def test_the_command_exports_any_vae_and_one_without_a_prior_draws_from_a_normal_distribution(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_HOME", str(tmp_path))
    vae, folder = vivid_vae().half().float(), tmp_path / "web"
    save_checkpoint(checkpoint_path(tmp_path / "models" / "ours", 1), Checkpoint(vae, 1))
    main(["export-explorer", "--model", "ours", "--out", str(folder)])
    z = torch.randn(1, 12)
    with torch.no_grad():
        torch.testing.assert_close(run(folder / "decoder.onnx", z=z)[0], vae.decode(z), atol=1e-4, rtol=1e-4)
    numbers = json.loads((folder / "directions.json").read_text())
    assert (numbers["model"], numbers["crop"], numbers["terms"]) == ("ours", "none", "")
    assert np.allclose(numbers["prior"]["root"], np.eye(12), atol=0.15) and np.allclose(numbers["prior"]["means"], 0, atol=0.15)


def test_measures_of_heads_are_those_that_chapter_05_builds():
    cells = json.loads((ROOT / "notebooks" / "05_latent_walk.ipynb").read_text(encoding="utf-8"))["cells"]
    [code] = ["".join(cell["source"]) for cell in cells if "def measure(x)" in "".join(cell["source"])]
    built = {"F": torch.nn.functional}
    exec(code, built)  # noqa: S102 (the chapter's own)
    x = torch.rand(3, 3, 112, 112) * 2 - 1
    torch.testing.assert_close(head_measures(x), built["measure"](x))


def test_of_weights_that_come_with_the_project_the_terms_are_those_of_their_card():
    card = (WEIGHTS / "README.md").read_text(encoding="utf-8")
    terms = card.partition("mean for the weights\n\n")[2].partition(" A VAE")[0]
    assert "research only" in terms and "MIT" in terms and len(terms) < 700
