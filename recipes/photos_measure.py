"""The figures on the card, and in chapter 08: what the shipped weights do on photos that they never saw.

    python recipes/photos_measure.py PHOTOS     # writes figures.json; PHOTOS: the folder, or the tar, of all photos

Half of the unseen photos are the reference. The other half give the real-vs-real baseline, and are what is reconstructed;
from each prior as many dogs are drawn, seed 0. Distances are in the features of our own network, so they are not FID.
"""

import argparse
import json
import time
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import torch
from photos_data import SIZES, read_photos, split_photos
from torch import Tensor

from vae_helpers.config import best_device
from vae_helpers.evaluation import (
    compare_features,
    extract_features,
    image_quality,
    load_dog_features,
    nearest_features,
    nearest_images,
)
from vae_helpers.files import WEIGHTS
from vae_helpers.models import (
    BaseVAE,
    GaussianMixture,
    Prior,
    StandardNormal,
    decode_latents,
    encode_images,
    kl_divergence,
    load_pretrained,
    load_prior,
    to_float,
    to_uint8,
)

BATCH, SAMPLES_SEED = 32, 0


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, default=WEIGHTS / "figures.json")
    parser.add_argument("--components", type=int, default=16, help="of the mixture")
    parser.add_argument("--limit", type=int, help="only the first so many photos, to try it out")
    options = parser.parse_args(arguments)
    names, pixels = read_photos(options.photos, options.limit)
    learn, unseen = split_photos(names)
    figures = measure(pixels[SIZES[0]][learn], pixels[SIZES[0]][unseen], options.components)
    options.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


def measure(learned: Tensor, unseen: Tensor, components: int) -> dict:
    """learned, unseen: uint8 (N, 3, 56, 56)."""
    network = load_dog_features()
    ours, reference = unseen[::2], unseen[1::2]
    goal = extract_features(network, reference)

    def against_photos(images: Tensor) -> dict[str, float]:
        return asdict(compare_features(generated=extract_features(network, images), real=goal))

    baseline = against_photos(ours)
    recons = {}
    for name in ("vector", "faithful"):
        figures, images = reconstructions(load_pretrained(name).to(best_device()), unseen)
        recons[name] = figures | against_photos(images[::2])
    faithful = load_pretrained("faithful").to(best_device())
    mu, logvar = encode_images(faithful, torch.cat([learned, learned.flip(3)]), BATCH)
    began = time.perf_counter()
    mixture = GaussianMixture(faithful.latent_shape, components).fit(mu, (0.5 * logvar).exp())
    print(f"a mixture was fitted in {time.perf_counter() - began:.0f} s")
    priors: dict[str, Prior] = {"N(0, I)": StandardNormal(faithful.latent_shape)}
    priors |= {"one Gaussian": load_prior("gaussian"), f"a mixture of {components}": mixture, "flow": load_prior("flow")}
    known = extract_features(network, learned)
    near = nearest_features(extract_features(network, unseen), known)[1]
    found = {}
    for name, prior in priors.items():
        began = time.perf_counter()
        drawn = prior.sample(len(ours), torch.Generator().manual_seed(SAMPLES_SEED))
        seconds = (time.perf_counter() - began) / len(ours)
        images = to_uint8(decode_latents(faithful, drawn, BATCH))
        to_learned = nearest_features(extract_features(network, images), known)[1]
        found[name] = {"seconds_a_dog": seconds} | against_photos(images)
        found[name] |= {"nearest_median_ratio": float(to_learned.median() / near.median())}
        found[name] |= {"fraction_nearer_than_1%_of_unseen": float((to_learned <= near.quantile(0.01)).double().mean())}
        found[name] |= {"nearest_pixels": levels(nearest_images(to_float(images), learned)[1])}
    measured = ("faithful", "flow", "gaussian", "vector", "dog_features")
    about = {
        "weights": {name: sha256((WEIGHTS / f"{name}.safetensors").read_bytes()).hexdigest() for name in measured},
        "learned": len(learned),
        "unseen": len(unseen),
        "a_side": len(ours),
    }
    about |= {
        "threads": torch.get_num_threads(),
        "nearest_pixels_unseen": levels(nearest_images(to_float(unseen), learned)[1]),
    }
    return {
        "about": about,
        "reconstructions": recons | {"other photos": baseline},
        "priors": found | {"other photos": baseline},
    }


def reconstructions(vae: BaseVAE, pixels: Tensor) -> tuple[dict[str, float], Tensor]:
    """Figures of what comes back from the means, and the pictures, uint8."""
    mu, logvar = encode_images(vae, pixels, BATCH)
    x_hat = decode_latents(vae, mu, BATCH)
    quality = image_quality(x_hat, pixels)
    return {"psnr": quality.psnr, "ssim": quality.ssim, "kl": float(kl_divergence(mu, logvar).mean())}, to_uint8(x_hat)


def levels(distance: Tensor) -> dict[str, float]:
    """Of root mean squared distances: the least and the median, in grey levels of 0 to 255."""
    return {"least": float(127.5 * distance.min()), "median": float(127.5 * distance.median())}


if __name__ == "__main__":
    main()
