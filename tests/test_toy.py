"""`toy`, the small VAE of toy dogs that comes with the package, and its recipe."""

import torch
import toy
from tiny import toy_pixels

from vae_helpers.files import WEIGHTS
from vae_helpers.models import (
    FullGaussian,
    StandardNormal,
    decode_latents,
    encode_images,
    load_pretrained,
    reparameterize,
    save_checkpoint,
    to_float,
)
from vae_helpers.training import TrainingSettings


def test_the_recipe_leaves_weights_that_load(tmp_path):
    checkpoint = toy.train(toy.draw_dogs(64, seed=1), TrainingSettings(epochs=1))
    save_checkpoint(tmp_path / "toy.safetensors", checkpoint, torch.float16)
    assert load_pretrained(tmp_path / "toy.safetensors").architecture == load_pretrained("toy").architecture


def test_toy_gives_back_dogs_that_it_never_saw_and_its_latents_are_not_spread_like_its_prior():
    assert (WEIGHTS / "toy.safetensors").stat().st_size <= 4e6
    vae, dogs = load_pretrained("toy"), toy_pixels(200, seed=0)
    mu, logvar = encode_images(vae, dogs)
    x, x_hat = to_float(dogs), decode_latents(vae, mu)
    assert (x_hat - x).square().mean() < 0.1 * x.var(0).mean()  # the variance is what the average dog is off by
    learned = FullGaussian(vae.latent_shape).fit(mu, (0.5 * logvar).exp())
    z = reparameterize(mu, logvar)
    hole = learned.log_prob(z).mean() - StandardNormal(vae.latent_shape).log_prob(z).mean()
    assert hole > 10  # nats a dog: what chapter 09 closes
