"""What pages and markdown cells call by name is there: paths, functions, imports, options of the command line."""

import ast
import importlib
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md"), *ROOT.glob("vae_helpers/*/*.md")} - {ROOT / "CHANGELOG.md"})
NOTEBOOKS = sorted(ROOT.glob("notebooks/**/*.ipynb"))
OPTION = re.compile(r"(?<![\w-])--([a-z][a-z-]+)")


def prose(path: Path) -> str:
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")


def code() -> str:
    """All that is code here: modules, scripts, the notebooks' cells, their printed names."""
    rooms = ("vae_helpers", "tests", "notebooks", "recipes", "benchmarks")
    scripts = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    cells = [c.source for path in NOTEBOOKS for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    return "\n".join([*(path.read_text(encoding="utf-8") for path in scripts), *cells])


@pytest.fixture(scope="module")
def words() -> set[str]:
    return set(re.findall(r"\w+", code()))


each_page = pytest.mark.parametrize("path", PAGES + NOTEBOOKS, ids=lambda path: path.relative_to(ROOT).as_posix())


@each_page
def test_every_name_and_path_in_it_exists(path, words):
    for quoted in re.findall(r"`([^`\n]+)`", prose(path)):
        for file in re.findall(r"^(?:vae_helpers|tests|recipes|benchmarks|notebooks|docs)/[\w/.-]*\.\w+$", quoted):
            assert (ROOT / file).is_file(), file
        for dotted in re.findall(r"^vae_helpers(?:\.\w+)+$", quoted):
            module, _, name = dotted.rpartition(".")
            assert hasattr(importlib.import_module(module), name) or importlib.import_module(dotted), dotted
        for name in re.findall(r"^([a-z]+(?:_[a-z]+)+)(?:\(.*\))?$", quoted):  # snake_case, called or not
            assert name in words, name


@each_page
def test_its_links_and_imports_lead_somewhere(path):
    text = prose(path)
    for target in re.findall(r"\]\(([^)#\s]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        assert target.startswith("http") or (path.parent / target).exists(), target
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        if "import" in block:
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and node.module.startswith("vae_helpers"):
                    assert all(hasattr(importlib.import_module(node.module), alias.name) for alias in node.names)


@each_page
def test_options_of_the_command_line_in_it_exist(path):
    files = [*(ROOT / "vae_helpers/cli").glob("*.py"), ROOT / "vae_helpers/training/settings.py"]
    ours = "\n".join(file.read_text(encoding="utf-8") for file in files)
    for line in prose(path).splitlines():
        said = re.split(r"vae-helpers |-m vae_helpers ", line)[1:]
        for option in (option for command in said for option in OPTION.findall(command.split("`")[0])):
            assert option in ("help", "debug") or re.search(rf"\b{option.replace('-', '_')}:", ours), f"{option} in {line}"
