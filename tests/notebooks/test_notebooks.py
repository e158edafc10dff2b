"""Guards the notebooks themselves: that they were run, read well on a page, and that their checks can fail."""

import re
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import run_series

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOTEBOOKS = CHAPTERS + sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
CHECKED = "nbval-check-output"

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.relative_to(ROOT / "notebooks").as_posix())
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def checked_cells(cells):
    return [cell for cell in cells if CHECKED in cell.metadata.get("tags", [])]


def test_every_chapter_has_solutions():
    assert CHAPTERS
    assert {path.name for path in CHAPTERS} == {path.name for path in NOTEBOOKS[len(CHAPTERS) :]}


@each_notebook
def test_it_was_run_from_top_to_bottom_without_an_error(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]


@each_notebook
def test_its_outputs_are_of_the_code_that_stands_there(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata.get("code_hash") == run_series.code_hash(notebook), "edited after its run: make series"


@each_notebook
def test_it_has_checked_outputs_and_each_of_them_says_something(path):
    cells = checked_cells(code_cells(path))
    assert cells
    for cell in cells:
        assert [o.output_type for o in cell.outputs] == ["stream"], f"only printed text is compared:\n{cell.source}"


@each_notebook
def test_no_verdict_in_it_is_left_to_a_reader_to_doubt(path):
    """An output that says `nan`, a traceback or a warning would be compared with itself for ever."""
    for cell in code_cells(path):
        for output in cell.outputs:
            assert not re.search(r"\bnan\b|Traceback|Warning:", output.get("text", "")), cell.source


@each_notebook
def test_it_holds_no_machine_path_and_no_widget(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w/.])/(?:home|root|Users|tmp|work|private|var)/\w|[A-Z]:\\\\", text)
    assert "application/vnd.jupyter.widget" not in text


@each_notebook
def test_it_opens_quickly_and_its_cells_are_short(path):
    assert path.stat().st_size <= run_series.NOTEBOOK_BYTES
    lengths = [len(cell.source.splitlines()) for cell in code_cells(path)]
    assert statistics.median(lengths) <= 8
    assert max(lengths) <= 40


@each_notebook
def test_its_links_lead_somewhere(path):
    first, *_ = nbformat.read(path, as_version=4).cells
    assert first.source.startswith("[")
    for cell in nbformat.read(path, as_version=4).cells:
        for target in re.findall(r"\]\(([^)#]+)\)", cell.source) if cell.cell_type == "markdown" else []:
            assert target.startswith("http") or (path.parent / target).exists(), target


@each_chapter
def test_it_has_the_anatomy_of_a_chapter(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    for part in ("**You will learn**", "**You need**", "**Running time**", "## Recap", "### Quiz", "### Try it", "Answers:"):
        assert part in text


@each_notebook
def test_every_picture_is_described_for_those_who_do_not_see_it(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            for kind in {"image/png", "image/jpeg"} & set(output.get("data", {})):
                assert len(output.metadata.get(kind, {}).get("alt", "")) > 20, cell.source


@each_chapter
def test_every_picture_has_a_title_that_says_what_to_see(path):
    for cell in code_cells(path):
        if [o for o in cell.outputs if {"image/png", "image/jpeg"} & set(o.get("data", {}))]:
            assert re.search(r'"[^"]{25,}"|title', cell.source), f"no title in\n{cell.source}"


def test_one_corrupted_output_turns_the_notebook_check_red(tmp_path):
    """The canary: a copy of a chapter in which one checked output was changed must fail, in that cell and no other."""
    notebook = nbformat.read(ROOT / "notebooks" / "01_data_split.ipynb", as_version=4)
    victim = checked_cells(notebook.cells)[0]
    victim.outputs[0].text += "one line that no run prints\n"
    copy = tmp_path / "canary.ipynb"
    nbformat.write(notebook, copy)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-q", str(copy)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1, result.stdout
    failed = len(re.findall(r"^FAILED ", result.stdout, re.MULTILINE))
    assert failed == 1, result.stdout
