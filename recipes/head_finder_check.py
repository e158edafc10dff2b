"""What the shipped head finder makes of pictures that nothing was learned from, through `find_head`, as anyone calls it."""

import sys
import time
from pathlib import Path

import numpy as np
import skimage.data
import torch
from head_finder_data import iou, is_held_out, pad_boxes, read_cats, read_marks, windows_without
from matplotlib import cbook
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images
from torch import Tensor

from vae_helpers import find_head
from vae_helpers.data import Head, draw_dog, sample_factors

SAMPLES = ["astronaut", "brick", "camera", "coffee", "coins", "grass", "gravel", "moon", "page", "retina", "rocket", "text"]
"""Pictures that scikit-image holds, which show no dog (nor a cat)."""
TOY_BACKGROUNDS, CROPS = 60, 6
"""How many toy pictures, and random crops of each sample picture, are looked at."""
LARGE = (3000, 2000)
"""Width and height of the photo that a large one is enlarged to, for the time it takes."""


def read_photo(path: Path) -> Tensor:
    """A photo at its own size, upright: uint8 (3, H, W)."""
    return to_pixels(ImageOps.exif_transpose(Image.open(path)))


def to_pixels(image: Image.Image | np.ndarray) -> Tensor:
    """uint8 (3, H, W), RGB."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def crop(image: Tensor, window: Tensor) -> Tensor:
    """The window, left, top, right, bottom in fractions, of (3, H, W)."""
    left, top, right, bottom = (round(at) for at in (window * torch.tensor(image.shape[1:]).flip(0).repeat(2)).tolist())
    return image[:, top:bottom, left:right]


def toy_backgrounds(n: int) -> list[Tensor]:
    """Toy pictures whose dog stands outside of them."""
    return [to_pixels(draw_dog(row | {"place_x": 9.0})) for row in sample_factors(n, seed=0)]


def sample_pictures() -> list[Tensor]:
    """The sample pictures of scikit-learn, scikit-image and Matplotlib that show no dog, and random crops of each."""
    images = [*load_sample_images().images, *(getattr(skimage.data, name)() for name in SAMPLES)]
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        whole = [to_pixels(image) for image in [*images, Image.open(file)]]
    windows, _ = windows_without(torch.zeros(len(whole) * CROPS, 3, 5))
    return whole + [crop(image, window) for image, window in zip(whole * CROPS, windows, strict=True)]


def timed(image: Tensor) -> tuple[Head | None, float]:
    """What is found, and the milliseconds of CPU time that it took."""
    started = time.process_time()
    head = find_head(image)
    return head, 1000 * (time.process_time() - started)


def milliseconds_of_a_large_photo(path: Path) -> float:
    """The median of 15 calls."""
    large = to_pixels(Image.open(path).resize(LARGE))
    return float(np.median([timed(large)[1] for _ in range(15)]))


def reported(images: list[Tensor]) -> np.ndarray:
    """(N,): in which of the pictures a head is reported."""
    return np.array([find_head(image) is not None for image in images])


def check(dogs: Path, limit: int) -> None:
    """Print the figures on at most `limit` pictures of a kind; exit with 1 where one is worse than is asked."""
    marks = read_marks(dogs)
    names = [name for name in marks if is_held_out(name)]
    names = names[:: max(1, len(names) // limit)][:limit]
    photos, boxes = [read_photo(dogs / name) for name in names], torch.stack([pad_boxes(marks[name]) for name in names])
    heads, milliseconds = zip(*[timed(photo) for photo in photos], strict=True)
    overlaps = torch.tensor([iou(torch.tensor(h.box), b[:, :4]).max() for h, b in zip(heads, boxes, strict=True) if h])
    windows, found = windows_without(boxes)
    parts = [crop(photo, window) for photo, window, free in zip(photos, windows, found, strict=True) if free]
    without = {
        "parts of held-out photos": reported(parts),
        "toy backgrounds": reported(toy_backgrounds(min(limit, TOY_BACKGROUNDS))),
        "sample pictures": reported(sample_pictures()[:limit]),
    }
    in_all = np.concatenate(list(without.values()))
    cats = reported([read_photo(path) for path in read_cats(dogs, 10**6)[1][:limit]])
    figures = (
        (f"reported, of {len(photos)} held-out photos with a box", len(overlaps) / len(photos), ">=", 0.85),
        ("of these, IoU of at least 0.5", (overlaps >= 0.5).float().mean().item(), ">=", 0.90),
        (f"reported, of {len(in_all)} pictures without a head", in_all.mean(), "<=", 0.05),
        *((f"  of {len(found)} {kind}", found.mean(), "", None) for kind, found in without.items()),
        (f"reported, of {len(cats)} cats", cats.mean(), "", None),
        ("milliseconds of one core a photo, median", float(np.median(milliseconds)), "<=", 15),
        ("milliseconds for {} x {} pixels".format(*LARGE), milliseconds_of_a_large_photo(dogs / names[0]), "<=", 15),
    )
    missed = []
    for name, value, sign, bar in figures:
        print(f"{name:52} {value:7.3f}", f"{sign} {bar}" if bar else "")
        if (sign == ">=" and not value >= bar) or (sign == "<=" and not value <= bar):
            missed.append(name.strip())
    if missed:
        sys.exit("missed: " + "; ".join(missed))
