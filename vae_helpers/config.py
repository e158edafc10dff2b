"""Where things are and what this machine can do. The only reader of environment variables:

VAE_HOME   folder for everything written (default: the nearest parent folder that is this project, else the current one), so that many can share one installation
DOGS       dogs for the notebooks: a folder of photos, oxford-pets, stanford-dogs, or toy (the default: drawn on the spot)
VAE_CROP   1: cut a square out of each photo, around the dog where that is known (default: squash the whole photo)
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
    def photos(self) -> Path:
        return self.root / "data" / "photos"

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
    """The folders under the workspace: VAE_HOME, else the nearest parent folder that is this project, else the current folder."""
    return Folders(Path(os.environ.get("VAE_HOME") or project_folder() or "").expanduser().resolve())


def project_folder() -> Path | None:
    """The nearest folder, from the current one upwards, that holds this project's pyproject.toml; None outside of it."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        about = folder / "pyproject.toml"
        if about.is_file() and 'name = "vae_helpers"' in about.read_text(encoding="utf-8", errors="replace"):
            return folder
    return None


def dogs_wanted() -> str | None:
    """What DOGS says: "toy", the name of a collection, or a folder, for `resolve_source`; None when it says nothing."""
    return os.environ.get("DOGS", "").strip() or None


def crop_wanted() -> bool:
    """Whether a square is cut out of each image when it is split (VAE_CROP=1), instead of squashing it."""
    return os.environ.get("VAE_CROP", "0") not in ("", "0")


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


def use_bfloat16(device: torch.device) -> bool:
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
