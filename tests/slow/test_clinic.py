"""Slow check (`make check`): in notebook 06 every symptom shows where the bug is, and is gone where it was fixed."""

import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow
NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
CLINIC = nbformat.read(NOTEBOOKS / "06_clinic.ipynb", as_version=4)

CASES = {  # the number must be above `sick` where the bug is and below `well` where it is fixed: wider apart than a limit
    "1 KL from halves of z": {"sick": 8, "well": 1.01},
    "2 KL summed over the batch": {"sick": 0.9, "well": 0.4},
    "3 division in place": {"sick": 2, "well": 1.01},
    "4 log-variance as deviation": {"sick": 3, "well": 1.2},
    "5 pixels in the wrong range": {"sick": 30, "well": 10},
    "6 beta far too large": {"sick": 0.9, "well": 0.5},
    "7 test dogs in training": {"sick": 1.35, "well": 1.2},
    "8 measured on training dogs": {"sick": 1.5, "well": 1.2},
}


SOURCES = [cell.source for cell in CLINIC.cells if cell.cell_type == "code"]


def execute(sources, home, first=""):
    """Run these cells in full mode after the code `first`; returns the findings they noted, by case."""
    report = "import json\nprint('FINDINGS', json.dumps([f._asdict() for f in findings]))"
    cells = [nbformat.v4.new_code_cell(source) for source in (first, *sources, report)]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=CLINIC.metadata)
    environment = {name: value for name, value in os.environ.items() if name != "VAE_SMOKE"}
    client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(NOTEBOOKS)}})
    client.execute(env=environment | {"VAE_HOME": str(home)})
    printed = "".join(output.text for output in notebook.cells[-1].outputs)
    return {finding["case"]: finding for finding in json.loads(printed.removeprefix("FINDINGS "))}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("clinic")


@pytest.fixture(scope="module")
def findings(home):
    return execute(SOURCES, home)


def test_every_case_is_measured_and_no_other(findings):
    assert list(findings) == list(CASES)


@pytest.mark.parametrize("case", CASES)
def test_the_symptom_shows_in_the_broken_code(findings, case):
    assert findings[case]["broken"] > CASES[case]["sick"] >= findings[case]["limit"]


@pytest.mark.parametrize("case", CASES)
def test_the_symptom_is_gone_from_the_fixed_code(findings, case):
    assert findings[case]["fixed"] < CASES[case]["well"] <= findings[case]["limit"]


def test_a_case_whose_bug_was_mended_shows_no_symptom(home):
    """The canary: with the bug of case 1 taken out, what must be red above would be red."""
    case = "1 KL from halves of z"
    upto = next(i for i, source in enumerate(SOURCES) if case in source)
    mend = """import clinic
clinic.case_1_loss, train = clinic.healthy_loss, clinic.train
clinic.train = lambda vae, x, loss_of, epochs: train(vae, x, loss_of, epochs=2)  # it is not the training that cures
"""
    mended = execute(SOURCES[: upto + 1], home, mend)
    assert list(mended) == [case]
    assert mended[case]["broken"] < CASES[case]["well"]


def test_the_broken_lines_that_the_answers_show_are_those_that_ran():
    code = (NOTEBOOKS / "clinic.py").read_text(encoding="utf-8") + "\n".join(SOURCES)
    shown = [block for cell in CLINIC.cells for block in re.findall(r"```python\n(.*?)```", cell.source, re.DOTALL)]
    assert len(shown) == len(CASES)
    for line in "".join(shown).splitlines():
        assert line in code, line
