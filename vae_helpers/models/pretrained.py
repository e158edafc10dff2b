"""VAEs and priors by name: those that come with the package, and those in a file or a folder."""

from pathlib import Path

import torch

from ..files import WEIGHTS, load_weights
from .checkpoint import OLD_NAMES, build_vae, load_checkpoint, load_network, rename
from .flow import LatentFlow
from .priors import FullGaussian, GaussianMixture, Prior, StandardNormal
from .vae import BaseVAE


def load_pretrained(x: str | Path, image_size: int | None = None) -> BaseVAE:
    """The VAE that `x` names, in float32 and eval mode on the CPU.

    x, tried in this order: the name of weights that come with the package; a file (.pth, .safetensors), or a folder, of which
    the newest checkpoint. image_size: of the pictures that it is to take and return, where it has several: a `ResidualVAE` that
    is grown has 56 and 112. Raises ValueError for a name that means nothing here, a size that it does not have, and a file that
    holds something else or is damaged; FileNotFoundError for a folder without checkpoints.
    """
    vae = load_checkpoint(_find(x)).vae
    if image_size in (None, vae.image_size):
        return vae
    if not vae.architecture.get("grown"):
        raise ValueError(f"{str(x)!r} has one size, {vae.image_size} x {vae.image_size} pixels; {image_size=} was asked for")
    resized = load_network(lambda: build_vae(vae.architecture | {"image_size": image_size}), vae.state_dict())
    resized.crop = vae.crop
    return resized


def load_prior(x: str | Path) -> Prior:
    """The prior that `x` names, in float32 and eval mode on the CPU; of a VAE the one that belongs to it.

    x: as in `load_pretrained`. To a VAE belongs NAME_prior.safetensors beside its file, or prior.safetensors in its folder;
    where there is none, N(0, I). Raises the same errors.
    """
    path = _find(x)
    beside = path / "prior.safetensors" if path.is_dir() else path.with_name(f"{path.stem}_prior.safetensors")
    path = beside if beside.is_file() else path
    state, metadata = load_weights(path) if path.suffix == ".safetensors" else ({}, {})
    if "prior" not in metadata:
        return StandardNormal(load_pretrained(x).latent_shape)
    kinds = {kind.__name__: kind for kind in (StandardNormal, FullGaussian, GaussianMixture, LatentFlow)}
    try:
        kind, arguments = kinds[metadata["prior"]], metadata["arguments"]
        arguments = {rename(name, OLD_NAMES): value for name, value in arguments.items()}
        if kind is FullGaussian and "mean" in state:  # of tree 9addd0c, where it was no mixture of one
            state |= {"means": state.pop("mean")[None], "weights": torch.ones(1)}
        return load_network(lambda: kind(**arguments), state)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(x)!r} is not a prior that is known here: {error}") from None


def _find(x: str | Path) -> Path:
    """The file or folder that `x` stands for."""
    shipped = {path.stem: path for path in sorted(WEIGHTS.glob("*.safetensors"))}
    path = shipped.get(str(x), Path(x))
    if not path.exists():
        hub = "from the Hugging Face hub nothing can be loaded yet"
        raise ValueError(f"{str(x)!r} is no file or folder, and not one of the weights here: {', '.join(shipped)} ({hub})")
    return path
