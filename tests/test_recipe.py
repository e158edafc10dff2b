"""The recipe behind the shipped weights, models/pretrained/train.py."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from sklearn.model_selection import train_test_split
from tiny import random_pixels, write_images

from vae_helpers.data import to_bytes
from vae_helpers.flow import LatentFlow
from vae_helpers.pretrained import load_weights

sys.path.insert(0, str(Path(__file__).parents[1] / "models" / "pretrained"))
photos, stages, train = (importlib.import_module(name) for name in ("photos", "stages", "train"))


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
    seen = [sizes[image.numpy().tobytes()] for _ in range(60) for image in to_bytes(photos.random_batch(stacks, 2))]
    assert set(seen) == set(photos.SIZES) and 0.3 < seen.count(56) / len(seen) < 0.7


def test_reports_come_at_the_start_forty_times_and_at_the_end():
    budget = stages.Budget(100.0)
    due = []
    for tenth_of_a_second in range(1001):
        budget.started = stages.time.perf_counter() - tenth_of_a_second / 10
        due.append(budget.due())
    assert due[0] and due[-1] and sum(due) == 41


def test_the_recipe_runs_and_leaves_weights_that_load(tmp_path, monkeypatch, capsys):
    write_images(tmp_path / "photos", 20)
    settings = {"--out": tmp_path, "--width": 8, "--flow-width": 32, "--flow-depth": 1, "--batch": 2}
    arguments = [tmp_path / "photos", *(word for setting in settings.items() for word in setting)]
    arguments += ["--stages", "faithful", "sharp", "flow", "--seconds", 0.1, 0.1, 0.1]
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    # sixteen components need more photos
    monkeypatch.setattr(train, "GaussianMixture", lambda shape: train.FullGaussian(shape))
    train.main()
    assert "18 photos to learn from, 2 unseen" in capsys.readouterr().out
    faithful = load_weights(tmp_path / "faithful.safetensors")
    sharp = load_weights(tmp_path / "sharp.safetensors", rest=faithful)
    assert torch.equal(sharp.encoder[0].weight, faithful.encoder[0].weight)
    flow = LatentFlow.load(tmp_path / "flow.safetensors")
    assert sharp.decode(flow.sample(1, steps=1)).shape == (1, 3, 56, 56)
    reported = [json.loads(line)["stage"] for line in (tmp_path / "figures.jsonl").read_text().splitlines()]
    assert {"faithful", "sharp", "flow"} < set(reported)
    with pytest.raises(ValueError, match="does not hold the weights"):
        load_weights(tmp_path / "sharp.safetensors")
