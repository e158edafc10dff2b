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
SOLUTIONS = nbformat.read(NOTEBOOKS / "solutions" / "06_clinic.ipynb", as_version=4)

CASES = {  # the number must be above `sick` where the bug is and below `well` where it is cured: wider apart than a limit
    "1 pixels in the wrong range": {"sick": 30, "well": 10},
    "2 no gradient through z": {"sick": 0.99, "well": 0.01},
    "3 beta in the wrong unit": {"sick": 5, "well": 0.01},
    "4 log-variance as deviation": {"sick": 3, "well": 1.2},
    "5 test dogs in training": {"sick": 0.8, "well": 0.001},
    "6 labels of other dogs": {"sick": 0.9, "well": 0.1},
    "7 KL from halves of z": {"sick": 8, "well": 1.01},
    "8 division in place": {"sick": 2, "well": 1.01},
    "9 KL summed over the batch": {"sick": 0.9, "well": 0.4},
}


def code_of(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


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
    return execute(code_of(CLINIC), home) | execute(code_of(SOLUTIONS), home)


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
    case = next(iter(CASES))
    sources = code_of(CLINIC)
    upto = next(i for i, source in enumerate(sources) if case in source)
    mended = execute(sources[: upto + 1], home, "import clinic\nclinic.case_1_data = clinic.to_float")
    assert list(mended) == [case]
    assert mended[case]["broken"] < CASES[case]["well"]


def test_the_broken_lines_that_the_answers_show_are_those_that_ran():
    code = (NOTEBOOKS / "clinic.py").read_text(encoding="utf-8")
    shown = [block for cell in CLINIC.cells for block in re.findall(r"```python\n(.*?)```", cell.source, re.DOTALL)]
    assert len(shown) == 6
    for line in "".join(shown).splitlines():
        assert line in code, line
