"""Photos by name come whole or not at all, from archives that cannot reach outside; asked of a server on this machine."""

import gzip
import hashlib
import io
import re
import socket
import tarfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pooch
import pytest
from PIL import Image
from tiny import tree, write_files

from vae_helpers.config import Folders
from vae_helpers.data import (
    BOXES,
    COLLECTIONS,
    LEAST,
    breeds_of,
    ensure_split,
    fetch_photos,
    find_images,
    photos,
    read_boxes,
    read_manifest,
    resolve_source,
    unpack,
)

# ---------------------------------------------------------------- small archives of the published layouts

SIZE = WIDTH, HEIGHT = 40, 20  # of every photo
CHIHUAHUA, POODLE, SHELTIE = "n02085620-Chihuahua", "n02113624-toy_poodle", "n02105855-Shetland_sheepdog"
STANFORD = [f"{breed}/{breed[:9]}_{i}.jpg" for breed in (CHIHUAHUA, SHELTIE, POODLE) for i in range(1, 5)]
NOT_A_JPEG = f"{SHELTIE}/n02105855_2933.jpg"
DOGS_IN = {name: [(i, 0, WIDTH, HEIGHT)] for i, name in enumerate(STANFORD)} | {  # left, top, right, bottom in pixels
    NOT_A_JPEG: [(1, 1, 9, 9)],
    STANFORD[1]: [(0, 0, 10, 10), (10, 5, 30, 15), (30, 0, 39, 10)],
    STANFORD[2]: [(-3, 5, WIDTH + 5, 15)],
    STANFORD[3]: [(9, 9, 9, 15)],
    STANFORD[4]: [],
}
STANFORD_BOXES = {name: (i / WIDTH, 0, 1, 1) for i, name in enumerate(STANFORD) if i == 0 or i > 4} | {
    STANFORD[1]: (0.25, 0.25, 0.75, 0.75),
    STANFORD[2]: (0, 0.25, 1, 0.75),
}

OXFORD_HALVES = {
    "trainval": ["Abyssinian_1", "american_bulldog_1", "basset_hound_1"],
    "test": ["Abyssinian_2", "american_bulldog_2", "basset_hound_2", "basset_hound_10"],
}
OXFORD_BREEDS = ["Abyssinian", "american_bulldog", "basset_hound"]  # the first one is of cats
OUTLINES = {
    "american_bulldog_1": (10, 5, 30, 15),
    "basset_hound_10": (0, 0, WIDTH, HEIGHT),
}
NO_OUTLINE = (WIDTH, HEIGHT, WIDTH, HEIGHT)  # nothing but background


def visible(folder):
    """Names in a folder, but for the lock by which several processes wait for one another."""
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"]


def tar(files: dict[str, bytes], compression: str = "") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{compression}") as archive:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return file.getvalue()


def picture(i: int, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", SIZE, (i, 2 * i, 3 * i)).save(file, kind)
    return file.getvalue()


def annotation(name: str) -> bytes:
    dogs = "".join(
        f"<object><name>dog</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in DOGS_IN[name]
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation><folder>1</folder><filename>%s</filename>{size}<segment>0</segment>{dogs}</annotation>".encode()


def trimap(outline: tuple[int, int, int, int]) -> bytes:
    animal, background, edge = 1, 2, 3
    left, top, right, bottom = outline
    pixels = np.full((HEIGHT, WIDTH), background, np.uint8)
    pixels[top:bottom, left:right] = edge
    pixels[top + 1 : bottom - 1, left + 1 : right - 1] = animal
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def stanford_archives() -> dict[str, bytes]:
    images = {f"Images/{name}": picture(i) for i, name in enumerate(STANFORD)} | {f"Images/{NOT_A_JPEG}": picture(99, "PNG")}
    notes = {f"Annotation/{name.removesuffix('.jpg')}": annotation(name) for name in DOGS_IN}
    return {"images.tar": tar(images), "annotation.tar": tar(notes)}


def oxford_archives() -> dict[str, bytes]:
    pets = [pet for half in OXFORD_HALVES.values() for pet in half]
    numbers = {pet: OXFORD_BREEDS.index(pet.rpartition("_")[0]) + 1 for pet in pets}
    lines = {pet: f"{pet} {n} {min(n, 2)} {max(n - 1, 1)}\n" for pet, n in numbers.items()}
    lists = {half: "".join(map(lines.get, names)) for half, names in OXFORD_HALVES.items()}
    lists["list"] = "#Image CLASS-ID SPECIES BREED ID\n" + "".join(lines.values())
    images = {f"images/{pet}.jpg": picture(i) for i, pet in enumerate(pets)} | {"images/american_bulldog_9.mat": b"beside"}
    notes = {f"annotations/{name}.txt": text.encode() for name, text in lists.items()}
    notes |= {f"annotations/trimaps/{pet}.png": trimap(OUTLINES.get(pet, NO_OUTLINE)) for pet in pets}
    notes["annotations/trimaps/._basset_hound_1.png"] = b"a Mac's own"
    return {"images.tar.gz": tar(images, "gz"), "annotations.tar.gz": tar(notes, "gz")}


# ---------------------------------------------------------------- a server of our own

ARCHIVES = {"stanford-dogs": stanford_archives(), "oxford-pets": oxford_archives()}
IMAGES, ANNOTATIONS = "/stanford-dogs/images.tar", "/stanford-dogs/annotation.tar"


class Server(ThreadingHTTPServer):
    """Serves `files`, breaks off half way as often as `breaks` says, and notes what it was asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.breaks: Counter[str] = Counter()
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        content = self.server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        breaks_off = self.server.breaks[self.path] > 0
        self.server.breaks[self.path] -= breaks_off
        self.wfile.write(content[: len(content) // 2] if breaks_off else content)

    def log_message(self, *_):
        pass


def serve_from(port: int, monkeypatch, folder: Path) -> None:
    """The archives of the collections are these small ones, on a port of this machine."""
    for name, files in ARCHIVES.items():
        about, *_ = (photos.REGISTRIES / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        lines = [f"{file} sha256:{sha256(files[file])} http://127.0.0.1:{port}/{name}/{file}" for file in files]
        (folder / f"{name}.txt").write_text("\n".join([about, *lines]), encoding="utf-8")
    monkeypatch.setattr(photos, "REGISTRIES", folder)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def server(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(pooch.core, "time", SimpleNamespace(sleep=lambda seconds: None))
    with Server() as server:
        for name, files in ARCHIVES.items():
            server.files |= {f"/{name}/{file}": content for file, content in files.items()}
        serve_from(server.server_port, monkeypatch, tmp_path_factory.mktemp("registries"))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def whole(server, tmp_path_factory):
    """What is in the folder of photos when nothing went wrong, made elsewhere."""
    folder = fetch_photos("stanford-dogs", tmp_path_factory.mktemp("elsewhere"))
    server.asked.clear()
    return tree(folder.parent)


def images_in(folder: Path) -> dict[str, bytes]:
    files = tree(folder)
    return {name: files[name] for name in find_images(folder)}


# ---------------------------------------------------------------- what is fetched


def breeds_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


def test_stanford_dogs_lie_by_breed_with_the_largest_dog_of_each_photo_marked(server, tmp_path, capsys):
    folder = fetch_photos("stanford-dogs", tmp_path)
    assert images_in(folder) == {name: picture(i) for i, name in enumerate(STANFORD)}
    assert set(breeds_of(find_images(folder))) == {"Chihuahua", "Shetland sheepdog", "toy poodle"}
    assert read_boxes(folder / BOXES) == {name: {"dog": box} for name, box in STANFORD_BOXES.items()}
    assert "12 dogs are in" in capsys.readouterr().out


def test_oxford_pets_are_the_dogs_of_both_halves_with_a_box_around_their_outline(server, tmp_path, capsys):
    folder = fetch_photos("oxford-pets", tmp_path)
    bulldog, basset = "American Bulldog/american_bulldog", "Basset Hound/basset_hound"
    assert images_in(folder) == {
        f"{bulldog}_1.jpg": picture(1),
        f"{basset}_1.jpg": picture(2),
        f"{bulldog}_2.jpg": picture(4),
        f"{basset}_2.jpg": picture(5),
        f"{basset}_10.jpg": picture(6),
    }
    boxes = {f"{bulldog}_1.jpg": (0.25, 0.25, 0.75, 0.75), f"{basset}_10.jpg": (0, 0, 1, 1)}
    assert read_boxes(folder / BOXES) == {name: {"dog": box} for name, box in boxes.items()}
    assert breeds_in(folder) == {"American Bulldog", "Basset Hound"} and "5 dogs are in" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "owed"), [("stanford-dogs", "not for trade"), ("oxford-pets", "CC BY-SA 4.0")])
def test_photos_are_fetched_once_with_their_terms_and_nothing_else_is_left(server, tmp_path, capsys, name, owed):
    folder = fetch_photos(name, tmp_path)
    printed, first = capsys.readouterr().out, tree(tmp_path)
    assert printed.count(owed) == printed.count("Cite: ") == 1
    assert all(text in (folder / "ABOUT.txt").read_text(encoding="utf-8") for text in (owed, "Cite: "))
    assert visible(tmp_path) == [name]
    server.asked.clear()
    assert fetch_photos(name, tmp_path) == folder and tree(tmp_path) == first
    assert not server.asked and capsys.readouterr() == ("", "")


# ---------------------------------------------------------------- a bad connection


def test_a_download_that_breaks_off_is_tried_again(server, whole, tmp_path):
    server.breaks[IMAGES] = 2
    fetch_photos("stanford-dogs", tmp_path)
    assert Counter(server.asked) == {IMAGES: 3, ANNOTATIONS: 1} and tree(tmp_path) == whole


def breaks_off(server, patch):
    patch.setitem(server.breaks, IMAGES, 99)


def not_found(server, patch):
    patch.delitem(server.files, IMAGES)


def another_file(server, patch):
    patch.setitem(server.files, IMAGES, server.files[IMAGES][:-1] + b"\x01")


def nobody_listens(server, patch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    registry = photos.REGISTRIES / "stanford-dogs.txt"
    elsewhere = registry.read_text(encoding="utf-8").replace(f":{server.server_port}/", f":{port}/")
    patch.setattr(photos, "REGISTRIES", registry.parent / "moved")
    write_files(photos.REGISTRIES, ["stanford-dogs.txt"])
    (photos.REGISTRIES / "stanford-dogs.txt").write_text(elsewhere, encoding="utf-8")


@pytest.mark.parametrize("trouble", [breaks_off, not_found, another_file, nobody_listens])
def test_what_cannot_be_fetched_is_an_error_that_names_it_and_works_once_it_can(server, whole, tmp_path, trouble):
    message = rf"(?s)could not fetch http://127\.0\.0\.1:\d+{IMAGES}, tried 4 times: .*Run the same again"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match=message):
        trouble(server, patch)
        fetch_photos("stanford-dogs", tmp_path)
    assert server.asked == [IMAGES] * (0 if trouble is nobody_listens else 4)
    assert list(tree(tmp_path)) == [".stanford-dogs.lock"] and not (tmp_path / "stanford-dogs").exists()
    fetch_photos("stanford-dogs", tmp_path)
    assert tree(tmp_path) == whole


@pytest.mark.parametrize("is_right", [True, False], ids=["right", "wrong"])
def test_a_file_put_where_the_error_says_is_taken_only_if_it_is_the_right_one(server, whole, tmp_path, is_right):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="could not fetch") as raised:
        not_found(server, patch)
        fetch_photos("stanford-dogs", tmp_path)
    server.asked.clear()
    path = re.search("put the file at '(.+)' yourself", str(raised.value))[1]
    Path(path).write_bytes(server.files[IMAGES if is_right else ANNOTATIONS])
    fetch_photos("stanford-dogs", tmp_path)
    assert Counter(server.asked) == Counter([ANNOTATIONS] if is_right else [IMAGES, ANNOTATIONS])
    assert tree(tmp_path) == whole


@pytest.mark.parametrize("begun", [".stanford-dogs.partial/unpacked/Images/half.jpg", ".stanford-dogs.downloads/tmpkilled"])
def test_a_fetch_that_was_stopped_is_finished_by_the_next_and_none_of_it_is_left(server, whole, tmp_path, begun):
    write_files(tmp_path, [begun])  # kills at random moments are in tests/slow/test_interruptions.py
    fetch_photos("stanford-dogs", tmp_path)
    assert tree(tmp_path) == whole and visible(tmp_path) == ["stanford-dogs"]


def test_a_fetch_stopped_by_the_keyboard_leaves_no_folder_and_nothing_is_fetched_twice(server, whole, tmp_path, monkeypatch):
    def stop(unpacked, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(COLLECTIONS, "stanford-dogs", stop)
        fetch_photos("stanford-dogs", tmp_path)
    assert not (tmp_path / "stanford-dogs").exists()
    fetch_photos("stanford-dogs", tmp_path)
    assert tree(tmp_path) == whole and Counter(server.asked) == {IMAGES: 1, ANNOTATIONS: 1}


def test_of_several_that_want_the_same_photos_at_once_one_fetches_and_all_get_them_whole(server, whole, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        fetched = list(pool.map(fetch_photos, ["stanford-dogs"] * 4, [tmp_path] * 4))
    assert set(fetched) == {tmp_path / "stanford-dogs"} and tree(tmp_path) == whole
    assert Counter(server.asked) == {IMAGES: 1, ANNOTATIONS: 1}


@pytest.mark.parametrize("is_file", [True, False])
def test_what_is_in_the_way_of_photos_is_named_and_nothing_is_fetched(server, tmp_path, is_file):
    folder = tmp_path / "stanford-dogs"
    folder.write_text("mine") if is_file else folder.mkdir()
    with pytest.raises(FileExistsError, match="stanford-dogs' is in the way"):
        fetch_photos("stanford-dogs", tmp_path)
    assert not server.asked and visible(tmp_path) == ["stanford-dogs"]


# ---------------------------------------------------------------- unpacking


def everything_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("compression", ["", "gz"])
def test_plain_files_are_unpacked_with_their_folders(tmp_path, compression):
    files = {"a.txt": b"a", "./deep/er/b.txt": b"b" * 100_000, "deep/é c.txt": b"", "..dots/...d": b"d"}
    (tmp_path / "plain").write_bytes(tar(files, compression))
    unpack(tmp_path / "plain", tmp_path / "new" / "folder")
    assert tree(tmp_path / "new" / "folder") == {name.removeprefix("./"): content for name, content in files.items()}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, tarfile.REGTYPE) for name in ("{here}/evil", "..", "../evil", "a/../../evil", "a/../evil")),
        *((name, tarfile.REGTYPE) for name in ("C:evil", "C:\\evil", "\\evil", "\\\\host\\share\\evil", "..\\evil")),
        *((name, tarfile.DIRTYPE) for name in ("{here}/evil", "../evil")),
        *(("evil", kind) for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)),
    ],
)
def test_an_archive_that_reaches_outside_is_refused_before_anything_is_written(tmp_path, name, kind):
    about = tarfile.TarInfo(name.format(here=tmp_path))
    about.type, about.linkname = kind, "good/a.txt"
    home = tmp_path / "home"
    home.mkdir()
    with tarfile.open(home / "bad.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("good/a.txt"))
        archive.addfile(about)
    before = everything_below(tmp_path)
    with pytest.raises(ValueError, match=f"bad.tar.*{re.escape(repr(about.name))}, which is not a plain file"):
        unpack(home / "bad.tar", home / "new" / "folder")
    assert everything_below(tmp_path) == before


def damaged_inside(content: bytes) -> bytes:
    """As a gzip file whose second block does not say how long it is."""
    packed = bytearray(gzip.compress(content, 0))
    packed[10 + 5 + int.from_bytes(packed[11:13], "little") + 1] ^= 0xFF  # the header, the first block and its length
    return bytes(packed)


PLAIN, PACKED = (tar({"a.txt": b"a", "b.bin": np.random.default_rng(0).bytes(200_000)}, kind) for kind in ("", "gz"))
DAMAGED = {
    f"{kind} cut to {keep}": whole[: int(keep * len(whole))]
    for kind, whole in (("tar", PLAIN), ("gz", PACKED))
    for keep in (0, 0.5, 0.9)
}
DAMAGED |= {"gz damaged inside": damaged_inside(PLAIN), "a page": b"<p>We have moved</p>" * 100}


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_no_whole_archive_is_an_error_that_names_it_before_anything_is_written(tmp_path, kind):
    (tmp_path / "bad").write_bytes(DAMAGED[kind])
    with pytest.raises(ValueError, match="bad' was not unpacked"):
        unpack(tmp_path / "bad", tmp_path / "folder")
    assert everything_below(tmp_path) == {tmp_path / "bad"}


def test_no_room_to_unpack_is_an_error_that_says_how_much_is_needed_before_anything_is_written(tmp_path, monkeypatch):
    (tmp_path / "large.tar").write_bytes(tar({"a.bin": bytes(1_400_000), "b.bin": bytes(1_100_000)}))
    for free, fits in ((2_499_999, False), (2_500_000, True)):
        monkeypatch.setattr(photos, "free_bytes", lambda path, free=free: free)
        if fits:
            unpack(tmp_path / "large.tar", tmp_path / "folder")
        else:
            with pytest.raises(OSError, match=r"no room to unpack: it needs 2\.5 MB.*Make room"):
                unpack(tmp_path / "large.tar", tmp_path / "folder")
            assert everything_below(tmp_path) == {tmp_path / "large.tar"}


# ---------------------------------------------------------------- dogs by name


def test_a_name_means_the_dogs_of_that_name(server, tmp_path):
    where = Folders(tmp_path)
    assert len(find_images(resolve_source("toy", where, 3))) == 3 and not server.asked
    for name in ("stanford-dogs", "oxford-pets"):
        assert resolve_source(name, where) == where.photos / name == fetch_photos(name, where.photos)


def test_a_folder_is_looked_for_from_here_and_from_home(monkeypatch, tmp_path):
    for place in ("here", "home"):
        (tmp_path / place / f"dogs of {place}").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    for kind in (str, Path):
        for path in ("dogs of here", tmp_path / "here/dogs of here"):
            assert resolve_source(kind(path), Folders(tmp_path)) == Path.cwd() / "dogs of here"
        assert resolve_source(kind("~/dogs of home"), Folders(tmp_path)) == tmp_path / "home" / "dogs of home"


@pytest.mark.parametrize("name", ["no/such/dogs", "Stanford-Dogs-2", "~nobody/dogs", ""])
def test_dogs_that_are_not_there_are_an_error_that_lists_the_names(monkeypatch, tmp_path, name):
    monkeypatch.chdir(write_files(tmp_path, ["dog.jpg"]))
    with pytest.raises(FileNotFoundError, match=f"'{name}': no such folder.*toy, oxford-pets, stanford-dogs"):
        resolve_source(name, Folders(tmp_path))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("dog.jpg", "'dog.jpg': a file: give the folder with the images"),
        ("dogs.zip", "'dogs.zip': a file: .*unpack it first"),
        ("https://example.com/dogs", "an address: download what is there"),
    ],
)
def test_what_is_no_folder_is_named_for_what_it_is(monkeypatch, tmp_path, word, said):
    monkeypatch.chdir(write_files(tmp_path, ["dog.jpg", "dogs.zip"]))
    with pytest.raises(FileNotFoundError, match=said):
        resolve_source(word, Folders(tmp_path))


@pytest.mark.parametrize("word", ["TOY", " Toy ", "'toy'", '"toy"'])
def test_names_of_dogs_may_be_written_in_any_case_and_in_quotes(monkeypatch, tmp_path, word):
    monkeypatch.chdir(tmp_path)
    assert resolve_source(word, Folders(tmp_path), 3) == tmp_path / "data" / "toy_dogs"
    write_files(tmp_path / "My dogs", ["1.jpg"])
    assert resolve_source('"My dogs"', Folders(tmp_path)) == tmp_path / "My dogs"


def test_a_folder_that_is_too_small_for_the_chapters_is_refused_before_anything_is_split(tmp_path):
    folder, where = write_files(tmp_path / "few", [f"{i}.jpg" for i in range(LEAST - 1)]), Folders(tmp_path)
    with pytest.raises(ValueError, match=f"{LEAST - 1} images in .*few' are too few: it takes {LEAST} at least"):
        ensure_split(where, folder)
    assert not where.train.exists()
    write_files(folder, ["one more.jpg"])
    assert len(ensure_split(where, folder).test) == 3


def test_a_split_of_photos_by_name_keeps_breeds_and_boxes_until_other_dogs_are_asked_for(server, tmp_path, capsys):
    where = Folders(tmp_path)
    split = ensure_split(where, "stanford-dogs")
    assert sorted(split.train + split.test) == sorted(STANFORD) and (len(split.train), len(split.test)) == (9, 3)
    for folder, names in ((where.train, split.train), (where.test, split.test)):
        boxes = {name: {"dog": STANFORD_BOXES[name]} for name in names if name in STANFORD_BOXES}
        assert read_manifest(folder)["boxes"] == boxes
        assert sorted(images_in(folder)) == names and not (folder / BOXES).exists()
    capsys.readouterr()
    assert ensure_split(where) == split and "'stanford-dogs'" in capsys.readouterr().out
    toys = ensure_split(where, "toy", n_toy_dogs=5)
    assert sorted(images_in(where.train)) == toys.train and len(toys.train + toys.test) == 5
    assert not read_manifest(where.train)["boxes"] and read_manifest(where.train)["source"] == "toy_dogs"
