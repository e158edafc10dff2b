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

from .attention import MULTIPLES, AttentionVAE
from .checkpoint import build_vae
from .data import to_bytes
from .files import written_whole
from .flow import LatentFlow
from .metrics import decode_latents
from .model import BaseVAE
from .priors import FullGaussian, GaussianMixture, Prior, StandardNormal
from .settings import PROJECT, best_device

PRETRAINED = PROJECT / "models" / "pretrained"
INDEX = "index.json"
LATENTS = "vector_latents"  # numbers, not weights: of `vector`'s latents, their mean, covariance factor and 24 examples
DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"


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
    return to_bytes(decode_latents(load_pretrained("vector", folder).to(best_device()), z))


def write_index(folder: str | Path) -> None:
    """List the weights in `folder` in its index.json."""
    index = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        index[path.stem] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        if path.stem != LATENTS:
            index[path.stem]["latent_shape"] = list(_load(path).latent_shape)
    with written_whole(Path(folder) / INDEX) as partial:
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
    with written_whole(path) as partial:
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


def to_diffusers(vae: AttentionVAE, folder: str | Path) -> None:
    """Write `folder`/config.json and weights, which diffusers reads: `AutoencoderKL.from_pretrained(folder)`.

    Raises ValueError for another kind of VAE: diffusers has no such layers.
    """
    sizes = vae.architecture
    if sizes.get("kind") != "attention":
        raise ValueError(f"diffusers knows the layers of AttentionVAE, not those of {type(vae).__name__}")
    config = {
        "_class_name": "AutoencoderKL",
        **{"in_channels": 3, "out_channels": 3, "layers_per_block": 2, "act_fn": "silu"},
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "block_out_channels": [sizes["width"] * multiple for multiple in MULTIPLES],
        "latent_channels": sizes["latent_channels"],
        "norm_num_groups": sizes["groups"],
        "sample_size": sizes["image_size"],
        "scaling_factor": 1.0,  # of latents, for a diffusion model: ours are about 1 wide as they are
    }
    with written_whole(Path(folder) / "config.json") as partial:
        partial.write_text(json.dumps(config, indent=1), encoding="utf-8")
    weights = {diffusers_name(name): x.detach().cpu().contiguous() for name, x in vae.state_dict().items()}
    with written_whole(Path(folder) / DIFFUSERS_WEIGHTS) as partial:
        partial.write_bytes(save(weights, {"format": "pt"}))


def from_diffusers(folder: str | Path, image_size: int | None = None) -> AttentionVAE:
    """The `AutoencoderKL` saved in `folder` as our own network, in eval mode; Stable Diffusion's too.

    image_size: S of the images it will see (default: what its config says). Raises ValueError when it is another network.
    """
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    channels = config["block_out_channels"]
    width = channels[0]
    if channels != [width * multiple for multiple in MULTIPLES] or config.get("layers_per_block", 1) != 2:
        raise ValueError(
            f"{str(folder)!r} has channels {channels} and {config.get('layers_per_block', 1)} layers a block, not "
            f"{[width * multiple for multiple in MULTIPLES]} and 2: another network than Stable Diffusion's autoencoder"
        )
    vae = AttentionVAE(width, config["latent_channels"], config["norm_num_groups"], image_size or config["sample_size"])
    theirs = load_file(Path(folder) / DIFFUSERS_WEIGHTS)
    try:
        vae.load_state_dict({name: theirs.pop(diffusers_name(name)).float() for name in vae.state_dict()})
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"the weights in {str(folder)!r} are not those of the network in its config: {error}") from None
    if theirs:
        raise ValueError(f"{str(folder)!r} holds {len(theirs)} weights that this network has not, first: {min(theirs)}")
    return vae.eval()


_ENCODER = [
    "conv_in",
    *(f"down_blocks.{i}.{part}" for i in range(3) for part in ("resnets.0", "resnets.1", "downsamplers.0")),
    *("down_blocks.3.resnets.0", "down_blocks.3.resnets.1"),
    *("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    *("conv_norm_out", "silu", "conv_out", "quant_conv"),
]
_DECODER = [
    *("post_quant_conv", "conv_in"),
    *("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    *(f"up_blocks.{i}.{part}" for i in range(3) for part in ("resnets.0", "resnets.1", "resnets.2", "upsamplers.0")),
    *("up_blocks.3.resnets.0", "up_blocks.3.resnets.1", "up_blocks.3.resnets.2"),
    *("conv_norm_out", "silu", "conv_out"),
]
_INSIDE = {"skip": "conv_shortcut", "norm": "group_norm", "query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}
_INSIDE["1"] = "conv"  # after the padding or doubling


def diffusers_name(name: str) -> str:
    """What diffusers calls a weight of ours: "decoder.3.query.bias" -> "decoder.mid_block.attentions.0.to_q.bias"."""
    half, layer, *inside = name.split(".")
    theirs = {"encoder": _ENCODER, "decoder": _DECODER}[half][int(layer)]
    whole = theirs if "quant_conv" in theirs else f"{half}.{theirs}"
    return ".".join([whole, *(_INSIDE.get(part, part) for part in inside)])
