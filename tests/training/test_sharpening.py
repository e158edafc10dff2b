"""A decoder that learns on with an adversary while its encoder stands still."""

import pytest
import torch
from short_runs import same_weights
from tiny import toy_pixels
from torch import nn

from vae_helpers.models import FullGaussian, ResidualVAE, StandardNormal, belongs_to, load_decoder, save_decoder, to_float
from vae_helpers.training import FeatureDistance, sharpen

PIXELS = toy_pixels(24, seed=0, image_size=32)


def small_vae() -> ResidualVAE:
    torch.manual_seed(0)
    return ResidualVAE(8, (16, 16, 16, 16), (16, 16, 16), image_size=32).eval()


def sharpened(vae, prior=None, **options) -> ResidualVAE:
    options = {"images": 48, "batch_size": 8, "precision": "float32"} | options
    return sharpen(vae, prior or StandardNormal(vae.latent_shape), PIXELS, **options)


def test_the_decoder_learns_and_the_encoder_and_the_model_that_was_given_stay_as_they_are():
    vae, before = small_vae(), small_vae()
    sharp = sharpened(vae)
    assert same_weights(vae, before) and same_weights(sharp.encoder, before.encoder)
    assert not same_weights(sharp.decoder, before.decoder)
    assert all(weight.isfinite().all() for weight in sharp.parameters())


def test_what_is_learned_follows_from_the_seed_and_depends_on_the_prior():
    vae = small_vae()
    assert same_weights(sharpened(vae), sharpened(vae)) and not same_weights(sharpened(vae), sharpened(vae, seed=1))
    elsewhere = FullGaussian((8,)).fit(5 + torch.randn(50, 8))
    assert not same_weights(sharpened(vae), sharpened(vae, elsewhere))


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setattr("vae_helpers.training.progress.SAVE_EVERY", 0)
    path, vae = tmp_path / "sharpen_state.pth", small_vae()
    whole = sharpened(vae)

    calls = iter(range(100))

    def stop(*_) -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt

    hook = vae.encoder.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        sharpened(vae, state_path=path)
    hook.remove()
    assert path.exists()
    assert same_weights(sharpened(vae, state_path=path), whole) and not path.exists()


def test_the_state_of_another_run_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr("vae_helpers.training.progress.SAVE_EVERY", 0)
    path, vae = tmp_path / "sharpen_state.pth", small_vae()
    stops = iter([False, False, True])
    hook = vae.encoder.register_forward_hook(lambda *_: 1 / 0 if next(stops) else None)
    with pytest.raises(ZeroDivisionError):
        sharpened(vae, state_path=path)
    hook.remove()
    assert path.exists()
    assert same_weights(sharpened(vae, seed=1, state_path=path), sharpened(vae, seed=1))


class Features(nn.Module):
    """Four scales of four channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return [nn.functional.avg_pool2d(self.conv(x), 2**i) for i in range(4)]


def test_the_adversary_sees_pretrained_features_where_they_are_given():
    vae = small_vae()
    features = FeatureDistance(Features(), to_float(PIXELS))
    assert not same_weights(sharpened(vae, features=features), sharpened(vae))


def test_a_decoder_is_kept_alone_and_known_to_belong_to_its_encoder(tmp_path):
    vae, path = small_vae(), tmp_path / "decoder_sharp.safetensors"
    vae.crop = "head"
    sharp = sharpened(vae)
    save_decoder(path, sharp, {"images": 96})
    again = load_decoder(path, vae)
    z = torch.randn(4, 8)
    assert again.crop == "head" and same_weights(again.encoder, vae.encoder)
    assert torch.allclose(again.decode(z), sharp.decode(z), atol=0.02)  # stored in half precision
    assert belongs_to(path, vae)
    with torch.no_grad():
        vae.encoder.linear_out.bias += 1
    assert not belongs_to(path, vae)
