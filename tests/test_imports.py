"""What each room may import, held by import-linter (pyproject.toml), and how large rooms may be."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from package_size import measure

ROOT = Path(__file__).resolve().parents[1]


def lint_imports(project: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True)


def test_rooms_import_what_they_may_and_nothing_goes_in_circles():
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("models/losses.py", "from ..training import fit", "Arrows go down only"),
        ("latent/walks.py", "from ..evaluation import evaluate", "Arrows go down only"),
        ("training/loop.py", "from ..config import folders", "Only the command line"),
        ("data/split.py", "from ..models import VAE", "data knows no VAE"),
        ("plots.py", "from .models.vae import VAE", "plots know tensors"),
        ("config.py", "from .files import atomic_write", "config imports nothing"),
        ("data/folders.py", "from .images import load_images", "No circles"),
    ],
)
def test_an_arrow_that_goes_up_turns_the_check_red(tmp_path, module, line, broken):
    """The canaries: one line too many in a copy of the package."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "vae_helpers", tmp_path / "vae_helpers", ignore=shutil.ignore_patterns("weights", "__pycache__"))
    path = tmp_path / "vae_helpers" / module
    path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    result = lint_imports(tmp_path)
    verdicts = [said for said in result.stdout.splitlines() if said.startswith(broken)]
    assert result.returncode == 1 and " BROKEN" in verdicts[0], result.stdout


def test_the_package_is_as_small_as_was_agreed():
    size = measure()
    assert size["code_lines"] <= 3950  # 3,600 was planned for all; the whole way, the hub and the export came to more
    assert size["longest_module"][0] <= 250, size["longest_module"]
    assert size["longest_function"][0] <= 60, size["longest_function"]
