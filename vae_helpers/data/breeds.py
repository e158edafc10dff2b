"""Which breed an image shows, as far as its name tells."""

import re
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath

_ID = re.compile(r"(n\d{8})(?!\d)[-_ ]*(.*)")  # of an ImageNet class, and what follows it


def breed_of(name: str) -> str | None:
    """The breed in an image's name: the folder that it lies in, else the ImageNet class its name begins with, else None.

    name: relative, with forward slashes. "n02113624-toy_poodle/a.jpg", "toy_poodle/a.jpg" and "n02113624_8890.jpg" are all
    "toy poodle". An ImageNet class that is no dog in Stanford's or ImageNet's list stays a number.
    """
    path = PurePosixPath(name)
    if path.parent.name:
        found = _ID.fullmatch(path.parent.name)
        words = (found[2] or _imagenet_dogs().get(found[1], found[1])) if found else path.parent.name
        return words.replace("_", " ").encode(errors="replace").decode()  # a name may hold what no font can draw
    found = _ID.fullmatch(path.stem)
    return _imagenet_dogs().get(found[1], found[1]) if found else None


@cache
def _imagenet_dogs() -> dict[str, str]:
    """ImageNet's number of a class -> its breed: the 120 of Stanford Dogs, and the dalmatian."""
    text = (files("vae_helpers.data") / "imagenet_dogs.txt").read_text(encoding="utf-8")
    return dict(line.split(" ", 1) for line in text.splitlines())
