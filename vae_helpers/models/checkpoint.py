"""Checkpoints: each can be used alone, all are written whole, and none is used before it is checked.

vae_model_epoch_{epoch}.pth   weights, architecture, image size, latent shape, history, settings: a model to use
training_state.pth            what is needed to go on from the newest of them (optimizer), kept once

A checkpoint may also be a .safetensors file: the same functions write and read it. Neither kind can run code: .pth files load
with `weights_only=True` and nothing else.
"""

import hashlib
import io
import json
import pickle
import re
import warnings
import zipfile
from dataclasses import dataclass
from errno import EINVAL
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from ..files import atomic_write
from .attention import AttentionVAE, SpatialVAE
from .losses import BETA
from .vae import VAE, BaseVAE

STATE_FILE = "training_state.pth"
_NAME = re.compile(r"vae_model_epoch_(\d+)\.(safetensors|pth)")


@dataclass(frozen=True)
class Checkpoint:
    """A ready model (in eval mode) and what came with it. history: one dict of averages per epoch; run: the name of the run
    that it is a part of (`run_name`)."""

    vae: BaseVAE
    epoch: int
    history: list[dict[str, float]]
    settings: dict[str, Any]
    run: str = ""

    @property
    def beta(self) -> float:
        """The weight of the KL that the model was trained with; of a calibrated one, that of its newest epoch."""
        return (
            self.history[-1].get("beta", BETA)
            if self.history and self.settings.get("calibrated")
            else self.settings.get("beta", BETA)
        )


def checkpoint_path(folder: str | Path, epoch: int) -> Path:
    """`folder`/vae_model_epoch_{epoch}.pth"""
    return Path(folder) / f"vae_model_epoch_{epoch}.pth"


def list_checkpoints(folder: str | Path) -> dict[int, Path]:
    """Epoch -> path of every checkpoint in `folder`, oldest first; of two for one epoch the .pth."""
    paths = sorted(Path(folder).glob("vae_model_epoch_*"), key=lambda path: path.suffix, reverse=True)
    found = {int(m[1]): path for path in paths if (m := _NAME.fullmatch(path.name))}
    return dict(sorted(found.items()))


def load_newest_checkpoint(folder: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """The checkpoint with the highest epoch; when that is damaged, a warning says so and the one before it is used.

    Raises FileNotFoundError when there is none, ValueError when none can be loaded.
    """
    found = list_checkpoints(folder)
    if not found:
        raise FileNotFoundError(f"no vae_model_epoch_*.pth in {str(folder)!r}: train first (notebook 03, or make dogs)")
    for path in reversed(found.values()):
        try:
            return load_checkpoint(path, device)
        except (ValueError, FileNotFoundError) as error:  # a link may lead nowhere
            warnings.warn(f"{error}. Trying the one before it.", stacklevel=2)
    raise ValueError(f"none of the {len(found)} checkpoints in {str(folder)!r} can be loaded: train again")


def build_vae(architecture: dict[str, Any]) -> BaseVAE:
    """An untrained VAE with the `architecture` that another one has. Raises ValueError for a kind that there is not."""
    sizes = dict(architecture)
    kind = sizes.pop("kind", "vector")
    kinds = {"vector": VAE, "attention": AttentionVAE, "spatial": SpatialVAE}
    if kind not in kinds:
        raise ValueError(f"kind={kind!r} is not a kind of VAE known here: {', '.join(kinds)} (vector when absent)")
    return kinds[kind](**sizes)


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write one checkpoint, whole or not at all: as safetensors when `path` ends so. Raises OSError that says why it cannot."""
    vae = checkpoint.vae
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in vae.state_dict().items()}
    about = {
        "architecture": vae.architecture,
        "image_size": vae.image_size,
        "latent_shape": list(vae.latent_shape),
        "epoch": checkpoint.epoch,
        "history": checkpoint.history,
        "settings": checkpoint.settings,
        "run": checkpoint.run,
    }
    if Path(path).suffix == ".safetensors":  # which has no checksum of its own
        _write(path, to_safetensors(weights, {"checkpoint": json.dumps(about), "sha256": _digest(weights)}))
    else:
        _save(path, about | {"weights": weights})


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint into a ready VAE of its kind, in eval mode on `device`.

    Runs no code from the file. Raises FileNotFoundError, or ValueError for a file that holds more than tensors and plain
    values, is damaged or of another program, does not fit the architecture that it names, or holds NaN or infinite weights.
    """
    saved = _load(path)
    missing = [key for key in ("architecture", "weights", "epoch", "history", "settings") if key not in saved]
    if missing:
        raise ValueError(
            f"{str(path)!r} is not a checkpoint of this package, but of another program: no {', '.join(missing)} in it"
        )
    try:
        vae = _build(saved["architecture"], saved["weights"])
        epoch, history, settings = saved["epoch"], list(saved["history"]), dict(saved["settings"])
        if type(epoch) is not int or not all(isinstance(record, dict) for record in history):
            raise ValueError(f"epoch is {epoch!r}, or its history is not a list of records")
    except (TypeError, AttributeError, RuntimeError, ValueError, OverflowError) as error:
        raise ValueError(f"{str(path)!r} is not a checkpoint of this package: {error}") from None
    vae = vae.to(device=device, memory_format=torch.channels_last).eval()
    return Checkpoint(vae, epoch, history, settings, str(saved.get("run", "")))


def _build(architecture: dict[str, Any], weights: dict[str, Tensor]) -> BaseVAE:
    """The VAE of these weights. Sizes are compared before anything of the size that the file claims is made."""
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in build_vae(architecture).state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            is_, should = (shapes.get(name, "absent") for shapes in (found, wanted))
            raise ValueError(f"its weights do not fit its architecture: {name!r} is {is_} and should be {should}")
        if weights[name].untyped_storage().nbytes() < weights[name].nbytes:  # a small file may claim to be a large tensor
            raise ValueError(f"its weights are not all in the file: {name!r}")
        if not weights[name].is_floating_point() or not weights[name].isfinite().all():
            raise ValueError(f"its weights hold NaN, infinite or other than real numbers: in {name!r}")
    vae = build_vae(architecture)
    vae.load_state_dict(weights)
    return vae


def save_training_state(folder: str | Path, state: dict[str, Any]) -> None:
    """Keep what the newest checkpoint needs to be trained further, in place of the one before."""
    _save(Path(folder) / STATE_FILE, state)


def load_training_state(folder: str | Path) -> dict[str, Any] | None:
    """What `save_training_state` kept last, or None when there is nothing. Raises ValueError when it is damaged."""
    path = Path(folder) / STATE_FILE
    if not path.exists():
        return None
    state = _load(path)
    if not isinstance(state.get("run"), dict) or type(state.get("epoch")) is not int:
        raise ValueError(f"{str(path)!r} is not a training state")
    return state


def run_name(run: dict[str, Any]) -> str:
    """A short name for what a run was made with, the same for the same data, architecture and settings."""
    return "run-" + hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:8]


def archive_run(folder: str | Path, name: str) -> Path:
    """Move every checkpoint in `folder`, and its training state, to `folder/name` (or `name-2`, …); returns that folder."""
    folder = Path(folder)
    target, n = folder / name, 1
    while target.exists():
        n += 1
        target = folder / f"{name}-{n}"
    target.mkdir(parents=True)
    found = sorted(path for path in folder.iterdir() if path.name == STATE_FILE or _NAME.fullmatch(path.name))
    for path in found:  # the state first: after a kill, checkpoints without one are taken for another run's
        path.rename(target / path.name)
    return target


def _save(path: str | Path, what: dict[str, Any]) -> None:
    content = io.BytesIO()  # torch would not say why it cannot write
    torch.save(what, content)
    _write(path, content.getbuffer())


def _write(path: str | Path, content: bytes | memoryview) -> None:
    with atomic_write(path, size=len(content)) as partial:
        partial.write_bytes(content)


def _load(path: str | Path) -> dict[str, Any]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint {str(path)!r}: train first, or check the path")
    try:
        saved = _load_safetensors(path) if Path(path).suffix == ".safetensors" else _load_pth(path)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{str(path)!r} holds more than tensors and plain values, which could run code, and was not loaded"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # a broken file can make a reader raise anything
        if isinstance(error, OSError) and error.errno != EINVAL:  # the disk's trouble, not the file's
            raise
        reason = str(error).split("\n")[0]
        raise ValueError(f"{str(path)!r} is damaged or not a checkpoint, and was not loaded: {reason}") from None
    if not isinstance(saved, dict):
        raise ValueError(f"{str(path)!r} is not a checkpoint of this package: it holds a {type(saved).__name__}")
    return saved


def _load_pth(path: str | Path) -> Any:
    with zipfile.ZipFile(path) as archive:  # torch itself looks neither at checksums nor at what would grow
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("it is compressed, as no checkpoint is")
        if archive.testzip() is not None:
            raise ValueError("its checksum is wrong")
    return torch.load(path, map_location="cpu", weights_only=True)


def _load_safetensors(path: str | Path) -> Any:
    with safe_open(path, "pt") as file:
        about = file.metadata() or {}
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    if "checkpoint" not in about:
        return {"weights": weights}
    if about.get("sha256") != _digest(weights):
        raise ValueError("its checksum is wrong")
    return json.loads(about["checkpoint"]) | {"weights": weights}


def _digest(weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name} {weights[name].dtype} {tuple(weights[name].shape)}".encode())
        digest.update(weights[name].contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
