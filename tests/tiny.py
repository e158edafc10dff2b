"""Small things that several test files use: models, pixels, folders of images."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vae_helpers.data import draw_dog, sample_factors
from vae_helpers.models import VAE, BaseVAE


def tiny_vae(seed: int = 0, **architecture) -> VAE:
    """A small VAE on the CPU whose weights all matter: those that start at zero are stirred too."""
    torch.manual_seed(seed)
    vae = VAE(**{"latent_dim": 4, "widths": (8, 8, 8), "image_size": 16} | architecture)
    with torch.no_grad():
        for weight in vae.parameters():
            weight += 0.02 * torch.randn_like(weight)
    return vae.eval()


def stirred(vae: BaseVAE, by: float = 0.05) -> BaseVAE:
    """`vae` with noise added to every weight, so that those which start at zero matter, too."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in vae.parameters():
            weight += by * torch.randn_like(weight)
    return vae.eval()


def random_pixels(n: int, image_size: int = 16, seed: int = 0) -> Tensor:
    """uint8 (n, 3, S, S)"""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, image_size, image_size), dtype=torch.uint8, generator=generator)


def toy_pixels(n: int, seed: int, image_size: int = 56) -> Tensor:
    """Toy dogs, uint8 (n, 3, S, S)."""
    pictures = [np.asarray(draw_dog(row, image_size)) for row in sample_factors(n, seed)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def vivid_vae(seed: int = 0, **architecture) -> VAE:
    """A `tiny_vae` with 12 latent numbers, each of which can be seen in the picture."""
    vae = tiny_vae(seed, **{"latent_dim": 12} | architecture)
    with torch.no_grad():
        vae.decoder.linear_branch.weight *= 20
    return vae


def png_pixels(png: bytes, factor: int = 1) -> Tensor:
    """uint8 (3, S, S) of a PNG that shows every pixel as a square of factor x factor; an AssertionError when it does not."""
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        sheet = torch.from_numpy(np.array(image))
    pixels = sheet[::factor, ::factor]
    assert torch.equal(sheet, pixels.repeat_interleave(factor, 0).repeat_interleave(factor, 1))
    return pixels.permute(2, 0, 1)


def write_files(folder: Path, names: list[str]) -> Path:
    """Files that are images by name only, each with its own content; `split_dataset` does not look inside."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return folder


def write_images(folder: Path, n: int) -> Path:
    """`n` readable PNGs, the i-th of the single colour (i, 2i, 3i)."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.new("RGB", (10, 10), (i, 2 * i, 3 * i)).save(folder / f"{i:02d}.png")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones too, with its content."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
