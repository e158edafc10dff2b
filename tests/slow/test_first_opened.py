"""Slow check (`make check`): chapters that need nothing from the others, each run first, in a workspace that is empty."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("chapter", "said"), [("05", "03 was not run: toy"), ("08", ""), ("09", "")])
def test_the_chapter_runs_when_it_is_the_first_one_opened(tmp_path, chapter, said):
    environment = os.environ | {"VAE_HOME": str(tmp_path), "VAE_SMOKE": "1"}
    command = [sys.executable, "notebooks/run_series.py", chapter]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert said in result.stdout and "Recap" in result.stdout
    assert not list((tmp_path / "models").rglob("*.pth")) and list((tmp_path / "outputs").glob(f"{chapter}*.html"))
