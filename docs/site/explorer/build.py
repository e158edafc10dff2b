"""Build the explorer's pages: `python docs/site/explorer/build.py FOLDER [MODEL]`. It needs Node.js, and the extra `export`.

FOLDER is then a page of `heads` for any static web server, and FOLDER/dogs one of `dogs`, which shares all but the model's
files with it. Where MODEL is given, what `load_pretrained` takes, FOLDER is a page of that one alone.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from vae_helpers.files import SHIPPED
from vae_helpers.latent import export_explorer
from vae_helpers.models import load_pretrained, load_prior

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parents[2] / "vae_helpers"
SHARED = ("style.css", "explorer.js", "../static/favicon.svg")
PAGES = {".": ("heads", "Dogs' heads"), "dogs": ("dogs", "Whole dogs, by breed")}  # folder -> model, title
RUNTIME = {  # of onnxruntime-web -> as what: some servers do not know that .mjs is JavaScript
    "ort.wasm.bundle.min.mjs": "ort.wasm.js",
    "ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.bundle.min.mjs": "ort.webgpu.js",
    "ort-wasm-simd-threaded.asyncify.wasm": "ort-wasm-simd-threaded.asyncify.wasm",
}
ONLY_WEBGPU = ("ort.webgpu.js", "ort-wasm-simd-threaded.asyncify.wasm")


def install_runtime() -> Path:
    """Where onnxruntime-web is, which npm fetches when it is not there, or not as package-lock.json has it."""
    installed = HERE / "node_modules/.package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (HERE / "package-lock.json").stat().st_mtime:
        npm = shutil.which("npm") or sys.exit(
            "the explorer needs Node.js: its npm fetches onnxruntime-web, which runs the networks"
        )
        subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=HERE, check=True)
    return HERE / "node_modules/onnxruntime-web/dist"


def exported(model: str) -> Path:
    """Where the model's files are; they are made anew when anything in the package is newer, since that takes half a minute."""
    kept = HERE / "node_modules/.cache" / model
    numbers, newest = kept / "directions.json", max(path.stat().st_mtime for path in PACKAGE.rglob("*.[ps]*") if path.is_file())
    if model not in SHIPPED or not numbers.exists() or numbers.stat().st_mtime < newest:
        export_explorer(load_pretrained(model), load_prior(model), Path(model).stem, kept)
    return kept


def share(top: Path) -> list[str]:
    """Put what all pages use into `top`; the paths there of what is kept for use offline."""
    runtime = install_runtime()
    (top / "ort").mkdir(parents=True, exist_ok=True)
    for name, target in RUNTIME.items():
        text = (runtime / name).read_bytes()
        lines = [line for line in text.splitlines(True) if not line.startswith(b"//# sourceMappingURL")]
        (top / "ort" / target).write_bytes(b"".join(lines) if name.endswith(".mjs") else text)
    for name in SHARED:
        shutil.copy(HERE / name, top)
    return [*(Path(name).name for name in SHARED), *(f"ort/{name}" for name in RUNTIME.values() if name not in ONLY_WEBGPU)]


def document(place: str, pages: dict[str, tuple[str, str]]) -> str:
    """index.html of the page in folder `place`; where there are several, with its title and links to the others."""
    text = (HERE / "index.html").read_text(encoding="utf-8")
    if place != ".":
        text = text.replace("<!-- base -->", '<base href="../">')  # so that addresses are as in the folder above
    if len(pages) > 1:
        links = [f'<a href="{where}/index.html">{title}</a>' for where, (_, title) in pages.items() if where != place]
        title = pages[place][1]
        text = text.replace("<!-- pages -->", f"<nav><b>{title}</b> · {' · '.join(links)}</nav>")
        text = text.replace("<title>", f"<title>{title} · ")
    return text


def named(name: str, folder: Path, paths: list[str]) -> str:
    """The name of a cache, which changes with any of its files."""
    content = b"".join((folder / path).read_bytes() for path in paths)
    return f"dogs-explorer-{name}-{hashlib.sha256(content).hexdigest()[:12]}"


def build(top: Path, model: str = "") -> None:
    pages = {".": (model, "")} if model else PAGES
    shared = share(top)
    for place, (model, _) in pages.items():
        folder, files = top / place, exported(model)
        folder.mkdir(exist_ok=True)
        crop = json.loads((files / "directions.json").read_text(encoding="utf-8"))["crop"]
        own = [path.name for path in sorted(files.iterdir()) if path.name != "head_finder.onnx" or crop == "head"]
        for name in own:
            shutil.copy(files / name, folder)
        (folder / "index.html").write_text(document(place, pages), encoding="utf-8")
        shutil.copy(HERE / "worker.js", folder)
        own += ["index.html", "worker.js"]
        up = "" if place == "." else "../"
        caches = {named("shared", top, shared): [up + path for path in shared]}
        caches[named(Path(model).stem, folder, own)] = ["./", *own]
        worker = (HERE / "sw.js").read_text(encoding="utf-8")
        worker = worker.replace("CACHES = {}", f"CACHES = {json.dumps(caches)}")
        (folder / "sw.js").write_text(worker, encoding="utf-8")
        print(f"{folder}/index.html")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    build(Path(sys.argv[1]), *sys.argv[2:])
