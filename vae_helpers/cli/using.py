"""What a model can do: evaluate, sample, reconstruct, walk, export-explorer."""

from collections.abc import Sequence
from pathlib import Path

import tyro

from .. import data, evaluation, latent, models
from ..config import best_device, folders
from .options import BATCH, Count, Crop, Model, best_of, checkpoint_of, path_of


def evaluate(model: Model = None, seed: int = 0) -> None:
    """What a model makes of data/test/dogs: outputs/report.html, for people, and outputs/metrics.json.

    Args:
        seed: of every draw.
    """
    where, saved = folders(), checkpoint_of(model, seed)
    options = {"image_size": saved.vae.image_size, "cache_dir": where.cache, "crop": saved.vae.crop}
    learn, _ = data.split_validation(data.load_images(where.train, **options))
    test = data.load_images(where.test, **options)
    options = {"labels": latent.dog_attributes(test, where.toy_dogs), "drawn": best_of(model, seed)}
    measured = evaluation.evaluate(saved.vae, learn.pixels, test.pixels, saved.beta, images="test dogs", seed=seed, **options)
    measured.metrics["epoch"] = saved.epoch
    verdicts = evaluation.write_report(measured, where.outputs, f"What this model does, after {saved.epoch} epochs")
    print(*verdicts, f"wrote {where.outputs / 'report.html'} and metrics.json", sep="\n")


def sample(
    model: Model = None,
    n: Count = 64,
    seed: int = 0,
    breed: str | None = None,
    out: Path | None = None,
    raw: bool = False,
) -> None:
    """Draw new dogs from the best prior that a model has: one sheet, outputs/samples.png, or single PNG files with --out.

    Args:
        n: how many.
        seed: of the draws.
        breed: of the dogs, where the model knows breeds; each its own, drawn by chance, when left out.
        out: folder for single files.
        raw: take the decoder as `train` left it, and draw from N(0, I).
    """
    import torch
    from tqdm import tqdm

    from ..plots import image_grid, save_figure

    if n < 1 or (n > 1000 and out is None):
        raise ValueError(f"-n {n}: a sheet shows from 1 to 1000 dogs; --out FOLDER writes any number above 0 as single files")
    vae, prior = best_of(model, seed, raw)
    generator, names = torch.Generator().manual_seed(seed), getattr(prior, "names", ())
    by_chance = prior.weights.multinomial(n, replacement=True, generator=generator) if names else []
    breeds = [_breed(breed, names or vae.breeds)] * n if breed else [names[i] for i in by_chance]
    z = prior.to(best_device()).sample(n, generator, **({"name": breeds} if names else {}))
    breeds = breeds if {*breeds} <= {*vae.breeds} else []
    parts = tqdm([slice(i, i + BATCH) for i in range(0, n, BATCH)], leave=False, disable=None)
    images = torch.cat([models.decode_latents(vae, z[part], breed=breeds[part]) for part in parts])
    if out is not None:
        return latent.save_pngs(images, out, [f"sample_{i:05d}" for i in range(n)])
    path, of = folders().outputs / "samples.png", f" as {breed}" if breed else ""
    save_figure(image_grid(images, f"{n} draws from {type(prior).__name__}, decoded{of}: seed {seed}, not picked"), path)
    print(f"wrote {path}")


def reconstruct(source: tyro.conf.Positional[Path], out: Path, model: Model = None, crop: Crop = None) -> None:
    """What comes back of each image of a folder that goes through a model's mean: PNG files named after the images.

    Args:
        source: folder of images.
        out: folder for the files.
    """
    vae = checkpoint_of(model).vae
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
    vae, prior = best_of(model, seed)
    ends = list(prior.sample(2, torch.Generator().manual_seed(seed)))
    for i, photo in enumerate((start, end)):
        if photo is not None:
            pixels = torch.tensor(data.decode_image(photo, vae.image_size, crop or vae.crop)).permute(2, 0, 1)
            ends[i] = models.encode_images(vae, pixels[None])[0][0]
    images = latent.walk(vae, *ends, steps, on_sphere=not straight)
    gif = out or folders().outputs / "walk.gif"
    latent.save_gif(torch.cat([images, images[1:-1].flip(0)]), gif, seconds=4)  # there and back
    print(f"wrote {gif}")


def export_explorer(out: Path, model: Model = None) -> None:
    """Write what a web page needs to walk through a model's latents: its networks as ONNX files, and directions.json.

    Args:
        out: folder for the files.
    """
    latent.export_explorer(*best_of(model, seed=0), path_of(model).stem, out)
    print(f"wrote {out}")


def _breed(breed: str, names: Sequence[str]) -> str:
    """The one of `names` that is meant, however it is spelled: golden_retriever is Golden retriever."""
    spelled, wanted = {name.lower().replace("_", " "): name for name in names}, breed.lower().replace("_", " ")
    if wanted not in spelled:
        none = "this model knows no breeds (of photos of several, train-prior makes a prior that does)"
        raise ValueError(f"--breed {breed!r}: {'it is none of ' + ', '.join(names) if names else none}")
    return spelled[wanted]
