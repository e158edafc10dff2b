"""What makes a run this run and no other, and how one that was stopped goes on: in any number of processes."""

import hashlib
import warnings
from pathlib import Path

from torch import Tensor
from torch.optim import Optimizer

from ..files import free_bytes
from ..models.checkpoint import (
    STATE_FILE,
    Checkpoint,
    archive_run,
    list_checkpoints,
    load_checkpoint,
    load_training_state,
    run_name,
)
from ..models.vae import BaseVAE


def run_fingerprint(vae: BaseVAE, train: Tensor, validation: Tensor, settings: dict) -> dict:
    """What makes a run this run and no other. More epochs of it are still the same run."""
    pixels = hashlib.sha256()
    for tensor in (train, validation):
        pixels.update(str(tuple(tensor.shape)).encode())
        pixels.update(tensor.cpu().contiguous().numpy())
    made_with = {name: value for name, value in settings.items() if name != "epochs"}
    return {"data": pixels.hexdigest(), "architecture": vae.architecture, "settings": made_with}


def resume(
    folder: Path, run: dict, epochs: int, vae: BaseVAE, learner: BaseVAE, optimizer: Optimizer, say: bool
) -> list[dict[str, float]]:
    """Put the newest part of `run` in `folder` into vae, learner and optimizer; returns its history, empty for a new one.

    epochs: how many the run is to have. learner: the network that is trained: vae itself, or one whose average vae is. say:
    whether this process speaks, and moves another run aside. Where the newest checkpoint or the training state is damaged,
    the newest checkpoint of the run that is whole takes its place; its weights are then averages, and the optimizer is new.
    """
    found = list_checkpoints(folder)
    if not found:
        return []
    try:
        state = load_training_state(folder)
    except ValueError as error:
        state = None
        if say:
            print(f"{error}.")
    reason = _reason_to_start_anew(state, run, epochs, max(found))
    checkpoint = None if reason else _newest_of(run, found, state, say)
    if checkpoint is None:
        if say:
            moved = archive_run(folder, run_name(state["run"] if state else {}))
            reason = reason or "no checkpoint of this one that is whole"
            print(f"{folder.name} holds a run with {reason}; moved to {folder.name}/{moved.name}. Starting anew.")
        return []
    if state and state["epoch"] == 0:  # stopped in its first epoch
        return []
    vae.load_state_dict(checkpoint.vae.state_dict())
    exactly = state is not None and state["epoch"] == checkpoint.epoch
    try:
        if learner is not vae:
            learner.load_state_dict(state["learner"] if exactly else checkpoint.vae.state_dict())
        if exactly:
            optimizer.load_state_dict(state["optimizer"] | {"param_groups": optimizer.state_dict()["param_groups"]})
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError):  # not what a training state holds
        exactly = False
        learner.load_state_dict(checkpoint.vae.state_dict())
    if say:
        if not exactly:  # of epochs that will now be other ones
            (folder / STATE_FILE).unlink(missing_ok=True)
        how = "" if exactly else " The optimizer starts anew."
        left = epochs - checkpoint.epoch
        print(f"Going on from {found[checkpoint.epoch].name}: {checkpoint.epoch} epochs done, {left} to go.{how}")
    return checkpoint.history


def _newest_of(run: dict, found: dict[int, Path], state: dict | None, say: bool) -> Checkpoint | None:
    """Of the checkpoints of `run`, the newest that is whole, and not newer than its training state unless that is at 0."""
    newest = state["epoch"] if state and state["epoch"] else max(found)
    for epoch in sorted((epoch for epoch in found if epoch <= newest), reverse=True):
        try:
            checkpoint = load_checkpoint(found[epoch])
        except (ValueError, FileNotFoundError) as error:
            if say:
                print(f"{error}. Trying the one before it.")
            continue
        if checkpoint.run == run_name(run) and checkpoint.epoch == epoch == len(checkpoint.history):
            return checkpoint
    return None


def _reason_to_start_anew(state: dict | None, run: dict, epochs: int, newest: int) -> str:
    """Why the run in a folder is not continued by `run`, in words; empty when nothing is known against it."""
    differs = [part for part in run if state and state["run"].get(part) != run[part]]
    if differs:
        return "other " + " and other ".join(differs)
    done = state["epoch"] if state else newest
    return f"{done} epochs, more than the {epochs} asked for" if done > epochs else ""


def warn_of_little_room(folder: Path, vae: BaseVAE, epochs: int, keep_last: int | None) -> None:
    """Warn when the checkpoints of so many epochs, and the training state, will not fit on the disk of `folder`."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in vae.state_dict().values())
    needed = (
        bool(epochs) * size * (min(epochs, keep_last or epochs) + 6)
    )  # a training state takes three, and is there twice for a moment
    free = free_bytes(folder / STATE_FILE)
    if needed > free:
        warnings.warn(
            f"{epochs} epochs will write {needed / 1e6:,.0f} MB to {str(folder)!r}, and {free / 1e6:,.0f} MB are free there: "
            "make room, or keep the newest checkpoints alone (keep_last)",
            stacklevel=3,
        )
