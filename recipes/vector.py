"""How `vector` was made, the default VAE with calibrated noise, and `vector_prior`, one Gaussian of its latents' means.

    python recipes/vector.py photos-64px.tar NEW [--seconds 40]

PHOTOS is a tar of images or a folder. Training ends when its seconds are up, with its schedule run to the end, so other
machines make other weights. NEW gets vector.safetensors, vector_prior.safetensors and unseen.txt: the names of 1,000 photos of
the test split that nothing is learned from. What the VAE makes of those is printed: half of them are the reference for
distances in our own features, the other half give the real-vs-real baseline.
"""

import argparse
import copy
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.model_selection import train_test_split
from torch import Tensor

from vae_helpers.config import best_device, precision_wanted
from vae_helpers.data import decode_image, find_images
from vae_helpers.evaluation import compare_features, evaluate_vae, extract_features, load_dog_features
from vae_helpers.models import (
    VAE,
    BaseVAE,
    Checkpoint,
    FullGaussian,
    calibrated_beta,
    decode_latents,
    encode_images,
    save_checkpoint,
    to_float,
    to_uint8,
    use_bfloat16,
    vae_loss,
)
from vae_helpers.training import learning_rate_factor, optimizer_step, update_ema

SIZES = (56, 60, 64)  # a photo at 56 pixels is what counts; from the larger ones, 56 x 56 are cut out at random places
BATCH, LEARNING_RATE, EMA_DECAY = 256, 2e-3, 0.999
DEVICE = best_device()


def read_photos(source: Path) -> tuple[list[str], dict[int, Tensor]]:
    """Names, sorted, and uint8 pixels (N, 3, S, S) for each of SIZES, from a tar of images or a folder."""
    if source.is_dir():
        files = {name: source / name for name in find_images(source)}
    else:
        with tarfile.open(source) as archive:
            members = [member for member in archive if member.isfile()]
            files = {Path(member.name).name: archive.extractfile(member).read() for member in members}
    names = sorted(files)
    with ThreadPoolExecutor() as pool:
        decoded = list(pool.map(lambda name: [decode_image(files[name], size) for size in SIZES], names))
    stacks = [torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous() for images in zip(*decoded, strict=True)]
    return names, dict(zip(SIZES, stacks, strict=True))


def split_photos(names: list[str]) -> tuple[list[int], list[int]]:
    """Indices (to learn from, unseen): the contract's split, then a seeded half of its test photos is learned from too."""
    train, test = train_test_split(range(len(names)), test_size=0.2, random_state=42)
    more, unseen = train_test_split(sorted(test), test_size=0.5, random_state=42)
    return sorted(train + more), sorted(unseen)


def random_batch(photos: dict[int, Tensor], n: int) -> Tensor:
    """(n, 3, 56, 56) in [-1, 1]: half of the batches whole photos, half cut out of larger ones; flipped half of the time."""
    size = SIZES[max(0, int(torch.randint(4, ())) - 1)]
    stack, side = photos[size], SIZES[0]
    which = torch.randint(len(stack), (n, 1, 1, 1), device=stack.device)
    top, left = torch.randint(size - side + 1, (2, n, 1, 1, 1), device=stack.device)
    along = torch.arange(side, device=stack.device)
    across = torch.where(torch.rand(n, 1, 1, 1, device=stack.device) < 0.5, along, along.flip(0))
    channel = torch.arange(3, device=stack.device).view(1, 3, 1, 1)
    return to_float(stack[which, channel, top + along.view(1, 1, side, 1), left + across], stack.device)


def train_vae(vae: BaseVAE, photos: dict[int, Tensor], seconds: float) -> BaseVAE:
    """The moving average of `vae`, trained with the noise that is best at every step. Rybkin et al. 2021, eq. 6.

    Not `fit`: this one ends on time, cuts photos out of larger ones, and draws everything on the device.
    """
    vae = vae.to(device=DEVICE, memory_format=torch.channels_last).train()
    ema = copy.deepcopy(vae).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    bf16, started, step = use_bfloat16(DEVICE, precision_wanted()), time.perf_counter(), 0
    while (gone := (time.perf_counter() - started) / seconds) < 1:
        x = random_batch(photos, BATCH)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
            x_hat, mu, logvar = vae(x)
        recon = F.mse_loss(x_hat, x).detach()
        loss = vae_loss(x_hat, x, mu, logvar, calibrated_beta(recon, x[0].numel())).loss
        for group in optimizer.param_groups:  # over as many steps as will fit, judged by those so far
            group["lr"] = LEARNING_RATE * learning_rate_factor(step, (step + 1) / gone, warmup=300)
        optimizer_step(loss, optimizer, vae.parameters())
        update_ema(ema, vae, step, EMA_DECAY)
        step += 1
    return ema


def measure(vae: BaseVAE, unseen: Tensor) -> None:
    """Print what `vae` makes of photos that it never saw, uint8 (N, 3, 56, 56)."""
    figures = evaluate_vae(vae, unseen)
    print(f"{len(unseen)} unseen: {figures.psnr_mean:.2f} dB from the mean, KL {figures.kl:.0f} nats")
    ours, reference = unseen[: len(unseen) // 2 * 2].view(-1, 2, *unseen.shape[1:]).unbind(1)
    network, back = load_dog_features(), to_uint8(decode_latents(vae, encode_images(vae, ours)[0]))
    real = extract_features(network, reference)
    for name, images in {"reconstructions": back, "other photos": ours}.items():
        print(name, asdict(compare_features(generated=extract_features(network, images), real=real)))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=40)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    names, pixels = read_photos(options.photos)
    learn, unseen = split_photos(names)
    (options.out / "unseen.txt").write_text("\n".join(names[i] for i in unseen) + "\n")
    print(f"{len(learn)} photos to learn from, {len(unseen)} unseen, on {DEVICE}; torch {torch.__version__}")
    photos = {size: stack[learn].to(DEVICE) for size, stack in pixels.items()}
    vae, whole = train_vae(VAE(), photos, options.seconds), photos[SIZES[0]]
    save_checkpoint(options.out / "vector.safetensors", Checkpoint(vae), torch.float16)
    mu = torch.cat([encode_images(vae, images)[0] for images in (whole, whole.flip(3))])
    FullGaussian(vae.latent_shape).fit(mu).save(options.out / "vector_prior.safetensors", torch.float16)
    measure(vae, pixels[SIZES[0]][unseen])


if __name__ == "__main__":
    main()
