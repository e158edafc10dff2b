"""What must never be in this project's code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = [
    path for folder in ("vae_helpers", "notebooks", "benchmarks", "models") for path in sorted((ROOT / folder).rglob("*.py"))
]


def calls(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.name)
def test_no_shell_is_called_nothing_is_unpickled_and_no_archive_unpacked_unseen(path):
    for name, options in calls(path):
        assert name not in ("os.system", "os.popen", "subprocess.getoutput", "eval", "exec", "pickle.load", "pickle.loads"), (
            name
        )
        assert options.get("shell", "False") == "False", name
        assert not name.endswith((".extractall", "unpack_archive")), name
        if name == "torch.load":
            assert options.get("weights_only") == "True"


def test_every_file_of_the_package_is_looked_at():
    assert len(CODE) > 30 and {"checkpoint.py", "photos.py", "run_series.py", "bench.py"} <= {path.name for path in CODE}
