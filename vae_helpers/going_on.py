"""What makes a run this run and no other, and how one that was stopped goes on: in any number of processes."""

import hashlib
from pathlib import Path

from torch import Tensor
from torch.optim import Optimizer

from .checkpoint import STATE_FILE, list_checkpoints, load_checkpoint, load_training_state, move_run, run_name
from .model import BaseVAE


def describe(vae: BaseVAE, train: Tensor, validation: Tensor, settings: dict) -> dict:
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
    whether this process speaks, and moves another run aside.
    """
    found = list_checkpoints(folder)
    if not found:
        return []
    state = load_training_state(folder)
    reason = _reason_to_start_anew(state, run, epochs, found)
    if reason:
        if say:
            moved = move_run(folder, run_name(state["run"] if state else {}))
            print(f"{folder.name} holds a run with {reason}; moved to {folder.name}/{moved.name}. Starting anew.")
        return []
    if state["epoch"] == 0:  # stopped in its first epoch
        return []
    checkpoint = load_checkpoint(found[state["epoch"]])
    vae.load_state_dict(checkpoint.vae.state_dict())
    if learner is not vae:
        learner.load_state_dict(state["learner"])
    optimizer.load_state_dict(state["optimizer"] | {"param_groups": optimizer.state_dict()["param_groups"]})
    if say:
        left = epochs - checkpoint.epoch
        print(f"Going on from {found[checkpoint.epoch].name}: {checkpoint.epoch} epochs done, {left} to go.")
    return checkpoint.history


def _reason_to_start_anew(state: dict | None, run: dict, epochs: int, found: dict[int, Path]) -> str:
    """Why the run in a folder is not continued by `run`, in words; empty when it is."""
    if state is None:
        return f"no {STATE_FILE}"
    differs = [part for part in run if state["run"].get(part) != run[part]]
    if differs:
        return "other " + " and other ".join(differs)
    if state["epoch"] > epochs:
        return f"{state['epoch']} epochs, more than the {epochs} asked for"
    if state["epoch"] and state["epoch"] not in found:
        return f"its checkpoint of epoch {state['epoch']} missing"
    return ""
