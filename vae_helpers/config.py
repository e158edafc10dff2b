"""The workspace and what a person asks for. The only reader of environment variables, which all may be left out:

VAE_HOME     the folder for everything written (default: the nearest parent folder that is this project, else the current one)
DOGS         dogs for the notebooks: a folder of photos, oxford-pets, stanford-dogs, or toy (the default: drawn on the spot)
VAE_CROP     none, center, box or head: how a square is cut out of each photo; 1 means box (default: squash the whole photo)
VAE_SMOKE    1: the notebooks run in seconds on a handful of dogs, to test them
VAE_BF16     1 or 0: compute in bfloat16 or in float32 (default: bfloat16 where the machine has units for it)
VAE_COMPILE  1: train a compiled network (torch.compile), which takes a minute to begin with: for long runs on a GPU

VAE_HOME and DOGS may be relative: DOGS is looked for from the current folder, then from the project's; VAE_HOME is taken from
the project's folder, or the current one outside of it, so that a notebook and a command line mean the same workspace.
Yes is 1, true, yes or on; no is 0, false, no or off; empty is the default; any other word is a ValueError.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CROPS = ("none", "center", "box", "head")
"""Ways to cut a square out of a photo; "none" squashes the whole photo."""
NAMED_DOGS = ("toy", "oxford-pets", "stanford-dogs")
"""What DOGS may say instead of a folder."""
_ANSWERS = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False) | {"": None}


class Folders:
    """The folders under one root. None is made until something is written to it."""

    def __init__(self, root: Path) -> None:
        self.root, self.outputs, self.models = root, root / "outputs", root / "models"
        self.train, self.test = root / "data" / "train" / "dogs", root / "data" / "test" / "dogs"
        self.toy_dogs, self.photos, self.cache = (root / "data" / name for name in ("toy_dogs", "photos", "cache"))
        self.checkpoints = self.models / "saved_models"


def folders() -> Folders:
    """The folders of the workspace: VAE_HOME, else the nearest parent folder that is this project, else the current one."""
    return Folders((_project() / Path(os.environ.get("VAE_HOME", "")).expanduser()).resolve())


def _project() -> Path:
    """The nearest folder, from the current one upwards, that holds this project's pyproject.toml, else the current folder."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        about = folder / "pyproject.toml"
        if about.is_file() and 'name = "vae_helpers"' in about.read_text(encoding="utf-8", errors="replace"):
            return folder
    return Path.cwd()


def dogs_wanted() -> str | None:
    """What DOGS says, for `resolve_source`: a name, or a folder as an absolute path; None when it says nothing."""
    word = os.environ.get("DOGS", "").strip().strip("'\"")
    if not word or word in NAMED_DOGS or "://" in word:
        return word or None
    paths = [(start / os.path.expanduser(word)).resolve() for start in (Path.cwd(), _project())]  # noqa: PTH111 (~nobody)
    there = [str(path) for path in paths if path.is_dir()]
    return next(iter(there), word.lower() if word.lower() in NAMED_DOGS else str(paths[0]))


def crop_wanted() -> str:
    """The word in `CROPS` that VAE_CROP says; "none" when it says nothing."""
    word = os.environ.get("VAE_CROP", "").strip().lower()
    return word if word in CROPS else "box" if _flag("VAE_CROP", *CROPS) else "none"


def full_or_smoke(full: Any, smoke: Any) -> Any:
    """The value for a full run, or the small one where VAE_SMOKE says so."""
    return smoke if _flag("VAE_SMOKE") else full


def precision_wanted() -> str:
    """What VAE_BF16 says: "bfloat16", "float32", or "auto" when it says nothing."""
    return {None: "auto", True: "bfloat16", False: "float32"}[_flag("VAE_BF16")]


def compile_wanted() -> bool:
    """Whether training compiles the network first (VAE_COMPILE)."""
    return bool(_flag("VAE_COMPILE"))


def best_device() -> "torch.device":
    """CUDA when there is one, else Apple's MPS (which several processes cannot share), else the CPU."""
    import torch

    alone = os.environ.get("WORLD_SIZE", "1") == "1"  # a launcher sets it
    mps = alone and torch.backends.mps.is_available()
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")


def memory() -> tuple[int, bool]:
    """(bytes where a network is trained, in use or free, whether they are a GPU's own): the same whenever one asks."""
    import psutil
    import torch

    gpu = best_device().type == "cuda"
    return (torch.cuda.mem_get_info()[1] if gpu else psutil.virtual_memory().total), gpu


def is_main_process() -> bool:
    """Whether this process is alone, or the first of those that a launcher started together."""
    return os.environ.get("RANK", "0") == "0"


def _flag(name: str, *others: str) -> bool | None:
    word = os.environ.get(name, "").strip().lower()
    if word not in _ANSWERS:
        raise ValueError(f"{name}={word!r}: say {', '.join(filter(None, (*_ANSWERS, *others)))}, or leave it out")
    return _ANSWERS[word]
