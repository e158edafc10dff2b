"""Where things are and what this machine can do. The only reader of environment variables:

VAE_HOME   folder for everything written (default: the project's folder), so that many can share one installation
DOGS       folder of photos for the notebooks (default: toy dogs, drawn on the spot)
VAE_SMOKE  1: the notebooks run in seconds on a handful of dogs, to test them
VAE_BF16   1 or 0: compute in bfloat16 or not (default: where the machine has units for it)
VAE_COMPILE 1: train a compiled network (torch.compile): takes a minute to begin with, for long runs on a GPU
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")

PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Folders:
    """The folders under one root. None is made until something is written to it."""

    root: Path

    @property
    def train(self) -> Path:
        return self.root / "data" / "train" / "dogs"

    @property
    def test(self) -> Path:
        return self.root / "data" / "test" / "dogs"

    @property
    def toy_dogs(self) -> Path:
        return self.root / "data" / "toy_dogs"

    @property
    def cache(self) -> Path:
        return self.root / "data" / "cache"

    @property
    def checkpoints(self) -> Path:
        return self.root / "models" / "saved_models"

    @property
    def outputs(self) -> Path:
        return self.root / "outputs"

    def shown(self, path: str | Path) -> str:
        """`path` as a reader should see it: from the root, with forward slashes."""
        path = Path(path).resolve()
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name


def folders() -> Folders:
    """The folders under VAE_HOME, or under the project."""
    return Folders(Path(os.environ.get("VAE_HOME") or PROJECT).expanduser().resolve())


def dogs_source() -> Path | None:
    """The folder named by DOGS, or None for toy dogs. A relative path is looked for here, then from the project.

    Raises FileNotFoundError when there is no such folder.
    """
    wanted = os.environ.get("DOGS", "").strip()
    if wanted in ("", "toy"):
        return None
    for start in (Path.cwd(), PROJECT):
        path = (start / Path(wanted).expanduser()).resolve()
        if path.is_dir():
            return path
    raise FileNotFoundError(f"DOGS={wanted!r}: no such folder, neither from {Path.cwd()} nor from {PROJECT}")


def smoke() -> bool:
    """Whether the notebooks run in smoke mode (VAE_SMOKE=1)."""
    return os.environ.get("VAE_SMOKE", "0") not in ("", "0")


def full_or_smoke(full: T, smoke_value: T) -> T:
    """The value for a full run, or the small one in smoke mode."""
    return smoke_value if smoke() else full


def best_device() -> torch.device:
    """CUDA when there is one, else Apple's MPS (which several processes cannot share), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available() and os.environ.get("WORLD_SIZE", "1") == "1":  # a launcher sets it
        return torch.device("mps")
    return torch.device("cpu")


def bf16_pays(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 on `device`: only where there are units for it. VAE_BF16 overrules."""
    if os.environ.get("VAE_BF16"):
        return os.environ["VAE_BF16"] != "0"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        can = getattr(torch.cpu, "get_capabilities", dict)()  # not there in an older torch: then float32
        return bool(can.get("amx_bf16") or can.get("avx512_bf16"))
    return False


def compile_wanted() -> bool:
    """Whether training compiles the network first (VAE_COMPILE=1)."""
    return os.environ.get("VAE_COMPILE", "0") not in ("", "0")
