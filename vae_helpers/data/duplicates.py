"""Dogs that are there twice: the same picture, nearly the same (another size or quality, a little lighter), or mirrored.

Such a pair across train and test is a leak: a model is asked about a dog that it has learned.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
import torch
from PIL import Image
from scipy.cluster.hierarchy import DisjointSet
from torch import Tensor

from .images import DogImages

HASH_SIZE = 16
FEW_EDGES = 0.2
"""Share of pixels at an edge below which a hash says too little: of photos it is 0.5 to 1, of a logo on white 0.1."""
_AT_ONCE = 256  # images that are compared with all others


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
    differ in about half of the bits. Where one has hardly any edges (FEW_EDGES), their pixels must be nearly the same, too.
    Of many images with one hash each is paired with the first that it is like. Raises ValueError for more than `max_pairs`
    pairs.
    """
    pixels, hashes = images.pixels, _hashes(images.pixels)
    looks = _Looks(pixels)
    found = _one_hash(looks, hashes)
    alone = np.setdiff1d(np.arange(len(images)), [b for _, _, _, b in found])
    plain = hashes[alone]
    for mirrored, others in ((False, plain), (True, _hashes(pixels[i].flip(-1) for i in alone))):
        for start in range(0, len(alone), _AT_ONCE):
            end = start + _AT_ONCE
            agree = others[start:end] @ plain[:end].T  # of 1 and -1: bits that are alike, less those that differ
            b, a = np.divmod(np.flatnonzero(agree >= hashes.shape[1] - 2 * limit), agree.shape[1])
            b, a = b[a < start + b], a[a < start + b]
            bits, b = ((hashes.shape[1] - agree[b, a]) / 2).astype(int).tolist(), start + b
            alike = looks.alike(alone[a], alone[b], mirrored).tolist()
            found += [(d, mirrored, *pair) for d, same, *pair in zip(bits, alike, alone[a], alone[b], strict=True) if same]
            if len(found) > max_pairs and len({(a, b) for _, _, a, b in found}) > max_pairs:
                many = f"more than {max_pairs:,} pairs are alike: frames of a film?"
                raise ValueError(f"{many} Lower limit={limit}, or take fewer")
    closest = {(a, b): (distance, mirrored) for distance, mirrored, a, b in sorted(found, reverse=True)}
    pairs = [
        Pair(images.names[a], images.names[b], distance, bool((pixels[a] == pixels[b]).all()), mirrored)
        for (a, b), (distance, mirrored) in closest.items()
    ]
    return sorted(pairs, key=lambda pair: (pair.distance, not pair.exact, pair.one, pair.other))


def group_duplicates(pairs: Sequence[Pair]) -> list[list[str]]:
    """Names that belong together, for `split_dataset(..., groups=...)`: all that are linked by pairs, sorted."""
    linked = DisjointSet(name for pair in pairs for name in (pair.one, pair.other))
    for pair in pairs:
        linked.merge(pair.one, pair.other)
    return sorted(map(sorted, linked.subsets()))


def _hashes(pixels: Iterable[Tensor]) -> np.ndarray:
    """uint8 (3, S, S) each -> float32 (N, 256) of 1 and -1"""
    hashes = [imagehash.phash(Image.fromarray(x.permute(1, 2, 0).numpy()), HASH_SIZE).hash.ravel() for x in pixels]
    return np.stack(hashes) * np.float32(2) - 1


def _one_hash(looks: "_Looks", hashes: np.ndarray) -> list[tuple[int, bool, int, int]]:
    """(0, False, a, b) of each image b that has the hash of an earlier one, a, and is like it."""
    _, same = np.unique(np.packbits(hashes > 0, axis=1), axis=0, return_inverse=True)
    order, found = np.argsort(same.ravel(), kind="stable"), []
    for group in np.split(order, np.cumsum(np.bincount(same.ravel()))):
        while len(group) > 1:
            first, group = group[0], group[1:]
            alike = looks.alike(np.full_like(group, first), group)
            found += [(0, False, first, b) for b in group[alike]]
            group = group[~alike]
    return found


class _Looks:
    """What of images (uint8 (N, 3, S, S)) is compared beside their hashes."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels, few, mean = pixels, [], []
        for part in pixels.split(_AT_ONCE):
            grey = part.float().mean(1)
            steps = grey.diff(dim=1)[:, :, 1:].abs() + grey.diff(dim=2)[:, 1:].abs()
            few.append((steps > 3).float().mean((1, 2)) < FEW_EDGES)
            mean.append(part.float().mean((2, 3)))
        self.few, self.mean = torch.cat(few).numpy(), torch.cat(mean).numpy()

    def alike(self, a: np.ndarray, b: np.ndarray, mirrored: bool = False) -> np.ndarray:
        """Whether images whose hashes are close show one picture: a, b are indices (M,); bool (M,)."""
        alike = ~(self.few[a] | self.few[b])
        unsure = np.flatnonzero(~alike & (np.abs(self.mean[a] - self.mean[b]).max(1) < 6))
        for part in np.split(unsure, range(_AT_ONCE, len(unsure), _AT_ONCE)):
            one, other = self.pixels[a[part]].float(), self.pixels[b[part]].float()
            apart = (one - (other.flip(-1) if mirrored else other)).abs().flatten(1)
            alike[part] = ((apart.amax(1) < 56) & (apart.square().mean(1) < 36)).numpy()  # of 255: a poor JPEG changes less
        return alike
