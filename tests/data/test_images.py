"""Images are decoded as they should be, once, and those that are not images are named with the reason."""

import json
import os
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import random_pixels, tree, write_files, write_images

from vae_helpers.data import (
    MANIFEST,
    DogImages,
    decode_image,
    find_images,
    images,
    load_images,
    read_boxes,
    read_manifest,
    split_dataset,
    split_validation,
    square_around,
)

RED, GREEN, BLUE, WHITE = COLOURS = ((220, 30, 40), (30, 200, 60), (40, 50, 210), (255, 255, 255))
TURNED = Image.Exif()
TURNED[0x0112] = 6  # to be turned by 90 degrees clockwise when shown


def known_picture(width: int = 96, height: int = 64) -> Image.Image:
    """Red and green above blue and white."""
    small = Image.new("RGB", (2, 2))
    small.putdata(COLOURS)
    return small.resize((width, height), Image.Resampling.NEAREST)


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


# ---------------------------------------------------------------- decoding


def with_see_through_corner(path: Path, mode: str) -> None:
    """The white corner is see-through, and black where it is looked through."""
    picture = np.array(known_picture())
    picture[32:, 48:] = 0
    if mode == "RGBA":
        alpha = np.full((64, 96, 1), 255, np.uint8)
        alpha[32:, 48:] = 0
        Image.fromarray(np.concatenate([picture, alpha], 2)).save(path)
    else:
        palette = Image.fromarray(picture).quantize(4)
        palette.save(path, transparency=palette.getpixel((95, 63)))


def sideways(path: Path, *size: int, **options) -> None:
    known_picture(*size).transpose(Image.Transpose.ROTATE_90).save(path, exif=TURNED, **options)


@pytest.mark.parametrize(
    ("name", "save", "tolerance"),
    [
        ("tall.png", lambda path: known_picture(20, 300).save(path), 1),
        ("rgb.jpg", lambda path: known_picture().save(path, quality=95), 6),
        ("large.jpg", lambda path: known_picture(2400, 1600).save(path, quality=95), 6),
        ("cmyk.jpg", lambda path: known_picture().convert("CMYK").save(path, quality=95), 6),
        ("palette.png", lambda path: known_picture().quantize(4).save(path), 1),
        ("palette_see_through.png", lambda path: with_see_through_corner(path, "P"), 1),
        ("rgba.png", lambda path: with_see_through_corner(path, "RGBA"), 1),
        ("rotated_large.jpg", lambda path: sideways(path, 2400, 1600, quality=95), 6),
        ("rotated.png", sideways, 1),
        ("lossless.webp", lambda path: known_picture().save(path, lossless=True), 1),
    ],
)
def test_a_known_picture_has_its_colours_in_place_in_every_format(tmp_path, name, save, tolerance):
    save(tmp_path / name)
    decoded = decode_image(tmp_path / name)
    assert decoded.shape == (56, 56, 3) and decoded.dtype == np.uint8
    assert np.array_equal(decoded, decode_image((tmp_path / name).read_bytes()))
    corners = [decoded[y : y + 12, x : x + 12].astype(int) for y in (8, 36) for x in (8, 36)]
    for corner, colour in zip(corners, COLOURS, strict=True):
        assert np.abs(corner - colour).max() <= tolerance


@pytest.mark.parametrize(("dtype", "greatest"), [(np.uint8, 255), (np.uint16, 65535)])
def test_grey_pictures_keep_their_greys_at_8_and_at_16_bits(tmp_path, dtype, greatest):
    greys = np.repeat(np.array([0, 0.25, 0.5, 1]) * greatest, 14).astype(dtype)
    Image.fromarray(np.tile(greys, (56, 1))).save(tmp_path / "grey.png")
    decoded = decode_image(tmp_path / "grey.png")
    assert (decoded == decoded[:, :, :1]).all()
    assert np.abs(decoded[20, 7::14, 0].astype(int) - [0, 64, 128, 255]).max() <= 1


def test_fine_detail_is_averaged_and_not_dropped(tmp_path):
    checks = np.indices((560, 560)).sum(0) % 2 * 255
    Image.fromarray(checks.astype(np.uint8)).save(tmp_path / "checks.png")
    assert np.abs(decode_image(tmp_path / "checks.png").astype(int) - 127.5).max() <= 2


@pytest.mark.parametrize("allowed", [96 * 64 - 1, 10])
def test_a_picture_of_more_pixels_than_is_safe_is_not_decoded(tmp_path, monkeypatch, allowed):
    known_picture().save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", allowed)
    with warnings.catch_warnings(), pytest.raises(ValueError):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        decode_image(tmp_path / "bomb.png")


# ---------------------------------------------------------------- crops


@pytest.mark.parametrize(
    ("size", "box", "square"),
    [
        ((96, 64), None, (16, 0, 80, 64)),  # the largest in the middle
        ((64, 96), None, (0, 16, 64, 80)),
        ((200, 100), (0.5, 0.2, 0.7, 0.6), (96, 16, 144, 64)),  # 40 x 40 and a tenth on each side
        ((200, 100), (0.0, 0.0, 0.2, 0.4), (0, 0, 48, 48)),  # moved inside
        ((200, 100), (0.75, 0.5, 1.0, 1.0), (140, 40, 200, 100)),
        ((200, 100), (0.1, 0.4, 0.9, 0.6), (50, 0, 150, 100)),  # wider than the picture is high
    ],
)
def test_the_square_to_cut_out_lies_around_the_box_and_inside_the_picture(size, box, square):
    assert square_around(*size, box) == square


@pytest.mark.parametrize("width", [96, 2400], ids=["small", "large"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_crop_shows_what_its_box_holds_in_the_upright_picture(tmp_path, width, suffix, turned):
    """The box is in the lower left corner of the known picture, which is blue."""
    path, size = tmp_path / f"dog.{suffix}", (width, width * 2 // 3)
    sideways(path, *size, quality=95) if turned else known_picture(*size).save(path, quality=95)
    for crop in ("box", "head"):
        cut = decode_image(path, 16, crop, (0.1, 0.7, 0.3, 0.9)).astype(int)
        assert np.abs(cut - BLUE).max() <= 8
    for crop, box in (("box", None), ("center", None), ("center", (0.05, 0.6, 0.3, 0.9))):
        middle = decode_image(path, 16, crop, box).astype(int)
        assert np.abs(np.array([middle[y, x] for y in (3, 12) for x in (3, 12)]) - COLOURS).max() <= 8


def test_a_crop_that_cannot_be_made_is_an_error_that_says_what_can(tmp_path):
    known_picture().save(tmp_path / "a.png")
    known_picture().save(tmp_path / "b.png")
    unknown, headless = "crop='middle' is not one of none, center, box, head", "no dog's head is found"
    for crop, reason in (("middle", unknown), ("head", headless)):
        for act in (lambda c: decode_image(tmp_path / "a.png", crop=c), lambda c: load_images(tmp_path, crop=c)):
            with pytest.raises(ValueError, match=reason):
                act(crop)


@pytest.fixture
def marked(tmp_path):
    """Five pictures; boxes.json marks the dogs in four of them in both of its forms, and three heads."""
    (tmp_path / "dogs").mkdir()
    for i in range(5):
        known_picture().save(tmp_path / "dogs" / f"{i}.png")
    blue, red = [0.05, 0.6, 0.3, 0.9], [0.05, 0.1, 0.3, 0.4]
    boxes = {"0.png": blue} | {f"{i}.png": {"dog": blue, "head": red} for i in (1, 2, 3)}
    (tmp_path / "dogs" / "boxes.json").write_text(json.dumps(boxes))
    return tmp_path / "dogs"


def load_both(folder: Path, crop: str | None = None) -> dict[str, torch.Tensor]:
    parts = [load_images(folder / part, 16, crop=crop) for part in ("train", "test")]
    return {name: image for part in parts for name, image in zip(part.names, part.pixels, strict=True)}


@pytest.mark.parametrize("crop", ["none", "center", "box"])
def test_the_crop_of_a_split_is_stored_as_a_word_applied_and_can_be_overruled(marked, tmp_path, crop):
    middle, whole = (as_tensor(decode_image(marked / "4.png", 16, word)) for word in ("center", "none"))
    blue = torch.tensor(BLUE, dtype=torch.uint8)[:, None, None].expand(3, 16, 16)
    expected = {
        "none": dict.fromkeys("01234", whole),
        "center": dict.fromkeys("01234", middle),
        "box": dict.fromkeys("0123", blue) | {"4": middle},
    }
    split_dataset(marked, tmp_path / "train", tmp_path / "test", crop=crop)
    assert json.loads((tmp_path / "train" / MANIFEST).read_text())["crop"] == crop
    assert load_images(tmp_path / "train").crop == crop
    for asked in (None, "none", "center", "box"):
        for name, pixels in load_both(tmp_path, asked).items():
            assert (pixels.int() - expected[asked or crop][name[0]].int()).abs().max() <= 2
    assert load_images(marked, 16).crop == "none"
    assert (load_images(marked, 16, crop="box").pixels[0].int() - blue.int()).abs().max() <= 2, "a folder that was not split"


def test_heads_are_cut_out_where_they_are_marked_and_other_images_are_left_out(marked, tmp_path):
    red = torch.tensor(RED)[:, None, None]
    left_out = r"2 of 5 images are left out, since no dog's head is found in them, first: '0.png'"
    with pytest.warns(UserWarning, match=left_out):
        heads = load_images(marked, 16, crop="head")
    assert heads.names == ["1.png", "2.png", "3.png"] and (heads.pixels.int() - red).abs().max() <= 2
    with pytest.warns(UserWarning, match=left_out):
        split_dataset(marked, tmp_path / "train", tmp_path / "test", crop="head")
    manifest = read_manifest(tmp_path / "test")
    assert manifest["crop"] == "head" and manifest["without_head"] == ["0.png", "4.png"]
    assert {
        name: set(image.flatten(1).float().mean(1).round().int().tolist()) for name, image in load_both(tmp_path).items()
    } == {name: set(RED) for name in ("1.png", "2.png", "3.png")}


@pytest.mark.parametrize(("stored", "crop"), [(True, "box"), (False, "none"), (None, "none")])
def test_a_split_of_an_earlier_version_is_read(marked, tmp_path, stored, crop):
    split_dataset(marked, tmp_path / "train", tmp_path / "test", crop=crop)
    now = load_both(tmp_path)
    for part in ("train", "test"):
        path = tmp_path / part / MANIFEST
        old = json.loads(path.read_text())
        old["boxes"] = {name: boxes["dog"] for name, boxes in old["boxes"].items()}
        old.pop("crop") if stored is None else old.update(crop=stored)
        path.write_text(json.dumps(old))
    assert all(torch.equal(image, now[name]) for name, image in load_both(tmp_path).items())
    assert load_images(tmp_path / "test").crop == crop


BAD_BOXES = ["[0, 0, 1]", "[0.5, 0, 0.4, 1]", "[0, 0, 2, 1]", '"left"', '{"head": [0, 0, 1]}', '{"head": 1}']


@pytest.mark.parametrize("content", ["{", "[]", *(f'{{"a.png": {box}}}' for box in BAD_BOXES)])
def test_boxes_that_say_nothing_sensible_are_refused_by_name(tmp_path, content):
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(ValueError, match=r"boxes.json' does not say where dogs are"):
        read_boxes(tmp_path / "boxes.json")


# ---------------------------------------------------------------- loading, and the cache


def test_images_come_in_sorted_order_as_bytes_the_first_ones_if_so_asked(tmp_path):
    folder = write_images(tmp_path / "dogs", 5)
    whole, some = load_images(folder, image_size=16), load_images(folder, 16, 3)
    assert whole.names == [f"{i:02d}.png" for i in range(5)] and len(whole) == 5
    colours = torch.tensor([(i, 2 * i, 3 * i) for i in range(5)], dtype=torch.uint8)
    assert torch.equal(whole.pixels, colours[:, :, None, None].expand(5, 3, 16, 16))
    assert some.names == whole.names[:3] and torch.equal(some.pixels, whole.pixels[:3])
    for wrong in ({"limit": 0}, {"image_size": 0}):
        with pytest.raises(ValueError, match=r"\w+=0 must be at least 1"):
            load_images(folder, **wrong)


def test_without_a_folder_for_it_nothing_is_kept_on_disk(tmp_path):
    folder = write_images(tmp_path / "dogs", 4)
    before = tree(tmp_path)
    load_images(folder, 16)
    assert tree(tmp_path) == before


def test_images_are_decoded_once_and_what_was_skipped_is_named_every_time(tmp_path, monkeypatch):
    folder = write_images(tmp_path / "dogs", 4)
    (folder / "01.png").write_bytes((folder / "03.png").read_bytes()[:50])
    write_files(folder, ["empty.jpg"])
    for _ in range(2):
        with pytest.warns(UserWarning) as caught:
            loaded = load_images(folder, 16, cache_dir=tmp_path / "cache")
        assert len(caught) == 1
        assert all(text in str(caught[0].message) for text in ("2 of 5", "01.png", "empty.jpg"))
        assert loaded.names == ["00.png", "02.png", "03.png"]
        assert loaded.pixels[:, 0, 0, 0].tolist() == [0, 2, 3]
        monkeypatch.setattr(images, "decode_image", lambda *_: pytest.fail("decoded again"))


@pytest.mark.parametrize("change", ["edit", "add", "remove", "size", "crop", "damage", "cut"])
def test_the_cache_is_made_again_when_it_does_not_fit_or_is_damaged(tmp_path, change):
    folder, cache = write_images(tmp_path / "dogs", 4), tmp_path / "cache"
    known_picture().save(folder / "03.png")
    load_images(folder, 16, cache_dir=cache)
    (stored,) = cache.iterdir()
    if change in ("edit", "add"):
        Image.new("RGB", (11, 11), "white").save(folder / ("02.png" if change == "edit" else "09.png"))
    elif change == "remove":
        (folder / "02.png").unlink()
    elif change in ("damage", "cut"):
        stored.write_bytes(b"\xff" * 100 if change == "damage" else stored.read_bytes()[:-100])
    how = {"image_size": 24 if change == "size" else 16, "crop": "center" if change == "crop" else "none"}
    loaded, fresh = load_images(folder, cache_dir=cache, **how), load_images(folder, **how)
    assert loaded.names == fresh.names == find_images(folder)
    assert torch.equal(loaded.pixels, fresh.pixels)


def test_folders_of_the_same_name_do_not_share_a_cache(tmp_path):
    for i, where in enumerate(("train", "test")):
        (tmp_path / where / "dogs").mkdir(parents=True)
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / where / "dogs" / "a.png")
    loaded = [load_images(tmp_path / where / "dogs", 16, cache_dir=tmp_path / "cache") for where in ("train", "test") * 2]
    assert [part.pixels.unique().tolist() for part in loaded] == [[0], [1], [0], [1]]


def test_a_day_after_a_kill_what_it_left_half_written_in_the_cache_is_gone_and_what_others_are_writing_is_not(tmp_path):
    folder, cache = write_images(tmp_path / "dogs", 4), tmp_path / "cache"
    load_images(folder, 16, cache_dir=cache)
    whole = tree(cache)
    for name, age in (("left", 25), ("fresh", 1)):
        path = cache / f".tmp-{name}.partial"
        path.write_text("half")
        os.utime(path, (0, time.time() - 3600 * age))
    load_images(folder, 16, cache_dir=cache)
    assert tree(cache) == whole | {".tmp-fresh.partial": b"half"}


def test_a_cache_that_cannot_be_written_is_one_warning_and_the_images_are_there(tmp_path):
    folder, in_the_way = write_images(tmp_path / "dogs", 4), tmp_path / "cache"
    in_the_way.write_text("a file")
    with pytest.warns(UserWarning) as caught:
        loaded = load_images(folder, 16, cache_dir=in_the_way)
    assert len(caught) == 1 and "not kept for the next time: cannot write" in str(caught[0].message)
    assert torch.equal(loaded.pixels, load_images(folder, 16).pixels)


def test_validation_is_a_seeded_tenth_apart_from_what_is_trained_on():
    every = DogImages(random_pixels(40), [f"{i}" for i in range(40)], "center")
    (train, validation), (_, again), (_, other) = (split_validation(every, random_state=seed) for seed in (1, 1, 2))
    assert len(validation) == 4 and validation.names == again.names != other.names
    assert not set(train.names) & set(validation.names) and set(train.names) | set(validation.names) == set(every.names)
    for part in (train, validation):
        assert torch.equal(part.pixels, every.pixels[[int(name) for name in part.names]]) and part.crop == "center"


# ---------------------------------------------------------------- more than fits into memory


def file_behind(pixels: torch.Tensor) -> str:
    """Of the memory that `pixels` lie in, what the system says stands behind it; empty when nothing does."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, *_, last = line.split(maxsplit=5)
        start, end = (int(part, 16) for part in place.split("-"))
        if start <= pixels.data_ptr() < end:
            return last if "/" in last else ""
    raise AssertionError("nowhere")


needs_linux = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells what lies behind memory")


@needs_linux
def test_a_cache_that_is_there_is_mapped_into_memory(tmp_path):
    folder, cache = write_images(tmp_path / "dogs", 4), tmp_path / "cache"
    decoded, kept = (load_images(folder, 16, cache_dir=cache).pixels for _ in range(2))
    assert str(cache) in file_behind(kept) and torch.equal(decoded, kept)


@needs_linux
def test_many_images_and_copies_of_them_lie_in_files_without_a_name_of_which_none_is_left(tmp_path, monkeypatch):
    folder, place = write_images(tmp_path / "dogs", 40), tmp_path / "large disk"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))  # what TMPDIR says
    (folder / "02.png").write_text("not an image")
    loaded = []
    for above in (images.MAPPED_ABOVE, 0):
        monkeypatch.setattr(images, "MAPPED_ABOVE", above)
        with pytest.warns(UserWarning, match="02.png"):
            loaded.append(load_images(folder, 16))
    in_memory, mapped = loaded
    assert not file_behind(in_memory.pixels)
    assert mapped.names == in_memory.names and torch.equal(mapped.pixels, in_memory.pixels)
    assert all(str(place) in file_behind(part.pixels) for part in (mapped, *split_validation(mapped)))
    assert not tree(place)


def test_no_room_on_the_disk_is_an_error_that_says_how_much_and_where_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAPPED_ABOVE", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=rf"no room for 0\.0 GB of decoded images in '{tmp_path}'.*TMPDIR"):
        DogImages(random_pixels(4), list("abcd")).take([1, 2])
    assert not tree(tmp_path)
