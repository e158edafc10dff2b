"""What `heads` does on heads that it never saw: the figures of the card.

    python recipes/heads_measure.py ../shared/dogs [--model heads]    # the shipped weights, or a file of them
    python recipes/heads_measure.py ../shared/dogs --check            # a minute: exit status 1 where a bar is not held

Half of the held-out heads are the reference; the other half give the real-vs-real baseline, and are what is reconstructed;
as many are drawn, seed 0, from N(0, I), and from the prior where one lies beside the VAE. Distances are in the features of our
own network, which learned from whole photos and is no part of the training of `heads`; they are not FID. Of the shipped
`heads`, figures.json and the table on the card are written anew; of another model, OUT/figures.json. OUT/closest.png shows the
eight draws that are closest to a training head, each above it: to look at, not to be committed, since it shows photos.
"""

import argparse
import json
import time
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import torch
import torch.nn.functional as F
from heads import is_held_out, read_heads
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vae_helpers.config import folders
from vae_helpers.evaluation import compare_features, extract_features, image_quality, load_dog_features, nearest_features
from vae_helpers.files import WEIGHTS, write_file
from vae_helpers.models import (
    BaseVAE,
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
MARKS = "<!-- begin: written by recipes/heads_measure.py -->\n", "<!-- end -->\n"  # around the table on the card


def sized(heads: Tensor, image_size: int) -> Tensor:
    """uint8 heads (N, 3, 112, 112) as training shows them to a model of this size."""
    halve = heads.shape[-1] // image_size
    return torch.cat([to_uint8(F.avg_pool2d(to_float(some), halve)) for some in heads.split(256)])


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


def measure(vae: BaseVAE, prior: Prior | None, learned: Tensor, held_out: Tensor, sheet: Path) -> dict:
    """The figures of `vae`, and of its prior where it has one, on uint8 heads (N, 3, S, S); the closest pairs go to `sheet`.

    nearest, of each set of pictures: median distance to the nearest training head, over that of held-out heads.
    """
    n = len(held_out) // 2
    x_hat = decode_latents(vae, encode_images(vae, held_out, BATCH)[0], BATCH)
    priors = {"N(0, I)": StandardNormal(vae.latent_shape)} | ({"the prior": prior} if prior else {})
    pictures = {"other heads": held_out[: 2 * n : 2], "reconstructions": to_uint8(x_hat[: 2 * n : 2])}
    for name, source in priors.items():
        z = source.sample(n, torch.Generator().manual_seed(0))
        pictures[f"draws from {name}"] = to_uint8(decode_latents(vae, z, BATCH))
    network, sets = load_dog_features(), {}
    unseen, known = (extract_features(network, heads, BATCH) for heads in (held_out, learned))
    near = nearest_features(unseen, known)[1].median()
    for name, images in pictures.items():
        features = extract_features(network, images, BATCH)
        index, distance = nearest_features(features, known)
        compared = compare_features(generated=features, real=unseen[1 : 2 * n : 2])
        sets[name] = asdict(compared) | {"nearest": float(distance.median() / near)}
    closest = distance.argsort()[:8]  # of the last: what `sample` draws
    rows = {"draws": images[closest], "nearest": learned[index[closest]]}
    save_figure(
        image_rows(rows, "The draws that are closest to training heads", [f"{d:.1f}" for d in distance[closest]]), sheet
    )
    quality = image_quality(x_hat, held_out)
    about = {"image_size": vae.image_size, "learned": len(learned), "held_out": len(held_out), "a_side": n}
    return about | cost(vae) | {"psnr": quality.psnr, "ssim": quality.ssim, "sets": sets}


def missed(figures: dict) -> list[str]:
    """The bars that figures do not hold. Draws are those that `sample` makes."""
    *_, draws = figures["sets"].values()
    real, back = figures["sets"]["other heads"], figures["sets"]["reconstructions"]
    bars = {
        "the decoder needs at most 1.25 GFLOP a picture": figures["gflop"] <= 1.25,
        "the decoder needs at most 25 ms of CPU time a picture": figures["cpu_ms"] <= 25,
        "VAE, prior and head finder have at most 30 MB": figures["megabytes"] <= 30,
        "reconstructions have at least 19.5 dB": figures["psnr"] >= 19.5,
        "reconstructions cover at least 0.96 of heads": back["coverage"] >= 0.96,
        "draws cover at least 0.92 of heads": draws["coverage"] >= 0.92,
        "draws are at most 1.6 times as far from heads as other heads": draws["frechet"] <= 1.6 * real["frechet"],
        "draws keep 0.95 of held-out heads' distance to training heads": draws["nearest"] >= 0.95,
    }
    return [bar for bar, holds in bars.items() if not holds]


def card_table(figures: dict) -> str:
    """What the card says of `figures`, in Markdown."""
    lines = [
        "{image_size} x {image_size} pixels; {learned:,} heads learned from, {held_out} held out, {a_side} a side. "
        "Reconstructions from the mean: {psnr:.1f} dB, SSIM {ssim:.2f}. The decoder: {gflop:.2f} GFLOP and {cpu_ms:.0f} ms of "
        "CPU time a picture, on one thread. VAE, prior and head finder: {megabytes:.1f} MB.\n",
        "| | Fréchet | precision | recall | coverage | nearest |",
        "|---|---|---|---|---|---|",
    ]
    lines[0] = lines[0].format(**figures)
    row = "| {name} | {frechet:.1f} | {precision:.2f} | {recall:.2f} | {coverage:.2f} | {nearest:.2f} |"
    return "\n".join(lines + [row.format(name=name, **numbers) for name, numbers in figures["sets"].items()]) + "\n"


def on_card(card: str) -> str:
    """What stands between the marks on a card."""
    return card.split(MARKS[0])[1].split(MARKS[1])[0]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dogs", type=Path)
    parser.add_argument("--model", default="heads", help="name of shipped weights, or a file")
    parser.add_argument("--out", type=Path, default=folders().outputs)
    parser.add_argument("--check", action="store_true", help="hold the bars, and write no figures")
    options = parser.parse_args(arguments)
    path = find_weights(options.model)
    prior_path = path.with_name(f"{path.stem}_prior.safetensors")
    vae, prior = load_pretrained(path), load_prior(prior_path) if prior_path.exists() else None
    heads, names = read_heads(options.dogs)
    is_unseen = torch.tensor([is_held_out(name) for name in names])
    learned, held_out = (sized(heads[which], vae.image_size) for which in (~is_unseen, is_unseen))
    options.out.mkdir(parents=True, exist_ok=True)
    figures = measure(vae, prior, learned, held_out, options.out / "closest.png")
    files = {file.stem: file.read_bytes() for file in (path, prior_path, WEIGHTS / "head_finder.safetensors") if file.exists()}
    figures |= {"weights": {name: sha256(content).hexdigest() for name, content in files.items()}}
    figures |= {"megabytes": sum(map(len, files.values())) / 1e6}
    print(card_table(figures))
    if options.check:
        raise SystemExit("\n".join(f"not held: {bar}" for bar in missed(figures)) or None)
    of_card = path == WEIGHTS / "heads.safetensors"
    out = (WEIGHTS if of_card else options.out) / "figures.json"
    others = json.loads(out.read_text()) if out.exists() else {}
    write_file(out, json.dumps(others | {path.stem: figures}, indent=1) + "\n")
    if of_card:
        card = CARD.read_text(encoding="utf-8")
        write_file(CARD, card.replace(MARKS[0] + on_card(card), MARKS[0] + card_table(figures)))


if __name__ == "__main__":
    main()
