import io

import imagehash
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from scipy.spatial.distance import cdist
from tiny import random_pixels

from vae_helpers.data import DogImages, Pair, draw_dog, find_duplicates, group_duplicates, sample_factors

DOGS = [draw_dog(row) for row in sample_factors(40, seed=1)]


def as_images(pictures: dict[str, Image.Image]) -> DogImages:
    small = [np.array(picture.convert("RGB").resize((56, 56), Image.Resampling.BICUBIC)) for picture in pictures.values()]
    return DogImages(torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2), list(pictures))


def plain_pictures(kind: str, n: int) -> list[Image.Image]:
    """`n` pictures with little in them, no two of which a person would take for one."""
    pictures = []
    for i in range(n):
        colour = tuple(np.array((i % 4, i // 4 % 4, i // 16)) * 60 + 20)
        picture = Image.new("RGB", (200, 200), colour if kind == "one colour" else "white")
        draw = ImageDraw.Draw(picture)
        if kind == "discs":
            draw.ellipse((50, 50, 150, 150), fill=colour)
        elif kind == "words":
            draw.text((40, 90), f"LOGO {i}", fill="black", font_size=30)
        elif kind == "small dogs":
            picture.paste(DOGS[i].resize((50, 50)), (75, 75))
        pictures.append(picture)
    return pictures


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


def test_a_film_is_refused_before_its_pairs_fill_the_memory():
    with pytest.raises(ValueError, match=r"more than 20 pairs are alike.*limit=200"):
        find_duplicates(as_images({f"{i}": dog for i, dog in enumerate(DOGS)}), limit=200, max_pairs=20)
    with pytest.raises(ValueError, match=r"more than 600 pairs"):
        find_duplicates(as_images({f"{i}": dog for i, dog in enumerate(DOGS)}), limit=200, max_pairs=600)


def test_different_pictures_are_not_duplicates():
    assert find_duplicates(as_images({f"{i}": dog for i, dog in enumerate(DOGS)})) == []


PLAIN = ("one colour", "discs", "words", "small dogs")


@pytest.mark.parametrize("kind", PLAIN)
def test_pictures_with_little_in_them_are_not_duplicates_of_one_another(kind):
    pictures = {f"{i:02d}": picture for i, picture in enumerate(plain_pictures(kind, 40))}
    assert find_duplicates(as_images(pictures)) == []


@pytest.mark.parametrize("kind", PLAIN)
def test_of_pictures_with_little_in_them_those_that_are_there_again_are_found(kind):
    pictures = {f"{i:02d}": picture for i, picture in enumerate(plain_pictures(kind, 40))}
    again = {"copy": pictures["05"], "poor": as_jpeg(pictures["17"], 20), "smaller": pictures["29"].resize((100, 100))}
    pairs = {(pair.one, pair.other): pair.exact for pair in find_duplicates(as_images(pictures | again))}
    assert pairs.keys() == {("05", "copy"), ("17", "poor"), ("29", "smaller")} and pairs["05", "copy"]


def test_of_many_copies_each_is_paired_with_the_first_and_they_are_one_group():
    pairs = find_duplicates(as_images({"a": DOGS[0], "b": DOGS[1], "c": DOGS[0], "d": DOGS[0], "e": DOGS[1].resize((70, 70))}))
    assert {(pair.one, pair.other) for pair in pairs} == {("a", "c"), ("a", "d"), ("b", "e")}
    assert group_duplicates(pairs) == [["a", "c", "d"], ["b", "e"]]


def test_groups_are_all_that_are_linked_in_any_order():
    pairs = [Pair(*ends, 3, False, False) for ends in (("d", "e"), ("a", "b"), ("c", "b"), ("f", "e"))]
    assert group_duplicates(pairs) == [["a", "b", "c"], ["d", "e", "f"]]
    assert group_duplicates([]) == []


def test_what_is_found_does_not_depend_on_the_order_of_images():
    pictures = {f"{i:02d}": dog for i, dog in enumerate(DOGS)} | {"x": DOGS[3], "y": DOGS[5].resize((60, 60))}
    turned = dict(sorted(pictures.items(), key=lambda item: item[0][::-1], reverse=True))
    for order in (pictures, turned):
        assert group_duplicates(find_duplicates(as_images(order))) == [["03", "x"], ["05", "y"]]


def test_pairs_are_those_of_a_comparison_bit_by_bit_also_of_more_images_than_are_compared_at_a_time():
    images = DogImages(random_pixels(1100, 16), [f"{i:04d}" for i in range(1100)])
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images.pixels]
    plain = np.stack([imagehash.phash(picture, 16).hash.ravel() for picture in pictures])
    mirrored = np.stack([imagehash.phash(ImageOps.mirror(picture), 16).hash.ravel() for picture in pictures])
    distances = np.rint(256 * np.minimum(cdist(plain, plain, "hamming"), cdist(plain, mirrored, "hamming")))
    for limit in (96, 97):
        expected = {(a, b): distances[a, b] for a, b in np.argwhere(np.triu(distances <= limit, 1))}
        assert len(expected) > 10
        assert {(int(pair.one), int(pair.other)): pair.distance for pair in find_duplicates(images, limit)} == expected
