"""What `head_finder.py` learns from and is measured on: photos with boxes of heads, and parts of them with and without a head.

Boxes and windows are left, top, right, bottom, as fractions of the photo's width and height; a box has a confidence too.
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vae_helpers.data import CELLS, INPUT

SIDE, MAX_HEADS = 144, 3
"""Pixels across a photo in memory, and how many boxes of a photo are kept."""
LEAST = 0.2
"""Confidence of a box that is believed; where one is less sure, nothing is learned about heads."""
BATCH, CATS, TEXTURES, WITHOUT_HEAD = 32, 3, 1, 10
"""Pictures in a batch, and how many of them are cats, made-up textures, and parts of photos that touch no box."""
WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The window that is the whole photo."""


def read_marks(dogs: Path) -> dict[str, list[list[float]]]:
    """The boxes in `heads.json`: name of a photo -> its boxes. Photos without one are left out: they may hold a head too."""
    marks = json.loads((dogs / "heads.json").read_text())
    return {name: boxes for name, boxes in sorted(marks.items()) if boxes}


def is_held_out(name: str) -> bool:
    """Whether a photo is among the eighth that nothing is learned from."""
    return zlib.crc32(name.encode()) % 8 == 0


def read_square(path: Path) -> Tensor:
    """A photo squashed to a square: uint8 (3, S, S)."""
    image = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image).transpose(2, 0, 1))


def read_cats(dogs: Path, limit: int) -> tuple[list[Path], list[Path]]:
    """The files of cats: those that are learned from, every other one, and those that are not."""
    paths = sorted((dogs / "cats").iterdir())[:limit]
    return paths[::2], paths[1::2]


@dataclass(frozen=True)
class Photos:
    """Photos with boxes. pixels: uint8 (N, 3, S, S); boxes: (N, 3, 5), the surest first, zeros where there is none."""

    pixels: Tensor
    boxes: Tensor


def read_photos(dogs: Path, names: list[str], marks: dict[str, list[list[float]]]) -> Photos:
    """The named photos and their boxes."""
    boxes = torch.stack([pad_boxes(marks[name]) for name in names])
    return Photos(torch.stack([read_square(dogs / name) for name in names]), boxes)


def pad_boxes(boxes: list[list[float]]) -> Tensor:
    """The surest three boxes of a photo, with zeros where there are fewer: (3, 5)."""
    padded = torch.zeros(MAX_HEADS, 5)
    surest = torch.tensor(sorted(boxes, key=lambda box: -box[4])[:MAX_HEADS])
    padded[: len(surest)] = surest
    return padded


def windows_with(boxes: Tensor) -> Tensor:
    """For each of (B, 5) boxes a window (B, 4) that holds it: the whole photo, nearly, or a part of it with the box inside."""
    n, whole = len(boxes), (torch.rand(len(boxes)) < 0.4)[:, None]
    box_size = boxes[:, 2:4] - boxes[:, :2]
    least = (box_size.amax(1, keepdim=True) * 1.15).clamp(max=1)
    side = (least + (1 - least) * torch.rand(n, 1)) * (1 + 0.15 * (2 * torch.rand(n, 2) - 1))
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2
    room = (side - box_size).clamp(min=0)
    start = middle - side / 2 + room * (torch.rand(n, 2) - 0.5)
    start = torch.where(side < 1, start.clamp(min=0).minimum((1 - side).clamp(min=0)), (1 - side) * torch.rand(n, 2))
    part = torch.cat([start, start + side], 1)
    grown = 1 + 0.2 * torch.rand(n, 2) - 0.08
    shift = (1 - grown) * torch.rand(n, 2)
    return torch.where(whole, torch.cat([shift, shift + grown], 1), part)


def windows_without(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """For each of (B, 3, 5) boxes of a photo a window (B, 4) that touches none of them, and whether one was found (B,)."""
    n, tries = len(boxes), 60
    side = 0.2 + 0.5 * torch.rand(n, tries, 1) * torch.ones(2)
    start = torch.rand(n, tries, 2) * (1 - side)
    window = torch.cat([start, start + side], 2)
    b = boxes[:, None, :, :4]
    apart = (b[..., 2] <= window[..., None, 0]) | (b[..., 0] >= window[..., None, 2])
    apart |= (b[..., 3] <= window[..., None, 1]) | (b[..., 1] >= window[..., None, 3]) | (boxes[:, None, :, 4] == 0)
    free = apart.all(2)
    return window[torch.arange(n), free.float().argmax(1)], free.any(1)


def cut(pixels: Tensor, windows: Tensor, flip: Tensor) -> Tensor:
    """Windows (B, 4) of uint8 (B, 3, S, S) -> float (B, 3, 112, 112) in [-1, 1]; flip: (B,), which are mirrored."""
    at = (torch.arange(INPUT) + 0.5) / INPUT
    x = windows[:, None, 0] + (windows[:, 2] - windows[:, 0])[:, None] * at
    x = torch.where(flip[:, None], x.flip(1), x)
    y = windows[:, None, 1] + (windows[:, 3] - windows[:, 1])[:, None] * at
    grid = torch.stack([x[:, None, :].expand(-1, INPUT, -1), y[:, :, None].expand(-1, -1, INPUT)], 3) * 2 - 1
    return F.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False) / 127.5 - 1


class Targets(NamedTuple):
    """What the finder should answer: how near each place is to the middle of a head, and for each of 3 heads its place, where
    the middle lies in it, and its size. `learn`: at which places the heat map is learned; `there`: which heads are seen."""

    heat: Tensor  # (B, 14, 14)
    learn: Tensor  # (B, 14, 14)
    place: Tensor  # (B, 3)
    offset: Tensor  # (B, 3, 2), fractions of a place
    log_size: Tensor  # (B, 3, 2)
    there: Tensor  # (B, 3)


def seen_in(windows: Tensor, boxes: Tensor, flip: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (B, 3, 5) as fractions of their windows: left and top, right and bottom, (B, 3, 2) each; outside of [0, 1] too."""
    start, side = windows[:, None, :2], windows[:, None, 2:] - windows[:, None, :2]
    low, high = (boxes[..., :2] - start) / side, (boxes[..., 2:4] - start) / side
    mirrored = flip[:, None, None] & torch.tensor([True, False])
    return torch.where(mirrored, 1 - high, low), torch.where(mirrored, 1 - low, high)


def targets(boxes: Tensor, windows: Tensor, flip: Tensor) -> Targets:
    """What the finder should answer about windows (B, 4) of photos with boxes (B, 3, 5). Law & Deng 2018 for the heat map."""
    low, high = seen_in(windows, boxes, flip)
    seen_low, seen_high = low.clamp(0, 1), high.clamp(0, 1)
    visible = (seen_high - seen_low).prod(-1) / (high - low).prod(-1).clamp(min=1e-6)
    there, touched = (visible > 0.6) & (boxes[..., 4] >= LEAST), (visible > 0.1) & (boxes[..., 4] > 0)
    middle, size = (seen_low + seen_high) / 2, (seen_high - seen_low).clamp(min=0.02)
    cell = (middle * CELLS).floor().clamp(0, CELLS - 1)
    at = torch.arange(CELLS)
    sigma = (size.mean(-1) * CELLS / 8).clamp(min=0.6)[..., None, None]
    x, y = (at - cell[..., None]).square().unbind(2)
    bump = torch.exp(-(y[..., None] + x[..., None, :]) / (2 * sigma**2))
    heat = (bump * there[..., None, None]).amax(1)
    centres = (at + 0.5) / CELLS
    x, y = ((centres > low[..., None]) & (centres < high[..., None])).unbind(2)
    unsure = (y[..., None] & x[..., None, :] & (touched & ~there)[..., None, None]).any(1)
    return Targets(heat, ~unsure, (cell[..., 1] * CELLS + cell[..., 0]).long(), middle * CELLS - cell, size.log(), there)


def random_colours(x: Tensor) -> Tensor:
    """Pictures (B, 3, S, S) with other contrast, light and tint, some of them grey, and a little noise."""
    n = len(x)
    mean = x.mean((2, 3), keepdim=True)
    contrast = 0.6 + 0.8 * torch.rand(n, 1, 1, 1)
    x = (x - mean) * contrast + mean + 0.4 * (torch.rand(n, 3, 1, 1) * 0.4 + torch.rand(n, 1, 1, 1) - 0.7)
    grey = (torch.rand(n, 1, 1, 1) < 0.1).float()
    x = grey * x.mean(1, keepdim=True) + (1 - grey) * x
    return (x + 0.03 * torch.randn_like(x) * torch.rand(n, 1, 1, 1)).clamp(-1, 1)


def textures(n: int) -> Tensor:
    """Pictures of nothing (n, 3, 112, 112): noise at some scale over a flat colour."""
    sizes = [2 ** int(k) for k in torch.randint(1, 7, (n,))]
    noise = [F.interpolate(torch.randn(1, 3, s, s), size=(INPUT, INPUT), mode="bilinear") for s in sizes]
    return (torch.cat(noise) * torch.rand(n, 1, 1, 1) + 2 * torch.rand(n, 3, 1, 1) - 1).clamp(-1, 1)


def make_batch(photos: Photos, cats: Tensor) -> tuple[Tensor, Targets]:
    """Pictures (32, 3, 112, 112) in [-1, 1], and what the finder should answer about them."""
    n = BATCH - CATS - TEXTURES
    index = torch.randint(len(photos.pixels), (n,))
    boxes = photos.boxes[index]
    windows = windows_with(boxes[:, 0])
    without, found = windows_without(boxes[:WITHOUT_HEAD])
    windows[:WITHOUT_HEAD] = torch.where(found[:, None], without, torch.tensor(WHOLE))
    flip = torch.rand(n) < 0.5
    cats = cats[torch.randint(len(cats), (CATS,))]
    side, place = 0.5 + 0.5 * torch.rand(CATS, 1), torch.rand(CATS, 2)
    corner = place * (1 - side)
    parts = [cut(photos.pixels[index], windows, flip), cut(cats, torch.cat([corner, corner + side], 1), flip[:CATS])]
    none = BATCH - n
    boxes = torch.cat([boxes, torch.zeros(none, MAX_HEADS, 5)])
    windows, flip = torch.cat([windows, torch.tensor(WHOLE).expand(none, 4)]), torch.cat([flip, flip[:none]])
    return random_colours(torch.cat([*parts, textures(TEXTURES)])), targets(boxes, windows, flip)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4): 0 where they are apart, 1 where they are the same."""
    both = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    return both / ((a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - both).clamp(min=1e-9)
