"""Run the numbered notebooks in order, with visible progress, and keep them as HTML: what `make dogs` does.

python notebooks/run_series.py             run 01 to 05; executed notebooks go to outputs/
python notebooks/run_series.py 03 06       run the notebooks whose names begin so
python notebooks/run_series.py --refresh   run all on toy dogs in a temporary workspace; outputs go into notebooks/,
                                           and so does beta_sweep.csv when no notebook is named; each notebook
                                           keeps a hash of the code that they are of
"""

import argparse
import base64
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from PIL import Image

from vae_helpers.config import dogs_wanted, folders

HERE = Path(__file__).resolve().parent
WIDGET = "application/vnd.jupyter.widget-view+json"
IN_MAKE_DOGS = ("01", "02", "03", "04", "05")
NOTEBOOK_BYTES = 1_500_000
"""A committed notebook is no larger, so that it opens quickly."""


class TalkingClient(NotebookClient):
    """Runs a notebook and says where it is: every heading as it is reached, every printed line as it appears."""

    heading = ""

    async def async_execute_cell(self, cell, cell_index, **kwargs):
        if cell.cell_type == "markdown" and (
            found := re.findall(r"^#{1,3} (.+)$", cell.source, re.MULTILINE)
        ):
            print(f"  {found[0]}", flush=True)
        return await super().async_execute_cell(cell, cell_index, **kwargs)

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] == "stream" and msg["content"]["name"] == "stdout":
            for line in msg["content"]["text"].splitlines():
                print(f"      {line}", flush=True)
        return super().process_message(msg, cell, cell_index)


def without_widgets(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what needs a running kernel: on a page it is dead. A widget that brought a still picture leaves that."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)
            widgets = [o for o in cell.outputs if o.get("data", {}).pop(WIDGET, None)]
            cell.outputs = [o for o in cell.outputs if o not in widgets or "image/png" in o.data]
    return notebook


def with_smaller_pictures(
    notebook: nbformat.NotebookNode, limit: int = NOTEBOOK_BYTES
) -> nbformat.NotebookNode:
    """Pictures in as few bytes as full colour allows, so that a committed notebook opens quickly.

    Every PNG is packed again without loss. While the notebook is larger than `limit` bytes, the largest PNG becomes a JPEG
    of quality 92, unless that would be larger; then the largest pictures keep their colours at half the resolution. What
    describes a picture (its alt text) stays with it.
    """
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    for output in outputs:
        if png := output.get("data", {}).get("image/png"):
            output.data["image/png"] = encoded(png, format="PNG", optimize=True)
    for kinds, subsampling in ((("image/png",), 0), (("image/png", "image/jpeg"), 2)):
        pictures = [
            (output, kind) for output in outputs for kind in kinds if kind in output.get("data", {})
        ]
        for output, kind in sorted(pictures, key=lambda picture: -len(picture[0].data[picture[1]])):
            if len(nbformat.writes(notebook).encode()) <= limit:
                return notebook
            jpeg = encoded(output.data[kind], format="JPEG", quality=92, subsampling=subsampling)
            if len(jpeg) < len(output.data[kind]):
                about = output.metadata.pop(kind, None)
                del output.data[kind]
                output.data["image/jpeg"] = jpeg
                if about:
                    output.metadata["image/jpeg"] = about
    return notebook


def code_hash(notebook: nbformat.NotebookNode) -> str:
    """What tells whether a code cell was edited after the run that gave the outputs."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def encoded(picture: str, **options: object) -> str:
    """A picture in base64, written again as RGB in another way."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        on_white = Image.alpha_composite(
            Image.new("RGBA", image.size, "white"), image.convert("RGBA")
        )
        on_white.convert("RGB").save(file, **options)
    return base64.b64encode(file.getvalue()).decode()


def run(path: Path) -> nbformat.NotebookNode:
    """Execute one notebook from top to bottom with this Python; raises CellExecutionError where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(HERE)}}
    quiet = ["--log-level=ERROR"]
    client = TalkingClient(
        notebook,
        timeout=None,
        kernel_name="python3",  # Jupyter's name for the Python that runs this, whatever the file asks for
        resources=where,
        record_timing=False,
        extra_arguments=quiet,
    )
    client.coalesce_streams = True
    client.execute()
    return without_widgets(notebook)


def main(argv: list[str] | None = None) -> None:
    sys.stdout.reconfigure(errors="backslashreplace")  # letters that the output does not have
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--refresh",
        action="store_true",
        help="every notebook, on toy dogs; write the outputs into notebooks/",
    )
    parser.add_argument("only", nargs="*", help="just the notebooks whose names begin so, e.g. 03")
    options = parser.parse_args(argv)
    chapters, solutions = sorted(HERE.glob("*.ipynb")), sorted(HERE.glob("solutions/*.ipynb"))
    paths = [*chapters, *solutions] if options.refresh else chapters
    wanted = tuple(options.only) or (("",) if options.refresh else IN_MAKE_DOGS)
    for beginning in wanted:
        if not any(path.name.startswith(beginning) for path in paths):
            there = ", ".join(path.stem for path in chapters)
            sys.exit(f"no notebook's name begins with {beginning!r}; there are {there}")
    paths = [path for path in paths if path.name.startswith(wanted)]
    if options.refresh:
        with tempfile.TemporaryDirectory(prefix="vae-series-") as workspace:
            os.environ["VAE_HOME"] = workspace
            os.environ.pop("DOGS", None)
            if not options.only:
                print("The sweep over objectives, for 07: the longest part", flush=True)
                home = {"VAE_HOME": str(Path(workspace) / "sweep")}
                subprocess.run(
                    [sys.executable, HERE / "beta_sweep.py"], env=os.environ | home, check=True
                )
            refresh(paths)
    else:
        os.environ["VAE_HOME"] = str(folders().root)  # kernels run in another folder
        os.environ["DOGS"] = dogs_wanted() or ""
        make_dogs(paths)


def make_dogs(paths: list[Path]) -> None:
    """Run these notebooks; keep each as a page and as a notebook in the workspace's outputs."""
    outputs = folders().outputs
    try:
        outputs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(
            f"cannot write in {str(outputs)!r} ({error.strerror}): set VAE_HOME to another folder"
        )
    started = time.perf_counter()
    for path, notebook in run_all(paths):
        nbformat.write(notebook, outputs / path.name)
        (outputs / f"{path.stem}.html").write_text(page_of(notebook, path.stem), encoding="utf-8")
    print(f"\nDone in {(time.perf_counter() - started) / 60:.1f} minutes. In {outputs} you find:")
    for path in sorted(outputs.iterdir()):
        if path.suffix in (".png", ".json", ".html", ".ipynb"):
            print(f"  {path.name}")
    print("\n`make lab` opens the series in JupyterLab, to run it yourself step by step.")


def page_of(notebook: nbformat.NotebookNode, title: str) -> str:
    """The notebook as HTML, its pictures with their alt text, which nbconvert leaves in the notebook."""
    page, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": title}})
    soup = BeautifulSoup(page, "html.parser")
    about = [
        output.metadata.get(kind, {}).get("alt", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for kind in ("image/png", "image/jpeg")
        if kind in output.get("data", {})
    ]
    for image, alt in zip(soup.select(".jp-RenderedImage img"), about, strict=True):
        image["alt"] = alt
    return str(soup)


def refresh(paths: list[Path]) -> None:
    """Run these chapters and solutions, write their outputs into them, and the README's pictures into docs/."""
    for path, notebook in run_all(paths):
        notebook.metadata["code_hash"] = code_hash(notebook)
        nbformat.write(with_smaller_pictures(notebook), path)
    for picture in ("reconstructed.png", "samples.png", "rate_distortion.png", "factors.png"):
        if (folders().outputs / picture).exists():
            shutil.copyfile(folders().outputs / picture, HERE.parent / "docs" / picture)


def run_all(paths: list[Path]) -> Iterator[tuple[Path, nbformat.NotebookNode]]:
    """Each path with its executed notebook; ends the program at the first that fails."""
    for i, path in enumerate(paths, start=1):
        print(f"[{i}/{len(paths)}] {path.relative_to(HERE).with_suffix('')}", flush=True)
        began = time.perf_counter()
        try:
            yield path, run(path)
        except CellExecutionError as error:
            print(error, file=sys.stderr)
            sys.exit(f"{path.name} stopped with the error above; nothing after it was run")
        except DeadKernelError:
            sys.exit(
                f"{path.name}: its Python died, mostly for want of memory; close other programs"
            )
        except nbformat.reader.NotJSONError:
            sys.exit(f"{path.name} is not a notebook: it is damaged; fetch it again")
        print(f"  done in {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
