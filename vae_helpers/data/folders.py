"""What images a folder holds: all that are found in it, or those that a split put there; and which of them cannot be read."""

import contextlib
import json
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ..config import folders
from ..files import atomic_write, is_safe_path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
PASSED_OVER = (".heic", ".heif", ".avif", ".gif", ".bmp", ".tif", ".tiff")  # pictures, too, but not read here
MANIFEST = "split.json"  # what split_dataset leaves beside the images it copied
BOXES = "boxes.json"  # beside photos: name -> where the dog is, (left, top, right, bottom), as shares of width and height
NAMED = 20  # unreadable images in a warning; more than that go to a file

Box = tuple[float, float, float, float]


def find_images(folder: str | Path) -> list[str]:
    """Names of the images in `folder` and below, as paths relative to it with forward slashes, sorted.

    The order, and so every seeded choice made from it, is the same on every machine. Hidden files and folders are
    passed over and links to folders are not followed; of folders that cannot be opened, and pictures of kinds that are not
    read here, one warning tells. Raises FileNotFoundError or NotADirectoryError for a folder that is not one, ValueError
    when there is no image in it.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"no folder {str(folder)!r}: check the path (looked in {str(Path.cwd())!r})")
    if not folder.is_dir():
        raise NotADirectoryError(f"{str(folder)!r} is a file; give the folder that holds the images")
    images, others, closed = [], [], []
    for here, below, files in os.walk(folder, onerror=closed.append):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                path = Path(here, name)
                kind = images if path.suffix.lower() in IMAGE_SUFFIXES else others
                kind.append(path.relative_to(folder).as_posix())
    unread = [f"folder {str(error.filename)!r} ({error.strerror})" for error in closed]
    kinds = Counter(Path(name).suffix.lower() for name in others)
    unread += [f"{kinds[kind]} files {kind} (save them as .jpg)" for kind in PASSED_OVER if kinds[kind]]
    if unread:
        warnings.warn(f"passed over in {str(folder)!r}: {'; '.join(unread)}", stacklevel=2)
    if not images:
        found = f"found {len(others)} other files, first: {min(others)}" if others else "it is empty"
        raise ValueError(f"no images in {str(folder)!r} (looked for {' '.join(IMAGE_SUFFIXES)} in it and below; {found})")
    # one file system stores é as one character, another as e and an accent
    return sorted(images, key=lambda name: (unicodedata.normalize("NFC", name), name))


def report_unreadable(skipped: Mapping[str, str], total: int, folder: Path) -> None:
    """One warning that names each of the skipped images and says why; a long list goes to outputs/unreadable_images.txt.

    skipped: name -> reason. Raises ValueError when they are more than half of all `total`.
    """
    if not skipped:
        return
    lines = [f"{name!r} ({why})" for name, why in skipped.items()]
    told = "; ".join(lines[:NAMED])
    if len(lines) > NAMED:
        path, told = folders().outputs / "unreadable_images.txt", f"{told}; and {len(lines) - NAMED} more"
        with contextlib.suppress(OSError), atomic_write(path) as partial:
            partial.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")
            told += f", all in {str(path)!r}"
    if len(skipped) > total / 2:
        raise ValueError(
            f"{len(skipped)} of {total} images in {str(folder)!r} cannot be read: more than half, so this is not the folder "
            f"that was meant, or it is damaged. {told}"
        )
    warnings.warn(f"{len(skipped)} of {total} images cannot be read and are skipped: {told}", stacklevel=3)


def read_boxes(path: Path, found: object = None) -> dict[str, Box]:
    """Where the dogs are, from a `boxes.json`: name -> (left, top, right, bottom) in shares of width and height, 0 to 1.

    Empty when there is none. found: what was found in `path` already, instead. Raises ValueError when it is damaged.
    """
    try:
        if found is None:
            found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        boxes = {name: tuple(map(float, box)) for name, box in found.items()}
        if not all(len(b) == 4 and 0 <= b[0] < b[2] <= 1 and 0 <= b[1] < b[3] <= 1 for b in boxes.values()):
            raise ValueError("a box must be left, top, right, bottom in shares of the picture")
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} does not say where dogs are ({error}): mend it, or delete it") from None
    return boxes


def read_manifest(folder: Path) -> dict:
    """What `split_dataset` wrote about a folder, empty for a folder it did not fill. Raises ValueError when it is damaged."""
    path = folder / MANIFEST
    if not path.exists():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        # a manifest decides what is deleted: it may only name files inside its folder
        if not isinstance(manifest["files"], list) or not all(map(is_safe_path, manifest["files"])):
            raise ValueError("it names files outside its folder")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is not a split's list ({error}): delete it, and split into an empty folder") from None
    return manifest


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
