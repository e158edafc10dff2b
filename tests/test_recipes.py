"""The recipes behind the shipped weights."""

import hashlib
import json
import tarfile
import zlib

import head_finder
import heads
import photos_data as photos
import photos_measure as measure
import photos_stages as stages
import photos_train as train
import pytest
import torch
from PIL import Image
from sklearn.model_selection import train_test_split
from tiny import random_pixels, write_images

from vae_helpers.data.heads import HeadFinder
from vae_helpers.files import WEIGHTS, load_weights
from vae_helpers.models import load_pretrained, load_prior, to_uint8


def test_all_of_the_contracts_train_photos_are_learned_from_and_no_unseen_one_is_among_them():
    names = [f"dog.{i}.jpg" for i in range(100)]
    train_names, test_names = train_test_split(names, test_size=0.2, random_state=42)
    learn, unseen = ({names[i] for i in part} for part in photos.split_photos(names))
    assert set(train_names) < learn and unseen < set(test_names)
    assert (len(learn), len(unseen), learn & unseen) == (90, 10, set())


def test_a_batch_is_made_of_whole_photos_or_of_places_in_larger_ones_as_they_are_or_flipped():
    torch.manual_seed(0)
    stacks = {size: random_pixels(2, size, seed=size) for size in photos.SIZES}
    sizes = {}
    for size, stack in stacks.items():
        for top in range(size - 55):
            for left in range(size - 55):
                cut = stack[:, :, top : top + 56, left : left + 56]
                sizes |= {image.numpy().tobytes(): size for image in (*cut, *cut.flip(3))}
    seen = [sizes[image.numpy().tobytes()] for _ in range(60) for image in to_uint8(photos.random_batch(stacks, 2))]
    assert set(seen) == set(photos.SIZES) and 0.3 < seen.count(56) / len(seen) < 0.7


def test_reports_come_at_the_start_forty_times_and_at_the_end():
    budget = stages.Budget(100.0)
    due = []
    for tenth_of_a_second in range(1001):
        budget.started = stages.time.perf_counter() - tenth_of_a_second / 10
        due.append(budget.due())
    assert due[0] and due[-1] and sum(due) == 41


def test_the_recipe_runs_and_leaves_weights_that_load(tmp_path, capsys):
    write_images(tmp_path / "photos", 20)
    sizes = "--width 8 --flow-width 32 --flow-depth 1 --batch 2 --components 1"
    stages_and_seconds = "--stages vector faithful sharpen flow --seconds 0.1 0.1 3 0.1"  # one long enough for the decoder
    train.main([str(tmp_path / "photos"), "--out", str(tmp_path), *sizes.split(), *stages_and_seconds.split()])
    assert "18 photos to learn from, 2 unseen" in capsys.readouterr().out
    unsharpened, faithful = (load_pretrained(tmp_path / f"{name}.safetensors") for name in ("unsharpened", "faithful"))
    assert torch.equal(unsharpened.encoder.conv_branch.conv_in.weight, faithful.encoder.conv_branch.conv_in.weight)
    assert not torch.equal(unsharpened.decoder.conv_branch.conv_out.weight, faithful.decoder.conv_branch.conv_out.weight)
    assert load_prior(tmp_path / "vector_prior.safetensors").sample(2).shape == (2, 128)
    flow = load_prior(tmp_path / "flow.safetensors")
    assert faithful.decode(flow.sample(1, steps=1)).shape == (1, 3, 56, 56)
    reported = [json.loads(line)["stage"] for line in (tmp_path / "figures.jsonl").read_text().splitlines()]
    assert {"vector", "faithful", "sharpen", "flow"} < set(reported)


def test_the_cards_figures_are_measured_on_photos_that_are_not_learned_from(tmp_path):
    write_images(tmp_path / "photos", 120)
    measure.main([str(tmp_path / "photos"), "--out", str(tmp_path / "figures.json"), "--components", "1"])
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["about"]["learned"], figures["about"]["unseen"], figures["about"]["a_side"]) == (108, 12, 6)
    recons, priors = figures["reconstructions"], figures["priors"]
    assert recons["faithful"]["psnr"] > 25 > recons["faithful"]["frechet"] and set(recons) == {
        "vector",
        "faithful",
        "other photos",
    }
    assert list(priors) == ["N(0, I)", "one Gaussian", "a mixture of 1", "flow", "other photos"]
    assert priors["N(0, I)"]["frechet"] > priors["other photos"]["frechet"] == recons["other photos"]["frechet"]


def test_chapter_08_reads_figures_that_are_those_of_the_shipped_weights():
    figures = json.loads((WEIGHTS / "figures.json").read_text())
    for name, sha256 in figures["about"]["weights"].items():
        assert hashlib.sha256((WEIGHTS / f"{name}.safetensors").read_bytes()).hexdigest() == sha256
    assert figures["about"]["unseen"] == 1000
    assert {"vector", "faithful", "other photos"} == set(figures["reconstructions"])


class Features(torch.nn.Module):
    """Instead of a pretrained network: one convolution at each of its four strides."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Conv2d(3, 8, s, s) for s in (4, 8, 16, 32)).requires_grad_(False)

    def forward(self, x):
        x = torch.nn.functional.interpolate(x, size=(112, 112))
        return [layer(x) for layer in self.layers]


@pytest.fixture
def dogs_with_heads(tmp_path):
    dogs = tmp_path / "dogs"
    write_images(dogs / "photos", 24)
    names = sorted(path.name for path in (dogs / "photos").iterdir())
    boxes = {f"photos/{name}": [[0.2, 0.3, 0.7, 0.8, 0.1 if i == 0 else 0.9]] for i, name in enumerate(names)}
    (dogs / "heads.json").write_text(json.dumps(boxes))
    write_images(tmp_path / "cut", 24)
    with tarfile.open(dogs / "heads-112.tar", "w") as tar:
        for path in (tmp_path / "cut").iterdir():
            tar.add(path, path.name)
    return dogs


def test_of_every_photo_with_a_sure_box_the_head_is_cut_out(dogs_with_heads):
    crops, names = heads.read_heads(dogs_with_heads)
    assert crops.shape == (23 + 24, 3, 112, 112) and len(set(names)) == 47
    assert heads.cut_head(Image.new("RGB", (300, 200), "red"), [0.9, 0.9, 1.0, 1.0]).tolist()[0][0] == [255, 0, 0]


@pytest.mark.slow
def test_heads_are_learned_in_three_phases_and_a_stopped_run_goes_on(dogs_with_heads, tmp_path, capsys, monkeypatch):
    """Full networks on a few heads: warm, adversary, grown; in two calls."""
    monkeypatch.setattr(heads, "is_held_out", lambda name: zlib.crc32(name.encode()) % 2 == 0)  # of so few, enough for a sheet
    run = [str(dogs_with_heads), str(tmp_path / "run"), "--warm", "32", "--grow", "64", "--save-every", "32"]
    for images, size in ((64, 56), (128, 112)):
        heads.main([*run, "--images", str(images), "--threads", "2"], Features())
        picture = Image.open(tmp_path / f"run_{images:07d}.png")
        assert picture.size == (8 * size, 12 * size)
        vae = load_pretrained(tmp_path / "run.safetensors")
        assert (vae.image_size, vae.crop) == (size, "head")
    state = torch.load(tmp_path / "run.pt", weights_only=True)
    assert (state["step"], state["grown_at"]) == (4, 2)
    assert all(weight.isfinite().all() for weight in state["average"].values())
    assert torch.equal(state["average"]["decoder.fine.conv_out.bias"].half().float(), vae.decoder.fine["conv_out"].bias)
    assert load_pretrained(tmp_path / "run.safetensors", image_size=56).sample(1).shape == (1, 3, 56, 56)
    assert "64 images seen" in capsys.readouterr().out


@pytest.mark.slow
def test_heads_are_learned_without_pretrained_features_too(dogs_with_heads, tmp_path, monkeypatch):
    monkeypatch.setattr(heads, "is_held_out", lambda name: zlib.crc32(name.encode()) % 2 == 0)
    options = "--features off --warm 32 --grow 32 --images 64 --threads 2"
    heads.main([str(dogs_with_heads), str(tmp_path / "run"), *options.split()])
    assert load_pretrained(tmp_path / "run.safetensors").image_size == 112


@pytest.fixture
def dogs_with_wrong_boxes(tmp_path):
    """Drawn dogs, whose boxes are specks in a corner, and drawn dogs that stand for cats."""
    dogs = tmp_path / "dogs"
    for folder, n in (("photos", 24), ("cats", 6)):
        write_images(dogs / folder, n)
    boxes = {f"photos/{path.name}": [[0.0, 0.0, 0.1, 0.1, 0.9]] for path in (dogs / "photos").iterdir()}
    (dogs / "heads.json").write_text(json.dumps(boxes))
    return dogs


def test_a_head_finder_is_learned_and_a_stopped_run_goes_on(dogs_with_wrong_boxes, tmp_path, capsys):
    options = f"--report-every 1 --threads {torch.get_num_threads()}"
    for steps in (1, 3):
        head_finder.main([str(dogs_with_wrong_boxes), str(tmp_path / "run"), "--steps", str(steps), *options.split()])
        assert capsys.readouterr().out.count("score 0.5:") == {1: 1, 3: 2}[steps]
    state = torch.load(tmp_path / "run.pt", weights_only=True)
    weights, _ = load_weights(tmp_path / "run.safetensors")
    finder = HeadFinder()
    finder.load_state_dict(weights)
    assert state["step"] == 3 and torch.equal(finder.out[1].bias, state["average"]["out.1.bias"].half().float())
    assert not torch.equal(finder.out[1].bias, HeadFinder().out[1].bias)


def test_a_check_of_the_shipped_finder_that_misses_a_bar_says_which_and_fails(dogs_with_wrong_boxes, capsys):
    options = f"--check --limit 5 --threads {torch.get_num_threads()}"
    with pytest.raises(SystemExit, match=r"missed: .*IoU of at least 0\.5"):
        head_finder.main([str(dogs_with_wrong_boxes), *options.split()])
    printed = capsys.readouterr().out
    assert "of 5 toy backgrounds" in printed and "reported, of 3 cats" in printed
