import errno
import json
import os
import tempfile
import warnings
from collections import Counter
from fractions import Fraction
from itertools import count
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import random_pixels, tree, write_files, write_images

from vae_helpers.data import (
    MANIFEST,
    DogImages,
    breed_of,
    decode_image,
    ensure_split,
    find_images,
    load_images,
    read_boxes,
    split,
    split_dataset,
    split_validation,
    square,
)
from vae_helpers.data import images as data
from vae_helpers.models import to_float, to_uint8

NAMES = [f"{i:02d}.jpg" for i in range(10)]


@pytest.fixture
def split_folders(tmp_path):
    """source (ten files), train, test"""
    return write_files(tmp_path / "source", NAMES), tmp_path / "train", tmp_path / "test"


def images_in(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(folder).items() if name != MANIFEST}


# ---------------------------------------------------------------- finding


def test_images_are_found_by_suffix_in_any_case_and_depth_in_sorted_order(tmp_path):
    names = ["B.JPG", "a.png", "deep/b.jpeg", "deep/er/c.WebP"]
    write_files(tmp_path, [*names[::-1], "notes.txt", "a.png.part", "gif.gif", ".hidden.png", ".thumbs/d.png", "deep/.x/e.png"])
    with pytest.warns(UserWarning, match=r"passed over.*1 files \.gif"):
        assert find_images(tmp_path) == names


def test_order_is_by_letters_and_not_by_how_a_file_system_stores_them(tmp_path):
    composed, decomposed = "\u00e9.png", "e\u0301a.png"  # é, and e with an accent, then a
    assert find_images(write_files(tmp_path, [composed, decomposed, "f.png"])) == ["f.png", composed, decomposed]


def test_a_folder_that_gives_no_images_is_an_error_that_names_it(tmp_path):
    write_files(tmp_path, ["some/notes.txt", "some/more.txt"])
    (tmp_path / "empty").mkdir()
    for name, error, reason in (
        ("gone", FileNotFoundError, "no folder"),
        ("some/notes.txt", NotADirectoryError, "is a file"),
        ("some", ValueError, "found 2 other files, first: more.txt"),
        ("empty", ValueError, "it is empty"),
    ):
        with pytest.raises(error, match=reason) as raised:
            find_images(tmp_path / name)
        assert str(tmp_path / name) in str(raised.value)


# ---------------------------------------------------------------- the split


def test_a_split_prints_its_counts_in_one_line(split_folders, capsys):
    split = split_dataset(*split_folders)
    assert capsys.readouterr().out == "Dataset split complete. 8 training images, 2 test images.\n"
    assert (len(split.train), len(split.test)) == (8, 2)


def test_20579_photos_become_16463_and_4116(split_folders, capsys, monkeypatch):
    monkeypatch.setattr(split, "find_images", lambda folder: [f"{i:05d}.jpg" for i in range(20_579)])
    monkeypatch.setattr(split, "_copy", lambda source, target: None)
    split_dataset(*split_folders)
    assert capsys.readouterr().out == "Dataset split complete. 16463 training images, 4116 test images.\n"


def test_the_same_seed_and_names_give_the_same_split_on_any_machine(split_folders, tmp_path):
    source, *_ = split_folders
    first, again, other = (split_dataset(source, tmp_path / f"a{i}", tmp_path / f"b{i}", random_state=i // 2) for i in range(3))
    assert first == again != other
    assert split_dataset(*split_folders).test == ["01.jpg", "08.jpg"]


@pytest.mark.parametrize(("test_size", "n_test"), [(0.2, 2), (0.25, 3), (3, 3), (Fraction(2, 5), 4), (9, 9)])
def test_test_size_is_a_fraction_or_a_number(split_folders, test_size, n_test):
    assert len(split_dataset(*split_folders, test_size=test_size).test) == n_test


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=3))
def test_every_image_is_in_exactly_one_folder_however_often_it_is_split(splits):
    with tempfile.TemporaryDirectory() as folder:
        source, train, test = (Path(folder, name) for name in ("source", "train", "test"))
        write_files(source, NAMES)
        for seed, test_size in splits:
            split = split_dataset(source, train, test, test_size, seed)
        assert not set(images_in(train)) & set(images_in(test))
        assert images_in(train) | images_in(test) == tree(source)
        assert sorted(images_in(train)) == split.train and sorted(images_in(test)) == split.test


def test_splitting_other_images_leaves_nothing_of_an_earlier_split(split_folders, tmp_path):
    source, train, test = split_folders
    split_dataset(source, train, test)
    other = write_files(tmp_path / "other", ["breed/a.png", "breed/b.png", "00.jpg"])
    (other / "00.jpg").write_text("another picture of the same name")
    split_dataset(other, train, test, test_size=1)
    assert images_in(train) | images_in(test) == tree(other)
    split_dataset(source, train, test)
    assert not (train / "breed").exists() and not (test / "breed").exists()


def test_a_folder_takes_the_place_of_a_file_of_its_name_and_a_file_that_of_a_folder(tmp_path):
    files = write_files(tmp_path / "files", NAMES)
    below = write_files(tmp_path / "below", [f"{name}/{i}.jpg" for name in NAMES for i in range(2)])
    for source in (files, below, files):
        split_dataset(source, tmp_path / "train", tmp_path / "test")
        assert images_in(tmp_path / "train") | images_in(tmp_path / "test") == tree(source)


def test_images_of_the_same_name_in_different_subfolders_survive(tmp_path):
    source = write_files(tmp_path / "source", [f"breed_{i}/dog.png" for i in range(6)])
    split_dataset(source, tmp_path / "train", tmp_path / "test", test_size=3)
    assert images_in(tmp_path / "train") | images_in(tmp_path / "test") == tree(source)


def test_files_that_no_split_put_there_stay_as_they_are(split_folders):
    source, train, test = split_folders
    foreign = ["README.md", "mine/photo.jpg"]
    write_files(train, foreign)
    for seed in range(3):
        split_dataset(source, train, test, random_state=seed)
        assert {name: tree(train)[name].decode() for name in foreign} == {name: f"content of {name}" for name in foreign}


@pytest.mark.parametrize("in_the_way", ["breed/7.jpg", "breed"])
def test_a_foreign_file_in_the_way_is_an_error_before_anything_is_written(tmp_path, in_the_way):
    source = write_files(tmp_path / "source", [f"breed/{i}.jpg" for i in range(10)])
    for folder in ("train", "test"):
        write_files(tmp_path / folder, [in_the_way])
    before = tree(tmp_path)
    with pytest.raises(FileExistsError, match="in the way"):
        split_dataset(source, tmp_path / "train", tmp_path / "test")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"train_dir": "source/train"}, "must be apart"),
        ({"test_dir": "source"}, "must be apart"),
        ({"test_dir": "train"}, "must be apart"),
        ({"train_dir": "test/train"}, "must be apart"),
        ({"source_dir": "train/photos"}, "must be apart"),
        ({"source_dir": "one"}, "only '1.png'|in 1..0"),
        ({"source_dir": "none"}, "no images"),
        *(({"test_size": size}, "out of range") for size in (0, 10, -1, 0.0, 1.0, 1.5, Fraction(1), float("nan"))),
    ],
    ids=str,
)
def test_what_cannot_be_split_is_an_error_before_anything_is_written(tmp_path, wrong, reason):
    write_files(tmp_path, [*(f"source/{name}" for name in NAMES), "one/1.png", "none/notes.txt", "train/photos/1.png"])
    before = tree(tmp_path)
    given = {"source_dir": "source", "train_dir": "train", "test_dir": "test"} | wrong
    with pytest.raises(ValueError, match=reason):
        split_dataset(**{name: tmp_path / value if name.endswith("dir") else value for name, value in given.items()})
    assert tree(tmp_path) == before


@pytest.mark.parametrize("copies_before_the_stop", [0, 1, 5, 9])
def test_a_split_cut_short_is_refused_for_reading_and_finished_by_the_next(split_folders, monkeypatch, copies_before_the_stop):
    source, train, test = split_folders
    split_dataset(source, train, test, random_state=1)  # of which the next one leaves nothing
    other = write_files(source.parent / "other", [f"new/{name}" for name in NAMES])
    turns, write_bytes = count(), Path.write_bytes

    def write_or_stop(path, content):
        if next(turns) >= copies_before_the_stop:
            write_bytes(path, content[:3])
            raise OSError("disk full")
        write_bytes(path, content)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(Path, "write_bytes", write_or_stop)
        split_dataset(other, train, test)
    with pytest.raises(ValueError, match="cut short"):
        load_images(test)
    split_dataset(other, train, test)
    split_dataset(other, train.parent / "whole train", test.parent / "whole test")
    assert tree(train) == tree(train.parent / "whole train")
    assert tree(test) == tree(test.parent / "whole test")


def unreadable(monkeypatch, *names):
    real = Path.read_bytes

    def read_bytes(path):
        if path.name in names:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)


def test_an_image_that_cannot_be_read_is_left_out_and_no_other_file_of_its_name_is_touched(split_folders, monkeypatch):
    _, train, test = split_folders
    write_files(test, ["00.jpg"])  # 00.jpg of the source falls to train
    unreadable(monkeypatch, "00.jpg")
    with pytest.warns(UserWarning, match=r"1 of 10 .*'00.jpg' \(Permission denied\)"):
        split = split_dataset(*split_folders)
    monkeypatch.undo()
    assert len(split.train) == 7 and "00.jpg" not in images_in(train) and "00.jpg" not in split.train
    assert tree(test)["00.jpg"] == b"content of 00.jpg"
    assert split_dataset(*split_folders).train == sorted([*split.train, "00.jpg"]), "once it can be read it is there"


def test_a_source_that_is_mostly_unreadable_leaves_the_images_of_the_split_before(split_folders, tmp_path, monkeypatch):
    split_dataset(*split_folders)
    before = images_in(split_folders[1])
    other = write_files(tmp_path / "other", [f"new {i}.jpg" for i in range(10)])
    unreadable(monkeypatch, *(f"new {i}.jpg" for i in range(6)))
    with pytest.raises(ValueError, match=r"6 of 10 .*more than half"):
        split_dataset(other, *split_folders[1:])
    monkeypatch.undo()
    assert before.items() <= images_in(split_folders[1]).items()


def test_a_side_of_which_nothing_can_be_read_is_an_error(split_folders, monkeypatch):
    unreadable(monkeypatch, "01.jpg", "08.jpg")  # all that are put aside
    with pytest.warns(UserWarning, match="2 of 10"), pytest.raises(ValueError, match="no image is left for testing"):
        split_dataset(*split_folders)


def test_a_split_that_is_there_already_is_not_written_again(split_folders, monkeypatch):
    (split_folders[0] / "boxes.json").write_text(json.dumps({name: [0, 0.1, 1, 1] for name in NAMES}))
    first = split_dataset(*split_folders)
    times = {path: path.stat().st_mtime_ns for folder in split_folders[1:] for path in folder.iterdir()}
    assert split_dataset(*split_folders) == first
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.parametrize(
    "listing",
    [
        '{"files": ["D:precious.jpg"]}',
        '{"files": "precious.jpg"}',
        '{"files": ["a/..\\\\precious.jpg"]}',
        '{"files": ["../precious.jpg"]}',
        '{"files": ["/precious.jpg"]}',
        "{",
        "[]",
        "{}",
        "\x00",
    ],
)
def test_a_list_that_no_split_wrote_is_refused_and_nothing_is_deleted(split_folders, listing):
    source, train, test = split_folders
    write_files(train.parent, ["precious.jpg"])
    train.mkdir()
    (train / MANIFEST).write_text(listing)
    before = tree(train.parent)
    for act in (lambda: split_dataset(source, train, test), lambda: load_images(train)):
        with pytest.raises(ValueError, match="delete it"):
            act()
    assert tree(train.parent) == before


BREEDS = [f"{breed}/{i}.jpg" for breed, n in (("beagle", 20), ("pug", 10), ("n02085620-Chihuahua", 5)) for i in range(n)]


def test_a_stratified_split_puts_the_same_share_of_every_breed_aside(tmp_path):
    source = write_files(tmp_path / "source", BREEDS)
    for seed in range(3):
        split = split_dataset(source, tmp_path / "train", tmp_path / "test", random_state=seed, stratify=True)
        assert Counter(map(breed_of, split.test)) == {"beagle": 4, "pug": 2, "Chihuahua": 1}
        assert sorted(split.train + split.test) == sorted(BREEDS)
    flat = write_files(tmp_path / "flat", [f"n0208562{i % 2}_{i}.jpg" for i in range(10)])
    split = split_dataset(flat, tmp_path / "flat train", tmp_path / "flat test", stratify=True)
    assert len(set(map(breed_of, split.test))) == 2


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (NAMES, "of 10 images is not known"),
        ([*BREEDS, "pug.jpg"], "of 1 images is not known"),
        ([*BREEDS, "borzoi/a.jpg"], "only one image of borzoi"),
        ([f"breed {i // 2}/{i}.jpg" for i in range(10)], "test_size=0.2 does not go with 5 breeds"),
    ],
)
def test_what_cannot_be_stratified_is_an_error_that_says_why(tmp_path, names, reason):
    source = write_files(tmp_path / "source", names)
    with pytest.raises(ValueError, match=reason):
        split_dataset(source, tmp_path / "train", tmp_path / "test", stratify=True)
    assert not (tmp_path / "train").exists()


@pytest.mark.parametrize("stratify", [False, True])
def test_groups_are_never_torn_apart_and_nothing_is_lost(tmp_path, stratify):
    source = write_files(tmp_path / "source", BREEDS)
    together = [BREEDS[i : i + 3] for i in (0, 6, 20)] + [BREEDS[30:32]]
    torn = 0
    for seed in range(8):
        split = split_dataset(
            source, tmp_path / "train", tmp_path / "test", random_state=seed, together=together, stratify=stratify
        )
        assert sorted(split.train + split.test) == sorted(BREEDS)
        assert all(len({name in split.test for name in group}) == 1 for group in together)
        plain = split_dataset(source, tmp_path / "train", tmp_path / "test", random_state=seed)
        torn += sum(len({name in plain.test for name in group}) == 2 for group in together)
    assert torn > 5, "without being asked it tears some"


@pytest.mark.parametrize("together", [[["00.jpg", "gone.jpg"]], [["00.jpg", "01.jpg"], ["01.jpg", "02.jpg"]]])
def test_groups_of_images_that_are_not_there_or_in_two_of_them_are_refused(split_folders, together):
    with pytest.raises(ValueError, match=r"(gone|01)\.jpg' in `together`"):
        split_dataset(*split_folders, together=together)


def test_prepare_dogs_keeps_a_split_that_is_there_unless_dogs_names_another(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VAE_HOME", str(tmp_path))
    first = ensure_split(10)
    before = tree(tmp_path)
    assert ensure_split(30) == first and tree(tmp_path) == before
    assert "Using the split of 'toy_dogs' that is there: 8 + 2 images." in capsys.readouterr().out
    monkeypatch.setenv("DOGS", str(write_files(tmp_path / "mine", NAMES)))
    mine = ensure_split(10)
    assert sorted(mine.train + mine.test) == NAMES
    monkeypatch.delenv("DOGS")
    assert ensure_split(10) == mine


# ---------------------------------------------------------------- decoding

RED, GREEN, BLUE, WHITE = COLOURS = ((220, 30, 40), (30, 200, 60), (40, 50, 210), (255, 255, 255))


def known_picture(width: int = 96, height: int = 64) -> Image.Image:
    """Red and green above blue and white."""
    small = Image.new("RGB", (2, 2))
    small.putdata(COLOURS)
    return small.resize((width, height), Image.Resampling.NEAREST)


def rotated_by_exif(path: Path, size: tuple[int, int], **options) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise when shown
    known_picture(*size).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, **options)


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


@pytest.mark.parametrize(
    ("name", "save", "tolerance"),
    [
        ("rgb.png", lambda path: known_picture().save(path), 1),
        ("tall.png", lambda path: known_picture(20, 300).save(path), 1),
        ("rgb.jpg", lambda path: known_picture().save(path, quality=95), 6),
        ("large.jpg", lambda path: known_picture(2400, 1600).save(path, quality=95), 6),
        ("cmyk.jpg", lambda path: known_picture().convert("CMYK").save(path, quality=95), 6),
        ("palette.png", lambda path: known_picture().quantize(4).save(path), 1),
        ("palette_see_through.png", lambda path: with_see_through_corner(path, "P"), 1),
        ("rgba.png", lambda path: with_see_through_corner(path, "RGBA"), 1),
        ("rotated.jpg", lambda path: rotated_by_exif(path, (96, 64), quality=95), 6),
        ("rotated_large.jpg", lambda path: rotated_by_exif(path, (2400, 1600), quality=95), 6),
        ("rotated.png", lambda path: rotated_by_exif(path, (96, 64)), 1),
        ("lossless.webp", lambda path: known_picture().save(path, lossless=True), 1),
        ("lossy.webp", lambda path: known_picture().save(path, quality=95), 12),
    ],
)
def test_a_known_picture_has_its_colours_in_place_in_every_format(tmp_path, name, save, tolerance):
    save(tmp_path / name)
    decoded = decode_image(tmp_path / name)
    assert decoded.shape == (56, 56, 3) and decoded.dtype == np.uint8
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


@pytest.mark.parametrize(
    ("size", "box", "square_of"),
    [
        ((96, 64), None, (16, 0, 80, 64)),  # the largest in the middle
        ((64, 96), None, (0, 16, 64, 80)),
        ((50, 50), None, (0, 0, 50, 50)),
        ((200, 100), (0.5, 0.2, 0.7, 0.6), (96, 16, 144, 64)),  # 40 x 40 and a tenth on each side
        ((200, 100), (0.0, 0.0, 0.2, 0.4), (0, 0, 48, 48)),  # moved inside
        ((200, 100), (0.75, 0.5, 1.0, 1.0), (140, 40, 200, 100)),
        ((200, 100), (0.1, 0.4, 0.9, 0.6), (50, 0, 150, 100)),  # wider than the picture is high
    ],
)
def test_the_square_to_cut_out_lies_around_the_box_and_inside_the_picture(size, box, square_of):
    assert square(*size, box) == square_of


@pytest.mark.parametrize("width", [96, 2400], ids=["small", "large"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_crop_shows_what_its_box_holds(tmp_path, width, suffix, turned):
    """The lower left corner of the known picture, blue; as it is stored, however it is to be turned for showing."""
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    path = tmp_path / f"dog.{suffix}"
    known_picture(width, width * 2 // 3).save(path, exif=exif, quality=95)
    cut = decode_image(path, 16, crop=True, box=(0.05, 0.6, 0.3, 0.9)).astype(int)
    assert np.abs(cut - BLUE).max() <= 8
    middle = decode_image(path, 16, crop=True).astype(int)
    corners = [middle[y, x] for y in (3, 12) for x in (3, 12)]
    wanted = (BLUE, RED, WHITE, GREEN) if turned else COLOURS
    assert np.abs(np.array(corners) - wanted).max() <= 8


def test_a_split_that_is_asked_to_crop_is_loaded_cropped_around_its_boxes_and_again_squashed(tmp_path):
    source = tmp_path / "dogs"
    source.mkdir()
    for i in range(5):
        known_picture().save(source / f"{i}.png")
    (source / "boxes.json").write_text(json.dumps({f"{i}.png": [0.05, 0.6, 0.3, 0.9] for i in range(4)}))
    train, test, cache = tmp_path / "train", tmp_path / "test", tmp_path / "cache"
    loaded = {}
    for crop in (True, False):
        split_dataset(source, train, test, crop=crop)
        parts = [load_images(folder, 16, cache_dir=cache) for folder in (train, test)]
        loaded[crop] = {name: image for part in parts for name, image in zip(part.names, part.pixels, strict=True)}
    blue = torch.tensor(BLUE)[:, None, None]
    for i in range(4):
        assert (loaded[True][f"{i}.png"].int() - blue).abs().max() <= 2
    middle = torch.from_numpy(decode_image(source / "4.png", 16, crop=True).copy()).permute(2, 0, 1)
    whole = torch.from_numpy(decode_image(source / "4.png", 16).copy()).permute(2, 0, 1)
    assert torch.equal(loaded[True]["4.png"], middle) and torch.equal(loaded[False]["0.png"], whole)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"a.png": [0, 0, 1]}', '{"a.png": [0.5, 0, 0.4, 1]}', '{"a.png": [0, 0, 2, 1]}', '{"a.png": "left"}'],
)
def test_boxes_that_say_nothing_sensible_are_refused_by_name(tmp_path, content):
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(ValueError, match=r"boxes.json' does not say where dogs are"):
        read_boxes(tmp_path / "boxes.json")


@pytest.mark.parametrize("allowed", [96 * 64 - 1, 96 * 64 // 2 - 1, 10])
def test_a_picture_of_more_pixels_than_is_safe_is_not_decoded(tmp_path, monkeypatch, allowed):
    known_picture().save(tmp_path / "bomb.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", allowed)
    with warnings.catch_warnings(), pytest.raises(ValueError):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        decode_image(tmp_path / "bomb.png")


# ---------------------------------------------------------------- loading


def test_images_come_in_sorted_order_as_bytes(tmp_path):
    images = load_images(write_images(tmp_path / "dogs", 5), image_size=16, cache_dir=tmp_path / "cache")
    assert images.names == [f"{i:02d}.png" for i in range(5)] and len(images) == 5
    colours = torch.tensor([(i, 2 * i, 3 * i) for i in range(5)], dtype=torch.uint8)
    assert torch.equal(images.pixels, colours[:, :, None, None].expand(5, 3, 16, 16))


def test_a_limit_reads_the_first_images_only(tmp_path):
    folder = write_images(tmp_path / "dogs", 5)
    whole, some = (load_images(folder, 16, limit, tmp_path / "cache") for limit in (None, 3))
    assert some.names == whole.names[:3] and torch.equal(some.pixels, whole.pixels[:3])


def test_a_file_that_cannot_be_read_is_skipped_and_named_by_one_warning_every_time(tmp_path):
    folder = write_images(tmp_path / "dogs", 4)
    (folder / "01.png").write_bytes((folder / "03.png").read_bytes()[:50])
    write_files(folder, ["empty.jpg"])
    for _ in range(2):  # decoded, and from the cache
        with pytest.warns(UserWarning) as caught:
            images = load_images(folder, 16, cache_dir=tmp_path / "cache")
        assert len(caught) == 1
        assert all(text in str(caught[0].message) for text in ("2 of 5", "01.png", "empty.jpg"))
        assert images.names == ["00.png", "02.png", "03.png"]
        assert images.pixels[:, 0, 0, 0].tolist() == [0, 2, 3]


def test_when_no_image_can_be_read_that_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"2 of 2 images.*more than half.*a\.png"):
        load_images(write_files(tmp_path / "dogs", ["a.png", "b.jpg"]), 16, cache_dir=tmp_path / "cache")


def test_strangers_in_a_split_folder_are_left_out_and_warned_of(tmp_path):
    split_dataset(write_images(tmp_path / "source", 8), tmp_path / "train", tmp_path / "test")
    write_files(tmp_path / "train", ["stranger.png"])
    with pytest.warns(UserWarning, match="1 images.*stranger.png"):
        images = load_images(tmp_path / "train", 16, cache_dir=tmp_path / "cache")
    assert len(images) == 6 and "stranger.png" not in images.names


@pytest.mark.parametrize("n_gone", [1, 2])
def test_images_gone_from_a_split_folder_are_an_error(tmp_path, n_gone):
    split = split_dataset(write_images(tmp_path / "source", 8), tmp_path / "train", tmp_path / "test")
    for name in split.test[:n_gone]:
        (tmp_path / "test" / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{n_gone} images of the split are gone.*{split.test[0]}"):
        load_images(tmp_path / "test", 16, cache_dir=tmp_path / "cache")


def test_images_are_decoded_once(tmp_path, monkeypatch):
    folder = write_images(tmp_path / "dogs", 4)
    first = load_images(folder, 16, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(data, "decode_image", lambda *_: pytest.fail("decoded again"))
    again = load_images(folder, 16, cache_dir=tmp_path / "cache")
    assert again.names == first.names and torch.equal(again.pixels, first.pixels)


@pytest.mark.parametrize("change", ["edit", "add", "remove", "size", "damage", "cut"])
def test_the_cache_is_made_again_when_it_does_not_fit_or_is_damaged(tmp_path, change):
    folder, cache = write_images(tmp_path / "dogs", 4), tmp_path / "cache"
    load_images(folder, 16, cache_dir=cache)
    (stored,) = cache.iterdir()
    if change == "edit":
        Image.new("RGB", (11, 11), "white").save(folder / "02.png")
    elif change == "add":
        Image.new("RGB", (11, 11), "white").save(folder / "09.png")
    elif change == "remove":
        (folder / "02.png").unlink()
    elif change == "damage":
        stored.write_bytes(b"\xff" * 100)
    elif change == "cut":
        stored.write_bytes(stored.read_bytes()[:-100])
    size = 24 if change == "size" else 16
    images, fresh = load_images(folder, size, cache_dir=cache), load_images(folder, size, cache_dir=tmp_path / "fresh")
    assert images.names == fresh.names == find_images(folder)
    assert torch.equal(images.pixels, fresh.pixels)


def test_folders_of_the_same_name_do_not_share_a_cache(tmp_path):
    for i, where in enumerate(("train", "test")):
        (tmp_path / where / "dogs").mkdir(parents=True)
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / where / "dogs" / "a.png")
    loaded = [load_images(tmp_path / where / "dogs", 16, cache_dir=tmp_path / "cache") for where in ("train", "test") * 2]
    assert [images.pixels.unique().tolist() for images in loaded] == [[0], [1], [0], [1]]


# ---------------------------------------------------------------- in memory


def test_all_256_bytes_survive_the_way_to_signed_and_back():
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    signed = to_float(every)
    assert signed.dtype == torch.float32 and (signed.min(), signed.max()) == (-1, 1)
    assert torch.equal(to_uint8(signed), every)


def test_validation_is_a_seeded_tenth_apart_from_what_is_trained_on():
    images = DogImages(random_pixels(40), [f"{i}" for i in range(40)])
    (train, validation), (_, again), (_, other) = (split_validation(images, random_state=seed) for seed in (1, 1, 2))
    assert len(validation) == 4 and validation.names == again.names != other.names
    assert not set(train.names) & set(validation.names) and set(train.names) | set(validation.names) == set(images.names)
    for part in (train, validation):
        assert torch.equal(part.pixels, images.pixels[[int(name) for name in part.names]])


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
def test_decoded_images_are_a_file_mapped_into_memory_the_first_time_and_after(tmp_path):
    folder = write_images(tmp_path / "dogs", 4)
    for _ in range(2):
        assert str(tmp_path / "cache") in file_behind(load_images(folder, 16, cache_dir=tmp_path / "cache").pixels)


@needs_linux
@pytest.mark.parametrize("above", [0, 2**28])
def test_a_copy_of_many_images_is_kept_in_a_file_that_is_gone_with_it(tmp_path, monkeypatch, above):
    monkeypatch.setenv("VAE_HOME", str(tmp_path))
    monkeypatch.setattr(data, "MAPPED_ABOVE", above)
    images = DogImages(random_pixels(40), [f"{i}" for i in range(40)])
    train, validation = split_validation(images)
    for part in (train, validation):
        assert torch.equal(part.pixels, images.pixels[[int(name) for name in part.names]])
        assert file_behind(part.pixels).startswith(str(tmp_path)) == (above == 0)
    assert not tree(tmp_path)  # it has no name, so nothing can be left behind


def test_images_decoded_into_a_mapped_file_are_those_decoded_into_memory(tmp_path, monkeypatch):
    folder = write_images(tmp_path / "dogs", 4)
    (folder / "02.png").write_text("not an image")
    monkeypatch.setenv("VAE_HOME", str(tmp_path))
    with pytest.warns(UserWarning, match="02.png"):
        in_memory = load_images(folder, 16, cache_dir=tmp_path / "a")
    monkeypatch.setattr(data, "MAPPED_ABOVE", 0)
    with pytest.warns(UserWarning, match="02.png"):
        mapped = load_images(folder, 16, cache_dir=tmp_path / "b")
    assert mapped.names == in_memory.names and torch.equal(mapped.pixels, in_memory.pixels)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot set room aside")
def test_no_room_on_the_disk_is_an_error_that_says_how_much_and_where_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("VAE_HOME", str(tmp_path))
    monkeypatch.setattr(data, "MAPPED_ABOVE", 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"no room for 0\.0 GB of decoded images in .*cache.*No space left"):
        DogImages(random_pixels(4), list("abcd")).take([1, 2])
    assert not tree(tmp_path)
