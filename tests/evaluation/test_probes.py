import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vae_helpers.evaluation import recover_factors
from vae_helpers.latent import attribute_directions


def uniform(n: int, k: int, seed: int = 0) -> Tensor:
    """Independent factors (n, k), uniform on [-1, 1]."""
    return 2 * torch.rand(n, k, generator=torch.Generator().manual_seed(seed)) - 1


def named(factors: Tensor) -> dict[str, Tensor]:
    return {f"factor {k}": column for k, column in enumerate(factors.T)}


FACTORS = uniform(600, 4)


def test_factors_that_are_the_latents_are_read_perfectly_and_each_from_its_own():
    order, scale = [2, 0, 3, 1], torch.tensor([1.0, -2.0, 0.7, -1.3])
    mu = torch.cat([FACTORS[:, order] * scale, 0.05 * uniform(600, 2, seed=1)], 1)  # and two latents that hardly move
    found = recover_factors(mu, named(FACTORS))
    assert found.names == ["factor 0", "factor 1", "factor 2", "factor 3"]
    assert found.linear == pytest.approx(np.ones(4), abs=1e-3) and found.nonlinear == pytest.approx(np.ones(4), abs=1e-3)
    expected = np.zeros((4, 6))
    expected[order, range(4)] = 1
    assert found.importance == pytest.approx(expected, abs=5e-3)


def test_linear_r2_is_that_of_the_attribute_directions():
    labels = named(uniform(200, 3, seed=1) * torch.tensor([0.01, 1, 100]) + FACTORS[:200, :3])
    found, directions = recover_factors(FACTORS[:200], labels, seed=3), attribute_directions(FACTORS[:200], labels, seed=3)
    scores = dict(zip(directions.names, directions.scores.tolist(), strict=True))
    assert dict(zip(found.names, found.linear, strict=True)) == pytest.approx(scores, abs=1e-6)


def test_r2_is_the_share_of_variance_that_latents_hold():
    noise, factors = uniform(600, 4, seed=5), uniform(600, 4)
    share = torch.tensor([1.0, 0.8, 0.5, 0.0])
    found = recover_factors(factors, named(share.sqrt() * factors + (1 - share).sqrt() * noise))
    assert found.linear == pytest.approx(share.numpy(), abs=0.1) and found.nonlinear == pytest.approx(share.numpy(), abs=0.1)


def test_what_is_bent_is_found_by_the_nonlinear_regression_only():
    z = uniform(600, 4)
    bent = {
        "absolute value": z[:, 0].abs(),
        "circle": z[:, 1].square() + z[:, 2].square(),
        "product": z[:, 0] * z[:, 3],
        "same sign": (z[:, 1] * z[:, 2] > 0).float(),
    }
    found = recover_factors(z, bent)
    assert found.linear.max() < 0.06
    assert found.nonlinear[:3].min() > 0.95 and found.nonlinear[3] > 0.6
    expected = [[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0.5, 0, 0, 0.5], [0, 0.5, 0.5, 0]]
    assert found.importance / found.nonlinear[:, None] == pytest.approx(np.array(expected), abs=0.08)


def test_independent_factors_are_not_read_and_importance_shares_out_the_r2():
    luck = {f"luck {k}": column for k, column in enumerate(uniform(600, 8, seed=2).T)}
    found = recover_factors(FACTORS, named(FACTORS + uniform(600, 4, seed=1)) | luck)
    assert found.nonlinear[:4].min() > 0.4
    assert np.abs(found.linear[4:]).max() < 0.15 and np.abs(found.nonlinear[4:]).max() < 0.15
    assert found.nonlinear.min() < 0  # there is something to be clipped
    assert found.importance.sum(1) == pytest.approx(found.nonlinear.clip(min=0)) and found.importance.min() >= 0
    assert list(found.summary()) == [found.names[k] for k in (-found.nonlinear).argsort()]


def test_r2_does_not_change_when_the_latent_space_is_rotated_but_importance_does():
    a, b = FACTORS[:, 0], FACTORS[:, 1]
    turned = torch.cat([torch.stack([a + b, a - b], 1) / math.sqrt(2), FACTORS[:, 2:]], 1)
    plain, turned = (recover_factors(z, named(FACTORS)) for z in (FACTORS, turned))
    assert turned.linear == pytest.approx(plain.linear, abs=1e-4)
    assert turned.nonlinear == pytest.approx(plain.nonlinear, abs=1e-4)
    expected = np.eye(4)
    expected[:2, :2] = 0.5
    assert plain.importance == pytest.approx(np.eye(4), abs=0.02) and turned.importance == pytest.approx(expected, abs=0.06)


def test_the_seed_decides_which_images_are_held_out():
    mu, labels = FACTORS[:60], named(FACTORS[:60] + uniform(60, 4, seed=1))
    first, again, other = (recover_factors(mu, labels, seed=seed) for seed in (1, 1, 2))
    for name in ("linear", "nonlinear", "importance"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.allclose(getattr(first, name), getattr(other, name), atol=1e-3)


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


FINE = torch.arange(20.0)


@pytest.mark.parametrize(
    ("labels", "shape", "said"),
    [
        ({}, (20, 3), "0 factors"),
        ({"size": FINE, "ears": FINE[:19]}, (20, 3), r"\[19, 20\] images, latents \(20, 3\)"),
        ({"size": FINE[:7]}, (7, 3), "at least 8 images"),
        ({"size": FINE}, (20, 1), "2 latent numbers"),
        ({"ears": FINE, "size": torch.full((20,), 0.1)}, (20, 3), "'size' is the same"),
        ({"ears": FINE, "size": FINE.where(FINE != 3, torch.nan)}, (20, 3), "'size' .* not finite"),
    ],
    ids=["none", "another length", "too few images", "one latent", "constant", "nan"],
)
def test_labels_that_cannot_be_read_are_an_error_that_says_why(labels, shape, said):
    with pytest.raises(ValueError, match=said):
        recover_factors(uniform(*shape), labels)
