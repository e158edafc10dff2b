import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import random_pixels, stirred, tiny_vae

from vae_helpers.models import Attention, AttentionVAE, SpatialVAE, from_diffusers, to_diffusers, to_float


def test_a_new_spatial_vae_is_linear_until_its_curve_has_learned_something():
    vae = SpatialVAE(8, 3, 4, 16)
    z = torch.randn(2, 2, *vae.latent_shape)
    nothing = vae.decode(torch.zeros(1, *vae.latent_shape))
    with torch.no_grad():
        torch.testing.assert_close(
            vae.decode(2 * z[0] - z[1]) - nothing, 2 * (vae.decode(z[0]) - nothing) - (vae.decode(z[1]) - nothing)
        )


def test_attention_is_the_average_over_what_each_position_looks_at():
    torch.manual_seed(0)
    attention, x = Attention(8, 4), torch.randn(2, 8, 3, 5)
    rows = attention.norm(x).flatten(2).transpose(1, 2)
    weights = (attention.query(rows) @ attention.key(rows).transpose(1, 2) / 8**0.5).softmax(2)
    by_hand = x + attention.out(weights @ attention.value(rows)).transpose(1, 2).unflatten(2, (3, 5))
    torch.testing.assert_close(attention(x), by_hand)


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
    ours = stirred(AttentionVAE(**{"image_size": 24} | sizes))
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


@pytest.mark.parametrize("other", [tiny_vae(), SpatialVAE(8, 3, 4, 16)])
def test_a_network_that_diffusers_does_not_know_is_not_written_for_it(tmp_path, other):
    with pytest.raises(ValueError, match=type(other).__name__):
        to_diffusers(other, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("other", [{"layers_per_block": 1}, {"block_out_channels": (8, 16, 16, 32)}])
def test_another_network_of_diffusers_is_refused(tmp_path, other):
    diffusers = pytest.importorskip("diffusers")
    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    sizes = {"block_out_channels": (8, 16, 32, 32), "layers_per_block": 2, "norm_num_groups": 4, "sample_size": 16}
    diffusers.AutoencoderKL(down_block_types=down, up_block_types=up, **(sizes | other)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="another network"):
        from_diffusers(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("act_fn", "relu"), ("layers_per_block", 3), ("in_channels", 4), ("up_block_types", ["AttnUpDecoderBlock2D"] * 4)],
)
def test_a_config_that_means_another_network_is_refused_by_what_differs(tmp_path, name, value):
    to_diffusers(AttentionVAE(8, 3, 4, 16), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(ValueError, match=rf"{tmp_path.name}.*its config says {name} ") as refused:
        from_diffusers(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, 0.999])
@pytest.mark.parametrize("file", ["config.json", "diffusion_pytorch_model.safetensors"])
def test_files_of_diffusers_that_are_cut_short_are_refused_in_a_sentence(tmp_path, file, keep):
    to_diffusers(AttentionVAE(8, 3, 4, 16), tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(ValueError, match=rf"{tmp_path.name}.*damaged") as refused:
        from_diffusers(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("gone", ["block_out_channels", "norm_num_groups", "latent_channels", "sample_size"])
def test_what_a_config_does_not_say_is_what_diffusers_takes_for_it(tmp_path, gone):
    to_diffusers(AttentionVAE(32, 4, 32, 32), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != gone}))
    if gone == "block_out_channels":
        with pytest.raises(ValueError, match=r"block_out_channels \[64\], not"):
            from_diffusers(tmp_path)
    else:
        assert from_diffusers(tmp_path).architecture == AttentionVAE(32, 4, 32, 32).architecture


def test_older_files_of_diffusers_have_other_names_of_the_attention_and_say_less(tmp_path):
    ours = stirred(AttentionVAE(32, 4, 32, 16))
    to_diffusers(ours, tmp_path)
    path, config = tmp_path / "diffusion_pytorch_model.safetensors", tmp_path / "config.json"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = {}
    for name, weight in load_file(path).items():
        for new, old in older.items():
            name = name.replace(f".{new}.", f".{old}.")
        weights[name] = weight
    save_file(weights, path)
    said = json.loads(config.read_text())
    config.write_text(json.dumps({name: said[name] for name in ("block_out_channels", "layers_per_block")}))
    theirs = from_diffusers(tmp_path, image_size=16)
    assert theirs.architecture == ours.architecture
    assert all(torch.equal(weight, theirs.state_dict()[name]) for name, weight in ours.state_dict().items())


def test_weights_that_do_not_fit_a_config_are_refused_by_name(tmp_path):
    to_diffusers(AttentionVAE(8, 3, 4, 16), tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file(load_file(path) | {"more": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=rf"(?s){tmp_path.name}.*more"):
        from_diffusers(tmp_path)
