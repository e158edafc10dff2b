"""Files that a run leaves in `outputs/`: reconstructions while training, and the figures of an evaluation."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .data import to_signed
from .files import written_whole
from .model import VAE
from .plots import image_rows, save_figure


def reconstruction_saver(pixels: Tensor, path: str | Path) -> Callable[[VAE, dict[str, float]], None]:
    """An `on_epoch` callback for `fit`: refreshes one picture, originals above reconstructions (from the mean).

    pixels: uint8 (B, 3, S, S), the same dogs each time; take them from validation.
    """

    def save(vae: VAE, record: dict[str, float]) -> None:
        x = to_signed(pixels, next(vae.parameters()).device)
        with torch.no_grad():
            rows = {"original": x, "reconstruction": vae.reconstruct(x)}
        save_figure(image_rows(rows, f"Validation dogs after epoch {record['epoch']}, reconstructed from the mean"), path)

    return save


def save_metrics(metrics: dict, path: str | Path) -> None:
    """Write figures as JSON, whole or not at all."""
    with written_whole(path) as partial:
        partial.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
