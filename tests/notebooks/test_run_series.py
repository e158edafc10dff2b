"""What `run_series.py` does to a notebook, and says when there is none."""

import base64
import io
import sys

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


def test_where_that_is_not_enough_pictures_that_are_jpegs_keep_their_colours_at_half_the_resolution():
    before = run_series.encoded(png(128), format="JPEG", quality=92, subsampling=0)
    output = nbformat.v4.new_output("display_data", {"image/jpeg": before}, metadata={"image/jpeg": dict(ALT)})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("show()", outputs=[output])])
    [output] = run_series.with_smaller_pictures(notebook, limit=len(before)).cells[0].outputs
    assert len(output.data["image/jpeg"]) < 0.8 * len(before) and output.metadata == {"image/jpeg": ALT}


def test_on_the_page_of_a_notebook_every_picture_has_its_alt_text():
    page = run_series.page_of(notebook_of(png(), png(32)), "dogs")
    assert page.count('alt="sixteen dogs"') == 2 and "No description" not in page and "<title>dogs</title>" in page


def test_a_picture_that_is_smaller_as_png_stays_one():
    plain = png(64, colours=1)
    [output] = run_series.with_smaller_pictures(notebook_of(plain), limit=1).cells[0].outputs
    assert list(output.data) == ["image/png"]


def small_series(tmp_path, monkeypatch, content: str):
    """A series of one notebook, which holds that."""
    (tmp_path / "01_only.ipynb").write_text(content)
    monkeypatch.setattr(run_series, "HERE", tmp_path)
    monkeypatch.setenv("VAE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOGS", "")


def test_the_python_that_runs_the_series_runs_its_notebooks_whatever_kernel_they_name(tmp_path, monkeypatch, capsys):
    cells = [nbformat.v4.new_code_cell("import sys; print(sys.executable)")]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "gone", "display_name": "gone"}})
    small_series(tmp_path, monkeypatch, nbformat.writes(notebook))
    run_series.main(["01"])
    assert sys.executable in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no notebook", "01_only.ipynb is not a notebook"),
        (nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import os; os._exit(1)")])), "Python died"),
    ],
    ids=["no JSON", "a kernel that dies"],
)
def test_a_notebook_that_cannot_be_run_ends_the_series_in_one_line(tmp_path, monkeypatch, content, said):
    small_series(tmp_path, monkeypatch, content)
    with pytest.raises(SystemExit, match=said):
        run_series.main(["01"])


def test_a_workspace_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    small_series(tmp_path, monkeypatch, nbformat.writes(nbformat.v4.new_notebook()))
    (tmp_path / "home").write_text("a file where the workspace should be")
    with pytest.raises(SystemExit, match=r"cannot write in .*home.*: set VAE_HOME"):
        run_series.main(["01"])


@pytest.mark.parametrize("words", [["xyz"], ["--refresh", "01", "xyz"]])
def test_a_beginning_that_no_notebook_has_is_named_and_nothing_is_run(words):
    with pytest.raises(SystemExit, match="'xyz'; there are 01_data_split, 02_architecture"):
        run_series.main(words)
