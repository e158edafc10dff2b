"""VAEs and priors by name: those that come with the package, those in a file or a folder, and in files of diffusers."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ..files import SHIPPED, load_weights, save_weights, write_file
from .attention import MULTIPLES, AttentionVAE
from .checkpoint import OLD_NAMES, build_vae, load_checkpoint, load_network, rename
from .flow import LatentFlow
from .hub import download
from .priors import FullGaussian, GaussianMixture, Prior, StandardNormal
from .vae import BaseVAE

WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
_ALWAYS = {  # in the config of every network that is ours
    **{"in_channels": 3, "out_channels": 3, "layers_per_block": 2, "act_fn": "silu"},
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
_NAMES = (  # ours, and the attention's in older files of theirs -> theirs, as regular expressions
    (r"(en|de)coder\.conv_branch\.((post_)?quant_conv)", r"\2"),
    (r"\.conv_branch\.", "."),
    (r"(down|up)(\d)_block(\d)", r"\1_blocks.\2.resnets.\3"),
    (r"(down|up)(\d)_resample\.1", r"\1_blocks.\2.\1samplers.0.conv"),
    (r"mid_block(\d)", r"mid_block.resnets.\1"),
    (r"mid_attention\.norm", "mid_attention.group_norm"),
    (r"mid_attention", "mid_block.attentions.0"),
    (r"\.norm_out", ".conv_norm_out"),
    (r"\.skip\.", ".conv_shortcut."),
    (r"\.(q|k|v)(uery|ey|alue)\.", r".to_\1."),
    (r"\.(out|proj_attn)\.", ".to_out.0."),
)


def load_pretrained(x: str | Path, image_size: int | None = None) -> BaseVAE:
    """The VAE that `x` names, in float32 and eval mode on the CPU.

    x, tried in this order: the name of weights that come with the package; a file (.pth, .safetensors), or a folder, of which
    the newest checkpoint, or what `save_pretrained` wrote; a name `owner/name` of the Hugging Face hub. image_size: of the
    pictures that it is to take and return, where it has several: a `ResidualVAE` that is grown has 56 and 112. Raises
    ValueError for a name that means nothing here, a size that it does not have, and a file that is damaged or holds something
    else; FileNotFoundError for a folder without checkpoints.
    """
    vae = load_checkpoint(find_weights(x)).vae
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
    beside, path = part_path(x, "prior"), find_weights(x)
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


def find_weights(x: str | Path) -> Path:
    """The file or folder that `x` stands for, as `load_pretrained` says. Raises ValueError where there is none."""
    path = SHIPPED.get(str(x), Path(x))
    if (
        not path.exists()
        and re.fullmatch(r"[\w.-]+/[\w.-]+", str(x))
        and path.parent.name not in (".", "..")
        and not path.suffix
    ):
        try:
            return download(str(x))
        except (OSError, ValueError) as error:
            raise ValueError(f"{str(x)!r} is no file or folder, and the hub does not give it: {error}") from None
    if not path.exists():
        raise ValueError(f"{str(x)!r} is no file or folder, and not one of the weights here: {', '.join(SHIPPED)}")
    return path


def digest(*tensors: Tensor) -> str:
    """The SHA-256 of shapes and numbers: the same for the same tensors, wherever they are."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(str(tuple(tensor.shape)).encode())
        found.update(tensor.cpu().contiguous().numpy())
    return found.hexdigest()


def part_path(x: str | Path, part: str) -> Path:
    """Where a part of the VAE `x` is: FOLDER/PART.safetensors, or NAME_PART.safetensors beside its file.

    x: as in `load_pretrained`. part: "prior" or "decoder_sharp". Raises the errors of `find_weights`.
    """
    path = find_weights(x)
    return path / f"{part}.safetensors" if path.is_dir() else path.with_name(f"{path.stem}_{part}.safetensors")


def belongs_to(part: Path, vae: BaseVAE) -> bool:
    """Whether a file with a prior or a decoder was made for the encoder of `vae`; also when it does not say for which."""
    return load_weights(part)[1].get("encoder") in (None, "", digest(*vae.encoder.state_dict().values()))


def save_decoder(path: str | Path, vae: BaseVAE, about: dict[str, Any]) -> None:
    """Write the decoder of `vae` alone, in half precision, and what it was made with. Raises OSError as `save_weights` does."""
    about = about | {"architecture": vae.architecture, "encoder": digest(*vae.encoder.state_dict().values())}
    save_weights(path, vae.decoder.state_dict(), about, torch.float16)


def load_decoder(path: str | Path, vae: BaseVAE) -> BaseVAE:
    """`vae` with the decoder that `save_decoder` wrote. Raises ValueError for a file that holds something else."""
    weights, _ = load_weights(path)
    weights = vae.state_dict() | {f"decoder.{name}": weight for name, weight in weights.items()}
    sharp = load_network(lambda: build_vae(vae.architecture), weights)
    sharp.crop = vae.crop
    return sharp.to(device=next(vae.parameters()).device, memory_format=torch.channels_last)


def to_diffusers(vae: AttentionVAE, folder: str | Path) -> None:
    """Write `folder`/config.json and weights, which diffusers reads: `AutoencoderKL.from_pretrained(folder)`.

    Raises ValueError for another kind of VAE: diffusers has no such layers.
    """
    sizes = vae.architecture
    if sizes.get("kind") != "attention":
        raise ValueError(f"diffusers knows the layers of AttentionVAE, not those of {type(vae).__name__}")
    config = {
        "_class_name": "AutoencoderKL",
        **_ALWAYS,
        "block_out_channels": [sizes["width"] * multiple for multiple in MULTIPLES],
        "latent_channels": sizes["latent_channels"],
        "norm_num_groups": sizes["groups"],
        "sample_size": sizes["image_size"],
        "scaling_factor": 1.0,  # of latents, for a diffusion model: ours are about 1 wide as they are
    }
    write_file(Path(folder) / "config.json", json.dumps(config, indent=1))
    weights = {rename(name, _NAMES): x.detach().cpu().contiguous() for name, x in vae.state_dict().items()}
    write_file(Path(folder) / WEIGHTS_NAME, save(weights, {"format": "pt"}))


def from_diffusers(folder: str | Path, image_size: int | None = None) -> AttentionVAE:
    """The `AutoencoderKL` saved in `folder` as our own network, in eval mode; Stable Diffusion's too.

    image_size: S of the images it will see (default: what its config says). Raises ValueError when it is another network or
    damaged, FileNotFoundError when config or weights are not there.
    """
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        config = {"latent_channels": 4, "norm_num_groups": 32, "sample_size": 32, "block_out_channels": [64]} | config  # theirs
        width = config["block_out_channels"][0]
        ours = _ALWAYS | {"block_out_channels": [width * multiple for multiple in MULTIPLES]}
        other = [f"{name} {config[name]!r}, not {ours[name]!r}" for name in ours if config.get(name, ours[name]) != ours[name]]
        if other:
            raise ValueError(f"its config says {'; '.join(other)}")
        sizes = width, config["latent_channels"], config["norm_num_groups"], image_size or config["sample_size"]
        with torch.device("meta"):
            names = {rename(name, _NAMES): name for name in AttentionVAE(*sizes).state_dict()}
        weights, _ = load_weights(Path(folder) / WEIGHTS_NAME)
        theirs = {rename(name, _NAMES): x for name, x in weights.items()}  # older names too
        return load_network(lambda: AttentionVAE(*sizes), {names.get(name, name): x for name, x in theirs.items()})
    except (LookupError, TypeError, ValueError) as error:
        wrong = "holds another network than Stable Diffusion's autoencoder, or is damaged"
        raise ValueError(f"{str(folder)!r} {wrong}: {error}") from None
