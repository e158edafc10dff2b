"""What can be said about a dog in numbers: the factors of toy dogs, breeds, or what the pixels themselves show."""

from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
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
        rows = [known[name] for name in images.names]
        labels = {name.replace("_", " "): [row[name] for row in rows] for name in CONTINUOUS}
        labels["tongue"] = [row["tongue"] == "out" for row in rows]
        labels |= {f"{side} patch": [row["patch"] in (side, "both") for row in rows] for side in ("left", "right")}
    else:
        parts = [pixel_statistics(to_float(part)) for part in images.pixels.split(1024)]  # as floats, many fill the memory
        labels = {name: torch.cat([part[name] for part in parts]) for name in parts[0]} | _breeds(images.names)
    found = {name: torch.as_tensor(values, dtype=torch.float32) for name, values in labels.items()}
    return {name: values for name, values in found.items() if values.max() - values.min() > 1e-6}


def pixel_statistics(x: Tensor) -> dict[str, Tensor]:
    """Four measures of any pictures, name -> (N,). x: (N, 3, S, S) in [-1, 1].

    Warmth is red minus blue; light from above, how much lighter the top half is than the bottom half.
    """
    top, bottom = x.tensor_split(2, dim=2)
    return {
        "brightness": x.mean((1, 2, 3)),
        "warmth": (x[:, 0] - x[:, 2]).mean((1, 2)),
        "contrast": x.std((1, 2, 3)),
        "light from above": top.mean((1, 2, 3)) - bottom.mean((1, 2, 3)),
    }


def head_measures(x: Tensor) -> dict[str, Tensor]:
    """Eight measures of pictures that are cut to a dog's head, where each part of it has its place. x: (N, 3, S, S).

    Name -> (N,), in the range of pixels, [-1, 1]. Chapter 05 builds them, and shows why the last two give no direction.
    """

    def part(top: int, bottom: int, left: int, right: int) -> Tensor:  # in hundredths: (N, 3), its mean colour
        return small[:, :, top:bottom, left:right].mean((2, 3))

    small = F.interpolate(x, (100, 100))
    face, mouth = part(30, 70, 30, 70), part(68, 95, 32, 68)
    ears = (part(10, 45, 5, 25) + part(10, 45, 75, 95)) / 2
    cheeks = (part(20, 55, 25, 38) + part(20, 55, 62, 75)) / 2
    corners = part(2, 20, 10, 28), part(2, 20, 72, 90)
    left, right = ((1 - part(50, 80, at, at + 25)).mean(1) for at in (25, 50))  # how dark
    pink = mouth - face
    return {
        "fur: dark to light": face.mean(1),
        "fur: cold to warm": face[:, 0] - face[:, 2],
        "background: dark to light": part(0, 12, 0, 100).mean(1),
        "ears: darker to lighter": ears.mean(1) - face.mean(1),
        "blaze: none to white": part(20, 55, 44, 56).mean(1) - cheeks.mean(1),
        "tongue: in to out": (pink[:, 0] + pink[:, 2]) / 2 - pink[:, 1],
        "nose: left to right": right - left,
        "ears: hanging to standing": -sum((corner - face).abs().mean(1) for corner in corners),
    }


def _breeds(names: list[str], n: int = 8) -> dict[str, list[bool]]:
    breeds = breeds_of(names)
    common = [breed for breed, _ in Counter(breeds).most_common() if breed][:n]
    if set(breeds) == set(common):  # labels that always sum to one: no step could move one of them and hold the others
        common = common[:-1]
    return {breed: [b == breed for b in breeds] for breed in common}
