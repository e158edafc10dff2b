import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.decomposition import PCA
from tiny import random_pixels, tiny_vae

from vae_helpers.evaluation import (
    USED_KL,
    active_units,
    aggregate_posterior_gap,
    evaluate_vae,
    image_quality,
    nearest_images,
    pca_error,
    pca_reconstructions,
    ppca_figures,
    psnr,
    webp,
)
from vae_helpers.models import noise_variance, to_float


def images_with_a_few_causes(n: int, seed: int) -> torch.Tensor:
    """uint8 (n, 3, 8, 8): six patterns, each half as strong as the one before, and a little noise."""
    patterns = np.random.default_rng(0).normal(size=(6, 192)) * 50 / 2.0 ** np.arange(6)[:, None]
    rng = np.random.default_rng(seed)
    values = 128 + rng.normal(size=(n, 6)) @ patterns + rng.normal(size=(n, 192))
    return torch.from_numpy(values.clip(0, 255).astype(np.uint8)).view(n, 3, 8, 8)


TRAIN, TEST = images_with_a_few_causes(80, seed=1), images_with_a_few_causes(30, seed=2)


def flat(pixels: torch.Tensor) -> np.ndarray:
    return to_float(pixels).flatten(1).double().numpy()


def linear_vae_by_brute_force(n_dimensions: int, beta: float) -> dict[str, float]:
    """The figures of the linear VAE x_hat = W z + mean with its exact posterior, by inverting matrices in float64."""
    x, noise = flat(TRAIN), noise_variance(beta, 192)
    eigenvalues, axes = np.linalg.eigh(np.cov(x.T))
    eigenvalues, axes = eigenvalues[::-1][:n_dimensions], axes[:, ::-1][:, :n_dimensions]
    w = axes * np.sqrt(np.maximum(eigenvalues - noise, 0))
    covariance = np.linalg.inv(np.eye(n_dimensions) + w.T @ w / noise)  # of z given x
    centred = flat(TEST) - x.mean(0)
    mu = centred @ w @ covariance / noise
    error = (centred - mu @ w.T) ** 2
    kl = 0.5 * (np.trace(covariance) + (mu**2).sum(1).mean() - n_dimensions - np.linalg.slogdet(covariance)[1])
    sampled = (error.sum(1).mean() + np.trace(w @ covariance @ w.T)) / 192
    return {"recon_mean": error.mean(), "recon_sampled": sampled, "kl": kl, "loss": sampled + beta * kl}


@pytest.mark.parametrize("beta", [1e-6, 1e-4, 0.01])
@pytest.mark.parametrize("n_dimensions", [2, 6])
def test_probabilistic_pca_is_the_linear_vae_by_brute_force(n_dimensions, beta):
    figures = ppca_figures(TRAIN, TEST, n_dimensions, beta)
    expected = linear_vae_by_brute_force(n_dimensions, beta)
    assert {name: getattr(figures, name) for name in expected} == pytest.approx(expected, rel=1e-4)
    assert figures.kl_by_dimension.sum() == pytest.approx(figures.kl) and figures.kl_by_dimension.shape == (n_dimensions,)


def test_dimensions_weaker_than_the_noise_are_left_unused():
    few, many = (ppca_figures(TRAIN, TEST, 6, beta) for beta in (0.02, 1e-6))
    assert 0 < few.dimensions_used < many.dimensions_used == 6
    assert few.kl_by_dimension[few.dimensions_used :].tolist() == pytest.approx([0] * (6 - few.dimensions_used))


def test_probabilistic_pca_with_no_noise_to_speak_of_is_pca():
    assert ppca_figures(TRAIN, TEST, 4, beta=1e-12).recon_mean == pytest.approx(pca_error(TRAIN, TEST, 4), rel=1e-4)


@pytest.mark.parametrize("n_dimensions", [1, 4, 20])
def test_pca_error_is_that_of_scikit_learn(n_dimensions):
    pca = PCA(n_dimensions, svd_solver="full").fit(flat(TRAIN))
    by_sklearn = np.mean((pca.inverse_transform(pca.transform(flat(TEST))) - flat(TEST)) ** 2)
    assert pca_error(TRAIN, TEST, n_dimensions) == pytest.approx(by_sklearn, rel=1e-2 if n_dimensions > 6 else 1e-4)


def smallest_vae():
    return tiny_vae(image_size=8, widths=(8, 8, 16))


def numbers(figures) -> dict[str, float]:
    return figures.summary() | dict(enumerate(figures.kl_by_dimension))


@pytest.mark.parametrize("batch_size", [1, 7, 30])
def test_figures_do_not_depend_on_the_batch_size(batch_size):
    vae = smallest_vae()
    assert numbers(evaluate_vae(vae, TEST, batch_size=batch_size)) == pytest.approx(numbers(evaluate_vae(vae, TEST)), rel=1e-5)


def test_figures_from_the_mean_do_not_depend_on_the_order_of_the_images():
    vae = smallest_vae()
    figures, turned = evaluate_vae(vae, TEST), evaluate_vae(vae, TEST.flip(0))
    assert (turned.recon_mean, turned.kl) == pytest.approx((figures.recon_mean, figures.kl), rel=1e-5)


def test_the_figures_of_a_model_by_hand():
    vae, x = smallest_vae(), to_float(TEST)
    with torch.no_grad():
        mu, logvar = vae.encode(x)
        kl = (-0.5 * (1 + logvar - mu**2 - logvar.exp())).mean(0)
        eps = torch.randn(30, 4, generator=torch.Generator().manual_seed(3))
        sampled = (vae(x, eps).x_hat - x).square().mean().item()
        from_mean = (vae.reconstruct(x) - x).square().mean().item()
    figures = evaluate_vae(vae, TEST, beta=0.01, seed=3)
    assert figures.summary() == pytest.approx(
        {
            "n_images": 30,
            "beta": 0.01,
            "loss": sampled + 0.01 * kl.sum().item(),
            "recon_sampled": sampled,
            "recon_mean": from_mean,
            "psnr_sampled": psnr(sampled),
            "psnr_mean": psnr(from_mean),
            "kl": kl.sum().item(),
            "dimensions_used": (kl >= USED_KL).sum().item(),
        },
        rel=1e-4,
    )
    np.testing.assert_allclose(figures.kl_by_dimension, kl, rtol=1e-4)
    assert figures.kl_by_dimension.sum() == pytest.approx(figures.kl)


@pytest.mark.parametrize(("error", "decibel"), [(4.0, 0.0), (0.4, 10.0), (0.04, 20.0), (0.0, math.inf)])
def test_psnr_of_known_errors(error, decibel):
    assert psnr(error) == pytest.approx(decibel)


def test_an_image_is_its_own_nearest_at_distance_zero():
    pixels = random_pixels(20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    index, distance = nearest_images(to_float(pixels[order]), pixels)
    assert torch.equal(index, order)
    assert distance.max() < 1e-3  # float32: the difference of two large squares


def test_distance_is_the_root_mean_squared_difference():
    white, black = torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    index, distance = nearest_images(0.5 * white, torch.cat([black, black + 255, black]))
    assert index.tolist() == [1] and distance.item() == pytest.approx(0.5)


# ---------------------------------------------------------------- likeness to the original


def blurred_and_original(n: int = 10, size: int = 24):
    pixels = random_pixels(n, size)
    return torch.nn.functional.avg_pool2d(to_float(pixels), 3, stride=1, padding=1), pixels


def test_psnr_and_ssim_are_those_of_scikit_image():
    x_hat, pixels = blurred_and_original()
    margin = (6, 6, 6, 6)  # of one colour: the two libraries go on differently beyond an image's edge
    x_hat, pixels = (torch.nn.functional.pad(t, margin, value=v) for t, v in ((x_hat, 0.1), (pixels, 120)))
    found = image_quality(x_hat, pixels, batch_size=3)
    a, b = (t.permute(0, 2, 3, 1).double().numpy() for t in (x_hat, to_float(pixels)))
    options = {"data_range": 2.0, "channel_axis": -1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    maps = [structural_similarity(one, other, full=True, **options)[1] for one, other in zip(a, b, strict=True)]
    assert found.ssim == pytest.approx(np.mean(maps), abs=1e-5)
    assert found.psnr == pytest.approx(peak_signal_noise_ratio(b, a, data_range=2.0), abs=1e-4)
    assert found.psnr == pytest.approx(psnr(found.mse), abs=1e-4)


def test_likeness_does_not_depend_on_the_batch_size_and_is_perfect_for_the_original():
    x_hat, pixels = blurred_and_original()
    together = image_quality(x_hat, pixels, batch_size=256)
    for batch_size in (1, 4):
        other = image_quality(x_hat, pixels, batch_size)
        assert (other.mse, other.psnr, other.ssim) == pytest.approx((together.mse, together.psnr, together.ssim), rel=1e-5)
    assert image_quality(to_float(pixels), pixels).ssim == pytest.approx(1, abs=1e-6)


def test_likeness_is_of_what_can_be_shown():
    _, pixels = blurred_and_original()
    white = torch.full_like(pixels, 255)
    assert image_quality(torch.full(pixels.shape, 3.0), white).mse == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("wrong", ["other size", "bytes", "none"])
def test_likeness_of_what_cannot_be_compared_is_refused(wrong):
    x_hat, pixels = blurred_and_original()
    x_hat = {"other size": x_hat[..., 1:], "bytes": pixels, "none": x_hat[:0]}[wrong]
    with pytest.raises(ValueError, match="similarity compares"):
        image_quality(x_hat, pixels[:0] if wrong == "none" else pixels)


def test_webp_gives_the_pictures_back_and_says_what_they_cost():
    smooth = torch.linspace(0, 255, 32).round().to(torch.uint8).expand(3, 3, 32, 32).contiguous()
    small, few = webp(smooth, quality=0)
    large, many = webp(smooth, quality=100)
    assert small.shape == smooth.shape and small.dtype == torch.uint8
    assert 20 < few < many
    assert image_quality(to_float(large), smooth).psnr > max(30, image_quality(to_float(small), smooth).psnr)


def test_pca_reconstructions_have_the_error_of_pca():
    train, test = random_pixels(40, seed=1), random_pixels(10, seed=2)
    back = pca_reconstructions(train, test, 7)
    error = (back - to_float(test)).square().mean().item()
    assert error == pytest.approx(pca_error(train, test, 7), rel=1e-5)


# ---------------------------------------------------------------- latents in use, and the prior


def test_an_active_unit_is_one_whose_mean_moves_with_the_picture():
    generator = torch.Generator().manual_seed(0)
    mu = torch.randn(5000, 4, generator=generator) * torch.tensor([1.0, 0.11, 0.09, 0.0])
    assert active_units(mu + 3) == 2  # where the means lie does not matter, only how they vary
    assert active_units(mu, threshold=0.5) == 1
    assert active_units(mu.view(5000, 1, 2, 2)) == 2


def test_an_encoder_that_fills_the_prior_has_no_gap():
    generator = torch.Generator().manual_seed(1)
    mu, train_mu = (0.8**0.5 * torch.randn(n, 3, generator=generator) for n in (2000, 2000))
    gap = aggregate_posterior_gap(mu, torch.full_like(mu, math.log(0.2)), train_mu)  # 0.8 + 0.2: N(0, I) all together
    assert gap.fraction_beyond == pytest.approx(0.05, abs=0.02)
    assert gap.spectrum == pytest.approx(gap.prior_spectrum, abs=0.15)


def test_dogs_on_a_ring_leave_a_hole_that_moments_do_not_show():
    angle = torch.rand(2, 3000, generator=torch.Generator().manual_seed(2)) * 2 * math.pi
    ring = 2**0.5 * torch.stack([angle.cos(), angle.sin()], dim=2)  # mean 0, covariance I, nothing in the middle
    gap = aggregate_posterior_gap(ring[0], torch.full_like(ring[0], -8.0), ring[1])
    assert gap.spectrum == pytest.approx(np.ones(2), abs=0.1)
    assert gap.fraction_beyond > 0.7


def test_numbers_that_carry_nothing_do_not_count_in_the_distances():
    angle = torch.rand(2, 500, generator=torch.Generator().manual_seed(2)) * 2 * math.pi
    ring = 2**0.5 * torch.stack([angle.cos(), angle.sin()], dim=2)
    mu, logvar = torch.cat([ring, torch.zeros(2, 500, 50)], dim=2), torch.zeros(500, 52)
    logvar[:, :2] = -8.0
    gap = aggregate_posterior_gap(mu[0], logvar, mu[1])
    assert gap.fraction_beyond > 0.7 and gap.distance.max() < 0.5
    assert gap.spectrum.shape == gap.prior_spectrum.shape == (52,)
