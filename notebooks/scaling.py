"""For notebook 10: commands in a workspace of their own, and training in several processes."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

from vae_helpers.cli import main


class _Shortened(io.TextIOBase):
    """Standard output, in which the path of the workspace, another in every run, is WORKSPACE."""

    def __init__(self, home: Path) -> None:
        self.home, self.out = str(home), sys.stdout

    def write(self, text: str) -> int:
        return self.out.write(text.replace(self.home, "WORKSPACE"))

    def flush(self) -> None:
        self.out.flush()


def run(home: Path, line: str) -> None:
    """`vae-helpers LINE` in the workspace `home`, which is WORKSPACE in the line and in the output.

    It runs in this process, so that libraries are loaded once. Raises SystemExit when the command
    fails, and says why.
    """
    words = [word.replace("WORKSPACE", str(home)) for word in line.split()]
    where = {"VAE_HOME": str(home), "VAE_CROP": ""}
    with mock.patch.dict(os.environ, where), redirect_stdout(_Shortened(home)):
        main(words)


def train(home: Path, processes: int, *options: str) -> str:
    """`python -m vae_helpers train` in a workspace of its own, in so many processes on this CPU.

    Returns what was printed. Raises RuntimeError with it when training fails.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *torchrun, "-m", "vae_helpers", "train", *options]
    float32 = os.environ | {"VAE_HOME": str(home), "VAE_BF16": "0", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, env=float32, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(result.stdout + result.stderr)
    return result.stdout
