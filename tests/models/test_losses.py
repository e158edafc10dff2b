import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence as torch_kl

from vae_helpers.models import (
    BETA,
    calibrated_beta,
    free_bits_kl,
    kl_divergence,
    kl_per_dim,
    kl_weight,
    noise_variance,
    vae_loss,
)


def batch(n: int = 6, latent_shape: tuple[int, ...] = (5,), image_size: int = 4, dtype=torch.float32):
    """x_hat, x, mu, logvar"""
    generator = torch.Generator().manual_seed(0)
    shapes = ((n, 3, image_size, image_size),) * 2 + ((n, *latent_shape),) * 2
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


@pytest.mark.parametrize("latent_shape", [(5,), (2, 3, 3)])
def test_kl_is_that_of_torch_distributions(latent_shape):
    _, _, mu, logvar = batch(latent_shape=latent_shape)
    by_torch = torch_kl(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_per_dim(mu, logvar), by_torch)
    torch.testing.assert_close(kl_divergence(mu, logvar), by_torch.flatten(1).sum(1))


def test_kl_is_what_samples_say_within_four_standard_errors():
    _, _, mu, logvar = batch(n=1)
    torch.manual_seed(0)
    q = Independent(Normal(mu, (0.5 * logvar).exp()), 1)
    p = Independent(Normal(torch.zeros_like(mu), 1.0), 1)
    z = q.sample((20_000,))
    estimates = q.log_prob(z) - p.log_prob(z)
    standard_error = estimates.std().item() / math.sqrt(len(estimates))
    assert abs(estimates.mean().item() - kl_divergence(mu, logvar).item()) < 4 * standard_error


def test_kl_is_zero_for_the_prior_itself():
    assert kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3)).tolist() == [0, 0]


@pytest.mark.parametrize("beta", [0.0, BETA, 1.0])
def test_the_loss_by_hand(beta):
    x, x_hat = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    x_hat[0] = 0.5  # squared error 0.25 in one image of two
    mu, logvar = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, math.log(4)]])
    kl = ((1 + 4) / 2 + (4 - 1 - math.log(4)) / 2) / 2  # summed over the latent, averaged over the batch
    result = vae_loss(x_hat, x, mu, logvar, beta)
    assert [part.item() for part in result] == pytest.approx([0.125 + beta * kl, 0.125, kl])
    assert result._fields == ("loss", "recon", "kl")


def test_beta_is_a_quarter_of_a_thousandth_by_default():
    assert vae_loss(*batch()) == vae_loss(*batch(), beta=0.00025)


def test_doubling_the_batch_changes_nothing():
    once = batch()
    twice = [part.repeat(2, *[1] * (part.dim() - 1)) for part in once]
    torch.testing.assert_close(vae_loss(*twice), vae_loss(*once))


def test_the_loss_is_computed_in_float32_even_for_bf16():
    halves = batch(dtype=torch.bfloat16)
    result = vae_loss(*halves)
    assert {part.dtype for part in result} == {torch.float32}
    torch.testing.assert_close(result, vae_loss(*(part.float() for part in halves)))


@pytest.mark.parametrize("wrong", range(4))
def test_shapes_that_would_broadcast_are_refused(wrong):
    parts = batch()
    parts[wrong] = parts[wrong][:1]
    with pytest.raises(ValueError, match="must be alike"):
        vae_loss(*parts)


def test_beta_stands_for_a_noise_variance_of_beta_d_over_2():
    assert noise_variance(0.01, 100) == pytest.approx(0.5)
    assert noise_variance(BETA, 3 * 56 * 56) == pytest.approx(1.176)
    assert noise_variance(0.0, 3 * 56 * 56) == 0


@pytest.mark.parametrize("beta", [BETA, 0.1])
def test_the_gradient_of_the_loss_is_beta_times_that_of_the_negative_elbo(beta):
    x_hat, x, mu, logvar = batch()
    learned = [part.requires_grad_() for part in (x_hat, mu, logvar)]
    sigma = math.sqrt(noise_variance(beta, x[0].numel()))
    log_likelihood = Normal(x_hat, sigma).log_prob(x).flatten(1).sum(1)
    divergence = torch_kl(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(1)
    of_elbo = torch.autograd.grad((divergence - log_likelihood).mean(), learned)
    of_loss = torch.autograd.grad(vae_loss(x_hat, x, mu, logvar, beta).loss, learned)
    torch.testing.assert_close(of_loss, tuple(beta * gradient for gradient in of_elbo))


# ---------------------------------------------------------------- the objective, opened up


def test_the_calibrated_noise_is_where_the_likelihood_has_no_slope():
    x_hat, x, mu, logvar = batch()
    n_dims = x[0].numel()
    recon = vae_loss(x_hat, x, mu, logvar).recon
    variance = noise_variance(calibrated_beta(recon, n_dims), n_dims).clone().requires_grad_()
    log_px = torch.distributions.Normal(x_hat, variance.sqrt()).log_prob(x).sum()
    (slope,) = torch.autograd.grad(log_px, variance, retain_graph=True)
    scale = (x.numel() / variance).item()  # what each of the two terms that cancel there comes to
    assert abs(slope.item()) < 1e-5 * scale
    for factor in (0.9, 1.1):
        other = torch.distributions.Normal(x_hat, (factor * variance).sqrt()).log_prob(x).sum()
        assert other < log_px


def test_no_gradient_goes_through_the_calibrated_noise():
    recon = torch.tensor(0.5, requires_grad=True)
    assert not calibrated_beta(recon, 48).requires_grad
    assert calibrated_beta(0.5, 48) == pytest.approx(0.5 / 24) == calibrated_beta(recon, 48).item()


def test_the_calibrated_gradient_is_that_of_the_bound_with_its_noise_at_the_optimum():
    x_hat, x, mu, logvar = (t.double().requires_grad_() for t in batch(dtype=torch.float64))
    n_dims = x[0].numel()
    error = (x_hat - x).square().mean()
    bound = n_dims / 2 * error.log() + kl_divergence(mu, logvar).double().mean()
    parts = vae_loss(x_hat, x, mu, logvar, calibrated_beta(error, n_dims))
    ours = torch.autograd.grad(parts.loss, (x_hat, mu))
    wanted = torch.autograd.grad(bound, (x_hat, mu))
    factor = 2 * error.item() / n_dims
    for a, b in zip(ours, wanted, strict=True):
        torch.testing.assert_close(a, factor * b, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("progress", "warmup", "weight"),
    [(0.0, 0.0, 1.0), (0.0, 0.5, 0.0), (0.25, 0.5, 0.5), (0.5, 0.5, 1.0), (0.75, 0.5, 1.0), (1.0, 1.0, 1.0)],
)
def test_the_weight_of_the_kl_rises_during_the_warmup_and_stays(progress, warmup, weight):
    assert kl_weight(progress, warmup) == pytest.approx(weight)


def test_free_bits_count_what_is_below_them_as_much_as_them_and_do_not_push_it_further_down():
    mu = torch.tensor([[0.0, 0.2, 2.0]]).repeat(6, 1).requires_grad_()  # KL per latent number: 0, 0.02 and 2 nats
    kl = kl_per_dim(mu, torch.zeros_like(mu)).mean(0)
    free = free_bits_kl(kl, kl.detach(), 0.5)
    assert free.item() == pytest.approx(0.5 + 0.5 + 2.0)
    free.backward()
    assert (mu.grad[:, :2] == 0).all() and (mu.grad[:, 2] > 0).all()


def test_whether_a_latent_number_has_more_than_its_free_bits_is_a_matter_of_the_whole_batch():
    here, everywhere = torch.tensor([0.1, 0.9]), torch.tensor([0.7, 0.2])
    assert free_bits_kl(here, everywhere, 0.5).item() == pytest.approx(0.1 + 0.5)
