"""Slow check (`make check`): the wheel in an environment of its own, which sees the dependencies and not this project."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from test_package import PUBLIC, wheel  # noqa: F401 (a fixture)
from tiny import write_images

pytestmark = pytest.mark.slow


@pytest.fixture
def installed(tmp_path, wheel) -> Path:  # noqa: F811
    """The Python of a virtual environment with nothing but the wheel in it.

    Its path file leads to the dependencies. Path files in the folder that it names are not read, so this project's editable
    installation is not seen.
    """
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = venv / ("Scripts" if os.name == "nt" else "bin") / Path(sys.executable).name
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, check=True)
    where = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], stdout=-1, text=True)
    Path(where.stdout.strip(), "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def test_the_wheel_alone_gives_the_public_names_the_weights_and_the_command(installed, tmp_path):
    python, home = installed, tmp_path / "home"
    photos = write_images(home / "photos", 40)
    before = files_in(tmp_path / "venv")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("VAE_", "PYTHON"))}

    def run(*command: str) -> str:
        result = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    code = f"from vae_helpers import {', '.join(PUBLIC)}; import vae_helpers; print(vae_helpers.__file__); "
    assert str(tmp_path / "venv") in run(str(python), "-c", code + "load_pretrained('vector').sample(1)")
    vae_helpers = str(python.with_name("vae-helpers"))
    run(vae_helpers, "split", str(photos), "--test-size", "0.5")
    run(vae_helpers, "train", "--epochs", "1", "--latent-dim", "4", "--image-size", "16")
    run(vae_helpers, "evaluate")
    run(vae_helpers, "sample", "--model", "vector", "-n", "2", "--out", "new")
    assert files_in(tmp_path / "venv") == before
    assert (home / "outputs/report.html").is_file() and (home / "models/saved_models/vae_model_epoch_1.pth").is_file()
    assert len(list((home / "new").glob("*.png"))) == 2
