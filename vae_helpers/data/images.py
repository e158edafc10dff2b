"""From a folder of images to batches: find, split, decode once, keep in memory as bytes, scale to [-1, 1] when used.

photos on disk → split_dataset → data/train/dogs, data/test/dogs → load_images → uint8 (N, 3, 56, 56) → to_float
"""

import contextlib
import hashlib
import io
import json
import math
import os
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.model_selection import train_test_split
from torch import Tensor
from tqdm.auto import tqdm

from ..config import folders
from ..files import atomic_write, read_file, reason, remove_stale_temp_files, temp_prefix
from .folders import MANIFEST, Box, names_to_read, read_boxes, read_manifest, report_unreadable

MAPPED_ABOVE = 2**28
"""Bytes of pixels (28,532 images of 56 x 56) above which a copy of them is kept in a file that is mapped into memory."""
MIN_SIDE = 8
"""Pixels across the smallest picture that is used: less is a speck, such as web pages hide in their text."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # whatever the name says; others can do more than show a picture
_DECODER = 2  # part of the cache's signature: raise it when `decode_image` changes what it returns


@dataclass(frozen=True)
class DogImages:
    """Decoded images. `pixels`: uint8 (N, 3, S, S); `names`: N names, relative to the folder they came from."""

    pixels: Tensor
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: Sequence[int]) -> "DogImages":
        """The images at `indices`, in that order."""
        indices = torch.as_tensor(indices, dtype=torch.long)
        pixels = _room_for(len(indices), self.pixels.shape[-1])
        torch.index_select(self.pixels, 0, indices, out=pixels)
        return replace(self, pixels=pixels, names=[self.names[i] for i in indices.tolist()])


def decode_image(file: str | Path | bytes, image_size: int = 56, crop: bool = False, box: Box | None = None) -> np.ndarray:
    """One image as uint8 (image_size, image_size, 3): upright, RGB, squashed to a square, bicubic, antialiased.

    file: its path, or what is in it.
    crop: cut a square out of it first, around `box` (shares of width and height, of the picture as it is stored) with a
    margin, else from the middle. Transparent pixels become white; of an animation the first picture is taken. Raises OSError
    for a file that cannot be read, and ValueError for one that is no image, is damaged, has more pixels than Pillow deems
    safe, or fewer than MIN_SIDE across.
    """
    content, told = (file, "") if isinstance(file, bytes) else (read_file(file), f"{str(file)!r}: ")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return _square_pixels(image, image_size, crop, box)
    except UnidentifiedImageError:
        raise ValueError(f"{told}not an image") from None
    except MemoryError:
        raise
    except Exception as error:  # a broken file can make a decoder raise anything
        raise ValueError(f"{told}{str(error) or type(error).__name__}") from None


def _square_pixels(image: Image.Image, image_size: int, crop: bool, box: Box | None) -> np.ndarray:
    if image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels is more than the {Image.MAX_IMAGE_PIXELS:,} allowed")
    if min(image.size) < MIN_SIDE:
        raise ValueError(f"{image.width} x {image.height} pixels is too small to show a dog")
    part = min(box[2] - box[0], box[3] - box[1]) if crop and box else 1
    enough = round(8 * image_size / max(part, 0.01))
    image.draft("RGB", (enough, enough))  # a large JPEG is decoded at a fraction of its size
    image = ImageOps.exif_transpose(image.crop(square(*image.size, box)) if crop else image)
    if image.mode.startswith("I;16") or image.mode == "I":  # 16 bits a pixel; convert() would clip it to white
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB").resize((image_size, image_size), Image.Resampling.BICUBIC))


def square(width: int, height: int, box: Box | None = None, margin: float = 0.1) -> tuple[int, int, int, int]:
    """The square to cut out of a picture, (left, top, right, bottom) in pixels: the largest in its middle, or one around `box`.

    margin: added to each side of the box, as a share of its longer side. Where that does not fit, the square is as large as
    the picture is across, and moved inside.
    """
    left, top, right, bottom = box or (0, 0, 1, 1)
    across = max((right - left) * width, (bottom - top) * height) * (1 + 2 * margin)
    side = round(min(max(across, MIN_SIDE), width, height))
    x, y = ((a + b) / 2 * full - side / 2 for a, b, full in ((left, right, width), (top, bottom, height)))
    x, y = (min(max(round(at), 0), full - side) for at, full in ((x, width), (y, height)))
    return x, y, x + side, y + side


def load_images(
    folder: str | Path, image_size: int = 56, limit: int | None = None, cache_dir: str | Path | None = None
) -> DogImages:
    """Decode the images of `folder` into one uint8 tensor, once: a cache keeps it until a file there changes.

    The tensor is that file, mapped into memory: what does not fit stays on the disk.

    In a folder that `split_dataset` filled, reads just what it put there, cropped when it was asked to, and warns of other
    images it finds. An image that cannot be read is skipped; one warning names each and says why. limit: only the first so
    many (in sorted order). cache_dir: default `data/cache` in the workspace. Raises ValueError when more than half of the
    images cannot be read, OSError when the cache cannot be written.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} must be at least 1")
    folder = Path(folder).resolve()
    names = names_to_read(folder)[:limit]
    manifest = read_manifest(folder)
    boxes = read_boxes(folder / MANIFEST, manifest.get("boxes", {})) if manifest.get("crop") else None
    about = [_DECODER, image_size, boxes, [(name, *_stamp(folder / name)) for name in names]]
    signature = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    place = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
    suffix = f"-first{limit}" if limit else ""
    cache = Path(cache_dir or folders().cache) / f"{folder.name}-{place}-{image_size}px{suffix}.safetensors"

    stored = _read_cache(cache, signature)
    if stored is None:
        remove_stale_temp_files(cache.parent)
        pixels, read, skipped, for_good = _decode_all(folder, names, image_size, boxes)
        stored = pixels, read, skipped
        if len(read) and for_good:
            about = {"signature": signature, "names": json.dumps(read), "skipped": json.dumps(skipped)}
            # save_file leaves a file of its own when it is killed: in a folder that `remove_stale_temp_files` knows
            mark = {"dir": cache.parent, "prefix": temp_prefix(), "suffix": ".partial"}
            with atomic_write(cache, size=pixels.numel()) as partial, tempfile.TemporaryDirectory(**mark) as own:
                save_file({"pixels": pixels}, Path(own, "pixels"), metadata=about)
                Path(own, "pixels").replace(partial)
            stored = _read_cache(cache, signature) or stored  # from here on mapped, as when it is there already
    pixels, read, skipped = stored
    report_unreadable(skipped, len(names), folder)
    return DogImages(pixels, read)


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file's last change; zeros for one that is gone since it was found, or a link to nowhere."""
    try:
        about = path.stat()
    except OSError:
        return 0, 0
    return about.st_size, about.st_mtime_ns


def _decode_all(
    folder: Path, names: list[str], image_size: int, boxes: dict[str, Box] | None
) -> tuple[Tensor, list[str], dict[str, str], bool]:
    """(pixels, names read, name -> reason of those that cannot be, whether that is for good: it lies in the files).

    boxes: where to crop; None: squash.
    """
    passing = []  # what may be otherwise the next time, while the file stays as it is

    def attempt(name: str) -> np.ndarray | str:
        try:
            return decode_image(folder / name, image_size, boxes is not None, (boxes or {}).get(name))
        except (OSError, ValueError, MemoryError) as error:
            if not isinstance(error, ValueError) and any(_stamp(folder / name)):
                passing.append(name)
            return reason(error, folder / name)

    room = _room_for(len(names), image_size)
    pixels = room.numpy()
    read, skipped = [], {}
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files; what matters is in `skipped`
        decoded = pool.map(attempt, names)
        for name, image in zip(names, tqdm(decoded, "decoding", len(names), unit="image", leave=False), strict=True):
            if isinstance(image, str):
                skipped[name] = image
            else:
                pixels[len(read)] = image.transpose(2, 0, 1)
                read.append(name)
    return room[: len(read)], read, skipped, not passing


def _room_for(n: int, image_size: int) -> Tensor:
    """uint8 (n, 3, S, S) to be filled: in memory, or above MAPPED_ABOVE bytes in a nameless file that need not fit there.

    Raises OSError when the disk has no room for it.
    """
    shape = (n, 3, image_size, image_size)
    size = math.prod(shape)
    if size <= MAPPED_ABOVE:
        return torch.empty(shape, dtype=torch.uint8)
    folders().cache.mkdir(parents=True, exist_ok=True)
    mark = {"dir": folders().cache, "prefix": temp_prefix(), "suffix": ".partial"}
    with tempfile.NamedTemporaryFile(**mark, delete=False) as file:
        try:
            if hasattr(os, "posix_fallocate"):  # else a disk that fills up later would end the program without a word
                os.posix_fallocate(file.fileno(), 0, size)
            return torch.from_file(file.name, shared=True, size=size, dtype=torch.uint8).view(shape)
        except OSError as error:
            raise OSError(f"no room for {size / 1e9:.1f} GB of decoded images in {str(folders().cache)!r}: {error}") from None
        finally:
            with contextlib.suppress(PermissionError):  # Windows does not let go of a mapped file
                Path(file.name).unlink()


def _read_cache(cache: Path, signature: str) -> tuple[Tensor, list[str], dict[str, str]] | None:
    if not cache.exists():
        return None
    try:
        with safe_open(cache, "pt") as file:
            about = file.metadata() or {}
            if about.get("signature") != signature:
                return None
            return file.get_tensor("pixels"), json.loads(about["names"]), json.loads(about["skipped"])
    except Exception:  # a damaged cache is made again
        return None


def split_validation(images: DogImages, fraction: float = 0.1, random_state: int = 42) -> tuple[DogImages, DogImages]:
    """(what to train on, validation): a seeded tenth of the training images, for every choice made while training."""
    train, validation = train_test_split(range(len(images)), test_size=fraction, random_state=random_state)
    return images.take(sorted(train)), images.take(sorted(validation))
