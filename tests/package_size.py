"""How large the package is: lines of code (no blanks, comments or docstrings; .js counts), longest module and function."""

import ast
import io
import sys
import tokenize
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "vae_helpers"
_SILENT = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
)


def code_lines(path: Path) -> int:
    """Lines of `path` that hold code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".js":
        return sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith("//"))
    tree = ast.parse(text)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = set()
    for node in ast.walk(tree):
        for body in (getattr(node, "body", None),):
            if not isinstance(body, list):
                continue
            for i, item in enumerate(body):  # of a function, class or module, or below the field of a class
                is_text = (
                    isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)
                )
                if is_text and (
                    (isinstance(node, documented) and i == 0) or (i and isinstance(body[i - 1], ast.AnnAssign | ast.Assign))
                ):
                    docstrings.update(range(item.lineno, item.end_lineno + 1))
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _SILENT:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def functions(path: Path) -> list[tuple[int, str]]:
    """(lines in all, name) of every function in a Python file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [(n.end_lineno - n.lineno + 1, f"{path.name}:{n.name}") for n in ast.walk(tree) if isinstance(n, kinds)]


def measure() -> dict:
    """What the tests compare with the limits, and CI prints."""
    modules = sorted(p for p in PACKAGE.rglob("*") if p.suffix in (".py", ".js"))
    return {
        "code_lines": sum(map(code_lines, modules)),
        "longest_module": max((len(p.read_text(encoding="utf-8").splitlines()), str(p.relative_to(PACKAGE))) for p in modules),
        "longest_function": max(f for p in modules if p.suffix == ".py" for f in functions(p)),
    }


if __name__ == "__main__":
    if "-v" in sys.argv:
        for p in sorted(PACKAGE.rglob("*.py")) + sorted(PACKAGE.rglob("*.js")):
            print(f"{code_lines(p):5d} {len(p.read_text().splitlines()):5d}  {p.relative_to(PACKAGE)}")
    for name, value in measure().items():
        print(f"{name}: {value}")
