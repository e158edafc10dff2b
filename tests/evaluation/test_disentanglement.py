import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from vae_helpers.evaluation import FactorRecovery, dci, mutual_information_gap, recover_factors
from vae_helpers.latent import attribute_directions


def uniform(n: int, k: int, seed: int = 0) -> Tensor:
    """Independent factors (n, k), uniform on [-1, 1]."""
    return 2 * torch.rand(n, k, generator=torch.Generator().manual_seed(seed)) - 1


def named(factors: Tensor) -> dict[str, Tensor]:
    return {f"factor {k}": column for k, column in enumerate(factors.T)}


def rotated(factors: Tensor) -> Tensor:
    """The first two columns turned by 45°, the others as they are."""
    a, b = factors[:, 0], factors[:, 1]
    return torch.cat([torch.stack([a + b, a - b], 1) / math.sqrt(2), factors[:, 2:]], 1)


def with_importance(rows: list[list[float]]) -> FactorRecovery:
    r2 = np.array(rows).sum(1)
    return FactorRecovery([f"factor {k}" for k in range(len(rows))], r2 / 2, r2, np.array(rows))


FACTORS = uniform(600, 4)


def permuted_flipped_scaled() -> Tensor:
    """The factors in another order, with other signs and units, beside two latents that hardly move."""
    return torch.cat([FACTORS[:, [2, 0, 3, 1]] * torch.tensor([1.0, -2.0, 0.7, -1.3]), 0.05 * uniform(600, 2, seed=1)], 1)


# ---------------------------------------------------------------- R²


def test_factors_that_are_the_latents_are_read_perfectly_and_each_from_its_own():
    found = recover_factors(permuted_flipped_scaled(), named(FACTORS))
    assert found.names == ["factor 0", "factor 1", "factor 2", "factor 3"]
    assert found.linear == pytest.approx(np.ones(4), abs=1e-3) and found.nonlinear == pytest.approx(np.ones(4), abs=1e-3)
    expected = np.zeros((4, 6))
    expected[[2, 0, 3, 1], range(4)] = 1
    assert found.importance == pytest.approx(expected, abs=5e-3)
    scores = dci(found)
    assert (scores.disentanglement, scores.completeness) == pytest.approx((1, 1), abs=0.02)
    assert scores.informativeness == pytest.approx(1, abs=1e-3)


def test_linear_r2_is_that_of_the_attribute_directions():
    labels = named(uniform(200, 3, seed=1) * torch.tensor([0.01, 1, 100]) + FACTORS[:200, :3])
    found, directions = recover_factors(FACTORS[:200], labels, seed=3), attribute_directions(FACTORS[:200], labels, seed=3)
    scores = dict(zip(directions.names, directions.scores.tolist(), strict=True))
    assert dict(zip(found.names, found.linear, strict=True)) == pytest.approx(scores, abs=1e-6)


def test_r2_is_the_share_of_variance_that_latents_hold():
    noise = uniform(1400, 4, seed=5)
    share = torch.tensor([1.0, 0.8, 0.5, 0.0])
    factors = uniform(1400, 4)
    found = recover_factors(factors, named(share.sqrt() * factors + (1 - share).sqrt() * noise))
    assert found.linear == pytest.approx(share.numpy(), abs=0.1) and found.nonlinear == pytest.approx(share.numpy(), abs=0.1)


def test_what_is_bent_is_found_by_the_nonlinear_regression_only():
    z = uniform(800, 4)
    bent = {
        "absolute value": z[:, 0].abs(),
        "circle": z[:, 1].square() + z[:, 2].square(),
        "product": z[:, 0] * z[:, 3],
        "same sign": (z[:, 1] * z[:, 2] > 0).float(),
    }
    found = recover_factors(z, bent)
    assert found.linear.max() < 0.06
    assert found.nonlinear[:3].min() > 0.95 and found.nonlinear[3] > 0.6
    used = found.importance / found.nonlinear[:, None]
    expected = [[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0.5, 0, 0, 0.5], [0, 0.5, 0.5, 0]]
    assert used == pytest.approx(np.array(expected), abs=0.08)


def test_independent_factors_are_not_read_by_either():
    found = recover_factors(uniform(600, 20), named(uniform(600, 6, seed=1)))
    assert np.abs(found.linear).max() < 0.15 and np.abs(found.nonlinear).max() < 0.1
    assert found.linear.mean() < 0  # on the dogs that it was fitted on it would be about 20 / 450


def test_importance_shares_out_the_r2_of_each_factor():
    noise = uniform(600, 4, seed=1)
    luck = {f"luck {k}": column for k, column in enumerate(uniform(600, 8, seed=2).T)}
    found = recover_factors(FACTORS, named(FACTORS + noise) | luck)
    assert found.nonlinear[:4].min() > 0.4 and found.nonlinear.min() < 0  # luck is there to be clipped
    assert found.importance.sum(1) == pytest.approx(found.nonlinear.clip(min=0)) and found.importance.min() >= 0


def test_r2_does_not_change_when_the_latent_space_is_rotated_but_dci_and_mig_do():
    plain, turned = (recover_factors(z, named(FACTORS)) for z in (FACTORS, rotated(FACTORS)))
    assert turned.linear == pytest.approx(plain.linear, abs=1e-4)
    assert turned.nonlinear == pytest.approx(plain.nonlinear, abs=1e-4)
    one, half = dci(plain), dci(turned)
    # two of four factors and latents halve what they have: an entropy of log 2, to the base 4, is 1/2
    assert (one.disentanglement, one.completeness) == pytest.approx((1, 1), abs=0.02)
    assert half.by_factor == pytest.approx(np.array([0.5, 0.5, 1, 1]), abs=0.03)
    assert half.by_latent == pytest.approx(np.array([0.5, 0.5, 1, 1]), abs=0.03)
    gaps = mutual_information_gap(rotated(FACTORS), named(FACTORS)).gap
    assert gaps[:2].max() < 0.06 and gaps[2:].min() > 0.8


def test_a_linear_factor_is_shared_out_by_the_variance_that_each_latent_brings():
    z = uniform(800, 3)
    found = recover_factors(z, {"mixed": 2 * z[:, 0] - z[:, 1], "other": z[:, 2]})
    assert found.importance == pytest.approx(np.array([[0.8, 0.2, 0], [0, 0, 1]]), abs=0.03)


def test_the_seed_decides_which_dogs_are_held_out():
    mu, labels = FACTORS[:60], named(FACTORS[:60] + uniform(60, 4, seed=1))
    first, again, other = (recover_factors(mu, labels, seed=seed) for seed in (1, 1, 2))
    for name in ("linear", "nonlinear", "importance"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.allclose(getattr(first, name), getattr(other, name), atol=1e-3)


def test_importance_follows_the_latents_wherever_they_stand():
    order = [3, 1, 0, 2]
    labels = named(FACTORS[:200] + uniform(200, 4, seed=1))
    plain, moved = recover_factors(FACTORS[:200], labels), recover_factors(FACTORS[:200][:, order], labels)
    assert moved.importance == pytest.approx(plain.importance[:, order], abs=1e-6)


def test_factors_do_not_disturb_each_other():
    labels = named(FACTORS[:200].square() + torch.tensor([3, 3, 0.1, 3]) * uniform(200, 4, seed=1))  # each its own penalty
    alone, together = recover_factors(FACTORS[:200], {"factor 2": labels["factor 2"]}), recover_factors(FACTORS[:200], labels)
    assert alone.nonlinear[0] == pytest.approx(together.nonlinear[2]) and alone.linear[0] == pytest.approx(together.linear[2])
    assert alone.importance[0] == pytest.approx(together.importance[2])


def test_labels_may_be_whole_numbers_or_yes_and_no_and_latents_may_have_a_shape():
    yes = FACTORS[:, 0] > 0
    labels = {"bool": yes, "int": 1000 * yes.long(), "float": yes.float(), "size": FACTORS[:, 1]}
    flat, shaped = (recover_factors(FACTORS.view(600, *shape), labels) for shape in ((4,), (1, 2, 2)))
    assert flat.nonlinear[:3] == pytest.approx(np.full(3, flat.nonlinear[0])) and flat.nonlinear[0] > 0.7
    assert np.array_equal(flat.importance, shaped.importance)
    mig = [mutual_information_gap(FACTORS.view(600, *shape), labels) for shape in ((4,), (1, 2, 2))]
    assert mig[0].gap[:3] == pytest.approx(np.full(3, mig[0].gap[0])) and np.array_equal(mig[0].gap, mig[1].gap)


# ---------------------------------------------------------------- mutual information gap


def grid(*levels: int, copies: int = 20) -> Tensor:
    """Every combination of whole numbers below `levels`, so often: exactly independent columns."""
    return torch.cartesian_prod(*[torch.arange(n) for n in levels]).float().repeat(copies, 1)


def test_mutual_information_of_known_tables():
    v = grid(2, 4)
    z = torch.stack([v[:, 0], v[:, 1] % 2, v[:, 1], torch.where(v[:, 1] == 0, v[:, 0], 7)], 1)
    mig = mutual_information_gap(z, {"two": v[:, 0], "four": v[:, 1]})
    one = math.log(2)
    # the last latent tells the first factor of a quarter of the dogs; of the second it tells whether it is 0
    quarter = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    expected = [[one, 0, 0, one / 4], [0, one, 2 * one, quarter]]
    assert mig.information == pytest.approx(np.array(expected), abs=1e-12)
    assert mig.gap.tolist() == pytest.approx([(one - one / 4) / one, (2 * one - one) / (2 * one)])
    assert mig.mean == pytest.approx((0.75 + 0.5) / 2)


def test_latents_that_are_factors_have_a_gap_of_one_up_to_what_few_dogs_cost():
    mig = mutual_information_gap(permuted_flipped_scaled(), named(FACTORS))
    assert mig.information.max(1) == pytest.approx(np.full(4, math.log(20)), abs=0.01)
    runner_up = np.sort(mig.information, axis=1)[:, -2]
    assert runner_up == pytest.approx(mig.chance, abs=0.08)  # the second best knows nothing
    assert mig.gap == pytest.approx(1 - mig.chance / math.log(20), abs=0.03) and mig.gap.max() < 0.95
    many = uniform(20_000, 3)
    assert mutual_information_gap(many, named(many)).mean > 0.99


@pytest.mark.parametrize(("n", "bins"), [(800, 10), (800, 20), (3000, 20)])
def test_independent_numbers_seem_to_share_what_chance_says_and_the_gap_does_not_see_it(n, bins):
    mig = mutual_information_gap(uniform(n, 6), named(uniform(n, 4, seed=1)), bins)
    assert mig.chance == pytest.approx(np.full(4, (bins - 1) ** 2 / (2 * n)), rel=0.25)
    assert mig.information.mean() == pytest.approx(mig.chance.mean(), rel=0.1)
    assert mig.gap.min() >= 0 and mig.gap.max() < 0.02


def test_neither_the_order_of_dogs_nor_of_latents_nor_their_units_change_the_gap():
    mu, labels = rotated(FACTORS) + 0.3 * uniform(600, 4, seed=1), named(FACTORS)
    dogs = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    plain = mutual_information_gap(mu, labels)
    moved = mutual_information_gap(mu[dogs][:, [3, 1, 0, 2]], {name: values[dogs] for name, values in labels.items()})
    assert moved.gap == pytest.approx(plain.gap, abs=1e-9) and plain.gap.min() > 0
    assert moved.information == pytest.approx(plain.information[:, [3, 1, 0, 2]], abs=1e-9)
    bent = mutual_information_gap(mu.exp(), {name: 10 * values**3 - 4 for name, values in labels.items()})
    assert bent.gap == pytest.approx(plain.gap, abs=0.02)


def test_rare_values_keep_a_bin_of_their_own_and_a_latent_that_never_moves_tells_nothing():
    rare = (torch.arange(600) % 50 == 0).float()
    mig = mutual_information_gap(torch.stack([rare, torch.zeros(600)], 1), {"rare": rare, "common": 1 - rare})
    assert mig.gap == pytest.approx([1, 1]) and mig.information[:, 1] == pytest.approx([0, 0], abs=1e-12)


def test_many_equal_values_share_a_bin():
    values = FACTORS[:, 0].clamp(min=0)  # half of the dogs are equal
    mig = mutual_information_gap(torch.stack([values, FACTORS[:, 1]], 1), {"half": values})
    assert mig.information[0, 0] == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(20), abs=0.05)


# ---------------------------------------------------------------- DCI of a given importance


def test_dci_of_one_latent_for_each_factor_is_one():
    scores = dci(with_importance([[0, 0.9, 0], [0.4, 0, 0], [0, 0, 0.2]]))
    assert (scores.disentanglement, scores.completeness, scores.informativeness) == pytest.approx((1, 1, 0.5))


def test_a_factor_split_over_two_latents_costs_completeness_only():
    scores = dci(with_importance([[0.3, 0.3, 0, 0], [0, 0, 0.4, 0]]))
    assert scores.by_factor == pytest.approx([0.5, 1])  # log 2 / log 4
    assert scores.completeness == pytest.approx(0.6 * 0.5 + 0.4 * 1)
    assert scores.disentanglement == pytest.approx(1) and scores.by_latent == pytest.approx([1, 1, 1, 0])


def test_a_latent_that_serves_two_factors_costs_disentanglement_only():
    scores = dci(with_importance([[0.75, 0], [0.25, 0], [0, 0.5]]))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(3)
    assert scores.by_latent == pytest.approx([1 - entropy, 1])
    assert scores.disentanglement == pytest.approx((1 * (1 - entropy) + 0.5 * 1) / 1.5)
    assert scores.completeness == pytest.approx(1)


def test_latents_that_all_serve_all_factors_alike_score_nothing():
    scores = dci(with_importance([[0.2] * 5] * 3))
    assert (scores.disentanglement, scores.completeness) == pytest.approx((0, 0), abs=1e-12)


def test_a_factor_that_is_not_read_has_no_say_in_the_averages():
    scores = dci(with_importance([[0.8, 0, 0], [0, 0.5, 0], [0, 0, 0]]))
    assert scores.by_factor == pytest.approx([1, 1, 0]) and scores.by_latent == pytest.approx([1, 1, 0])
    assert (scores.disentanglement, scores.completeness) == pytest.approx((1, 1))
    nothing = dci(with_importance([[0, 0], [0, 0]]))
    assert (nothing.disentanglement, nothing.completeness) == (0, 0)


def test_informativeness_is_the_nonlinear_r2_even_where_it_is_negative():
    recovery = replace(with_importance([[0.5, 0], [0, 0]]), nonlinear=np.array([0.5, -0.1]))
    assert dci(recovery).informativeness == pytest.approx(0.2)


# ---------------------------------------------------------------- errors

FINE = torch.arange(20.0)


@pytest.mark.parametrize("measure", [recover_factors, mutual_information_gap])
@pytest.mark.parametrize(
    ("labels", "shape", "said"),
    [
        ({}, (20, 3), "0 factors"),
        ({"size": FINE[:19]}, (20, 3), r"\[19\] dogs, latents \(20, 3\)"),
        ({"size": FINE, "ears": FINE[:19]}, (20, 3), r"\[19, 20\]"),
        ({"size": FINE[:7]}, (7, 3), "at least 8 dogs"),
        ({"size": FINE}, (20, 1), "2 latent numbers"),
        ({"ears": FINE, "size": torch.full((20,), 0.1)}, (20, 3), "'size' is the same"),
        ({"ears": FINE, "size": FINE.where(FINE != 3, torch.nan)}, (20, 3), "'size' .* not finite"),
        ({"ears": FINE, "size": FINE.where(FINE != 3, torch.inf)}, (20, 3), "'size' .* not finite"),
    ],
    ids=["none", "another length", "one of another length", "too few dogs", "one latent", "constant", "nan", "inf"],
)
def test_labels_that_cannot_be_read_are_an_error_that_says_why(measure, labels, shape, said):
    with pytest.raises(ValueError, match=said):
        measure(uniform(*shape), labels)


@pytest.mark.parametrize("rows", [[[0.5, 0.5]], [[0.5], [0.5]]])
def test_dci_of_one_factor_or_one_latent_is_an_error(rows):
    with pytest.raises(ValueError, match="at least 2 of each"):
        dci(with_importance(rows))
