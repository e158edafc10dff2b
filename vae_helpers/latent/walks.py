"""A walk through the latent space as pictures to keep: a filmstrip, a moving GIF, single PNGs."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ..files import atomic_write
from ..models.inference import decode_latents
from ..models.vae import VAE
from ..plots import tile
from .directions import lerp, slerp


def walk(vae: VAE, z_from: Tensor, z_to: Tensor, steps: int = 24, on_sphere: bool = True) -> Tensor:
    """The dogs between two latents, both included: (steps, 3, S, S) in about [-1, 1].

    z_from, z_to: (*latent_shape). on_sphere: along the arc that keeps to the shell where N(0, I) has its mass, or else
    straight. Raises ValueError for fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"steps={steps}: a walk needs at least 2, its two ends")
    return decode_latents(vae, (slerp if on_sphere else lerp)(z_from, z_to, steps))


def enlarged(images: Tensor, factor: int) -> list[Image.Image]:
    """Images (B, 3, S, S) as pictures in which every pixel is a crisp square of factor x factor."""
    return [Image.fromarray(sheet.repeat(factor, 0).repeat(factor, 1)) for sheet in (tile(i[None], 1, gap=0) for i in images)]


def png_bytes(image: Tensor, factor: int = 1) -> bytes:
    """One image (3, S, S) as a PNG file, each pixel a square of factor x factor. Quick rather than small."""
    file = io.BytesIO()
    enlarged(image[None], factor)[0].save(file, format="PNG", compress_level=1)
    return file.getvalue()


def filmstrip(images: Tensor, columns: int = 12, factor: int = 2) -> Image.Image:
    """Images (B, 3, S, S) side by side, `columns` to a row, as one picture."""
    sheet = tile(images, min(columns, len(images)))[:-2, :-2]  # without the last gap
    return Image.fromarray(np.ascontiguousarray(sheet.repeat(factor, 0).repeat(factor, 1)))


def save_png(picture: Image.Image, path: str | Path) -> None:
    """Write a picture as PNG, whole or not at all."""
    with atomic_write(path) as partial:
        picture.save(partial, format="PNG")


def save_gif(images: Tensor, path: str | Path, seconds: float = 2.0, back_and_forth: bool = True, factor: int = 4) -> None:
    """Write images (B, 3, S, S) as a GIF that plays for ever, whole or not at all.

    seconds: from the first to the last image. back_and_forth: play it backwards after that, so that it has no jump.
    """
    frames = enlarged(images, factor)
    if back_and_forth:
        frames += frames[-2:0:-1]
    milliseconds = max(20, round(1000 * seconds / len(images)))  # browsers slow down what is faster
    frames = [frame.quantize(256, dither=Image.Dither.NONE) for frame in frames]
    with atomic_write(path) as partial:
        frames[0].save(
            partial, format="GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0, optimize=False
        )
