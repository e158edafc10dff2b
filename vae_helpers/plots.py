"""Every picture that more than one notebook shows. Functions take tensors and arrays, know no model, and return the figure.

Images are float (…, 3, S, S) in [-1, 1] or uint8. A notebook shows a returned figure as a cell's last line, or with
`show`, which adds a description; `save_figure` writes it to a file. Words that come with the data are shown as they are:
a `$` in them begins no formula.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.utils import make_grid

from .files import write_file
from .models.inference import to_uint8

INK, ACCENT, SECOND, GREY = "#333333", "#3b6ea5", "#d1682f", "#999999"
_COLOURS = (ACCENT, SECOND, "#21a695", INK)  # told apart by colour-blind readers, too
_GAP = 2  # pixels between images
_TEXT = {"color": INK, "parse_math": False}


def image_rows(rows: Mapping[str, Tensor], title: str, captions: Sequence[str] = (), scale: float = 1.6) -> Figure:
    """Rows of images, one label each; a shorter one ends in white. captions: one text under each column.

    rows: label -> (B, 3, S, S). scale: picture pixels per image pixel at 80 dpi.
    """
    images = pad_sequence([as_uint8(row) for row in rows.values()], batch_first=True, padding_value=255)
    figure, axes = _sheet_figure(image_sheet(images.flatten(0, 1), images.shape[1]), scale, title, left=1.2)
    places = (images.shape[-1] + _GAP) * (np.arange(max(images.shape[:2])) + 0.5) + _GAP / 2
    axes.set_yticks(places[: len(rows)], list(rows), fontsize=9, **_TEXT)
    axes.set_xticks(places[: len(captions)], captions, fontsize=8, **_TEXT)
    return figure


def image_grid(images: Tensor, title: str, columns: int = 8, scale: float = 1.6) -> Figure:
    """A sheet of images (B, 3, S, S), row by row."""
    return _sheet_figure(image_sheet(images, columns), scale, title)[0]


def loss_curve(history: Sequence[Mapping[str, float]], title: str = "Loss falls with every epoch") -> Figure:
    """Epoch number against average loss per epoch, and its two terms beside it."""
    figure, panels = plt.subplots(1, 3, figsize=(10.5, 3.2), dpi=80, layout="constrained")
    plt.close(figure)
    parts = {"train": "train (while learning)", "validation": "validation (after each epoch)"}
    terms = {"loss": "loss = recon + beta · kl", "recon": "recon (mean squared error)", "kl": "kl (nats per dog)"}
    for axes, (term, about) in zip(panels, terms.items(), strict=True):
        _dress(axes, about, "epoch", fontsize=10)
        y = [[record[f"{part}_{term}"] for part in parts] for record in history]
        axes.plot([record["epoch"] for record in history], y, "o-", ms=3, label=list(parts.values()))
    _legend(panels[0])
    figure.suptitle(title, fontsize=12, **_TEXT)
    return figure


def bars(
    values: Sequence[float], title: str, x_label: str, y_label: str, line: float | None = None, names: Sequence[str] = ()
) -> Figure:
    """One bar for each value, in the order given. line: height of a dashed line to compare with. names: one below each bar."""
    figure, axes = _axes(title, x_label, y_label)
    axes.bar(range(len(values)), values, width=0.9, color=ACCENT)
    if line is not None:
        axes.axhline(line, color=SECOND, ls="--", lw=1)
    if names:
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=8, **_TEXT)
    return figure


def heat_map(
    values: np.ndarray, title: str, names: Sequence[str], x_label: str, y_label: str, columns: Sequence[str] = ()
) -> Figure:
    """A table of numbers as colours: white at 0, full colour at the largest, and another below 0 when any is negative.

    values: (K, L), rows from the top. names: of the rows; columns: of the columns, the same when left out.
    """
    columns = columns or names
    figure, axes = _axes(title, x_label, y_label, (2.4 + 0.3 * max(len(columns), 8), 1.6 + 0.3 * max(len(names), 8)))
    signed, full = values.min() < 0, max(abs(values).max(), 0.01)
    shown = axes.imshow(values, cmap="RdBu" if signed else "Blues", vmin=-full if signed else 0, vmax=full)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", fontsize=8, **_TEXT)
    axes.set_yticks(range(len(names)), names, fontsize=8, **_TEXT)
    axes.grid(False)
    figure.colorbar(shown, shrink=0.7)
    return figure


def histograms(values: Mapping[str, np.ndarray], title: str, x_label: str) -> Figure:
    """Several sets of numbers over one axis, a label each."""
    figure, axes = _axes(title, x_label)
    bins = np.linspace(*np.quantile(np.concatenate(list(values.values())), [0.002, 0.998]), 40)
    for label, numbers in values.items():
        axes.hist(numbers, bins, density=True, alpha=0.6, label=label)
    axes.set_yticks([])
    _legend(axes)
    return figure


def curves(x: np.ndarray, ys: Mapping[str, np.ndarray], title: str, x_label: str, y_label: str) -> Figure:
    """Lines over a shared axis, one label each."""
    figure, axes = _axes(title, x_label, y_label, (8, 3))
    axes.plot(x, np.stack(list(ys.values()), axis=1), label=list(ys))
    _legend(axes, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def paths(ways: Mapping[str, Tensor], goal: Tensor, title: str) -> Figure:
    """Points on their way in the plane, a panel each. ways: label -> (steps + 1, N, 2), start first; goal: (M, 2) points."""
    figure, panels = plt.subplots(1, len(ways), figsize=(4 * len(ways), 3.8), dpi=80, layout="constrained", squeeze=False)
    plt.close(figure)
    for axes, (label, way) in zip(panels[0], ways.items(), strict=True):
        axes.scatter(*goal.T, s=1, color="#dddddd", label="real points")
        axes.plot(*way.permute(2, 0, 1), color=ACCENT, lw=0.4, alpha=0.4)
        axes.scatter(*way[0].T, s=5, color=GREY, label="start")
        axes.scatter(*way[-1].T, s=5, color=SECOND, label="end")
        axes.set(xticks=[], yticks=[], aspect="equal")
        axes.set_title(label, **_TEXT)
    _legend(panels[0, 0])
    figure.suptitle(title, fontsize=12, **_TEXT)
    return figure


def image_sheet(images: Tensor, columns: int) -> Tensor:
    """Images (B, 3, S, S) side by side on white: one image, uint8 (3, H, W)."""
    return make_grid(as_uint8(images), nrow=min(columns, len(images)), padding=_GAP, pad_value=255)


def as_uint8(images: Tensor) -> Tensor:
    """Images in either form as uint8 on the CPU."""
    return images.cpu() if images.dtype == torch.uint8 else to_uint8(images)


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook. alt: what it shows, in a sentence, for readers who do not see it.

    Figures that show colour images become JPEG of quality 92, all others PNG. The sentence is kept in the output's
    metadata, under the picture's type and "alt".
    """
    from IPython.display import Image, display  # not needed outside notebooks

    images = any(image.get_array().ndim == 3 for axes in figure.axes for image in axes.images)
    kind, options = ("jpeg", {"pil_kwargs": {"quality": 92, "subsampling": 0}}) if images else ("png", {})
    display(Image(figure_bytes(figure, kind, **options), format=kind, alt=alt))


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    write_file(path, figure_bytes(figure, dpi=110))


def figure_bytes(figure: Figure, kind: str = "png", **options) -> bytes:
    """A figure as a file of that kind. options: of Matplotlib's `savefig`."""
    file = io.BytesIO()
    figure.savefig(file, format=kind, bbox_inches="tight", facecolor="white", **options)
    return file.getvalue()


def _sheet_figure(sheet: Tensor, scale: float, title: str, left: float = 0.05) -> tuple[Figure, plt.Axes]:
    """A figure around one image in which each of its pixels has `scale` pixels; left: inches beside it for labels."""
    height, width = (pixels * scale / 80 for pixels in sheet.shape[1:])
    figure = plt.figure(figsize=(width + left + 0.05, height + 0.65), dpi=80)
    plt.close(figure)
    total_width, total_height = figure.get_size_inches()
    axes = figure.add_axes((left / total_width, 0.3 / total_height, width / total_width, height / total_height))
    axes.imshow(sheet.permute(1, 2, 0).numpy(), interpolation="nearest", aspect="auto")
    axes.set(xticks=[], yticks=[], frame_on=False)
    axes.tick_params(length=0)
    axes.set_title(title, fontsize=12, loc="left", **_TEXT)
    return figure, axes


def _axes(title: str, x_label: str = "", y_label: str = "", size: tuple[float, float] = (8, 2.8)) -> tuple[Figure, plt.Axes]:
    figure, axes = plt.subplots(figsize=size, dpi=80, layout="constrained")
    plt.close(figure)  # returned to be shown once, and not at the end of the cell as well
    _dress(axes, title, x_label, y_label)
    return figure, axes


def _dress(axes: plt.Axes, title: str, x_label: str, y_label: str = "", fontsize: int = 12) -> None:
    axes.set_title(title, fontsize=fontsize, loc="left", **_TEXT)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.set_prop_cycle(color=_COLOURS)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _legend(axes: plt.Axes, **where) -> None:
    for text in axes.legend(fontsize=8, frameon=False, **where).get_texts():
        text.set_parse_math(False)
