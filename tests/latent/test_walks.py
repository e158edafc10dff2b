import numpy as np
import pytest
import torch
from PIL import Image
from tiny import png_pixels, random_pixels, tree, vivid_vae

from vae_helpers.latent import lerp, png_bytes, save_gif, slerp, walk
from vae_helpers.models import to_float

IMAGES = random_pixels(7)


def two_dogs(vae):
    return torch.randn(2, *vae.latent_shape, generator=torch.Generator().manual_seed(0))


def gif_frames(path) -> list[torch.Tensor]:
    """uint8 (3, H, W) of every frame"""
    with Image.open(path) as image:
        frames = []
        for i in range(image.n_frames):
            image.seek(i)
            frames.append(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))
        return frames


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Average difference of two uint8 pictures, of 255."""
    return (a.float() - b.float()).abs().mean().item()


@pytest.mark.parametrize(("on_sphere", "way"), [(True, slerp), (False, lerp)])
def test_a_walk_shows_the_dogs_on_its_way(on_sphere, way):
    vae = vivid_vae()
    a, b = two_dogs(vae)
    images = walk(vae, a, b, 5, on_sphere)
    assert images.shape == (5, 3, 16, 16) and not images.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(images[[0, -1]], vae.decode(torch.stack([a, b])))
        torch.testing.assert_close(images[2], vae.decode(way(a, b, torch.tensor([0.5])))[0])


def test_the_two_ways_part_between_their_ends():
    vae = vivid_vae()
    assert (walk(vae, *two_dogs(vae), 5) - walk(vae, *two_dogs(vae), 5, on_sphere=False)).abs().flatten(1).amax(1)[2] > 0.02


@pytest.mark.parametrize("steps", [1, 0, -3])
def test_a_walk_without_two_ends_is_an_error(steps):
    vae = vivid_vae()
    with pytest.raises(ValueError, match=f"steps={steps}: a walk needs at least 2"):
        walk(vae, *two_dogs(vae), steps)


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize(("width", "factor"), [(0, 1), (16, 1), (55, 3)])
def test_a_png_shows_every_pixel_as_a_crisp_square_that_fits_into_the_width(width, factor):
    for image in (IMAGES[0], to_float(IMAGES[0])):
        assert torch.equal(png_pixels(png_bytes(image, width), factor), IMAGES[0])


def test_what_lies_outside_the_range_is_clipped():
    image = torch.tensor([-5.0, -1.0, 0.0, 5.0]).view(1, 2, 2).expand(3, 2, 2)
    assert png_pixels(png_bytes(image))[0].flatten().tolist() == [0, 0, 128, 255]


@pytest.mark.parametrize("n", [1, 4])
def test_a_gif_shows_the_images_in_order(tmp_path, n):
    for images in (IMAGES[:n], to_float(IMAGES[:n])):
        save_gif(images, tmp_path / "walk.gif", factor=3)
        frames = gif_frames(tmp_path / "walk.gif")
        assert len(frames) == n and frames[0].shape == (3, 48, 48)
        for i, frame in enumerate(frames):
            near, other, *_ = sorted(distance(frame[:, ::3, ::3], image) for image in IMAGES)
            assert distance(frame[:, ::3, ::3], IMAGES[i]) == near < 10 < other


@pytest.mark.parametrize(("seconds", "milliseconds"), [(1.5, 300), (0.01, 20)], ids=["as asked", "no faster than browsers"])
def test_a_gif_plays_for_ever_in_the_time_asked_for(tmp_path, seconds, milliseconds):
    save_gif(IMAGES[:5], tmp_path / "walk.gif", seconds=seconds)
    with Image.open(tmp_path / "walk.gif") as image:
        assert image.format == "GIF" and image.info["loop"] == 0
        for i in range(image.n_frames):
            image.seek(i)
            assert image.info["duration"] == milliseconds


def test_a_full_disk_leaves_what_was_there_and_no_half_file(tmp_path, monkeypatch):
    save_gif(IMAGES[:3], tmp_path / "walk")
    before = tree(tmp_path)

    def half(self, path, **kw):
        path.write_bytes(b"half of the picture")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="disk full"):
        save_gif(IMAGES[:3], tmp_path / "walk")
    assert tree(tmp_path) == before
