import pytest
import torch
from tiny import random_pixels

from vae_helpers.data import CONTINUOUS, DogImages, sample_factors, write_toy_dogs
from vae_helpers.latent import attribute_directions, breed_attributes, dog_attributes, pixel_attributes, toy_attributes
from vae_helpers.models import to_float


def dogs(names: list[str], seed: int = 0) -> DogImages:
    return DogImages(random_pixels(len(names), image_size=8, seed=seed), names)


def colour(r: int, g: int, b: int) -> torch.Tensor:
    """uint8 (3, 8, 8) of one colour"""
    return torch.tensor([r, g, b], dtype=torch.uint8)[:, None, None].expand(3, 8, 8)


# ---------------------------------------------------------------- toy dogs


def test_factors_of_toy_dogs_are_their_attributes_in_words():
    factors = sample_factors(40)
    labels = toy_attributes(factors)
    assert list(labels) == [*(name.replace("_", " ") for name in CONTINUOUS), "tongue", "left patch", "right patch"]
    for name in CONTINUOUS:
        assert labels[name.replace("_", " ")].tolist() == pytest.approx([row[name] for row in factors])


def test_a_patch_counts_for_each_eye_that_it_covers():
    looks = [("none", "in"), ("left", "out"), ("right", "out"), ("both", "in")]
    factors = [sample_factors(1)[0] | {"patch": patch, "tongue": tongue} for patch, tongue in looks]
    labels = toy_attributes(factors)
    assert {name: values.tolist() for name, values in labels.items()} == {
        "tongue": [0, 1, 1, 0],
        "left patch": [0, 1, 0, 1],
        "right patch": [0, 0, 1, 1],
    }


# ---------------------------------------------------------------- breeds


def test_a_breed_is_the_folder_that_an_image_lies_in_commonest_first():
    names = ["pug/a.png", "collie/b.png", "dogs/collie/c.png", "d.png"]
    labels = {name: values.tolist() for name, values in breed_attributes(names).items()}
    assert labels == {"collie": [0, 1, 1, 0], "pug": [1, 0, 0, 0]} and list(labels) == ["collie", "pug"]


def test_only_the_commonest_breeds_are_attributes():
    names = [f"breed {b}/{i}.png" for b in range(12) for i in range(b + 1)]
    assert list(breed_attributes(names)) == [f"breed {b}" for b in range(11, 3, -1)]
    assert list(breed_attributes(names, n=2)) == ["breed 11", "breed 10"]


@pytest.mark.parametrize("names", [["a.png", "b.png"], ["pug/a.png", "pug/b.png"]], ids=["no folders", "one breed"])
def test_there_are_no_breeds_where_they_do_not_differ(names):
    assert breed_attributes(names) == {}


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize(
    ("name", "pixels", "expected"),
    [
        ("brightness", colour(255, 255, 255), 1),
        ("brightness", colour(0, 0, 0), -1),
        ("warmth", colour(255, 0, 0), 2),
        ("warmth", colour(0, 255, 255), -2),
        ("warmth", colour(80, 200, 80), 0),
        ("contrast", colour(60, 60, 60), 0),
        ("light from above", torch.cat([colour(255, 255, 255)[:, :4], colour(0, 0, 0)[:, 4:]], dim=1), 2),
        ("light from above", torch.cat([colour(0, 0, 0)[:, :4], colour(255, 255, 255)[:, 4:]], dim=1), -2),
    ],
)
def test_a_statistic_of_pixels_is_in_units_of_the_range(name, pixels, expected):
    others = random_pixels(3, image_size=8)  # so that no statistic is the same for all
    assert pixel_attributes(torch.cat([pixels[None], others]))[name][0].item() == pytest.approx(expected, abs=1e-6)


def test_contrast_is_the_standard_deviation_within_an_image():
    pixels = random_pixels(4, image_size=8)
    expected = [to_float(image).std().item() for image in pixels]
    assert pixel_attributes(pixels)["contrast"].tolist() == pytest.approx(expected)


# ---------------------------------------------------------------- which of them


def test_toy_dogs_are_known_by_their_factors(tmp_path):
    write_toy_dogs(tmp_path, 6, pixels=24)
    factors = sample_factors(6)
    labels = dog_attributes(dogs(["toy_00004.png", "toy_00001.png"]), tmp_path)
    assert labels["head tilt"].tolist() == pytest.approx([factors[4]["head_tilt"], factors[1]["head_tilt"]])


@pytest.mark.parametrize(
    ("names", "breeds"),
    [
        (["pug/1.png", "collie/2.png", "3.png"], {"pug", "collie"}),
        (["pug/1.png", "collie/2.png"], {"pug"}),  # whatever is no pug is a collie
        (["toy_00001.png", "photo.png"], set()),
        (["pug/1.png", "pug/2.png"], set()),
    ],
    ids=["two breeds and others", "two breeds", "one dog that was not drawn", "one breed"],
)
@pytest.mark.parametrize("drawn", [True, False], ids=["toy dogs drawn", "no toy dogs"])
def test_other_dogs_are_known_by_their_pixels_and_by_their_breeds_if_they_have_any(tmp_path, names, breeds, drawn):
    if drawn:
        write_toy_dogs(tmp_path, 2, pixels=24)
    assert set(dog_attributes(dogs(names), tmp_path)) == {"brightness", "warmth", "contrast", "light from above"} | breeds


def grey(n: int) -> torch.Tensor:
    return random_pixels(n, image_size=8)[:, :1].repeat(1, 3, 1, 1)


@pytest.mark.parametrize(
    ("labels", "shared"),
    [
        (
            lambda: toy_attributes([row | {"tongue": "out", "head_tilt": 3.0} for row in sample_factors(30)]),
            {"tongue", "head tilt"},
        ),
        (lambda: pixel_attributes(grey(30)), {"warmth"}),
    ],
    ids=["toy dogs", "grey photos"],
)
def test_what_all_dogs_share_is_left_out_so_that_directions_can_be_found(labels, shared):
    labels = labels()
    assert not shared & set(labels)
    latents = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    assert set(attribute_directions(latents, labels).names) == set(labels)


def test_there_is_one_number_for_each_dog(tmp_path):
    for names in (
        ["toy_00000.png", "toy_00001.png", "toy_00002.png"],
        ["a/1.png", "b/1.png", "b/2.png"],
        ["1.png", "2.png", "3.png"],
    ):
        write_toy_dogs(tmp_path, 3, pixels=24)
        for values in dog_attributes(dogs(names), tmp_path).values():
            assert values.shape == (3,) and values.dtype == torch.float32
