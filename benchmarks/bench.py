"""What training costs on this machine, and what it buys: `make bench`, or `DOGS=folder make bench`.

Every part runs in a process of its own, one after another, on the same images, in a temporary workspace (with --quick, all but
the first in one):

machine      the peak in float32 and bfloat16: the faster of a matrix product and a wide convolution
naive        the loop such notebooks are usually written with: decode in every epoch, float32, batch 4, in every step a second
             forward pass and a PNG; with our network, and with the attention VAE at full width (a few steps, extrapolated)
networks     ours: an epoch of `fit` against the bare step on ready tensors, turn about; encoding, decoding; bfloat16 on and off
start        importing the package; the command line until its first step, cache warm
quality      seconds until the validation loss is below probabilistic PCA's; its value after ten minutes; then once on test
scale        20,000 pictures and 200,000: time and anonymous memory of split, train, evaluate and duplicates
gpu          (with CUDA) 100 epochs of 16,463 images; the attention VAE at full width; the loss curve against the CPU's

Writes benchmarks/results/<machine>.json and .md, prints the latter, and puts the tables of all machines into
docs/benchmarks.md. Speeds are medians, of turns taken one after the other.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import parts
import torch
from table import markdown, page_with_tables

from vae_helpers.config import best_device

RESULTS = Path(__file__).with_name("results")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def machine_name() -> str:
    """A name for a file: of the GPU when there is one, else of the CPU, and how many cores."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        name = getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name", platform.machine())
    return re.sub(r"[^a-z0-9]+", "-", f"{name} {os.cpu_count()} cores".lower()).strip("-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=parts.ALL, help="just these parts; the others keep their last results")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything, to see that it runs; no figures")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # what the parent calls itself with
    options = parser.parse_args()
    if options.part:
        result = parts.EVERY[options.part](options.quick)
        Path(os.environ["VAE_HOME"], "result.json").write_text(json.dumps(result))
        return
    with tempfile.TemporaryDirectory(prefix="vae-bench-") as workspace:
        here = RESULTS if not options.quick else Path(workspace)
        here.mkdir(exist_ok=True)
        file = here / f"{machine_name()}.json"
        results = json.loads(file.read_text()) if file.exists() else {}
        results["about"] = {"machine": machine_name(), "device": best_device().type, "torch": torch.__version__}
        for name in dict.fromkeys(("images", *(options.only or parts.ALL))):
            print(f"{name} …", flush=True)
            arguments = ["--part", name, *(["--quick"] if options.quick else [])]
            os.environ["VAE_HOME"] = workspace
            if options.quick and name != "images":
                with contextlib.redirect_stdout(io.StringIO()):
                    results[name] = parts.EVERY[name](True)
            else:
                subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.DEVNULL)
                results[name] = json.loads(Path(workspace, "result.json").read_text())
            file.write_text(json.dumps(results, indent=1) + "\n")
        text = markdown(results)
        file.with_suffix(".md").write_text(text)
        if not options.quick:
            PAGE.write_text(page_with_tables(PAGE.read_text(), RESULTS))
        print(f"\n{text}")


if __name__ == "__main__":
    main()
