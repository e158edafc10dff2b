import math

import pytest
import torch
from tiny import random_pixels, tiny_vae

from vae_helpers.models import LOGVAR_RANGE, VAE, GroupNorm, Residual, reparameterize, to_float


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(
    "architecture",
    [
        {"latent_dim": 1, "widths": (8, 8, 16), "image_size": 8},
        {"latent_dim": 7, "widths": (8, 16, 24), "image_size": 24},
        {"latent_dim": 32, "widths": (8, 8, 8), "image_size": 56},
        {},
    ],
)
def test_images_become_latents_and_latents_images(architecture, n):
    vae = VAE(**architecture)
    side, latent_dim = vae.image_size, vae.latent_shape[0]
    x = to_float(random_pixels(n, side))
    x_hat, mu, logvar = vae(x)
    assert mu.shape == logvar.shape == (n, latent_dim)
    assert x_hat.shape == vae.reconstruct(x).shape == vae.sample(n).shape == (n, 3, side, side)


@pytest.mark.parametrize("enabled", [False, True])
def test_what_comes_out_is_float32_also_under_bf16(enabled):
    vae, x = tiny_vae(), to_float(random_pixels(2))
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        outputs = vae(x)
    assert {part.dtype for part in outputs} == {torch.float32}
    torch.testing.assert_close(outputs.mu, vae(x).mu, atol=0.02, rtol=0.02)  # bf16 has 8 bits of precision


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_norm_is_a_group_norm_that_answers_in_the_type_it_is_asked_in(dtype, close, autocast, layout):
    torch.manual_seed(0)
    norm = GroupNorm(4, 8)
    with torch.no_grad():
        norm.weight.normal_(), norm.bias.normal_()
    x = (3 * torch.randn(5, 8, 6, 6) + 1).to(dtype).contiguous(memory_format=layout)
    by_hand = x.double().view(5, 4, 2, 6, 6)
    by_hand = (by_hand - by_hand.mean((2, 3, 4), keepdim=True)) / by_hand.std((2, 3, 4), keepdim=True, correction=0)
    by_hand = by_hand.view(5, 8, 6, 6) * norm.weight.view(-1, 1, 1).double() + norm.bias.view(-1, 1, 1).double()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        answer = norm(x)
    assert answer.dtype == dtype and answer.is_contiguous(memory_format=layout)
    torch.testing.assert_close(answer.double(), by_hand, atol=close, rtol=close)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_log_variance_stays_in_its_range(sign):
    vae = tiny_vae()
    vae.encoder.curve[-1].bias.data.fill_(sign * 1000)
    _, logvar = vae.encode(to_float(random_pixels(2)))
    assert logvar.unique().tolist() == [LOGVAR_RANGE[sign > 0]]


def test_a_residual_block_starts_as_the_identity():
    x = torch.randn(2, 16, 5, 5)
    torch.testing.assert_close(Residual(16)(x), x)


def test_samples_have_the_mean_and_width_that_were_asked_for():
    torch.manual_seed(0)
    n, mu, sigma = 40_000, 2.0, 3.0
    z = reparameterize(torch.full((n,), mu), torch.full((n,), math.log(sigma**2)))
    assert abs(z.mean().item() - mu) < 4 * sigma / math.sqrt(n)
    assert abs(z.std().item() - sigma) < 4 * sigma / math.sqrt(2 * n)


def test_gradients_reach_mean_and_log_variance_through_a_sample():
    mu, logvar, eps = torch.randn(3, 5, requires_grad=True), torch.randn(3, 5, requires_grad=True), torch.randn(3, 5)
    z = reparameterize(mu, logvar, eps)
    of_mu, of_logvar = torch.autograd.grad(z.sum(), (mu, logvar))
    torch.testing.assert_close(of_mu, torch.ones(3, 5))
    torch.testing.assert_close(of_logvar, 0.5 * (z - mu))


def test_every_weight_learns():
    vae, x = tiny_vae(), to_float(random_pixels(4))
    x_hat, mu, logvar = vae(x)
    ((x_hat - x).square().mean() + mu.square().mean() + logvar.square().mean()).backward()
    assert [name for name, weight in vae.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_a_reconstruction_is_decoded_from_the_mean():
    vae, x = tiny_vae(), to_float(random_pixels(2))
    assert torch.equal(vae.reconstruct(x), vae.decode(vae.encode(x)[0]))


def test_an_image_does_not_depend_on_the_others_in_its_batch():
    vae, x = tiny_vae(), to_float(random_pixels(5))
    torch.testing.assert_close(vae.reconstruct(x)[2:3], vae.reconstruct(x[2:3]))


def test_the_same_seed_samples_the_same_dogs():
    vae = tiny_vae()
    first, again, other = (vae.sample(3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 0},
        {"image_size": 12},
        {"widths": (8, 8)},
        {"widths": (8, 12, 8)},
        {"widths": (0, 8, 8)},
        {"image_size": 8, "widths": (8, 8, 8)},
        {"latent_dim": 0},
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        VAE(**wrong)


@pytest.mark.parametrize("x", [random_pixels(2), torch.zeros(3, 16, 16), torch.zeros(1, 1, 16, 16), torch.zeros(1, 3, 24, 24)])
def test_what_is_not_a_batch_of_signed_images_is_refused(x):
    with pytest.raises(ValueError, match=r"float images \(B, 3, 16, 16\)"):
        tiny_vae().encode(x)
