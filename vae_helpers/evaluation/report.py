"""Files that a run leaves in `outputs/`: reconstructions while training, figures, and an evaluation as one page."""

import base64
import html
import io
import json
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..files import atomic_write
from ..models.inference import to_float
from ..models.vae import VAE
from ..plots import image_rows, save_figure
from .evaluation import Evaluation


def reconstruction_saver(pixels: Tensor, path: str | Path) -> Callable[[VAE, dict[str, float]], None]:
    """An `on_epoch` callback for `fit`: refreshes one picture, originals above reconstructions (from the mean).

    pixels: uint8 (B, 3, S, S), the same dogs each time; take them from validation.
    """

    def save(vae: VAE, record: dict[str, float]) -> None:
        x = to_float(pixels, next(vae.parameters()).device)
        with torch.no_grad():
            rows = {"original": x, "reconstruction": vae.reconstruct(x)}
        save_figure(image_rows(rows, f"Validation dogs after epoch {record['epoch']}, reconstructed from the mean"), path)

    return save


def save_metrics(metrics: dict, path: str | Path) -> None:
    """Write figures as JSON, whole or not at all."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def write_report(evaluation: Evaluation, folder: str | Path, title: str = "What this model does") -> None:
    """Write `folder`/report.html, one file with its pictures inside, and `folder`/metrics.json."""
    e = html.escape
    body = [f"<h1>{e(title)}</h1><ul>", *(f"<li>{e(s.verdict)}</li>" for s in evaluation.sections), "</ul>"]
    for s in evaluation.sections:
        body += [f"<h2>{e(s.title)}</h2><p><b>{e(s.verdict)}</b> {e(s.text)}</p>"]
        if s.table:
            head, *rows = s.table
            lines = ["".join(f"<th>{e(cell)}</th>" for cell in head)]
            lines += ["".join(f"<td>{e(cell)}</td>" for cell in row) for row in rows]
            body += ["<table>", *(f"<tr>{line}</tr>" for line in lines), "</table>"]
        body += [f'<img alt="{e(s.title)}" src="data:image/png;base64,{_png(figure)}">' for figure in s.figures]
    m = evaluation.metrics
    measured = (
        f"Measured on {m['n_images']} pictures ({m['images']}) of {m['image_size']} x {m['image_size']}, seed {m['seed']}."
    )
    page = _PAGE.format(title=e(title), body="\n".join(body), measured=e(measured))
    with atomic_write(Path(folder) / "report.html") as partial:
        partial.write_text(page, encoding="utf-8")
    save_metrics(m, Path(folder) / "metrics.json")


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #333; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
img {{ max-width: 100%; display: block; margin: 1rem 0 }} table {{ border-collapse: collapse; margin: 1rem 0 }}
th, td {{ text-align: left; padding: 0.2rem 1rem 0.2rem 0; border-bottom: 1px solid #ddd }}
</style><body>{body}<p>{measured}</p></body></html>
"""


def _png(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100, bbox_inches="tight", facecolor="white")
    return base64.b64encode(file.getvalue()).decode()
