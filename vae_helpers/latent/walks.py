"""A walk through the latent space as pictures to keep: a moving GIF, single PNGs."""

import io
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..files import atomic_write, write_file
from ..models.inference import decode_latents
from ..models.vae import BaseVAE
from ..plots import as_uint8
from .directions import lerp, slerp


def walk(vae: BaseVAE, z_from: Tensor, z_to: Tensor, steps: int = 24, on_sphere: bool = True) -> Tensor:
    """The images between two latents, both included: (steps, 3, S, S) in about [-1, 1].

    z_from, z_to: (*latent_shape). on_sphere: along the arc that keeps to the shell where N(0, I) has its mass, or else
    straight. Raises ValueError for fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"steps={steps}: a walk needs at least 2, its two ends")
    return decode_latents(vae, (slerp if on_sphere else lerp)(z_from, z_to, torch.linspace(0, 1, steps)))


def png_bytes(image: Tensor, width: int = 0) -> bytes:
    """One image (3, S, S) as a PNG file, each pixel a square, the largest with which the picture fits into `width` pixels."""
    file = io.BytesIO()
    _picture(image, max(1, width // image.shape[-1])).save(file, format="PNG", compress_level=1)  # quick rather than small
    return file.getvalue()


def save_gif(images: Tensor, path: str | Path, seconds: float = 2.0, factor: int = 4) -> None:
    """Write images (B, 3, S, S) as a GIF that plays for ever, whole or not at all.

    seconds: from the first to the last image. factor: each pixel of an image becomes a square of factor x factor.
    """
    frames = [_picture(image, factor).quantize(256, dither=Image.Dither.NONE) for image in images]
    timing = {"duration": max(20, round(1000 * seconds / len(images))), "loop": 0}  # browsers slow down what is faster
    with atomic_write(path) as partial:
        frames[0].save(partial, format="GIF", save_all=True, append_images=frames[1:], optimize=False, **timing)


def save_pngs(images: Tensor, folder: str | Path, names: Sequence[str]) -> None:
    """Write each of the images (B, 3, S, S) as `folder`/NAME.png; names that no file system takes are shortened."""
    for image, name in zip(images, names, strict=True):
        path = Path(folder, f"{name}.png")
        if len(os.fsencode(path.name)) > 255:  # bytes
            path = path.with_name(f"{path.name[:50]}~{zlib.crc32(os.fsencode(name)):08x}.png")
        write_file(path, png_bytes(image))
    print(f"wrote {len(images)} files to {folder}")


def _picture(image: Tensor, factor: int) -> Image.Image:
    """(3, H, W), each pixel a crisp square of factor x factor."""
    return Image.fromarray(as_uint8(image).permute(1, 2, 0).numpy().repeat(factor, 0).repeat(factor, 1))
