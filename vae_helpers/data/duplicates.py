"""Dogs that are there twice: the same picture, nearly the same (another size or quality, a little lighter), or mirrored.

Such a pair across train and test is a leak: a model is asked about a dog that it has learned.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import Image
from scipy.cluster.hierarchy import DisjointSet
from sklearn.neighbors import NearestNeighbors

from .images import DogImages

HASH_SIZE = 16


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
    pictures = images.pixels.permute(0, 2, 3, 1).numpy()
    hashes = _hashes(pictures)
    _, first, same = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    found = [(0, False, first[k], i) for i, k in enumerate(same.ravel()) if first[k] != i]
    alone = np.sort(first)
    search = NearestNeighbors(radius=math.sqrt(limit + 0.5), algorithm="brute").fit(hashes[alone])  # distance**2 counts bits
    for mirrored, others in ((False, hashes[alone]), (True, _hashes(pictures[alone, :, ::-1]))):
        distances, close = search.radius_neighbors(others)
        if sum(map(len, close)) > 2 * max_pairs:
            raise ValueError(f"more than {max_pairs:,} pairs are alike: frames of a film? Lower limit={limit}, or take fewer")
        for b, near in enumerate(close):
            found += [(round(d**2), mirrored, alone[a], alone[b]) for a, d in zip(near, distances[b], strict=True) if a < b]
    closest = {(a, b): (distance, mirrored) for distance, mirrored, a, b in sorted(found, reverse=True)}
    pairs = [
        Pair(images.names[a], images.names[b], distance, np.array_equal(pictures[a], pictures[b]), mirrored)
        for (a, b), (distance, mirrored) in closest.items()
    ]
    return sorted(pairs, key=lambda pair: (pair.distance, not pair.exact, pair.one, pair.other))


def group_duplicates(pairs: Sequence[Pair]) -> list[list[str]]:
    """Names that belong together, for `split_dataset(..., groups=...)`: all that are linked by pairs, sorted."""
    linked = DisjointSet(name for pair in pairs for name in (pair.one, pair.other))
    for pair in pairs:
        linked.merge(pair.one, pair.other)
    return sorted(map(sorted, linked.subsets()))


def _hashes(pictures: np.ndarray) -> np.ndarray:
    """uint8 (N, S, S, 3) -> float32 (N, 256) of zeros and ones"""
    hashes = [imagehash.phash(Image.fromarray(picture), HASH_SIZE).hash.ravel() for picture in pictures]
    return np.stack(hashes).astype(np.float32)
