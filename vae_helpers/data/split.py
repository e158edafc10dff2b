"""Which dogs to learn from and which to put aside: split the images of a folder into two folders.

photos on disk → split_dataset → data/train/dogs, data/test/dogs, each with a `split.json` of what was put there
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from errno import ENOSPC
from fractions import Fraction
from numbers import Integral
from pathlib import Path

from sklearn.model_selection import train_test_split
from tqdm.auto import tqdm

from ..files import atomic_write, cannot_write, free_bytes, read_file, reason, remove_stale_temp_files
from .breeds import breed_of
from .folders import BOXES, MANIFEST, find_images, read_boxes, read_manifest, report_unreadable


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
    *,
    stratify: bool = False,
    together: Sequence[Sequence[str]] = (),
    crop: bool = False,
) -> Split:
    """Copy the images of `source_dir` into `train_dir` and `test_dir`, each image into exactly one of them.

    test_size: a fraction between 0 and 1, or a number of images. random_state: the same seed and the same names give
    the same split on any machine. stratify: put the same share of every breed (`breed_of`) aside. together: groups of names
    that must be on one side, as `find_duplicates` gives them; test_size then counts a group as one. crop: let
    `load_images` cut a square out of each image (`decode_image`) instead of squashing it.

    Subfolders are kept. Both folders get a `split.json` that lists what was put there: splitting again removes what an
    earlier split left over, and touches no other file. An image that cannot be read is left out; one warning names each.

    Raises ValueError for a source without images, a test size out of range, breeds or groups that cannot be kept to, or folders
    inside one another, FileExistsError when a file that no split put there stands in the way, and OSError when the disk has no
    room; in each case before anything is written. ValueError also when more than half of the images cannot be read.
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
    test_size = int(test_size) if isinstance(test_size, Integral) else float(test_size)
    train, test = _choose(source, names, together, stratify, test_size, random_state)
    boxes = read_boxes(source / BOXES)
    plan = [(train_dir, train), (test_dir, test)]

    owned = {folder: set(read_manifest(folder).get("files", [])) for folder, _ in plan}
    for folder, wanted in plan:
        ours = owned[folder] | _subfolders(owned[folder])
        strangers = [name for name in wanted if name not in ours and (folder / name).exists()]
        strangers += [name for name in _subfolders(wanted) if name not in owned[folder] and (folder / name).is_file()]
        if strangers:
            raise FileExistsError(
                f"{str(folder / strangers[0])!r} is in the way and no split put it there "
                f"({len(strangers)} such files): move it away, or choose another folder"
            )
    missing = {folder: [name for name in wanted if not _is_copied(source / name, folder / name)] for folder, wanted in plan}
    size = sum(_size(source / name) for wanted in missing.values() for name in wanted)
    if size > free_bytes(train_dir / MANIFEST):
        n_missing = sum(map(len, missing.values()))
        raise cannot_write(train_dir, OSError(ENOSPC, f"no room for {n_missing} images"), size)

    about = {"source": source.name, "test_size": test_size, "random_state": random_state, "stratify": stratify, "crop": crop}

    def listing(wanted: list[str]) -> dict:
        return about | {"complete": True, "files": wanted, "boxes": {name: [*boxes[name]] for name in wanted if name in boxes}}

    if any(missing.values()) or any(read_manifest(folder) != listing(wanted) for folder, wanted in plan):
        # The manifest names every file before it is written, so that a split cut short is finished by the next one.
        for folder, wanted in plan:
            remove_stale_temp_files(folder)
            _write_manifest(folder, about | {"complete": False, "files": sorted(owned[folder] | set(wanted))})
            below, there = _subfolders(wanted), set(wanted)
            for name in owned[folder]:  # a file where a subfolder is to be, or the other way round
                if name in below or _subfolders([name]) & there:
                    _remove(folder, name)
        skipped: dict[str, str] = {}
        for folder, names_there in missing.items():
            with ThreadPoolExecutor(8) as pool:
                copied = pool.map(lambda name, folder=folder: _copy(source / name, folder / name), names_there)
                bar = tqdm(copied, f"copying to {folder.parent.name}", len(names_there), unit="image", leave=False, delay=2)
                skipped |= {name: why for name, why in zip(names_there, bar, strict=True) if why}
        report_unreadable(skipped, len(names), source)
        for _, wanted in plan:
            wanted[:] = [name for name in wanted if name not in skipped]
        if not (train and test):
            raise ValueError(f"of {str(source)!r} no image is left for {'testing' if train else 'training'} that can be read")
        for folder, wanted in plan:
            for name in (owned[folder] | skipped.keys() & set(missing[folder])).difference(wanted):
                _remove(folder, name)
        if hasattr(os, "sync"):
            os.sync()  # all at once: to flush every file for itself takes many times as long
        for folder, wanted in plan:
            _write_manifest(folder, listing(wanted))
    print(f"Dataset split complete. {len(train)} training images, {len(test)} test images.")
    return Split(train, test)


def _choose(
    source: Path,
    names: list[str],
    together: Sequence[Sequence[str]],
    stratify: bool,
    test_size: float | int | Fraction,
    random_state: int,
) -> tuple[list[str], list[str]]:
    """Sorted names for train and for test."""
    if len(names) < 2:
        raise ValueError(f"one image cannot be split; {str(source)!r} holds only {names[0]!r}")
    grouped = Counter(name for group in together for name in group)
    known = set(names)
    wrong = sorted(name for name, times in grouped.items() if times > 1 or name not in known)
    if wrong:
        raise ValueError(f"{wrong[0]!r} in `together` is in two groups, or not an image of {str(source)!r}")
    units = [[name] for name in names if name not in grouped] + [list(group) for group in together if group]
    limit = len(units) if isinstance(test_size, Integral) else 1
    if not 0 < test_size < limit:
        raise ValueError(f"test_size={test_size} is out of range: give a fraction in (0, 1) or a number in 1..{len(units) - 1}")
    breeds = [breed_of(unit[0]) for unit in units] if stratify else None
    if breeds:
        alone = sorted(f"{breed}" for breed, times in Counter(breeds).items() if times < 2)
        if None in breeds or alone:
            unknown = breeds.count(None)
            why = f"that of {unknown} images is not known" if unknown else f"there is only one image of {', '.join(alone)}"
            raise ValueError(f"cannot put a share of every breed aside in {str(source)!r}: {why}. Leave stratify out")
    try:
        train, test = train_test_split(units, test_size=test_size, random_state=random_state, stratify=breeds)
    except ValueError as error:  # a side without images, or with fewer than there are breeds
        what = f"{len(set(breeds))} breeds" if breeds else f"{len(units)} images or groups"
        raise ValueError(f"test_size={test_size} does not go with {what}: {error}") from None
    return sorted(name for unit in train for name in unit), sorted(name for unit in test for name in unit)


def _subfolders(names: Iterable[str]) -> set[str]:
    return {parent.as_posix() for name in names for parent in Path(name).parents} - {"."}


def _write_manifest(folder: Path, manifest: dict) -> None:
    with atomic_write(folder / MANIFEST) as partial:
        partial.write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _remove(folder: Path, name: str) -> None:
    path = folder / name
    if path.is_file() or path.is_symlink():
        path.unlink()
    for parent in path.parents:
        if parent == folder or not parent.is_dir() or any(parent.iterdir()):
            break
        parent.rmdir()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _is_copied(source: Path, target: Path) -> bool:
    try:
        a, b = source.stat(), target.stat()
    except OSError:
        return False
    return (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)


def _copy(source: Path, target: Path) -> str | None:
    """Copy one file; why it cannot be read, or None. Raises OSError when `target` cannot be written."""
    try:
        content, about = read_file(source), source.stat()
    except (OSError, ValueError) as error:  # gone since it was found, or not for us to read
        return reason(error, source)
    with atomic_write(target, flush=not hasattr(os, "sync")) as partial:
        partial.write_bytes(content)
        os.utime(partial, ns=(about.st_atime_ns, about.st_mtime_ns))
    return None
