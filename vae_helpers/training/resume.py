"""What a stop must not lose, what makes a run this run and no other, and how one that was stopped goes on."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor
from torch.optim import Optimizer

from ..models import checkpoint as checkpoints
from ..models.checkpoint import Checkpoint
from ..models.vae import BaseVAE
from .settings import TrainingSettings, differing_settings


@dataclass
class TrainState:
    """What a stop must not lose.

    model: the weights that are trained. ema: their moving average, which then is the result; None: the model itself is.
    history: one record of averages per epoch. run: what the run was begun with (`run_fingerprint`). name: of the run, which
    its checkpoints have too.
    """

    model: BaseVAE
    ema: BaseVAE | None
    optimizer: Optimizer
    history: list[dict[str, float]] = field(default_factory=list)
    run: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def result(self) -> BaseVAE:
        """The VAE that the training makes."""
        return self.model if self.ema is None else self.ema

    def state_dict(self) -> dict[str, Any]:
        """What the training needs to go on, beside the checkpoint of the same epoch, which holds the result and the history."""
        about = {"run": self.run, "name": self.name, "epoch": len(self.history)}
        return about | {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, saved: dict[str, Any], checkpoint: Checkpoint) -> None:
        """Put back what `state_dict` gave, and the checkpoint of the same epoch. What `saved` lacks has its default: the model
        has the result's weights, and the optimizer starts anew.
        """
        weights = checkpoint.vae.state_dict()
        self.result.load_state_dict(weights)
        self.model.load_state_dict(saved.get("model", weights))
        if "optimizer" in saved:  # its moving averages; its learning rate and the like are those of now
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": saved["optimizer"]["state"]})
        self.history[:] = checkpoint.history
        self.name = checkpoint.run


def run_fingerprint(vae: BaseVAE, train: Tensor, validation: Tensor, settings: TrainingSettings) -> dict[str, Any]:
    """What makes a run this run and no other. More epochs of it are still the same run."""
    pixels = hashlib.sha256()
    for tensor in (train, validation):
        pixels.update(str(tuple(tensor.shape)).encode())
        pixels.update(tensor.cpu().contiguous().numpy())
    made_with = {name: value for name, value in asdict(settings).items() if name != "epochs"}
    return {"data": pixels.hexdigest(), "architecture": vae.architecture, "settings": made_with}


def save_epoch(folder: Path, state: TrainState, settings: TrainingSettings, keep_last: int | None) -> None:
    """Write the checkpoint of the newest epoch, then the training state; remove all but the newest `keep_last` checkpoints."""
    epoch = len(state.history)
    checkpoint = Checkpoint(state.result, epoch, state.history, asdict(settings), state.name)
    checkpoints.save_checkpoint(checkpoints.checkpoint_path(folder, epoch), checkpoint)
    checkpoints.save_training_state(folder, state.state_dict())
    for older, path in checkpoints.list_checkpoints(folder).items():
        if keep_last and older <= epoch - keep_last:
            path.unlink()


def resume(folder: Path, state: TrainState, epochs: int, accelerator: Accelerator) -> None:
    """Put the newest part of the run `state.run` that `folder` holds into `state`; leave that as it is when there is none.

    epochs: how many the run is to have. The main process tells what is done, and moves another run aside. Where the newest
    checkpoint or the training state is damaged, the newest checkpoint of the run that is whole takes its place; training
    then goes on from its weights, with a new optimizer.
    """
    state.name, say = checkpoints.run_name(state.run), accelerator.print
    found, saved = checkpoints.list_checkpoints(folder), {}
    try:
        saved = checkpoints.load_training_state(folder) or {}
    except ValueError as error:
        say(f"{error}.")
    if not found:
        return
    done, name = saved.get("epoch") or max(found), saved.get("name", state.name)
    reason = _difference(saved["run"], state.run) if saved else ""
    if not reason and done > epochs:
        reason = f"{done} epochs, more than the {epochs} asked for"
    checkpoint = None if reason else _newest_whole(found, name, done, say)
    if checkpoint is None:
        if accelerator.is_main_process:
            moved = checkpoints.archive_run(folder, name)
            reason = reason or "no checkpoint of this one that is whole"
            print(f"{folder.name} holds a run with {reason}; moved to {folder.name}/{moved.name}. Starting anew.")
        return
    if saved.get("epoch") == 0:  # stopped in its first epoch
        return
    exactly = saved.get("epoch") == checkpoint.epoch
    try:
        state.load_state_dict(saved if exactly else {}, checkpoint)
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError):  # not what a training state holds
        exactly = False
        state.load_state_dict({}, checkpoint)
    how = "" if exactly else " The optimizer starts anew."
    left = epochs - checkpoint.epoch
    say(f"Going on from {found[checkpoint.epoch].name}: {checkpoint.epoch} epochs done, {left} to go.{how}")


def _difference(saved: dict[str, Any], run: dict[str, Any]) -> str:
    """In what a run that was saved differs from `run`, in words; empty when in nothing."""
    if saved.get("data") != run["data"]:
        return "other data"
    if (
        checkpoints.build_vae(saved["architecture"]).architecture != run["architecture"]
    ):  # with the defaults of what it does not say
        return "other architecture"
    names = differing_settings(saved.get("settings", {}), run["settings"])
    return f"other settings ({', '.join(names)})" if names else ""


def _newest_whole(found: dict[int, Path], name: str, newest: int, say: Callable[[str], None]) -> Checkpoint | None:
    """Of the checkpoints of the run `name`, none newer than `newest`, the newest that is whole."""
    for epoch in sorted((epoch for epoch in found if epoch <= newest), reverse=True):
        try:
            checkpoint = checkpoints.load_checkpoint(found[epoch])
        except (ValueError, FileNotFoundError) as error:
            say(f"{error}. Trying the one before it.")
            continue
        if checkpoint.run == name and checkpoint.epoch == epoch == len(checkpoint.history):
            return checkpoint
    return None
