import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import random_pixels, vivid_vae, write_images, write_tiny_weights

import vae_helpers.__main__
from vae_helpers.cli import main
from vae_helpers.data import draw_dog, load_images, read_manifest, sample_factors
from vae_helpers.models import (
    Checkpoint,
    checkpoint_path,
    list_checkpoints,
    load_checkpoint,
    load_pretrained,
    save_checkpoint,
    to_float,
    to_uint8,
)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run a command of the package with its workspace in tmp_path."""
    monkeypatch.setenv("VAE_HOME", str(tmp_path))

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["vae_helpers", *map(str, words)])
        main()

    return run


def test_a_folder_becomes_a_model_figures_and_new_dogs(run, tmp_path, capsys):
    photos = write_images(tmp_path / "photos", 40)
    run("split", photos, "--test-size", 0.5)
    assert "20 training images, 20 test images" in capsys.readouterr().out
    run("train", "--epochs", 1, "--batch-size", 8, "--latent-dim", 4)
    assert (tmp_path / "models/saved_models/vae_model_epoch_1.pth").exists()
    assert (tmp_path / "outputs/reconstructed.png").exists()
    run("evaluate")
    metrics = json.loads((tmp_path / "outputs/metrics.json").read_text())
    assert metrics["images"] == "test dogs" and metrics["vae"]["n_images"] == 20 and metrics["epoch"] == 1
    assert "What this model does, after 1 epochs" in (tmp_path / "outputs/report.html").read_text()
    assert "comes back at" in capsys.readouterr().out
    assert metrics["vae"]["loss"] == pytest.approx(metrics["vae"]["recon_sampled"] + 0.00025 * metrics["vae"]["kl"])
    run("sample", "-n", 3, "--seed", 1, "--out", tmp_path / "new")
    assert len(list((tmp_path / "new").glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("network", "kind", "shape"),
    [("spatial", "SpatialVAE", (2, 7, 7)), ("attention", "AttentionVAE", (2, 7, 7)), ("vector", "VAE", (4,))],
)
def test_the_network_that_is_named_is_trained(run, tmp_path, network, kind, shape):
    run("split", write_images(tmp_path / "photos", 16))
    sizes = ("--latent-channels", 2, "--width", 8, "--latent-dim", 4)
    run("train", "--network", network, *sizes, "--epochs", 1, "--batch-size", 8, "--calibrated", "--average", 0.9, "--shift", 2)
    saved = load_checkpoint(tmp_path / "models/saved_models/vae_model_epoch_1.pth")
    assert (type(saved.vae).__name__, saved.vae.latent_shape) == (kind, shape)
    assert (saved.settings["average"], saved.settings["shift"]) == (0.9, 2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("split", "no/such/folder"), "no/such/folder"),
        (("sample",), "train first"),
        (("walk",), "train first"),
        (("train",), "no folder"),
    ],
)
def test_a_mistake_is_answered_in_one_line_that_names_it(run, words, said):
    with pytest.raises(SystemExit) as stopped:
        run(*words)
    assert said in str(stopped.value) and "\n" not in str(stopped.value)


@pytest.fixture
def vae(tmp_path):
    """The model whose checkpoint the workspace holds."""
    vae = vivid_vae()
    save_checkpoint(checkpoint_path(tmp_path / "models/saved_models", 1), Checkpoint(vae, 1, [], {}))
    return vae


def strip_images(path) -> torch.Tensor:
    """The images of a filmstrip of one row, uint8 (n, 3, 16, 16)."""
    with Image.open(path) as picture:
        sheet = torch.from_numpy(np.array(picture)[::2, ::2])
    return torch.stack([sheet[:, x : x + 16].permute(2, 0, 1) for x in range(0, sheet.shape[1], 18)])


def test_a_walk_goes_from_one_photo_to_the_other(run, vae, tmp_path, capsys):
    dogs = random_pixels(2)
    for dog, name in zip(dogs, ("from.png", "to.png"), strict=True):
        Image.fromarray(dog.permute(1, 2, 0).numpy()).save(tmp_path / name)
    run("walk", tmp_path / "from.png", tmp_path / "to.png", "--steps", 6)
    images = strip_images(tmp_path / "outputs/walk_filmstrip.png")
    with torch.no_grad():
        ends = to_uint8(vae.reconstruct(to_float(dogs)))
    assert len(images) == 6 and (images[[0, -1]].int() - ends.int()).abs().max() <= 1
    with Image.open(tmp_path / "outputs/walk.gif") as gif:
        assert gif.n_frames == 10  # six there, four back
    assert "walk.gif" in capsys.readouterr().out


def test_a_walk_between_draws_follows_its_seed_and_way(run, vae, tmp_path):
    walks = {"first": (), "again": (), "other seed": ("--seed", 1), "straight": ("--straight",)}
    for name, words in walks.items():
        run("walk", "--steps", 5, "--out", tmp_path / name / "walk.gif", *words)
    for file in ("walk.gif", "walk_filmstrip.png"):
        first, again, other, straight = ((tmp_path / name / file).read_bytes() for name in walks)
        assert first == again and len({first, other, straight}) == 3
    first, straight = (strip_images(tmp_path / name / "walk_filmstrip.png") for name in ("first", "straight"))
    assert torch.equal(first[[0, -1]], straight[[0, -1]])


def test_a_long_walk_has_a_filmstrip_of_one_row(run, vae, tmp_path):
    run("walk", "--steps", 30)
    assert len(strip_images(tmp_path / "outputs/walk_filmstrip.png")) == 10


@pytest.mark.parametrize(
    ("words", "said"),
    [(("notes.txt",), "notes.txt"), (("gone.png",), "gone.png"), (("--steps", 1), "steps=1")],
    ids=["no image", "no file", "one step"],
)
def test_a_walk_that_cannot_be_made_is_answered_in_one_line_and_writes_nothing(run, vae, tmp_path, monkeypatch, words, said):
    (tmp_path / "notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run("walk", *words)
    assert said in str(stopped.value) and "\n" not in str(stopped.value)
    assert not (tmp_path / "outputs").exists()


def write_dogs_twice(folder: Path) -> Path:
    """Ten dogs of two breeds, five of which are there again."""
    for i, row in enumerate(sample_factors(10, seed=1)):
        breed = folder / ("beagle" if i % 2 else "pug")
        breed.mkdir(parents=True, exist_ok=True)
        draw_dog(row).save(breed / f"{i}.png")
        if i < 5:
            draw_dog(row).resize((64, 64)).save(breed / f"{i} again.png")
    return folder


def test_dogs_that_are_there_twice_are_listed_and_shown_side_by_side(run, tmp_path, capsys):
    run("duplicates", write_dogs_twice(tmp_path / "photos"))
    said = capsys.readouterr().out
    assert "5 pairs among 15 images" in said and "'beagle/1 again.png'  'beagle/1.png'" in said
    with Image.open(tmp_path / "outputs/duplicates.png") as picture:
        assert picture.height > picture.width
    for again in (tmp_path / "photos").rglob("* again.png"):
        again.unlink()
    run("duplicates", tmp_path / "photos")
    assert capsys.readouterr().out == "0 pairs among 10 images\n"


def test_a_split_keeps_twins_together_takes_a_share_of_each_breed_and_crops_when_asked(run, tmp_path):
    photos = write_dogs_twice(tmp_path / "photos")
    for seed in range(4):
        run("split", photos, "--random-state", seed, "--stratify", "--duplicates-together", "--crop", "--test-size", 0.4)
        split = read_manifest(tmp_path / "data/test/dogs")
        aside = set(split["files"])
        twins = [f"{'beagle' if i % 2 else 'pug'}/{i}" for i in range(5)]
        assert all((f"{name}.png" in aside) == (f"{name} again.png" in aside) for name in twins)
        assert {name.split("/")[0] for name in aside} == {"beagle", "pug"} and split["crop"] is True


def test_a_server_keeps_the_newest_checkpoints_and_goes_on_with_a_damaged_one(run, tmp_path, capsys):
    run("split", write_images(tmp_path / "photos", 40))
    settings = ("--batch-size", 8, "--latent-dim", 4, "--keep-last", 2)
    run("train", "--epochs", 3, *settings)
    kept = tmp_path / "models/saved_models"
    assert [path.name for path in list_checkpoints(kept).values()] == ["vae_model_epoch_2.pth", "vae_model_epoch_3.pth"]
    (kept / "vae_model_epoch_3.pth").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"epoch_3.pth' is damaged .* Trying the one before it"):
        run("sample", "-n", 1, "--out", tmp_path / "new")
    save_checkpoint(tmp_path / "mine.safetensors", load_checkpoint(kept / "vae_model_epoch_2.pth"))
    run("sample", tmp_path / "mine.safetensors", "-n", 1, "--out", tmp_path / "same")
    assert torch.equal(read_pngs(tmp_path / "new"), read_pngs(tmp_path / "same"))
    capsys.readouterr()
    run("train", "--epochs", 3, *settings)
    assert "Going on from vae_model_epoch_2.pth" in capsys.readouterr().out


def test_an_interrupt_is_answered_in_a_word(run, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(vae_helpers.__main__, "resolve_source", interrupted)
    with pytest.raises(SystemExit, match="stopped"):
        run("split")


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """`load_pretrained`, here and in the command line, of small weights instead of those of the project."""
    load = partial(load_pretrained, folder=write_tiny_weights(tmp_path / "weights"))
    monkeypatch.setattr(vae_helpers.__main__, "load_pretrained", load)
    return load


def read_pngs(folder) -> torch.Tensor:
    """uint8 (N, 3, S, S) of the PNG files in a folder, in order of their names."""
    return torch.stack([torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for path in sorted(folder.glob("*.png"))])


@pytest.mark.parametrize(
    ("model", "prior"), [("vector", "normal"), ("faithful", "normal"), ("faithful", "gaussian"), ("faithful", "flow")]
)
def test_new_dogs_come_from_the_shipped_model_and_prior_that_are_named(run, shipped, tmp_path, model, prior):
    run("sample", "--model", model, "--prior", prior, "-n", 3, "--seed", 1, "--out", tmp_path / "new")
    vae, generator = shipped(model), torch.Generator().manual_seed(1)
    z = torch.randn(3, *vae.latent_shape, generator=generator) if prior == "normal" else shipped(prior).sample(3, generator)
    with torch.no_grad():
        wanted = to_uint8(vae.decode(z))
    assert (read_pngs(tmp_path / "new").int() - wanted.int()).abs().max() <= 1


def test_without_a_model_the_newest_checkpoint_is_sampled_from_the_normal_prior(run, vae, tmp_path):
    run("sample", "-n", 2, "--out", tmp_path / "new")
    with torch.no_grad():
        wanted = to_uint8(vae.decode(torch.randn(2, 12, generator=torch.Generator().manual_seed(0))))
    assert (read_pngs(tmp_path / "new").int() - wanted.int()).abs().max() <= 1


def test_a_sheet_of_samples_goes_where_outputs_are(run, shipped, tmp_path, capsys):
    run("sample", "--model", "faithful", "--prior", "gaussian", "-n", 4)
    assert (tmp_path / "outputs/samples.png").exists() and "samples.png" in capsys.readouterr().out


@pytest.mark.parametrize("words", [("--model", "faithful"), ("--checkpoint", "models/saved_models/vae_model_epoch_1.pth"), ()])
def test_every_image_of_a_folder_comes_back_through_the_mean_under_its_name(run, vae, shipped, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    folder = write_images(tmp_path / "photos", 3)
    (folder / "02.png").rename(write_images(folder / "puppies", 0) / "02.png")
    run("reconstruct", "photos", "--out", "back", *words)
    with torch.no_grad():
        wanted = to_uint8(
            (shipped("faithful") if "--model" in words else vae).reconstruct(to_float(load_images(folder, 16).pixels))
        )
    assert (read_pngs(tmp_path / "back").int() - wanted[:2].int()).abs().max() <= 1
    made = {path.relative_to(tmp_path / "back").as_posix() for path in (tmp_path / "back").rglob("*.png")}
    assert made == {"00.png.png", "01.png.png", "puppies/02.png.png"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sample", "--model", "vector", "--prior", "flow"), "--prior flow knows the latents of --model faithful"),
        (("sample", "--prior", "gaussian"), "--prior gaussian knows the latents of --model faithful"),
        (("sample", "dogs.pth", "--model", "vector"), "'dogs.pth' and --model vector"),
        (("reconstruct", "photos", "--out", "new", "--checkpoint", "dogs.pth", "--model", "vector"), "--model vector"),
        (("reconstruct", "no/such/folder", "--out", "new", "--model", "faithful"), "no/such/folder"),
        (("reconstruct", "photos", "--out", "new"), "train first"),
    ],
)
def test_what_does_not_fit_a_model_is_answered_in_one_line_and_writes_nothing(run, shipped, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run(*words)
    assert said in str(stopped.value) and "\n" not in str(stopped.value)
    assert not (tmp_path / "new").exists() and not (tmp_path / "outputs").exists()
