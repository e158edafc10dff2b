"""Which part of a picture is used: all of it, a square from its middle, or one around the dog, or its head, marked or found.

Heads are found by a small network, trained by `recipes/head_finder.py`.
"""

import json
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..files import WEIGHTS, load_weights

Crop = Literal["none", "center", "box", "head"]
"""What is made a square of: all of a picture (squashed), its middle, the surroundings of the dog's box, or of its head's."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as fractions of the width and height of the upright picture."""
BOXES = "boxes.json"
"""Beside photos: where the dogs are, and their heads."""
BOX_OF = {"box": "dog", "head": "head"}
"""Crop -> which of an image's boxes it is made around."""
INPUT, CELLS = 112, 14
"""Pixels of the squashed picture that the finder looks at, and places in a row of the map that it answers with."""
NO_HEAD = "no dog's head is found in it"
"""Why a picture is left out of a set that is cut to heads."""
HEAD_UP = 0.05
"""How far the square around a head is moved upwards, in parts of its side: ears count, and the box ends at the brow."""


class Head(NamedTuple):
    """A head that was found. box: left, top, right, bottom as fractions of the picture; score: from 0 to 1."""

    box: Box
    score: float


class NoHead(ValueError):
    """No dog's head is found in a picture that is to be cut to one."""


class _Block(nn.Module):
    """x + two convolutions. (B, C, H, W) -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.norm1, self.conv2, self.norm2 = *_conv(channels, channels), *_conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class HeadFinder(nn.Module):
    """Pictures (B, 3, 112, 112) in [-1, 1] -> (B, 5, 14, 14): at each place whether the middle of a head lies there (a logit),
    where in it (two fractions of a place), and the logarithm of the head's width and height as fractions of the picture.
    Zhou et al. 2019, "Objects as points".
    """

    def __init__(self, widths: tuple[int, int, int] = (24, 48, 88)):
        super().__init__()
        a, b, c = widths
        self.fine = nn.Sequential(
            *_conv(3, a, stride=2), nn.ReLU(), *_conv(a, b, stride=2), nn.ReLU(), _Block(b), *_conv(b, c, stride=2), nn.ReLU()
        )  # (B, c, 14, 14)
        self.coarse = nn.Sequential(*_conv(c, c, stride=2), nn.ReLU(), _Block(c), nn.Upsample(scale_factor=2.0))
        self.out = nn.Sequential(_Block(c), nn.Conv2d(c, 5, kernel_size=1))
        with torch.no_grad():
            self.out[-1].bias.copy_(torch.tensor([-4.0, 0.0, 0.0, -1.0, -1.0]))  # heads are rare, and about a third wide

    def forward(self, x: Tensor) -> Tensor:
        x = self.fine(x)
        return self.out(x + self.coarse(x))


def _conv(c_in: int, c_out: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(c_in, c_out, kernel_size=3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(c_out)


@cache
def load_head_finder() -> HeadFinder:
    """The finder that comes with the package, in eval mode on the CPU."""
    finder = HeadFinder()
    finder.load_state_dict(load_weights(WEIGHTS / "head_finder.safetensors")[0])  # BatchNorm's counts are left out: 0
    return finder.eval().requires_grad_(False)


def find_head(image: Tensor, min_score: float = 0.5) -> Head | None:
    """The dog's head in a picture that the finder is surest of; None where it is less sure than `min_score`.

    image: uint8 (3, H, W), upright. Raises ValueError for anything else.
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        raise ValueError(f"find_head takes one picture, uint8 (3, H, W); got {image.dtype} {tuple(image.shape)}")
    down, across = (max(1, side // (4 * INPUT)) for side in image.shape[1:])  # not all pixels of a large photo are needed
    small = F.interpolate(image[None, :, ::down, ::across], size=(INPUT, INPUT), mode="bilinear", antialias=True).float()
    with torch.inference_mode():
        score, dx, dy, log_w, log_h = load_head_finder()(small / 127.5 - 1)[0].flatten(1)
    best = int(score.argmax())
    if (certain := score[best].sigmoid().item()) < min_score:
        return None
    x, y = (best % CELLS + dx[best].item()) / CELLS, (best // CELLS + dy[best].item()) / CELLS
    w, h = log_w[best].exp().item() / 2, log_h[best].exp().item() / 2
    left, top, right, bottom = (min(max(at, 0.0), 1.0) for at in (x - w, y - h, x + w, y + h))
    return Head((left, top, right, bottom), certain) if left < right and top < bottom else None


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
