import pytest

from vae_helpers.data import breed_of


@pytest.mark.parametrize(
    ("name", "breed"),
    [
        ("beagle/a.jpg", "beagle"),
        ("by breed/afghan_hound/a.jpg", "afghan hound"),
        ("n02085620-Chihuahua/n02085620_10074.jpg", "Chihuahua"),
        ("n02113624/anything.jpg", "toy poodle"),
        ("n02113624_8890.jpg", "toy poodle"),
        ("n02113624-8890.JPEG", "toy poodle"),
        ("n02110341_1.jpg", "dalmatian"),
        ("n01440764_36.JPEG", "n01440764"),
        ("mine/n02113624_8890.jpg", "mine"),
        ("dog.12.jpg", None),
        ("n0211362_8890.jpg", None),
        ("n021136241_8890.jpg", None),
        ("IMG_2030.jpg", None),
    ],
)
def test_a_breed_is_the_folder_of_an_image_or_the_imagenet_class_in_its_name(name, breed):
    assert breed_of(name) == breed
