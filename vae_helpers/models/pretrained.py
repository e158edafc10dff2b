"""VAEs and priors by name: those that come with the package, and those in a file or a folder."""

from pathlib import Path

from ..files import WEIGHTS, load_weights
from .checkpoint import load_checkpoint, load_newest_checkpoint
from .flow import prior_from
from .priors import Prior
from .vae import BaseVAE


def load_pretrained(x: str | Path) -> BaseVAE:
    """The VAE that `x` names, in float32 and eval mode on the CPU.

    x, tried in this order: the name of weights that come with the package; a file (.pth, .safetensors), or a folder, of which
    the newest checkpoint. Raises ValueError for a name that means nothing here, and for a file that holds something else or is
    damaged; FileNotFoundError for a folder without checkpoints.
    """
    path = _find(x)
    return (load_newest_checkpoint if path.is_dir() else load_checkpoint)(path).vae


def load_prior(x: str | Path) -> Prior:
    """The prior that `x` names, in float32 and eval mode on the CPU.

    x: as in `load_pretrained`; of a folder its prior.safetensors. Raises the same errors.
    """
    path = _find(x)
    path = path / "prior.safetensors" if path.is_dir() else path
    state, metadata = load_weights(path)
    try:
        return prior_from(state, metadata)
    except ValueError as error:
        raise ValueError(f"{str(x)!r} is not a prior (load_pretrained reads VAEs): {error}") from None


def _find(x: str | Path) -> Path:
    """The file or folder that `x` stands for."""
    shipped = {path.stem: path for path in sorted(WEIGHTS.glob("*.safetensors"))}
    path = shipped.get(str(x), Path(x))
    if not path.exists():
        hub = "from the Hugging Face hub nothing can be loaded yet"
        raise ValueError(f"{str(x)!r} is no file or folder, and not one of the weights here: {', '.join(shipped)} ({hub})")
    return path
