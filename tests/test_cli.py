"""Commands as a person types them: what they write, what they say, and how they end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from tiny import random_pixels, stirred, tiny_vae, vivid_vae, write_images

from vae_helpers.cli import main
from vae_helpers.data import draw_dog, load_images, read_manifest, sample_factors
from vae_helpers.models import (
    Checkpoint,
    FullGaussian,
    GaussianMixture,
    ResidualVAE,
    StandardNormal,
    checkpoint_path,
    decode_latents,
    load_checkpoint,
    load_pretrained,
    load_prior,
    save_checkpoint,
    to_float,
    to_uint8,
)

TINY = ("--batch-size", 8, "--latent-dim", 4, "--image-size", 16)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run a command of the package with its workspace in tmp_path, which is the current folder, too."""
    monkeypatch.setenv("VAE_HOME", str(tmp_path))
    monkeypatch.delenv("VAE_CROP", raising=False)
    monkeypatch.chdir(tmp_path)
    return lambda *words: main([str(word) for word in words])


@pytest.fixture
def refused(run, capsys):
    """Run a command that cannot work; what it says, which is one line."""

    def refused(*words) -> str:
        with pytest.raises(SystemExit) as stopped:
            run(*words)
        said = str(stopped.value)
        assert said.startswith("error: ") and "\n" not in said and "Traceback" not in capsys.readouterr().err
        return said

    return refused


def write_dogs_twice(folder: Path) -> Path:
    """Twenty dogs of two breeds, five of which are there again."""
    for i, row in enumerate(sample_factors(20, seed=1)):
        breed = folder / ("beagle" if i % 2 else "pug")
        breed.mkdir(parents=True, exist_ok=True)
        draw_dog(row).save(breed / f"{i}.png")
        if i < 5:
            draw_dog(row).resize((64, 64)).save(breed / f"{i} again.png")
    return folder


def write_halves(folder: Path, n: int = 40) -> Path:
    """Wide pictures, black left and right of a white square: their middle is all white, the whole is not."""
    folder.mkdir(parents=True)
    for i in range(n):
        image = Image.new("RGB", (60, 20))
        image.paste((255, 255, 255 - i), (20, 0, 40, 20))
        image.save(folder / f"{i:02d}.png")
    return folder


def save_model(folder: Path, vae) -> None:
    save_checkpoint(checkpoint_path(folder, 1), Checkpoint(vae, 1))


@pytest.fixture
def vae(tmp_path):
    """The model whose checkpoint models/saved_models holds."""
    vae = vivid_vae()
    save_model(tmp_path / "models/saved_models", vae)
    return vae


def read_pngs(folder: Path) -> torch.Tensor:
    """uint8 (N, 3, S, S) of the PNG files in a folder, in order of their names."""
    return torch.stack([torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for path in sorted(folder.glob("*.png"))])


def assert_same_pixels(found: torch.Tensor, images: torch.Tensor, within: int = 1) -> None:
    assert found.shape == images.shape and (found.int() - to_uint8(images).int()).abs().max() <= within


def walk_images(path: Path) -> torch.Tensor:
    """The images of a GIF, uint8 (n, 3, 16, 16), each pixel of which is a square of 4 x 4."""
    with Image.open(path) as gif:
        frames = [np.array(frame.convert("RGB"))[::4, ::4] for frame in ImageSequence.Iterator(gif)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def test_a_folder_becomes_a_model_figures_and_new_dogs(run, tmp_path, capsys):
    photos = write_images(tmp_path / "photos", 40)
    run("split", photos, "--test-size", 0.5)
    assert "20 training images, 20 test images" in capsys.readouterr().out
    run("train", "--epochs", 1, *TINY)
    assert (tmp_path / "models/saved_models/vae_model_epoch_1.pth").exists()
    assert (tmp_path / "outputs/reconstructed.png").exists()
    run("evaluate")
    metrics = json.loads((tmp_path / "outputs/metrics.json").read_text())
    assert metrics["images"] == "test dogs" and metrics["vae"]["n_images"] == 20 and metrics["epoch"] == 1
    assert "What this model does, after 1 epochs" in (tmp_path / "outputs/report.html").read_text()
    assert metrics["vae"]["loss"] == pytest.approx(metrics["vae"]["recon_sampled"] + 0.00025 * metrics["vae"]["kl"])
    assert len(capsys.readouterr().out.splitlines()) > 3
    run("sample", "-n", 3, "--seed", 1, "--out", "new")
    assert len(list((tmp_path / "new").glob("*.png"))) == 3


def test_a_breed_is_asked_of_the_prior_and_of_the_decoder_whichever_knows_it(run, refused, tmp_path):
    vae = stirred(ResidualVAE(4, (8, 8, 8, 16), (8, 8, 8), breeds=("Chow chow", "Pug")))
    save_checkpoint(tmp_path / "mine.safetensors", Checkpoint(vae))

    def drawn(*options: str) -> torch.Tensor:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        run("sample", "--model", "mine.safetensors", "-n", 2, "--out", folder, *options)
        return read_pngs(folder)

    by_decoder, z = drawn("--breed", "pug"), StandardNormal((4,)).sample(2, torch.Generator().manual_seed(0))
    assert_same_pixels(by_decoder, decode_latents(vae, z, breed="Pug"))
    mu = torch.randn(40, 4)
    prior = GaussianMixture((4,), names=vae.breeds).fit(mu, torch.ones_like(mu), torch.arange(40) % 2)
    prior.save(tmp_path / "mine_prior.safetensors")
    generator, by_both = torch.Generator().manual_seed(0), drawn("--breed", "pug")
    prior.weights.multinomial(2, replacement=True, generator=generator)  # the breeds are drawn first, if they are not said
    z = prior.sample(2, generator, name="Pug")
    assert_same_pixels(by_both, decode_latents(vae, z, breed="Pug"))
    assert not torch.equal(by_both, by_decoder)
    prior.weights.copy_(torch.tensor([0.0, 1.0]))  # then a dog whose breed is not said is a pug
    prior.save(tmp_path / "mine_prior.safetensors")
    generator = torch.Generator().manual_seed(0)
    prior.weights.multinomial(2, replacement=True, generator=generator)
    assert_same_pixels(drawn(), decode_latents(vae, prior.sample(2, generator, name="Pug"), breed="Pug"))
    assert "Chow chow, Pug" in refused("sample", "--model", "mine.safetensors", "--breed", "poodle")


def test_the_whole_way_from_a_folder_to_new_dogs_of_a_breed(run, refused, tmp_path, capsys):
    """Each command takes what those before it have left in models/NAME."""
    for breed in ("pug", "chow_chow"):
        write_images(tmp_path / "photos" / breed, 20)
    run("split", "photos", "--test-size", 12)
    run("train", "--network", "residual", "--width", 16, "--epochs", 1, "--name", "mine", *TINY)
    model, out = ("--model", "mine"), iter(tmp_path / f"out-{i}" for i in range(9))

    def drawn(*options) -> torch.Tensor:
        folder = next(out)
        run("sample", *model, "-n", 4, "--out", folder, *options)
        return read_pngs(folder)

    raw = drawn()
    assert "knows no breeds" in refused("sample", *model, "--breed", "pug")
    run("train-prior", *model, "--steps", 20)
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in ("N(0, I)", "gaussian", "mixture", "breeds", "flow")) and "likeliest" in said
    run("train-prior", *model, "--kind", "breeds")
    with_prior = drawn()
    assert not torch.equal(with_prior, raw)
    assert "chow chow, pug" in refused("sample", *model, "--breed", "poodle")
    assert not torch.equal(drawn("--breed", "Chow_Chow"), drawn("--breed", "pug"))
    run("sharpen", *model, "--features", "off", "--images", 48, "--batch-size", 8)
    assert not torch.equal(drawn(), with_prior)
    assert torch.equal(drawn("--raw"), raw)
    run("evaluate", *model)
    assert json.loads((tmp_path / "outputs/metrics.json").read_text())["prior"] == "GaussianMixture"
    run("walk", *model, "--steps", 3)
    mine = {path.name for path in (tmp_path / "models/mine").iterdir()}
    assert mine == {
        "vae_model_epoch_1.pth", "training_state.pth", "history.csv", "config.json",
        "prior.safetensors", "decoder_sharp.safetensors",
    }  # fmt: skip


def test_of_all_priors_the_likeliest_is_kept_also_where_that_is_the_standard_normal(run, tmp_path, capsys):
    """Latents of noise, 64 numbers each, are spread like N(0, I); a Gaussian of so few of them knows only some directions."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(24):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / f"photos/{i:02}.png")
    vae = tiny_vae(latent_dim=64)
    with torch.no_grad():
        vae.encoder.linear_branch.weight *= 85
        vae.encoder.conv_branch.linear_out.bias[64:] = -6.0
    save_model(tmp_path / "models/saved_models", vae)
    run("split", "photos")
    capsys.readouterr()
    run("train-prior", "--steps", 20)
    _, *table, last = capsys.readouterr().out.splitlines()
    nats = {line.strip().rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in table}
    assert set(nats) == {"N(0, I)", "gaussian", "mixture", "flow"}
    assert nats["N(0, I)"] == max(nats.values()) and ": N(0, I), under which" in last
    assert type(load_prior(tmp_path / "models/saved_models")).__name__ == "StandardNormal"


def test_parts_of_an_earlier_state_of_a_model_are_refused(run, refused, tmp_path, vae):
    run("split", write_images(tmp_path / "photos", 20))
    run("train-prior", "--kind", "gaussian")
    save_model(tmp_path / "models/saved_models", vivid_vae(seed=1))
    for command in (("sample",), ("sharpen", "--features", "off"), ("walk",)):
        assert "prior.safetensors' is for an earlier state of this model" in refused(*command)
    run("sample", "--raw", "-n", 1)
    run("train-prior", "--kind", "gaussian")
    run("sample", "-n", 1)


def test_what_is_added_to_shipped_weights_lies_in_the_workspace(run, tmp_path):
    run("split", "toy")
    run("train-prior", "--model", "toy", "--kind", "gaussian")
    assert [path.name for path in (tmp_path / "models/toy").iterdir()] == ["prior.safetensors"]
    run("sample", "--model", "toy", "-n", 1)


def test_auto_trains_what_plan_says_and_plan_does_not_train(run, tmp_path, capsys, monkeypatch):
    run("split", write_images(tmp_path / "photos", 40))
    run("train", "--plan", "--image-size", 16)
    plan = capsys.readouterr().out.splitlines()[1]
    assert "28 photos of 16 x 16" in plan and "--network vector --width 32 --epochs 200" in plan
    assert not (tmp_path / "models").exists()
    with pytest.raises(SystemExit, match="--auto chooses epochs, batch_size, network: leave"):
        run("train", "--auto", "--image-size", 16, "--epochs", 3, "--batch-size", 8, "--network", "spatial")
    capsys.readouterr()
    monkeypatch.setattr("vae_helpers.training.loop.train_epoch", lambda *_: 1 / 0)
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        run("train", "--auto", "--image-size", 16)
    assert capsys.readouterr().out.splitlines()[0] == plan


@pytest.mark.parametrize(
    ("network", "kind", "shape"),
    [
        ("spatial", "SpatialVAE", (2, 2, 2)),
        ("residual", "ResidualVAE", (4,)),
        ("attention", "AttentionVAE", (2, 2, 2)),
        ("vector", "VAE", (4,)),
    ],
)
def test_the_network_and_the_settings_that_are_named_are_trained_under_the_models_name(run, tmp_path, network, kind, shape):
    run("split", write_images(tmp_path / "photos", 16))
    sizes = ("--latent-channels", 2, "--width", 16, "--epochs", 1, "--name", "mine")
    run("train", "--network", network, *TINY, *sizes, "--calibrated", "--ema-decay", 0.9, "--max-shift", 2)
    saved = load_checkpoint(tmp_path / "models/mine/vae_model_epoch_1.pth")
    assert (type(saved.vae).__name__, saved.vae.latent_shape, saved.vae.image_size) == (kind, shape, 16)
    assert (saved.settings["ema_decay"], saved.settings["max_shift"]) == (0.9, 2)
    assert [path.name for path in (tmp_path / "models").iterdir() if path.is_dir()] == ["mine"]


def test_a_server_goes_on_with_a_damaged_checkpoint(run, tmp_path, capsys):
    run("split", write_images(tmp_path / "photos", 40))
    train = ("train", "--epochs", 3, *TINY)
    run(*train)
    kept = tmp_path / "models/saved_models"
    (kept / "vae_model_epoch_3.pth").write_bytes(b"damaged")
    with pytest.raises(SystemExit, match=r"epoch_3.pth' is damaged"):
        run("sample", "-n", 1, "--out", "new")
    run("sample", "-n", 1, "--out", "new", "--model", kept / "vae_model_epoch_2.pth")
    capsys.readouterr()
    run(*train)
    assert "Going on from vae_model_epoch_2.pth" in capsys.readouterr().out


def test_what_a_split_is_asked_for_it_does(run, tmp_path):
    photos = write_dogs_twice(tmp_path / "photos")
    for seed in range(3):
        run("split", photos, "--random-state", seed, "--stratify", "--duplicates-together", "--crop", "--test-size", 0.4)
        split = read_manifest(tmp_path / "data/test/dogs")
        aside = set(split["files"])
        twins = [f"{'beagle' if i % 2 else 'pug'}/{i}" for i in range(5)]
        assert all((f"{name}.png" in aside) == (f"{name} again.png" in aside) for name in twins)
        assert {name.split("/")[0] for name in aside} == {"beagle", "pug"} and split["crop"] == "box"


def test_a_split_that_is_there_is_kept_when_that_is_asked_for(run, tmp_path):
    for part in ("train", "test"):
        write_images(tmp_path / "photos" / part, 8)
    run("split", tmp_path / "photos", "--keep-split")
    for part in ("train", "test"):
        assert read_manifest(tmp_path / "data" / part / "dogs")["files"] == [f"{part}/{i:02d}.png" for i in range(8)]


@pytest.mark.parametrize(
    ("words", "variable", "crop"),
    [
        ((), None, "none"),
        (("--crop",), None, "box"),
        (("--crop", "center"), None, "center"),
        (("--crop=center",), "1", "center"),
        ((), "center", "center"),
        (("--crop", "none"), "1", "none"),
    ],
)
def test_a_split_is_cropped_as_the_option_says_else_as_the_environment_says(run, tmp_path, monkeypatch, words, variable, crop):
    if variable:
        monkeypatch.setenv("VAE_CROP", variable)
    run("split", *words, write_images(tmp_path / "photos", 12))
    assert read_manifest(tmp_path / "data/train/dogs")["crop"] == crop


def test_the_crop_of_the_split_travels_with_the_model_into_everything_that_reads_images(run, tmp_path):
    photos = write_halves(tmp_path / "photos")
    run("split", photos, "--crop", "center")
    run("train", "--epochs", 1, *TINY)
    vae = load_checkpoint(tmp_path / "models/saved_models/vae_model_epoch_1.pth").vae
    assert vae.crop == "center"
    for crop, words in (("center", ()), ("none", ("--crop", "none"))):
        run("reconstruct", photos, "--out", crop, *words)
        pixels = load_images(photos, 16, crop=crop).pixels
        with torch.no_grad():
            assert_same_pixels(read_pngs(tmp_path / crop), vae.reconstruct(to_float(pixels)))
            run("walk", photos / "00.png", photos / "39.png", "--steps", 2, *words)
            assert_same_pixels(walk_images(tmp_path / "outputs/walk.gif"), vae.reconstruct(to_float(pixels[[0, 39]])), within=3)
    assert not torch.equal(read_pngs(tmp_path / "center"), read_pngs(tmp_path / "none"))


def test_dogs_that_are_there_twice_are_listed(run, tmp_path, capsys):
    run("duplicates", write_dogs_twice(tmp_path / "photos"))
    said = capsys.readouterr().out
    assert "5 pairs among 25 images" in said and "'beagle/1 again.png'  'beagle/1.png'" in said
    for again in (tmp_path / "photos").rglob("* again.png"):
        again.unlink()
    run("duplicates", tmp_path / "photos")
    assert capsys.readouterr().out == "0 pairs among 20 images\n"


def test_a_model_is_shipped_or_in_the_workspace_or_a_folder_or_a_file(run, vae, tmp_path):
    other, elsewhere = vivid_vae(seed=1), vivid_vae(seed=2)
    save_model(tmp_path / "models/mine", other)
    save_model(tmp_path / "models/vector", other)  # a shipped name wins
    save_model(tmp_path / "runs/theirs", elsewhere)
    save_checkpoint(tmp_path / "file.safetensors", Checkpoint(elsewhere))
    models = {None: vae, "mine": other, "runs/theirs": elsewhere, "file.safetensors": elsewhere}
    for name, model in (models | {"vector": load_pretrained("vector")}).items():
        run("sample", *(() if name is None else ("--model", name)), "-n", 2, "--raw", "--out", f"new/{name}")
        z = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert_same_pixels(read_pngs(tmp_path / f"new/{name}"), model.decode(z))


def test_samples_come_from_the_best_prior_that_a_model_has(run, vae, tmp_path):
    prior = FullGaussian((12,)).fit(3 + torch.randn(100, 12, generator=torch.Generator().manual_seed(0)))
    prior.save(tmp_path / "models/saved_models/prior.safetensors")
    shipped = (load_pretrained("vector"), load_prior("vector_prior"))
    for name, (model, source) in {"saved_models": (vae, prior), "vector": shipped}.items():
        run("sample", "--model", name, "-n", 2, "--seed", 1, "--out", f"new/{name}")
        with torch.no_grad():
            wanted = model.decode(source.sample(2, torch.Generator().manual_seed(1)))
        assert_same_pixels(read_pngs(tmp_path / f"new/{name}"), wanted)


def test_a_sheet_of_samples_goes_where_outputs_are(run, vae, tmp_path, capsys):
    run("sample", "-n", 4)
    assert (tmp_path / "outputs/samples.png").exists() and "samples.png" in capsys.readouterr().out


def test_every_image_of_a_folder_comes_back_through_the_mean_under_its_name(run, vae, tmp_path):
    folder = write_images(tmp_path / "photos", 3)
    (folder / "02.png").rename(write_images(folder / "puppies", 0) / "02.png")
    run("reconstruct", "photos", "--out", "back")
    with torch.no_grad():
        assert_same_pixels(read_pngs(tmp_path / "back"), vae.reconstruct(to_float(load_images(folder, 16).pixels))[:2])
    made = {path.relative_to(tmp_path / "back").as_posix() for path in (tmp_path / "back").rglob("*.png")}
    assert made == {"00.png.png", "01.png.png", "puppies/02.png.png"}


def test_a_walk_goes_from_one_photo_to_the_other(run, vae, tmp_path, capsys):
    dogs = random_pixels(2)
    for dog, name in zip(dogs, ("from.png", "to.png"), strict=True):
        Image.fromarray(dog.permute(1, 2, 0).numpy()).save(tmp_path / name)
    run("walk", "from.png", "to.png", "--steps", 6)
    images = walk_images(tmp_path / "outputs/walk.gif")
    assert len(images) == 10  # six there, four back
    with torch.no_grad():
        assert_same_pixels(images[[0, 5]], vae.reconstruct(to_float(dogs)), within=3)
    assert "walk.gif" in capsys.readouterr().out


def test_a_walk_between_draws_follows_its_seed_and_way(run, vae, tmp_path):
    walks = {"first": (), "again": (), "other seed": ("--seed", 1), "straight": ("--straight",)}
    for name, words in walks.items():
        run("walk", "--steps", 30, "--out", tmp_path / name / "walk.gif", *words)
    first, again, other, straight = ((tmp_path / name / "walk.gif").read_bytes() for name in walks)
    assert first == again and len({first, other, straight}) == 3


def test_a_walk_without_photos_goes_between_draws_from_the_best_prior_that_a_model_has(run, vae, tmp_path):
    prior = FullGaussian((12,)).fit(3 + torch.randn(100, 12, generator=torch.Generator().manual_seed(0)))
    prior.save(tmp_path / "models/saved_models/prior.safetensors")
    run("walk", "--steps", 2, "--seed", 1)
    with torch.no_grad():
        wanted = vae.decode(prior.sample(2, torch.Generator().manual_seed(1)))
    assert_same_pixels(walk_images(tmp_path / "outputs/walk.gif"), wanted, within=3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("split", "no/such/folder"), "no/such/folder"),
        (("sample",), "train first"),
        (("walk",), "train first"),
        (("train",), "split first"),
        (("evaluate", "--model", "vector"), "split first"),
        (("sample", "--model", "vector", "-n", 0), "-n 0: "),
        (("sample", "--model", "vector", "-n", -3, "--out", "new"), "-n -3: "),
        (("sample", "--model", "vector", "-n", 1001), "--out FOLDER"),
        (("split", "notes.txt"), "'notes.txt': a file: give the folder"),
        (("sample", "--model", "vector", "--seed", 10**19), "--seed 10000000000000000000: give a number from 0 to"),
        (("sample", "--model", "vector", "--seed", -1), "--seed -1: "),
        (("walk", "--model", "vector", "--seed", 10**19), "--seed 10000000000000000000: "),
        (("evaluate", "--model", "vector", "--seed", 2**32), "--seed 4294967296: "),
        (("sample", "--model", "toy", "--out", "notes.txt/new"), "sample_00000.png': Not a directory. Choose another folder"),
        (("train", "--seed", 10**19), "seed=10000000000000000000 must be from 0 to"),
        (("train", "--epochs", 0), "epochs=0 must be positive"),
        (("train", "--learning-rate", "inf"), "learning_rate=inf must be positive, and finite"),
        (("train", "--name", "vector"), "'vector'"),
        *((("train", "--name", name), f"--name {name!r}: take a plain name") for name in ("../mine", "..", ".", "", "a/b")),
        (("evaluate", "--model", "no_such"), "no_such"),
        (("sample", "--model", "dog_features"), "dog_features"),
        (("sample", "--model", "notes.txt"), "notes.txt"),
        (("reconstruct", "no/such/folder", "--out", "new", "--model", "vector"), "no/such/folder"),
    ],
)
def test_a_mistake_is_answered_in_one_line_that_names_it_and_writes_nothing(refused, tmp_path, words, said):
    (tmp_path / "notes.txt").write_text("no model")
    assert said in refused(*words)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "notes.txt"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("notes.txt",), "notes.txt"),
        (("gone.png",), "gone.png"),
        (("--steps", 1), "steps=1"),
        (("--steps", 1001), "1000 pictures at most"),
    ],
)
def test_a_walk_that_cannot_be_made_says_why_and_writes_nothing(refused, vae, tmp_path, words, said):
    (tmp_path / "notes.txt").write_text("no image")
    assert said in refused("walk", *words)
    assert not (tmp_path / "outputs").exists()


def test_a_picture_that_is_not_there_is_named_without_a_number_of_the_system(refused):
    assert refused("walk", "gone.png", "--model", "toy") == "error: 'gone.png': No such file or directory: check the path"


def test_debug_shows_where_an_error_happened(run):
    with pytest.raises(FileNotFoundError, match="no/such/folder"):
        run("--debug", "split", "no/such/folder")


def test_a_run_that_does_not_fit_into_memory_says_what_to_make_smaller(refused, run, tmp_path):
    run("split", write_images(tmp_path / "photos", 16))
    said = refused("train", "--latent-dim", 10**12)
    assert "the memory is full" in said and "--batch-size" in said and "--width" in said


@pytest.mark.parametrize("epochs", [1, 20])
def test_a_run_that_ends_in_nan_is_an_error(refused, run, tmp_path, epochs):
    run("split", write_images(tmp_path / "photos", 40))
    assert "NaN" in refused("train", "--learning-rate", 1e30, "--epochs", epochs, *TINY)


@pytest.mark.parametrize("rate", [5, 1e9])
def test_a_run_that_only_gets_worse_stops_and_keeps_no_checkpoint_of_it(refused, run, tmp_path, rate):
    run("split", write_images(tmp_path / "photos", 40))
    said = refused("train", "--learning-rate", rate, "--epochs", 3, *TINY)
    assert "in epoch 1 the validation error is" in said and "lower the learning_rate" in said
    assert not list((tmp_path / "models").rglob("vae_model_epoch_*"))


def test_a_workspace_that_cannot_be_is_named_and_another_is_asked_for(refused, tmp_path, monkeypatch):
    photos = write_images(tmp_path / "photos", 12)
    (tmp_path / "file").write_text("")
    for home in ("file", "/proc/nowhere"):
        monkeypatch.setenv("VAE_HOME", home)
        said = refused("split", photos)
        assert f"cannot write '{tmp_path / home}/data/train/dogs'" in said and "Choose another folder (VAE_HOME" in said


def test_a_number_of_images_may_be_put_aside(run, tmp_path, capsys):
    run("split", write_images(tmp_path / "photos", 20), "--test-size", 5)
    assert "15 training images, 5 test images" in capsys.readouterr().out


def test_images_whose_names_fill_all_that_a_file_system_takes_come_back_under_shorter_ones(run, vae, tmp_path):
    folder = tmp_path / "photos" / "puppies"
    write_images(folder, 3)
    for i, name in enumerate(("d" * 250, "d" * 249 + "e", "é" * 124)):
        (folder / f"{i:02d}.png").rename(folder / f"{name}.png")
    run("reconstruct", "photos", "--out", "back")
    assert len(list((tmp_path / "back" / "puppies").glob("*.png"))) == 3


def in_a_file(home: Path, *words, **environment) -> tuple[int, str]:
    """How a command ends whose output goes to a file, and what the file then holds."""
    with (home / "log").open("wb") as log:
        command, env = (
            [sys.executable, "-m", "vae_helpers", *map(str, words)],
            os.environ | {"VAE_HOME": str(home)} | environment,
        )
        code = subprocess.run(command, env=env, stdout=log, stderr=subprocess.STDOUT, cwd=home).returncode
    return code, (home / "log").read_text(encoding="ascii")


def test_in_a_file_each_epoch_is_a_line_with_the_time_that_is_left_and_nothing_else(run, tmp_path):
    run("split", write_images(tmp_path / "photos", 40))
    code, said = in_a_file(tmp_path, "train", "--epochs", 2, *TINY, "--network", "spatial", "--width", 8, VAE_BF16="0")
    assert code == 0 and "\r" not in said
    assert [line[:10] for line in said.splitlines()] == ["epoch  1/2", "epoch  2/2"]
    assert all(word in said for word in ("train loss", "validation loss", "images/s", "left"))


def test_a_warning_is_a_line_without_the_code_that_warns(tmp_path):
    (write_images(tmp_path / "photos", 12) / "notes.jpg").write_text("no picture")
    code, said = in_a_file(tmp_path, "duplicates", "photos")
    warning, *_, found = said.splitlines()
    assert warning.startswith("warning: 1 of 13 images cannot be read") and code == 0 and found.endswith("among 12 images")


def test_letters_that_the_output_cannot_hold_are_escaped(tmp_path):
    for name in ("狗", "狗 again"):
        draw_dog(sample_factors(1)[0]).save(write_images(tmp_path / "photos", 0) / f"{name}.png")
    code, said = in_a_file(tmp_path, "duplicates", "photos", PYTHONIOENCODING="ascii")
    assert code == 0 and "1 pairs" in said and r"'\u72d7.png'" in said


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer that interrupts")
def test_ctrl_c_ends_a_command_with_130_and_without_a_traceback(run, tmp_path):
    run("split", write_images(tmp_path / "photos", 40))
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.5)
        with pytest.raises(SystemExit) as stopped:
            run("train", "--epochs", 100_000, *TINY)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert stopped.value.code == 130


def test_the_module_is_the_same_command_and_a_word_it_does_not_know_is_an_error_of_usage(tmp_path):
    def call(*words):
        command = [sys.executable, "-m", "vae_helpers", *words]
        return subprocess.run(command, env=os.environ | {"VAE_HOME": str(tmp_path)}, capture_output=True, text=True)

    help_page = call("--help")
    assert help_page.returncode == 0
    assert all(
        name in help_page.stdout for name in ("split", "duplicates", "train", "evaluate", "sample", "reconstruct", "walk")
    )
    assert call("evaluate", "model.pth").returncode == 2 and call("bark").returncode == 2
    mistake = call("split", "no/such/folder")
    assert mistake.returncode == 1 and mistake.stderr.startswith("error: 'no/such/folder'") and not mistake.stdout
