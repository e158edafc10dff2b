"""An evaluation as a page of sentences, tables and pictures, and the files that runs leave in `outputs/`."""

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import torch
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure
from torch import Tensor

from ..files import write_file
from ..models.inference import to_float
from ..models.vae import BaseVAE
from ..plots import bars, figure_bytes, histograms, image_grid, image_rows, save_figure
from .evaluation import Evaluation


def write_report(evaluation: Evaluation, folder: str | Path, title: str = "What this model does") -> list[str]:
    """Write `folder`/report.html, one file with its pictures inside, and `folder`/metrics.json.

    The words are in the template report.html beside this file. Returns the page's summary, a sentence for each part.
    """
    template = Environment(loader=PackageLoader("vae_helpers.evaluation", "."), autoescape=True).get_template("report.html")
    pictures = {name: b64encode(figure_bytes(figure, dpi=100)).decode() for name, figure in report_figures(evaluation).items()}
    page = template.make_module({"m": evaluation.metrics, "pictures": pictures, "title": title})
    write_file(Path(folder) / "report.html", str(page).strip() + "\n")
    write_file(Path(folder) / "metrics.json", json.dumps(evaluation.metrics, indent=2) + "\n")
    return [" ".join(verdict.unescape().split()) for verdict in page.verdicts]


def report_figures(evaluation: Evaluation) -> dict[str, Figure]:
    """The pictures of the report, by the names that the template calls them."""
    shown, gap = evaluation.pictures, evaluation.gap
    reconstructions = {"original": shown["original"], "this model": shown["vae"], "PCA": shown["pca"]}
    closest = {"new dog": shown["closest_samples"], "closest train dog": shown["closest_train"]}
    kl = sorted(evaluation.held_out.kl_per_dim, reverse=True)
    distances = {"latents of test dogs": gap.distance, "draws from N(0, I)": gap.prior_distance}
    how_far = "Draws from N(0, I) and test dogs: how far from a training dog?"
    return {
        "reconstructions": image_rows(reconstructions, "Dogs it has never seen, and their reconstructions"),
        "kl": bars(kl, "KL of each latent number, largest first", "latent number, sorted", "KL (nats a dog)"),
        "distances": histograms(distances, how_far, "distance in the latent space"),
        "samples": image_grid(shown["samples"], "New dogs: draws from N(0, I), not picked", columns=16, scale=1.2),
        "closest": image_rows(closest, "New dogs that are closest to a training dog, pixel by pixel"),
    }


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
