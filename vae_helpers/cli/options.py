"""What several commands take, and what it stands for."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from .. import models
from ..config import best_device, folders
from ..files import SHIPPED

BATCH = 32  # more at a time does not fit into a CPU's caches: 256 take half as long again an image
_MODEL = "NAME in models/, weights that come with the project, or a file; the newest of models/saved_models when left out."
_CROP = (
    "How a square is cut out: head is around the dog's head, marked or found; --crop alone means box. "
    "Left out: as VAE_CROP says for split, else as the model's."
)
Count = Annotated[int, tyro.conf.arg(aliases=["-n"])]
Model = Annotated[str | None, tyro.conf.arg(help=_MODEL)]
Crop = Annotated[Literal["none", "center", "box", "head"] | None, tyro.conf.arg(help=_CROP)]


def checkpoint_of(model: str | None, seed: int = 0) -> models.Checkpoint:
    if not 0 <= seed < 2**32:  # which all libraries take
        raise ValueError(f"--seed {seed}: give a number from 0 to {2**32 - 1}")
    return models.loadcheckpoint_of(path_of(model), best_device())


def path_of(model: str | None) -> Path:
    """What --model says: shipped weights, else models/NAME, else another folder, else a file."""
    path = folders().models / (model or "saved_models")
    return path if model is None or (model not in SHIPPED and path.exists()) else models.find_weights(model)
