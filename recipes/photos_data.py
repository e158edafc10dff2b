"""Photos for the recipe: read from a tar or a folder, divided, and cut into batches where the network is."""

import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from vae_helpers.data import decode_image, find_images
from vae_helpers.models import to_float

SIZES = (56, 60, 64)  # a photo at 56 pixels is what counts; from the larger ones, 56 x 56 are cut out at random places


def read_photos(source: Path, limit: int | None) -> tuple[list[str], dict[int, Tensor]]:
    """Names, sorted, and uint8 pixels (N, 3, S, S) for each of SIZES, from a tar of images or a folder."""
    if source.is_dir():
        files = {name: source / name for name in find_images(source)}
    else:
        with tarfile.open(source) as archive:
            members = [member for member in archive if member.isfile()]
            files = {Path(member.name).name: archive.extractfile(member).read() for member in members}
    names = sorted(files)[:limit]

    def decode(name: str) -> list[np.ndarray]:
        file = files[name]
        return [decode_image(file, size) for size in SIZES]

    with ThreadPoolExecutor() as pool:
        decoded = list(pool.map(decode, names))
    stacks = [torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous() for images in zip(*decoded, strict=True)]
    return names, dict(zip(SIZES, stacks, strict=True))


def split_photos(names: list[str]) -> tuple[list[int], list[int]]:
    """Indices (to learn from, unseen): the contract's split, then a seeded half of its test photos is learned from too."""
    train, test = train_test_split(range(len(names)), test_size=0.2, random_state=42)
    more, unseen = train_test_split(sorted(test), test_size=0.5, random_state=42)
    return sorted(train + more), sorted(unseen)


def random_batch(photos: dict[int, Tensor], n: int) -> Tensor:
    """(n, 3, 56, 56) in [-1, 1]: half of the batches whole photos, half cut out of larger ones; flipped half of the time."""
    size = SIZES[max(0, int(torch.randint(4, ())) - 1)]
    stack, side = photos[size], SIZES[0]
    which = torch.randint(len(stack), (n, 1, 1, 1), device=stack.device)
    top, left = torch.randint(size - side + 1, (2, n, 1, 1, 1), device=stack.device)
    along = torch.arange(side, device=stack.device)
    across = torch.where(torch.rand(n, 1, 1, 1, device=stack.device) < 0.5, along, along.flip(0))
    channel = torch.arange(3, device=stack.device).view(1, 3, 1, 1)
    return to_float(stack[which, channel, top + along.view(1, 1, side, 1), left + across], stack.device)
