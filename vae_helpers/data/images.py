"""From a folder of images to bytes in memory: each image is decoded once, and a cache keeps it.

photos on disk → split_dataset → data/train/dogs, data/test/dogs → load_images → uint8 (N, 3, 56, 56)
"""

import contextlib
import hashlib
import json
import math
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor
from tqdm.auto import tqdm

from ..files import atomic_write, free_bytes, reason, remove_stale_temp_files
from .decode import decode_image
from .folders import file_stamp, names_to_read, read_manifest, report_unreadable
from .heads import BOX_OF, BOXES, Box, Crop, check_crop, read_boxes

MAPPED_ABOVE = 2**28
"""Bytes of pixels (28,532 images of 56 x 56) above which they lie in a temporary file that is mapped into memory."""
_DECODER = 4  # part of the cache's signature: raise it when `decode_image` changes what it returns


@dataclass(frozen=True)
class DogImages:
    """Decoded images. `pixels`: uint8 (N, 3, S, S); `names`: N names, relative to the folder they came from; `crop`: how each
    was made a square."""

    pixels: Tensor
    names: list[str]
    crop: Crop = "none"

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: Sequence[int]) -> "DogImages":
        """The images at `indices`, in that order."""
        indices = torch.as_tensor(indices, dtype=torch.long)
        pixels = _empty_pixels(len(indices), self.pixels.shape[-1])
        torch.index_select(self.pixels, 0, indices, out=pixels)
        return replace(self, pixels=pixels, names=[self.names[i] for i in indices.tolist()])


def load_images(
    folder: str | Path,
    image_size: int = 56,
    limit: int | None = None,
    cache_dir: str | Path | None = None,
    crop: Crop | None = None,
) -> DogImages:
    """Decode the images of `folder` into one uint8 tensor. An image that cannot be read is skipped; one warning names each.

    In a folder that `split_dataset` filled, reads just what it put there, and warns of other images it finds.

    limit: only the first so many (in sorted order). cache_dir: a folder that keeps the tensor as a file until an image
    changes; the next time the tensor is that file, mapped into memory. Without it nothing is kept. Where it cannot be written,
    one warning says so. crop: as for `decode_image`, around the boxes of the split or of the folder's boxes.json; when left
    out, what the split was asked for, else "none". Images in which no head is found are left out of crop "head"; one warning
    names them. Raises ValueError when more than half of the images cannot be read, or none shows a head.
    """
    for name, value in (("image_size", image_size), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    folder = Path(folder).resolve()
    manifest = read_manifest(folder)
    names = names_to_read(folder, manifest)
    crop = crop or manifest.get("crop", "none")
    boxes = manifest.get("boxes") or (read_boxes(folder / BOXES) if crop in BOX_OF else {})
    check_crop(crop)
    boxes = {name: boxes.get(name, {}).get(BOX_OF.get(crop)) for name in names[:limit]}
    signature = _digest([_DECODER, image_size, crop, [(name, *file_stamp(folder / name), box) for name, box in boxes.items()]])
    place = f"{folder.name}-{_digest([str(folder), image_size, limit, crop])[:16]}.pixels"
    cache = Path(cache_dir, place) if cache_dir is not None else None
    if cache:
        remove_stale_temp_files(cache.parent, idle_seconds=86_400)  # several processes may be writing there
    stored = _read_cache(cache, signature)
    if stored is None:
        pixels, read, errors = _decode_all(folder, boxes, image_size, crop)
        stored = pixels, read, {name: reason(error, folder / name) for name, error in errors.items()}
        for_good = all(isinstance(error, ValueError | FileNotFoundError) for error in errors.values())  # it lies in the files
        if cache and for_good and read:
            _write_cache(cache, signature, *stored)
    pixels, read, skipped = stored
    report_unreadable(skipped, len(names) if read else len(boxes), folder)  # the first ones may be unlucky
    return DogImages(pixels, read, crop)


def _digest(about: object) -> str:
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _decode_all(
    folder: Path, boxes: dict[str, Box | None], image_size: int, crop: Crop
) -> tuple[Tensor, list[str], dict[str, Exception]]:
    """(pixels, names read, name -> why of those that cannot be) of the images that `boxes` names."""

    def attempt(name: str) -> np.ndarray | Exception:
        try:
            return decode_image(folder / name, image_size, crop, boxes[name])
        except (OSError, ValueError, MemoryError) as error:
            return error

    pixels, read, errors = _empty_pixels(len(boxes), image_size), [], {}
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files; what matters is in `errors`
        decoded = tqdm(pool.map(attempt, boxes), "decoding", len(boxes), unit="image", leave=False, disable=None)
        for name, image in zip(boxes, decoded, strict=True):
            if isinstance(image, Exception):
                errors[name] = image
            else:
                pixels.numpy()[len(read)] = image.transpose(2, 0, 1)
                read.append(name)
    return pixels[: len(read)], read, errors


def _empty_pixels(n: int, image_size: int) -> Tensor:
    """uint8 (n, 3, S, S) to be filled: in memory, or above MAPPED_ABOVE bytes in a nameless file that need not fit there.

    The file lies among the system's temporary files (TMPDIR). Raises OSError when there is no room for it.
    """
    shape = (n, 3, image_size, image_size)
    size = math.prod(shape)
    if size <= MAPPED_ABOVE:
        return torch.empty(shape, dtype=torch.uint8)
    folder = tempfile.gettempdir()
    if size > free_bytes(Path(folder, "x")):
        raise OSError(f"no room for {size / 1e9:.1f} GB of decoded images in {folder!r}: make some, or set TMPDIR elsewhere")
    with tempfile.TemporaryFile() as file:
        return torch.from_numpy(np.memmap(file, np.uint8, "w+", shape=shape))


def _read_cache(cache: Path | None, signature: str) -> tuple[Tensor, list[str], dict[str, str]] | None:
    """What `_write_cache` wrote: a line of JSON, then the pixels, which are mapped into memory."""
    with contextlib.suppress(Exception), cache.open("rb") as file:
        shape, names, skipped = json.loads(file.readline())[signature]
        return torch.from_numpy(np.memmap(file, np.uint8, "c", file.tell(), tuple(shape))), names, skipped
    return None  # there is none, or of other files, or it is damaged: it is made again


def _write_cache(cache: Path, signature: str, pixels: Tensor, names: list[str], skipped: dict[str, str]) -> None:
    """Keep decoded images for the next time, or warn that they cannot be kept."""
    try:
        with atomic_write(cache, size=pixels.numel()) as partial, partial.open("wb") as file:
            file.write(json.dumps({signature: [pixels.shape, names, skipped]}).encode() + b"\n")
            file.write(pixels.numpy())
    except OSError as error:
        warnings.warn(f"images are not kept for the next time: {error}", stacklevel=3)


def split_validation(images: DogImages, fraction: float = 0.1, random_state: int = 42) -> tuple[DogImages, DogImages]:
    """(what to train on, validation): a seeded tenth of the training images, for every choice made while training."""
    if len(images) < 2:
        raise ValueError(f"{len(images)} images cannot be shared by training and validation: it takes 2 at least")
    train, validation = train_test_split(range(len(images)), test_size=fraction, random_state=random_state)
    return images.take(sorted(train)), images.take(sorted(validation))
