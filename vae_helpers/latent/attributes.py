"""What can be said about a dog in numbers: the factors of toy dogs, breeds, or what the pixels themselves show.

Each function returns labels, name -> (N,) float tensor, for `attribute_directions`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..data.breeds import breed_of
from ..data.images import DogImages
from ..data.toy_dogs import CONTINUOUS, read_factors
from ..models.inference import to_float


def dog_attributes(images: DogImages, toy_folder: str | Path) -> dict[str, Tensor]:
    """The best labels there are: known factors for toy dogs; for photos, statistics of the pixels, and breeds where names tell.

    toy_folder: where `write_toy_dogs` left `factors.csv`.
    """
    known = read_factors(toy_folder) if (Path(toy_folder) / "factors.csv").exists() else {}
    if all(name in known for name in images.names):
        return toy_attributes([known[name] for name in images.names])
    return pixel_attributes(images.pixels) | breed_attributes(images.names)


def toy_attributes(factors: list[dict[str, float | str]]) -> dict[str, Tensor]:
    """Continuous factors as they are; tongue and each eye's patch as 0 or 1. Those that all dogs share are left out."""
    labels = {name.replace("_", " "): [row[name] for row in factors] for name in CONTINUOUS}
    labels["tongue"] = [row["tongue"] == "out" for row in factors]
    for side in ("left", "right"):
        labels[f"{side} patch"] = [row["patch"] in (side, "both") for row in factors]
    return _that_differ(labels)


def breed_attributes(names: list[str], n: int = 8) -> dict[str, Tensor]:
    """0 or 1 for each of the `n` commonest breeds (`breed_of` an image's name). Empty when no name tells one.

    When these are all there are, the least common is left out: what all the others are not. With it the labels would always
    sum to one, and no step could move one and hold the rest.
    """
    breeds = [breed_of(name) for name in names]
    common = [breed for breed, _ in Counter(breeds).most_common() if breed][:n]
    if set(breeds) == set(common):
        common = common[:-1]
    return _that_differ({breed: [b == breed for b in breeds] for breed in common})


def pixel_attributes(pixels: Tensor) -> dict[str, Tensor]:
    """brightness, warmth (red minus blue), contrast, and how much lighter the top is than the bottom.

    pixels: uint8 (N, 3, S, S). In units of the range [-1, 1]. Those that all dogs share are left out.
    """
    x = to_float(pixels)
    half = x.shape[2] // 2
    labels = {
        "brightness": x.mean((1, 2, 3)),
        "warmth": (x[:, 0] - x[:, 2]).mean((1, 2)),
        "contrast": x.std((1, 2, 3)),
        "light from above": x[:, :, :half].mean((1, 2, 3)) - x[:, :, half:].mean((1, 2, 3)),
    }
    return _that_differ(labels)


def _that_differ(labels: Mapping[str, Sequence | Tensor]) -> dict[str, Tensor]:
    found = {name: torch.as_tensor(values, dtype=torch.float32) for name, values in labels.items()}
    return {name: values for name, values in found.items() if values.max() - values.min() > 1e-6}
