"""Which breed each image shows, as far as names tell."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

LEAST_IMAGES = 3
"""Images in the smallest folder that is taken for a breed."""
_IMAGENET_ID = re.compile(r"(n\d{8})(?!\d)[-_ ]*(.*?)[-_ ]*\d*")  # an ImageNet class, its words, the number of an image
PART = re.compile(r"(train|test|val)(ing|id|idation)?", re.IGNORECASE)
"""Folders that are parts of a split."""
_NO_BREED = re.compile(rf"([\d\W_]|{PART.pattern})*", re.IGNORECASE)

_IMAGENET_DOGS = dict(
    line.split(" ", 1) for line in Path(__file__).with_name("imagenet_dogs.txt").read_text("utf-8").splitlines()
)
"""ImageNet's number of a class -> its breed: the 120 of Stanford Dogs, and the dalmatian."""


def breeds_of(names: Sequence[str]) -> list[str | None]:
    """The breed of each image: the folder that it lies in, else the ImageNet class its name begins with, else None.

    names: relative, with forward slashes. "n02113624-toy_poodle/a.jpg", "toy_poodle/a.jpg" and "n02113624_8890.jpg" are all
    "toy poodle"; an ImageNet class that is no dog stays a number. Folders count as breeds when there are at least two of
    them with LEAST_IMAGES images each; smaller ones, parts of a split (`train`) and dates (`2021-03`) never do.
    """
    folders = [PurePosixPath(name).parent.name for name in names]
    large = {folder for folder, n in Counter(folders).items() if n >= LEAST_IMAGES and not _NO_BREED.fullmatch(folder)}
    breeds = []
    for name, folder in zip(names, folders, strict=True):
        breed = folder.replace("_", " ") if folder in large and len(large) > 1 else _imagenet_breed(PurePosixPath(name).stem)
        breeds.append(_imagenet_breed(folder) or breed)
    return [breed and breed.encode(errors="replace").decode() for breed in breeds]  # a name may hold what no font can draw


def _imagenet_breed(name: str) -> str | None:
    found = _IMAGENET_ID.fullmatch(name)
    return found and (_IMAGENET_DOGS.get(found[1]) or found[2].replace("_", " ") or found[1])
