"""The recipes behind the shipped weights."""

import json
import tarfile
import zlib

import dogs
import head_finder
import heads
import pytest
import torch
import vector
from PIL import Image
from sklearn.model_selection import train_test_split
from tiny import random_pixels, write_images

from vae_helpers.data import HeadFinder
from vae_helpers.files import load_weights
from vae_helpers.models import load_pretrained, load_prior, to_uint8


def test_all_of_the_contracts_train_photos_are_learned_from_and_no_unseen_one_is_among_them():
    names = [f"dog.{i}.jpg" for i in range(100)]
    train_names, test_names = train_test_split(names, test_size=0.2, random_state=42)
    learn, unseen = ({names[i] for i in part} for part in vector.split_photos(names))
    assert set(train_names) < learn and unseen < set(test_names)
    assert (len(learn), len(unseen), learn & unseen) == (90, 10, set())


def test_a_batch_is_made_of_whole_photos_or_of_places_in_larger_ones_as_they_are_or_flipped():
    torch.manual_seed(0)
    stacks = {size: random_pixels(2, size, seed=size) for size in vector.SIZES}
    sizes = {}
    for size, stack in stacks.items():
        for top in range(size - 55):
            for left in range(size - 55):
                cut = stack[:, :, top : top + 56, left : left + 56]
                sizes |= {image.numpy().tobytes(): size for image in (*cut, *cut.flip(3))}
    seen = [sizes[image.numpy().tobytes()] for _ in range(60) for image in to_uint8(vector.random_batch(stacks, 2))]
    assert set(seen) == set(vector.SIZES) and 0.3 < seen.count(56) / len(seen) < 0.7


def test_vector_and_its_prior_are_learned_and_measured_on_photos_that_are_not_learned_from(tmp_path, capsys):
    write_images(tmp_path / "photos", 120)
    vector.main([str(tmp_path / "photos"), str(tmp_path / "new"), "--seconds", "1"])
    said = capsys.readouterr().out
    assert "108 photos to learn from, 12 unseen" in said and "reconstructions {'frechet'" in said
    vae, prior = load_pretrained(tmp_path / "new/vector.safetensors"), load_prior(tmp_path / "new/vector_prior.safetensors")
    assert vae.decode(prior.sample(2)).shape == (2, 3, 56, 56)
    assert len((tmp_path / "new/unseen.txt").read_text().split()) == 12


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
    run = [str(dogs_with_heads), str(tmp_path / "run"), "--batch", "32", "--warm", "32", "--grow", "64", "--save-every", "32"]
    for images, size in ((64, 56), (128, 112)):
        heads.main([*run, "--images", str(images), "--threads", "2"], Features())
        picture = Image.open(tmp_path / f"run_{images:07d}.png")
        assert picture.size == (8 * size, 12 * size)
        vae = load_pretrained(tmp_path / "run.safetensors")
        assert (vae.image_size, vae.crop) == (size, "head")
    with pytest.raises(ValueError, match="was begun with --batch 32, not 8"):
        heads.main([*run, "--batch", "8"], Features())
    state = torch.load(tmp_path / "run.pt", weights_only=True)
    assert (state["step"], state["grown_at"]) == (4, 2)
    assert all(weight.isfinite().all() for weight in state["average"].values())
    assert torch.equal(state["average"]["decoder.fine.conv_out.bias"].half().float(), vae.decoder.fine["conv_out"].bias)
    assert load_pretrained(tmp_path / "run.safetensors", image_size=56).sample(1).shape == (1, 3, 56, 56)
    assert load_prior(tmp_path / "run.safetensors").sample(2).shape == (2, 256)
    assert "64 images seen" in capsys.readouterr().out


@pytest.mark.slow
def test_heads_are_learned_without_pretrained_features_too(dogs_with_heads, tmp_path, monkeypatch):
    monkeypatch.setattr(heads, "is_held_out", lambda name: zlib.crc32(name.encode()) % 2 == 0)
    options = "--features off --batch 32 --warm 32 --grow 32 --images 64 --threads 2"
    heads.main([str(dogs_with_heads), str(tmp_path / "run"), *options.split()])
    assert load_pretrained(tmp_path / "run.safetensors").image_size == 112


@pytest.mark.slow
def test_dogs_are_learned_with_their_breeds_and_a_run_ends_on_time(tmp_path, monkeypatch):
    monkeypatch.setattr(dogs, "is_held_out", lambda name: zlib.crc32(name.encode()) % 2 == 0)
    write_images(tmp_path / "cut", 24)
    with tarfile.open(tmp_path / "stanford-64.tar", "w") as tar:
        for i, path in enumerate(sorted((tmp_path / "cut").iterdir())):
            tar.add(path, f"./n02-{('Great_Dane', 'pug')[i % 2]}/{path.name}")
    options = "--batch 32 --warm 32 --images 96 --threads 2 --minutes 5 --save-every 1000"
    dogs.main([str(tmp_path), str(tmp_path / "run"), *options.split()], Features())
    vae, prior = load_pretrained(tmp_path / "run.safetensors"), load_prior(tmp_path / "run_prior.safetensors")
    assert (vae.breeds, vae.crop, vae.image_size) == (("Great dane", "Pug"), "box", 56)
    assert prior.n_components == 2 and prior.sample(3).shape == (3, 256)
    dogs.main([str(tmp_path), str(tmp_path / "again"), *options.split(), "--minutes", "0.001"], Features())
    assert [path.name for path in tmp_path.glob("again_*.png")] == ["again_0000032.png"]


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
