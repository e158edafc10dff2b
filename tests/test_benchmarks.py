"""The README's figures are those that a run of the benchmark printed, and the table is made of them."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
from table import markdown  # noqa: E402

README = (ROOT / "README.md").read_text()
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_table_of_results_is_made_of_the_figures_beside_it(path):
    results = json.loads(path.read_text())
    assert results["about"]["machine"] == path.stem
    assert markdown(results) == path.with_suffix(".md").read_text()


def test_the_readme_holds_the_tables_of_the_results_that_it_names():
    named = re.findall(r"benchmarks/results/([\w-]+)\.md", README)
    assert named
    for name in named:
        for line in (ROOT / "benchmarks" / "results" / f"{name}.md").read_text().splitlines():
            assert line in README
