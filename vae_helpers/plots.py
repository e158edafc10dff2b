"""Every picture the notebooks show. Functions take tensors and arrays, know no model, and return the figure.

Images are float (…, 3, S, S) in [-1, 1] or uint8. A notebook shows a returned figure as a cell's last line;
`save_figure` writes it to a file.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .files import atomic_write
from .models.inference import to_uint8

INK, ACCENT, SECOND = "#333333", "#3b6ea5", "#d1682f"
_COLOURS = (ACCENT, SECOND, "#5a9367", "#8a5fa8")
_GAP = 2  # pixels between images


def image_rows(rows: Mapping[str, Tensor], title: str, captions: Sequence[str] | None = None, scale: float = 1.6) -> Figure:
    """Rows of images, one label each, all of equal length. captions: one text under each column.

    rows: label -> (B, 3, S, S). scale: picture pixels per image pixel at 80 dpi.
    """
    tiled = [tile(images, columns=len(images)) for images in rows.values()]
    picture = np.concatenate(tiled)
    size = next(iter(rows.values())).shape[-1] + _GAP
    figure, axes = _picture_figure(picture, scale, title, left=1.2)
    axes.set_yticks([size * (i + 0.5) for i in range(len(rows))], list(rows), fontsize=9, color=INK)
    if captions:
        axes.set_xticks([size * (i + 0.5) for i in range(len(captions))], captions, fontsize=8, color=INK)
    return figure


def image_grid(images: Tensor, title: str, columns: int = 8, scale: float = 1.6) -> Figure:
    """A sheet of images (B, 3, S, S), row by row."""
    return _picture_figure(tile(images, columns), scale, title)[0]


def loss_curve(history: Sequence[Mapping[str, float]], title: str = "Loss falls with every epoch") -> Figure:
    """Epoch number against average loss per epoch, and its two terms beside it."""
    epochs = [record["epoch"] for record in history]
    figure, panels = plt.subplots(1, 3, figsize=(10.5, 3.2), dpi=80, layout="constrained")
    names = (("loss", "loss = recon + beta · kl"), ("recon", "recon (mean squared error)"), ("kl", "kl (nats per dog)"))
    for axes, (name, label) in zip(panels, names, strict=True):
        axes.plot(epochs, [r[f"train_{name}"] for r in history], "o-", ms=3, color=ACCENT, label="train (while learning)")
        held_out = [r[f"validation_{name}"] for r in history]
        axes.plot(epochs, held_out, "o-", ms=3, color=SECOND, label="validation (after each epoch)")
        axes.set_title(label, fontsize=10, loc="left", color=INK)
        axes.set_xlabel("epoch")
        _plain(axes)
    panels[0].legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=12, color=INK)
    plt.close(figure)
    return figure


def bars(
    values: np.ndarray, title: str, x_label: str, y_label: str, line: float | None = None, names: Sequence[str] = ()
) -> Figure:
    """One bar for each value, in the order given. line: height of a dashed line to compare with. names: one below each bar."""
    figure, axes = plt.subplots(figsize=(8, 2.8), dpi=80, layout="constrained")
    axes.bar(range(len(values)), values, width=0.9, color=ACCENT)
    if line is not None:
        axes.axhline(line, color=SECOND, ls="--", lw=1)
    if names:
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=8, color=INK)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.set_title(title, fontsize=12, loc="left", color=INK)
    _plain(axes)
    plt.close(figure)
    return figure


def heat_map(
    values: np.ndarray,
    title: str,
    names: Sequence[str],
    x_label: str,
    y_label: str,
    columns: Sequence[str] | None = None,
    full: float = 1.0,
) -> Figure:
    """A table of numbers as colours: white at 0, full colour at `full`, and at -full another when any is negative.

    values: (K, L), rows from the top. names: of the rows; columns: of the columns, the same names when left out.
    """
    columns = names if columns is None else columns
    width, height = (0.3 * max(len(labels), 8) for labels in (columns, names))
    figure, axes = plt.subplots(figsize=(2.4 + width, 1.6 + height), dpi=80, layout="constrained")
    signed = values.min() < 0
    shown = axes.imshow(values, cmap="RdBu" if signed else "Blues", vmin=-full if signed else 0, vmax=full)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", fontsize=8, color=INK)
    axes.set_yticks(range(len(names)), names, fontsize=8, color=INK)
    axes.set(xlabel=x_label, ylabel=y_label)
    figure.colorbar(shown, shrink=0.7)
    figure.suptitle(title, fontsize=12, color=INK)
    plt.close(figure)
    return figure


def histograms(values: Mapping[str, np.ndarray], title: str, x_label: str, line: float | None = None) -> Figure:
    """Several sets of numbers over one axis, a label each. line: place of a dashed line to compare with."""
    figure, axes = plt.subplots(figsize=(8, 2.8), dpi=80, layout="constrained")
    bins = np.linspace(*np.quantile(np.concatenate(list(values.values())), [0.002, 0.998]), 40)
    for (label, numbers), colour in zip(values.items(), cycle(_COLOURS), strict=False):
        axes.hist(numbers, bins, density=True, alpha=0.6, color=colour, label=label)
    if line is not None:
        axes.axvline(line, color=INK, ls="--", lw=1)
    axes.set(xlabel=x_label, yticks=[])
    axes.set_title(title, fontsize=12, loc="left", color=INK)
    axes.legend(fontsize=8, frameon=False)
    _plain(axes)
    plt.close(figure)
    return figure


def rate_distortion(points: Mapping[str, tuple[float, float]], baseline: np.ndarray, baseline_name: str, title: str) -> Figure:
    """The rate-distortion plane, both axes logarithmic: what a model pays (KL, nats an image) and what error is left for it.

    points: label -> (rate, distortion); those called "beta ..." are joined in the order of their rates. baseline: (N, 2), a
    curve to compare with. Alemi et al. 2018.
    """
    figure, axes = plt.subplots(figsize=(8, 5), dpi=80, layout="constrained")
    axes.plot(*baseline[baseline[:, 0].argsort()].T, "s--", ms=3, color="#999999", label=baseline_name)
    betas = sorted(place for label, place in points.items() if label.startswith("beta"))
    axes.plot(*zip(*betas, strict=True), "-", color=ACCENT, lw=1, label="one VAE for each beta")
    for label, (rate, distortion) in points.items():
        joined = label.startswith("beta")
        axes.plot(rate, distortion, "o", color=ACCENT if joined else SECOND)
        crowd = sum(rate / 2.1 < other < rate for other, _ in betas)  # labels would cover each other
        offset, align = ((-7, -9 - 8 * crowd), "right") if joined else ((7, 5), "left")
        axes.annotate(label, (rate, distortion), offset, textcoords="offset points", fontsize=8, ha=align, color=INK)
    axes.set(xscale="log", yscale="log", xlabel="rate: KL in nats an image", ylabel="distortion: squared error, z sampled")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.margins(0.15, 0.1)
    axes.set_title(title, fontsize=12, loc="left", color=INK)
    axes.legend(fontsize=8, frameon=False)
    _plain(axes)
    plt.close(figure)
    return figure


def curves(x: np.ndarray, ys: Mapping[str, np.ndarray], title: str, x_label: str, y_label: str) -> Figure:
    """Lines over a shared axis, one label each."""
    figure, axes = plt.subplots(figsize=(8, 3), dpi=80, layout="constrained")
    for (label, y), colour in zip(ys.items(), cycle(_COLOURS), strict=False):
        axes.plot(x, y, label=label, color=colour)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.set_title(title, fontsize=12, loc="left", color=INK)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    _plain(axes)
    plt.close(figure)
    return figure


def paths(ways: Mapping[str, Tensor], goal: Tensor, title: str) -> Figure:
    """Points on their way in the plane, a panel each. ways: label -> (steps + 1, N, 2), start first; goal: (M, 2) points."""
    figure, panels = plt.subplots(1, len(ways), figsize=(4 * len(ways), 3.8), dpi=80, layout="constrained", squeeze=False)
    for axes, (label, way) in zip(panels[0], ways.items(), strict=True):
        axes.scatter(*goal.T, s=1, color="#dddddd", label="real points")
        axes.plot(*way.permute(2, 0, 1), color=ACCENT, lw=0.4, alpha=0.4)
        axes.scatter(*way[0].T, s=5, color="#999999", label="start")
        axes.scatter(*way[-1].T, s=5, color=SECOND, label="end")
        axes.set(title=label, xticks=[], yticks=[], aspect="equal")
    panels[0, 0].legend(fontsize=8, frameon=False, loc="upper left")
    figure.suptitle(title, fontsize=12, color=INK)
    plt.close(figure)
    return figure


def image_map(coordinates: np.ndarray, images: Tensor, title: str, size: float = 7.0) -> Figure:
    """Images drawn where their two coordinates put them. coordinates: (B, 2); size: of the map, in inches."""
    figure, axes = plt.subplots(figsize=(size, size), dpi=80, layout="constrained")
    low, high = coordinates.min(0), coordinates.max(0)
    place = (coordinates - low) / np.maximum(high - low, 1e-9)
    half = 0.028
    for (x, y), image in zip(place, _hwc(images), strict=True):
        axes.imshow(image, extent=(x - half, x + half, y - half, y + half), interpolation="antialiased")
    axes.set(xlim=(-2 * half, 1 + 2 * half), ylim=(-2 * half, 1 + 2 * half), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=12, loc="left", color=INK)
    plt.close(figure)
    return figure


def scatter_by_label(coordinates: np.ndarray, labels: Sequence[str], title: str, size: float = 6.0) -> Figure:
    """A dot for each image where its two coordinates put it, a colour for each label; "others" are grey and lie below.

    coordinates: (B, 2); labels: B words; size: of the map, in inches.
    """
    figure, axes = plt.subplots(figsize=(size * 1.35, size), dpi=80, layout="constrained")
    words = np.asarray(labels)
    for i, label in enumerate(sorted(set(labels), key=lambda label: (label != "others", label))):
        colour = "#cccccc" if label == "others" else plt.get_cmap("tab10")(i % 10)
        axes.scatter(*coordinates[words == label].T, s=8 if label == "others" else 22, color=colour, label=label)
    axes.set(xticks=[], yticks=[])
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_title(title, fontsize=12, loc="left", color=INK)
    plt.close(figure)
    return figure


def tile(images: Tensor, columns: int, gap: int = _GAP) -> np.ndarray:
    """Images side by side on white, with a gap after each: (rows · (S + gap), columns · (S + gap), 3) uint8."""
    pixels = _hwc(images)
    n, height, width, _ = pixels.shape
    rows = -(-n // columns)
    sheet = np.full((rows, columns, height + gap, width + gap, 3), 255, dtype=np.uint8)
    for i, image in enumerate(pixels):
        sheet[i // columns, i % columns, :height, :width] = image
    return sheet.transpose(0, 2, 1, 3, 4).reshape(rows * (height + gap), columns * (width + gap), 3)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png", dpi=110, bbox_inches="tight", facecolor="white")


def _hwc(images: Tensor) -> np.ndarray:
    images = images if images.dtype == torch.uint8 else to_uint8(images)
    return images.cpu().permute(0, 2, 3, 1).numpy()


def _picture_figure(picture: np.ndarray, scale: float, title: str, left: float = 0.05) -> tuple[Figure, plt.Axes]:
    height, width = picture.shape[0] * scale / 80, picture.shape[1] * scale / 80
    figure = plt.figure(figsize=(width + left + 0.05, height + 0.65), dpi=80)
    total_w, total_h = figure.get_size_inches()
    axes = figure.add_axes((left / total_w, 0.3 / total_h, width / total_w, height / total_h))
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=12, loc="left", color=INK)
    plt.close(figure)
    return figure, axes


def _plain(axes: plt.Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
