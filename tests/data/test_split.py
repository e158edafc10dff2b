import hashlib
import json
import os
import tempfile
from collections import Counter
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from tiny import tree, write_files, write_images

from vae_helpers.config import Folders
from vae_helpers.data import MANIFEST, breeds_of, ensure_split, find_images, load_images, read_manifest, split_dataset
from vae_helpers.files import lock_folder

NAMES = [f"{i:02d}.jpg" for i in range(10)]
BREEDS = [f"{breed}/{i}.jpg" for breed, n in (("beagle", 20), ("n02085620-Chihuahua", 5), ("pug", 10)) for i in range(n)]


@pytest.fixture
def split_folders(tmp_path):
    """source (ten files), train, test"""
    return write_files(tmp_path / "source", NAMES), tmp_path / "train", tmp_path / "test"


def images_in(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(folder).items() if name != MANIFEST}


def without_locks(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(folder).items() if not name.endswith((".lock", ".holder"))}


# ---------------------------------------------------------------- finding


def test_images_are_found_by_suffix_in_any_case_and_depth_in_sorted_order(tmp_path):
    names = ["B.JPG", "a.png", "d.HEIC", "deep/b.jpeg", "deep/er/c.WebP", "e.jfif", "f.tif"]
    others = ["notes.txt", "a.png.part", "README", ".hidden.png", ".thumbs/d.png", "deep/.x/e.png"]
    assert find_images(write_files(tmp_path, [*names[::-1], *others])) == names


def test_order_is_by_letters_and_not_by_how_a_file_system_stores_them(tmp_path):
    composed, decomposed = "\u00e9.png", "e\u0301a.png"  # é, and e with an accent, then a
    assert find_images(write_files(tmp_path, [composed, decomposed, "f.png"])) == ["f.png", composed, decomposed]


def test_a_folder_that_gives_no_images_is_an_error_that_names_it(tmp_path):
    write_files(tmp_path, ["some/notes.txt", "some/more.txt"])
    (tmp_path / "empty").mkdir()
    for name, error, reason in (
        ("gone", FileNotFoundError, "no folder"),
        ("some/notes.txt", FileNotFoundError, "no folder"),
        ("some", ValueError, "found 2 other files, first: more.txt"),
        ("empty", ValueError, "it is empty"),
    ):
        with pytest.raises(error, match=reason) as raised:
            find_images(tmp_path / name)
        assert str(tmp_path / name) in str(raised.value)


# ---------------------------------------------------------------- which image goes where


def test_2057_photos_become_1645_and_412_and_always_the_same(tmp_path, capsys):
    """The list of test images is that of tree 9addd0c."""
    source = write_files(tmp_path / "source", [f"{i:05d}.jpg" for i in range(2057)])
    split = split_dataset(source, tmp_path / "train", tmp_path / "test")
    assert capsys.readouterr().out == "Dataset split complete. 1645 training images, 412 test images.\n"
    digest = hashlib.sha256("\n".join(split.test).encode()).hexdigest()
    assert digest == "7e6bbe04a8f2da7568a57b57c778bf564d1ed57795593600a99897ac9e17dcd9"
    assert sorted(split.train + split.test) == find_images(source)


GROUPS = [BREEDS[0:3], BREEDS[6:9], BREEDS[20:23], BREEDS[30:32]]
OF_9ADDD0C = {  # (seed, stratify, grouped): test images, printed by that tree
    (0, False, False): "beagle/18 beagle/5 beagle/6 n02085620-Chihuahua/0 n02085620-Chihuahua/2 pug/3 pug/4",
    (0, False, True): "beagle/13 beagle/19 beagle/7 n02085620-Chihuahua/3 pug/1 pug/8",
    (7, True, False): "beagle/15 beagle/16 beagle/4 beagle/9 n02085620-Chihuahua/4 pug/3 pug/5",
    (7, True, True): "beagle/0 beagle/1 beagle/10 beagle/17 beagle/2 n02085620-Chihuahua/3 pug/0 pug/9",
}


@pytest.mark.parametrize("how", OF_9ADDD0C, ids=str)
def test_the_same_seed_and_names_give_the_split_of_every_version_before(tmp_path, how):
    seed, stratify, grouped = how
    names = sorted(BREEDS)
    groups = [names[0:3], names[6:9], names[20:23], names[30:32]] if grouped else ()
    options = {"random_state": seed, "stratify": stratify, "groups": groups}
    split = split_dataset(write_files(tmp_path / "source", names), tmp_path / "train", tmp_path / "test", **options)
    assert " ".join(name.removesuffix(".jpg") for name in split.test) == OF_9ADDD0C[how]


@pytest.mark.parametrize(("test_size", "n_test"), [(0.2, 2), (0.25, 3), (3, 3), (9, 9)])
def test_test_size_is_a_fraction_or_a_number(split_folders, test_size, n_test):
    assert len(split_dataset(*split_folders, test_size=test_size).test) == n_test


def test_a_stratified_split_puts_the_same_share_of_every_breed_aside(tmp_path):
    source = write_files(tmp_path / "source", BREEDS)
    for seed in range(3):
        split = split_dataset(source, tmp_path / "train", tmp_path / "test", random_state=seed, stratify=True)
        assert Counter(name.partition("/")[0] for name in split.test) == {"beagle": 4, "pug": 2, "n02085620-Chihuahua": 1}
        assert sorted(split.train + split.test) == sorted(BREEDS)
    flat = write_files(tmp_path / "flat", [f"n0208562{i % 2}_{i}.jpg" for i in range(10)])
    split = split_dataset(flat, tmp_path / "flat train", tmp_path / "flat test", stratify=True)
    assert len(set(breeds_of(split.test))) == 2


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (NAMES, "of 10 images is not known"),
        ([*BREEDS, "pug.jpg", "borzoi/a.jpg", "borzoi/b.jpg"], "of 3 images is not known.*at least"),
        ([f"breed {i // 3}/{i}.jpg" for i in range(15)], "test_size=0.2 does not go with 5 breeds"),
    ],
)
def test_what_cannot_be_stratified_is_an_error_that_says_why(tmp_path, names, reason):
    source = write_files(tmp_path / "source", names)
    with pytest.raises(ValueError, match=reason):
        split_dataset(source, tmp_path / "train", tmp_path / "test", stratify=True)
    assert not (tmp_path / "train").exists()


@pytest.mark.parametrize("stratify", [False, True])
def test_groups_are_never_torn_apart_and_nothing_is_lost(tmp_path, stratify):
    source, torn = write_files(tmp_path / "source", BREEDS), 0
    for seed in range(8):
        split, plain = (
            split_dataset(source, tmp_path / "train", tmp_path / "test", random_state=seed, groups=groups, stratify=stratify)
            for groups in (GROUPS, ())
        )
        assert sorted(split.train + split.test) == sorted(BREEDS)
        assert all(len({name in split.test for name in group}) == 1 for group in GROUPS)
        torn += sum(len({name in plain.test for name in group}) == 2 for group in GROUPS)
    assert torn > 5, "without being asked it tears some"


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"train_dir": "source/train"}, "must be apart"),
        ({"test_dir": "source"}, "must be apart"),
        ({"test_dir": "train"}, "must be apart"),
        ({"source_dir": "train/photos"}, "must be apart"),
        ({"source_dir": "one"}, "does not go with 1 images"),
        ({"source_dir": "none"}, "no images"),
        ({"crop": "middle"}, "crop='middle' is not one of none, center, box, head"),
        ({"groups": [["00.jpg", "gone.jpg"]]}, r"'gone\.jpg' in `groups`"),
        ({"groups": [["00.jpg", "01.jpg"], ["01.jpg", "02.jpg"]]}, r"'01\.jpg' in `groups`"),
        *(
            ({"test_size": size}, f"test_size={size}, .* does not go")
            for size in (0, 10, -1, 0.0, 1.0, 1.5, 0.999, float("nan"))
        ),
        *(({"random_state": seed}, f"random_state={seed} does not .* a seed from 0 to 4294967295") for seed in (-1, 10**20)),
        ({"groups": [NAMES]}, r"does not go with 1 images \(those that must be on one side count as one\)"),
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


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (["train", "val", "test"], "test, train, val"),
        (["training", "validation"], "training, validation"),
        (["images/Train/pug", "images/Testing/pug"], "Testing, Train"),
        (["dogs/train", "cats/train", "dogs/test", "cats/test"], "test, train"),
    ],
)
def test_that_a_folder_is_split_already_is_said(tmp_path, folders, named):
    source = write_files(tmp_path / "source", [f"{folder}/{i}.jpg" for folder in folders for i in range(5)])
    with pytest.warns(UserWarning, match=rf"source' is split already \({named}\).*mixed.*keep_split=True"):
        split_dataset(source, tmp_path / "train", tmp_path / "test")


@pytest.mark.parametrize(
    ("folders", "aside"),
    [
        (["train", "val", "test"], ["test"]),
        (["training", "validation"], ["validation"]),
        (["images/Train/pug", "images/Testing/pug"], ["images/Testing/pug"]),
        (["dogs/train", "cats/train", "dogs/test", "cats/test", "more"], ["dogs/test", "cats/test"]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_split_that_a_folder_has_is_kept_when_that_is_asked_for(tmp_path, folders, aside):
    source = write_files(tmp_path / "source", [f"{folder}/{i}.jpg" for folder in folders for i in range(5)])
    split = split_dataset(source, tmp_path / "train", tmp_path / "test", keep_split=True)
    assert sorted(split.test) == sorted(f"{folder}/{i}.jpg" for folder in aside for i in range(5))
    assert sorted(split.train + split.test) == sorted(find_images(source))
    assert find_images(tmp_path / "test") == split.test and find_images(tmp_path / "train") == split.train
    noted = json.loads((tmp_path / "test" / "split.json").read_text())
    assert noted["keep_split"] and "test_size" not in noted


@pytest.mark.parametrize("folders", [["dogs", "cats"], ["train"], ["test", "dogs"], ["train", "dogs"]])
def test_where_there_is_no_split_to_keep_that_is_said_before_anything_is_written(tmp_path, folders):
    source = write_files(tmp_path / "source", [f"{folder}/{i}.jpg" for folder in folders for i in range(5)])
    with pytest.raises(ValueError, match="source' has no split to keep: it needs a folder 'train' and a folder 'test'"):
        split_dataset(source, tmp_path / "train", tmp_path / "test", keep_split=True)
    with pytest.raises(ValueError, match="leave stratify and groups"):
        split_dataset(source, tmp_path / "train", tmp_path / "test", keep_split=True, stratify=True)
    assert not (tmp_path / "train").exists() and not (tmp_path / "test").exists()


@pytest.mark.skipif(os.name == "nt", reason="such names are paths there")
def test_names_that_are_paths_on_another_system_are_passed_over_by_name_and_the_next_split_works(tmp_path):
    good, bad = [f"{i}.jpg" for i in range(9)], ["z:colon?.jpg", "C:\\Users\\me\\dog.1.jpg", "a\\..\\up.jpg"]
    source = write_files(tmp_path / "source", [*good, *bad])
    for seed in (1, 2):
        with pytest.warns(UserWarning, match=r"'z:colon\?.jpg' \(a path and no name on other systems: rename it\)") as caught:
            split = split_dataset(source, tmp_path / "train", tmp_path / "test", random_state=seed)
        assert all(repr(name) in str(caught[0].message) for name in bad)
        assert (
            sorted(split.train + split.test) == good == sorted(find_images(tmp_path / "train") + find_images(tmp_path / "test"))
        )


@pytest.mark.parametrize("in_the_way", ["breed/7.jpg", "breed"])
def test_a_foreign_file_in_the_way_is_an_error_before_any_image_is_written(tmp_path, in_the_way):
    source = write_files(tmp_path / "source", [f"breed/{i}.jpg" for i in range(10)])
    for folder in ("train", "test"):
        write_files(tmp_path / folder, [in_the_way])
    before = tree(tmp_path)
    with pytest.raises(FileExistsError, match="in the way"):
        split_dataset(source, tmp_path / "train", tmp_path / "test")
    assert without_locks(tmp_path) == before


LISTS = ['["D:precious.jpg"]', '"precious.jpg"', '["a/..\\\\precious.jpg"]', '["../precious.jpg"]', '["/precious.jpg"]']


@pytest.mark.parametrize("listing", [*(f'{{"files": {files}}}' for files in LISTS), "{", "[]", "{}", "\x00"])
def test_a_list_that_no_split_wrote_is_refused_and_nothing_is_deleted(split_folders, listing):
    source, train, test = split_folders
    write_files(train.parent, ["precious.jpg"])
    train.mkdir()
    (train / MANIFEST).write_text(listing)
    before = tree(train.parent)
    for act in (lambda: split_dataset(source, train, test), lambda: load_images(train)):
        with pytest.raises(ValueError, match="delete it"):
            act()
    assert without_locks(train.parent) == before


def test_of_two_splits_at_once_the_second_says_who_holds_the_folders_and_changes_nothing(split_folders):
    source, train, test = split_folders
    split_dataset(*split_folders)
    before = without_locks(source.parent)
    for held in (train, test):
        with lock_folder(held, "the images"), pytest.raises(BlockingIOError, match=r"images in .* process \d+"):
            split_dataset(*split_folders, random_state=1)
    assert without_locks(source.parent) == before
    split_dataset(*split_folders, random_state=1)


# ---------------------------------------------------------------- splitting again, and again


@settings(max_examples=10, deadline=None, derandomize=True, database=None)
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


def test_splitting_other_images_leaves_nothing_of_an_earlier_split_and_all_that_is_not_of_it(split_folders, tmp_path):
    source, train, test = split_folders
    foreign = write_files(tmp_path / "foreign", ["README.md", "mine/photo.jpg"])
    write_files(train, list(tree(foreign)))
    other = write_files(tmp_path / "other", ["breed/a.png", "breed/b.png", "breed 2/a.png", "00.jpg"])
    (other / "00.jpg").write_text("another picture of the same name")
    for images, test_size in ((source, 0.2), (other, 2), (source, 0.2)):
        split_dataset(images, train, test, test_size=test_size)
        assert images_in(train) | images_in(test) == tree(images) | tree(foreign)
    assert not (train / "breed").exists() and not (test / "breed").exists()


def test_the_images_of_a_split_that_is_there_already_are_not_written_again(split_folders):
    (split_folders[0] / "boxes.json").write_text(json.dumps({name: [0, 0.1, 1, 1] for name in NAMES}))
    first = split_dataset(*split_folders, crop="box")
    written = {path: path.stat().st_ino for folder in split_folders[1:] for path in folder.glob("*.jpg")}
    assert split_dataset(*split_folders, crop="box") == first
    assert {path: path.stat().st_ino for path in written} == written
    assert split_dataset(*split_folders) == first and read_manifest(split_folders[1])["crop"] == "none"


@pytest.mark.parametrize("copies_before_the_stop", [0, 5, 9])
def test_a_split_cut_short_is_refused_for_reading_and_finished_by_the_next(split_folders, monkeypatch, copies_before_the_stop):
    source, train, test = split_folders
    split_dataset(source, train, test, random_state=1)  # of which the next one leaves nothing
    other = write_files(source.parent / "other", [f"new/{name}" for name in NAMES])
    turns, write_bytes = count(), Path.write_bytes

    def write_or_stop(path, content):
        if content.startswith(b"content") and next(turns) >= copies_before_the_stop:
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


def test_a_copy_that_a_power_cut_left_empty_is_made_again(split_folders):
    split = split_dataset(*split_folders)
    before = tree(split_folders[1])
    (split_folders[1] / split.train[0]).write_bytes(b"")
    assert split_dataset(*split_folders) == split and tree(split_folders[1]) == before


def test_an_image_that_cannot_be_read_is_left_out_and_no_other_file_of_its_name_is_touched(split_folders):
    source, train, test = split_folders
    write_files(test, ["00.jpg"])  # 00.jpg of the source falls to train
    (source / "00.jpg").unlink()
    (source / "00.jpg").symlink_to("nowhere")
    with pytest.warns(UserWarning, match=r"1 of 10 .*'00.jpg' \(No such file"):
        split = split_dataset(*split_folders)
    assert len(split.train) == 7 and "00.jpg" not in images_in(train) and "00.jpg" not in split.train
    assert tree(test)["00.jpg"] == b"content of 00.jpg"
    (source / "nowhere").write_text("now here")
    assert split_dataset(*split_folders).train == sorted([*split.train, "00.jpg"]), "once it can be read it is there"


def test_a_source_of_which_too_little_can_be_read_leaves_the_images_of_the_split_before(split_folders, tmp_path):
    split_dataset(*split_folders)
    before = images_in(split_folders[1])
    other = write_files(tmp_path / "other", [f"new {name}" for name in NAMES])
    for name in NAMES[:6]:
        (other / f"new {name}").unlink()
        (other / f"new {name}").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"6 of 10 .*more than half"):
        split_dataset(other, *split_folders[1:])
    assert before.items() <= images_in(split_folders[1]).items()


# ---------------------------------------------------------------- reading a split, in a workspace


def test_untracked_images_in_a_split_folder_are_left_out_and_warned_of_and_missing_ones_an_error(tmp_path):
    split = split_dataset(write_images(tmp_path / "source", 8), tmp_path / "train", tmp_path / "test")
    write_files(tmp_path / "train", ["stranger.png"])
    with pytest.warns(UserWarning, match="1 images.*stranger.png"):
        assert load_images(tmp_path / "train", 16).names == split.train
    for n_gone, name in enumerate(split.test, 1):
        (tmp_path / "test" / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"{n_gone} images of the split are gone.*{split.test[0]}"):
            load_images(tmp_path / "test", 16)


def test_a_split_that_is_there_is_kept_unless_dogs_are_named(tmp_path, capsys):
    where = Folders(tmp_path)
    first = ensure_split(where, n_toy_dogs=10)
    before = tree(tmp_path)
    assert ensure_split(where, n_toy_dogs=30) == first and tree(tmp_path) == before
    assert "Using the split of 'toy_dogs' that is there: 8 + 2 images." in capsys.readouterr().out
    names = [f"{i:02d}.jpg" for i in range(12)]
    mine = ensure_split(where, str(write_files(tmp_path / "mine", names)), "center")
    assert sorted(mine.train + mine.test) == names
    assert ensure_split(where) == mine and read_manifest(where.train)["crop"] == "center"
