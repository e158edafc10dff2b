"""Checkpoints: each can be used alone, all are written whole, and none is used before it is checked.

vae_model_epoch_{epoch}.pth   weights, architecture, preprocessing, history, settings: a model to use
history.csv, config.json      a row an epoch, for a spreadsheet or a tracker; architecture, crop and settings, for people
training_state.pth            what is needed to go on from the newest of them (optimizer), kept once

A checkpoint may also be a .safetensors file with the same content. Neither kind can run code: .pth files load with
`weights_only=True` and nothing else. A field that an older file lacks has its default, one that is not known is ignored.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from errno import EINVAL
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ..files import load_weights, save_weights, write_file
from .attention import AttentionVAE, SpatialVAE
from .hub import is_hub_folder, read_hub_folder
from .losses import BETA
from .residual import ResidualVAE
from .vae import VAE, BaseVAE

STATE_FILE, HISTORY_FILE, CONFIG_FILE = "training_state.pth", "history.csv", "config.json"
_KINDS = {"vector": VAE, "attention": AttentionVAE, "spatial": SpatialVAE, "residual": ResidualVAE}
_CHECKPOINT_NAME = re.compile(r"vae_model_epoch_(\d+)\.(safetensors|pth)")


@dataclass(frozen=True)
class Checkpoint:
    """A ready model (in eval mode) and what came with it. history: one dict of averages per epoch; run: the name of the run
    that it is a part of (`run_name`)."""

    vae: BaseVAE
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    run: str = ""

    @property
    def beta(self) -> float:
        """The weight of the KL that the model was trained with; of a calibrated one, that of its newest epoch."""
        return ({"beta": BETA} | self.settings | (self.history or [{}])[-1])["beta"]


def checkpoint_path(folder: str | Path, epoch: int) -> Path:
    """`folder`/vae_model_epoch_{epoch}.pth"""
    return Path(folder) / f"vae_model_epoch_{epoch}.pth"


def list_checkpoints(folder: str | Path) -> dict[int, Path]:
    """Epoch -> path of every checkpoint in `folder`, oldest first; of two for one epoch the .pth."""
    paths = sorted(Path(folder).glob("vae_model_epoch_*"), key=lambda path: path.suffix, reverse=True)
    found = {int(m[1]): path for path in paths if (m := _CHECKPOINT_NAME.fullmatch(path.name))}
    return dict(sorted(found.items()))


def build_vae(architecture: dict[str, Any]) -> BaseVAE:
    """An untrained VAE with the `architecture` that another one has. Raises ValueError for a kind that there is not."""
    sizes = dict(architecture)
    kind = sizes.pop("kind", "vector")
    if kind not in _KINDS:
        raise ValueError(f"kind={kind!r} is not a kind of VAE known here: {', '.join(_KINDS)} (vector when absent)")
    return _KINDS[kind](**sizes)


def save_checkpoint(path: str | Path, checkpoint: Checkpoint, dtype: torch.dtype | None = None) -> None:
    """Write one checkpoint, whole or not at all: as safetensors when `path` ends so, as .pth otherwise.

    dtype: what weights are stored as (torch.float16 takes half the room); as they are when left out. Raises OSError that
    says why the file cannot be written.
    """
    vae = checkpoint.vae
    saved = {name: getattr(checkpoint, name) for name in ("epoch", "history", "settings", "run")}
    saved |= {"architecture": vae.architecture, "preprocessing": {"image_size": vae.image_size, "crop": vae.crop}}
    if Path(path).suffix == ".safetensors":
        save_weights(path, vae.state_dict(), saved, dtype)
    else:
        write_pth(path, saved | {"weights": {name: x.detach().to("cpu", dtype) for name, x in vae.state_dict().items()}})


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint, or weights with their architecture, into a ready VAE in float32 and eval mode on `device`.

    path: a file, or a folder, of which the newest checkpoint. Runs no code from it. Raises FileNotFoundError, or ValueError for
    what holds more than tensors and plain values, is damaged or of another program, fits no architecture, or holds NaN.
    """
    path = Path(path)
    if path.is_dir() and not is_hub_folder(path):  # where it holds none, the first is missed below
        path = next(reversed(list_checkpoints(path).values()), checkpoint_path(path, 1))
    if path.is_dir():
        weights, saved = read_hub_folder(path)
    elif path.suffix == ".safetensors":
        weights, saved = load_weights(path)
    else:
        saved = read_pth(path)
        weights = saved.get("weights")
    try:
        saved = saved.get("checkpoint", saved)  # where tree 9addd0c had it in safetensors
        if "architecture" not in saved:
            raise ValueError("it is made by another program, or a prior, which load_prior reads")
        vae = load_network(lambda: build_vae(saved["architecture"]), weights)
        vae.crop = str(saved.get("preprocessing", {}).get("crop", vae.crop))
        epoch, history, settings = saved.get("epoch", 0), list(saved.get("history", [])), dict(saved.get("settings", {}))
        if type(epoch) is not int or not all(isinstance(record, dict) for record in history):
            raise ValueError(f"epoch is {epoch!r}, or its history is not a list of records")
    except (LookupError, TypeError, AttributeError, RuntimeError, ValueError, OverflowError) as error:
        raise ValueError(f"{str(path)!r} does not hold a VAE of this package: {error}") from None
    vae.to(device=device, memory_format=torch.channels_last)
    return Checkpoint(vae, epoch, history, settings, str(saved.get("run", "")))


def load_network(make: Callable[[], nn.Module], weights: dict[str, Tensor]) -> nn.Module:
    """What `make` makes, with these weights in float32, in eval mode. Names of tree 9addd0c are taken, too.

    Sizes are compared before anything of the size that a file claims is made. Raises ValueError for weights that do not fit,
    are not all there, or are NaN or infinite.
    """
    with torch.device("meta"):  # no memory yet, and no random numbers
        network = make()
    for name, tensor in weights.items():
        if tensor.untyped_storage().nbytes() < tensor.nbytes:  # a small file may claim to be a large tensor
            raise ValueError(f"its weights are not all in the file: {name!r}")
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise ValueError(f"its weights hold NaN, infinite or other than real numbers: in {name!r}")
    weights = {name: tensor.to(torch.float32, copy=True) for name, tensor in current_names(weights, network).items()}
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:  # its first line only says that there is an error
        raise ValueError(f"its weights do not fit its architecture: {str(error).splitlines()[1].strip()}") from None
    return network.eval()


OLD_NAMES = (  # of tree 9addd0c -> today's, as regular expressions; numbers of layers are left, for `current_names`
    (r"\.curve\.(\d+)\.norm\.", r".curve.\1.norm1."),
    (r"\.first\.", ".conv1."),
    (r"\.second\.", ".conv2."),
    (r"^line_in\.", "encoder.linear_branch."),
    (r"^line_out\.", "decoder.linear_branch."),
    (r"^(en|de)coder\.line\.", r"\1coder.linear_branch."),
    (r"^(en|de)coder\.(curve\.)?(?=\d)", r"\1coder.conv_branch."),
    (r"^network\.enter\.", "network.proj_in."),  # from here on, of priors
    (r"^network\.place$", "network.pos_embed"),
    (r"^network\.when\.", "network.time_embed."),
    (r"^network\.shared\.", "network.modulation."),
    (r"^network\.last\.", "network.final_modulation."),
    (r"^network\.leave\.", "network.proj_out."),
    (r"^(network\.blocks\.\d+)\.own$", r"\1.block_modulation"),
    (r"^(network\.blocks\.\d+)\.qkv\.", r"\1.attention.in_proj_"),
    (r"^(network\.blocks\.\d+)\.out\.", r"\1.attention.out_proj."),
    (r"^factor$", "scale_tril"),
    (r"^over_gaussian$", "gaussian_baseline"),
)


def rename(name: str, table: Iterable[tuple[str, str | Callable]]) -> str:
    """`name` after every replacement in `table`: regular expressions, and what `re.sub` puts in their place."""
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def current_names(weights: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """`weights` of a network like this under today's names; tree 9addd0c numbered the layers (`encoder.curve.3.first`)."""

    def stage(place: re.Match) -> str:
        return f"{place[1]}.{list(dict(network.get_submodule(place[1]).named_children()))[int(place[2])]}."

    table = (*OLD_NAMES, (r"^(\w+\.conv_branch)\.(\d+)\.", stage))
    return {rename(name, table): weight for name, weight in weights.items()}


def save_training_state(folder: str | Path, state: dict[str, Any]) -> None:
    """Keep what the newest checkpoint needs to be trained further, in place of the one before."""
    write_pth(Path(folder) / STATE_FILE, state)


def load_training_state(folder: str | Path) -> dict[str, Any] | None:
    """What `save_training_state` kept last (what tree 9addd0c wrote, as if it had been written now), or None when there is
    nothing; `name` in it is what its checkpoints have as their `run`. Raises ValueError when it is damaged."""
    path = Path(folder) / STATE_FILE
    if not path.exists():
        return None
    state = read_pth(path)
    if not isinstance(state.get("run"), dict) or type(state.get("epoch")) is not int:
        raise ValueError(f"{str(path)!r} is not a training state")
    state.setdefault("name", run_name(state["run"]))
    settings = state["run"].get("settings", {})
    if "average" in settings:  # of tree 9addd0c
        settings |= {"ema_decay": settings.pop("average"), "max_shift": settings.pop("shift")}
        vae = build_vae(state["run"]["architecture"])
        if "learner" in state:
            state["model"] = current_names(state.pop("learner"), vae)
        if isinstance(vae, SpatialVAE) and "optimizer" in state:  # whose linear branches came last
            order = sorted(enumerate(vae.named_parameters()), key=lambda numbered: "linear_branch" in numbered[1][0])
            moments = state["optimizer"]["state"]
            state["optimizer"]["state"] = {new: moments[old] for old, (new, _) in enumerate(order) if old in moments}
    return state


def run_name(run: dict[str, Any]) -> str:
    """A short name for what a run was made with, the same for the same data, architecture and settings."""
    return "run-" + hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:8]


def archive_run(folder: str | Path, name: str) -> Path:
    """Move every checkpoint, the training state and the history to `folder/name` (or `name-2`, …); returns that folder."""
    folder = Path(folder)
    names = (f"{name}-{n}" if n > 1 else name for n in range(1, 10_000))
    target = next(folder / each for each in names if not (folder / each).exists())
    target.mkdir(parents=True)
    for path in sorted(folder.iterdir()):  # the state before them: after a kill, checkpoints without one are another run's
        if path.name in (STATE_FILE, HISTORY_FILE, CONFIG_FILE) or _CHECKPOINT_NAME.fullmatch(path.name):
            path.rename(target / path.name)
    return target


def write_pth(path: str | Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values to one .pth file, whole or not at all. Raises OSError that says why it cannot."""
    buffer = io.BytesIO()  # torch would not say why it cannot write
    torch.save(content, buffer)
    write_file(path, buffer.getvalue())


def read_pth(path: str | Path) -> dict[str, Any]:
    """What `write_pth` wrote. Raises FileNotFoundError, or ValueError for a file that is damaged or could run code."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint {str(path)!r}: train first (notebook 03, or make dogs), or check the path")
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself looks neither at checksums nor at what would grow
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()) or archive.testzip():
                raise ValueError("it is compressed, or its checksum is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can make a reader raise anything
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno != EINVAL):  # not the file's fault
            raise
        problem = "is damaged, no checkpoint, or holds more than tensors and plain values, which could run code"
        raise ValueError(f"{str(path)!r} {problem}; it was not loaded: {str(error).partition(chr(10))[0]}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} does not hold a VAE of this package: it holds a {type(content).__name__}")
    return content
