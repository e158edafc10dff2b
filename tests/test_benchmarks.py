"""The measured figures on docs/benchmarks.md are those that runs of the benchmark left, and no others."""

import json
from pathlib import Path

import pytest
from table import BEGIN, END, NOT_YET, markdown, page_with_tables

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_table_of_results_is_made_of_the_figures_beside_it(path):
    results = json.loads(path.read_text())
    assert results["about"]["machine"] == path.stem
    assert markdown(results) == path.with_suffix(".md").read_text()


def test_the_page_holds_the_tables_of_every_machine_that_was_measured():
    assert page_with_tables(PAGE, RESULTS) == PAGE


def test_tables_replace_those_of_an_earlier_run_and_leave_the_rest_of_the_page(tmp_path):
    page = f"# Measured\n\n{BEGIN}\n\nold\n{END}\n\nHow to read them.\n"
    assert page_with_tables(page, tmp_path) == f"# Measured\n\n{BEGIN}\n\n{NOT_YET}\n{END}\n\nHow to read them.\n"
    (tmp_path / "laptop.md").write_text("| new |\n")
    assert page_with_tables(page, tmp_path) == f"# Measured\n\n{BEGIN}\n\n| new |\n\n{END}\n\nHow to read them.\n"
    with pytest.raises(ValueError, match="no place for tables"):
        page_with_tables("# Measured", tmp_path)
