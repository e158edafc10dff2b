"""From photos to a model: split, duplicates, train."""

import math
from pathlib import Path
from typing import Literal

import tyro

from .. import data, evaluation, models, training
from ..config import compile_wanted, crop_wanted, folders, precision_wanted
from ..files import SHIPPED
from .options import Crop


class _Given(training.TrainingSettings):  # `train` checks them: a mistake is said better there than by the parser
    def __post_init__(self) -> None: ...


def split(
    dogs: tyro.conf.Positional[str] = "toy",
    test_size: int | float = 0.2,
    random_state: int = 42,
    stratify: bool = False,
    duplicates_together: bool = False,
    keep_split: bool = False,
    crop: Crop = None,
) -> None:
    """Split dogs into data/train/dogs and data/test/dogs.

    Args:
        dogs: a folder of images, or oxford-pets, stanford-dogs (fetched, once) or toy.
        test_size: fraction of the images for testing, or how many.
        random_state: seed of the split.
        stratify: put the same share of every breed aside.
        duplicates_together: keep pictures that are there twice on one side.
        keep_split: of a folder that has subfolders train and test, keep these apart as they are.
    """
    where = folders()
    source = data.resolve_source(dogs, where, least=data.LEAST)
    images = data.load_images(source, cache_dir=where.cache) if duplicates_together else None
    groups = data.group_duplicates(data.find_duplicates(images)) if images else []
    options = {"stratify": stratify, "groups": groups, "crop": crop or crop_wanted(), "keep_split": keep_split}
    data.split_dataset(source, where.train, where.test, test_size, random_state, **options)


def duplicates(dogs: tyro.conf.Positional[str], limit: int = 32) -> None:
    """List pictures that are there twice, the closest pairs first.

    Args:
        dogs: as for split.
        limit: bits of 256 in which the perceptual hashes of a pair may differ.
    """
    images = data.load_images(data.resolve_source(dogs, folders()), cache_dir=folders().cache)
    pairs = data.find_duplicates(images, limit)
    for pair in pairs:
        kind = "exactly" if pair.exact else f"{pair.distance} bits{', mirrored' if pair.mirrored else ''}"
        print(f"{pair.one!r}  {pair.other!r}  {kind}")
    print(f"{len(pairs)} pairs among {len(images)} images")


def train(
    settings: tyro.conf.OmitArgPrefixes[_Given] = _Given(),  # noqa: B008 (frozen)
    network: Literal["vector", "spatial", "attention"] = "vector",
    latent_dim: int = 128,
    latent_channels: int = 8,
    width: int = 32,
    image_size: int = 56,
    name: str = "saved_models",
) -> None:
    """Train a VAE on data/train/dogs; going on where an earlier run of the same kind stopped.

    Args:
        settings: of the training run.
        network: the default one, whose latent is a vector; one whose latent is a small picture, for a laptop; or Stable
            Diffusion's autoencoder, for a GPU.
        latent_dim: numbers in a latent that is a vector.
        latent_channels: numbers at each place of one that is a small picture (an eighth of the image's size each way).
        width: channels of spatial and attention, where the picture is largest; 128 is Stable Diffusion's.
        image_size: pixels of an image each way.
        name: of the model; its checkpoints are kept in models/NAME, and --model NAME uses them.
    """
    import torch

    settings = training.TrainingSettings(**vars(settings))
    if name in {*SHIPPED, "", ".."} or Path(name).name != name:
        raise ValueError(f"--name {name!r}: take a plain name that no shipped weights have ({', '.join(SHIPPED)})")
    where = folders()
    with training.make_accelerator().local_main_process_first():  # the others find its cache
        learn, validation = data.split_validation(data.load_images(where.train, image_size, cache_dir=where.cache))
    torch.manual_seed(settings.seed)
    sizes = (width, latent_channels, math.gcd(width, min(32, width // 4)), image_size)
    kind = models.SpatialVAE if network == "spatial" else models.AttentionVAE
    vae = models.VAE(latent_dim, image_size=image_size) if network == "vector" else kind(*sizes)
    vae.crop = learn.crop
    save_picture = evaluation.reconstruction_saver(validation.pixels[:8], where.outputs / "reconstructed.png")
    options = {"precision": precision_wanted(), "compile": compile_wanted()}
    training.fit(vae, learn.pixels, validation.pixels, settings, where.models / name, save_picture, **options)
