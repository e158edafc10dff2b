"""To and from the files of Hugging Face diffusers."""

import json
from pathlib import Path

from safetensors.torch import load_file, save

from ..files import atomic_write
from .attention import MULTIPLES, AttentionVAE

DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"


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
    with atomic_write(Path(folder) / "config.json") as partial:
        partial.write_text(json.dumps(config, indent=1), encoding="utf-8")
    weights = {diffusers_name(name): x.detach().cpu().contiguous() for name, x in vae.state_dict().items()}
    with atomic_write(Path(folder) / DIFFUSERS_WEIGHTS) as partial:
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
