"""Which dogs to learn from and which to put aside: split the images of a folder into two folders.

photos on disk → split_dataset → data/train/dogs, data/test/dogs, each with a `split.json` of what was put there
"""

import contextlib
import json
import math
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch
from sklearn.model_selection import train_test_split
from tqdm.contrib.concurrent import thread_map

from ..files import atomic_write, lock_folder, read_file, reason, remove_stale_temp_files, write_file
from .breeds import LEAST_IMAGES, PART, breeds_of
from .decode import decode_image
from .folders import MANIFEST, file_stamp, find_images, read_manifest, report_unreadable
from .heads import BOXES, INPUT, NO_HEAD, Box, Crop, check_crop, find_head, read_boxes


class Split(NamedTuple):
    """Names of the images in each folder, relative to it."""

    train: list[str]
    test: list[str]


def split_dataset(
    source_dir: str | Path,
    train_dir: str | Path,
    test_dir: str | Path,
    test_size: float | int = 0.2,
    random_state: int = 42,
    *,
    stratify: bool = False,
    groups: Sequence[Sequence[str]] = (),
    crop: Crop = "none",
    keep_split: bool = False,
) -> Split:
    """Copy the images of `source_dir` into `train_dir` and `test_dir`, each image into exactly one of them.

    test_size: a fraction between 0 and 1, or a number of images. random_state: the same seed and the same names give
    the same split on any machine. stratify: put the same share of every breed (`breeds_of`) aside. groups: lists of names
    that must be on one side, as `group_duplicates` gives them; test_size then counts a group as one. crop: what
    `load_images` cuts out of each image (`decode_image`); for "head", images in which no head is marked or found are left out,
    and named in split.json. keep_split: of a source that is split already, into subfolders train and test (or train and val),
    keep what is there apart as it is (what lies in neither, and in val where there is a test, is for training); test_size and
    random_state then say nothing, and stratify and groups are refused.

    Subfolders are kept. Both folders get a `split.json` that lists what was put there: splitting again removes what an
    earlier split left over, touches no other file, and finishes a split that was cut short. An image that cannot be read is
    left out; one warning names each.

    Raises ValueError for a source without images, a test size out of range, breeds, groups or a crop that cannot be kept to,
    or folders inside one another, BlockingIOError while another process splits into the same folders, FileExistsError when a
    file that no split put there stands in the way, and OSError when the disk has no room; in each case before any image is
    touched. ValueError also when more than half of the images cannot be read.
    """
    source, train_dir, test_dir = folders = [Path(folder).resolve() for folder in (source_dir, train_dir, test_dir)]
    for one, other in permutations(folders, 2):
        if one.is_relative_to(other):
            raise ValueError(f"source, train and test folder must be apart, but {str(one)!r} is in {str(other)!r}")
    if keep_split and (stratify or groups):
        raise ValueError("keep_split keeps what is there: leave stratify and groups (--duplicates-together) out")
    check_crop(crop)
    names, boxes = find_images(source), read_boxes(source / BOXES)
    without_head = _find_heads(source, names, boxes) if crop == "head" else []
    names = [name for name in names if name not in without_head]
    parts = {name: next(filter(PART.fullmatch, PurePosixPath(name).parts[:-1]), "") for name in names}
    there = sorted(set(parts.values()) - {""})
    if len(there) > 1 and not keep_split:
        split_already = f"{str(source)!r} is split already ({', '.join(there)}), and all of it is mixed and split anew"
        warnings.warn(f"{split_already}: --keep-split (keep_split=True) keeps it as it is", stacklevel=2)
    train, test = _owners(source, parts) if keep_split else _choose(source, names, groups, stratify, test_size, random_state)
    drawn = {"test_size": test_size, "random_state": random_state, "stratify": stratify}
    about = {"source": source.name, "crop": crop} | ({"keep_split": True} if keep_split else drawn)
    about |= {"without_head": without_head} if without_head else {}
    with lock_folder(train_dir, "the training images"), lock_folder(test_dir, "the test images"):
        skipped = _fill({train_dir: train, test_dir: test}, source, about, boxes)
    split = Split(*([name for name in names if name not in skipped] for names in (train, test)))
    print(f"Dataset split complete. {len(split.train)} training images, {len(split.test)} test images.")
    return split


def _owners(source: Path, parts: dict[str, str]) -> list[list[str]]:
    """Names for train and for test as the folders that they lie in say: name -> train, val, test, or "" for none of them."""
    kinds = {name: part[:3].lower() for name, part in parts.items()}
    aside = "tes" if "tes" in kinds.values() else "val"
    sides = [[name for name, kind in kinds.items() if (kind == aside) == is_test] for is_test in (False, True)]
    if "tra" not in kinds.values() or not sides[1]:
        raise ValueError(f"{str(source)!r} has no split to keep: it needs a folder 'train' and a folder 'test'")
    return sides


def _choose(
    source: Path, names: list[str], groups: Sequence[Sequence[str]], stratify: bool, test_size: float | int, random_state: int
) -> list[list[str]]:
    """Sorted names for train and for test."""
    grouped = Counter(name for group in groups for name in group)
    wrong = sorted(name for name, times in grouped.items() if times > 1) or sorted(grouped.keys() - set(names))
    if wrong:
        raise ValueError(f"{wrong[0]!r} in `groups` is in two of them, or not an image of {str(source)!r}")
    units = [[name] for name in names if name not in grouped] + [list(group) for group in groups if group]
    breed_of = dict(zip(names, breeds_of(names), strict=True)) if stratify else {}
    breeds = [breed_of[unit[0]] for unit in units] if stratify else None
    if breeds and None in breeds:
        raise ValueError(
            f"cannot put a share of every breed aside in {str(source)!r}: that of {breeds.count(None)} images is not known "
            f"(a breed is a folder with {LEAST_IMAGES} images at least, beside others). Leave stratify out"
        )
    n_test = math.ceil(test_size * len(units)) if 0 < test_size < 1 else test_size
    if not isinstance(n_test, int) or not 0 < n_test < len(units) or not 0 <= random_state < 2**32:
        what = f"{len(units)} images (those that must be on one side count as one)"
        allowed = "a fraction or a number of images that leaves some on both sides, and a seed from 0 to 4294967295"
        raise ValueError(f"test_size={test_size}, random_state={random_state} does not go with {what}: give {allowed}")
    try:
        sides = train_test_split(units, test_size=test_size, random_state=random_state, stratify=breeds)
    except ValueError as error:  # a side has fewer images than there are breeds
        raise ValueError(f"test_size={test_size} does not go with {len(set(breeds or []))} breeds: {error}") from None
    return [sorted(name for unit in side for name in unit) for side in sides]


def _find_heads(source: Path, names: list[str], boxes: dict[str, dict[str, Box]]) -> list[str]:
    """Put the box of each head that is found into `boxes`; returns the names of images without one. Those that cannot be read
    stay, since reading them later says so."""

    def find(name: str) -> Box | bool:
        try:
            head = find_head(torch.tensor(decode_image(source / name, INPUT)).permute(2, 0, 1))
        except (OSError, ValueError):
            return True
        return head is not None and head.box

    unknown = [name for name in names if "head" not in boxes.get(name, {})]
    heads = thread_map(find, unknown, desc="finding heads", unit="image", leave=False, delay=2, disable=None)
    found = dict(zip(unknown, heads, strict=True))
    boxes |= {name: boxes.get(name, {}) | {"head": box} for name, box in found.items() if isinstance(box, tuple)}
    without = [name for name, box in found.items() if not box]
    report_unreadable(dict.fromkeys(without, NO_HEAD), len(names), source)
    return without


def _fill(plan: dict[Path, list[str]], source: Path, about: dict, boxes: dict[str, dict[str, Box]]) -> dict[str, str]:
    """Have each folder of the plan hold what it should, and say so in its manifest; name -> why one cannot be read."""
    old = {folder: set(read_manifest(folder).get("files", [])) for folder in plan}
    new = [folder / name for folder, wanted in plan.items() for name in wanted if name not in old[folder]]
    in_the_way = [path for path in new if path.exists() or any(map(Path.is_file, path.parents))]
    if in_the_way:
        blocked = f"{str(in_the_way[0])!r} is in the way, or a folder of its path is a file, and no split put it there"
        raise FileExistsError(f"{blocked} ({len(in_the_way)} such files): move it away, or choose another folder")
    for folder, wanted in plan.items():  # names every file before it is copied, so that the next split finishes this one
        remove_stale_temp_files(folder)
        manifest = about | {"complete": False, "files": sorted(old[folder].union(wanted))}
        write_file(folder / MANIFEST, json.dumps(manifest, indent=1))
    skipped = {name: why for folder, wanted in plan.items() for name, why in _copy_all(source, folder, wanted)}
    report_unreadable(skipped, sum(map(len, plan.values())), source)
    for folder, wanted in plan.items():
        names = [name for name in wanted if name not in skipped]
        for name in old[folder].difference(names):
            (folder / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty
                os.removedirs((folder / name).parent)
        marked = {name: boxes[name] for name in names if name in boxes}
        manifest = about | {"complete": True, "files": names, "boxes": marked}
        write_file(folder / MANIFEST, json.dumps(manifest, indent=1))
    return skipped


def _copy_all(source: Path, folder: Path, names: list[str]) -> list[tuple[str, str]]:
    """(name, why) of the images that cannot be read. One that is there is kept. Raises OSError when one cannot be written."""

    def copy(name: str) -> str | None:
        if file_stamp(source / name) == file_stamp(folder / name) != (0, 0):
            return None
        try:
            content, info = read_file(source / name), (source / name).stat()
        except (OSError, ValueError) as error:  # gone since it was found, or not for us to read
            return reason(error, source / name)
        with atomic_write(folder / name, len(content), flush=False) as partial:  # the next split mends what a power cut does
            partial.write_bytes(content)
            os.utime(partial, ns=(info.st_atime_ns, info.st_mtime_ns))
        return None

    copied = thread_map(copy, names, max_workers=8, desc="copying", unit="image", leave=False, delay=2, disable=None)
    return [(name, why) for name, why in zip(names, copied, strict=True) if why]
