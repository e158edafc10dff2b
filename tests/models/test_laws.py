"""What holds for every VAE."""

import pytest
import torch
from tiny import random_pixels, stirred

from vae_helpers.files import load_weights
from vae_helpers.models import (
    LOGVAR_RANGE,
    VAE,
    AttentionVAE,
    Checkpoint,
    ResidualVAE,
    SpatialVAE,
    load_checkpoint,
    save_checkpoint,
    to_float,
)

KINDS = {
    "vector": lambda: VAE(4, (8, 8, 8), 16),
    "vector, one number": lambda: VAE(1, (8, 8, 16), 8),
    "vector, larger": lambda: VAE(7, (8, 16, 24), 24),
    "attention": lambda: AttentionVAE(8, 3, 4, 16),
    "attention, smallest": lambda: AttentionVAE(6, 1, 3, 8),
    "spatial": lambda: SpatialVAE(8, 3, 4, 16),
    "spatial, 56 pixels": lambda: SpatialVAE(8, 3, 4),
    "residual": lambda: ResidualVAE(4, (8, 8, 8, 16), (8, 8, 8)),
    "residual, by breed": lambda: ResidualVAE(4, (8, 8, 8, 16), (8, 8, 8), breeds=("beagle", "pug")),
    "residual, grown": lambda: ResidualVAE(5, (16, 8, 8, 16), (8, 16, 8), grown=True, image_size=112),
    "residual, grown, 56 pixels": lambda: ResidualVAE(4, (8, 8, 8, 16), (8, 8, 8), grown=True),
}


@pytest.fixture(params=KINDS)
def vae(request):
    """A small one whose weights all matter."""
    torch.manual_seed(0)
    return stirred(KINDS[request.param]())


def images(vae, n=3):
    return to_float(random_pixels(n, vae.image_size))


def latents(vae, n=3):
    return torch.randn(n, *vae.latent_shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("n", [1, 3])
def test_images_become_latents_and_latents_images(vae, n):
    x = images(vae, n)
    x_hat, mu, logvar = vae(x, latents(vae, n))
    assert mu.shape == logvar.shape == (n, *vae.latent_shape)
    assert x_hat.shape == vae.reconstruct(x).shape == vae.sample(n).shape == x.shape
    assert torch.equal(vae.reconstruct(x), vae.decode(mu))


def test_encoder_and_decoder_are_the_whole_of_either_direction(vae):
    x, z = images(vae), latents(vae)
    assert all(torch.equal(a, b) for a, b in zip(vae.encoder(x), vae.encode(x), strict=True))
    assert torch.equal(vae.decoder(z), vae.decode(z))
    assert {name.split(".")[0] for name in vae.state_dict()} == {"encoder", "decoder"}


@pytest.mark.parametrize("bf16", [False, True])
def test_gradients_reach_every_weight(vae, bf16):
    x = images(vae, 4)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        x_hat, mu, logvar = vae.train()(x)
    ((x_hat - x).square().mean() + mu.square().mean() + logvar.square().mean()).backward()
    still = {name for name, weight in vae.named_parameters() if weight.grad is None or not weight.grad.any()}
    # a key's bias adds the same to all scores of a position, and attention at a single position has nothing to choose from
    blind = {".key.bias"} if vae.image_size > 8 else {".key.", ".query."}
    assert not [name for name in still if not any(part in name for part in blind)]


def test_what_comes_out_is_float32_also_under_bf16(vae):
    x, eps = images(vae), latents(vae)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = vae(x, eps)
    assert {part.dtype for part in outputs} == {torch.float32}
    torch.testing.assert_close(outputs.mu, vae(x, eps).mu, atol=0.05, rtol=0.05)  # bf16 has 8 bits of precision


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_log_variance_stays_in_its_range(vae, sign):
    last = vae.encoder.linear_out if isinstance(vae, ResidualVAE) else vae.encoder.conv_branch[-1]
    last.bias.data.fill_(sign * 1000)
    assert vae.encode(images(vae))[1].unique().tolist() == [LOGVAR_RANGE[sign > 0]]


def test_an_image_does_not_depend_on_the_others_in_its_batch(vae):
    x = images(vae, 5)
    torch.testing.assert_close(vae.reconstruct(x)[2:3], vae.reconstruct(x[2:3]), atol=1e-4, rtol=1e-4)


def test_the_same_seed_samples_the_same_dogs(vae):
    first, again, other = (vae.sample(3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_checkpoint_gives_back_the_same_model_and_what_belongs_to_it(vae, tmp_path, suffix):
    path, x, vae.crop = tmp_path / f"model.{suffix}", images(vae), "head"
    save_checkpoint(path, Checkpoint(vae, 3, [{"epoch": 1, "train_loss": 0.5}], {"beta": 0.1}, "run-1"))
    before = torch.get_rng_state()
    loaded = load_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert (loaded.epoch, loaded.history, loaded.settings, loaded.run) == (
        3,
        [{"epoch": 1, "train_loss": 0.5}],
        {"beta": 0.1},
        "run-1",
    )
    assert type(loaded.vae) is type(vae) and loaded.vae.architecture == vae.architecture and not loaded.vae.training
    assert (loaded.vae.image_size, loaded.vae.crop) == (vae.image_size, "head")
    assert all(torch.equal(weight, loaded.vae.state_dict()[name]) for name, weight in vae.state_dict().items())
    torch.testing.assert_close(loaded.vae.reconstruct(x), vae.reconstruct(x), atol=1e-4, rtol=1e-4)


def test_weights_in_half_precision_give_nearly_the_same_images(vae, tmp_path):
    path, x = tmp_path / "model.safetensors", images(vae)
    save_checkpoint(path, Checkpoint(vae), torch.float16)
    state, metadata = load_weights(path)
    assert {weight.dtype for weight in state.values()} == {torch.float16}
    assert metadata["preprocessing"] == {"image_size": vae.image_size, "crop": "none"}
    after = load_checkpoint(path).vae
    assert {weight.dtype for weight in after.parameters()} == {torch.float32}
    torch.testing.assert_close(after.reconstruct(x), vae.reconstruct(x), atol=0.02, rtol=0.02)


def test_what_is_not_a_batch_of_images_or_latents_is_refused_with_what_is_taken(vae):
    size = vae.image_size
    for x in (random_pixels(2, size), images(vae)[0], torch.zeros(1, 1, size, size), torch.zeros(1, 3, size + 8, size + 8)):
        with pytest.raises(ValueError, match=rf"float images \(B, 3, {size}, {size}\)"):
            vae.encode(x)
    for z in (latents(vae)[0], latents(vae)[:, :, None], torch.zeros(2, 99), latents(vae).long()):
        with pytest.raises(ValueError, match=rf"float latents \(B, {vae.latent_shape[0]}.*got"):
            vae.decode(z)


FIRST_WEIGHTS = {  # of tree 9addd0c with seed 0, in the order in which they are drawn, and the number drawn after them
    VAE: (
        {
            "encoder.conv_branch.conv_in": -0.0010806,
            "encoder.conv_branch.linear_out": -0.001714,
            "encoder.linear_branch": 0.588384,
            "decoder.conv_branch.linear_in": 0.0420732,
            "decoder.conv_branch.block1.conv1": -0.0308847,
            "decoder.linear_branch": 0.0009973,
        },
        0.0610121,
    ),
    SpatialVAE: (
        {
            "encoder.conv_branch.conv_in": -0.0007204,
            "encoder.conv_branch.quant_conv": -0.094045,
            "decoder.conv_branch.conv_in": 0.0723055,
            "encoder.linear_branch": -0.1981719,
            "decoder.linear_branch": 0.008529,
        },
        0.8871906,
    ),
    AttentionVAE: (
        {
            "encoder.conv_branch.conv_in": -0.0014408,
            "encoder.conv_branch.quant_conv": -0.2160277,
            "decoder.conv_branch.post_quant_conv": -0.1439526,
            "decoder.conv_branch.up2_block2.conv1": 0.0211987,
        },
        0.5890188,
    ),
}


@pytest.mark.parametrize("kind", FIRST_WEIGHTS)
def test_a_seed_stands_for_the_same_untrained_network_as_ever(kind):
    torch.manual_seed(0)
    weights = kind().state_dict()
    firsts, next_draw = FIRST_WEIGHTS[kind]
    assert torch.rand(1).item() == pytest.approx(next_draw, abs=1e-5)
    assert {name: weights[f"{name}.weight"].flatten()[0].item() for name in firsts} == pytest.approx(firsts, abs=1e-5)
