"""What images a folder holds: all that are found in it, or those that a split put there; and which of them cannot be read."""

import contextlib
import json
import os
import re
import unicodedata
import warnings
from collections.abc import Mapping
from pathlib import Path

from ..files import is_safe_path, read_file
from .heads import NO_HEAD, check_boxes, check_crop

IMAGE_SUFFIXES = re.compile(r"\.(jpe?g?|jfif|pjp(eg)?|a?png|webp|gif|bmp|tiff?|jp2|avif|hei[cf])", re.IGNORECASE)
"""Of pictures. One that cannot be read here is counted and named, as any other that is broken is."""
_BEGINNINGS = re.compile(rb"\xff\xd8\xff|\x89PNG|RIFF....WEBP|GIF8|BM|II\*\0|MM\0\*|....(ftyp|jP  )", re.DOTALL)  # of theirs
MANIFEST = "split.json"
"""What `split_dataset` leaves beside the images it copied: which they are, and how the split was made."""
MOST_NAMED = 20
"""Unreadable images in a warning; the rest are counted."""


def find_images(folder: str | Path) -> list[str]:
    """Names of the images in `folder` and below, as paths relative to it with forward slashes, sorted.

    An image is a file with one of IMAGE_SUFFIXES, or one without a suffix that begins as pictures do. The order, and so every
    seeded choice made from it, is the same on every machine. Hidden files and folders are passed over and links to folders
    are not followed. One warning names folders that cannot be opened, and files whose names are paths on another system
    (`C:\\dog.jpg`). Raises FileNotFoundError for a folder that is not one, ValueError when there is no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r} (here: {str(Path.cwd())!r}): split first, or give one with images")
    found, errors = [], []
    for root, below, files in os.walk(folder, onerror=errors.append):
        below[:] = [name for name in below if not name.startswith(".")]
        found += [Path(root, name).relative_to(folder).as_posix() for name in files if not name.startswith(".")]
    images = [name for name in found if _is_picture(folder / name)]
    unsafe = {name for name in images if not is_safe_path(name)}
    images = [name for name in images if name not in unsafe]
    unread = [f"folder {str(error.filename)!r} ({error.strerror})" for error in errors]
    unread += [f"{name!r} (a path and no name on other systems: rename it)" for name in sorted(unsafe)[:MOST_NAMED]]
    if unread:
        warnings.warn(f"passed over in {str(folder)!r}: {'; '.join(unread)}", stacklevel=2)
    if not images:
        others = f"found {len(found)} other files, first: {min(found)}" if found else "it is empty"
        raise ValueError(f"no images in {str(folder)!r} (.jpg, .png, .webp and the like, in it and below; {others})")
    # one file system stores é as one character, another as e and an accent
    return sorted(images, key=lambda name: (unicodedata.normalize("NFC", name), name))


def _is_picture(path: Path) -> bool:
    if path.suffix:
        return bool(IMAGE_SUFFIXES.fullmatch(path.suffix))
    with contextlib.suppress(OSError, ValueError):  # gone, not for us to read, or no file
        return bool(_BEGINNINGS.match(read_file(path)))
    return False


def file_stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file's last change; zeros for one that is gone since it was found, or a link to nowhere."""
    try:
        info = path.stat()
    except OSError:
        return 0, 0
    return info.st_size, info.st_mtime_ns


def report_unreadable(skipped: Mapping[str, str], total: int, folder: Path) -> None:
    """One warning that says which images were skipped and why: name -> reason, of `total` images; another counts those without
    a head.

    Raises ValueError when more than half cannot be read, or none shows a head.
    """
    headless = [name for name, why in skipped.items() if why == NO_HEAD]
    if headless and len(headless) == total:
        raise ValueError(f"no dog's head is found in any of the {total} images in {str(folder)!r}: choose another crop")
    if headless:
        left_out = f"{len(headless)} of {total} images are left out, since no dog's head is found in them"
        warnings.warn(f"{left_out}, first: {headless[0]!r}", stacklevel=3)
    skipped = {name: why for name, why in skipped.items() if why != NO_HEAD}
    message = f"{len(skipped)} of {total} images"
    reasons = [f"{name!r} ({why})" for name, why in skipped.items()]
    reasons[MOST_NAMED:] = [f"and {len(reasons) - MOST_NAMED} more"] if len(reasons) > MOST_NAMED else []
    if len(skipped) > total / 2:
        wrong = "more than half, so this is not the folder that was meant, or it is damaged"
        raise ValueError(f"{message} in {str(folder)!r} cannot be read: {wrong}. {'; '.join(reasons)}")
    if skipped:
        warnings.warn(f"{message} cannot be read and are skipped: {'; '.join(reasons)}", stacklevel=3)


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
        manifest["boxes"] = check_boxes(manifest.get("boxes", {}))
        crop = manifest.get("crop", False)
        manifest["crop"] = {True: "box", False: "none"}.get(crop, crop)  # which earlier versions wrote
        check_crop(manifest["crop"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} is not a split's list ({error}): delete it, and split into an empty folder") from None
    return manifest


def names_to_read(folder: Path, manifest: dict) -> list[str]:
    """Names of the images to read from a folder: what a split put there, or everything when no split did.

    Warns of untracked images, which no split put there. Raises ValueError for a split cut short, FileNotFoundError when an
    image of the split is gone.
    """
    if not manifest:
        return find_images(folder)
    if not manifest.get("complete"):
        raise ValueError(f"the split of {str(folder)!r} was cut short: run split_dataset again, it goes on where it stopped")
    gone = [name for name in manifest["files"] if not (folder / name).exists()]
    if gone:
        message = f"{len(gone)} images of the split are gone from {str(folder)!r}, first: {gone[0]}"
        raise FileNotFoundError(f"{message}: run split_dataset again")
    tracked, found = set(manifest["files"]), find_images(folder)
    others = [name for name in found if name not in tracked]
    if others:
        message = f"{len(others)} images in {str(folder)!r} are not of its split and are left out, first: {others[0]}"
        warnings.warn(message, stacklevel=3)
    return [name for name in found if name in tracked]
