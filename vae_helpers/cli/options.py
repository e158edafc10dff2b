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


def checkpoint_of(model: str | None, seed: int = 0) -> "models.Checkpoint":
    if not 0 <= seed < 2**32:  # which all libraries take
        raise ValueError(f"--seed {seed}: give a number from 0 to {2**32 - 1}")
    return models.load_checkpoint(path_of(model), best_device())


def path_of(model: str | None) -> Path:
    """What --model says: shipped weights, else models/NAME, else another folder, else a file."""
    path = folders().models / (model or "saved_models")
    return path if model is None or (model not in SHIPPED and path.exists()) else models.find_weights(model)


def part_of(model: str | None, part: str) -> Path:
    """Where a part of a model is, or will be: in models/NAME/ for shipped weights, else as `models.part_path` says."""
    path = path_of(model)
    shipped = path in SHIPPED.values()
    return folders().models / path.stem / f"{part}.safetensors" if shipped else models.part_path(path, part)


def prior_of(model: str | None, vae: "models.BaseVAE") -> "models.Prior":
    """The best prior of a model with this VAE: what `train-prior` made, else what came with the weights, else N(0, I)."""
    path = _checked(part_of(model, "prior"), vae)
    return models.load_prior(path if path.exists() else path_of(model))


def best_of(model: str | None, seed: int, raw: bool = False) -> "tuple[models.BaseVAE, models.Prior]":
    """What draws best: a VAE, with the decoder that `sharpen` made, and its prior; raw: as it was trained, and N(0, I)."""
    vae = checkpoint_of(model, seed).vae
    if raw:
        return vae, models.StandardNormal(vae.latent_shape)
    decoder = _checked(part_of(model, "decoder_sharp"), vae)
    return models.load_decoder(decoder, vae) if decoder.exists() else vae, prior_of(model, vae)


def _checked(part: Path, vae: "models.BaseVAE") -> Path:
    if part.exists() and not models.belongs_to(part, vae):
        raise ValueError(f"{str(part)!r} is for an earlier state of this model: train-prior and sharpen make it anew")
    return part
