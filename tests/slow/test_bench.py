"""Slow check (`make check`): the benchmark runs, every part of it, and says what it is there to say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_benchmark_runs_and_its_table_has_a_figure_for_everything(tmp_path):
    before = {path: path.read_bytes() for path in BENCHMARKS.rglob("*.*") if path.is_file()}
    command = [sys.executable, str(BENCHMARKS / "bench.py"), "--quick"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "DOGS": ""}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr
    for row in (
        "| default (4.2M, ",
        "| calibrated (4.2M, ",
        "| spatial (",
        "| attention (",
        "| naive loop, the same network |",
        "| naive loop, its usual network (",
        "| validation loss, z sampled, falls below probabilistic PCA's |",
        "| the same model, on test |",
        "until its first step, cache warm |",
        "| `train`, an epoch of a narrow network |",
        "| `duplicates`, which compares each with each |",
    ):
        assert row in result.stdout, result.stdout
    assert "nan" not in result.stdout
    left = [path for path in tmp_path.iterdir() if not path.name.startswith("torchinductor")]  # the compiler's own cache
    assert not left, "something was left behind"
    after = {path: path.read_bytes() for path in BENCHMARKS.rglob("*.*") if path.is_file() and path.suffix != ".pyc"}
    assert after == {path: content for path, content in before.items() if path.suffix != ".pyc"}
