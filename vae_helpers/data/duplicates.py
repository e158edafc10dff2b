"""Dogs that are there twice: the same picture, nearly the same (another size or quality, a little lighter), or mirrored.

Such a pair across train and test is a leak: a model is asked about a dog that it has learned.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import imagehash
import numpy as np
import torch
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from .images import DogImages

HASH_SIZE = 16
BITS = HASH_SIZE**2
MOST_PAIRS = 1_000_000
_ROWS = 1024  # compared at a time with all others


@dataclass(frozen=True)
class Pair:
    """Two images of one picture. distance: bits in which their perceptual hashes differ, of 256; exact: pixel for pixel the
    same; mirrored: one is the other's mirror image."""

    one: str
    other: str
    distance: int
    exact: bool
    mirrored: bool


def find_duplicates(images: DogImages, limit: int = 32) -> list[Pair]:
    """Pairs of images that show one picture, closest first.

    Two are taken for one picture when their perceptual hashes (pHash, 256 bits: which low frequencies are stronger than the
    median), or that of one and of the other's mirror image, differ in at most `limit` bits. Hashes of different photos
    differ in about half of the bits. Of many images with one hash each is paired with the first alone. Raises ValueError for
    more than MOST_PAIRS pairs.
    """
    hashes, mirrored = _hashes(images.pixels), _hashes(images.pixels, mirrored=True)
    first: dict[bytes, int] = {}
    twins = [(first.setdefault(row.tobytes(), i), i) for i, row in enumerate(hashes)]
    found = {(a, b): (0, False) for a, b in twins if a != b}
    alone = np.array(sorted(first.values()), dtype=int)
    for others, is_mirror in ((hashes, False), (mirrored, True)):
        for a, b, distance in _close(hashes[alone], others[alone], limit):
            pair = (int(alone[a]), int(alone[b]))
            if distance < found.get(pair, (BITS, False))[0]:
                found[pair] = (distance, is_mirror)
    pairs = []
    for (a, b), (distance, is_mirror) in found.items():
        exact = not is_mirror and torch.equal(images.pixels[a], images.pixels[b])
        pairs.append(Pair(images.names[a], images.names[b], distance, exact, is_mirror))
    return sorted(pairs, key=lambda pair: (pair.distance, not pair.exact, pair.one, pair.other))


def group_duplicates(pairs: Sequence[Pair]) -> list[list[str]]:
    """Names that belong together, for `split_dataset(..., together=...)`: all that are linked by pairs, sorted."""
    names = sorted({name for pair in pairs for name in (pair.one, pair.other)})
    number = {name: i for i, name in enumerate(names)}
    ends = [[number[pair.one] for pair in pairs], [number[pair.other] for pair in pairs]]
    links = coo_array((np.ones(len(pairs)), ends), shape=(len(names), len(names)))
    groups: dict[int, list[str]] = {}
    for name, group in zip(names, connected_components(links, directed=False)[1] if pairs else (), strict=True):
        groups.setdefault(group, []).append(name)
    return list(groups.values())


def _hashes(pixels: Tensor, mirrored: bool = False) -> np.ndarray:
    """uint8 (N, 3, S, S) -> bool (N, 256)"""

    def of_one(image: Tensor) -> np.ndarray:
        image = image.flip(-1) if mirrored else image
        return imagehash.phash(Image.fromarray(image.permute(1, 2, 0).numpy()), HASH_SIZE).hash.ravel()

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(of_one, pixels)))


def _close(hashes: np.ndarray, others: np.ndarray, limit: int) -> list[tuple[int, int, int]]:
    """(a, b, distance) of every a < b whose hashes[a] and others[b] differ in at most `limit` bits."""
    one, other = (torch.from_numpy(bits).float().mul(2).sub(1) for bits in (hashes, others))
    found = []
    for start in range(0, len(one), _ROWS):
        agreement = one[start : start + _ROWS] @ other[start:].T  # bits that agree minus bits that do not
        close = (agreement >= BITS - 2 * limit).nonzero()
        close = close[close[:, 0] < close[:, 1]]
        if len(found) + len(close) > MOST_PAIRS:
            raise ValueError(
                f"more than {MOST_PAIRS:,} pairs are alike: frames of a film? Lower limit={limit}, or take fewer of them"
            )
        for a, b in close.tolist():
            found.append((start + a, start + b, round((BITS - agreement[a, b].item()) / 2)))
    return found
