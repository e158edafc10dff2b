"""The recipe behind the shipped weights, recipes/photos_train.py."""

import hashlib
import json

import photos_data as photos
import photos_measure as measure
import photos_stages as stages
import photos_train as train
import torch
from sklearn.model_selection import train_test_split
from tiny import random_pixels, write_images

from vae_helpers.files import WEIGHTS
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
