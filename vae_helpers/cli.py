"""The notebooks' work, on a server too: `python -m vae_helpers COMMAND`, and `--help` for what there is."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from PIL import Image
from torch import Tensor

from .config import best_device, folders
from .data.breeds import breed_of
from .data.duplicates import find_duplicates, group_duplicates
from .data.images import decode_image, load_images, split_validation
from .data.photos import resolve_source
from .data.split import split_dataset
from .evaluation.evaluation import evaluate_model
from .evaluation.report import reconstruction_saver, write_report
from .files import atomic_write
from .latent.attributes import dog_attributes
from .latent.walks import filmstrip, save_gif, save_png
from .latent.walks import walk as walk_between
from .models.attention import AttentionVAE, SpatialVAE
from .models.checkpoint import Checkpoint, load_checkpoint, load_newest_checkpoint
from .models.inference import decode_latents, encode_images, to_uint8
from .models.pretrained import load_pretrained
from .models.priors import StandardNormal
from .models.vae import VAE, BaseVAE
from .plots import image_grid, image_rows, save_figure
from .training.loop import fit, make_accelerator
from .training.settings import TrainingSettings

Shipped = Literal["faithful", "vector"]
BATCH = 32  # more at a time does not fit into a CPU's caches: 256 take half as long again an image


def split(
    dogs: tyro.conf.Positional[str] = "toy",
    /,
    test_size: float = 0.2,
    random_state: int = 42,
    stratify: bool = False,
    duplicates_together: bool = False,
    crop: bool = False,
) -> None:
    """Split dogs into data/train/dogs and data/test/dogs.

    Args:
        dogs: a folder of images, or oxford-pets, stanford-dogs (fetched, once) or toy.
        test_size: fraction of the images for testing.
        random_state: seed of the split.
        stratify: put the same share of every breed aside.
        duplicates_together: keep pictures that are there twice on one side.
        crop: cut a square out of each image, around the dog where that is known, instead of squashing it.
    """
    where, source = folders(), resolve_source(dogs)
    together = group_duplicates(find_duplicates(load_images(source))) if duplicates_together else []
    options = {"stratify": stratify, "together": together, "crop": crop}
    split_dataset(source, where.train, where.test, test_size, random_state, **options)


def duplicates(dogs: tyro.conf.Positional[str], /, limit: int = 32) -> None:
    """Find pictures that are there twice: a list, and outputs/duplicates.png with the closest pairs side by side.

    Args:
        dogs: as for split.
        limit: bits of 256 in which the perceptual hashes of a pair may differ.
    """
    images = load_images(resolve_source(dogs))
    pairs = find_duplicates(images, limit)
    for pair in pairs:
        kind = "exactly" if pair.exact else f"{pair.distance} bits{', mirrored' if pair.mirrored else ''}"
        print(f"{pair.one!r}  {pair.other!r}  {kind}")
    print(f"{len(pairs)} pairs among {len(images)} images")
    if pairs:
        at = {name: i for i, name in enumerate(images.names)}
        some = [(at[pair.one], at[pair.other]) for pair in pairs[:16]]
        rows = {f"{i + 1}": images.pixels[list(pair)] for i, pair in enumerate(some)}
        path = folders().outputs / "duplicates.png"
        save_figure(image_rows(rows, "Twice the same?"), path)
        print(f"wrote {path}, the first {len(rows)}")


def train(
    settings: tyro.conf.OmitArgPrefixes[TrainingSettings] = TrainingSettings(),  # noqa: B008 (frozen)
    network: Literal["vector", "spatial", "attention"] = "vector",
    latent_dim: int = 128,
    latent_channels: int = 8,
    width: int = 32,
    checkpoint_dir: Path | None = None,
    keep_last: int | None = None,
) -> None:
    """Train a VAE on data/train/dogs; going on where an earlier run of the same kind stopped.

    Args:
        settings: of the training run.
        network: the default one, whose latent is a vector; one whose latent is a small picture, for a laptop; or Stable
            Diffusion's autoencoder, for a GPU.
        latent_dim: numbers in a latent that is a vector.
        latent_channels: numbers at each place of one that is a small picture (7 x 7 places).
        width: channels of spatial and attention, where the picture is largest; 128 is Stable Diffusion's.
        checkpoint_dir: where checkpoints are kept; models/saved_models when left out.
        keep_last: how many of the newest checkpoints are kept; all when left out.
    """
    where = folders()
    with make_accelerator().local_main_process_first():  # the others find its cache
        learn, validation = split_validation(load_images(where.train))
    torch.manual_seed(settings.seed)
    save_picture = reconstruction_saver(validation.pixels[:8], where.outputs / "reconstructed.png")
    if network == "vector":
        vae = VAE(latent_dim)
    else:
        kind = SpatialVAE if network == "spatial" else AttentionVAE
        vae = kind(width, latent_channels, groups=min(32, width // 4))
    fit(vae, learn.pixels, validation.pixels, settings, checkpoint_dir or where.checkpoints, save_picture, keep_last)


def evaluate(checkpoint: tyro.conf.Positional[Path | None] = None, /, seed: int = 0, inception: bool = False) -> None:
    """What a checkpoint makes of data/test/dogs: outputs/report.html, for people, and outputs/metrics.json.

    Args:
        checkpoint: a .pth or .safetensors file; the newest in models/saved_models when left out.
        seed: of every draw.
        inception: compare samples in Inception's features (FID, KID), whose weights are downloaded once, instead of our own.
    """
    where = folders()
    saved = _checkpoint(checkpoint)
    vae = saved.vae
    learn, _ = split_validation(load_images(where.train, vae.image_size))
    test = load_images(where.test, vae.image_size)
    labels = dog_attributes(test, where.toy_dogs)
    breeds = [breed_of(name) for name in test.names]
    options = {"seed": seed, "extractor": "inception" if inception else None, "reference": "test dogs", "breeds": breeds}
    evaluation = evaluate_model(vae, learn.pixels, test.pixels, saved.beta, labels, **options)
    evaluation.metrics["epoch"] = saved.epoch
    write_report(evaluation, where.outputs, f"What this model does, after {saved.epoch} epochs")
    for section in evaluation.sections:
        print(section.verdict)
    print(f"wrote {where.outputs / 'report.html'} and metrics.json")


def sample(
    checkpoint: tyro.conf.Positional[Path | None] = None,
    /,
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 64,
    seed: int = 0,
    out: Path | None = None,
    model: Shipped | None = None,
    prior: Literal["normal", "gaussian", "flow"] = "normal",
) -> None:
    """Draw new dogs: one sheet, outputs/samples.png, or single PNG files with --out.

    Args:
        checkpoint: a .pth or .safetensors file; the newest in models/saved_models when it and --model are left out.
        n: how many.
        seed: of the draws.
        out: folder for single files.
        model: one that comes with the project, instead of a checkpoint.
        prior: where latents come from: N(0, I), or one fitted to the latents of dogs, for faithful.
    """
    if prior != "normal" and model != "faithful":
        raise ValueError(f"--prior {prior} knows the latents of --model faithful: add that")
    vae = _model(checkpoint, model)
    source = StandardNormal(vae.latent_shape) if prior == "normal" else load_pretrained(prior).to(best_device())
    images = decode_latents(vae, source.sample(n, torch.Generator().manual_seed(seed)), BATCH)
    if out is None:
        path = folders().outputs / "samples.png"
        drawn_from = "N(0, I)" if prior == "normal" else f"the prior '{prior}'"
        save_figure(image_grid(images, f"{n} draws from {drawn_from}, decoded: seed {seed}, not picked"), path)
        print(f"wrote {path}")
    else:
        _save_images(images, out, (f"sample_{i:05d}" for i in range(n)))


def reconstruct(
    source: tyro.conf.Positional[Path],
    /,
    out: Path,
    model: Shipped | None = None,
    checkpoint: Path | None = None,
) -> None:
    """What comes back of each image of a folder that goes through a model's mean: PNG files named after the images.

    Args:
        source: folder of images.
        out: folder for the files.
        model: one that comes with the project.
        checkpoint: a .pth or .safetensors file instead; the newest in models/saved_models when both are left out.
    """
    vae = _model(checkpoint, model)
    images = load_images(source, vae.image_size)
    _save_images(decode_latents(vae, encode_images(vae, images.pixels, BATCH)[0], BATCH), out, images.names)


def _model(checkpoint: Path | None, shipped: Shipped | None) -> BaseVAE:
    if checkpoint and shipped:
        raise ValueError(f"two models named, {str(checkpoint)!r} and --model {shipped}: leave one out")
    if shipped:
        return load_pretrained(shipped).to(best_device())
    return _checkpoint(checkpoint).vae


def _checkpoint(path: Path | None) -> Checkpoint:
    device = best_device()
    return load_checkpoint(path, device) if path else load_newest_checkpoint(folders().checkpoints, device)


def _save_images(images: Tensor, folder: Path, names: Iterable[str]) -> None:
    for image, name in zip(to_uint8(images).permute(0, 2, 3, 1).numpy(), names, strict=True):
        path = folder / f"{name}.png"
        with atomic_write(path) as partial:
            Image.fromarray(image).save(partial, "PNG")
    print(f"wrote {len(images)} files to {folder}")


def walk(
    start: tyro.conf.Positional[Path | None] = None,
    end: tyro.conf.Positional[Path | None] = None,
    /,
    steps: int = 48,
    straight: bool = False,
    seed: int = 0,
    checkpoint: Path | None = None,
    out: Path | None = None,
) -> None:
    """Walk from one dog to another: a GIF, outputs/walk.gif, and a filmstrip beside it, outputs/walk_filmstrip.png.

    Args:
        start: an image file; a draw from N(0, I) when left out.
        end: an image file; another draw when left out.
        steps: how many pictures, both ends included.
        straight: along the straight line instead of the sphere's arc.
        seed: of the draws.
        checkpoint: a .pth or .safetensors file; the newest in models/saved_models when left out.
        out: where the GIF goes.
    """
    vae = _model(checkpoint, None)
    generator = torch.Generator().manual_seed(seed)

    def latent(photo: Path | None) -> Tensor:
        if photo is None:
            return torch.randn(vae.latent_shape, generator=generator)
        pixels = torch.from_numpy(decode_image(photo, vae.image_size).copy()).permute(2, 0, 1)
        return encode_images(vae, pixels[None])[0][0]

    images = walk_between(vae, latent(start), latent(end), steps, on_sphere=not straight)
    gif = out or folders().outputs / "walk.gif"
    strip = gif.with_name(f"{gif.stem}_filmstrip.png")
    save_gif(images, gif)
    save_png(filmstrip(images[:: -(-len(images) // 12)]), strip)
    print(f"wrote {gif} and {strip}")


def main() -> None:
    """Run the command line; what a person can mend is said in one line, without a traceback."""
    try:
        commands = {command.__name__: command for command in (split, duplicates, train, evaluate, sample, reconstruct, walk)}
        tyro.extras.subcommand_cli_from_dict(commands, prog="python -m vae_helpers", description=__doc__)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
