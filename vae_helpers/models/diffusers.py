"""To and from the files of Hugging Face diffusers."""

import json
from pathlib import Path

import torch
from safetensors.torch import save

from ..files import load_weights, write_file
from .attention import MULTIPLES, AttentionVAE
from .checkpoint import load_network, rename

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
