"""All metrics of one model on images it has not seen: `evaluate` gives numbers, `write_report` makes a page of them."""

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jinja2 import Environment, PackageLoader
from sklearn.decomposition import PCA
from torch import Tensor

from ..files import write_file
from ..models.inference import decode_latents, encode_images, to_float, to_uint8
from ..models.losses import BETA, noise_variance
from ..models.priors import Prior, StandardNormal
from ..models.vae import BaseVAE
from ..plots import figure_bytes, image_grid, image_rows, save_figure
from .baselines import LinearVAE, nearest_images, principal_components
from .metrics import aggregate_posterior_gap, bits_per_dimension, elbo, evaluate_vae, image_quality, importance_weighted_bound
from .probes import recover_factors
from .sample_metrics import Extractor, extract_features, load_dog_features, sample_metrics

MIN_IMAGES, FOR_FACTORS, FOR_SAMPLES = 2, 8, 12  # of train and of test; without enough of them the rest is measured
N_FOR_BOUND, N_IMPORTANCE_SAMPLES = 200, 32  # images and samples of the bound: it decodes their product


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured.

    metrics: all numbers, plain values that JSON can hold; what could not be measured is left out: labels with fewer than 8 test
    images, comparisons of sets of images with fewer than 12. pictures: rows of images to show, label -> images in [-1, 1]: 8
    "reconstructions", 64 "samples", and "closest", the 8 samples that are closest to a training image, pixel by pixel, with
    these.
    """

    metrics: dict
    pictures: dict[str, dict[str, Tensor]]


def evaluate(
    vae: BaseVAE,
    train: Tensor,
    test: Tensor,
    beta: float = BETA,
    *,
    labels: Mapping[str, Tensor] | None = None,
    drawn: tuple[BaseVAE, Prior] | None = None,
    extractor: Extractor | None = None,
    images: str = "test images",
    seed: int = 0,
    max_images: int = 5000,
) -> Evaluation:
    """Measure a model on images it has not seen; the numbers do not depend on the batch size.

    train, test: uint8 (N, 3, S, S), at least 2 of each; train only for baselines and neighbours, and to see whether its own
    images are reconstructed better. Of each a random part of `max_images` is taken (fewer above 56 x 56, so that memory grows
    by less than 2 GB); the closest pictures are looked for in all of train. beta: what it was trained with; at 0 there are no
    bounds and no linear VAE. labels: of the test images, name -> (N,). drawn: by which decoder, from which prior, samples are
    made, if not by that of `vae` from N(0, I). extractor: of the features that samples are compared in;
    `load_dog_features()` when left out. images: what the test images are, in words. seed: of every draw. Raises ValueError for
    fewer images.
    """
    if min(len(train), len(test)) < MIN_IMAGES:
        raise ValueError(f"{len(train)} train and {len(test)} test images: an evaluation needs at least {MIN_IMAGES} of each")
    n_dims, all_train = test[0].numel(), train
    limit = min(max_images, 50_000_000 // n_dims)
    chosen, train = _random_part(len(test), limit, seed), train[_random_part(len(train), limit, seed)]
    test = test[chosen]
    mu, logvar = encode_images(vae, test)
    x_hat = decode_latents(vae, mu)
    drawing, prior = drawn or (vae, StandardNormal(vae.latent_shape))
    samples = decode_latents(drawing, prior.sample(len(mu), torch.Generator().manual_seed(seed)))
    held_out, on_train = (evaluate_vae(vae, pixels, beta, seed) for pixels in (test, train[: len(test)]))
    components = principal_components(train, mu[0].numel())
    baseline, x_hat_pca = _baseline(vae, components, test, beta, on_train.recon_sampled, seed)
    gap = aggregate_posterior_gap(mu, logvar, encode_images(vae, train)[0], seed)
    about = {"images": images, "n_images": len(test), "n_train": len(train), "n_train_in_all": len(all_train), "seed": seed}
    metrics = about | {
        "image_size": test.shape[-1],
        "latent_size": mu[0].numel(),
        "noise_std": noise_variance(beta, n_dims) ** 0.5,
        "vae": held_out.summary(),
        "vae_on_train": on_train.summary(),
        "image_quality": {"vae": asdict(image_quality(x_hat, test)), "pca": asdict(image_quality(x_hat_pca, test))},
        "prior": "N(0, I)" if isinstance(prior, StandardNormal) else type(prior).__name__,
        "prior_fraction_beyond": gap.fraction_beyond,
    }
    metrics |= baseline | _by_factor(mu, labels if labels and len(test) >= FOR_FACTORS else {}, chosen, seed)
    if len(test) >= FOR_SAMPLES:
        metrics |= _samples(extractor or load_dog_features(), train, test, samples, x_hat, seed)
    index, distance = nearest_images(samples[:64], all_train)
    order = distance.argsort()[:8]
    pictures = {
        "reconstructions": {"original": to_float(test[:8]), "this model": x_hat[:8], "PCA": x_hat_pca[:8]},
        "samples": {"new dog": samples[:64]},
        "closest": {"new dog": samples[order], "closest train dog": to_float(all_train[index[order]])},
    }
    return Evaluation(metrics, pictures)


def _random_part(n: int, limit: int, seed: int) -> Tensor:
    """Indices of at most `limit` of `n` images, in their order."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:limit].sort().values


def _baseline(vae: BaseVAE, components: PCA, test: Tensor, beta: float, noise: float, seed: int) -> tuple[dict, Tensor]:
    """Metrics of the linear VAE, bounds on log P(x) of both models, and x_hat (N, 3, S, S) of test from PCA.

    components: of train, as many as latent numbers. noise: a variance for the bound at the model's own error.
    """
    n_dims, few = test[0].numel(), test[:N_FOR_BOUND]
    pca = LinearVAE(components, 1e-12)  # with no noise left, it is PCA
    x_hat = decode_latents(pca, encode_images(pca, test)[0])
    if not beta:
        return {}, x_hat
    linear, variance = LinearVAE(components, beta), noise_variance(beta, n_dims)
    bounds = {
        "elbo": elbo(vae, few, variance, 4, seed),
        "importance_weighted": importance_weighted_bound(vae, few, variance, N_IMPORTANCE_SAMPLES, seed),
        "linear_exact": linear.log_likelihood(few),
        "elbo_own_noise": elbo(vae, few, noise, 4, seed),
    }
    nats = {name: value.mean().item() for name, value in bounds.items()}
    found = {"linear_vae": evaluate_vae(linear, test, beta, seed).summary(), "log_likelihood_nats": nats}
    found["bits_per_dimension"] = {name: bits_per_dimension(value, n_dims) for name, value in nats.items()}
    return found | {"log_likelihood_images": len(few), "n_importance_samples": N_IMPORTANCE_SAMPLES}, x_hat


def _by_factor(mu: Tensor, labels: Mapping[str, Tensor], chosen: Tensor, seed: int) -> dict:
    """R² of each label that differs between the chosen images."""
    labels = {name: part for name, values in labels.items() if (part := values[chosen]).min() < part.max()}
    return {"factor_r2": recover_factors(mu, labels, seed).summary()} if labels else {}


def _samples(extractor: Extractor, train: Tensor, test: Tensor, samples: Tensor, x_hat: Tensor, seed: int) -> dict:
    """Samples and reconstructions against real images; features are taken once of each set."""
    known, real, drawn, again = (extract_features(extractor, x) for x in (train, test, to_uint8(samples), to_uint8(x_hat)))
    name = getattr(extractor, "name", getattr(extractor, "__name__", type(extractor).__name__))
    return {
        "features": {"network": name},
        "samples": asdict(sample_metrics(generated=drawn, real=real, train=known, seed=seed)),
        "reconstructions": asdict(sample_metrics(generated=again, real=real, seed=seed)),
    }


def write_report(evaluation: Evaluation, folder: str | Path, title: str = "What this model does") -> list[str]:
    """Write `folder`/report.html, one file with its pictures inside, and `folder`/metrics.json.

    The words are in the template report.html beside this file. Returns the page's summary, a sentence for each part.
    """
    template = Environment(loader=PackageLoader("vae_helpers.evaluation", "."), autoescape=True).get_template("report.html")
    shown, prior = evaluation.pictures, evaluation.metrics["prior"]
    figures = {
        "reconstructions": image_rows(shown["reconstructions"], "Dogs it has never seen, and their reconstructions"),
        "samples": image_grid(*shown["samples"].values(), f"New dogs: draws from {prior}, not picked", columns=16, scale=1.2),
        "closest": image_rows(shown["closest"], "New dogs that are closest to a training dog, pixel by pixel"),
    }
    pictures = {name: b64encode(figure_bytes(figure, dpi=100)).decode() for name, figure in figures.items()}
    page = template.make_module({"m": evaluation.metrics, "pictures": pictures, "title": title})
    write_file(Path(folder) / "report.html", str(page).strip() + "\n")
    write_file(Path(folder) / "metrics.json", json.dumps(evaluation.metrics, indent=2) + "\n")
    return [" ".join(verdict.unescape().split()) for verdict in page.verdicts]


def reconstruction_saver(pixels: Tensor, path: str | Path) -> Callable[[BaseVAE, dict[str, float]], None]:
    """An `on_epoch` callback for `fit`: refreshes one picture, originals above reconstructions (from the mean).

    pixels: uint8 (B, 3, S, S), the same dogs each time; take them from validation.
    """

    def save(vae: BaseVAE, record: dict[str, float]) -> None:
        x = to_float(pixels, next(vae.parameters()).device)
        with torch.no_grad():
            rows = {"original": x, "reconstruction": vae.reconstruct(x)}
        save_figure(image_rows(rows, f"Validation dogs after epoch {record['epoch']}, reconstructed from the mean"), path)

    return save
