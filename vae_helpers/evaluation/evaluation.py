"""Everything that can be said of a model on images it has not seen: figures for a file, sentences and pictures for people."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from ..models.inference import decode_latents, encode_images, to_float, to_uint8
from ..models.losses import kl_per_dim, noise_variance
from ..models.vae import VAE
from ..plots import bars, heat_map, histograms, image_grid, image_rows, scatter_by_label
from .disentanglement import dci, mutual_information_gap, recover_factors
from .features import load_dog_features
from .likelihood import LinearVAE, bits_per_dimension, elbo, importance_weighted_bound
from .metrics import (
    EvalMetrics,
    active_units,
    aggregate_posterior_gap,
    evaluate_vae,
    image_quality,
    nearest_images,
    pca_reconstructions,
    ppca_figures,
    principal_components,
    psnr,
    webp,
)
from .sample_metrics import Extractor, sample_metrics

BREED_AT_LEAST = 5  # test images, to be spoken of
N_FOR_BOUND, N_DRAWS = 200, 32  # images and draws of the importance-weighted bound: it decodes their product


@dataclass(frozen=True)
class Section:
    """A part of the report. verdict: a sentence that stands in the summary too; text: what it means; table: rows, the first
    of them the head."""

    title: str
    verdict: str
    text: str
    table: Sequence[Sequence[str]] = ()
    figures: Sequence[Figure] = ()


@dataclass(frozen=True)
class Evaluation:
    """metrics: all figures, plain values that JSON can hold; sections: the same for people."""

    metrics: dict
    sections: list[Section]


def evaluate_model(
    vae: VAE,
    train: Tensor,
    test: Tensor,
    beta: float,
    labels: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    reference: str = "test dogs",
    extractor: Extractor | str | None = None,
    breeds: Sequence[str | None] = (),
) -> Evaluation:
    """Everything that can be said of a model on images it has not seen.

    train, test: uint8 (N, 3, S, S); train only for baselines, for the closest pictures, and to see whether it knows its own
    dogs better. beta: what it was trained with; it names the decoder's noise. labels: of the test images, name -> (N,), for
    what the latents know. seed: of every draw. extractor: of the figures of samples, the shipped one when left out. breeds: of
    the test images, None where it is not known. Needs 16 test images. Figures do not depend on the batch size. Raises
    ValueError for fewer images.
    """
    if len(test) < 16:
        raise ValueError(f"{len(test)} test images: an evaluation needs at least 16")
    if breeds and len(breeds) != len(test):
        raise ValueError(f"{len(breeds)} breeds for {len(test)} test images: give one for each, None where it is not known")
    mu, logvar = encode_images(vae, test)
    linear = principal_components(train, math.prod(vae.latent_shape))
    known = evaluate_vae(vae, train[: len(test)], beta, seed)
    parts = [
        _reconstructions(vae, mu, train, test, linear, known, seed),
        _probability(vae, train, test, linear, known, seed),
        _latents(vae, mu, logvar, train, seed),
        *([_factors(mu, logvar, labels, seed)] if labels and len(labels) > 1 else []),
        *([_breeds(vae, mu, test, breeds)] if len({*_shared(breeds), None}) > 2 else []),
        _samples(vae, mu, train, test, seed, reference, extractor or load_dog_features()),
    ]
    about = {"images": reference, "n_images": len(test), "n_train": len(train), "image_size": test.shape[-1], "seed": seed}
    metrics = about | {"beta": beta, "decoder_noise": noise_variance(beta, test[0].numel()) ** 0.5}
    for figures, _ in parts:
        metrics |= figures
    return Evaluation(metrics, [section for _, section in parts])


def _reconstructions(vae, mu, train, test, linear: PCA, known: EvalMetrics, seed: int) -> tuple[dict, Section]:
    held_out = evaluate_vae(vae, test, known.beta, seed)
    n = mu[0].numel()
    from_mean, by_pca = decode_latents(vae, mu), pca_reconstructions(train, test, n, linear)
    small, n_bytes = webp(test)
    found = {
        "vae": image_quality(from_mean, test),
        "pca": image_quality(by_pca, test),
        "webp": image_quality(to_float(small), test),
    }
    gain = found["vae"].psnr - found["pca"].psnr
    gap = held_out.recon_mean / known.recon_mean - 1
    learned = "about as well as dogs it learned from" if gap < 0.1 else f"with {gap:.0%} more error than dogs it learned from"
    verdict = (
        f"A dog it has never seen comes back at {found['vae'].psnr:.1f} dB, {abs(gain):.1f} dB "
        f"{'better' if gain > 0 else 'WORSE'} than from as many principal components, and {learned}."
    )
    text = (
        "From the mean of its latent, without noise. PSNR is the squared error in decibels, SSIM is closer to how an eye "
        "judges (1: the same); for both, more is better. Principal components are the best that a linear method can do, and "
        "pay nothing for what they keep. WebP, set to its smallest, is an ordinary picture file. If dogs it learned from come "
        "back much better than new ones, it has learned them by heart."
    )
    nats = f"{n} numbers, worth {held_out.kl / (8 * math.log(2)):.0f} bytes (KL {held_out.kl:.0f} nats)"
    sizes = {"vae": nats, "pca": f"{n} numbers", "webp": f"{n_bytes:.0f} bytes"}
    names = {"vae": "this model, from the mean", "pca": "principal components", "webp": "WebP"}
    table = [["test dogs", "kept of a dog", "PSNR", "SSIM"]]
    table += [[names[k], sizes[k], f"{f.psnr:.2f} dB", f"{f.ssim:.3f}"] for k, f in found.items()]
    rows = {"original": to_float(test[:8]), "this model": from_mean[:8], "PCA": by_pca[:8], "WebP": to_float(small[:8])}
    picture = image_rows(rows, "Dogs it has never seen: the original, and what is left of it")
    figures = {f"similarity_{k}": asdict(f) for k, f in found.items()} | {"webp_bytes": n_bytes, "vae": held_out.summary()}
    ppca = ppca_figures(train, test, n, known.beta, linear)
    figures |= {"vae_on_train": known.summary(), "ppca_same_noise": ppca.summary()}
    return figures, Section("Does it know a dog again?", verdict, text, table, [picture])


def _probability(vae, train, test, linear: PCA, known: EvalMetrics, seed: int) -> tuple[dict, Section]:
    few, n_dims, own = test[:N_FOR_BOUND], test[0].numel(), known.recon_sampled
    s2 = noise_variance(known.beta, n_dims)
    nats = {
        "elbo": elbo(vae, few, s2, 4, seed).mean().item(),
        "importance_weighted": importance_weighted_bound(vae, few, s2, N_DRAWS, seed).mean().item(),
        "linear_exact": LinearVAE(train, len(linear.components_), known.beta, fitted=linear).log_likelihood(few).mean().item(),
        "elbo_own_noise": elbo(vae, few, own, 4, seed).mean().item(),
    }
    bits = {name: bits_per_dimension(value, n_dims) for name, value in nats.items()}
    best, line = bits["importance_weighted"], bits["linear_exact"]
    verdict = (
        f"Written down with this model, each number of a picture would cost {best:.3f} bits; with the best linear model of "
        f"the same noise {line:.3f} ({'so it earns its keep' if best < line else 'so it does NOT pay'}), as raw bytes 8."
    )
    text = (
        f"Bounds on the probability of {len(few)} test pictures. The model takes pixels to be {127.5 * s2**0.5:.0f} steps of "
        f"255 off; on dogs it learned from it is {127.5 * own**0.5:.0f} off. With that as its noise it would cost "
        f"{bits['elbo_own_noise']:.2f} bits: where this is far less, the noise was chosen too wide, which is no fault of "
        "what it learned."
    )
    names = {"elbo": "ELBO", "importance_weighted": f"bound with {N_DRAWS} draws", "linear_exact": "linear model, exactly"}
    names |= {"elbo_own_noise": "ELBO, with its own error as noise"}
    table = [["test dogs", "nats a picture", "bits a number"]]
    table += [[names[k], f"{nats[k]:.1f}", f"{bits[k]:.3f}"] for k in nats]
    figures = {"log_likelihood_nats": nats, "bits_per_dimension": bits, "log_likelihood_images": len(few)}
    return figures, Section("How probable does it find a dog?", verdict, text, table)


def _latents(vae: VAE, mu: Tensor, logvar: Tensor, train: Tensor, seed: int) -> tuple[dict, Section]:
    kl = kl_per_dim(mu, logvar).flatten(1).double().mean(0).sort(descending=True).values
    n_most = int((kl.cumsum(0) < 0.95 * kl.sum()).sum()) + 1
    gap = aggregate_posterior_gap(mu, logvar, encode_images(vae, train)[0], seed)
    active = active_units(mu)
    verdict = (
        f"{n_most} of its {len(kl)} latent numbers carry 95% of what it keeps of a dog, and {gap.fraction_beyond:.0%} of draws "
        f"from N(0, I) lie further from every training dog than nearly all real dogs do (5% would be right)."
    )
    text = (
        f"({active} numbers answer to the picture at all.) New dogs are made of random numbers, drawn from N(0, I): those "
        "that lie where no dog does give pictures that are no dogs."
    )
    ranked = bars(kl.numpy(), "What each latent number carries, largest first", "latent number, sorted", "KL (nats a dog)")
    both = {"latents of test dogs": gap.distance, "draws from N(0, I)": gap.prior_distance}
    apart = histograms(both, "How far from the closest training dog? Are both alike?", "distance in the latent space")
    figures = {"active_units": active, "numbers_with_95_percent": n_most, "prior_share_beyond": gap.fraction_beyond}
    return figures, Section("What is in its latent space?", verdict, text, (), [ranked, apart])


def _factors(mu: Tensor, logvar: Tensor, labels: Mapping[str, Tensor], seed: int) -> tuple[dict, Section]:
    recovery, gap = recover_factors(mu, labels, seed), mutual_information_gap(mu, labels)
    scores = dci(recovery)
    order = recovery.nonlinear.argsort()[::-1]
    known = [recovery.names[i] for i in order if recovery.nonlinear[i] > 0.8]
    verdict = f"From its latents one can read {len(known)} of {len(order)} properties well: {', '.join(known) or 'none'}."
    text = (
        "R² is 1 when a property can be read off without error, 0 when guessing the average does as well; it is measured on "
        "dogs that the reading was not fitted on. How far each number stands for one property alone, from 0 to 1: "
        f"MIG {gap.mean:.2f}, disentanglement {scores.disentanglement:.2f}, completeness {scores.completeness:.2f}."
    )
    table = [["property", "R², linear", "R², any way"]]
    table += [[recovery.names[i], f"{recovery.linear[i]:.2f}", f"{recovery.nonlinear[i]:.2f}"] for i in order]
    top = kl_per_dim(mu, logvar).flatten(1).mean(0).argsort(descending=True)[:20].tolist()
    picture = heat_map(
        recovery.importance[order][:, top],
        "Which latent number is each property read from?",
        [recovery.names[i] for i in order],
        "latent numbers that carry most",
        "property",
        [f"z[{d}]" for d in top],
        full=max(recovery.importance.max(), 0.01),
    )
    figures = {"mig": gap.mean, "disentanglement": scores.disentanglement, "completeness": scores.completeness}
    figures["recovery"] = {
        name: {"linear": float(a), "nonlinear": float(b)}
        for name, a, b in zip(recovery.names, recovery.linear, recovery.nonlinear, strict=True)
    }
    return figures, Section("What does it know about dogs?", verdict, text, table, [picture])


def _shared(breeds: Sequence[str | None]) -> list[str | None]:
    """The breeds, None for those with fewer than BREED_AT_LEAST images."""
    times = Counter(breeds)
    return [breed if breed and times[breed] >= BREED_AT_LEAST else None for breed in breeds]


def _breeds(vae: VAE, mu: Tensor, test: Tensor, breeds: Sequence[str | None]) -> tuple[dict, Section]:
    error = (decode_latents(vae, mu).clamp(-1, 1) - to_float(test)).square().flatten(1).mean(1)
    shared = _shared(breeds)
    known = [i for i, breed in enumerate(shared) if breed]
    names = np.array([shared[i] for i in known])
    times = Counter(names.tolist())
    z = mu[known].flatten(1).numpy()
    closest = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(z).kneighbors()[1][:, 0]
    same = float((names[closest] == names).mean())
    chance = sum(n * (n - 1) for n in times.values()) / (len(names) * (len(names) - 1))
    mean_error = {name: error[known][torch.from_numpy(names == name)].mean().item() for name in times}
    decibels = {name: psnr(value) for name, value in mean_error.items()}
    order = sorted(decibels, key=decibels.get, reverse=True)
    verdict = (
        f"Of {len(decibels)} breeds, {order[0]} comes back best ({decibels[order[0]]:.1f} dB) and {order[-1]} worst "
        f"({decibels[order[-1]]:.1f} dB); the dog with the closest latent is of the same breed for {same:.0%} ({chance:.0%} by "
        "chance)."
    )
    text = (
        f"Breeds with at least {BREED_AT_LEAST} test images; PSNR of all of a breed's images together. With few images of "
        "each, much of the order is chance. The map shows latents, flattened to the two directions in which they differ most: "
        "a model that had found breeds would keep the colours apart."
    )
    shown = [*order[:5], *(["…"] if len(order) > 10 else []), *order[5:][-5:]]
    table = [["breed", "test images", "PSNR from the mean"]]
    table += [[b, str(times[b]), f"{decibels[b]:.2f} dB"] if b in decibels else ["…", "…", "…"] for b in shown]
    common = [breed for breed, _ in times.most_common(6)]
    picture = scatter_by_label(
        PCA(2, random_state=0).fit_transform(z),
        [name if name in common else "others" for name in names.tolist()],
        "Does the latent space keep breeds apart?",
    )
    figures = {"breeds": {name: {"images": times[name], "psnr": decibels[name]} for name in order}}
    figures |= {"same_breed_closest": same, "same_breed_by_chance": chance}
    return figures, Section("What does it know about breeds?", verdict, text, table, [picture])


def _samples(vae, mu, train, test, seed, reference, extractor) -> tuple[dict, Section]:
    generator = torch.Generator().manual_seed(seed)
    samples = decode_latents(vae, torch.randn(len(test), *vae.latent_shape, generator=generator))
    names = {"reference": f"half of the {reference}", "resize": "as in training", "seed": seed}
    drawn = sample_metrics(to_uint8(samples), test, extractor, train=train, **names)
    again = sample_metrics(to_uint8(decode_latents(vae, mu)), test, extractor, **names)
    index, distance = nearest_images(samples[:64], train)
    closest = distance.argsort()[:8]
    s, floor, nearest = drawn.samples, drawn.floor, drawn.nearest
    verdict = (
        f"New dogs are at a distance of {s.frechet:.1f} from real ones (other real dogs: {floor.frechet:.1f}; the same dogs "
        f"reconstructed: {again.samples.frechet:.1f}), they cover {s.coverage:.0%} of them (real ones: {floor.coverage:.0%}), "
        f"and they are {'not copies of' if nearest.median_ratio > 0.7 else 'SUSPICIOUSLY CLOSE to'} training dogs."
    )
    text = (
        f"Fréchet distances (squared) in the features of a network ({drawn.features}), {drawn.n_images} pictures on each side: "
        "with more, they shrink. Less is better; the last row is the least to be expected. Coverage is the share of real dogs "
        "with a new dog near, recall that of real dogs among the new; precision and density can stay high for broken "
        "pictures. Where reconstructions are as far off as new dogs, this sees the decoder's blur, not how good the draws are."
    )
    table = [
        ["against half of the test dogs", "Fréchet distance", "kernel distance", "precision", "recall", "density", "coverage"]
    ]
    for name, f in {"new dogs": s, "reconstructions": again.samples, "the other half, real": floor}.items():
        table.append([name, *(f"{value:.3f}" for value in f)])
    sheet = image_grid(samples[:64], "64 new dogs: draws from N(0, I), not picked", columns=16, scale=1.2)
    pairs = {"new dog": samples[closest], "closest train dog": to_float(train[index[closest]])}
    pictures = [sheet, image_rows(pairs, "The eight of them that are closest to a training dog, pixel by pixel")]
    return {"samples": drawn.summary(), "reconstructions": again.summary()}, Section(
        "Can it make new dogs?", verdict, text, table, pictures
    )
