"""Long trainings that are counted in steps: a progress bar, and a file from which they go on after a stop."""

import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..models.checkpoint import read_pth, write_pth

SAVE_EVERY = 60
"""Seconds between two states; no more than that is lost by a stop."""


def resumable_steps(total: int, parts: Mapping[str, Any], path: Path | None, run: str, title: str) -> Iterator[int]:
    """0 to `total` - 1, with a progress bar; a stopped training goes on at the step that `path` was written at.

    parts: name -> network, optimizer or adversary, all that changes from step to step; they are kept in the file `path` once a
    minute, and read from it before the first step; who is done removes the file (`forget`). run: what the training was begun
    with; the state of another run is not used. Without a path nothing is kept or shown.
    """
    state, first = {}, 0
    if path and path.exists():
        state = read_pth(path)
    if state.get("run") == run:
        first = state["step"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
        print(f"Going on with {title}: {first} of {total} steps are done.")
    every = {} if sys.stderr.isatty() else {"mininterval": SAVE_EVERY}  # in a log a line a minute is enough
    bar, saved = tqdm(range(first, total), title, total, initial=first, disable=path is None, **every), time.monotonic()
    for step in bar:
        yield step
        if path and time.monotonic() - saved >= SAVE_EVERY:
            saved = time.monotonic()
            write_pth(path, {name: part.state_dict() for name, part in parts.items()} | {"run": run, "step": step + 1})


def forget(path: Path | None) -> None:
    """Remove the state of a training that is done."""
    if path:
        path.unlink(missing_ok=True)
