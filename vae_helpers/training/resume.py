"""What a training run is made of, what a stop must not lose, and how a run that was stopped goes on."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from ..files import remove_stale_temp_files, write_file
from ..models import checkpoint as checkpoints
from ..models.pretrained import digest
from ..models.vae import BaseVAE
from .settings import TrainingSettings


@dataclass
class TrainState:
    """A training run.

    vae: what the training makes. model: whose weights are trained, of which `vae` is the moving average; without an average
    it is `vae` itself. network: `model` as it is called: compiled, or wrapped for several processes. bf16: whether it
    computes in bfloat16. history: one record of averages per epoch. run: what the run was begun with (`run_fingerprint`).
    name: of the run, which its checkpoints have too.
    """

    settings: TrainingSettings
    accelerator: Accelerator
    bf16: bool
    vae: BaseVAE
    model: BaseVAE
    network: nn.Module
    optimizer: Optimizer
    history: list[dict[str, float]] = field(default_factory=list)
    run: dict[str, Any] = field(default_factory=dict)
    name: str = ""


def run_fingerprint(vae: BaseVAE, train: Tensor, validation: Tensor, settings: TrainingSettings) -> dict[str, Any]:
    """What makes a run this run and no other. More epochs of it are still the same run."""
    made_with = {name: value for name, value in asdict(settings).items() if name != "epochs"}
    return {"data": digest(train, validation), "architecture": vae.architecture, "settings": made_with}


def save_epoch(folder: Path, state: TrainState) -> None:
    """Write the checkpoint of the newest epoch, then the training state."""
    epoch = len(state.history)
    checkpoint = checkpoints.Checkpoint(state.vae, epoch, state.history, asdict(state.settings), state.name)
    checkpoints.save_checkpoint(checkpoints.checkpoint_path(folder, epoch), checkpoint)
    save_state(folder, state)


def save_state(folder: Path, state: TrainState) -> None:
    """Write what the training needs to go on beside the checkpoint of its epoch, and the history as a table."""
    about = {"run": state.run, "name": state.name, "epoch": len(state.history)}
    weights = {"model": state.model.state_dict(), "optimizer": state.optimizer.state_dict()}
    checkpoints.save_training_state(folder, about | weights)
    config = state.vae.architecture | {"crop": state.vae.crop, "settings": asdict(state.settings)}
    write_file(folder / checkpoints.CONFIG_FILE, json.dumps(config, indent=1) + "\n")
    if state.history:
        table = io.StringIO()
        rows = csv.DictWriter(table, state.history[-1], extrasaction="ignore", lineterminator="\n")
        rows.writeheader(), rows.writerows(state.history)
        write_file(folder / checkpoints.HISTORY_FILE, table.getvalue())


def resume(folder: Path, state: TrainState) -> None:
    """Put the newest part of the run `state.run` that `folder` holds, if any, into `state`, in every process.

    The main process tells what is done, moves another run aside, and notes whose folder this is now.
    Raises ValueError when the processes do not see the same checkpoints.
    """
    accelerator = state.accelerator
    with accelerator.main_process_first():  # it may move another run out of the others' way
        _load_newest(folder, state)
        if accelerator.is_main_process:
            remove_stale_temp_files(folder)
            save_state(folder, state)
    if len(set(accelerator.gather(torch.tensor([len(state.history)], device=accelerator.device)).tolist())) > 1:
        raise ValueError(f"the processes see different checkpoints in {str(folder)!r}: it must be one folder for all")


def _load_newest(folder: Path, state: TrainState) -> None:
    """`resume` in one process. Where the newest checkpoint or the training state is damaged, the newest checkpoint of the run
    that is whole takes its place; training then goes on from its weights, with a new optimizer.
    """
    say, epochs = state.accelerator.print, state.settings.epochs
    state.name, found = checkpoints.run_name(state.run), checkpoints.list_checkpoints(folder)
    saved = _if_whole(checkpoints.load_training_state, folder, say) or {}
    if not found:
        return
    done, name = saved.get("epoch") or max(found), saved.get("name", state.name)
    then, now = _with_defaults(saved.get("run", state.run)), _with_defaults(state.run)
    too_many = [f"{done} epochs, more than the {epochs} asked for"] if done > epochs else []
    reasons = [f"other {part}" for part in now if then[part] != now[part]] or too_many
    paths = [] if reasons else [path for epoch, path in reversed(found.items()) if epoch <= done]
    whole = (_if_whole(checkpoints.load_checkpoint, path, say) for path in paths)
    checkpoint = next((each for each in whole if each and each.run == name), None)
    if checkpoint is None:
        if state.accelerator.is_main_process:
            moved = checkpoints.archive_run(folder, name)
            reason = ", ".join(reasons) or "no checkpoint of this one that is whole"
            print(f"{folder.name} holds a run with {reason}; moved to {folder.name}/{moved.name}. Starting anew.")
    elif saved.get("epoch") != 0:  # 0: stopped in its first epoch, which is learned anew
        saved = saved if saved.get("epoch") == checkpoint.epoch else {}
        weights = checkpoint.vae.state_dict()
        state.vae.load_state_dict(weights)
        state.model.load_state_dict(saved.get("model", weights))
        if "optimizer" in saved:  # its moving averages; its learning rate and the like are those of now
            state.optimizer.load_state_dict(state.optimizer.state_dict() | {"state": saved["optimizer"]["state"]})
        state.history[:], state.name = checkpoint.history, checkpoint.run
        left, how = epochs - checkpoint.epoch, "" if saved else " The optimizer starts anew."
        say(f"Going on from {found[checkpoint.epoch].name}: {checkpoint.epoch} epochs done, {left} to go.{how}")


def _with_defaults(run: dict[str, Any]) -> dict[str, Any]:
    """What tells one run from another, by name, with the defaults of what `run` does not say."""
    settings = asdict(TrainingSettings()) | {"kl_cycles": 1} | run.get("settings", {}) | {"epochs": None}
    return settings | {"data": run.get("data"), "architecture": checkpoints.build_vae(run["architecture"]).architecture}


def _if_whole(load: Callable[[Path], Any], path: Path, say: Callable[[str], None]) -> Any:
    """What `load` reads from `path`; None, which is said, where it is damaged."""
    try:
        return load(path)
    except (ValueError, FileNotFoundError) as error:
        say(f"{error}. Going on without it.")
