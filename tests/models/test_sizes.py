"""Images from 32 to 256 pixels each way, in steps of 8, for every network, and for the adversary that sharpens it."""

import subprocess
import sys

import pytest
import torch

from vae_helpers.models import VAE, AttentionVAE, ResidualVAE, SpatialVAE
from vae_helpers.training import Adversary

NETWORKS = {
    "vector": lambda size: VAE(4, (8, 8, 8), size),
    "residual": lambda size: ResidualVAE(4, (8, 8, 8, 16), (8, 8, 8), image_size=size),
    "spatial": lambda size: SpatialVAE(8, 2, 4, size),
    "attention": lambda size: AttentionVAE(8, 2, 4, size),
}


@pytest.mark.parametrize("size", [32, 40, 64, 128, 256])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_gives_back_the_size_that_it_takes_and_an_adversary_judges_it(network, size):
    vae, x = NETWORKS[network](size), torch.randn(2, 3, size, size)
    x_hat = vae(x).x_hat
    assert x_hat.shape == x.shape
    assert Adversary(size).step(x_hat, x).fooled.isfinite()


@pytest.mark.parametrize("network", NETWORKS)
def test_another_size_is_refused(network):
    with pytest.raises(ValueError, match=r"image_size=60 must be a multiple of 8"):
        NETWORKS[network](60)


def test_a_default_batch_of_the_largest_images_is_encoded_in_bfloat16():
    """In a process of its own: a fault of torch ended it."""
    encode = """
import torch
from vae_helpers import VAE
with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
    mu, _ = VAE(image_size=256).encode(torch.zeros(32, 3, 256, 256).contiguous(memory_format=torch.channels_last))
assert mu.isfinite().all()
"""
    assert subprocess.run([sys.executable, "-c", encode]).returncode == 0
