"""Which files are pictures, and what is in them: one file in, pixels out, or the reason why not."""

import contextlib
import importlib
import io
import math
import re
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageChops, ImageCms, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from ..files import read_file
from .heads import BOX_OF, HEAD_UP, INPUT, NO_HEAD, Box, Crop, NoHead, check_crop, find_head, square_around

with contextlib.suppress(ImportError):  # where someone has it, for the HEIC files of phones
    importlib.import_module("pillow_heif").register_heif_opener()
Image.init()
MIN_SIDE = 8
"""Pixels across the smallest picture that is used: less is a speck, such as web pages hide in their text."""
FORMATS = sorted(set(Image.OPEN) & {"PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "HEIF"})
"""Beside JPEG, and whatever a file's name says; others can do more than show a picture."""
_NOT_READ = {  # how files begin -> what they are, where it helps to know
    rb"....ftypavi": "an AVIF picture, which this Pillow cannot read: save it as .jpg, or update pillow",
    rb"....ftyp(he|mif|msf)": "a HEIC picture: save it as .jpg, or pip install pillow-heif, which reads it",
    rb"....ftyp": "a film",
}


def decode_image(file: str | Path | bytes, image_size: int = 56, crop: Crop = "none", box: Box | None = None) -> np.ndarray:
    """One image as uint8 (image_size, image_size, 3): upright, RGB, made a square, bicubic, antialiased.

    file: its path, or what is in it. crop: "none" squashes the whole picture; "center" cuts out the largest square in its
    middle; "box" and "head" cut around `box` with a margin; where there is none, "box" from the middle, and "head" around the
    head that `find_head` finds. Transparent pixels become white; of an animation the first picture is taken. Raises OSError for
    a file that cannot be read, NoHead, and ValueError for a file that is no image, is damaged, has more pixels than Pillow
    deems safe (of a JPEG, which is decoded at a fraction of its size, three times as many), or fewer than MIN_SIDE across.
    """
    check_crop(crop)
    content, where = (file, "") if isinstance(file, bytes) else (read_file(file), f"{str(file)!r}: ")
    try:
        with _open(content) as image:
            return _square_pixels(image, image_size, crop, box if crop in BOX_OF else None)
    except (UnidentifiedImageError, SyntaxError):
        kinds = (what for begins, what in _NOT_READ.items() if re.match(begins, content, re.DOTALL))
        raise ValueError(f"{where}{next(kinds, 'not an image')}") from None
    except (MemoryError, NoHead):
        raise
    except Exception as error:  # a broken file can make a decoder raise anything
        raise ValueError(f"{where}{str(error) or type(error).__name__}") from None


def _open(content: bytes) -> Image.Image:
    """A picture whose pixels are not decoded yet."""
    if content.startswith(b"\xff\xd8\xff"):  # not by Image.open, which counts pixels that will not be decoded
        return JpegImageFile(io.BytesIO(content))
    if content.startswith(b"\x89PNG"):
        chunks, at = [content[:8]], 8
        while chunk := content[at : at + 12 + int.from_bytes(content[at : at + 4])]:
            if chunk[4:5].isupper() or zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:]):
                chunks.append(chunk)  # the others are ancillary (a note, a time), and broken
            at += len(chunk)
        content = b"".join(chunks)
    return Image.open(io.BytesIO(content), formats=FORMATS)


def _as_srgb(image: Image.Image) -> Image.Image:
    """A picture in the colours that screens show: by its profile, where it has one that is whole and another's."""
    if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes every CMYK JPEG for one of Adobe's, which are inverted
    profile = image.info.get("icc_profile") or b""
    if profile and b"sRGB" not in profile.replace(b"\0", b""):
        mode = "RGBA" if image.has_transparency_data else "RGB"
        image = image.convert(mode) if image.mode in ("P", "PA") else image
        with contextlib.suppress(ImageCms.PyCMSError, ValueError, OSError):
            image = ImageCms.profileToProfile(image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode=mode)
    return image


def _square_pixels(image: Image.Image, image_size: int, crop: Crop, box: Box | None) -> np.ndarray:
    if min(size := image.size) < MIN_SIDE:
        raise ValueError(f"{image.width} x {image.height} pixels is too small to show a dog")
    part = min(box[2] - box[0], box[3] - box[1]) if box else 0.25 if crop == "head" else 1
    enough = round(8 * image_size / max(part, 0.01))
    image.draft("RGB", (enough, enough))  # a large JPEG is decoded at a fraction of its size
    if max(math.prod(image.size), math.prod(size) // 3) > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"{size[0]} x {size[1]} pixels is more than the {Image.MAX_IMAGE_PIXELS:,} allowed")
    ImageOps.exif_transpose(image, in_place=True)
    image = _as_srgb(image)
    if image.mode.startswith("I;16") or image.mode == "I":  # 16 bits a pixel; convert() would clip it to white
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if crop == "head" and box is None:
        seen = np.array(image.resize((INPUT, INPUT), Image.Resampling.BICUBIC))
        if (head := find_head(torch.from_numpy(seen).permute(2, 0, 1))) is None:
            raise NoHead(NO_HEAD)
        box = head.box
    if crop != "none":
        image = image.crop(square_around(*image.size, box, up=HEAD_UP if crop == "head" else 0))
    return np.asarray(image.resize((image_size, image_size), Image.Resampling.BICUBIC))
