"""The head finder: what it takes, what it answers, and that it is not fooled by pictures without dogs.

How many heads it finds in photos is checked where there are photos: `recipes/head_finder.py DOGS --check`.
"""

import pytest
import torch
from sklearn.datasets import load_sample_images
from tiny import random_pixels

from vae_helpers import find_head
from vae_helpers.files import WEIGHTS


def textures(n: int) -> torch.Tensor:
    """Smooth colours, gradients and noise: uint8 (n, 3, 90, 120)"""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, 4, 5, generator=generator)
    fine = 0.2 * torch.rand(n, 3, 90, 120, generator=generator)
    return ((torch.nn.functional.interpolate(coarse, size=(90, 120), mode="bilinear") + fine).clamp(0, 1) * 255).byte()


def test_pictures_without_a_dog_have_no_head():
    pictures = [*textures(20), *(torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images)]
    assert sum(find_head(picture) is not None for picture in pictures) <= 1


def test_the_surest_place_is_a_box_inside_the_picture_whatever_its_shape():
    for shape in ((3, 40, 300), (3, 300, 40), (3, 8, 8), (3, 112, 112)):
        head = find_head(torch.randint(256, shape, generator=torch.Generator().manual_seed(1)).byte(), min_score=0.0)
        left, top, right, bottom = head.box
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1 and 0 <= head.score <= 1


def test_a_picture_that_is_enlarged_gets_the_same_answer():
    small = textures(1)[0]
    expected = find_head(small, min_score=0.0)
    head = find_head(small.repeat_interleave(20, 1).repeat_interleave(20, 2), min_score=0.0)  # 1800 x 2400
    assert head.box == pytest.approx(expected.box, abs=0.02) and head.score == pytest.approx(expected.score, abs=0.02)


def test_a_head_that_the_finder_is_less_sure_of_than_asked_is_not_reported():
    picture = textures(1)[0]
    score = find_head(picture, min_score=0.0).score
    assert find_head(picture, min_score=score * 0.9) is not None and find_head(picture, min_score=score * 1.1 + 1e-6) is None


@pytest.mark.parametrize(
    "wrong", [random_pixels(1), torch.rand(3, 8, 8), torch.zeros(1, 8, 8).byte(), torch.zeros(3, 0, 4).byte()]
)
def test_anything_but_one_picture_of_bytes_is_an_error_that_says_what_is_taken(wrong):
    with pytest.raises(ValueError, match=r"one picture, uint8 \(3, H, W\)"):
        find_head(wrong)


def test_the_finder_is_small():
    assert (WEIGHTS / "head_finder.safetensors").stat().st_size <= 1_000_000
