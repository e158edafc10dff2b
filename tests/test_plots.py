import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from tiny import random_pixels, tiny_vae

from vae_helpers.evaluation import reconstruction_saver
from vae_helpers.models import to_float
from vae_helpers.plots import (
    bars,
    curves,
    heat_map,
    histograms,
    image_grid,
    image_map,
    image_rows,
    loss_curve,
    paths,
    rate_distortion,
    save_figure,
    scatter_by_label,
)

PIXELS = random_pixels(6, image_size=8)
PARTS = ("train_loss", "train_recon", "train_kl", "validation_loss", "validation_recon", "validation_kl")
HISTORY = [{"epoch": epoch} | {name: i + 1 / epoch for i, name in enumerate(PARTS)} for epoch in (1, 2, 3)]
POINTS = {"beta 2": (3.0, 0.02), "calibrated": (5.0, 0.01), "beta 1": (1.0, 0.1)}

FIGURES = {
    "image_rows": lambda: image_rows({"a": PIXELS, "b": to_float(PIXELS)}, "A title"),
    "image_grid": lambda: image_grid(PIXELS, "A title", columns=4),
    "loss_curve": lambda: loss_curve(HISTORY, "A title"),
    "bars": lambda: bars(np.arange(5.0), "A title", "x", "y", line=2.0),
    "curves": lambda: curves(np.arange(5.0), {"a": np.arange(5.0), "b": np.ones(5)}, "A title", "x", "y"),
    "heat_map": lambda: heat_map(np.eye(3), "A title", ["a", "b", "c"], "x", "y"),
    "histograms": lambda: histograms({"a": np.arange(5.0), "b": np.arange(9.0)}, "A title", "x", line=2.0),
    "rate_distortion": lambda: rate_distortion(POINTS, np.array([[1.0, 0.2], [3.0, 0.1]]), "PCA", "A title"),
    "paths": lambda: paths({"a": torch.randn(3, 5, 2), "b": torch.randn(2, 5, 2)}, torch.randn(9, 2), "A title"),
    "scatter_by_label": lambda: scatter_by_label(np.eye(3)[:, :2], ["a", "others", "b"], "A title", size=3),
    "image_map": lambda: image_map(np.random.default_rng(0).normal(size=(6, 2)), PIXELS, "A title", size=3),
}


def picture(figure: Figure) -> np.ndarray:
    """The one picture that is shown in a figure, (height, width, 3) uint8."""
    return figure.axes[0].images[0].get_array().data


@pytest.mark.parametrize("name", FIGURES)
def test_a_plot_is_returned_with_its_title_and_left_nowhere_else(name):
    figure = FIGURES[name]()
    assert isinstance(figure, Figure) and plt.get_fignums() == []
    titles = [axes.get_title(loc="left") for axes in figure.axes] + [figure.get_suptitle()]
    assert "A title" in titles


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_becomes_a_png_and_nothing_else_is_left(tmp_path, name):
    save_figure(FIGURES[name](), tmp_path / "outputs" / "figure.png")
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["figure.png"]
    with Image.open(tmp_path / "outputs" / "figure.png") as image:
        assert image.format == "PNG" and np.asarray(image.convert("L")).std() > 0


def test_rows_show_the_pixels_of_their_images_bytes_or_signed():
    shown = picture(image_rows({"bytes": PIXELS, "signed": to_float(PIXELS[[5, 4, 3, 2, 1, 0]])}, "A title"))
    for row, order in enumerate((range(6), range(5, -1, -1))):
        for column, i in enumerate(order):
            tile = shown[10 * row : 10 * row + 8, 10 * column : 10 * column + 8]  # 8 pixels and a gap of 2
            assert np.array_equal(tile, PIXELS[i].permute(1, 2, 0))


def test_a_grid_goes_row_by_row_and_ends_in_white():
    shown = picture(image_grid(PIXELS, "A title", columns=4))
    assert shown.shape == (20, 40, 3)
    assert np.array_equal(shown[10:18, 10:18], PIXELS[5].permute(1, 2, 0))
    assert (shown[10:, 20:] == 255).all()


def test_a_loss_curve_shows_epochs_against_both_averages():
    for axes, name in zip(loss_curve(HISTORY).axes, ("loss", "recon", "kl"), strict=True):
        for line, part in zip(axes.lines, ("train", "validation"), strict=True):
            assert list(line.get_xdata()) == [1, 2, 3]
            assert list(line.get_ydata()) == [record[f"{part}_{name}"] for record in HISTORY]


def test_a_map_puts_images_where_their_coordinates_say():
    axes = image_map(np.array([[0.0, 5.0], [10.0, -5.0], [5.0, 0.0]]), PIXELS[:3], "A title").axes[0]
    for image, pixels, middle in zip(axes.images, PIXELS, [(0, 1), (1, 0), (0.5, 0.5)], strict=False):
        left, right, bottom, top = image.get_extent()
        assert ((left + right) / 2, (bottom + top) / 2) == pytest.approx(middle)
        assert np.array_equal(image.get_array(), pixels.permute(1, 2, 0))


def test_a_map_of_labels_has_a_colour_for_each_and_grey_for_the_others():
    places = np.arange(12.0).reshape(6, 2)
    axes = scatter_by_label(places, ["pug", "others", "beagle", "pug", "others", "beagle"], "title").axes[0]
    drawn = {dots.get_label(): (dots.get_offsets().tolist(), tuple(dots.get_facecolor()[0][:3])) for dots in axes.collections}
    assert {label: dots for label, (dots, _) in drawn.items()} == {
        "others": places[[1, 4]].tolist(),
        "beagle": places[[2, 5]].tolist(),
        "pug": places[[0, 3]].tolist(),
    }
    assert len({colour for _, colour in drawn.values()}) == 3 and len(set(drawn["others"][1])) == 1
    assert next(iter(drawn)) == "others", "the others lie below"


def test_curves_that_have_no_colour_left_are_not_dropped_in_silence():
    ys = {str(i): np.full(3, float(i)) for i in range(5)}
    assert len(curves(np.arange(3), ys, "A title", "x", "y").axes[0].lines) == 5


def test_the_picture_of_reconstructions_is_refreshed_after_every_epoch(tmp_path):
    path, pictures = tmp_path / "reconstructed.png", []
    save = reconstruction_saver(random_pixels(3), path)
    for epoch in (1, 2):
        save(tiny_vae(seed=epoch), {"epoch": epoch})
        with Image.open(path) as image:
            pictures.append(np.asarray(image.convert("RGB")))
    assert not np.array_equal(*pictures)
    assert [file.name for file in tmp_path.iterdir()] == ["reconstructed.png"]


def test_a_heat_map_of_shares_starts_at_white_and_one_of_signed_numbers_has_white_in_the_middle():
    for values, low in ((np.array([[0.0, 0.5]]), 0), (np.array([[-0.2, 0.5]]), -1)):
        figure = heat_map(values, "A title", ["row"], "x", "y", columns=["one", "two"])
        shown = figure.axes[0].images[0]
        assert shown.get_clim() == (low, 1)
        assert shown.cmap(shown.norm(0.0))[:3] == pytest.approx((0.97, 0.98, 1), abs=0.05)
        assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["one", "two"]
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["row"]


def test_the_betas_are_joined_in_the_order_of_their_rates_and_every_point_is_named():
    axes = rate_distortion(POINTS, np.array([[3.0, 0.1], [1.0, 0.2]]), "PCA", "A title").axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["one VAE for each beta"] == [[1.0, 0.1], [3.0, 0.02]]
    assert lines["PCA"] == [[1.0, 0.2], [3.0, 0.1]]
    assert [text.get_text() for text in axes.texts] == list(POINTS)


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
