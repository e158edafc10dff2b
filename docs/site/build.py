"""Build the site: `make site`, or `python docs/site/build.py [FOLDER]`. The notebooks and the other pages are its only source.

They are copied into the folders that they have in the project, so links between them work as they are. README.md becomes
the front page; the page of public names is made from their docstrings."""

import importlib
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from sphinx.pycode import ModuleAnalyzer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGES = ("*.md", "LICENSE", "CITATION.cff", "docs/*.*", "[!.]*/README.md", "notebooks/*.*", "notebooks/solutions/*.*")
PAGES += ("recipes/*.*", "benchmarks/*.*", "vae_helpers/weights/*.md", "vae_helpers/weights/*.json")
EXPLORER = HERE / "explorer/build.py"
PLAY = '<p class="play"><a href="explorer/index.html">Play with the dogs in your browser</a></p>'
ROOMS = ("models", "data", "training", "evaluation", "latent")
CONTENTS = {
    "Chapters": ["notebooks/[01]*"],
    "After the chapters": ["notebooks/solutions/index", "docs/glossary", "api", "vae_helpers/weights/README"],
    "For teachers": ["docs/classroom", "docs/scaling", "docs/benchmarks"],
    "For developers": ["docs/architecture", "recipes/README", "recipes/dog_features", "CONTRIBUTING", "CHANGELOG"],
    "Folders that fill": ["data/README", "models/README", "outputs/README"],
}


def toctree(pages: list[str], *options: str) -> str:
    return "\n".join(["", "```{toctree}", ":glob:", *options, "", *pages, "```", ""])


def signature(name: str, value: object) -> str:
    """`name(parameters) -> result` without `self`, and with the last part of each type's name only."""
    try:
        return name + re.sub(r"\b(?:\w+\.)+(?=[A-Za-z_])|(?<=^\()self(?:, )?", "", str(inspect.signature(value)))
    except (TypeError, ValueError):
        return name


def describe(name: str, value: object) -> str:
    """Markdown of one public name: its signature and docstring, then those of its fields and methods that have one."""
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return ""
    kind, members = ("class", vars(value)) if inspect.isclass(value) else ("function", {})
    documented = ModuleAnalyzer.for_module(value.__module__).find_attr_docs()
    fields = [("attribute", key, "\n".join(lines)) for (owner, key), lines in documented.items() if owner == name]
    methods = [
        ("method", signature(key, member), inspect.getdoc(member))
        for key, member in members.items()
        if not key.startswith("_") and inspect.isroutine(member) and member.__doc__
    ]
    inside = [f":::{{py:{part}}} {head}\n\n{text}\n:::\n" for part, head, text in fields + methods]
    text = inspect.getdoc(value) if value.__doc__ else ""
    return f"::::{{py:{kind}}} {signature(name, value)}\n\n{text}\n\n" + "\n".join(inside) + "::::\n"


def reference() -> str:
    """The page of public names: those of the package, then what each room exports besides."""
    parts, seen = ["# Public names\n"], set()
    for title in ("vae_helpers", *(f"vae_helpers.{room}" for room in ROOMS)):
        module = importlib.import_module(title)
        parts.append(f"## {title}\n\n{inspect.getdoc(module) or ''}\n\n:::{{py:module}} {title}\n:::\n")
        for name in sorted(set(module.__all__) - seen, key=str.lower):
            parts.append(describe(name, getattr(module, name)))
        seen |= set(module.__all__)
    return "\n".join(parts)


def gather(source: Path) -> None:
    """Lay out what Sphinx reads."""
    for path in {path for pattern in PAGES for path in ROOT.glob(pattern) if path.is_file()}:
        place = path.relative_to(ROOT)
        target = source / ("index.md" if place == Path("README.md") else place)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        if path.suffix in (".md", ".ipynb"):
            readme = "](" + "../" * (len(place.parts) - 1)
            text = target.read_text(encoding="utf-8").replace(f"{readme}README.md)", f"{readme}index.md)")
            target.write_text(text.replace("](notebooks/solutions)", "](notebooks/solutions/index.md)"), encoding="utf-8")
    (source / "notebooks/solutions/index.md").write_text("# Solutions\n" + toctree(["[01]*"]), encoding="utf-8")
    (source / "api.md").write_text(reference(), encoding="utf-8")
    front = source / "index.md"
    text = front.read_text(encoding="utf-8")
    if EXPLORER.exists():  # before the first picture
        text = text.replace("\n![", f"\n{PLAY}\n\n![", 1)
    trees = "".join(toctree(pages, ":hidden:", f":caption: {caption}") for caption, pages in CONTENTS.items())
    front.write_text(text + trees, encoding="utf-8")
    for part in ("static", "templates"):
        shutil.copytree(HERE / part, source / part)
    shutil.copy(HERE / "conf.py", source)
    katex = HERE / "node_modules/katex/dist"
    shutil.copytree(katex / "fonts", source / "static/katex/fonts", ignore=shutil.ignore_patterns("*.ttf", "*.woff"))
    shutil.copy(katex / "katex.min.css", source / "static/katex")
    shutil.copy(katex / "katex.js", source)  # for conf.py


def build(site: Path) -> None:
    """Make `site` anew; raises CalledProcessError where a page has a fault, such as a link that leads nowhere."""
    installed = HERE / "node_modules/.package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (HERE / "package-lock.json").stat().st_mtime:
        npm = shutil.which("npm") or sys.exit("the site needs Node.js: its npm fetches KaTeX, for the formulas")
        subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=HERE, check=True)
    with TemporaryDirectory() as folder:
        source, html = Path(folder) / "source", Path(folder) / "html"
        gather(source)
        words = ["-q", "-W", "--keep-going", "-d", f"{folder}/doctrees", "-A", f"explorer={int(EXPLORER.exists())}"]
        subprocess.run([sys.executable, "-m", "sphinx", *words, str(source), str(html)], check=True)
        if (site / ".buildinfo").exists():  # Sphinx's: an earlier site, and no folder of somebody's
            shutil.rmtree(site)
        shutil.copytree(html, site)
    if EXPLORER.exists():
        subprocess.run([sys.executable, str(EXPLORER), str(site / "explorer")], check=True)
    print(f"{site}/index.html")


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "site")
