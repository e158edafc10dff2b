import pytest
import torch
from tiny import random_pixels, tiny_vae

from vae_helpers.models import (
    LOGVAR_RANGE,
    Attention,
    AttentionVAE,
    Checkpoint,
    ResBlock,
    SpatialVAE,
    from_diffusers,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
    to_diffusers,
    to_float,
)


def tiny_attention_vae(seed: int = 0, kind: type[AttentionVAE] = AttentionVAE, **architecture) -> AttentionVAE:
    """A narrow one on the CPU whose weights all matter: those that start at zero are stirred too."""
    torch.manual_seed(seed)
    vae = kind(**{"width": 8, "latent_channels": 3, "groups": 4, "image_size": 16} | architecture)
    with torch.no_grad():
        for weight in vae.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return vae.eval()


@pytest.mark.parametrize(
    "architecture",
    [
        {},
        {"image_size": 56},
        {"width": 6, "groups": 3, "latent_channels": 1, "image_size": 8},
        {"kind": SpatialVAE},
        {"kind": SpatialVAE, "image_size": 56},
    ],
)
def test_images_become_small_pictures_and_those_become_images(architecture):
    vae = tiny_attention_vae(**architecture)
    side, (channels, *smallest) = vae.image_size, vae.latent_shape
    assert (channels, smallest) == (vae.architecture["latent_channels"], [side // 8, side // 8])
    x = to_float(random_pixels(2, side))
    x_hat, mu, logvar = vae(x, torch.randn(2, *vae.latent_shape))
    assert mu.shape == logvar.shape == (2, *vae.latent_shape)
    assert x_hat.shape == vae.reconstruct(x).shape == vae.sample(2).shape == x.shape


@pytest.mark.parametrize("enabled", [False, True])
def test_what_comes_out_is_float32_also_under_bf16(enabled):
    vae, x = tiny_attention_vae(), to_float(random_pixels(2))
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        outputs = vae(x)
    assert {part.dtype for part in outputs} == {torch.float32}
    torch.testing.assert_close(outputs.mu, vae(x).mu, atol=0.05, rtol=0.05)  # bf16 has 8 bits of precision


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_log_variance_stays_in_its_range(sign):
    vae = tiny_attention_vae()
    vae.encoder[-1].bias.data.fill_(sign * 1000)
    assert vae.encode(to_float(random_pixels(2)))[1].unique().tolist() == [LOGVAR_RANGE[sign > 0]]


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("architecture", [{}, {"kind": SpatialVAE}])
def test_every_weight_learns(bf16, architecture):
    vae, x = tiny_attention_vae(**architecture).train(), to_float(random_pixels(4))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        x_hat, mu, logvar = vae(x)
    ((x_hat - x).square().mean() + mu.square().mean() + logvar.square().mean()).backward()
    # a key's bias adds the same to all scores of a position, which a softmax does not see
    blind = {name for name, _ in vae.named_parameters() if name.endswith("key.bias")}
    still = {name for name, weight in vae.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert still <= blind and len(blind) == 2


def test_a_new_spatial_vae_is_linear_until_its_curve_has_learned_something():
    vae = SpatialVAE(8, 3, 4, 16)
    z = torch.randn(2, 2, *vae.latent_shape)
    nothing = vae.decode(torch.zeros(1, *vae.latent_shape))
    with torch.no_grad():
        torch.testing.assert_close(
            vae.decode(2 * z[0] - z[1]) - nothing, 2 * (vae.decode(z[0]) - nothing) - (vae.decode(z[1]) - nothing)
        )


def test_a_new_residual_block_is_its_skip():
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(ResBlock(8, 8, 4)(x), x)


def test_attention_is_the_average_over_what_each_position_looks_at():
    torch.manual_seed(0)
    attention, x = Attention(8, 4), torch.randn(2, 8, 3, 5)
    attention_weights = attention.attention_weights(x)
    torch.testing.assert_close(attention_weights.sum(2), torch.ones(2, 15))
    values = attention.value(attention.norm(x).flatten(2).transpose(1, 2))
    by_hand = x + attention.out(attention_weights @ values).transpose(1, 2).unflatten(2, (3, 5))
    torch.testing.assert_close(attention(x), by_hand)


def test_an_image_does_not_depend_on_the_others_in_its_batch():
    vae, x = tiny_attention_vae(), to_float(random_pixels(5))
    torch.testing.assert_close(vae.reconstruct(x)[2:3], vae.reconstruct(x[2:3]))


@pytest.mark.parametrize(
    "wrong",
    [{"image_size": 0}, {"image_size": 12}, {"width": 9}, {"groups": 0}, {"latent_channels": 0}],
)
def test_sizes_that_do_not_fit_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AttentionVAE(**{"width": 8, "groups": 4} | wrong)


@pytest.mark.parametrize("kind", [AttentionVAE, SpatialVAE])
def test_a_checkpoint_gives_back_the_same_kind_with_the_same_outputs(tmp_path, kind):
    before, path = tiny_attention_vae(kind=kind), tmp_path / "vae_model_epoch_1.pth"
    save_checkpoint(path, Checkpoint(before, 1, [], {}))
    after = load_checkpoint(path).vae
    x = to_float(random_pixels(2))
    assert type(after) is kind and after.architecture == before.architecture
    torch.testing.assert_close(after.reconstruct(x), before.reconstruct(x))


def test_a_kind_that_is_not_known_is_refused(tmp_path):
    vae, path = tiny_attention_vae(), tmp_path / "vae_model_epoch_1.pth"
    vae.architecture["kind"] = "quantum"
    save_checkpoint(path, Checkpoint(vae, 1, [], {}))
    with pytest.raises(ValueError, match="'quantum' is not a kind of VAE"):
        load_checkpoint(path)


def test_weights_in_half_precision_give_nearly_the_same_images(tmp_path):
    before, path = tiny_attention_vae(), tmp_path / "weights.safetensors"
    save_weights(path, before)
    after, x = load_weights(path), to_float(random_pixels(2))
    torch.testing.assert_close(after.reconstruct(x), before.reconstruct(x), atol=0.01, rtol=0.01)
    assert {weight.dtype for weight in after.parameters()} == {torch.float32}


@pytest.mark.parametrize("content", [b"", b"hello", bytes(100)])
def test_a_file_that_is_something_else_is_refused_by_name(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=path.stem):
        load_weights(path)


def assert_equal_outputs(ours, theirs, side):
    x, z = to_float(random_pixels(2, side)), torch.randn(2, *ours.latent_shape)
    with torch.no_grad():
        moments = theirs.encode(x).latent_dist
        for mine, other in ((ours.encode(x)[0], moments.mean), (ours.encode(x)[1], moments.logvar)):
            torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours.decode(z), theirs.decode(z).sample, atol=1e-4, rtol=1e-4)


SIZES = [{"width": 8, "latent_channels": 3, "groups": 4, "image_size": 56}, {"width": 32, "latent_channels": 4, "groups": 32}]


@pytest.mark.parametrize("sizes", SIZES)
def test_what_is_trained_here_loads_in_diffusers_and_gives_the_same(tmp_path, sizes):
    diffusers = pytest.importorskip("diffusers")
    ours = tiny_attention_vae(**{"image_size": 24} | sizes)
    to_diffusers(ours, tmp_path)
    theirs, report = diffusers.AutoencoderKL.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert_equal_outputs(ours, theirs.eval(), ours.image_size)


@pytest.mark.parametrize("sizes", SIZES)
def test_an_autoencoder_of_diffusers_loads_here_and_gives_the_same(tmp_path, sizes):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    sizes = {"image_size": 24} | sizes
    theirs = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=tuple(sizes["width"] * multiple for multiple in (1, 2, 4, 4)),
        layers_per_block=2,
        latent_channels=sizes["latent_channels"],
        norm_num_groups=sizes["groups"],
        sample_size=sizes["image_size"],
    ).eval()
    theirs.save_pretrained(tmp_path)
    ours = from_diffusers(tmp_path)
    assert ours.architecture == AttentionVAE(**sizes).architecture
    assert_equal_outputs(ours, theirs, ours.image_size)


@pytest.mark.parametrize("other", [tiny_vae(), tiny_attention_vae(kind=SpatialVAE)])
def test_a_network_that_diffusers_does_not_know_is_not_written_for_it(tmp_path, other):
    with pytest.raises(ValueError, match=type(other).__name__):
        to_diffusers(other, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_another_network_of_diffusers_is_refused(tmp_path):
    to_diffusers(tiny_attention_vae(), tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"layers_per_block": 2', '"layers_per_block": 3'))
    with pytest.raises(ValueError, match="another network"):
        from_diffusers(tmp_path)
