"""Variational autoencoders on dogs: the notebooks' work as commands, on a server too.

`vae-helpers COMMAND --help` tells what a command takes. After an error, the same command with --debug shows where it happened.
"""

import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from . import data, evaluation, latent, models, training  # rooms load what they hold when it is used, so --help is quick
from .config import CROPS, best_device, compile_wanted, crop_wanted, folders, precision_wanted
from .files import SHIPPED

BATCH = 32  # more at a time does not fit into a CPU's caches: 256 take half as long again an image
MEMORY_FULL = "the memory is full: close other programs, or take a smaller --batch-size, --width or --image-size, or VAE_BF16=1"
_MODEL = "NAME in models/, weights that come with the project, or a file; the newest of models/saved_models when left out."
_CROP = (
    "How a square is cut out: head is around the dog's head, marked or found; --crop alone means box. "
    "Left out: as VAE_CROP says for split, else as the model's."
)
Count = Annotated[int, tyro.conf.arg(aliases=["-n"])]
Model = Annotated[str | None, tyro.conf.arg(help=_MODEL)]
Crop = Annotated[Literal["none", "center", "box", "head"] | None, tyro.conf.arg(help=_CROP)]


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


def evaluate(model: Model = None, seed: int = 0, inception: bool = False) -> None:
    """What a model makes of data/test/dogs: outputs/report.html, for people, and outputs/metrics.json.

    Args:
        seed: of every draw.
        inception: compare samples in Inception's features (FID), whose weights are downloaded once, instead of our own.
    """
    where, saved = folders(), _checkpoint(model, seed)
    options = {"image_size": saved.vae.image_size, "cache_dir": where.cache, "crop": saved.vae.crop}
    learn, _ = data.split_validation(data.load_images(where.train, **options))
    test = data.load_images(where.test, **options)
    options = {"labels": latent.dog_attributes(test, where.toy_dogs), "images": "test dogs", "seed": seed}
    options |= {"extractor": evaluation.load_inception() if inception else None}
    measured = evaluation.evaluate(saved.vae, learn.pixels, test.pixels, saved.beta, **options)
    measured.metrics["epoch"] = saved.epoch
    verdicts = evaluation.write_report(measured, where.outputs, f"What this model does, after {saved.epoch} epochs")
    print(*verdicts, f"wrote {where.outputs / 'report.html'} and metrics.json", sep="\n")


def sample(model: Model = None, n: Count = 64, seed: int = 0, out: Path | None = None, raw: bool = False) -> None:
    """Draw new dogs from the best prior that a model has: one sheet, outputs/samples.png, or single PNG files with --out.

    Args:
        n: how many.
        seed: of the draws.
        out: folder for single files.
        raw: draw from N(0, I) all the same.
    """
    import torch
    from tqdm import tqdm

    from .plots import image_grid, save_figure

    if n < 1 or (n > 1000 and out is None):
        raise ValueError(f"-n {n}: a sheet shows from 1 to 1000 dogs; --out FOLDER writes any number above 0 as single files")
    vae = _checkpoint(model, seed).vae
    prior = models.StandardNormal(vae.latent_shape) if raw else models.load_prior(_path(model))
    z = prior.to(best_device()).sample(n, torch.Generator().manual_seed(seed))
    images = torch.cat([models.decode_latents(vae, part) for part in tqdm(z.split(BATCH), leave=False, disable=None)])
    if out is not None:
        return latent.save_pngs(images, out, [f"sample_{i:05d}" for i in range(n)])
    path = folders().outputs / "samples.png"
    save_figure(image_grid(images, f"{n} draws from {type(prior).__name__}, decoded: seed {seed}, not picked"), path)
    print(f"wrote {path}")


def reconstruct(source: tyro.conf.Positional[Path], out: Path, model: Model = None, crop: Crop = None) -> None:
    """What comes back of each image of a folder that goes through a model's mean: PNG files named after the images.

    Args:
        source: folder of images.
        out: folder for the files.
    """
    vae = _checkpoint(model).vae
    images = data.load_images(source, vae.image_size, cache_dir=folders().cache, crop=crop or vae.crop)
    z, _ = models.encode_images(vae, images.pixels, BATCH)
    latent.save_pngs(models.decode_latents(vae, z, BATCH), out, images.names)


def walk(
    start: tyro.conf.Positional[Path | None] = None,
    end: tyro.conf.Positional[Path | None] = None,
    model: Model = None,
    steps: int = 48,
    straight: bool = False,
    seed: int = 0,
    out: Path | None = None,
    crop: Crop = None,
) -> None:
    """Walk from one dog to another and back: a GIF, outputs/walk.gif.

    Args:
        start: an image file; a draw from the best prior that the model has when left out.
        end: an image file; another draw when left out.
        steps: how many pictures, both ends included.
        straight: along the straight line instead of the sphere's arc.
        seed: of the draws.
        out: where the GIF goes.
    """
    import torch

    if steps > 1000:
        raise ValueError(f"--steps {steps}: a GIF shows 1000 pictures at most")
    vae = _checkpoint(model, seed).vae
    ends = [start, end]
    if None in ends:
        ends = list(models.load_prior(_path(model)).sample(2, torch.Generator().manual_seed(seed)))
    for i, photo in enumerate((start, end)):
        if photo is not None:
            pixels = torch.tensor(data.decode_image(photo, vae.image_size, crop or vae.crop)).permute(2, 0, 1)
            ends[i] = models.encode_images(vae, pixels[None])[0][0]
    images = latent.walk(vae, *ends, steps, on_sphere=not straight)
    gif = out or folders().outputs / "walk.gif"
    latent.save_gif(torch.cat([images, images[1:-1].flip(0)]), gif, seconds=4)  # there and back
    print(f"wrote {gif}")


def _checkpoint(model: str | None, seed: int = 0) -> "models.Checkpoint":
    if not 0 <= seed < 2**32:  # which all libraries take
        raise ValueError(f"--seed {seed}: give a number from 0 to {2**32 - 1}")
    return models.load_checkpoint(_path(model), best_device())


def _path(model: str | None) -> Path:
    """What --model says: shipped weights, else models/NAME, else another folder, else a file."""
    path = folders().models / (model or "saved_models")
    return path if model is None or (model not in SHIPPED and path.exists()) else models.find_weights(model)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; the one place where an exception becomes a sentence. Exits with 1 after it, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # letters that a terminal does not have
    warnings.formatwarning = lambda message, *where: f"warning: {message}\n"
    words = list(sys.argv[1:] if argv is None else argv)
    for i in range(len(words), 0, -1):
        if words[i - 1] == "--crop" and words[i : i + 1] not in [[crop] for crop in CROPS]:
            words.insert(i, "box")
    commands = {command.__name__: command for command in (split, duplicates, train, evaluate, sample, reconstruct, walk)}
    try:
        args = [word for word in words if word != "--debug"]
        tyro.extras.subcommand_cli_from_dict(commands, prog="vae-helpers", description=__doc__, args=args)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if "--debug" in words:
            raise
        raw = isinstance(error, FileNotFoundError) and error.filename  # in the system's own words
        said = f"{error.filename!r}: {error.strerror}: check the path" if raw else " ".join(str(error).split())
        own = isinstance(error, ValueError | OSError | FloatingPointError)
        hint = "" if own else f" ({type(error).__name__}; --debug shows where)"
        full = isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in said)
        sys.exit(f"error: {MEMORY_FULL if full else said + hint}")
