import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from tiny import random_pixels

from vae_helpers.evaluation import LinearVAE, evaluate_vae, nearest_images, principal_components
from vae_helpers.models import noise_variance, to_float


def images_with_a_few_causes(n: int, seed: int) -> torch.Tensor:
    """uint8 (n, 3, 8, 8): six patterns, each half as strong as the one before, and a little noise."""
    patterns = np.random.default_rng(0).normal(size=(6, 192)) * 50 / 2.0 ** np.arange(6)[:, None]
    rng = np.random.default_rng(seed)
    values = 128 + rng.normal(size=(n, 6)) @ patterns + rng.normal(size=(n, 192))
    return torch.from_numpy(values.clip(0, 255).astype(np.uint8)).view(n, 3, 8, 8)


TRAIN, TEST = images_with_a_few_causes(80, seed=1), images_with_a_few_causes(30, seed=2)


def linear_vae(latent_dim: int, *options: float) -> LinearVAE:
    return LinearVAE(principal_components(TRAIN, latent_dim), *options)


def flat(pixels: torch.Tensor) -> np.ndarray:
    return to_float(pixels).flatten(1).double().numpy()


@pytest.mark.parametrize("beta", [1e-6, 1e-4, 0.01])
@pytest.mark.parametrize("latent_dim", [2, 6])
def test_the_linear_vae_is_the_optimum_by_inverting_matrices(latent_dim, beta):
    """x_hat = W z + mean with its exact posterior, in float64 (Tipping & Bishop 1999)."""
    x, noise = flat(TRAIN), noise_variance(beta, 192)
    eigenvalues, axes = np.linalg.eigh(np.cov(x.T))
    eigenvalues, axes = eigenvalues[::-1][:latent_dim], axes[:, ::-1][:, :latent_dim]
    w = axes * np.sqrt(np.maximum(eigenvalues - noise, 0))
    covariance = np.linalg.inv(np.eye(latent_dim) + w.T @ w / noise)  # of z given x
    centred = flat(TEST) - x.mean(0)
    mu = centred @ w @ covariance / noise
    error = (centred - mu @ w.T) ** 2
    kl = 0.5 * (np.trace(covariance) + (mu**2).sum(1).mean() - latent_dim - np.linalg.slogdet(covariance)[1])
    sampled = (error.sum(1).mean() + np.trace(w @ covariance @ w.T)) / 192

    found = evaluate_vae(linear_vae(latent_dim, beta), TEST.repeat(100, 1, 1, 1), beta)  # the noise is averaged out
    assert (found.recon_mean, found.kl) == pytest.approx((error.mean(), kl), rel=1e-3)
    assert found.recon_sampled == pytest.approx(sampled, rel=0.02)


def test_axes_weaker_than_the_noise_are_left_unused():
    few, many = (evaluate_vae(linear_vae(6, beta), TEST, beta) for beta in (0.02, 1e-6))
    assert 0 < few.active_units < many.active_units == 6
    assert few.kl_per_dim[few.active_units :] == pytest.approx(np.zeros(6 - few.active_units), abs=1e-6)


def test_the_linear_vae_does_what_every_vae_does():
    vae = linear_vae(4)
    assert vae.latent_shape == (4,) and vae.reconstruct(to_float(TEST)).shape == TEST.shape
    drawn = vae.sample(5, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, vae.decode(torch.randn(5, 4, generator=torch.Generator().manual_seed(0))))
    with pytest.raises(ValueError, match=r"beta=0.0 must be above 0"):
        linear_vae(4, 0.0)


@pytest.mark.parametrize("n_components", [1, 4, 20])
def test_the_linear_vae_with_no_noise_to_speak_of_is_pca(n_components):
    found = linear_vae(n_components, 1e-12)
    pca = PCA(n_components, svd_solver="full").fit(flat(TRAIN))
    x_hat = pca.inverse_transform(pca.transform(flat(TEST)))
    error = np.mean((x_hat - flat(TEST)) ** 2)
    assert evaluate_vae(found, TEST).recon_mean == pytest.approx(error, rel=1e-2 if n_components > 6 else 1e-4)
    if n_components <= 6:
        assert found.reconstruct(to_float(TEST)).flatten(1).numpy() == pytest.approx(x_hat, abs=1e-3)


@pytest.mark.parametrize("batch_size", [1, 7, 1024])
def test_an_image_is_its_own_nearest_at_distance_zero(batch_size):
    pixels = random_pixels(20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    index, distance = nearest_images(to_float(pixels[order]), pixels, batch_size)
    assert torch.equal(index, order) and distance.max() == 0


def test_distance_is_the_root_mean_squared_difference():
    white, black = torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    index, distance = nearest_images(0.5 * white, torch.cat([black, black + 255, black]))
    assert index.tolist() == [1] and distance.item() == pytest.approx(0.5)


def test_the_nearest_images_are_those_of_brute_force():
    queries, pixels = to_float(random_pixels(12, seed=1)), random_pixels(40, seed=2)
    index, distance = nearest_images(queries, pixels, batch_size=9)
    apart = [[math.sqrt((q - x).square().mean().item()) for x in to_float(pixels)] for q in queries]
    assert index.tolist() == [row.index(min(row)) for row in apart]
    assert distance.tolist() == pytest.approx([min(row) for row in apart])
