"""What `pip install .` gives: public names, dependencies, weights, a command, and nothing loaded before it is needed."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from grimp import build_graph
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import vae_helpers
from vae_helpers.models import BETA
from vae_helpers.training import TrainingSettings

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PUBLIC = ["Encoder", "Decoder", "VAE", "vae_loss", "split_dataset", "load_images", "fit", "TrainingSettings", "evaluate"]
PUBLIC += ["load_checkpoint", "load_pretrained", "load_prior", "LatentExplorer", "__version__"]


def requirements_of(lines: list[str]) -> dict[str, Requirement]:
    """Name -> requirement, of every line that is one."""
    found = [Requirement(text) for line in lines if (text := line.partition("#")[0].strip())]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def misfits(requirements: dict[str, Requirement], constraints: dict[str, Requirement]) -> list[str]:
    """What is wrong with pinned versions: a package that is asked for and not pinned, a version outside of its range."""
    said = [f"{name}: no version" for name in requirements if name not in constraints]
    for name in requirements.keys() & constraints.keys():
        version = Version(next(iter(constraints[name].specifier)).version)
        if version not in requirements[name].specifier:
            said.append(f"{name}: {version} is not {requirements[name].specifier}")
    return said


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, since building leaves folders beside the package."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "vae_helpers", source / "vae_helpers", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["-q", "--no-deps", "--no-build-isolation", "--no-cache-dir", "-w", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_names_what_it_needs_and_holds_the_weights_and_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [about] = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(about).decode())
        entry_points = archive.read(about.replace("METADATA", "entry_points.txt")).decode()
    assert metadata["Version"] == vae_helpers.__version__
    needs = [requirement for requirement in map(Requirement, metadata.get_all("Requires-Dist")) if not requirement.marker]
    assert {(r.name, r.specifier) for r in needs} == {(r.name, r.specifier) for r in map(Requirement, PROJECT["dependencies"])}
    assert {"notebooks", "dev", "hub", "site", "sharpen", "export"} == set(metadata.get_all("Provides-Extra"))
    assert "vae-helpers = vae_helpers.cli:main" in entry_points
    in_the_tree = {path.relative_to(ROOT).as_posix() for path in (ROOT / "vae_helpers").rglob("*") if path.is_file()}
    assert {name for name in in_the_tree if "__pycache__" not in name} <= names
    assert any(re.fullmatch(r"vae_helpers/weights/\w+\.safetensors", name) for name in names)


def test_everything_the_package_imports_is_a_dependency():
    imported = {module.partition(".")[0] for module in build_graph("vae_helpers", include_external_packages=True).modules}
    providers = packages_distributions()
    needed = {name: set(map(canonicalize_name, providers[name])) for name in imported - set(sys.stdlib_module_names)}
    declared = requirements_of(PROJECT["dependencies"]).keys() | {"vae-helpers"}
    assert not {name for name, packages in needed.items() if not packages & declared}


def test_requirements_are_the_dependencies_and_those_of_the_notebooks_each_with_a_reason():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = requirements_of(PROJECT["dependencies"] + EXTRAS["notebooks"])
    assert {str(r) for r in requirements_of(lines).values()} == {str(r) for r in wanted.values()}
    assert all("# " in line for line in lines if line)


def test_the_versions_that_ci_installs_fit_what_is_asked_for():
    pinned = requirements_of((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    wanted = requirements_of(PROJECT["dependencies"] + EXTRAS["notebooks"] + EXTRAS["dev"] + EXTRAS["site"])
    assert misfits({name: r for name, r in wanted.items() if name != "vae-helpers"}, pinned) == []


def test_a_version_that_is_missing_or_does_not_fit_is_named():
    wanted, pinned = requirements_of(["torch>=2.6", "numpy>=1.26", "tqdm"]), requirements_of(["torch==2.5.1", "tqdm==4.0"])
    assert misfits(wanted, pinned) == ["numpy: no version", "torch: 2.5.1 is not >=2.6"]


@pytest.mark.parametrize("name", PUBLIC)
def test_the_public_names_are_there(name):
    assert getattr(vae_helpers, name) is not None and (name in vae_helpers.__all__ or name == "__version__")


def test_a_wrong_name_is_an_ordinary_import_error():
    result = run_python("from vae_helpers import VEA")
    assert result.returncode == 1
    assert re.search(r"^ImportError: cannot import name 'VEA' from 'vae_helpers'", result.stderr, re.MULTILINE)


def test_importing_the_package_or_its_command_line_loads_no_torch():
    for module in ("vae_helpers", "vae_helpers.cli"):
        result = run_python(f"import sys, {module}; print(sorted({{'torch', 'numpy', 'matplotlib'}} & set(sys.modules)))")
        assert result.stdout == "[]\n", result.stdout + result.stderr
    assert TrainingSettings().beta == BETA  # written out there, so that torch need not be loaded for it


def test_it_starts_quickly():
    """Processor time, the least of a few starts: other work on the machine does not count. Python's own start is in it."""

    def seconds(*words: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        return sum(after[2:4]) - sum(before[2:4])  # of children, in Python and in the system

    assert min(seconds("-c", "import vae_helpers") for _ in range(3)) <= 0.3
    assert min(seconds("-m", "vae_helpers", "--help") for _ in range(3)) <= 1.5
