"""The figures of `heads` and `dogs`: on the card, and in a check."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import measure as measure_recipe
import pytest
import torch
from heads import is_held_out
from PIL import Image
from tiny import random_pixels, stirred

from vae_helpers.files import WEIGHTS
from vae_helpers.models import Checkpoint, FullGaussian, GaussianMixture, ResidualVAE, save_checkpoint

CARD = (WEIGHTS / "README.md").read_text(encoding="utf-8")
SHIPPED = json.loads((WEIGHTS / "figures.json").read_text())


def write_tar(path: Path, pictures: dict[str, torch.Tensor]) -> None:
    """Pictures (3, S, S), uint8, by the names that they have in the archive."""
    with tarfile.open(path, "w") as tar:
        for name, pixels in pictures.items():
            file, entry = io.BytesIO(), tarfile.TarInfo(name)
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "PNG")
            entry.size = file.tell()
            file.seek(0)
            tar.addfile(entry, file)


def names(pattern: str, n_unseen: int, n_seen: int) -> list[str]:
    every = list(map(pattern.format, range(1000)))
    return [n for n in every if is_held_out(n)][:n_unseen] + [n for n in every if not is_held_out(n)][:n_seen]


@pytest.fixture
def run(tmp_path):
    """Measure a small VAE in a file on noise for heads, 20 to learn from and 15 held out; returns OUT/figures.json."""
    (tmp_path / "heads.json").write_text("{}")
    write_tar(tmp_path / "heads-112.tar", dict(zip(names("{}.png", 15, 20), random_pixels(35, 112), strict=True)))
    vae = stirred(ResidualVAE(4, (8, 8, 8, 16), (8, 8, 8)))
    save_checkpoint(tmp_path / "mine.safetensors", Checkpoint(vae))

    def measure(*words: str) -> dict:
        measure_recipe.main([str(tmp_path), "--model", str(tmp_path / "mine.safetensors"), "--out", str(tmp_path), *words])
        return json.loads((tmp_path / "figures.json").read_text())

    return measure


def test_figures_are_taken_on_held_out_heads_and_stand_beside_those_of_other_models(run, tmp_path):
    (tmp_path / "figures.json").write_text('{"others": 1}')
    written = run()
    figures = written["mine"]
    assert (figures["image_size"], figures["learned"], figures["held_out"], figures["a_side"]) == (56, 20, 15, 7)
    real, *others = figures["sets"].values()
    assert list(figures["sets"]) == ["other heads", "reconstructions", "draws from N(0, I)"]
    assert all(real["frechet"] < other["frechet"] and real["coverage"] > other["coverage"] for other in others)
    assert 0 < figures["psnr"] < 15  # what is untrained gives no head back
    assert figures["weights"]["mine"] == hashlib.sha256((tmp_path / "mine.safetensors").read_bytes()).hexdigest()
    assert written["others"] == 1 and Image.open(tmp_path / "closest.png").width > 500


def test_the_decoder_alone_is_counted_two_operations_a_multiply_add():
    vae, operations = ResidualVAE(4, (8, 8, 8, 16), (8, 8, 8)), []

    def count(layer, _, output):
        operations.append(2 * layer.weight[0].numel() * output.numel())

    layers = [layer for layer in vae.decoder.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    vae.decode(torch.randn(1, 4))
    for hook in hooks:
        hook.remove()
    assert measure_recipe.cost(vae)["gflop"] == pytest.approx(sum(operations) / 1e9)


def test_a_prior_beside_the_vae_is_measured_too(run, tmp_path):
    FullGaussian((4,)).fit(torch.randn(50, 4)).save(tmp_path / "mine_prior.safetensors")
    figures = run()["mine"]
    assert list(figures["sets"])[-1] == "draws from the prior" and set(figures["weights"]) == {"mine", "mine_prior"}


def test_of_a_model_that_knows_breeds_they_are_measured_too(tmp_path):
    """Beagles are dark noise, pugs light noise, so that a classifier can tell held-out ones apart."""
    pictures = {}
    for breed, light in (("Beagle", 0), ("pug", 128)):
        pixels = random_pixels(40, 64) // 2 + light
        pictures |= dict(zip(names(f"n02-{breed}/{{}}.png", 10, 30), pixels, strict=True))
    write_tar(tmp_path / "stanford-64.tar", pictures)
    vae = stirred(ResidualVAE(4, (8, 8, 8, 16), (8, 8, 8), breeds=("Beagle", "Pug")))
    save_checkpoint(tmp_path / "mine.safetensors", Checkpoint(vae))
    prior = GaussianMixture((4,), names=vae.breeds).fit(torch.randn(40, 4), None, torch.arange(40) % 2)
    prior.save(tmp_path / "mine_prior.safetensors")
    measure_recipe.main([str(tmp_path), "--model", str(tmp_path / "mine.safetensors"), "--out", str(tmp_path)])
    figures = json.loads((tmp_path / "figures.json").read_text())["mine"]
    assert (figures["learned"], figures["held_out"]) == (60, 20) and list(figures["sets"])[-1] == "draws by breed"
    shares = figures["breeds"]
    assert shares["real"] > 0.9 and shares["held_out"] == 20 and shares["chance"] == 0.5
    assert shares["draws"] == pytest.approx(sum(of["draws"] for of in shares["by_breed"].values()) / 2)
    assert set(shares["by_breed"]) == {"Beagle", "Pug"}
    assert all(of["frechet_real"] < of["frechet"] for of in shares["by_breed"].values())  # it is untrained
    assert "| Pug |" in measure_recipe.card_table(figures)


def test_a_check_that_misses_a_bar_says_which_and_fails_and_writes_no_figures(run, tmp_path):
    with pytest.raises(SystemExit, match="not held: reconstructions have at least"):
        run("--check")
    assert not (tmp_path / "figures.json").exists()


def test_shipped_weights_of_other_pictures_are_refused(run, capsys):
    with pytest.raises(SystemExit):
        run("--model", "vector")
    assert "take heads, dogs" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["heads", "dogs"])
def test_the_figures_on_the_card_are_those_of_the_shipped_weights(model):
    assert {model, f"{model}_prior"} == set(SHIPPED[model]["weights"])
    for name, sha256 in SHIPPED[model]["weights"].items():
        assert hashlib.sha256((WEIGHTS / f"{name}.safetensors").read_bytes()).hexdigest() == sha256
    assert measure_recipe.on_card(CARD, model) == measure_recipe.card_table(SHIPPED[model])
