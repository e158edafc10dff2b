import json
import sys

import pytest
from tiny import write_images

from vae_helpers.__main__ import main


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run a command of the package with its workspace in tmp_path."""
    monkeypatch.setenv("VAE_HOME", str(tmp_path))

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["vae_helpers", *map(str, words)])
        main()

    return run


def test_a_folder_becomes_a_model_figures_and_new_dogs(run, tmp_path, capsys):
    photos = write_images(tmp_path / "photos", 20)
    run("split", photos, "--test-size", 0.25)
    assert "15 training images, 5 test images" in capsys.readouterr().out
    run("train", "--epochs", 1, "--batch-size", 8, "--latent-dim", 4)
    assert (tmp_path / "models/saved_models/vae_model_epoch_1.pth").exists()
    assert (tmp_path / "outputs/reconstructed.png").exists()
    run("evaluate")
    metrics = json.loads((tmp_path / "outputs/metrics.json").read_text())
    assert metrics["images"] == "test" and metrics["vae"]["n_images"] == 5
    assert metrics["vae"]["loss"] == pytest.approx(metrics["vae"]["recon_sampled"] + 0.00025 * metrics["vae"]["kl"])
    run("sample", "-n", 3, "--seed", 1, "--out", tmp_path / "new")
    assert len(list((tmp_path / "new").glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [(("split", "no/such/folder"), "no/such/folder"), (("sample",), "train first"), (("train",), "no folder")],
)
def test_a_mistake_is_answered_in_one_line_that_names_it(run, words, said):
    with pytest.raises(SystemExit) as stopped:
        run(*words)
    assert said in str(stopped.value) and "\n" not in str(stopped.value)
