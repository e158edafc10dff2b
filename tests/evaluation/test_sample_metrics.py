import math

import pytest
import torch
import torch.nn as nn
from tiny import random_pixels
from torchmetrics.image.fid import FrechetInceptionDistance

from vae_helpers.evaluation import compare_features, extract_features, nearest_features, sample_metrics


def gaussian(n: int, width: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def modes(n: int, centres: list[float], seed: int) -> torch.Tensor:
    """(n, 2): points within about 1 of one of the centres, as many at each."""
    where = torch.tensor(centres, dtype=torch.float64).repeat(-(-n // len(centres)))[:n]
    return gaussian(n, 2, seed) + torch.stack([where, torch.zeros(n)], 1)


# ---------------------------------------------------------------- two sets of features


def test_the_frechet_distance_is_that_of_two_gaussians():
    # diagonal covariances: |m1 - m2|² + Σ (s1 - s2)²; Dowson & Landau 1982
    s1, s2, shift = torch.tensor([1.0, 2, 3]), torch.tensor([2.0, 2, 1]), torch.tensor([1.0, -2, 0])

    def white(seed):  # mean 0, covariance I to the bit
        x = gaussian(2000, 3, seed)
        return (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T

    expected = (shift.square() + (s1 - s2).square()).sum().item()
    found = compare_features(generated=white(1) * s2 + shift, real=white(0) * s1)
    assert found.frechet == pytest.approx(expected, rel=1e-6)


def test_a_set_against_itself_has_one_everywhere_and_no_distance():
    same = compare_features(generated=gaussian(50), real=gaussian(50))
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert abs(same.frechet) < 1e-9


def test_sets_far_apart_share_nothing():
    apart = compare_features(generated=gaussian(30, seed=1) + 1000, real=gaussian(30))
    assert (apart.precision, apart.recall, apart.coverage) == (0, 0, 0)
    assert apart.frechet > 6 * 990**2


def test_one_image_repeated_covers_what_is_near_it_and_recalls_nothing():
    # 12 real points on a circle, 30° apart, radius 1. With k = 5 each ball reaches to the third neighbours on a side, at
    # distance 2 sin(45°) = 1.414 > 1: the middle is in all 12. Its own balls have radius 0, so recall is 0.
    angle = torch.arange(12, dtype=torch.float64) * math.pi / 6
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    middle = compare_features(generated=torch.zeros_like(circle), real=circle)
    assert (middle.precision, middle.recall, middle.coverage) == (1, 0, 1)
    # on the circle's first point instead: in the balls of that point and of those nearer than the radius, 60° to each side
    on_edge = compare_features(generated=circle[:1].repeat(12, 1), real=circle)
    assert (on_edge.precision, on_edge.recall) == (1, 0) and on_edge.coverage == pytest.approx(5 / 12)


def test_a_smaller_k_makes_smaller_balls():
    # real points on a line at 0, 1, 2, …, 9; with k = 1 a ball is open and has radius 1
    line = torch.arange(10, dtype=torch.float64)[:, None]
    found = compare_features(generated=line + 4.4, real=line, k=1)  # 4.4, …, 13.4: six of them in some ball
    assert (found.precision, found.recall, found.coverage) == (0.6, 0.6, 0.6)
    assert compare_features(generated=line + 4.4, real=line, k=5).coverage == 1


def test_half_of_the_modes_are_precise_but_only_half_recalled_and_covered():
    both, half = modes(200, [0.0, 100.0], seed=0), modes(200, [0.0], seed=1)
    found = compare_features(generated=half, real=both)
    assert found.precision > 0.9 and 0.4 < found.recall <= 0.5 and 0.4 < found.coverage <= 0.5
    swapped = compare_features(generated=both, real=half)  # half of what is made is not real
    assert 0.4 < swapped.precision <= 0.5 and swapped.recall > 0.9


def test_two_samples_of_one_distribution_have_the_expected_coverage():
    # all orders of the n - 1 other real and the n generated points around a real one are equally likely; it is covered
    # unless its k nearest are all real: 1 - Π (n - i) / (2n - i), i = 1 … k (Naeem et al. 2020, lemma 2)
    n, k = 100, 5
    expected = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    pairs = [(gaussian(n, 3, seed=2 * i), gaussian(n, 3, seed=2 * i + 1)) for i in range(30)]
    assert sum(compare_features(generated=a, real=b).coverage for a, b in pairs) / 30 == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("n", "m"), [(30, 29), (5, 5)])
def test_sides_of_unequal_number_or_too_few_are_refused(n, m):
    with pytest.raises(ValueError, match="both sides need the same number, above k=5"):
        compare_features(generated=gaussian(n), real=gaussian(m))


def test_sets_that_could_be_swapped_are_named_in_every_call():
    for function in (compare_features, sample_metrics):
        with pytest.raises(TypeError):
            function(gaussian(20), gaussian(20))


# ---------------------------------------------------------------- with the real-vs-real baseline


def test_generated_and_other_real_images_meet_the_same_reference_with_as_many_images():
    # real points are far from each other: two halves that share none have no coverage, and copies of all have it for the half
    real = torch.arange(60, dtype=torch.float64)[:, None] ** 3
    found = sample_metrics(generated=real[:17], real=real, k=3, seed=1)
    assert found.n_images == 17 and (found.k, found.seed) == (3, 1)
    everything = sample_metrics(generated=real, real=real, k=1)
    assert everything.n_images == 30 and everything.generated.coverage < 1  # 30 of the 60 are drawn, whichever
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    assert found.real_vs_real == compare_features(generated=real[order[17:34]], real=real[order[:17]], k=3)


def test_another_seed_takes_other_halves_and_no_global_random_state():
    generated, real = gaussian(20, seed=1), gaussian(60, seed=2)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    a, b, c = (sample_metrics(generated=generated, real=real, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert a == b and a.real_vs_real != c.real_vs_real


def test_real_images_as_samples_are_at_the_baseline_and_others_are_not():
    found = sample_metrics(generated=gaussian(150, 4, 1), real=gaussian(300, 4, 2))
    assert found.generated.frechet < 4 * found.real_vs_real.frechet
    wide = sample_metrics(generated=3 * gaussian(150, 4, 1), real=gaussian(300, 4, 2))
    assert wide.generated.frechet > 20 * wide.real_vs_real.frechet
    assert wide.generated.coverage < 0.8 * wide.real_vs_real.coverage


@pytest.mark.parametrize(("n_generated", "n_real"), [(5, 40), (40, 11)])
def test_too_few_images_are_refused_with_how_many_are_needed(n_generated, n_real):
    message = f"{n_generated} generated and {n_real} real images: k=5 needs at least 6 and 12"
    with pytest.raises(ValueError, match=message):
        sample_metrics(generated=gaussian(n_generated), real=gaussian(n_real))
    assert sample_metrics(generated=gaussian(6), real=gaussian(12, seed=1)).n_images == 6


def test_the_nearest_training_features_are_those_of_brute_force():
    features, train = gaussian(600, 3, seed=1), gaussian(70, 3, seed=2)
    index, distance = nearest_features(features, train)
    brute = [min((math.dist(f, t), j) for j, t in enumerate(train.tolist())) for f in features.tolist()]
    assert index.tolist() == [j for _, j in brute]
    assert distance.tolist() == pytest.approx([d for d, _ in brute])


def test_copies_of_training_images_are_noticed():
    train, real = gaussian(80, seed=3), gaussian(60, seed=2)
    assert sample_metrics(generated=train[:40], real=real, train=train).nearest_ratio == 0
    assert 0.8 < sample_metrics(generated=gaussian(60, seed=1), real=real, train=train).nearest_ratio < 1.25
    assert sample_metrics(generated=train[:40], real=real).nearest_ratio is None


# ---------------------------------------------------------------- features of images


class Features(nn.Module):
    """(B, 3, S, S) -> (B, 5), with layers that behave otherwise in training."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )

    def forward(self, pixels):
        return self.network(pixels.float() / 255)


def test_features_are_taken_in_eval_mode_without_gradient_and_do_not_depend_on_the_batch_size():
    network, pixels = Features().train(), random_pixels(30)
    features = extract_features(network, pixels)
    assert features.shape == (30, 5) and features.dtype == torch.float64 and not features.requires_grad
    torch.testing.assert_close(extract_features(network, pixels, batch_size=7), features, rtol=1e-4, atol=1e-6)


def test_the_distance_from_pixels_is_that_of_torchmetrics():
    network, generated, real = Features().eval(), random_pixels(40, seed=1), random_pixels(40, seed=2)
    network.num_features = 5
    fid = FrechetInceptionDistance(feature=network)
    fid.update(real, real=True)
    fid.update(generated, real=False)
    found = compare_features(generated=extract_features(network, generated), real=extract_features(network, real))
    assert found.frechet == pytest.approx(fid.compute().item(), rel=1e-3)


@pytest.mark.parametrize("wrong", [torch.zeros(20, 3, 16, 16), random_pixels(20)[:, :1], random_pixels(20)[0]])
def test_what_is_not_images_as_bytes_is_refused(wrong):
    with pytest.raises(ValueError, match=r"images must be uint8 \(N, 3, S, S\), not"):
        extract_features(Features(), wrong)


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=r"gave \(4, 12\), 48 not finite"):
        extract_features(lambda pixels: pixels.flatten(1).float().log(), torch.zeros(4, 3, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\(N, F\)"):
        extract_features(lambda pixels: pixels.float(), random_pixels(4))
