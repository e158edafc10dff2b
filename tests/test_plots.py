import base64
import io
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2xyz, xyz2lab
from skimage.color.colorconv import xyz_from_rgb
from tiny import random_pixels

from vae_helpers.models import to_float
from vae_helpers.plots import (
    bars,
    curves,
    heat_map,
    histograms,
    image_grid,
    image_rows,
    loss_curve,
    paths,
    save_figure,
    show,
)

PIXELS = random_pixels(6, image_size=8)
PARTS = ("train_loss", "train_recon", "train_kl", "validation_loss", "validation_recon", "validation_kl")
HISTORY = [{"epoch": epoch} | {name: i + 1 / epoch for i, name in enumerate(PARTS)} for epoch in (1, 2, 3)]
BROKEN = r"$\frac{a}$"  # a name that a folder may have, and no formula

FIGURES = {
    "image_rows": lambda title, name: image_rows({name: PIXELS, "b": to_float(PIXELS)}, title, [name] * 6),
    "image_grid": lambda title, name: image_grid(PIXELS, title, columns=4),
    "loss_curve": lambda title, name: loss_curve(HISTORY, title),
    "bars": lambda title, name: bars(np.arange(5.0), title, "x", "y", line=2.0, names=[name] * 5),
    "curves": lambda title, name: curves(np.arange(5.0), {name: np.arange(5.0), "b": np.ones(5)}, title, "x", "y"),
    "heat_map": lambda title, name: heat_map(np.eye(3), title, [name, "b", "c"], "x", "y"),
    "histograms": lambda title, name: histograms({name: np.arange(5.0), "b": np.arange(9.0)}, title, "x"),
    "paths": lambda title, name: paths({name: torch.randn(3, 5, 2), "b": torch.randn(2, 5, 2)}, torch.randn(9, 2), title),
}

FOUR = {name: np.arange(5.0) for name in "abcd"}
SERIES = {
    "curves": lambda: curves(np.arange(5.0), FOUR, "", "x", "y"),
    "histograms": lambda: histograms(FOUR, "", "x"),
    "paths": lambda: FIGURES["paths"]("", "a"),
}
COLOUR_VISION = {  # of linear red, green and blue: Machado, Oliveira & Fernandes 2009, severity 1
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def picture(figure: Figure) -> np.ndarray:
    """The one picture that is shown in a figure, (height, width, 3) uint8."""
    return figure.axes[0].images[0].get_array().data


@pytest.mark.parametrize("name", FIGURES)
def test_a_plot_is_returned_with_its_title_and_left_nowhere_else(name):
    figure = FIGURES[name]("A title", "a name")
    assert isinstance(figure, Figure) and plt.get_fignums() == []
    titles = [axes.get_title(loc="left") for axes in figure.axes] + [figure.get_suptitle()]
    assert "A title" in titles


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_becomes_a_png_and_nothing_else_is_left_whatever_the_data_is_called(tmp_path, name):
    figure = FIGURES[name](BROKEN, BROKEN)
    save_figure(figure, tmp_path / "outputs" / "figure.png")
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["figure.png"]
    with Image.open(tmp_path / "outputs" / "figure.png") as image:
        assert image.format == "PNG" and np.asarray(image.convert("L")).std() > 0
    assert BROKEN in [text.get_text() for text in figure.findobj(Text)]


def test_rows_show_the_pixels_of_their_images_bytes_or_signed():
    shown = picture(image_rows({"bytes": PIXELS, "signed": to_float(PIXELS[[5, 4, 3, 2, 1, 0]])}, "A title"))
    for row, order in enumerate((range(6), range(5, -1, -1))):
        for column, i in enumerate(order):
            tile = shown[10 * row + 2 : 10 * row + 10, 10 * column + 2 : 10 * column + 10]  # 8 pixels after a gap of 2
            assert np.array_equal(tile, PIXELS[i].permute(1, 2, 0))


@pytest.mark.parametrize("n_rows", [1, 4])
def test_labels_stand_in_the_middle_of_their_row_and_captions_of_their_column(n_rows):
    axes = image_rows({str(i): PIXELS[:2] for i in range(n_rows)}, "A title", ["left", "right"]).axes[0]
    assert [(label.get_text(), at) for label, at in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)] == [
        ("left", 6),
        ("right", 16),
    ]
    assert axes.get_yticks().tolist() == [6, 16, 26, 36][:n_rows]


def test_a_shorter_row_ends_in_white():
    shown = picture(image_rows({"six": PIXELS, "five": PIXELS[:5], "signed": to_float(PIXELS[:1])}, "A title"))
    assert shown.shape == (32, 62, 3) and np.array_equal(shown[12:20, 42:50], PIXELS[4].permute(1, 2, 0))
    assert (shown[12:20, 50:] == 255).all() and (shown[22:, 10:] == 255).all()


def test_a_grid_goes_row_by_row_and_ends_in_white():
    shown = picture(image_grid(PIXELS, "A title", columns=4))
    assert shown.shape == (22, 42, 3)
    assert np.array_equal(shown[12:20, 12:20], PIXELS[5].permute(1, 2, 0))
    assert (shown[12:, 22:] == 255).all()


def test_a_loss_curve_shows_epochs_against_both_averages():
    for axes, name in zip(loss_curve(HISTORY).axes, ("loss", "recon", "kl"), strict=True):
        for line, part in zip(axes.lines, ("train", "validation"), strict=True):
            assert list(line.get_xdata()) == [1, 2, 3]
            assert list(line.get_ydata()) == [record[f"{part}_{name}"] for record in HISTORY]


def test_curves_that_have_no_colour_left_are_not_dropped_in_silence():
    ys = {str(i): np.full(3, float(i)) for i in range(5)}
    assert len(curves(np.arange(3), ys, "A title", "x", "y").axes[0].lines) == 5


def test_a_heat_map_of_shares_starts_at_white_and_one_of_signed_numbers_has_white_in_the_middle():
    for values, limits in ((np.array([[0.0, 0.5]]), (0, 0.5)), (np.array([[-0.8, 0.5]]), (-0.8, 0.8))):
        figure = heat_map(values, "A title", ["row"], "x", "y", columns=["one", "two"])
        shown = figure.axes[0].images[0]
        assert shown.get_clim() == limits
        assert shown.cmap(shown.norm(0.0))[:3] == pytest.approx((0.97, 0.98, 1), abs=0.05)
        assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["one", "two"]
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["row"]


def test_histograms_share_their_bins_whatever_each_holds():
    figure = histograms({"near": np.linspace(0, 1, 100), "far": np.linspace(5, 6, 100)}, "A title", "x")
    edges = sorted({round(bar.get_x(), 6) for bar in figure.axes[0].patches})
    assert len(edges) == 39 and edges[0] == pytest.approx(0, abs=0.1) and edges[-1] < 6


def test_every_point_has_a_line_from_its_start_to_its_end():
    way = torch.randn(4, 5, 2)
    axes = paths({"four places": way}, torch.randn(9, 2), "A title").axes[0]
    assert len(axes.lines) == 5
    for i, line in enumerate(axes.lines):
        np.testing.assert_allclose(line.get_xydata(), way[:, i])
    goal, start, end = (np.asarray(dots.get_offsets()) for dots in axes.collections)
    assert len(goal) == 9
    np.testing.assert_allclose(start, way[0])
    np.testing.assert_allclose(end, way[-1])


KINDS = {"image_grid": "jpeg", "image_rows": "jpeg", "heat_map": "png", "bars": "png"}


@pytest.mark.parametrize("name", KINDS)
def test_a_figure_is_shown_with_its_description_images_as_jpeg_and_plots_as_png(tmp_path, name):
    InteractiveShell.instance(ipython_dir=str(tmp_path))
    try:
        with capture_output() as captured:
            show(FIGURES[name]("A title", "a name"), "Six dogs in a row")
    finally:
        InteractiveShell.clear_instance()
    (output,) = captured.outputs
    assert output.metadata == {f"image/{KINDS[name]}": {"alt": "Six dogs in a row"}}
    content = base64.b64decode(output.data[f"image/{KINDS[name]}"])
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == KINDS[name].upper() and np.asarray(image.convert("L")).std() > 0


def colours_drawn(axes: plt.Axes) -> np.ndarray:
    """The different colours of lines, points and bars, as they look on white, (N, 3)."""
    rgba = [to_rgba(line.get_color(), line.get_alpha()) for line in axes.lines]
    rgba += [patch.get_facecolor() for patch in axes.patches]
    rgba += [colour for points in axes.collections for colour in points.get_facecolor()]
    colour, alpha = np.split(np.unique(rgba, axis=0), [3], axis=1)
    return alpha * colour + 1 - alpha


@pytest.mark.parametrize("vision", COLOUR_VISION)
@pytest.mark.parametrize("name", SERIES)
def test_colours_that_appear_together_are_told_apart_by_colour_blind_readers(name, vision):
    colours = colours_drawn(SERIES[name]().axes[0])
    assert len(colours) == 4
    linear = rgb2xyz(colours) @ np.linalg.inv(xyz_from_rgb).T @ np.array(COLOUR_VISION[vision]).T
    seen = xyz2lab(linear.clip(0, 1) @ xyz_from_rgb.T)
    assert min(deltaE_ciede2000(a, b) for a, b in combinations(seen, 2)) > 10  # 1 is just noticed
