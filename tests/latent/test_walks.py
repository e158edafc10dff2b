import numpy as np
import pytest
import torch
from PIL import Image
from tiny import png_pixels, random_pixels, tree, vivid_vae

from vae_helpers.latent import enlarged, filmstrip, lerp, png_bytes, save_gif, save_png, slerp, walk
from vae_helpers.models import to_float, to_uint8

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


# ---------------------------------------------------------------- the walk


@pytest.mark.parametrize(("on_sphere", "way"), [(True, slerp), (False, lerp)])
def test_a_walk_shows_the_dogs_on_its_way(on_sphere, way):
    vae = vivid_vae()
    a, b = two_dogs(vae)
    images = walk(vae, a, b, 5, on_sphere)
    assert images.shape == (5, 3, 16, 16) and not images.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(images[[0, -1]], vae.decode(torch.stack([a, b])))
        torch.testing.assert_close(images[2], vae.decode(way(a, b, 5)[2:3])[0])


def test_the_two_ways_part_between_their_ends():
    vae = vivid_vae()
    assert (walk(vae, *two_dogs(vae), 5) - walk(vae, *two_dogs(vae), 5, on_sphere=False)).abs().flatten(1).amax(1)[2] > 0.02


@pytest.mark.parametrize("steps", [1, 0, -3])
def test_a_walk_without_two_ends_is_an_error(steps):
    vae = vivid_vae()
    with pytest.raises(ValueError, match=f"steps={steps}: a walk needs at least 2"):
        walk(vae, *two_dogs(vae), steps)


# ---------------------------------------------------------------- single pictures


@pytest.mark.parametrize("factor", [1, 3])
def test_a_png_shows_every_pixel_as_a_crisp_square(factor):
    for image in (IMAGES[0], to_float(IMAGES[0])):
        assert torch.equal(png_pixels(png_bytes(image, factor), factor), IMAGES[0])


def test_what_lies_outside_the_range_is_clipped():
    image = torch.tensor([-5.0, -1.0, 0.0, 5.0]).view(1, 2, 2).expand(3, 2, 2)
    assert png_pixels(png_bytes(image))[0].flatten().tolist() == [0, 0, 128, 255]


def test_enlarged_images_stay_apart_and_in_order():
    pictures = enlarged(to_float(IMAGES), 4)
    assert [picture.size for picture in pictures] == [(64, 64)] * 7
    for picture, image in zip(pictures, IMAGES, strict=True):
        assert np.array_equal(np.asarray(picture)[::4, ::4], image.permute(1, 2, 0))


# ---------------------------------------------------------------- the filmstrip


@pytest.mark.parametrize(("n", "columns", "across", "down"), [(7, 3, 3, 3), (6, 3, 3, 2), (4, 12, 4, 1), (1, 12, 1, 1)])
def test_a_filmstrip_goes_row_by_row_with_gaps_between_images_only(n, columns, across, down):
    strip = np.asarray(filmstrip(IMAGES[:n], columns, factor=2))
    assert strip.shape == (2 * (18 * down - 2), 2 * (18 * across - 2), 3)  # 16 pixels and a gap of 2
    strip = strip[::2, ::2].copy()
    for i, image in enumerate(IMAGES[:n]):
        y, x = 18 * (i // across), 18 * (i % across)
        assert np.array_equal(strip[y : y + 16, x : x + 16], image.permute(1, 2, 0))
        strip[y : y + 16, x : x + 16] = 255
    assert (strip == 255).all()


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(("back_and_forth", "order"), [(True, [0, 1, 2, 3, 2, 1]), (False, [0, 1, 2, 3])])
def test_a_gif_shows_the_images_in_order(tmp_path, back_and_forth, order):
    save_gif(to_float(IMAGES[:4]), tmp_path / "walk.gif", back_and_forth=back_and_forth, factor=3)
    frames = gif_frames(tmp_path / "walk.gif")
    assert len(frames) == len(order) and frames[0].shape == (3, 48, 48)
    for frame, i in zip(frames, order, strict=True):
        near, *others = sorted(range(4), key=lambda j: distance(frame[:, ::3, ::3], IMAGES[j]))
        assert near == i and distance(frame[:, ::3, ::3], IMAGES[i]) < 10 < distance(frame[:, ::3, ::3], IMAGES[others[0]])


def test_a_gif_plays_for_ever_in_the_time_asked_for(tmp_path):
    save_gif(IMAGES[:5], tmp_path / "walk.gif", seconds=1.5)
    with Image.open(tmp_path / "walk.gif") as image:
        assert image.format == "GIF" and image.info["loop"] == 0
        for i in range(image.n_frames):
            image.seek(i)
            assert image.info["duration"] == 300  # milliseconds: a fifth of the way


def test_a_gif_is_not_faster_than_browsers_play(tmp_path):
    save_gif(IMAGES, tmp_path / "walk.gif", seconds=0.01)
    with Image.open(tmp_path / "walk.gif") as image:
        assert image.info["duration"] == 20


@pytest.mark.parametrize("n", [1, 2])
def test_a_gif_may_be_short(tmp_path, n):
    save_gif(IMAGES[:n], tmp_path / "walk.gif")
    assert len(gif_frames(tmp_path / "walk.gif")) == n


def test_a_picture_is_kept_as_it_is(tmp_path):
    save_png(enlarged(IMAGES[:1], 2)[0], tmp_path / "new" / "dog.png")
    assert torch.equal(png_pixels((tmp_path / "new" / "dog.png").read_bytes(), 2), IMAGES[0])


KEEPERS = {
    "dog.png": lambda path: save_png(enlarged(IMAGES[:1], 2)[0], path),
    "walk.gif": lambda path: save_gif(IMAGES[:3], path),
}


@pytest.mark.parametrize("name", KEEPERS)
def test_a_full_disk_leaves_what_was_there_and_no_half_file(tmp_path, monkeypatch, name):
    KEEPERS[name](tmp_path / name)
    before = tree(tmp_path)

    def half(self, path, **kw):
        path.write_bytes(b"half of the picture")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="disk full"):
        KEEPERS[name](tmp_path / name)
    assert tree(tmp_path) == before


def test_images_in_bytes_and_signed_are_kept_alike(tmp_path):
    signed = to_float(IMAGES[:3])
    assert torch.equal(to_uint8(signed), IMAGES[:3])
    for name, images in (("bytes.gif", IMAGES[:3]), ("signed.gif", signed)):
        save_gif(images, tmp_path / name)
    assert (tmp_path / "bytes.gif").read_bytes() == (tmp_path / "signed.gif").read_bytes()
    assert np.array_equal(filmstrip(signed), filmstrip(IMAGES[:3]))
