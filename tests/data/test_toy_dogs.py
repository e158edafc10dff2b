import hashlib
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from tiny import tree

from vae_helpers.data import CATEGORICAL, CONTINUOUS, FACTORS, draw_dog, read_factors, sample_factors, write_toy_dogs

MIDDLE = {name: span[0] if name in CATEGORICAL else sum(span) / 2 for name, span in FACTORS.items()}


@pytest.mark.parametrize(
    ("n", "seed", "pixels", "digest"),
    [
        (64, 0, 112, "cb6f46813517f68cdf639edf5ab47992063fda60eb2eb019eea554ea5b0e062a"),
        (32, 3, 24, "c9bba742cf91e5aaabe75f485227d7caaef705ca92ff095c4d6c5a613af13627"),
    ],
)
def test_dogs_of_a_seed_are_those_of_every_committed_figure_to_the_last_pixel(n, seed, pixels, digest):
    """Digests were printed by tree 9addd0c."""
    dogs = hashlib.sha256()
    for row in sample_factors(n, seed):
        dogs.update(draw_dog(row, pixels).tobytes())
    assert dogs.hexdigest() == digest


def test_the_first_dogs_do_not_depend_on_how_many_are_drawn_and_another_seed_gives_others():
    assert sample_factors(20)[:7] == sample_factors(7) != sample_factors(7, seed=1)


def test_factors_fill_their_ranges_and_do_not_leave_them():
    rows = sample_factors(1000)
    for name in CONTINUOUS:
        low, high = FACTORS[name]
        values = np.array([row[name] for row in rows])
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high >= values.max() > high - 0.02 * (high - low)
    for name in CATEGORICAL:
        assert {row[name] for row in rows} == set(FACTORS[name])


def test_factors_are_independent_of_each_other():
    n = 2000
    rows = sample_factors(n)
    columns = [[FACTORS[name].index(row[name]) if name in CATEGORICAL else row[name] for row in rows] for name in FACTORS]
    correlation = np.corrcoef(columns) - np.eye(len(FACTORS))
    assert np.abs(correlation).max() < 5 / n**0.5  # five standard errors


@pytest.mark.parametrize("name", FACTORS)
def test_every_factor_changes_the_picture(name):
    values = FACTORS[name] if name in CATEGORICAL else (FACTORS[name][0], MIDDLE[name], FACTORS[name][1])
    pictures = [np.asarray(draw_dog(MIDDLE | {name: value}, 56), dtype=int) for value in values]
    for before, after in pairwise(pictures):
        seen = np.abs(before - after).max(axis=2) > 8  # of 255: a difference one can see
        assert seen.mean() > 0.005


def test_a_missing_factor_is_an_error():
    with pytest.raises(KeyError, match="tongue"):
        draw_dog({name: value for name, value in MIDDLE.items() if name != "tongue"}, 24)


def test_factors_csv_gives_back_the_factors_that_each_picture_was_drawn_with(tmp_path):
    paths = write_toy_dogs(tmp_path, 5, seed=3)
    assert set(tree(tmp_path)) == {"factors.csv"} | {f"toy_{i:05d}.png" for i in range(5)}
    read = read_factors(tmp_path)
    assert list(read.values()) == sample_factors(5, seed=3)
    for path in paths:
        with Image.open(path) as image:
            assert np.array_equal(image, draw_dog(read[path.name]))
    digest = hashlib.sha256((tmp_path / "factors.csv").read_bytes()).hexdigest()
    assert digest == "8967b75cd4a1c1ab21e1c38bdc954565f665629cfa7c0fbb754d151e30ba0169", (
        "as tree 9addd0c wrote it, so that its dogs are kept"
    )


def test_a_folder_cut_short_is_finished_without_drawing_a_dog_twice(tmp_path):
    whole = write_toy_dogs(tmp_path / "whole", 8)
    write_toy_dogs(tmp_path / "stopped", 8)
    for path in whole[3:]:
        (tmp_path / "stopped" / path.name).unlink()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "stopped").iterdir()}
    write_toy_dogs(tmp_path / "stopped", 8)
    assert tree(tmp_path / "stopped") == tree(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.parametrize("changed", [{"seed": 1}, {"n": 3}, {"n": 7}])
def test_a_folder_of_other_dogs_is_drawn_anew(tmp_path, changed):
    wanted = {"n": 5, "seed": 0} | changed
    write_toy_dogs(tmp_path / "used", 5)
    write_toy_dogs(tmp_path / "used", **wanted)
    write_toy_dogs(tmp_path / "fresh", **wanted)
    assert tree(tmp_path / "used") == tree(tmp_path / "fresh")
