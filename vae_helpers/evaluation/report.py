"""An evaluation as a page of sentences, tables and pictures, and the files that runs leave in `outputs/`."""

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import torch
from jinja2 import Environment, PackageLoader
from torch import Tensor

from ..files import write_file
from ..models.inference import to_float
from ..models.vae import BaseVAE
from ..plots import figure_bytes, image_grid, image_rows, save_figure
from .evaluation import Evaluation


def write_report(evaluation: Evaluation, folder: str | Path, title: str = "What this model does") -> list[str]:
    """Write `folder`/report.html, one file with its pictures inside, and `folder`/metrics.json.

    The words are in the template report.html beside this file. Returns the page's summary, a sentence for each part.
    """
    template = Environment(loader=PackageLoader("vae_helpers.evaluation", "."), autoescape=True).get_template("report.html")
    shown = evaluation.pictures
    figures = {
        "reconstructions": image_rows(shown["reconstructions"], "Dogs it has never seen, and their reconstructions"),
        "samples": image_grid(*shown["samples"].values(), "New dogs: draws from N(0, I), not picked", columns=16, scale=1.2),
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
