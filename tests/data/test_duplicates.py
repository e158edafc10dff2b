import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from tiny import random_pixels

from vae_helpers.data import DogImages, Pair, draw_dog, duplicates, find_duplicates, group_duplicates, sample_factors

DOGS = [draw_dog(row) for row in sample_factors(40, seed=1)]


def as_images(pictures: dict[str, Image.Image]) -> DogImages:
    small = [np.array(picture.convert("RGB").resize((56, 56), Image.Resampling.BICUBIC)) for picture in pictures.values()]
    return DogImages(torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2), list(pictures))


def as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file)


@pytest.mark.parametrize(
    ("again", "exact", "mirrored"),
    [
        (lambda dog: dog, True, False),
        (lambda dog: as_jpeg(dog, 20), False, False),
        (lambda dog: dog.resize((60, 60)), False, False),
        (lambda dog: ImageEnhance.Brightness(dog).enhance(1.2), False, False),
        (lambda dog: dog.convert("L"), False, False),
        (lambda dog: dog.transpose(Image.Transpose.FLIP_LEFT_RIGHT), False, True),
    ],
    ids=["copy", "poor JPEG", "smaller", "lighter", "grey", "mirrored"],
)
def test_a_picture_that_is_there_again_is_found_and_no_other(again, exact, mirrored):
    pictures = {f"{i:02d}": dog for i, dog in enumerate(DOGS)} | {"again": again(DOGS[7])}
    (pair,) = find_duplicates(as_images(pictures))
    assert (pair.one, pair.other, pair.exact, pair.mirrored) == ("07", "again", exact, mirrored)
    assert (pair.distance == 0) >= exact


def test_a_film_is_refused_before_its_pairs_fill_the_memory(monkeypatch):
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 20)
    with pytest.raises(ValueError, match="more than 20 pairs"):
        find_duplicates(as_images({f"{i}": dog for i, dog in enumerate(DOGS)}), limit=200)


def test_different_pictures_are_not_duplicates():
    assert find_duplicates(as_images({f"{i}": dog for i, dog in enumerate(DOGS)})) == []


def test_of_many_copies_each_is_paired_with_the_first_and_they_are_one_group():
    pairs = find_duplicates(as_images({"a": DOGS[0], "b": DOGS[1], "c": DOGS[0], "d": DOGS[0], "e": DOGS[1].resize((70, 70))}))
    assert {(pair.one, pair.other) for pair in pairs} == {("a", "c"), ("a", "d"), ("b", "e")}
    assert group_duplicates(pairs) == [["a", "c", "d"], ["b", "e"]]


def test_groups_are_all_that_are_linked_in_any_order():
    pairs = [Pair(*ends, 3, False, False) for ends in (("d", "e"), ("a", "b"), ("c", "b"), ("f", "e"))]
    assert group_duplicates(pairs) == [["a", "b", "c"], ["d", "e", "f"]]
    assert group_duplicates([]) == []


def test_what_is_found_depends_neither_on_the_order_of_images_nor_on_how_many_are_compared_at_a_time(monkeypatch):
    pictures = {f"{i:02d}": dog for i, dog in enumerate(DOGS)} | {"x": DOGS[3], "y": DOGS[5].resize((60, 60))}
    expected = group_duplicates(find_duplicates(as_images(pictures)))
    monkeypatch.setattr(duplicates, "_ROWS", 7)
    turned = dict(sorted(pictures.items(), key=lambda item: item[0][::-1], reverse=True))
    assert group_duplicates(find_duplicates(as_images(turned))) == expected == [["03", "x"], ["05", "y"]]


def test_close_pairs_are_those_of_a_comparison_bit_by_bit():
    bits = (random_pixels(30, 16)[:, 0] > 127).flatten(1).numpy()
    bits[4] = bits[20] ^ (np.arange(256) < 9)
    every = {(a, b): int((bits[a] != bits[b]).sum()) for a in range(30) for b in range(a + 1, 30)}
    for limit in (8, 9, 120):
        assert {(a, b): d for a, b, d in duplicates._close(bits, bits, limit)} == {k: d for k, d in every.items() if d <= limit}
