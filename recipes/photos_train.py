"""How `vector`, `faithful` and their priors were made, of the weights that come with the package.

    python recipes/photos_train.py photos-64px.tar --out NEW --stages vector faithful sharpen flow

vector    the default VAE with calibrated noise, for sliders; and one Gaussian of its latents' means: `vector_prior`
faithful  the attention VAE, 392 numbers a dog, calibrated noise: written as `unsharpened`
sharpen   adversarial fine-tuning of its decoder, with a patch discriminator (Esser et al. 2021): written as `faithful`
flow      the priors over faithful's latents: Gaussians, a mixture, a latent flow

Each stage ends when its seconds are up, with its schedule run to the end. Written as it goes, so that a stop loses little:
OUT/{vector,unsharpened,faithful,flow,…}.safetensors, OUT/figures.jsonl (held-out figures against time), OUT/*.png to look at.
"Held out" are 1,000 photos of the test split that nothing here learns from; `flow-best` was chosen by its loss on them.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs where the package is not installed

from photos_data import SIZES, read_photos, split_photos
from photos_stages import DEVICE, autocast, sharpen, train_vae

from vae_helpers.config import precision_wanted
from vae_helpers.evaluation import evaluate_vae
from vae_helpers.models import (
    VAE,
    AttentionVAE,
    BaseVAE,
    Checkpoint,
    FullGaussian,
    GaussianMixture,
    LatentFlow,
    Prior,
    StandardNormal,
    decode_latents,
    encode_images,
    load_checkpoint,
    load_prior,
    reparameterize,
    save_checkpoint,
    to_float,
    to_uint8,
)
from vae_helpers.training import fit_flow

WRITTEN_AS = {"faithful": "unsharpened", "sharpen": "faithful"}  # the network of each stage, where it is not its name


def latents_to_learn(vae: BaseVAE, photos: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
    """mu and std, each (M, C, H, W), of every photo: four times whole and four times cut out, as it is and flipped."""
    parts = []
    for size in (*4 * SIZES[:1], *2 * SIZES[1:]):
        top, left = torch.randint(size - SIZES[0] + 1, (2,)).tolist()
        cut = photos[size][:, :, top : top + SIZES[0], left : left + SIZES[0]]
        with autocast():
            parts += [encode_images(vae, pixels) for pixels in (cut, cut.flip(3))]
    mu, logvar = (torch.cat(part) for part in zip(*parts, strict=True))
    return mu, (0.5 * logvar).exp()


def sheet(rows: list[Tensor]) -> Image.Image:
    """One picture of rows of images, each (B, 3, S, S) in [-1, 1]."""
    pixels = torch.cat([torch.cat(list(to_uint8(row)), dim=2) for row in rows], dim=1)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a tar of images, or a folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stages", nargs="+", default=["vector", "faithful", "sharpen", "flow"])
    parser.add_argument("--seconds", nargs="+", type=float, default=[45, 390, 80, 450], help="one for each stage")
    parser.add_argument("--width", type=int, default=48, help="of the attention VAE: channels at full size")
    parser.add_argument("--flow-width", type=int, default=256)
    parser.add_argument("--flow-depth", type=int, default=8)
    parser.add_argument("--dropout", type=float, default=0.1, help="in the flow")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=6e-4, help="largest learning rate of the attention VAE")
    parser.add_argument("--components", type=int, default=16, help="of the mixture")
    parser.add_argument("--limit", type=int, help="only the first so many photos, to try things out")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")

    names, pixels = read_photos(options.photos, options.limit)
    learn, unseen = split_photos(names)
    photos = {size: stack[learn].to(DEVICE) for size, stack in pixels.items()}
    held_out = pixels[SIZES[0]][unseen]
    (out / "unseen.txt").write_text("\n".join(names[i] for i in unseen) + "\n")
    print(f"{len(learn)} photos to learn from, {len(unseen)} unseen, on {DEVICE}; torch {torch.__version__}")

    def say(stage: str, **figures: float) -> None:
        with (out / "figures.jsonl").open("a") as file:
            file.write(json.dumps({"stage": stage} | figures) + "\n")
        print(stage, *(f"{name}={value:.5g}" for name, value in figures.items()))

    def save(stage: str, vae: BaseVAE) -> None:
        save_checkpoint(out / f"{WRITTEN_AS.get(stage, stage)}.safetensors", Checkpoint(vae), torch.float16)

    def reporter(stage: str) -> Callable:
        def report(vae: BaseVAE, seconds: float, step: int, images: int, more: dict[str, float]) -> None:
            with autocast():
                figures = evaluate_vae(vae, held_out[:512])
            kl = {"kl": figures.kl, "psnr_mean": figures.psnr_mean, "psnr_sampled": figures.psnr_sampled}
            say(stage, seconds=seconds, step=step, images_per_second=images / seconds, **kl, **more)
            save(stage, vae)

        return report

    def save_stage(stage: str, vae: BaseVAE) -> BaseVAE:
        with autocast():
            figures = evaluate_vae(vae, held_out)
        say(f"{stage}, all unseen", kl=figures.kl, psnr_mean=figures.psnr_mean, psnr_sampled=figures.psnr_sampled)
        save(stage, vae)
        rows = [x for some in held_out[:32].split(16) for x in (to_float(some), reconstruct(vae, some))]
        sheet(rows).save(out / f"{stage}-unseen.png")  # photos: for looking, not for committing
        return vae

    def reconstruct(vae: BaseVAE, pixels: Tensor) -> Tensor:
        return decode_latents(vae, encode_images(vae, pixels)[0])

    trained: dict[str, BaseVAE] = {}
    for name in ("unsharpened", "faithful"):  # of an earlier run
        if (out / f"{name}.safetensors").exists():
            trained[name] = load_checkpoint(out / f"{name}.safetensors", DEVICE).vae
    for stage, seconds in zip(options.stages, options.seconds, strict=True):
        if stage == "vector":
            vae = save_stage(stage, train_vae(VAE(), photos, seconds, 2 * options.batch, 2e-3, reporter(stage)))
            mu = torch.cat([encode_images(vae, pixels)[0] for pixels in (photos[SIZES[0]], photos[SIZES[0]].flip(3))])
            FullGaussian(vae.latent_shape).fit(mu).save(out / "vector_prior.safetensors", torch.float16)
        elif stage == "faithful":
            vae = AttentionVAE(options.width, latent_channels=8)
            trained["unsharpened"] = save_stage(
                stage, train_vae(vae, photos, seconds, options.batch, options.rate, reporter(stage))
            )
        elif stage == "sharpen":
            vae = sharpen(trained["unsharpened"], photos, seconds, options.batch, 1e-4, reporter(stage))
            trained["faithful"] = save_stage(stage, vae)
        elif stage == "flow":
            priors = fit_priors(trained["faithful"], photos, held_out, seconds, options, say)
            rows = []
            for prior in priors:
                z = prior.sample(64, torch.Generator().manual_seed(0))
                rows += [row for vae in trained.values() for row in decode_latents(vae, z).split(32)]
            sheet(rows).save(out / "samples.png")
        else:
            raise SystemExit(f"--stages: there is no stage {stage!r}")


def fit_priors(
    vae: BaseVAE, photos: dict[int, Tensor], held_out: Tensor, seconds: float, options: argparse.Namespace, say: Callable
) -> list[Prior]:
    """The priors, each saved; figures of the flow on held-out latents, z drawn from their posteriors."""
    out, shape = options.out, vae.latent_shape
    mu, std = latents_to_learn(vae, photos)
    whole = mu[: 2 * len(photos[SIZES[0]])], std[: 2 * len(photos[SIZES[0]])]  # the uncut photos, as they are and flipped
    priors = [StandardNormal(shape), FullGaussian(shape).fit(*whole), GaussianMixture(shape, options.components).fit(*whole)]
    priors[1].save(out / "gaussian.safetensors", torch.float16)
    unseen_mu, unseen_logvar = encode_images(vae, held_out)
    unseen = reparameterize(unseen_mu, unseen_logvar)
    learned = (mu + std * torch.randn_like(mu))[: len(unseen)]
    heads = max(1, options.flow_width // 32)
    flow = LatentFlow(shape, options.flow_width, options.flow_depth, heads, options.dropout).to(DEVICE)
    best = math.inf

    def report(figures: dict[str, float]) -> None:
        nonlocal best
        loss = flow.validation_loss(unseen)
        say("flow", **figures, held_out_loss=loss, loss_on_learned=flow.validation_loss(learned))
        flow.save(out / "flow.safetensors", torch.float16)
        if loss < best:
            best = loss
            flow.save(out / "flow-best.safetensors", torch.float16)

    limits = {"steps": 10**9, "seconds": seconds, "batch_size": 4 * options.batch, "learning_rate": 6e-4}
    fit_flow(flow, mu, std, **limits, seed=options.seed, precision=precision_wanted(), on_report=report)
    started = time.perf_counter()
    flow.sample(256)
    say("flow, sampling", seconds_per_latent=(time.perf_counter() - started) / 256)
    return [*priors, load_prior(out / "flow-best.safetensors").to(DEVICE), flow]


if __name__ == "__main__":
    main()
