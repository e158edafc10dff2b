"""Build the explorer's page: `python docs/site/explorer/build.py FOLDER [MODEL]`. It needs Node.js, and the extra `export`.

FOLDER is then a page for any static web server. MODEL is what `load_pretrained` takes; `heads` when left out.
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
PAGE = ("index.html", "style.css", "explorer.js", "worker.js", "sw.js")
RUNTIME = {  # of onnxruntime-web -> as what: some servers do not know that .mjs is JavaScript
    "ort.wasm.bundle.min.mjs": "ort.wasm.js",
    "ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.bundle.min.mjs": "ort.webgpu.js",
    "ort-wasm-simd-threaded.asyncify.wasm": "ort-wasm-simd-threaded.asyncify.wasm",
}
ONLY_WEBGPU = ("ort/ort.webgpu.js", "ort/ort-wasm-simd-threaded.asyncify.wasm")


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


def build(folder: Path, model: str = "heads") -> None:
    runtime = install_runtime()
    shutil.copytree(exported(model), folder, dirs_exist_ok=True)
    (folder / "ort").mkdir(exist_ok=True)
    for name, target in RUNTIME.items():
        text = (runtime / name).read_bytes()
        lines = [line for line in text.splitlines(True) if not line.startswith(b"//# sourceMappingURL")]
        (folder / "ort" / target).write_bytes(b"".join(lines) if name.endswith(".mjs") else text)
    for name in PAGE:
        shutil.copy(HERE / name, folder)
    shutil.copy(HERE.parent / "static/favicon.svg", folder)
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    version = hashlib.sha256(b"".join((folder / path).read_bytes() for path in paths)).hexdigest()[:12]
    offline = ["./", *(path for path in paths if path not in (*ONLY_WEBGPU, "sw.js"))]
    worker = (folder / "sw.js").read_text(encoding="utf-8")
    worker = worker.replace('VERSION = ""', f'VERSION = "{version}"').replace("FILES = []", f"FILES = {json.dumps(offline)}")
    (folder / "sw.js").write_text(worker, encoding="utf-8")
    print(f"{folder}/index.html")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    build(Path(sys.argv[1]), *sys.argv[2:])
