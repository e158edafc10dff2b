"""Checkpoints: each can be used alone, all are written whole, and they load with `weights_only=True` and nothing else.

vae_model_epoch_{epoch}.pth   weights, architecture, image size, latent shape, history, settings: a model to use
training_state.pth            what is needed to go on from the newest of them (optimizer), kept once
"""

import hashlib
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .attention import AttentionVAE, SpatialVAE
from .files import written_whole
from .loss import BETA
from .model import VAE, BaseVAE

STATE_FILE = "training_state.pth"
_NAME = re.compile(r"vae_model_epoch_(\d+)\.pth")


@dataclass(frozen=True)
class Checkpoint:
    """A ready model (in eval mode) and what came with it. history: one dict of averages per epoch."""

    vae: BaseVAE
    epoch: int
    history: list[dict[str, float]]
    settings: dict[str, Any]

    @property
    def beta(self) -> float:
        """The weight of the KL that the model was trained with; of a calibrated one, that of its newest epoch."""
        return self.history[-1]["beta"] if self.settings.get("calibrated") else self.settings.get("beta", BETA)


def checkpoint_path(folder: str | Path, epoch: int) -> Path:
    """`folder`/vae_model_epoch_{epoch}.pth"""
    return Path(folder) / f"vae_model_epoch_{epoch}.pth"


def list_checkpoints(folder: str | Path) -> dict[int, Path]:
    """Epoch -> path of every checkpoint in `folder`, oldest first."""
    found = {int(m[1]): path for path in Path(folder).glob("vae_model_epoch_*.pth") if (m := _NAME.fullmatch(path.name))}
    return dict(sorted(found.items()))


def newest_checkpoint(folder: str | Path) -> Path:
    """The checkpoint with the highest epoch. Raises FileNotFoundError when there is none."""
    found = list_checkpoints(folder)
    if not found:
        raise FileNotFoundError(f"no vae_model_epoch_*.pth in {str(folder)!r}: train first (notebook 03, or make dogs)")
    return list(found.values())[-1]


def build_vae(architecture: dict[str, Any]) -> BaseVAE:
    """An untrained VAE with the `architecture` that another one has. Raises ValueError for a kind that there is not."""
    sizes = dict(architecture)
    kind = sizes.pop("kind", "vector")
    kinds = {"vector": VAE, "attention": AttentionVAE, "spatial": SpatialVAE}
    if kind not in kinds:
        raise ValueError(f"kind={kind!r} is not a kind of VAE known here: {', '.join(kinds)} (vector when absent)")
    return kinds[kind](**sizes)


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write one checkpoint, whole or not at all."""
    vae = checkpoint.vae
    _save(
        path,
        {
            "architecture": vae.architecture,
            "image_size": vae.image_size,
            "latent_shape": list(vae.latent_shape),
            "weights": {name: tensor.detach().cpu() for name, tensor in vae.state_dict().items()},
            "epoch": checkpoint.epoch,
            "history": checkpoint.history,
            "settings": checkpoint.settings,
        },
    )


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint into a ready VAE of its kind, in eval mode on `device`.

    Runs no code from the file. Raises FileNotFoundError, or ValueError for a file that is not one of our checkpoints, is
    damaged, or does not fit the architecture that it names.
    """
    saved = _load(path)
    try:
        vae = build_vae(saved["architecture"])
        vae.load_state_dict(saved["weights"])
        vae = vae.to(device=device, memory_format=torch.channels_last).eval()
        return Checkpoint(vae, saved["epoch"], saved["history"], saved["settings"])
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is not a checkpoint of this package: {error}") from None


def save_training_state(folder: str | Path, state: dict[str, Any]) -> None:
    """Keep what the newest checkpoint needs to be trained further, in place of the one before."""
    _save(Path(folder) / STATE_FILE, state)


def load_training_state(folder: str | Path) -> dict[str, Any] | None:
    """What `save_training_state` kept last, or None when there is nothing. Raises ValueError when it is damaged."""
    path = Path(folder) / STATE_FILE
    return _load(path) if path.exists() else None


def run_name(run: dict[str, Any]) -> str:
    """A short name for what a run was made with, the same for the same data, architecture and settings."""
    return "run-" + hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:8]


def move_run(folder: str | Path, name: str) -> Path:
    """Move every checkpoint in `folder`, and its training state, to `folder/name` (or `name-2`, …); returns that folder."""
    folder = Path(folder)
    target, n = folder / name, 1
    while target.exists():
        n += 1
        target = folder / f"{name}-{n}"
    target.mkdir(parents=True)
    state = folder / STATE_FILE
    for path in [*list_checkpoints(folder).values(), *([state] if state.exists() else [])]:
        path.rename(target / path.name)
    return target


def _save(path: str | Path, what: dict[str, Any]) -> None:
    with written_whole(path) as partial:
        torch.save(what, partial)


def _load(path: str | Path) -> dict[str, Any]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint {str(path)!r}: train first, or check the path")
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums
            if archive.testzip() is not None:
                raise ValueError("its checksum is wrong")
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can make a reader raise anything
        reason = str(error).split("\n")[0]
        raise ValueError(f"{str(path)!r} is damaged or not a checkpoint, and was not loaded: {reason}") from None
    if not isinstance(saved, dict):
        raise ValueError(f"{str(path)!r} holds a {type(saved).__name__}, not a checkpoint")
    return saved
