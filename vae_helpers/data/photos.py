"""Real dogs by name: fetched, checked, unpacked, their breeds as subfolders and where the dogs are in `boxes.json`.

resolve_source("stanford-dogs") → data/photos/stanford-dogs; resolve_source("toy") → data/toy_dogs; resolve_source("a/folder") → that folder
"""

import contextlib
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np
from filelock import FileLock
from PIL import Image
from tqdm.auto import tqdm

from ..config import crop_wanted, dogs_wanted, folders, project_folder
from ..files import cannot_write, free_bytes, is_safe_path
from .folders import BOXES, Box, find_images, read_manifest
from .split import Split, split_dataset
from .toy_dogs import write_toy_dogs

RETRIES = 3
ABOUT = "ABOUT.txt"  # beside photos that were fetched: whose they are; the last file to be written
NOT_A_JPEG = "n02105855_2933.jpg"  # the one file of Stanford Dogs that is not what its name says: a PNG


@dataclass(frozen=True)
class Archive:
    """A tar file: where it is published, and its checksum as "sha256:..." or "md5:..."."""

    url: str
    checksum: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Collection:
    """Photos that have a name. about: what they are, whose, and on what terms. arrange: (unpacked, target) -> boxes; moves
    the images to target/<breed>/."""

    archives: tuple[Archive, ...]
    about: str
    arrange: Callable[[Path, Path], dict[str, Box]]


def resolve_source(dogs: str | Path, n_toy_dogs: int = 4096) -> Path:
    """The folder of the dogs that are meant: "toy" (drawn when they are not there), "oxford-pets" or "stanford-dogs"
    (fetched when they are not there), or a folder, looked for from here and from the project.

    Raises FileNotFoundError for a folder that is not there, OSError when dogs cannot be fetched, ValueError for an archive
    that is not safe to unpack.
    """
    if str(dogs) == "toy":
        write_toy_dogs(folders().toy_dogs, n_toy_dogs)
        return folders().toy_dogs
    if str(dogs) in COLLECTIONS:
        return fetch_photos(str(dogs))
    for start in (Path.cwd(), project_folder() or Path.cwd()):
        path = (start / os.path.expanduser(dogs)).resolve()  # noqa: PTH111 (Path's raises for ~ and a name nobody has)
        if str(dogs) and path.is_dir():
            return path
    raise FileNotFoundError(
        f"{str(dogs)!r}: no such folder, neither from {str(Path.cwd())!r} nor from the project's, and not one of "
        f"toy, {', '.join(COLLECTIONS)}"
    )


def ensure_split(n_toy_dogs: int = 4096) -> Split:
    """Make sure that there is a split in the workspace, so that any notebook may be the first one opened.

    The dogs that DOGS names are split; without DOGS a split that is there is kept, and else toy dogs are drawn for one.
    """
    where, wanted = folders(), dogs_wanted()
    if wanted is None:
        train, test = read_manifest(where.train), read_manifest(where.test)
        if train.get("complete") and test.get("complete"):
            print(f"Using the split of {train['source']!r} that is there: {len(train['files'])} + {len(test['files'])} images.")
            return Split(train["files"], test["files"])
    return split_dataset(resolve_source(wanted or "toy", n_toy_dogs), where.train, where.test, crop=crop_wanted())


def fetch_photos(name: str) -> Path:
    """The folder of a collection, `data/photos/<name>`: a subfolder for each breed, `boxes.json`, `ABOUT.txt`.

    Fetched when it is not there. It appears under its name once all of it is right: a download is retried, compared with its
    checksum, unpacked beside, and moved there in one step; one that was stopped anywhere is finished by the next call, and
    of several processes that want it one fetches and the others wait. Raises OSError when it cannot be fetched or written,
    FileExistsError when another folder of that name is in the way.
    """
    collection, folder = COLLECTIONS[name], folders().photos / name
    making, downloads = folder.with_name(f".{name}.partial"), folder.with_name(f".{name}.downloads")
    with contextlib.suppress(FileExistsError):  # a file: the lock will tell
        folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{name}.lock")):
        if not (folder / ABOUT).exists():
            if folder.exists():
                raise FileExistsError(f"{str(folder)!r} is in the way and was not fetched: move it away")
            print(f"Fetching {name}, once. {collection.about}")
            shutil.rmtree(making, ignore_errors=True)
            for leftover in downloads.glob("tmp*"):  # of a download that was killed
                leftover.unlink()
            for path in [_download(archive, downloads) for archive in collection.archives]:
                unpack(path, making / "unpacked")
            whole = making / "whole"
            boxes = collection.arrange(making / "unpacked", whole)
            (whole / BOXES).write_text(json.dumps(boxes), encoding="utf-8")
            (whole / ABOUT).write_text(collection.about + "\n", encoding="utf-8")
            if hasattr(os, "sync"):
                os.sync()
            whole.rename(folder)
            n_breeds = sum(path.is_dir() for path in folder.iterdir())
            print(f"{len(find_images(folder))} dogs of {n_breeds} breeds are in {str(folder)!r}.")
        for leftover in (making, downloads):
            shutil.rmtree(leftover, ignore_errors=True)
    return folder


def _download(archive: Archive, folder: Path) -> Path:
    import pooch  # here, since most readers never need it
    import requests

    fetcher = pooch.create(folder, "", registry={archive.name: archive.checksum}, urls={archive.name: archive.url})
    fetcher.retry_if_failed = RETRIES
    # a server may not unpack on its way what is to be compared with a checksum
    get = pooch.HTTPDownloader(progressbar=True, headers={"Accept-Encoding": "identity"})
    path = folder / archive.name
    try:
        return Path(fetcher.fetch(archive.name, downloader=get))
    except (requests.RequestException, ValueError) as error:
        raise OSError(
            f"could not fetch {archive.url}, tried {RETRIES + 1} times: {error}. Run the same again when it can be "
            f"reached, or put the file at {str(path)!r} yourself; its checksum is {archive.checksum}"
        ) from error
    except OSError as error:
        raise cannot_write(path, error) from error


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
            try:
                if size > free_bytes(folder / "x"):
                    raise OSError(ENOSPC, "no room to unpack")
                for member in tqdm(members, f"unpacking {archive.name}", unit="file", leave=False, delay=2):
                    if member.isfile():
                        target = folder / member.name
                        target.parent.mkdir(parents=True, exist_ok=True)
                        with tar.extractfile(member) as content, target.open("wb") as file:
                            shutil.copyfileobj(content, file)
            except OSError as error:
                raise cannot_write(folder, error, size) from error
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(f"{str(archive)!r} was not unpacked: {error}") from None


def _arrange_stanford(unpacked: Path, target: Path) -> dict[str, Box]:
    (unpacked / "Images").rename(target)
    boxes = {}
    for name in find_images(target):
        if PurePosixPath(name).name == NOT_A_JPEG:
            (target / name).unlink()
            print(f"Set aside: {name}, a PNG by another name.")
            continue
        notes = unpacked / "Annotation" / PurePosixPath(name).with_suffix("")
        if notes.exists() and (box := _largest_box(notes)):
            boxes[name] = box
    return boxes


def _largest_box(notes: Path) -> Box | None:
    """Of the dogs that an annotation lists, the largest; None when there is none, or it cannot be read."""
    try:
        page = ElementTree.parse(notes).getroot()
        width, height = (float(page.findtext(f"size/{side}")) for side in ("width", "height"))
        sides = ("xmin", "ymin", "xmax", "ymax")
        found = [[float(box.findtext(side)) for side in sides] for box in page.iter("bndbox")]
        found = [(max(a, 0) / width, max(b, 0) / height, min(c / width, 1), min(d / height, 1)) for a, b, c, d in found]
    except (ElementTree.ParseError, TypeError, ValueError, ZeroDivisionError):
        return None
    return max((b for b in found if b[0] < b[2] and b[1] < b[3]), key=lambda b: (b[2] - b[0]) * (b[3] - b[1]), default=None)


def _arrange_oxford(unpacked: Path, target: Path) -> dict[str, Box]:
    from torchvision.datasets import OxfordIIITPet

    (unpacked / "oxford-iiit-pet").mkdir()
    for part in ("images", "annotations"):
        (unpacked / part).rename(unpacked / "oxford-iiit-pet" / part)
    boxes = {}
    for half in ("trainval", "test"):
        pets = OxfordIIITPet(unpacked, half)
        # its public way to an image decodes it; what is asked here is where the file is
        for image, outline, breed, is_dog in zip(pets._images, pets._segs, pets._labels, pets._bin_labels, strict=True):
            if is_dog:
                name = f"{pets.classes[breed]}/{image.name}"
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                image.rename(target / name)
                if outline.exists() and (box := _box_around(outline)):
                    boxes[name] = box
    return boxes


def _box_around(outline: Path) -> Box | None:
    """Around what a trimap does not call background (2)."""
    with Image.open(outline, formats=["PNG"]) as image:
        rows, columns = np.nonzero(np.asarray(image) != 2)
        if not len(rows):
            return None
        width, height = image.size
        ends = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height)
        return tuple(map(float, ends))


_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"
_STANFORD = "http://vision.stanford.edu/aditya86/ImageNetDogs/"
COLLECTIONS = {
    "oxford-pets": Collection(
        (
            Archive(_OXFORD + "images.tar.gz", "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c"),
            Archive(_OXFORD + "annotations.tar.gz", "md5:95a8c909bbe2e81eed6a22bccdf3f68f"),
        ),
        "The dogs of the Oxford-IIIT Pet Dataset, 25 breeds. Licence: CC BY-SA 4.0; the photos' owners keep their rights. "
        "Cite: O. M. Parkhi, A. Vedaldi, A. Zisserman, C. V. Jawahar, Cats and Dogs, CVPR 2012.",
        _arrange_oxford,
    ),
    "stanford-dogs": Collection(
        (
            Archive(_STANFORD + "images.tar", "sha256:a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58"),
            Archive(_STANFORD + "annotation.tar", "sha256:662ed36f707be6b195c2fda392d8e153e83af28cedc8e2134a649f198def30fd"),
        ),
        "Stanford Dogs, 20,580 photos of 120 breeds out of ImageNet: for research and teaching, not for trade; the photos' "
        "owners keep their rights. Cite: A. Khosla, N. Jayadevaprakash, B. Yao, L. Fei-Fei, Novel Dataset for Fine-Grained "
        "Image Categorization, FGVC workshop at CVPR 2011; J. Deng and others, ImageNet, CVPR 2009.",
        _arrange_stanford,
    ),
}
