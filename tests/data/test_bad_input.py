"""Pictures as people have them: each kind is used as it should be, or named with the reason, and the run goes on."""

import errno
import io
import os
import re
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from tiny import write_images

from vae_helpers.data import decode_image, find_images, load_images, split_dataset
from vae_helpers.files import MAX_BYTES

COLOURS = ((220, 30, 40), (30, 200, 60), (40, 50, 210), (255, 255, 255))  # red and green above blue and white
GOOD = 6


def picture(width: int = 96, height: int = 64) -> Image.Image:
    small = Image.new("RGB", (2, 2))
    small.putdata(COLOURS)
    return small.resize((width, height), Image.Resampling.NEAREST)


def saved(name: str, change=lambda image: image, **options):
    """Makes the known picture, changed, as a file of that name."""

    def make(folder: Path) -> str:
        size = options.pop("size", (96, 64))
        change(picture(*size)).save(folder / name, **options)
        return name

    return make


def written(name: str, content: bytes):
    def make(folder: Path) -> str:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        return name

    return make


def cut(name: str, share: float = 0.6):
    def make(folder: Path) -> str:
        noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / name)
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(share * len(whole))])
        return name

    return make


def corrupt_png(folder: Path) -> str:
    picture().save(folder / "corrupt.png")
    content = bytearray((folder / "corrupt.png").read_bytes())
    start = content.index(b"IDAT") + 6
    content[start : start + 20] = bytes(20)
    (folder / "corrupt.png").write_bytes(content)
    return "corrupt.png"


def png_that_claims(width: int, height: int):
    """A tiny PNG whose header claims that many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    chunks = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts]
    return written("bomb.png", b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def jpeg_that_claims(width: int, height: int):
    file = io.BytesIO()
    picture().save(file, "JPEG")
    size = struct.pack(">HH", 64, 96)
    assert file.getvalue().count(size) == 1
    return written("bomb.jpg", file.getvalue().replace(size, struct.pack(">HH", height, width)))


def text_bomb(folder: Path) -> str:
    notes = PngInfo()
    notes.add_text("comment", "a" * 10**8, zip=True)
    picture().save(folder / "note.png", pnginfo=notes)
    assert (folder / "note.png").stat().st_size < 10**6
    return "note.png"


def animated(name: str, format: str):
    def make(folder: Path) -> str:
        later = [Image.new("RGB", (96, 64), "black")] * 2
        picture().save(folder / name, format, save_all=True, append_images=later, quality=95)
        return name

    return make


def link_to(target: str):
    def make(folder: Path) -> str:
        (folder / "link.jpg").symlink_to(target)
        return "link.jpg"

    return make


def linked_picture(folder: Path) -> str:
    elsewhere = folder / ".elsewhere"
    elsewhere.mkdir()
    picture().save(elsewhere / "original.png")
    (folder / "linked.png").symlink_to(elsewhere / "original.png")
    return "linked.png"


def loop_of_folders(folder: Path) -> str:
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "back").symlink_to(folder)
    return saved("deep/er/a.png")(folder)


def folder_called_like_a_picture(folder: Path) -> str:
    (folder / "x.jpg").mkdir()
    return saved("x.jpg/inside.png")(folder)


def pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe.jpg")
    return "pipe.jpg"


def enormous(folder: Path) -> str:
    with (folder / "enormous.jpg").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    return "enormous.jpg"


def not_utf8(folder: Path) -> str:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        return saved(name)(folder)
    except OSError:
        pytest.skip("this file system takes no such names")


def with_broken_chunk(kind: bytes):
    """A PNG with a note and a gamma, whose chunk of that kind has a wrong checksum."""

    def make(folder: Path) -> str:
        notes = PngInfo()
        notes.add_text("comment", "a dog")
        notes.add(b"gAMA", struct.pack(">I", 45455))
        picture().save(folder / "noted.png", pnginfo=notes)
        content = bytearray((folder / "noted.png").read_bytes())
        start = content.index(kind)
        content[start + 4 + struct.unpack(">I", content[start - 4 : start])[0]] ^= 255
        (folder / "noted.png").write_bytes(content)
        return "noted.png"

    return make


def iso_media(name: str, brand: bytes):
    """What a file of that brand (HEIC, AVIF, a film) begins with, and nothing that could be read."""
    return written(name, struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + b"mif1" + brand + bytes(200))


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 64\n(/tmp/owned) (w) file closefile\nshowpage\n"
HTML = b"<!DOCTYPE html><html><body>404: no such dog</body></html>"
USED = "used"
BAD_INPUT = {
    "corrupt PNG": (corrupt_png, "broken"),
    "corrupt JPEG header": (written("a.jpg", b"\xff\xd8\xff\xe0" + bytes(200)), "cannot|not an image|broken|truncated"),
    "truncated JPEG": (cut("a.jpg"), "truncated"),
    "truncated WebP": (cut("a.webp"), "not an image|truncated|failed|decod"),
    "empty": (written("empty.jpg", b""), "not an image"),
    "HTML saved as .jpg": (written("page.jpg", HTML), "not an image"),
    "PostScript renamed": (written("drawing.jpg", POSTSCRIPT), "not an image"),
    "TIFF": (saved("scan.tif"), USED),
    "TIFF renamed": (saved("scan.jpg", format="TIFF"), USED),
    "JPEG by another name": (saved("web.jfif", format="JPEG", quality=95), USED),
    "JPEG 2000": (saved("old.jp2"), USED),
    "AVIF": (saved("new.avif", quality=95), USED),
    "without a suffix": (saved("IMG_0001", format="PNG"), USED),
    "HEIC of a phone": (iso_media("IMG_1.HEIC", b"heic"), "HEIC picture: save it as .jpg, or pip install pillow-heif"),
    "HEIC renamed": (iso_media("IMG_1.jpg", b"mif1"), "HEIC picture: save it as .jpg"),
    "AVIF that is broken": (iso_media("a.jpg", b"avif"), "AVIF picture, which this Pillow cannot read: save it as .jpg"),
    "a film renamed": (iso_media("a.jpg", b"mp42"), "a film"),
    "a broken note": (with_broken_chunk(b"tEXt"), USED),
    "a broken gamma": (with_broken_chunk(b"gAMA"), USED),
    "a broken header": (with_broken_chunk(b"IHDR"), "not an image|broken"),
    "108 megapixels": (saved("phone.jpg", size=(12_000, 9_000), quality=50), USED),
    "bomb: 900 million pixels": (png_that_claims(30_000, 30_000), "decompression bomb|allowed"),
    "bomb: 100 million pixels": (png_that_claims(10_000, 10_000), "pixels is more than"),
    "bomb: a JPEG of 300 million pixels": (jpeg_that_claims(20_000, 15_000), "20000 x 15000 pixels is more than"),
    "bomb: text that grows": (text_bomb, "too large|Decompressed"),
    "1 x 1": (saved("dot.png", lambda image: image.resize((1, 1))), "1 x 1 pixels is too small"),
    "20,000 x 10": (saved("line.png", size=(20_000, 10)), USED),
    "animated WebP": (animated("dance.webp", "WEBP"), USED),
    "animated PNG": (animated("dance.png", "PNG"), USED),
    "animated GIF renamed": (animated("dance.jpg", "GIF"), USED),
    "BMP renamed": (saved("old.jpg", format="BMP"), USED),
    "1 bit": (
        saved("fax.png", lambda image: image.convert("L").convert("1", dither=Image.Dither.NONE)),
        "used, black and white",
    ),
    "progressive JPEG": (saved("web.jpg", progressive=True, quality=95), USED),
    "a name with spaces": (saved(" my  dog .png"), USED),
    "a name with a newline": (saved("my\ndog.png"), USED),
    "a name with an emoji": (saved("🐕‍🦺 dog.png"), USED),
    "a name with shell words": (saved("$(touch owned); `id` & 'dog'.png"), USED),
    "a name that is not UTF-8": (not_utf8, USED),
    "a name of 251 letters": (saved("d" * 247 + ".png"), USED),
    "a link to a picture": (linked_picture, USED),
    "a link to nowhere": (link_to("gone.jpg"), "No such file"),
    "a link to itself": (link_to("link.jpg"), "symbolic links|No such file"),
    "a loop of folders": (loop_of_folders, USED),
    "a folder called x.jpg": (folder_called_like_a_picture, USED),
    "a pipe": (pipe, "not a file"),
    "257 MB and more": (enormous, "MB, more than the 268 allowed"),
}


def load_split(source: Path, home: Path):
    """name -> pixels after a split, and all that was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        split_dataset(source, home / "train", home / "test", test_size=0.4)
        images = [load_images(home / part, 56, cache_dir=home / "cache") for part in ("train", "test")]
    return {name: image for part in images for name, image in zip(part.names, part.pixels, strict=True)}, [
        str(w.message) for w in caught
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="links and pipes as Linux and macOS have them")
@pytest.mark.parametrize("kind", BAD_INPUT)
def test_each_kind_of_input_is_used_as_it_should_be_or_named_with_the_reason(tmp_path, kind):
    make, verdict = BAD_INPUT[kind]
    good = find_images(write_images(tmp_path / "dogs", GOOD))
    name = make(tmp_path / "dogs")
    read, warned = load_split(tmp_path / "dogs", tmp_path / "home")
    assert set(good) <= set(read), "the others are there"
    if verdict.startswith(USED):
        assert not warned and set(read) == {*good, name}
        corners = [read[name][:, y : y + 12, x : x + 12].float().mean((1, 2)) for y in (8, 36) for x in (8, 36)]
        wanted = torch.tensor(COLOURS).float()
        if verdict != USED:
            wanted = ((wanted @ torch.tensor([0.299, 0.587, 0.114]) > 127) * 255)[:, None].expand(4, 3)
        assert (torch.stack(corners) - wanted).abs().max() <= 12
    else:
        (warning,) = warned
        assert repr(name) in warning and warning.startswith("1 of ") and set(read) == set(good)
        assert re.search(verdict, warning), warning
        assert str(tmp_path) not in warning, "the reason, not the path again"


def swapped_rgb() -> bytes:
    """The profile of a screen whose red is sRGB's green and the other way round, as far as a reader of it can tell."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = profile[green + 4 : green + 12], profile[red + 4 : red + 12]
    return bytes(profile.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be")))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp", "palette.png", "transparent.png"])
def test_colours_are_those_that_the_pictures_profile_means(tmp_path, name):
    image = Image.new("RGBA" if name.startswith("t") else "RGB", (32, 32), (200, 40, 90))
    image = image.convert("P") if name.startswith("p") else image
    image.save(tmp_path / name)
    plain = decode_image(tmp_path / name, 16)[8, 8].astype(int)
    image.save(tmp_path / name, icc_profile=swapped_rgb())
    assert abs(decode_image(tmp_path / name, 16)[8, 8] - plain[[1, 0, 2]]).max() <= 3


@pytest.mark.parametrize("profile", [b"no profile", swapped_rgb()[:200], b"\0" * 128])
def test_a_profile_that_is_broken_is_not_minded(profile):
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 40, 90)).save(file, "PNG", icc_profile=profile)
    assert abs(decode_image(file.getvalue(), 16)[8, 8].astype(int) - (200, 40, 90)).max() <= 1


@pytest.mark.parametrize("marked", [True, False])
def test_a_jpeg_in_printers_inks_is_taken_for_adobes_only_where_it_says_so(marked):
    file = io.BytesIO()
    inks = Image.new("RGB", (32, 32), (220, 200, 40)).convert("CMYK")
    inks.save(file, "JPEG", quality=95)
    content = file.getvalue()
    if not marked:  # as programs write it that do not invert
        file = io.BytesIO()
        inks.point(lambda value: 255 - value).save(file, "JPEG", quality=95)
        at = file.getvalue().index(b"\xff\xee")
        content = file.getvalue()[:at] + file.getvalue()[at + 16 :]
    assert abs(decode_image(content, 16)[8, 8].astype(int) - (220, 200, 40)).max() <= 12


@pytest.mark.parametrize(("n_bad", "stops"), [(5, False), (6, True), (10, True)])
def test_a_run_in_which_more_than_half_is_unusable_stops_and_says_so(tmp_path, n_bad, stops):
    folder = write_images(tmp_path / "dogs", 10)
    for path in sorted(folder.iterdir())[:n_bad]:
        path.write_bytes(HTML)
    for _ in range(2):  # not only the first time
        if stops:
            with pytest.raises(ValueError, match=rf"{n_bad} of 10 images .*more than half.*'00.png' \(not an image\)"):
                load_images(folder, 16, cache_dir=tmp_path / "cache")
        else:
            with pytest.warns(UserWarning, match="5 of 10"):
                assert len(load_images(folder, 16, cache_dir=tmp_path / "cache")) == 5


def test_of_a_long_list_of_unreadable_images_the_first_are_named_and_the_rest_counted(tmp_path):
    folder = write_images(tmp_path / "dogs", 60)
    for path in sorted(folder.iterdir())[:25]:
        path.write_bytes(HTML)
    with pytest.warns(UserWarning, match=r"25 of 60.*'19.png' \(not an image\); and 5 more$") as caught:
        load_images(folder, 16)
    assert "'20.png'" not in str(caught[0].message)


def refusing(real, closed, error):
    def act(path, *args, **options):
        if not isinstance(path, int) and Path(path).name == closed:
            raise OSError(error, os.strerror(error), str(path))
        return real(path, *args, **options)

    return act


def test_a_file_and_a_folder_that_are_not_ours_to_read_are_named(tmp_path, monkeypatch):
    """Root may read everything: so the system's refusal is played."""
    folder = write_images(tmp_path / "dogs", GOOD)
    write_images(folder / "closed", 2)
    monkeypatch.setattr(Path, "read_bytes", refusing(Path.read_bytes, "03.png", errno.EACCES))
    monkeypatch.setattr(os, "scandir", refusing(os.scandir, "closed", errno.EACCES))
    read, warned = load_split(folder, tmp_path / "home")
    assert set(read) == {f"{i:02d}.png" for i in range(GOOD)} - {"03.png"}
    assert any("passed over" in w and "closed' (Permission denied)" in w for w in warned)
    assert any("1 of 6 images cannot be read and are skipped: '03.png' (Permission denied)" in w for w in warned)


def test_a_failure_that_passes_is_not_remembered(tmp_path, monkeypatch):
    """A disk that does not answer, or a refusal, changes nothing about a file by which a cache could notice."""
    folder = write_images(tmp_path / "dogs", GOOD)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refusing(Path.read_bytes, "03.png", errno.EIO))
        for _ in range(2):
            with pytest.warns(UserWarning, match=r"'03.png' \(Input/output error\)"):
                assert len(load_images(folder, 16, cache_dir=tmp_path / "cache")) == GOOD - 1
    assert len(load_images(folder, 16, cache_dir=tmp_path / "cache")) == GOOD


def test_reading_beside_a_process_that_adds_and_removes_images_ends_well(tmp_path):
    folder, stop = write_images(tmp_path / "dogs", 60), threading.Event()

    def meddle():
        i = 0
        while not stop.is_set():
            Image.new("RGB", (10, 10)).save(folder / f"coming {i % 7}.png")
            (folder / f"coming {(i + 3) % 7}.png").unlink(missing_ok=True)
            i += 1

    meddler = threading.Thread(target=meddle)
    meddler.start()
    try:
        for _ in range(5):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                images = load_images(folder, 16, cache_dir=tmp_path / "cache")
            assert {f"{i:02d}.png" for i in range(60)} <= set(images.names)
    finally:
        stop.set()
        meddler.join()


ANY = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """One picture, as each format stores it."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("a.jpg", "a.png", "a.webp", "a.gif", "a.bmp", "a.tif", "a.jp2", "a.avif"):
        picture(24, 16).save(folder / name)
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


@ANY
@given(st.data())
def test_whatever_the_bytes_of_a_file_it_is_decoded_or_refused_by_name(tmp_path, pictures, data):
    whole = pictures[data.draw(st.sampled_from(sorted(pictures)))]
    place = data.draw(st.integers(0, len(whole)))
    junk = data.draw(st.binary(max_size=60))
    content = data.draw(st.sampled_from([junk, whole[:place] + junk, whole[:place] + junk + whole[place + len(junk) :]]))
    path = tmp_path / "any.jpg"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            decoded = decode_image(path, 16)
        except ValueError as error:
            assert "any.jpg" in str(error)
        else:
            assert decoded.shape == (16, 16, 3) and decoded.dtype == np.uint8


NAME = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20)


@ANY
@given(st.lists(st.tuples(NAME, st.sampled_from(["", ".jpg", ".PNG", ".jpeg", ".webp", ".txt", "."])), max_size=8))
def test_whatever_the_names_in_a_folder_each_image_is_found_once(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("any")
    for stem, suffix in names:
        if stem + suffix not in (".", ".."):
            (folder / (stem + suffix)).write_bytes(b"x")
    wanted = {
        path.name
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")
    }
    if wanted:
        found = find_images(folder)
        assert len(found) == len(wanted) and set(found) == wanted
    else:
        with pytest.raises(ValueError, match="no images"):
            find_images(folder)
