"""What can be said about a dog in numbers: the factors of toy dogs, breeds, or what the pixels themselves show."""

from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from ..data.breeds import breeds_of
from ..data.images import DogImages
from ..data.toy_dogs import CONTINUOUS, read_factors
from ..models.inference import to_float


def dog_attributes(images: DogImages, toy_folder: str | Path) -> dict[str, Tensor]:
    """Labels for `attribute_directions`: name -> (N,) float32, one number for each image. Those that all share are left out.

    For toy dogs, the factors that `write_toy_dogs` left in `toy_folder`/factors.csv: continuous ones as they are, tongue and
    the patch on each eye as 0 or 1. For photos, four statistics of the pixels, in units of the range [-1, 1], and 0 or 1
    for each of the eight commonest breeds, where names tell breeds.
    """
    known = read_factors(toy_folder) if (Path(toy_folder) / "factors.csv").exists() else {}
    if all(name in known for name in images.names):
        labels = _toy_factors([known[name] for name in images.names])
    else:
        parts = [_pixel_statistics(to_float(part)) for part in images.pixels.split(1024)]  # as floats, many fill the memory
        labels = {name: torch.cat([part[name] for part in parts]) for name in parts[0]} | _breeds(images.names)
    found = {name: torch.as_tensor(values, dtype=torch.float32) for name, values in labels.items()}
    return {name: values for name, values in found.items() if values.max() - values.min() > 1e-6}


def _toy_factors(rows: list[dict[str, float | str]]) -> dict[str, list]:
    labels = {name.replace("_", " "): [row[name] for row in rows] for name in CONTINUOUS}
    labels["tongue"] = [row["tongue"] == "out" for row in rows]
    return labels | {f"{side} patch": [row["patch"] in (side, "both") for row in rows] for side in ("left", "right")}


def _pixel_statistics(x: Tensor) -> dict[str, Tensor]:
    """x: (N, 3, S, S). Warmth is red minus blue; light from above, how much lighter the top half is than the bottom half."""
    top, bottom = x.tensor_split(2, dim=2)
    return {
        "brightness": x.mean((1, 2, 3)),
        "warmth": (x[:, 0] - x[:, 2]).mean((1, 2)),
        "contrast": x.std((1, 2, 3)),
        "light from above": top.mean((1, 2, 3)) - bottom.mean((1, 2, 3)),
    }


def _breeds(names: list[str], n: int = 8) -> dict[str, list[bool]]:
    breeds = breeds_of(names)
    common = [breed for breed, _ in Counter(breeds).most_common() if breed][:n]
    if set(breeds) == set(common):  # labels that always sum to one: no step could move one of them and hold the others
        common = common[:-1]
    return {breed: [b == breed for b in breeds] for breed in common}
