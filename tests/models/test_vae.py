import itertools
import math

import pytest
import torch
from tiny import stirred

from vae_helpers.models import VAE, AttentionVAE, GroupNorm, ResBlock, Residual, ResidualVAE, decode_latents, reparameterize


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


@pytest.mark.parametrize("block", [Residual(16), ResBlock(16, 16, 4)])
def test_a_residual_block_starts_as_the_identity(block):
    x = torch.randn(2, 16, 5, 5)
    torch.testing.assert_close(block(x), x)


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


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (VAE, {"image_size": 0}),
        (VAE, {"image_size": 12}),
        (VAE, {"widths": (8, 8)}),
        (VAE, {"widths": (8, 12, 8)}),
        (VAE, {"widths": (0, 8, 8)}),
        (VAE, {"image_size": 8, "widths": (8, 8, 8)}),
        (VAE, {"latent_dim": 0}),
        (AttentionVAE, {"image_size": 12}),
        (AttentionVAE, {"width": 9}),
        (AttentionVAE, {"groups": 0}),
        (AttentionVAE, {"latent_channels": 0}),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(kind, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kind(**wrong)


def test_a_vae_that_knows_breeds_decodes_each_in_its_own_way_and_any_where_none_is_named():
    torch.manual_seed(0)
    vae = stirred(ResidualVAE(4, (8, 8, 8, 16), (8, 8, 8), breeds=("beagle", "pug")))
    z = torch.randn(1, 4)
    pictures = [vae.decoder(z, torch.tensor([label])) for label in range(3)]
    for a, b in itertools.combinations(pictures, 2):
        assert not torch.allclose(a, b)
    for breed, picture in zip((None, "beagle", "pug"), pictures, strict=True):
        torch.testing.assert_close(vae.decode(z, breed), picture)
        torch.testing.assert_close(decode_latents(vae, z, breed=breed), picture)
    together = decode_latents(vae, z.repeat(3, 1), batch_size=2, breed=["pug", "beagle", "pug"])
    torch.testing.assert_close(together, torch.cat([pictures[2], pictures[1], pictures[2]]))
    assert vae.breeds == ("beagle", "pug")


@pytest.mark.parametrize(("breeds", "said"), [(("beagle", "pug"), "beagle, pug"), ((), "knows none")])
def test_a_breed_that_a_vae_does_not_know_is_refused_with_those_that_it_knows(breeds, said):
    with pytest.raises(ValueError, match=f"breed='cat'.*{said}"):
        ResidualVAE(4, (8, 8, 8, 16), (8, 8, 8), breeds=breeds).decode(torch.randn(1, 4), "cat")
