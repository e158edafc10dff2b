import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from tiny import random_pixels, tiny_vae

from vae_helpers.evaluation import active_units, aggregate_posterior_gap, evaluate_vae, image_quality, psnr
from vae_helpers.models import to_float

TEST = random_pixels(30)


def test_the_metrics_of_a_model_by_hand():
    vae, x = tiny_vae(), to_float(TEST)
    with torch.no_grad():
        mu, logvar = vae.encode(x)
        kl = (-0.5 * (1 + logvar - mu**2 - logvar.exp())).mean(0)
        eps = torch.randn(30, 4, generator=torch.Generator().manual_seed(3))
        sampled = (vae(x, eps).x_hat - x).square().mean().item()
        from_mean = (vae.reconstruct(x) - x).square().mean().item()
    found = evaluate_vae(vae, TEST, beta=0.01, seed=3)
    expected = {
        "n_images": 30,
        "beta": 0.01,
        "loss": sampled + 0.01 * kl.sum().item(),
        "recon_sampled": sampled,
        "recon_mean": from_mean,
        "psnr_sampled": psnr(sampled),
        "psnr_mean": psnr(from_mean),
        "kl": kl.sum().item(),
        "active_units": active_units(mu),
    }
    assert found.summary() == pytest.approx(expected, rel=1e-4)
    assert found.kl_per_dim == pytest.approx(kl.double().numpy(), rel=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 30])
def test_metrics_do_not_depend_on_the_batch_size(batch_size):
    found, expected = evaluate_vae(tiny_vae(), TEST, batch_size=batch_size), evaluate_vae(tiny_vae(), TEST)
    assert found.summary() == pytest.approx(expected.summary(), rel=1e-5)
    assert found.kl_per_dim == pytest.approx(expected.kl_per_dim, rel=1e-5)


@pytest.mark.parametrize(("error", "decibel"), [(4.0, 0.0), (0.4, 10.0), (0.04, 20.0), (0.0, math.inf)])
def test_psnr_of_known_errors(error, decibel):
    assert psnr(error) == pytest.approx(decibel)


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


def test_image_quality_does_not_depend_on_the_batch_size_and_is_of_what_can_be_shown():
    x_hat, pixels = blurred_and_original()
    one = image_quality(x_hat, pixels)
    as_decoded = pixels.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # channels last in memory, as images are loaded
    for other in (image_quality(x_hat, pixels, 4), image_quality(x_hat, as_decoded)):
        assert (other.mse, other.psnr, other.ssim) == pytest.approx((one.mse, one.psnr, one.ssim), rel=1e-5)
    assert image_quality(to_float(pixels), pixels).ssim == pytest.approx(1, abs=1e-6)
    assert image_quality(torch.full(pixels.shape, 3.0), torch.full_like(pixels, 255)).mse == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("wrong", ["other size", "bytes", "none"])
def test_images_that_cannot_be_compared_are_refused(wrong):
    x_hat, pixels = blurred_and_original()
    x_hat = {"other size": x_hat[..., 1:], "bytes": pixels, "none": x_hat[:0]}[wrong]
    with pytest.raises(ValueError, match="image_quality compares"):
        image_quality(x_hat, pixels[:0] if wrong == "none" else pixels)


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


def test_dogs_on_a_ring_leave_a_hole_that_moments_do_not_show_whatever_unused_numbers_do():
    angle = torch.rand(2, 3000, generator=torch.Generator().manual_seed(2)) * 2 * math.pi
    ring = 2**0.5 * torch.stack([angle.cos(), angle.sin()], dim=2)  # mean 0, covariance I, nothing in the middle
    gap = aggregate_posterior_gap(ring[0], torch.full_like(ring[0], -8.0), ring[1])
    assert gap.spectrum == pytest.approx(np.ones(2), abs=0.1)
    assert gap.fraction_beyond > 0.7

    mu, logvar = torch.cat([ring, torch.zeros(2, 3000, 50)], dim=2), torch.zeros(3000, 52)  # 50 numbers that carry nothing
    logvar[:, :2] = -8.0
    gap = aggregate_posterior_gap(mu[0], logvar, mu[1])
    assert gap.fraction_beyond > 0.7 and gap.distance.max() < 0.5
    assert gap.spectrum.shape == gap.prior_spectrum.shape == (52,)
