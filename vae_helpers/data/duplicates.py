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
from scipy.cluster.hierarchy import DisjointSet
from torch import Tensor

from .images import DogImages

HASH_SIZE = 16
BITS = HASH_SIZE**2


@dataclass(frozen=True)
class Pair:
    """Two images of one picture. distance: bits in which their perceptual hashes differ, of 256; exact: pixel for pixel the
    same; mirrored: one is the other's mirror image."""

    one: str
    other: str
    distance: int
    exact: bool
    mirrored: bool


def find_duplicates(images: DogImages, limit: int = 32, max_pairs: int = 1_000_000) -> list[Pair]:
    """Pairs of images that show one picture, closest first.

    Two are taken for one picture when their perceptual hashes (pHash, 256 bits: which low frequencies are stronger than the
    median), or that of one and of the other's mirror image, differ in at most `limit` bits. Hashes of different photos
    differ in about half of the bits. Of many images with one hash each is paired with the first alone. Raises ValueError for
    more than `max_pairs` pairs.
    """
    hashes = _hashes(images.pixels)
    _, first, same = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    found = [(0, False, int(first[k]), i) for i, k in enumerate(same.ravel()) if first[k] != i]
    alone = np.sort(first)
    for mirrored in (False, True):
        others = _hashes(images.pixels, mirrored=True) if mirrored else hashes
        close = _close_pairs(hashes[alone], others[alone], limit, max_pairs)
        found += [(distance, mirrored, int(alone[a]), int(alone[b])) for a, b, distance in close]
    closest = {(a, b): (distance, mirrored) for distance, mirrored, a, b in sorted(found, reverse=True)}
    pairs = [
        Pair(images.names[a], images.names[b], distance, torch.equal(images.pixels[a], images.pixels[b]), mirrored)
        for (a, b), (distance, mirrored) in closest.items()
    ]
    return sorted(pairs, key=lambda pair: (pair.distance, not pair.exact, pair.one, pair.other))


def group_duplicates(pairs: Sequence[Pair]) -> list[list[str]]:
    """Names that belong together, for `split_dataset(..., groups=...)`: all that are linked by pairs, sorted."""
    linked = DisjointSet(name for pair in pairs for name in (pair.one, pair.other))
    for pair in pairs:
        linked.merge(pair.one, pair.other)
    return sorted(map(sorted, linked.subsets()))


def _hashes(pixels: Tensor, mirrored: bool = False) -> np.ndarray:
    """uint8 (N, 3, S, S) -> bool (N, 256)"""

    def hash_bits(image: Tensor) -> np.ndarray:
        image = image.flip(-1) if mirrored else image
        return imagehash.phash(Image.fromarray(image.permute(1, 2, 0).numpy()), HASH_SIZE).hash.ravel()

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(hash_bits, pixels)))


def _close_pairs(hashes: np.ndarray, others: np.ndarray, limit: int, max_pairs: int) -> list[tuple[int, int, int]]:
    """(a, b, distance) of every a < b whose hashes[a] and others[b] differ in at most `limit` bits."""
    signs, other_signs = (torch.from_numpy(bits).float() * 2 - 1 for bits in (hashes, others))
    found = []
    for start in range(0, len(signs), 1024):  # not all at once, for memory
        distances = (BITS - signs[start : start + 1024] @ other_signs[start:].T) / 2
        close = (distances <= limit).triu(1).nonzero()
        if len(found) + len(close) > max_pairs:
            raise ValueError(f"more than {max_pairs:,} pairs are alike: frames of a film? Lower limit={limit}, or take fewer")
        found += [(start + a, start + b, round(distances[a, b].item())) for a, b in close.tolist()]
    return found
