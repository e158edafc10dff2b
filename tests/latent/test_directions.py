import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vae_helpers.latent import Directions, attribute_directions, dimensions_by_kl, lerp, principal_axes, slerp


def two_latents(shape=(8,)):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


@pytest.mark.parametrize("shape", [(8,), (4, 7, 7)])
@pytest.mark.parametrize("way", [lerp, slerp])
@pytest.mark.parametrize("factor", [None, -2.0], ids=["anywhere", "the opposite way"])
def test_a_way_has_its_ends_to_the_last_bit_and_its_places_one_by_one_in_any_order(way, shape, factor):
    a, b = two_latents(shape)
    b = b if factor is None else factor * a
    points = way(a, b, torch.linspace(0, 1, 5))
    assert points.shape == (5, *shape)
    assert torch.equal(points[0], a) and torch.equal(points[-1], b)
    torch.testing.assert_close(way(a, b, torch.tensor([0.75, 0.25, 1.0])), points[[3, 1, 4]])


def test_a_straight_way_has_equal_steps():
    a, b = two_latents()
    steps = lerp(a, b, torch.linspace(0, 1, 5)).diff(dim=0)
    torch.testing.assert_close(steps, ((b - a) / 4).expand(4, -1))


def test_an_arc_between_equal_norms_keeps_the_norm_and_has_equal_steps():
    a, b = two_latents()
    points = slerp(a, b * a.norm() / b.norm(), torch.linspace(0, 1, 9))
    torch.testing.assert_close(points.norm(dim=1), a.norm().expand(9))
    lengths = points.diff(dim=0).norm(dim=1)
    torch.testing.assert_close(lengths, lengths[0].expand(8))


@pytest.mark.parametrize("degrees", [30, 90, 150, 175])
def test_an_arc_keeps_the_norm_between_those_of_its_ends(degrees):
    angle = math.radians(degrees)
    b = 2 * torch.tensor([math.cos(angle), math.sin(angle)])
    norms = slerp(torch.tensor([1.0, 0]), b, torch.linspace(0, 1, 21)).norm(dim=1)
    assert norms.min() >= 1 - 1e-5 and norms.max() <= 2 + 1e-5


@pytest.mark.parametrize("factor", [-2.0, 0.0, 1.0, 3.0])
def test_an_arc_without_a_plane_falls_back_to_the_line(factor):
    (a, _), t = two_latents(), torch.linspace(0, 1, 5)
    torch.testing.assert_close(slerp(a, factor * a, t), lerp(a, factor * a, t))


# ---------------------------------------------------------------- directions

SHAPES = [(8,), (2, 2, 2)]


def dogs_latents(n: int = 1000, shape: tuple[int, ...] = (8,)) -> Tensor:
    """Means of dogs whose 8 numbers differ in spread, vary together, and are not zero on average: (n, *shape)"""
    generator = torch.Generator().manual_seed(1)
    mixing, middle = torch.randn(8, 8, generator=generator), torch.randn(8, generator=generator)
    spread = 0.7 ** torch.arange(8)
    return (torch.randn(n, 8, generator=generator) * spread @ mixing + middle).view(n, *shape)


def dogs_logvar(mu: Tensor) -> Tensor:
    return torch.linspace(-6, 0, mu[0].numel()).view(1, *mu.shape[1:]).expand_as(mu)


def with_noise(values: Tensor, share: float, seed: int) -> Tensor:
    """`values` and so much noise that it is `share` of the variance; mean 0 and standard deviation 1 in all."""
    noise = torch.randn(len(values), generator=torch.Generator().manual_seed(seed))
    return (1 - share) ** 0.5 * (values - values.mean()) / values.std() + share**0.5 * noise


def dogs_labels(mu: Tensor) -> dict[str, Tensor]:
    """Four attributes that follow from the latents up to a known share of noise."""
    z = mu.flatten(1)
    return {
        "ears": 10 + 3 * with_noise(z[:, 1] - z[:, 3], 0.5, seed=1),
        "size": 0.01 * with_noise(2 * z[:, 0] + z[:, 5], 0.0, seed=2),
        "light": with_noise(z.sum(1), 0.2, seed=3),
        "luck": with_noise(z[:, 2], 1.0, seed=4),
    }


MAKERS = {
    "principal axes": lambda mu: principal_axes(mu, 5),
    "single dimensions": lambda mu: dimensions_by_kl(mu, dogs_logvar(mu), 5),
    "attributes": lambda mu: attribute_directions(mu, dogs_labels(mu)),
}


def numbers(directions: Directions) -> dict[str, Tensor]:
    return {name: value for name, value in vars(directions).items() if isinstance(value, Tensor)}


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_move_sets_its_coordinate_and_leaves_the_others(make, shape):
    mu = dogs_latents(shape=shape)
    directions, z = make(mu), mu[:3]
    before = directions.coordinates(z)
    assert before.shape == (3, len(directions))
    for k in range(len(directions)):
        value = directions.high[k].item()
        moved = directions.move(z, k, value)
        assert moved.shape == z.shape and not torch.equal(moved, z)
        expected = before.clone()
        expected[:, k] = value
        scale = directions.high - directions.low
        torch.testing.assert_close(directions.coordinates(moved) / scale, expected / scale, atol=1e-4, rtol=0)


def test_latents_can_move_each_to_a_value_of_its_own(make):
    mu = dogs_latents()
    directions, values = make(mu), torch.tensor([-1.0, 0.0, 2.0])
    alone = [directions.move(z[None], 1, value.item()) for z, value in zip(mu[:3], values, strict=True)]
    torch.testing.assert_close(directions.move(mu[:3], 1, values), torch.cat(alone))


def test_a_move_to_where_a_latent_is_leaves_it_there(make):
    mu = dogs_latents()
    directions = make(mu)
    torch.testing.assert_close(directions.move(mu, 2, directions.coordinates(mu)[:, 2]), mu)


def test_low_and_high_leave_out_one_dog_in_a_hundred_at_either_end(make):
    mu = dogs_latents()
    directions = make(mu)
    quantiles = np.quantile(directions.coordinates(mu).double().numpy(), [0.01, 0.99], axis=0)
    for ours, by_numpy in zip((directions.low, directions.high), quantiles, strict=True):
        assert ours.numpy() == pytest.approx(by_numpy, rel=1e-4, abs=1e-4)


def test_latents_with_a_shape_have_the_directions_of_flat_ones(make):
    flat, shaped = (make(dogs_latents(shape=shape)) for shape in SHAPES)
    assert flat.names == shaped.names and shaped.vectors.shape == shaped.coef.shape == (len(shaped), 2, 2, 2)
    for name, value in numbers(shaped).items():
        torch.testing.assert_close(value.reshape(numbers(flat)[name].shape), numbers(flat)[name])


def test_directions_are_ordered_by_their_scores(make):
    scores = make(dogs_latents()).scores
    assert torch.equal(scores, scores.sort(descending=True).values) and scores.unique().numel() == len(scores)


def test_a_choice_of_directions_keeps_all_that_belongs_to_each(make):
    directions = make(dogs_latents())
    taken = directions.take([2, 0])
    assert len(taken) == 2 and taken.names == [directions.names[2], directions.names[0]]
    assert taken.score_name == directions.score_name
    for name, value in numbers(taken).items():
        assert torch.equal(value, numbers(directions)[name][[2, 0]])


# ---------------------------------------------------------------- principal axes


def test_axes_are_the_eigenvectors_of_the_covariance_most_spread_first():
    mu = dogs_latents()
    found = principal_axes(mu, 8)
    eigenvalues, eigenvectors = np.linalg.eigh(np.cov(mu.double().numpy().T))
    axes = found.vectors / found.vectors.norm(dim=1, keepdim=True)
    assert np.abs(axes.numpy() @ eigenvectors[:, ::-1]) == pytest.approx(np.eye(8), abs=1e-3)
    assert found.scores.numpy() == pytest.approx(eigenvalues[::-1] / eigenvalues.sum(), rel=1e-3)
    assert found.vectors.norm(dim=1).square().numpy() == pytest.approx(eigenvalues[::-1], rel=1e-3)


def test_coordinates_on_axes_are_standard_deviations_from_the_average_dog():
    mu = dogs_latents()
    coordinates = principal_axes(mu, 8).coordinates(mu)
    torch.testing.assert_close(coordinates.mean(0), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cov(coordinates.T), torch.eye(8), atol=1e-3, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_axes_point_the_same_way_when_the_dogs_come_in_another_order(seed):
    mu = dogs_latents(100)
    shuffled = mu[torch.randperm(100, generator=torch.Generator().manual_seed(seed))]
    torch.testing.assert_close(principal_axes(shuffled).vectors, principal_axes(mu).vectors, atol=1e-4, rtol=0)


def test_the_largest_number_of_an_axis_is_positive_whatever_sign_the_algebra_found():
    vectors = principal_axes(dogs_latents()).vectors
    assert (vectors.max(1).values == vectors.abs().max(1).values).all()


@pytest.mark.parametrize(("n_dogs", "n", "expected"), [(100, 3, 3), (100, 20, 8), (5, 8, 4)])
def test_there_are_no_more_axes_than_dogs_or_numbers_span(n_dogs, n, expected):
    assert len(principal_axes(dogs_latents(n_dogs), n)) == expected


# ---------------------------------------------------------------- single dimensions


def test_single_dimensions_are_the_latent_numbers_that_carry_most_nats():
    mu, logvar = torch.tensor([0.1, 3.0, 0.0, 1.0]).repeat(6, 1), torch.zeros(6, 4)
    logvar[:, 2] = -12.0  # (12 - 1) / 2 nats, about
    found = dimensions_by_kl(mu, logvar, n=3)
    assert found.names == ["z[2]", "z[1]", "z[3]"] and found.score_name == "KL (nats)"
    assert found.scores.tolist() == pytest.approx([5.5, 4.5, 0.5], abs=1e-4)
    assert torch.equal(found.vectors, torch.eye(4)[[2, 1, 3]])
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.coordinates(z), z[:, [2, 1, 3]])


# ---------------------------------------------------------------- attributes


def test_scores_of_attributes_are_the_share_of_variance_that_latents_explain():
    mu = dogs_latents(4000)
    found = attribute_directions(mu, dogs_labels(mu))
    assert found.names == ["size", "light", "ears", "luck"] and found.score_name == "held-out R²"
    assert found.scores.tolist() == pytest.approx([1.0, 0.8, 0.5, 0.0], abs=0.05)


def test_an_attribute_that_latents_do_not_hold_scores_no_better_than_guessing():
    mu = dogs_latents(60)
    scores = [attribute_directions(mu, {"luck": dogs_labels(mu)["luck"]}, seed=seed).scores.item() for seed in range(20)]
    assert np.mean(scores) < 0  # on the dogs that it was fitted on it would be about 8 / 45


def test_an_attribute_is_read_in_its_own_units():
    mu = dogs_latents()
    size = dogs_labels(mu)["size"]
    read = attribute_directions(mu, {"size": 1000 * size + 7}).coordinates(mu)[:, 0]
    torch.testing.assert_close(read, 1000 * size + 7, atol=0.3, rtol=0)  # its standard deviation is 10


def test_other_units_of_an_attribute_do_not_change_the_walk():
    mu = dogs_latents()
    labels = dogs_labels(mu)
    one, other = attribute_directions(mu, labels), attribute_directions(mu, labels | {"ears": 100 * labels["ears"] - 5})
    k, values = one.names.index("ears"), torch.tensor([8.0, 12.0])
    torch.testing.assert_close(one.move(mu[:2], k, values), other.move(mu[:2], k, 100 * values - 5), atol=1e-3, rtol=1e-3)


def test_a_move_takes_along_what_usually_varies_with_its_attribute():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(20_000, 3, generator=generator)
    z[:, 1] = 0.8 * z[:, 0] + 0.6 * z[:, 1]
    vector = attribute_directions(z, {"size": z[:, 0]}).vectors[0]
    torch.testing.assert_close(vector, torch.tensor([1.0, 0.8, 0.0]), atol=0.03, rtol=0)


def test_the_seed_decides_which_dogs_an_attribute_is_tested_on():
    mu = dogs_latents(100)
    first, again, other = (attribute_directions(mu, dogs_labels(mu), seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(value, numbers(again)[name]) for name, value in numbers(first).items())
    assert not torch.equal(first.scores, other.scores)


def test_labels_may_be_whole_numbers_or_yes_and_no():
    mu = dogs_latents()
    yes = mu[:, 0] > mu[:, 0].mean()
    found = attribute_directions(mu, {"as float": yes.float(), "as bool": yes, "as int": yes.long()})
    assert found.scores.min() > 0.3 and torch.equal(found.scores, found.scores[:1].expand(3))


FINE = torch.arange(20.0)


@pytest.mark.parametrize(
    ("labels", "n_dogs", "said"),
    [
        ({}, 20, r"attributes \[\]"),
        ({"size": FINE, "ears": FINE[:19]}, 20, r"20 dogs, attributes \['ears'\]"),
        ({"size": FINE[:7]}, 7, "7 dogs, .* 8 dogs or more"),
        ({"ears": FINE, "size": torch.full((20,), 0.1)}, 20, r"\['size'\]"),
        ({"ears": FINE, "size": FINE.where(FINE != 3, torch.nan)}, 20, r"\['size'\]"),
        ({"ears": FINE, "size": FINE.where(FINE != 3, torch.inf)}, 20, r"\['size'\]"),
    ],
    ids=["none", "another length", "too few dogs", "constant", "nan", "inf"],
)
def test_labels_that_cannot_be_fitted_are_an_error_that_names_them(labels, n_dogs, said):
    with pytest.raises(ValueError, match=said):
        attribute_directions(dogs_latents(n_dogs), labels)
