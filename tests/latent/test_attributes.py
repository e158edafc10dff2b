import pytest
import torch
from tiny import random_pixels

from vae_helpers.data import CONTINUOUS, DogImages, sample_factors, write_toy_dogs
from vae_helpers.latent import attribute_directions, dog_attributes
from vae_helpers.models import to_float

STATISTICS = ["brightness", "warmth", "contrast", "light from above"]


def attributes(tmp_path, names: list[str], pixels: torch.Tensor | None = None) -> dict[str, list[float]]:
    """What `dog_attributes` tells of images with these names, where 40 toy dogs were drawn."""
    if not (tmp_path / "factors.csv").exists():
        write_toy_dogs(tmp_path, 40)
    images = DogImages(random_pixels(len(names), image_size=8) if pixels is None else pixels, names)
    labels = dog_attributes(images, tmp_path)
    assert all(values.shape == (len(names),) and values.dtype == torch.float32 for values in labels.values())
    return {name: values.tolist() for name, values in labels.items()}


def colour(r: int, g: int, b: int) -> torch.Tensor:
    """uint8 (3, 8, 8) of one colour"""
    return torch.tensor([r, g, b], dtype=torch.uint8)[:, None, None].expand(3, 8, 8)


WHITE, BLACK = colour(255, 255, 255), colour(0, 0, 0)


def breeds(labels: dict) -> dict:
    return {name: values for name, values in labels.items() if name not in STATISTICS}


def test_factors_of_toy_dogs_are_their_attributes_in_words(tmp_path):
    factors, order = sample_factors(40), list(range(39, -1, -1))
    labels = attributes(tmp_path, [f"toy_{i:05d}.png" for i in order])
    assert list(labels) == [*(name.replace("_", " ") for name in CONTINUOUS), "tongue", "left patch", "right patch"]
    for name in CONTINUOUS:
        assert labels[name.replace("_", " ")] == pytest.approx([factors[i][name] for i in order])
    assert labels["tongue"] == [factors[i]["tongue"] == "out" for i in order]
    for side in ("left", "right"):
        assert labels[f"{side} patch"] == [factors[i]["patch"] in (side, "both") for i in order]


def test_what_all_dogs_share_is_left_out_so_that_directions_can_be_found(tmp_path):
    out = [i for i, row in enumerate(sample_factors(40)) if row["tongue"] == "out"]
    grey = random_pixels(30, image_size=8)[:, :1].repeat(1, 3, 1, 1)
    for names, pixels, shared in (
        ([f"toy_{i:05d}.png" for i in out], None, "tongue"),
        ([f"{i}.png" for i in range(30)], grey, "warmth"),
    ):
        labels = attributes(tmp_path, names, pixels)
        assert shared not in labels
        latents = torch.randn(len(names), 4, generator=torch.Generator().manual_seed(0))
        assert set(attribute_directions(latents, {k: torch.tensor(v) for k, v in labels.items()}).names) == set(labels)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([f"{breed}/{i}.png" for breed in ("pug", "collie") for i in range(4)] + ["x.png"], {"pug", "collie"}),
        ([f"{breed}/{i}.png" for breed in ("pug", "collie") for i in range(4)], {"pug"}),  # whatever is no pug is a collie
        ([f"pug/{i}.png" for i in range(4)], set()),
        (["toy_00001.png", "photo.png"], set()),
    ],
    ids=["two breeds and others", "two breeds", "one breed", "one dog that was not drawn"],
)
def test_other_dogs_are_known_by_their_pixels_and_by_their_breeds_if_they_have_any(tmp_path, names, found):
    assert set(attributes(tmp_path, names)) == {*STATISTICS} | found


def test_only_the_commonest_breeds_are_attributes_commonest_first(tmp_path):
    names = [f"breed {b}/{i}.png" for b in range(12) for i in range(b + 3)]
    labels = breeds(attributes(tmp_path, names))
    assert list(labels) == [f"breed {b}" for b in range(11, 3, -1)]
    assert labels["breed 5"] == [name.startswith("breed 5/") for name in names]


@pytest.mark.parametrize(
    ("name", "pixels", "expected"),
    [
        ("brightness", WHITE, 1),
        ("brightness", BLACK, -1),
        ("warmth", colour(255, 0, 0), 2),
        ("warmth", colour(0, 255, 255), -2),
        ("contrast", colour(60, 60, 60), 0),
        ("light from above", torch.cat([WHITE[:, :4], BLACK[:, 4:]], dim=1), 2),
        ("light from above", torch.cat([BLACK[:, :4], WHITE[:, 4:]], dim=1), -2),
    ],
)
def test_a_statistic_of_pixels_is_in_units_of_the_range(tmp_path, name, pixels, expected):
    others = random_pixels(3, image_size=8)  # so that no statistic is the same for all
    labels = attributes(tmp_path, ["1.png", "2.png", "3.png", "4.png"], torch.cat([pixels[None], others]))
    assert labels[name][0] == pytest.approx(expected, abs=1e-6)
    assert labels["contrast"][1:] == pytest.approx([to_float(image).std().item() for image in others])
