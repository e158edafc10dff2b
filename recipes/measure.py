"""What `heads` and `dogs` do on pictures that they never saw: the figures of the card.

    python recipes/measure.py ../shared/dogs [--model heads]    # or dogs, or a file of such weights
    python recipes/measure.py ../shared/dogs --check            # a minute: exit status 1 where a bar is not held

Half of the held-out pictures are the reference; the other half give the real-vs-real baseline, and are what is reconstructed;
as many are drawn, seed 0, from N(0, I), and from the prior where one lies beside the VAE; of a model that knows breeds also
breed by breed, each in turn. Distances are in the features of our own network, which learned from whole photos and is no part
of the training; they are not FID. Of shipped weights, figures.json and the tables on the card are written anew; of another
model, OUT/figures.json. OUT/closest.png shows the eight draws that are closest to a training picture, each above it: to look
at, not to be committed, since it shows photos.

Breeds: a logistic regression on the same features learns to tell all breeds apart from the pictures that were learned from.
For the ten breeds with most pictures, it says the breed of held-out pictures and of 50 draws each; and as many draws as half of
a breed's pictures (learned from or not) are compared with that half, and so is the other half.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from dogs import read_dogs
from heads import is_held_out, read_heads
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vae_helpers.config import folders
from vae_helpers.evaluation import compare_features, extract_features, image_quality, load_dog_features, nearest_features
from vae_helpers.files import WEIGHTS, write_file
from vae_helpers.models import (
    BaseVAE,
    GaussianMixture,
    Prior,
    StandardNormal,
    decode_latents,
    encode_images,
    find_weights,
    load_pretrained,
    load_prior,
    to_float,
    to_uint8,
)
from vae_helpers.plots import image_rows, save_figure

BATCH = 32
CARD = WEIGHTS / "README.md"
MARKS = "<!-- begin: {}, written by recipes/measure.py -->\n", "<!-- end -->\n"  # around a table on the card


def sized(pictures: Tensor, image_size: int) -> Tensor:
    """uint8 pictures (N, 3, S, S) as training shows them to a model of this size."""
    halve = pictures.shape[-1] // image_size
    return torch.cat([to_uint8(F.avg_pool2d(to_float(some), halve)) for some in pictures.split(256)])


def cost(vae: BaseVAE) -> dict[str, float]:
    """Of decoding one picture on one thread: GFLOP (2 x multiply-adds), and CPU milliseconds, the least of 30."""
    z, threads, milliseconds = torch.randn(1, *vae.latent_shape), torch.get_num_threads(), []
    with FlopCounterMode(display=False) as counter:
        decode_latents(vae, z)
    torch.set_num_threads(1)
    for _ in range(30):
        began = time.process_time()
        decode_latents(vae, z)
        milliseconds.append(1000 * (time.process_time() - began))
    torch.set_num_threads(threads)
    return {"gflop": counter.get_total_flops() / 1e9, "cpu_ms": min(milliseconds)}


def draws(vae: BaseVAE, prior: Prior, n: int, breed: str | None = None, seed: int = 0) -> Tensor:
    """uint8 (n, 3, S, S); of a breed where one is given."""
    z = prior.sample(n, torch.Generator().manual_seed(seed), **({"name": breed} if breed else {}))
    return to_uint8(decode_latents(vae, z, BATCH, breed))


def measure(vae: BaseVAE, prior: Prior | None, pictures: Tensor, features: Tensor, is_unseen: Tensor, sheet: Path) -> dict:
    """The figures of `vae`, and of its prior where it has one, on pictures (uint8, (N, 3, S, S)) and their dog features.

    nearest, of each set of pictures: median distance to the nearest training picture, over that of held-out pictures. The
    draws that are closest go to `sheet`.
    """
    learned, held_out, known, unseen = pictures[~is_unseen], pictures[is_unseen], features[~is_unseen], features[is_unseen]
    n = len(held_out) // 2
    x_hat = decode_latents(vae, encode_images(vae, held_out, BATCH)[0], BATCH)
    priors = {"N(0, I)": StandardNormal(vae.latent_shape)} | ({"the prior": prior} if prior else {})
    other = "other dogs" if vae.breeds else "other heads"
    shown = {other: held_out[: 2 * n : 2], "reconstructions": to_uint8(x_hat[: 2 * n : 2])}
    shown |= {f"draws from {name}": draws(vae, source, n) for name, source in priors.items()}
    if prior and vae.breeds:
        each = -(-n // len(vae.breeds))
        turns = torch.stack([draws(vae, prior, each, breed, seed) for seed, breed in enumerate(vae.breeds)], 1)
        shown["draws by breed"] = turns.flatten(0, 1)[:n]
    network, sets = load_dog_features(), {}
    near = nearest_features(unseen, known)[1].median()
    for name, images in shown.items():
        found = extract_features(network, images, BATCH)
        index, distance = nearest_features(found, known)
        compared = compare_features(generated=found, real=unseen[1 : 2 * n : 2])
        sets[name] = asdict(compared) | {"nearest": float(distance.median() / near)}
    closest = distance.argsort()[:8]  # of the last: what `sample` draws
    rows = {"draws": images[closest], "nearest": learned[index[closest]]}
    save_figure(
        image_rows(rows, "The draws that are closest to training pictures", [f"{d:.1f}" for d in distance[closest]]), sheet
    )
    quality = image_quality(x_hat, held_out)
    about = {"image_size": vae.image_size, "learned": len(learned), "held_out": len(held_out), "a_side": n}
    return about | cost(vae) | {"psnr": quality.psnr, "ssim": quality.ssim, "sets": sets}


def measure_breeds(vae: BaseVAE, prior: GaussianMixture, features: Tensor, breed_of: Sequence[str], is_unseen: Tensor) -> dict:
    """Of the ten breeds with most pictures, which have these features: what a classifier makes of them and of draws; distances.

    real, draws: the share whose breed is named, of held-out pictures and of draws. chance: of a guess.
    """
    network, labels, breeds = load_dog_features(), np.array(breed_of), {}
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=300))
    classifier.fit(features[~is_unseen], labels[~is_unseen.numpy()])
    for breed, n in Counter(sorted(breed_of)).most_common(10):
        own = labels == breed
        drawn = extract_features(network, draws(vae, prior, max(50, n // 2), breed), BATCH)
        real, others = features[own][: n // 2 * 2 : 2], features[own][1 : n // 2 * 2 : 2]
        compared = asdict(compare_features(generated=drawn[: n // 2], real=real))
        breeds[breed] = {"draws": float((classifier.predict(drawn[:50]) == breed).mean())}
        breeds[breed] |= {"frechet": compared["frechet"], "coverage": compared["coverage"]}
        breeds[breed]["frechet_real"] = compare_features(generated=others, real=real).frechet
    test = is_unseen.numpy() & np.isin(labels, list(breeds))
    shares = {"real": float((classifier.predict(features[test]) == labels[test]).mean()), "held_out": int(test.sum())}
    shares |= {"draws": float(np.mean([of["draws"] for of in breeds.values()])), "chance": 1 / len(set(breed_of))}
    return shares | {"by_breed": breeds}


def missed(figures: dict) -> list[str]:
    """The bars that figures do not hold. Draws are those that `sample` makes."""
    real, back, *_, drawn = figures["sets"].values()
    bars = {
        "VAE and prior have at most 20.1 MB": figures["megabytes"] <= 20.1,
        "draws keep 0.95 of held-out pictures' distance to training pictures": drawn["nearest"] >= 0.95,
    }
    if "breeds" in figures:
        shares = figures["breeds"]
        bars |= {
            "draws cover at least 0.85 of dogs": drawn["coverage"] >= 0.85,
            "draws are at most 2.2 times as far from dogs as other dogs": drawn["frechet"] <= 2.2 * real["frechet"],
            "half as many draws as dogs are taken for their breed": shares["draws"] >= 0.5 * shares["real"],
        }
    else:
        bars |= {
            "the decoder needs at most 1.25 GFLOP a picture": figures["gflop"] <= 1.25,
            "the decoder needs at most 25 ms of CPU time a picture": figures["cpu_ms"] <= 25,
            "reconstructions have at least 19.5 dB": figures["psnr"] >= 19.5,
            "reconstructions cover at least 0.96 of heads": back["coverage"] >= 0.96,
            "draws cover at least 0.92 of heads": drawn["coverage"] >= 0.92,
            "draws are at most 1.6 times as far from heads as other heads": drawn["frechet"] <= 1.6 * real["frechet"],
        }
    return [bar for bar, holds in bars.items() if not holds]


def card_table(figures: dict) -> str:
    """What the card says of `figures`, in Markdown."""
    row = "| {name} | {frechet:.1f} | {precision:.2f} | {recall:.2f} | {coverage:.2f} | {nearest:.2f} |"
    lines = [
        "{image_size} x {image_size} pixels; {learned:,} pictures learned from, {held_out:,} held out, {a_side} a side. "
        "Reconstructions from the mean: {psnr:.1f} dB, SSIM {ssim:.2f}. The decoder: {gflop:.2f} GFLOP and {cpu_ms:.0f} ms of "
        "CPU time a picture, on one thread. VAE and prior: {megabytes:.1f} MB.\n".format(**figures),
        "| | Fréchet | precision | recall | coverage | nearest |",
        "|---|---|---|---|---|---|",
        *(row.format(name=name, **numbers) for name, numbers in figures["sets"].items()),
    ]
    if "breeds" in figures:
        row = "| {name} | {draws:.2f} | {frechet:.1f} | {frechet_real:.1f} | {coverage:.2f} |"
        lines += [
            "\nOf {held_out} held-out dogs of the ten breeds with most pictures, the classifier names the breed of {real:.2f}; "
            "of draws of these breeds, of {draws:.2f}; by chance it would be {chance:.3f}.\n".format(**figures["breeds"]),
            "| breed | draws named | Fréchet: draws | other dogs | coverage |",
            "|---|---|---|---|---|",
            *(row.format(name=name, **numbers) for name, numbers in figures["breeds"]["by_breed"].items()),
        ]
    return "\n".join(lines) + "\n"


def on_card(card: str, name: str) -> str:
    """What stands between the marks of a model on a card."""
    return card.split(MARKS[0].format(name))[1].split(MARKS[1])[0]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dogs", type=Path)
    parser.add_argument("--model", default="heads", help="name of shipped weights, or a file")
    parser.add_argument("--out", type=Path, default=folders().outputs)
    parser.add_argument("--check", action="store_true", help="hold the bars, and write no figures")
    options = parser.parse_args(arguments)
    path = find_weights(options.model)
    is_shipped = path.parent == WEIGHTS
    if is_shipped and path.stem not in ("heads", "dogs"):
        parser.error(f"--model {path.stem}: it learned from other pictures; take heads, dogs, or a file of such weights")
    prior_path = path.with_name(f"{path.stem}_prior.safetensors")
    vae, prior = load_pretrained(path), load_prior(prior_path) if prior_path.exists() else None
    pictures, names, *labels = (read_dogs if vae.breeds else read_heads)(options.dogs)
    pictures, is_unseen = sized(pictures, vae.image_size), torch.tensor([is_held_out(name) for name in names])
    options.out.mkdir(parents=True, exist_ok=True)
    features = extract_features(load_dog_features(), pictures, BATCH)
    figures = measure(vae, prior, pictures, features, is_unseen, options.out / "closest.png")
    if prior and vae.breeds:
        figures["breeds"] = measure_breeds(vae, prior, features, *labels, is_unseen)
    files = {file.stem: file.read_bytes() for file in (path, prior_path) if file.exists()}
    figures |= {"weights": {name: sha256(content).hexdigest() for name, content in files.items()}}
    figures |= {"megabytes": sum(map(len, files.values())) / 1e6}
    print(card_table(figures))
    if options.check:
        raise SystemExit("\n".join(f"not held: {bar}" for bar in missed(figures)) or None)
    out = (WEIGHTS if is_shipped else options.out) / "figures.json"
    others = json.loads(out.read_text()) if out.exists() else {}
    write_file(out, json.dumps(others | {path.stem: figures}, indent=1) + "\n")
    if is_shipped:
        card, begin = CARD.read_text(encoding="utf-8"), MARKS[0].format(path.stem)
        write_file(CARD, card.replace(begin + on_card(card, path.stem), begin + card_table(figures)))


if __name__ == "__main__":
    main()
