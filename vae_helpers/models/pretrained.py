"""Weights in safetensors files: those that come with the project, and those of Hugging Face diffusers.

models/pretrained/index.json names every file that is shipped, its SHA-256 and the shape of its latents.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from ..config import best_device
from ..files import WEIGHTS, atomic_write
from .checkpoint import build_vae
from .flow import LatentFlow
from .inference import decode_latents, to_uint8
from .priors import FullGaussian, GaussianMixture, Prior, StandardNormal
from .vae import BaseVAE

PRETRAINED = WEIGHTS
INDEX = "index.json"
LATENTS = "vector_latents"  # numbers, not weights: of `vector`'s latents, their mean, covariance factor and 24 examples


def load_pretrained(name: str, folder: str | Path = PRETRAINED) -> BaseVAE | Prior:
    """The VAE or prior that is shipped as `name`, in float32 and eval mode on the CPU.

    Raises ValueError for a name that is not shipped, or a file that is not, byte for byte, the one that was; FileNotFoundError
    when it is gone.
    """
    path, about = _shipped(name, folder)
    loaded = _load(path)
    if list(loaded.latent_shape) != about["latent_shape"]:
        raise ValueError(f"{name!r} has latents {list(loaded.latent_shape)}, and {INDEX} says {about['latent_shape']}")
    return loaded


def shipped_dogs(n: int = 1024, seed: int = 0, folder: str | Path = PRETRAINED) -> Tensor:
    """uint8 images (n, 3, 56, 56) that the shipped `vector` makes, for whoever has no photos: 24 real dogs, then dreams.

    The first come from latents of photos that no weights were trained on; the others from draws of a Gaussian with the mean
    and covariance of the latents of 9,000 photos, so that what is measured on them (principal axes, quantiles) is nearly what
    photos would give. seed: of the draws. Raises what `load_pretrained` raises.
    """
    numbers = load_file(_shipped(LATENTS, folder)[0])
    eps = torch.randn(n, len(numbers["mean"]), generator=torch.Generator().manual_seed(seed))
    dreams = numbers["mean"].float() + eps @ numbers["factor"].float().T
    z = torch.cat([numbers["examples"].float(), dreams])[:n]
    return to_uint8(decode_latents(load_pretrained("vector", folder).to(best_device()), z))


def write_index(folder: str | Path) -> None:
    """List the weights in `folder` in its index.json."""
    index = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        index[path.stem] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        if path.stem != LATENTS:
            index[path.stem]["latent_shape"] = list(_load(path).latent_shape)
    with atomic_write(Path(folder) / INDEX) as partial:
        partial.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _shipped(name: str, folder: str | Path) -> tuple[Path, dict]:
    """The file that is shipped as `name`, with the right content, and what the index says about it."""
    index_path = Path(folder) / INDEX
    index = json.loads(index_path.read_text(encoding="utf-8")) if index_path.is_file() else {}
    if name not in index:
        raise ValueError(
            f"{name!r} is not among the weights in {str(folder)!r}: {', '.join(sorted(index)) or 'there are none'}"
        )
    path = Path(folder) / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"no weights {str(path)!r}, though {INDEX} lists them: fetch the repository again")
    found, wanted = hashlib.sha256(path.read_bytes()).hexdigest(), index[name]["sha256"]
    if found != wanted:
        raise ValueError(f"{str(path)!r} is not the file that was shipped (SHA-256 {found[:8]}…, not {wanted[:8]}…)")
    return path, index[name]


def _load(path: Path) -> BaseVAE | Prior:
    with safe_open(path, "pt") as file:
        prior = (file.metadata() or {}).get("prior")
    kinds = {kind.__name__: kind for kind in (StandardNormal, FullGaussian, GaussianMixture, LatentFlow)}
    return kinds[prior].load(path) if prior in kinds else load_weights(path)


def save_weights(path: str | Path, vae: BaseVAE, dtype: torch.dtype = torch.float16) -> None:
    """Write a VAE's weights and architecture to one safetensors file, whole or not at all, in half precision by default."""
    weights = {name: x.detach().cpu().to(dtype).contiguous() for name, x in vae.state_dict().items()}
    with atomic_write(path) as partial:
        partial.write_bytes(save(weights, {"architecture": json.dumps(vae.architecture)}))


def load_weights(path: str | Path) -> BaseVAE:
    """The VAE that `save_weights` wrote, in float32 and eval mode on the CPU.

    Raises FileNotFoundError, or ValueError for a file that is not one of these.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights {str(path)!r}: check the path")
    try:
        with safe_open(path, "pt") as file:
            vae = build_vae(json.loads(file.metadata()["architecture"]))
        vae.load_state_dict(load_file(path))
        return vae.to(memory_format=torch.channels_last).eval()
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} does not hold the weights of a VAE: {error}") from None
