import pytest

from vae_helpers.data import breeds_of

BESIDE = [f"borzoi/{i}.jpg" for i in range(3)]  # another folder with images enough to be a breed


@pytest.mark.parametrize(
    ("folder", "breed"),
    [
        ("beagle", "beagle"),
        ("by breed/afghan_hound", "afghan hound"),
        ("train/pug", "pug"),
        ("n02085620-Chihuahua", "Chihuahua"),
        ("n02113624", "toy poodle"),
        ("n01440764-tench", "tench"),
        *((name, None) for name in ("train", "photos/Test", "val", "valid", "validation", "testing", "training", "train2017")),
        *((name, None) for name in ("2021-03", "2021/03", "2021_03_14", "20210314", "")),
    ],
)
def test_a_folder_of_three_images_is_a_breed_beside_another_unless_it_is_a_part_of_a_split_or_a_date(folder, breed):
    names = [f"{folder}/{i}.jpg".lstrip("/") for i in range(3)]
    assert breeds_of(names + BESIDE) == [breed] * 3 + (["borzoi"] * 3 if breed else [None] * 3)


@pytest.mark.parametrize(
    ("name", "breed"),
    [
        ("n02113624_8890.jpg", "toy poodle"),
        ("n02113624-8890.JPEG", "toy poodle"),
        ("train/n02110341_1.jpg", "dalmatian"),
        ("n02085620-Chihuahua/n02113624_8890.jpg", "Chihuahua"),
        ("n01440764_36.JPEG", "n01440764"),
        ("dog.12.jpg", None),
        ("n0211362_8890.jpg", None),
        ("n021136241_8890.jpg", None),
        ("IMG_2030.jpg", None),
    ],
)
def test_numbers_of_imagenet_count_however_few_and_a_folder_comes_before_a_name(name, breed):
    assert breeds_of([name]) == [breed]
    assert breeds_of([name, "beagle/n02113624_1.jpg", *BESIDE, *(f"beagle/{i}.jpg" for i in range(2))]) == [
        breed,
        *["beagle"],
        *["borzoi"] * 3,
        *["beagle"] * 2,
    ]


def test_smaller_folders_and_a_folder_alone_are_no_breeds():
    few = ["pug/1.jpg", "pug/2.jpg"]
    assert breeds_of(BESIDE + few) == [None] * 5
    assert breeds_of([*BESIDE, *few, "pug/3.jpg"]) == ["borzoi"] * 3 + ["pug"] * 3
    assert breeds_of([]) == []
