"""Which dogs to learn from and which to put aside: find the images of a folder, split them into two folders.

photos on disk → split_dataset → data/train/dogs, data/test/dogs, each with a `split.json` of what was put there
"""

import json
import os
import shutil
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral
from pathlib import Path

from sklearn.model_selection import train_test_split

from . import toy_dogs
from .files import written_whole
from .settings import dogs_source, folders

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MANIFEST = "split.json"  # what split_dataset leaves beside the images it copied


def find_images(folder: str | Path) -> list[str]:
    """Names of the images in `folder` and below, as paths relative to it with forward slashes, sorted.

    The order, and so every seeded choice made from it, is the same on every machine. Hidden files and folders are
    passed over and links to folders are not followed. Raises FileNotFoundError or NotADirectoryError for a folder that is
    not one, ValueError when there is no image in it.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"no folder {str(folder)!r}: check the path (looked in {str(Path.cwd())!r})")
    if not folder.is_dir():
        raise NotADirectoryError(f"{str(folder)!r} is a file; give the folder that holds the images")
    images, others = [], []
    for here, below, files in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                path = Path(here, name)
                kind = images if path.suffix.lower() in IMAGE_SUFFIXES else others
                kind.append(path.relative_to(folder).as_posix())
    if not images:
        found = f"found {len(others)} other files, first: {min(others)}" if others else "it is empty"
        raise ValueError(f"no images in {str(folder)!r} (looked for {' '.join(IMAGE_SUFFIXES)} in it and below; {found})")
    # one file system stores é as one character, another as e and an accent
    return sorted(images, key=lambda name: (unicodedata.normalize("NFC", name), name))


@dataclass(frozen=True)
class Split:
    """Names of the images in each folder, relative to it."""

    train: list[str]
    test: list[str]


def split_dataset(
    source_dir: str | Path,
    train_dir: str | Path,
    test_dir: str | Path,
    test_size: float | int | Fraction = 0.2,
    random_state: int = 42,
) -> Split:
    """Copy the images of `source_dir` into `train_dir` and `test_dir`, each image into exactly one of them.

    test_size: a fraction between 0 and 1, or a number of images. random_state: the same seed and the same names give
    the same split on any machine. Subfolders are kept. Both folders get a `split.json` that lists what was put there:
    splitting again removes what an earlier split left over, and touches no other file.

    Raises ValueError for a source without images, a test size out of range, or folders inside one another, and FileExistsError
    when a file that no split put there stands in the way; in each case before anything is written.
    """
    source, train_dir, test_dir = (Path(p).resolve() for p in (source_dir, train_dir, test_dir))
    for name, a, b in (
        ("the source and the train folder", source, train_dir),
        ("the source and the test folder", source, test_dir),
        ("the train folder and the test folder", train_dir, test_dir),
    ):
        if a.is_relative_to(b) or b.is_relative_to(a):
            raise ValueError(f"{name} must be apart, but one holds the other: {str(a)!r} and {str(b)!r}")
    names = find_images(source)
    test_size = float(test_size) if isinstance(test_size, Fraction) else test_size
    limit = len(names) if isinstance(test_size, Integral) else 1
    if not 0 < test_size < limit:
        raise ValueError(f"test_size={test_size} is out of range: give a fraction in (0, 1) or a number in 1..{len(names) - 1}")
    if len(names) < 2:
        raise ValueError(f"one image cannot be split; {str(source)!r} holds only {names[0]!r}")
    train, test = train_test_split(names, test_size=test_size, random_state=random_state)
    plan = [(train_dir, sorted(train)), (test_dir, sorted(test))]

    owned = {folder: set(read_manifest(folder).get("files", [])) for folder, _ in plan}
    for folder, wanted in plan:
        needed = {parent.as_posix() for name in wanted for parent in Path(name).parents} - {"."}  # the subfolders
        strangers = [name for name in wanted if name not in owned[folder] and (folder / name).exists()]
        strangers += [name for name in needed if name not in owned[folder] and (folder / name).is_file()]
        if strangers:
            raise FileExistsError(
                f"{str(folder / strangers[0])!r} is in the way and no split put it there "
                f"({len(strangers)} such files): move it away, or choose another folder"
            )
    about = {"source": source.name, "test_size": test_size, "random_state": random_state}
    # The manifest names every file before it is written, so that a split cut short is finished by the next one.
    for folder, wanted in plan:
        _write_manifest(folder, about | {"complete": False, "files": sorted(owned[folder] | set(wanted))})
    for folder, wanted in plan:
        for name in owned[folder].difference(wanted):
            _remove(folder, name)
    for folder, wanted in plan:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name, folder=folder: _copy(source / name, folder / name), wanted))
        _write_manifest(folder, about | {"complete": True, "files": wanted})
    print(f"Dataset split complete. {len(train)} training images, {len(test)} test images.")
    return Split(train=plan[0][1], test=plan[1][1])


def prepare_dogs(n_toy_dogs: int = 4096) -> Split:
    """Make sure that there is a split in the workspace, so that any notebook may be the first one opened.

    The photos that DOGS names are split; without DOGS a split that is there is kept, and else toy dogs are drawn for one.
    """
    where = folders()
    source = dogs_source()
    if source is None:
        train, test = read_manifest(where.train), read_manifest(where.test)
        if train.get("complete") and test.get("complete"):
            print(f"Using the split of {train['source']!r} that is there: {len(train['files'])} + {len(test['files'])} images.")
            return Split(train["files"], test["files"])
        source = where.toy_dogs
        toy_dogs.write_toy_dogs(source, n_toy_dogs)
    return split_dataset(source, where.train, where.test)


def read_manifest(folder: Path) -> dict:
    """What `split_dataset` wrote about a folder, empty for a folder it did not fill. Raises ValueError when it is damaged."""
    path = folder / MANIFEST
    if not path.exists():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        names = manifest["files"]
        # a manifest decides what is deleted: it may only name files inside its folder
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in names):
            raise ValueError("it names files outside its folder")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is not a split's list ({error}): delete it, and split into an empty folder") from None
    return manifest


def _write_manifest(folder: Path, manifest: dict) -> None:
    with written_whole(folder / MANIFEST) as partial:
        partial.write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _remove(folder: Path, name: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    for parent in path.parents:
        if parent == folder or not parent.exists() or any(parent.iterdir()):
            break
        parent.rmdir()


def _copy(source: Path, target: Path) -> None:
    if target.exists():
        a, b = source.stat(), target.stat()
        if (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns):
            return
    with written_whole(target) as partial:
        shutil.copyfile(source, partial)
        os.utime(partial, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))


def names_to_read(folder: Path) -> list[str]:
    """Names of the images to read from a folder: what a split put there, or everything when no split did.

    Warns of images that no split put there. Raises ValueError for a split cut short, FileNotFoundError when an image of
    the split is gone.
    """
    manifest = read_manifest(folder)
    if not manifest:
        return find_images(folder)
    if not manifest.get("complete"):
        raise ValueError(f"the split of {str(folder)!r} was cut short: run split_dataset again, it goes on where it stopped")
    listed = set(manifest["files"])
    present = find_images(folder) if any((folder / name).exists() for name in listed) else []
    names = [name for name in present if name in listed]
    strangers = sorted(set(present) - listed)
    missing = sorted(listed.difference(present))
    if strangers:
        warnings.warn(
            f"{len(strangers)} images in {str(folder)!r} were not put there by the split and are not used, "
            f"first: {strangers[0]}",
            stacklevel=3,
        )
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} images of the split are gone from {str(folder)!r}, first: {missing[0]}: run split_dataset again"
        )
    return names
