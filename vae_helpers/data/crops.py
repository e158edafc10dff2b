"""Which part of a picture is used: all of it, a square from its middle, or one around what a box marks."""

import json
from pathlib import Path
from typing import Literal, get_args

Crop = Literal["none", "center", "box", "head"]
"""What is made a square of: all of a picture (squashed), its middle, the surroundings of the dog's box, or of its head's."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as fractions of the width and height of the upright picture."""
BOXES = "boxes.json"
"""Beside photos: where the dogs are, and their heads."""
BOX_OF = {"box": "dog", "head": "head"}
"""Crop -> which of an image's boxes it is made around."""


def check_crop(crop: str) -> None:
    """Raise ValueError for a word that is no crop."""
    if crop not in get_args(Crop):
        raise ValueError(f"crop={crop!r} is not one of {', '.join(get_args(Crop))}")


def square_around(width: int, height: int, box: Box | None = None, up: float = 0.0) -> tuple[int, int, int, int]:
    """The square to cut out of a picture, (left, top, right, bottom) in pixels: the largest in its middle, or one around `box`
    with a margin of a tenth of its longer side.

    up: how far the square is moved upwards, as a fraction of its side. Where it does not fit, the square is as large as the
    picture is across, and moved inside.
    """
    left, top, right, bottom = box or (0, 0, 1, 1)
    across = max((right - left) * width, (bottom - top) * height) * 1.2
    side = round(min(max(across, 8), width, height))
    x, y = ((a + b) / 2 * full - side / 2 for a, b, full in ((left, right, width), (top, bottom, height)))
    x, y = (min(max(round(at), 0), full - side) for at, full in ((x, width), (y - up * side, height)))
    return x, y, x + side, y + side


def read_boxes(path: Path) -> dict[str, dict[str, Box]]:
    """What a `boxes.json` marks: name -> "dog" or "head" -> Box. Empty when there is none.

    The file holds {name: {"dog": [left, top, right, bottom], "head": [...]}}, or {name: [...]} for dogs alone. Raises
    ValueError when it is damaged.
    """
    try:
        return check_boxes(json.loads(path.read_text(encoding="utf-8")) if path.exists() else {})
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} does not say where dogs are ({error}): mend it, or delete it") from None


def check_boxes(found: object) -> dict[str, dict[str, Box]]:
    """The boxes in what was found in a file, in one form. Raises ValueError, TypeError or AttributeError for anything else."""
    marks = {name: boxes if isinstance(boxes, dict) else {"dog": boxes} for name, boxes in found.items()}
    checked = {name: {of: tuple(map(float, box)) for of, box in boxes.items()} for name, boxes in marks.items()}
    for left, top, right, bottom in (box for boxes in checked.values() for box in boxes.values()):
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise ValueError("a box must be left, top, right, bottom in fractions of the picture")
    return checked
