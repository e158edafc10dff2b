import json
import math
from urllib.error import URLError

import pytest
import torch
import torch.nn as nn
from tiny import random_pixels

from vae_helpers.evaluation import NearestTraining, compare_features, extract_features, nearest_training, sample_metrics
from vae_helpers.evaluation import sample_metrics as module


class Numbers(nn.Module):
    """A feature network that hands the first pixels back as they are: (B, 3, S, S) -> (B, 4)."""

    def forward(self, pixels):
        return pixels.flatten(1)[:, :4].float()


ABOUT = {"reference": "toy", "resize": "none"}


def gaussian(n: int, width: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def modes(n: int, centres: list[float], seed: int) -> torch.Tensor:
    """(n, 2): points within about 1 of one of the centres, as many at each."""
    where = torch.tensor(centres, dtype=torch.float64).repeat(-(-n // len(centres)))[:n]
    return gaussian(n, 2, seed) + torch.stack([where, torch.zeros(n)], 1)


# the closed forms of the two distances


def test_the_frechet_distance_is_that_of_two_gaussians():
    # diagonal covariances: |m1 - m2|² + Σ (s1 - s2)²; Dowson & Landau 1982
    s1, s2, shift = torch.tensor([1.0, 2, 3]), torch.tensor([2.0, 2, 1]), torch.tensor([1.0, -2, 0])
    white = gaussian(2000, 3)
    white = (white - white.mean(0)) @ torch.linalg.inv(
        torch.linalg.cholesky(white.T.cov())
    ).T  # mean 0, covariance I to the bit
    other = gaussian(2000, 3, seed=1)
    other = (other - other.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(other.T.cov())).T
    expected = (shift.square() + (s1 - s2).square()).sum().item()
    assert compare_features(white * s1, other * s2 + shift).frechet == pytest.approx(expected, rel=1e-6)


def test_the_kernel_distance_is_the_unbiased_sum_over_all_pairs():
    # Bińkowski et al. 2018, eq. 4, with the kernel (x·y/F + 1)³
    x, y = gaussian(12, 3), gaussian(12, 3, seed=1) + 0.5

    def mean_kernel(a, b, without_self):
        values = [
            (torch.dot(p, q) / 3 + 1) ** 3 for i, p in enumerate(a) for j, q in enumerate(b) if i != j or not without_self
        ]
        return sum(values) / len(values)

    expected = mean_kernel(x, x, True) + mean_kernel(y, y, True) - 2 * mean_kernel(x, y, False)
    assert compare_features(x, y).kernel == pytest.approx(expected.item(), rel=1e-9)


def test_the_kernel_distance_between_samples_of_one_distribution_is_zero_on_average():
    distances = torch.tensor(
        [compare_features(gaussian(60, 4, seed=i), gaussian(60, 4, seed=100 + i)).kernel for i in range(40)]
    )
    standard_error = distances.std() / math.sqrt(len(distances))
    assert abs(distances.mean()) < 3 * standard_error
    assert distances.min() < 0  # unbiased: as often below zero as above


def test_figures_leave_the_global_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    compare_features(gaussian(20), gaussian(20, seed=1))
    assert torch.equal(torch.rand(3), expected)


# precision, recall, density, coverage: values derived by hand


def test_a_set_against_itself_has_one_everywhere_and_no_distance():
    x = gaussian(50)
    same = compare_features(x, x.clone())
    # a ball, being open, holds its centre and its k - 1 nearest neighbours: k points in each, so k balls a point on average
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert same.density == pytest.approx(1)
    assert abs(same.frechet) < 1e-9


def test_sets_far_apart_share_nothing():
    apart = compare_features(gaussian(30), gaussian(30, seed=1) + 1000)
    assert (apart.precision, apart.recall, apart.density, apart.coverage) == (0, 0, 0, 0)
    assert apart.frechet > 6 * 990**2


def test_one_image_repeated_in_the_middle_is_dense_but_covers_and_recalls_nothing_more():
    # 12 real points on a circle, 30° apart, radius 1. With k = 5 each ball reaches to the third neighbours on a side, at
    # distance 2 sin(45°) = 1.414 > 1: the middle is in all 12, so density = 12 / 5. Every ball holds an image: coverage 1.
    # Its own balls have radius 0: recall 0.
    angle = torch.arange(12, dtype=torch.float64) * math.pi / 6
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    repeated = compare_features(circle, torch.zeros_like(circle))
    assert repeated.density == pytest.approx(12 / 5)
    assert (repeated.precision, repeated.recall, repeated.coverage) == (1, 0, 1)
    # on the circle's first point instead: in the balls of that point and of those nearer than the radius, 60° to each side
    on_edge = compare_features(circle, circle[:1].repeat(12, 1))
    assert on_edge.density == pytest.approx(5 / 5)
    assert on_edge.coverage == pytest.approx(5 / 12)
    assert on_edge.recall == 0  # a ball without a radius holds nothing, not even a point at its centre


def test_a_smaller_k_makes_smaller_balls():
    # points on a line at 0, 1, 2, …; with k = 1 a ball is open and has radius 1, and holds what is nearer than that
    line = torch.arange(10, dtype=torch.float64)[:, None].repeat(1, 2) * math.sqrt(0.5)
    between = line + 0.4 * math.sqrt(0.5)
    figures = compare_features(line, between, k=1)
    # 0.4 is in the balls of 0 and 1, …, 9.4 only in that of 9: 19 of them
    assert figures.density == pytest.approx(19 / 10)
    assert (figures.precision, figures.coverage, figures.recall) == (1, 1, 1)


def test_half_of_the_modes_are_precise_but_only_half_recalled_and_covered():
    real, half = modes(200, [0.0, 100.0], seed=0), modes(200, [0.0], seed=1)
    figures = compare_features(real, half)
    assert figures.precision > 0.9
    assert 0.4 < figures.recall <= 0.5
    assert 0.4 < figures.coverage <= 0.5
    reversed_ = compare_features(half, real)  # the other way round, half of what is made is not real
    assert 0.4 < reversed_.precision <= 0.5
    assert reversed_.recall > 0.9


def test_two_samples_of_one_distribution_have_the_expected_density_and_coverage():
    # all orders of the n - 1 other real and the n generated points around a real one are equally likely; it is covered
    # unless its k nearest are all real: 1 - Π (n - i) / (2n - i), i = 1 … k (Naeem et al. 2020, lemma 2)
    n, k = 100, 5
    expected = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    found = [compare_features(gaussian(n, 3, seed=2 * i), gaussian(n, 3, seed=2 * i + 1)) for i in range(30)]
    assert sum(f.coverage for f in found) / 30 == pytest.approx(expected, abs=0.01)
    assert sum(f.density for f in found) / 30 == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("n", "m"), [(30, 29), (5, 5)])
def test_sides_of_unequal_number_or_too_few_are_refused(n, m):
    with pytest.raises(ValueError, match="both sides need the same number, above k=5"):
        compare_features(gaussian(n), gaussian(m))


# whole figures, from pixels


def test_figures_depend_neither_on_the_batch_size_nor_on_the_order_of_the_images():
    generated, real, train = random_pixels(30, seed=1), random_pixels(50, seed=2), random_pixels(40, seed=3)
    network = nn.Sequential(Float(), nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    expected = sample_metrics(generated, real, network, train=train, **ABOUT).summary()
    for batch_size, shuffle in ((7, False), (50, True), (1, True)):
        a, b, c = (x[torch.randperm(len(x))] if shuffle else x for x in (generated, real, train))
        found = sample_metrics(a, b, network, train=c, batch_size=batch_size, **ABOUT).summary()
        assert {n: v for n, v in found.items() if isinstance(v, str)} == {
            n: v for n, v in expected.items() if isinstance(v, str)
        }
        numbers = [{n: v for n, v in some.items() if isinstance(v, (int, float))} for some in (found, expected)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-4, abs=1e-6)


class Float(nn.Module):
    def forward(self, pixels):
        return pixels.float() / 255


def test_the_floor_and_the_samples_meet_the_same_reference_with_as_many_images(monkeypatch):
    seen = []
    monkeypatch.setattr(
        module, "compare_features", lambda real, ours, k: seen.append((real, ours)) or compare_features(real, ours, k)
    )
    generated, real = random_pixels(17, seed=1), random_pixels(60, seed=2)
    figures = sample_metrics(generated, real, Numbers(), k=3, **ABOUT)
    (reference, ours), (same_reference, other_real) = seen
    assert figures.n_images == 17 == len(reference) == len(ours) == len(other_real)
    assert torch.equal(reference, same_reference)
    rows = {tuple(row) for row in extract_features(Numbers(), real).tolist()}
    halves = [{tuple(row) for row in some.tolist()} for some in (reference, other_real)]
    assert len(halves[0]) == len(halves[1]) == 17 and not halves[0] & halves[1] and halves[0] | halves[1] <= rows
    assert figures.floor == compare_features(reference, other_real, 3)
    assert figures.samples == compare_features(reference, ours, 3)


def test_another_seed_takes_other_halves():
    generated, real = random_pixels(20, seed=1), random_pixels(60, seed=2)
    a, b, c = (sample_metrics(generated, real, Numbers(), seed=seed, **ABOUT) for seed in (0, 0, 1))
    assert a == b and a.floor != c.floor and c.seed == 1


def test_real_images_as_samples_are_at_the_floor_and_noise_is_not():
    grey = torch.full((300, 3, 8, 8), 128, dtype=torch.uint8)
    grey[:, 0, 0, :4] = (128 + 20 * gaussian(300, 4)).clamp(0, 255).byte()
    figures = sample_metrics(grey[:150], grey[150:], Numbers(), **ABOUT)
    assert figures.samples.frechet < 4 * figures.floor.frechet
    noise = sample_metrics(random_pixels(150, 8), grey[150:], Numbers(), **ABOUT)
    assert noise.samples.frechet > 20 * noise.floor.frechet and noise.samples.coverage < 0.5 * noise.floor.coverage


def test_the_summary_is_json_and_says_what_the_figures_are_of():
    network = Numbers()
    network.name, network.weights = "first_pixels", "1234abcd"
    generated, real, train = random_pixels(20, seed=1), random_pixels(60, seed=2), random_pixels(30, seed=3)
    summary = json.loads(
        json.dumps(sample_metrics(generated, real, network, train=train, reference="toy dogs", resize="box").summary())
    )
    expected = {"n_images": 20, "features": "first_pixels", "weights": "1234abcd", "reference": "toy dogs", "resize": "box"}
    assert summary.items() >= (expected | {"k": 5, "seed": 0}).items()
    names = {"frechet_first_pixels", "kernel_first_pixels", "precision", "recall", "density", "coverage"}
    assert set(summary) == {
        *expected,
        "k",
        "seed",
        *names,
        *(f"{n}_floor" for n in names),
        "nearest_median_ratio",
        "nearest_share",
    }
    without = sample_metrics(generated, real, network, reference="toy dogs", resize="box")
    assert without.nearest is None and not any("nearest" in name for name in without.summary())


def test_any_callable_will_do_and_is_named():
    def brightness(pixels):
        return pixels.float().mean((2, 3))

    assert "frechet_brightness" in sample_metrics(random_pixels(20), random_pixels(40, seed=1), brightness, **ABOUT).summary()
    assert "frechet_Numbers" in sample_metrics(random_pixels(20), random_pixels(40, seed=1), Numbers(), **ABOUT).summary()


def test_features_are_taken_in_eval_mode_without_gradient():
    network = nn.Sequential(Float(), nn.Flatten(), nn.Linear(768, 4), nn.Dropout(0.5)).train()
    assert torch.equal(extract_features(network, random_pixels(6)), extract_features(network, random_pixels(6)))
    features = extract_features(network, random_pixels(6))
    assert not features.requires_grad and features.dtype == torch.float64


@pytest.mark.parametrize("which", ["generated", "real", "train"])
@pytest.mark.parametrize("wrong", [torch.zeros(20, 3, 16, 16), random_pixels(20)[:, :1], random_pixels(20)[0]])
def test_what_is_not_images_as_bytes_is_refused_by_name(which, wrong):
    sets = {name: random_pixels(20) for name in ("generated", "real", "train")} | {which: wrong}
    with pytest.raises(ValueError, match=rf"(generated|{which}) is .*give uint8 \(N, 3, S, S\)"):
        sample_metrics(extractor=Numbers(), **sets, **ABOUT)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"generated is torch.uint8 \(20, 3, 8, 8\): .* all of one size"):
        sample_metrics(random_pixels(20, 8), random_pixels(20), Numbers(), **ABOUT)


@pytest.mark.parametrize(("n_generated", "n_real"), [(5, 40), (40, 11)])
def test_too_few_images_are_refused_with_how_many_are_needed(n_generated, n_real):
    message = f"{n_generated} generated and {n_real} real images: k=5 needs at least 6 and 12"
    with pytest.raises(ValueError, match=message):
        sample_metrics(random_pixels(n_generated), random_pixels(n_real), Numbers(), **ABOUT)
    assert sample_metrics(random_pixels(6), random_pixels(12, seed=1), Numbers(), **ABOUT).n_images == 6


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=r"gave \(4, 12\), 48 not finite"):
        extract_features(lambda pixels: pixels.flatten(1).float().log(), torch.zeros(4, 3, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\(N, F\)"):
        extract_features(lambda pixels: pixels.float(), random_pixels(4))


# Inception


class FakeInception(Numbers):
    def __init__(self, name, features_list):
        assert features_list == ["2048"]
        super().__init__()


def test_only_inceptions_figures_are_called_fid_and_kid(monkeypatch):
    monkeypatch.setattr(module, "NoTrainInceptionV3", FakeInception)
    summary = sample_metrics(random_pixels(20), random_pixels(40, seed=1), "inception", **ABOUT).summary()
    assert {"fid", "kid", "fid_floor", "kid_floor"} <= set(summary) and not any("frechet" in name for name in summary)
    own = sample_metrics(random_pixels(20), random_pixels(40, seed=1), Numbers(), **ABOUT).summary()
    assert not any("fid" in name or "kid" in name for name in own)


@pytest.mark.parametrize(
    "error", [URLError("no route to host"), ModuleNotFoundError("no torch-fidelity"), RuntimeError("bad hash")]
)
def test_when_inception_cannot_be_had_the_error_says_so_and_what_else_there_is(monkeypatch, error):
    def unreachable(**_):
        raise error

    monkeypatch.setattr(module, "NoTrainInceptionV3", unreachable)
    with pytest.raises(OSError, match=r"Inception's weights cannot be had .*load_dog_features\(\)"):
        sample_metrics(random_pixels(20), random_pixels(40, seed=1), "inception", **ABOUT)


def test_no_other_network_may_be_called_inception():
    network = Numbers()
    network.name = "inception"
    for extractor in (network, "resnet"):
        with pytest.raises(ValueError, match="not called 'inception'"):
            sample_metrics(random_pixels(20), random_pixels(40, seed=1), extractor, **ABOUT)


# memorisation


def test_the_nearest_training_features_are_those_of_brute_force():
    features, train = gaussian(600, 3, seed=1), gaussian(70, 3, seed=2)
    index, distance = nearest_training(features, train)
    brute = [min((math.dist(f, t), j) for j, t in enumerate(train.tolist())) for f in features.tolist()]
    assert index.tolist() == [j for _, j in brute]
    assert distance.tolist() == pytest.approx([d for d, _ in brute])


def test_copies_of_training_photos_are_found_and_paired():
    train, real = random_pixels(80, seed=3), random_pixels(60, seed=2)
    copies = torch.cat([random_pixels(15, seed=1), train[[7, 30, 2, 55, 11]]])
    nearest = sample_metrics(copies, real, Numbers(), train=train, **ABOUT).nearest
    assert [(i, j) for i, j, _ in nearest.closest(5)] == [(15, 7), (16, 30), (17, 2), (18, 55), (19, 11)]
    assert [d for *_, d in nearest.closest(5)] == [0] * 5
    assert nearest.fraction_nearer >= 5 / 20
    assert (len(nearest.distance), len(nearest.held_out_distance)) == (20, 60)
    fresh = sample_metrics(random_pixels(60, seed=1), real, Numbers(), train=train, **ABOUT).nearest
    assert 0.7 < fresh.median_ratio < 1.4 and fresh.fraction_nearer < 0.1
    all_copied = sample_metrics(train[:40], real, Numbers(), train=train, **ABOUT).nearest
    assert (all_copied.median_ratio, all_copied.fraction_nearer) == (0, 1)


def test_the_share_and_the_ratio_are_taken_against_held_out_photos():
    held_out = torch.arange(1, 102, dtype=torch.float64)  # 1 % of them are at 2 or nearer, their median is 51
    nearest = NearestTraining(torch.zeros(4), torch.tensor([1.0, 2.0, 2.5, 102.0], dtype=torch.float64), held_out)
    assert nearest.fraction_nearer == 2 / 4
    assert nearest.median_ratio == pytest.approx(2.25 / 51)
