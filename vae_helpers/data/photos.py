"""Real dogs by name: fetched, checked, unpacked, their breeds as subfolders and where the dogs are in `boxes.json`.

resolve_source("stanford-dogs") → data/photos/stanford-dogs; resolve_source("toy") → data/toy_dogs; and a folder is that folder
"""

import io
import json
import os
import shutil
import sys
import tarfile
import zlib
from collections.abc import Iterator
from errno import ENOSPC
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from filelock import FileLock
from PIL import Image

from ..files import cannot_write, free_bytes, is_safe_path
from .folders import find_images, read_manifest
from .heads import BOXES, Box, Crop
from .split import Split, split_dataset
from .toy_dogs import write_toy_dogs

if TYPE_CHECKING:
    from ..config import Folders

REGISTRIES = Path(__file__).parent
"""Where <name>.txt tells of a collection, as pooch reads it: a comment on whose it is, then each archive, checksum, address."""
ABOUT = "ABOUT.txt"  # beside photos that were fetched: a copy of that; the last file to be written
LEAST = 12
"""Images in the smallest folder with which every chapter runs."""
NOT_A_JPEG = "n02105855-Shetland_sheepdog/n02105855_2933.jpg"  # the one file of Stanford Dogs that is left out: a PNG


def resolve_source(dogs: str | Path, where: "Folders", n_toy_dogs: int = 4096, least: int = 0) -> Path:
    """The folder of the dogs that are meant: "toy" (drawn when they are not there), "oxford-pets" or "stanford-dogs"
    (fetched when they are not there), in any case, or a folder; quotes around it are left out.

    Raises FileNotFoundError for a folder that is not there, ValueError for one with fewer than `least` images, OSError when
    dogs cannot be fetched, ValueError for an archive that is not safe to unpack.
    """
    word = str(dogs).strip().strip("'\"")
    path = Path(os.path.expanduser(word)).resolve()  # noqa: PTH111 (Path's raises for ~ and a name nobody has)
    name = word if path.is_dir() else word.lower()
    if name == "toy":
        write_toy_dogs(where.toy_dogs, n_toy_dogs)
        return where.toy_dogs
    if name in COLLECTIONS:
        return fetch_photos(name, where.photos)
    if not word or not path.is_dir():
        wrong = f"no such folder (looked in {str(Path.cwd())!r}), and not one of toy, {', '.join(COLLECTIONS)}"
        wrong = "a file: give the folder with the images (of an archive: unpack it first)" if path.is_file() else wrong
        wrong = "an address: download what is there, unpack it, and give the folder" if "://" in word else wrong
        raise FileNotFoundError(f"{word!r}: {wrong}")
    if least and (n := len(find_images(path))) < least:
        raise ValueError(f"{n} images in {word!r} are too few: it takes {least} at least, and some hundreds to learn from")
    return path


def ensure_split(where: "Folders", dogs: str | Path | None = None, crop: Crop = "none", n_toy_dogs: int = 4096) -> Split:
    """Make sure that there is a split in the workspace, so that any notebook may be the first one opened.

    dogs: as for `resolve_source`; they are split. Without, a split that is there is kept, and else toy dogs are drawn for one.
    """
    train, test = read_manifest(where.train), read_manifest(where.test)
    if dogs is None and train.get("complete") and test.get("complete"):
        print(f"Using the split of {train['source']!r} that is there: {len(train['files'])} + {len(test['files'])} images.")
        return Split(train["files"], test["files"])
    return split_dataset(resolve_source(dogs or "toy", where, n_toy_dogs, LEAST), where.train, where.test, crop=crop)


def fetch_photos(name: str, photos_dir: Path) -> Path:
    """The folder of a collection, `<photos_dir>/<name>`: a subfolder for each breed, `boxes.json`, `ABOUT.txt`.

    Fetched when it is not there. It appears under its name once all of it is right: a download is retried, compared with its
    checksum, unpacked beside, and moved there in one step; one that was stopped anywhere is finished by the next call, and
    of several processes that want it one fetches and the others wait. Raises OSError when it cannot be fetched or written,
    FileExistsError when another folder of that name is in the way.
    """
    folder, about = photos_dir / name, (REGISTRIES / f"{name}.txt").read_text(encoding="utf-8")
    making, downloads = (photos_dir / f".{name}.{suffix}" for suffix in ("partial", "downloads"))
    photos_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(photos_dir / f".{name}.lock"):
        if not (folder / ABOUT).exists():
            if folder.exists():
                raise FileExistsError(f"{str(folder)!r} is in the way and was not fetched: move it away")
            print(f"Fetching {name}, once. {about.splitlines()[0].removeprefix('# ')}")
            shutil.rmtree(making, ignore_errors=True)
            for archive in _download(about, downloads):
                unpack(archive, making / "unpacked")
            whole = making / "whole"
            boxes = {image: box for image, box in COLLECTIONS[name](making / "unpacked", whole).items() if box}
            (whole / BOXES).write_text(json.dumps(boxes), encoding="utf-8")
            (whole / ABOUT).write_text(about, encoding="utf-8")
            for path in (path for path in whole.rglob("*") if path.is_file()):
                with path.open("rb+") as file:  # a power cut finds all of it on the disk before it has its name
                    os.fsync(file.fileno())
            whole.rename(folder)
            print(f"{len(find_images(folder))} dogs are in {str(folder)!r}.")
        for leftover in (making, downloads):
            shutil.rmtree(leftover, ignore_errors=True)
    return folder


def _download(registry: str, folder: Path) -> Iterator[Path]:
    import pooch  # here, since most readers never need it

    fetcher = pooch.create(folder, "", retry_if_failed=3)
    fetcher.load_registry(io.StringIO(registry))
    # a server may not unpack on its way what is to be compared with a checksum
    get = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), headers={"Accept-Encoding": "identity"})
    for name, checksum in fetcher.registry.items():
        try:
            fetcher.fetch(name, downloader=get)
        except (OSError, ValueError) as error:
            raise OSError(
                f"could not fetch {fetcher.get_url(name)}, tried 4 times: {error}. Run the same again when it can be reached, "
                f"or put the file at {str(folder / name)!r} yourself; its checksum is {checksum}"
            ) from error
        yield folder / name


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the files of a tar archive into `folder`.

    Raises ValueError, before anything is written, for an archive that holds absolute paths, "..", links or devices, or is not
    an archive; OSError when it cannot be written. It does not see all damage: compare the checksum first.
    """
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            for member in members:
                if not is_safe_path(member.name) or not (member.isfile() or member.isdir()):
                    raise ValueError(f"it holds {member.name!r}, which is not a plain file inside it")
            size = sum(member.size for member in members)
            if size > free_bytes(folder / "x"):
                raise cannot_write(folder, OSError(ENOSPC, "no room to unpack"), size)
            tar.extractall(folder, members, filter="data")
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(f"{str(archive)!r} was not unpacked: {error}") from None


def _arrange_stanford(unpacked: Path, target: Path) -> dict[str, Box | None]:
    (unpacked / "Images").rename(target)
    (target / NOT_A_JPEG).unlink(missing_ok=True)
    return {name: _largest_box((unpacked / "Annotation" / name).with_suffix("")) for name in find_images(target)}


def _largest_box(notes: Path) -> Box | None:
    """Of the dogs that an annotation lists, the largest; None when there is none."""
    page = ElementTree.parse(notes)
    width, height = (float(page.findtext(f"size/{side}")) for side in ("width", "height"))
    edges = ([float(box.findtext(edge)) for edge in ("xmin", "ymin", "xmax", "ymax")] for box in page.iter("bndbox"))
    found = [(max(a, 0) / width, max(b, 0) / height, min(c / width, 1), min(d / height, 1)) for a, b, c, d in edges]
    return max((b for b in found if b[0] < b[2] and b[1] < b[3]), key=lambda b: (b[2] - b[0]) * (b[3] - b[1]), default=None)


def _arrange_oxford(unpacked: Path, target: Path) -> dict[str, Box | None]:
    """The dataset's lists hold a line for each pet: its file, number, species (1 cat, 2 dog), and number in the species."""
    notes, boxes = unpacked / "annotations", {}
    for line in (notes / "trainval.txt").read_text().splitlines() + (notes / "test.txt").read_text().splitlines():
        pet, _, species, _ = line.split()
        if species == "2":
            name = f"{pet.rpartition('_')[0].replace('_', ' ').title()}/{pet}.jpg"
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (unpacked / "images" / f"{pet}.jpg").rename(target / name)
            boxes[name] = _box_around(notes / "trimaps" / f"{pet}.png")
    return boxes


def _box_around(outline: Path) -> Box | None:
    """Around what a trimap does not call background (2); None when all of it is."""
    with Image.open(outline, formats=["PNG"]) as image:
        box = image.point(lambda value: value != 2).getbbox()
        return box and tuple(edge / side for edge, side in zip(box, 2 * image.size, strict=True))


COLLECTIONS = {"oxford-pets": _arrange_oxford, "stanford-dogs": _arrange_stanford}
"""Name -> (unpacked, target) -> each image's box, or None; moves the images to target/<breed>/."""
