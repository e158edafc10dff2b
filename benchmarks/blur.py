"""Where the blur of toy dogs comes from: trainings that differ in one thing, with their errors by place on the dog.

    python benchmarks/blur.py    about 25 minutes on one core; writes notebooks/blur.csv, which chapter 03 prints

What is trained is kept in the workspace under models/blur/, so that a run that was stopped goes on. All dogs are toy dogs,
and all figures are on validation dogs, from the mean of z.
"""

import copy
import csv
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vae_helpers.config import folders, full_or_smoke
from vae_helpers.data import FACTORS, draw_dog, sample_factors
from vae_helpers.files import atomic_write
from vae_helpers.models import (
    VAE,
    Decoder,
    decode_latents,
    encode_images,
    kl_divergence,
    to_float,
    use_bfloat16,
)
from vae_helpers.training import (
    TrainingSettings,
    epoch_batches,
    fit,
    learning_rate_factor,
    make_batch,
    optimizer_step,
    update_ema,
)

TABLE = Path(__file__).parents[1] / "notebooks" / "blur.csv"
DOGS, HELD_OUT = full_or_smoke((3276, 328), (64, 16))
SHORT, MEDIUM, LONG = full_or_smoke((5, 8, 25), (1, 1, 1))  # epochs
MIRRORED = ("head_tilt", "head_turn", "place_x", "light")
BRIEF = {"epochs": SHORT, "ema_decay": 0.99}


def paint(dogs: list[dict]) -> Tensor:
    """Toy dogs, uint8 (N, 3, 56, 56)."""
    return torch.from_numpy(np.stack([np.array(draw_dog(dog, 56)) for dog in dogs])).permute(0, 3, 1, 2)


def trained(name: str, new: Callable[[], VAE], pixels: Tensor, **settings) -> VAE:
    """The VAE that `new` makes, trained with these settings; a run that was stopped goes on."""
    torch.manual_seed(0)
    vae = new()
    fit(vae, pixels[:-HELD_OUT], pixels[-HELD_OUT:], TrainingSettings(**settings), folders().models / "blur" / name)
    return vae


def told(dog: dict, mirrored: bool = False) -> list[float]:
    """All that there is to know about a dog, or its mirror image: 17 numbers of mean 0 and variance about 1."""
    numbers = []
    for name, span in FACTORS.items():
        if name == "patch":
            sides = [1.0 if dog[name] in (side, "both") else -1.0 for side in ("left", "right")]
            numbers += sides[::-1] if mirrored else sides
        elif name == "tongue":
            numbers.append(1.0 if dog[name] == "out" else -1.0)
        else:
            number = math.sqrt(12) * ((dog[name] - span[0]) / (span[1] - span[0]) - 0.5)
            numbers.append(-number if mirrored and name in MIRRORED else number)
    return numbers


def decoder_told_all(dogs: list[dict], pixels: Tensor) -> Tensor:
    """The decoder alone, trained as in `fit`, but given the factors instead of z: its pictures of the held-out dogs."""
    z, z_mirrored = (torch.tensor([told(dog, flip) for dog in dogs]) for flip in (False, True))
    torch.manual_seed(0)
    decoder, learn = Decoder(z.shape[1]).to(memory_format=torch.channels_last), pixels[:-HELD_OUT]
    average, optimizer = copy.deepcopy(decoder), torch.optim.Adam(decoder.parameters())
    settings, bf16, step = TrainingSettings(epochs=LONG), use_bfloat16(torch.device("cpu")), 0
    steps = settings.epochs * math.ceil(len(learn) / settings.batch_size)
    for epoch in range(1, settings.epochs + 1):
        for batch in epoch_batches(len(learn), settings, epoch, (1,)):
            known = torch.where(batch.flip[:, None], z_mirrored[batch.indices], z[batch.indices])
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                x_hat = decoder(known)
            loss = (x_hat - make_batch(batch, learn, torch.device("cpu"))).square().mean()
            optimizer.param_groups[0]["lr"] = settings.learning_rate * learning_rate_factor(step, steps)
            optimizer_step(loss, optimizer, decoder.parameters(), settings.max_grad_norm)
            update_ema(average, decoder, step, settings.ema_decay)
            step += 1
    with torch.no_grad():
        return average(z[-HELD_OUT:])


def errors(x_hat: Tensor, dogs: list[dict]) -> dict[str, float]:
    """The squared error and its parts, which add up to it; and how much of a tongue is drawn, from 0 to 1, where one is out
    and where none is."""
    x, no_eyes = to_float(paint(dogs)), to_float(paint([dog | {"eye_size": 0.001} for dog in dogs]))
    out, none = (to_float(paint([dog | {"tongue": word} for dog in dogs])) for word in ("out", "in"))
    eyes = (x - no_eyes).abs().amax(1) > 0.04
    across, down = (torch.nn.functional.pad(x.diff(dim=d).abs().amax(1), p) for d, p in ((3, (1, 1)), (2, (0, 0, 1, 1))))
    steep = torch.maximum(across[:, :, 1:], across[:, :, :-1]).maximum(torch.maximum(down[:, 1:], down[:, :-1])) > 0.25
    error, tongue = (x_hat - x).square().mean(1), out - none
    drawn = ((x_hat - none) * tongue).sum((1, 2, 3)) / tongue.square().sum((1, 2, 3))
    is_out = torch.tensor([dog["tongue"] == "out" for dog in dogs])
    places = {"eyes": eyes, "edges": steep & ~eyes, "elsewhere": ~(steep | eyes)}
    parts = {place: (error * mask).mean().item() for place, mask in places.items()}
    tongues = {"tongue_out": drawn[is_out].mean().item(), "tongue_in": drawn[~is_out].mean().item()}
    return {"error": error.mean().item()} | parts | tongues


def main(table: Path = TABLE) -> None:
    """Train, measure, and write one row for each training."""
    dogs = sample_factors(DOGS, seed=0)
    pixels = paint(dogs)
    default = trained("default", VAE, pixels, epochs=LONG)

    def again() -> VAE:
        return copy.deepcopy(default)

    vaes = {
        "5 epochs": trained("brief", VAE, pixels, **BRIEF),
        "5 epochs, a latent of 256": trained("latent256", lambda: VAE(256), pixels, **BRIEF),
        "5 epochs, a wider network": trained("wide", lambda: VAE(widths=(64, 96, 192)), pixels, **BRIEF),
        "25 epochs": default,
        "25 + 25 epochs": trained("longer", again, pixels, epochs=LONG),
        "25 + 8 epochs, the 8 calibrated": trained("calibrated", again, pixels, epochs=MEDIUM, calibrated=True),
    }
    rows = []
    for name, vae in vaes.items():
        mu, logvar = encode_images(vae, pixels[-HELD_OUT:])
        nats = kl_divergence(mu, logvar).mean().item()
        rows.append({"training": name, "nats": nats} | errors(decode_latents(vae, mu), dogs[-HELD_OUT:]))
    all_said = errors(decoder_told_all(dogs, pixels), dogs[-HELD_OUT:])
    rows.append({"training": "25 epochs, decoder only, told all", "nats": 0.0} | all_said)
    with atomic_write(table) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writeheader()
        writer.writerows({k: v if isinstance(v, str) else float(f"{v:.4g}") for k, v in row.items()} for row in rows)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
