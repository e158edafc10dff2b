"""benchmarks/blur.py writes the table that chapter 03 prints."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import blur
import pytest


def rows_of(table: Path) -> list[dict]:
    return list(csv.DictReader(table.read_text(encoding="utf-8").splitlines(), quoting=csv.QUOTE_NONNUMERIC))


def test_the_parts_of_each_error_in_the_table_add_up_to_it():
    for row in rows_of(blur.TABLE):
        assert row["eyes"] + row["edges"] + row["elsewhere"] == pytest.approx(row["error"], rel=0.01)


def test_the_dogs_themselves_have_no_error_and_all_of_their_tongues():
    dogs = blur.sample_factors(8, seed=0)
    found = blur.errors(blur.to_float(blur.paint(dogs)), dogs)
    assert found["error"] == 0
    assert (found["tongue_out"], found["tongue_in"]) == pytest.approx((1, 0))


@pytest.mark.slow
def test_a_smoke_run_writes_the_same_rows_and_columns(tmp_path):
    env = os.environ | {"VAE_SMOKE": "1", "VAE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, blur.__file__, tmp_path / "blur.csv"], env=env, check=True)
    rows, table = rows_of(tmp_path / "blur.csv"), rows_of(blur.TABLE)
    assert [list(row) for row in rows] == [list(row) for row in table]
    assert [row["training"] for row in rows] == [row["training"] for row in table]
