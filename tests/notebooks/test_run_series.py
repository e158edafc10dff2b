"""What `run_series.py` does to a notebook, and says when there is none."""

import base64
import io

import nbformat
import numpy as np
import pytest
import run_series
from PIL import Image

ALT = {"alt": "sixteen dogs"}


def png(size: int = 64, colours: int = 256) -> str:
    """Noise of so many levels, as a notebook holds it: in base64, with a transparent edge as matplotlib makes it."""
    pixels = np.random.default_rng(0).integers(0, colours, (size, size, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return base64.b64encode(file.getvalue()).decode()


def notebook_of(*pictures: str) -> nbformat.NotebookNode:
    outputs = [nbformat.v4.new_output("display_data", {"image/png": p}, metadata={"image/png": dict(ALT)}) for p in pictures]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("draw()", outputs=outputs)])


def pixels_of(picture: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")).astype(int)


def test_pictures_keep_every_colour_and_their_alt_text_while_the_notebook_is_small():
    before = png()
    [output] = run_series.with_smaller_pictures(notebook_of(before)).cells[0].outputs
    assert (pixels_of(output.data["image/png"]) == pixels_of(before)).all()
    assert len(output.data["image/png"]) < len(before) and output.metadata["image/png"] == ALT


def test_of_a_notebook_that_is_too_large_the_largest_pictures_become_jpegs_with_the_same_alt_text():
    small, large = png(32), png(128)
    wanted = len(large)  # more than the small picture, less than both without loss
    notebook = run_series.with_smaller_pictures(notebook_of(small, large), limit=int(0.7 * wanted))
    first, second = notebook.cells[0].outputs
    assert list(first.data) == ["image/png"] and list(second.data) == ["image/jpeg"]
    assert second.metadata == {"image/jpeg": ALT} and pixels_of(second.data["image/jpeg"]).shape == (128, 128, 3)


def test_a_picture_that_is_smaller_as_png_stays_one():
    plain = png(64, colours=1)
    [output] = run_series.with_smaller_pictures(notebook_of(plain), limit=1).cells[0].outputs
    assert list(output.data) == ["image/png"]


@pytest.mark.parametrize("words", [["xyz"], ["--refresh", "01", "xyz"]])
def test_a_beginning_that_no_notebook_has_is_named_and_nothing_is_run(words):
    with pytest.raises(SystemExit, match="'xyz'; there are 01_data_split, 02_architecture"):
        run_series.main(words)
