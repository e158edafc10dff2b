import copy

import pytest
import torch

from vae_helpers.training import learning_rate_factor, optimizer_step, update_ema


@pytest.mark.parametrize("total", [1, 5, 60, 5000])
def test_the_learning_rate_rises_to_its_full_height_and_falls_to_nearly_zero(total):
    factors = [learning_rate_factor(step, total) for step in range(total)]
    top = factors.index(max(factors))
    assert 0.7 < max(factors) <= 1 and min(factors) > 0
    assert factors[: top + 1] == sorted(factors[: top + 1]) and factors[top:] == sorted(factors[top:], reverse=True)
    assert learning_rate_factor(total, total) == pytest.approx(0)
    if total > 1000:
        assert factors[0] == pytest.approx(0.01, rel=1e-3) and factors[-1] < 1e-5


@pytest.fixture
def weight():
    return torch.nn.Parameter(torch.tensor([3.0, 4.0]))


def test_a_step_follows_the_gradient_at_most_as_far_as_its_norm_allows(weight):
    optimizer = torch.optim.SGD([weight], lr=1.0)
    assert optimizer_step(weight.square().sum() / 2, optimizer, [weight], max_grad_norm=1.0)  # the gradient is (3, 4)
    torch.testing.assert_close(weight.detach(), torch.tensor([3.0 - 0.6, 4.0 - 0.8]))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_step_that_is_not_finite_changes_neither_weights_nor_the_optimizer(weight, bad):
    optimizer = torch.optim.Adam([weight], lr=0.1)
    assert optimizer_step(weight.sum(), optimizer, [weight])
    before, state = weight.detach().clone(), copy.deepcopy(optimizer.state[weight])
    assert not optimizer_step(bad * weight.sum(), optimizer, [weight])
    assert torch.equal(weight, before)
    assert all(torch.equal(state[name], value) for name, value in optimizer.state[weight].items())


def test_ten_bad_steps_in_a_row_end_the_training_and_nine_do_not(weight):
    optimizer = torch.optim.Adam([weight], lr=0.1)
    for _ in range(3):
        assert not any(optimizer_step(torch.nan * weight.sum(), optimizer, [weight]) for _ in range(9))
        assert optimizer_step(weight.sum(), optimizer, [weight])
    with pytest.raises(FloatingPointError, match="10 times in a row: lower the learning_rate"):
        for _ in range(10):
            optimizer_step(torch.nan * weight.sum(), optimizer, [weight])


def test_the_average_is_that_of_the_formula_and_soon_forgets_the_first_weights():
    torch.manual_seed(0)
    ema, model = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    expected = ema.weight.detach().clone()
    for step in range(20):
        with torch.no_grad():
            model.weight += torch.randn(2, 3)
        update_ema(ema, model, step, decay=0.5)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(ema.weight.detach(), expected)
