import math

import pytest
import torch
from tiny import random_pixels, tiny_vae, toy_pixels

from vae_helpers.evaluation import (
    BYTE_WIDTH,
    LinearVAE,
    bits_per_dimension,
    elbo,
    evaluate_vae,
    importance_weighted_bound,
    principal_components,
)
from vae_helpers.models import kl_divergence, noise_variance, to_float

TRAIN, TEST = toy_pixels(200, 0, 16), toy_pixels(24, 1, 16)
COMPONENTS = principal_components(TRAIN, 5)
BETA = 1e-4  # σ² = 0.04 for 16 x 16: several components are worth their nats


def test_the_exact_log_likelihood_is_that_of_the_multivariate_normal_distribution():
    model = LinearVAE(COMPONENTS, BETA)
    mean = model.decode(torch.zeros(1, 5)).flatten().double()
    loadings = model.decode(torch.eye(5)).flatten(1).double() - mean
    covariance = loadings.T @ loadings + model.noise_variance * torch.eye(768, dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(mean, covariance)
    expected = normal.log_prob(to_float(TEST).flatten(1).double()) + 768 * math.log(BYTE_WIDTH)
    torch.testing.assert_close(model.log_likelihood(TEST), expected, rtol=1e-5, atol=1e-2)


def test_with_the_exact_posterior_the_bound_is_the_log_likelihood_whatever_is_drawn():
    model = LinearVAE(COMPONENTS, BETA)
    exact = model.log_likelihood(TEST)
    for n_importance_samples, seed in ((1, 0), (1, 1), (16, 2)):
        bound = importance_weighted_bound(model, TEST, model.noise_variance, n_importance_samples, seed)
        torch.testing.assert_close(bound, exact, rtol=0, atol=0.05)
    torch.testing.assert_close(elbo(model, TEST, model.noise_variance, 4000).mean(), exact.mean(), rtol=0, atol=0.1)


def test_with_a_posterior_that_is_too_wide_the_bound_rises_with_samples_and_meets_the_log_likelihood():
    model = LinearVAE(COMPONENTS, BETA, posterior_scale=1.5)
    exact = model.log_likelihood(TEST).mean()
    few, many = (importance_weighted_bound(model, TEST, model.noise_variance, k).mean() for k in (4, 1024))
    loosest = elbo(model, TEST, model.noise_variance, 4000).mean()
    assert loosest < few - 0.2 and few < many - 0.05 and abs(exact - many) < 0.05
    # log P(x) - ELBO = KL(q ‖ true posterior), of five Gaussians 1.5 times too wide
    assert (exact - loosest).item() == pytest.approx(5 * (1.5**2 - 1 - math.log(1.5**2)) / 2, abs=0.1)


def test_one_sample_of_the_importance_weighted_bound_is_the_elbo_on_average():
    vae, pixels = tiny_vae(), random_pixels(6)
    single = torch.stack([importance_weighted_bound(vae, pixels, 0.5, 1, seed) for seed in range(400)]).mean(0)
    torch.testing.assert_close(single, elbo(vae, pixels, 0.5, 400), rtol=0, atol=1.0)


def test_more_samples_never_loosen_the_bound_of_a_network_but_for_noise():
    vae = tiny_vae()
    bounds = [importance_weighted_bound(vae, TEST, 0.05, k).mean().item() for k in (1, 4, 16, 64)]
    assert elbo(vae, TEST, 0.05, 64).mean() <= bounds[2] + 0.05
    assert bounds == sorted(bounds)


@pytest.mark.parametrize(("bytes_wide", "nats_off"), [(138, 0.01), (17, 0.1), (9, 2.0)])
def test_density_times_width_is_the_mass_of_the_bytes_interval_while_the_noise_is_wide(bytes_wide, nats_off):
    """Of 768 numbers together, with the errors that such noise makes; the exact mass by the normal distribution function."""
    sigma = bytes_wide * BYTE_WIDTH
    x_hat = to_float(TEST).double() + sigma * torch.randn(TEST.shape, generator=torch.Generator().manual_seed(0))
    vae = tiny_vae()
    vae.decode = lambda z: x_hat
    by_density = elbo(vae, TEST, sigma**2) + kl_divergence(*vae.encode(to_float(TEST))).detach()
    t, half = -(to_float(TEST) - x_hat).abs() / sigma, BYTE_WIDTH / 2 / sigma
    high, low = torch.special.log_ndtr(t + half), torch.special.log_ndtr(t - half)
    mass = (high + torch.log1p(-torch.exp(low - high))).flatten(1).sum(1)
    assert nats_off / 1000 < (by_density - mass).abs().max() < nats_off


def test_the_elbo_is_the_loss_in_other_units():
    """At the noise that beta stands for, -ELBO = D/2 · ln(2πσ²) + loss / beta - D ln(2/255), with the same draw."""
    vae, pixels = tiny_vae(), random_pixels(8)
    variance = noise_variance(BETA, 768)
    loss = evaluate_vae(vae, pixels, BETA, seed=3).loss
    constant = 768 * (0.5 * math.log(2 * math.pi * variance) - math.log(BYTE_WIDTH))
    assert -elbo(vae, pixels, variance, 1, seed=3).mean().item() == pytest.approx(constant + loss / BETA, rel=1e-5)


@pytest.mark.parametrize("bound", [elbo, importance_weighted_bound])
def test_a_bound_hardly_depends_on_the_precision(bound):
    vae = tiny_vae()
    expected = bound(vae, TEST, 0.1, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert bound(vae, TEST, 0.1, 5).mean().item() == pytest.approx(expected.mean().item(), rel=1e-3)


def test_an_image_of_random_bytes_costs_eight_bits_a_number_under_a_uniform_model():
    assert bits_per_dimension(-100 * math.log(256), 100) == pytest.approx(8)


@pytest.mark.parametrize(("variance", "n_samples"), [(0.0, 1), (-1.0, 1), (1.0, 0)])
@pytest.mark.parametrize("bound", [elbo, importance_weighted_bound])
def test_a_variance_or_a_number_of_samples_that_cannot_be_is_an_error(bound, variance, n_samples):
    with pytest.raises(ValueError, match="must be a"):
        bound(tiny_vae(), TEST, variance, n_samples)
