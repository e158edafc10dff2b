"""How the weights `heads` are made: a VAE on dog heads, by pixels and features, then with an adversary. One core is enough.

    pip install -e ".[sharpen]"
    python recipes/heads.py ../shared/dogs RUN [--images 600000]

DOGS holds photos, `heads.json` with boxes of heads, and `heads-112.tar` with heads that are cut out already. RUN.pt keeps
everything; the same command goes on from it. RUN_IMAGES.png is a sheet to look at: 64 draws from N(0, I), then 16 held-out
heads, each above its reconstruction. At the end RUN.safetensors has the averaged weights in half precision, for
`load_pretrained`, and RUN_prior.safetensors one Gaussian of the latents of the heads that were learned from, for `load_prior`.
Three phases, counted in images seen:

warm     squared error of pixels and of features of a frozen EfficientNet-Lite0, and the KL: soft faces
then     an adversary joins, on features (Sauer et al. 2021) and on pixels; half of what it sees are draws from N(0, I), half
         reconstructions, a third of these from the mean
grown    the decoder gets one more stage, 112 x 112, whose picture is a correction to the enlarged one and starts at zero

On a GPU where there is one; in bfloat16 where the machine has units for it.
"""

import argparse
import copy
import io
import json
import tarfile
import time
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from vae_helpers.files import atomic_write
from vae_helpers.models import (
    Checkpoint,
    FullGaussian,
    ResidualVAE,
    decode_latents,
    encode_images,
    kl_divergence,
    reparameterize,
    save_checkpoint,
    to_float,
    to_uint8,
    use_bfloat16,
)
from vae_helpers.training import Adversary, FeatureDistance, Lite0, optimizer_step, random_translate, update_ema

BATCH, LARGE = 32, 112
WEIGHTS = {"pixels": 10.0, "features": 1.0, "kl": 0.001, "fooled": 0.25}  # of each loss that the VAE lowers
KL_GROWN = 0.0006  # the KL's weight once the decoder has grown: more is to be told of a larger picture
COOLING = 15_000  # images at the end over which the learning rates fall
EMA_DECAY = 0.999
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BF16 = use_bfloat16(DEVICE)


def autocast() -> torch.autocast:
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=BF16)


# ---- data ----


def read_heads(dogs: Path) -> tuple[Tensor, list[str]]:
    """Every head under `dogs`: uint8 (N, 3, 112, 112), and its name. Of a photo the surest box, if its confidence is 0.3."""
    images, names = [], []
    for name, boxes in sorted(json.loads((dogs / "heads.json").read_text()).items()):
        box = max((b for b in boxes if b[4] >= 0.3), key=lambda b: b[4], default=None)
        if box:
            images.append(cut_head(ImageOps.exif_transpose(Image.open(dogs / name)).convert("RGB"), box))
            names.append(name)
    with tarfile.open(dogs / "heads-112.tar") as tar:
        for member in sorted(tar, key=lambda m: m.name):
            image = Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB")
            images.append(np.asarray(image.resize((LARGE, LARGE), Image.Resampling.LANCZOS)))
            names.append(member.name)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), names


def cut_head(image: Image.Image, box: list[float]) -> np.ndarray:
    """A square around a head's box (left, top, right, bottom as fractions): half side 0.6 x the box, 5% higher, inside."""
    w, h = image.size
    left, top, right, bottom = box[:4]
    half = min(0.6 * max((right - left) * w, (bottom - top) * h), w / 2, h / 2)
    x = min(max((left + right) / 2 * w, half), w - half)
    y = min(max((top + bottom) / 2 * h - 0.1 * half, half), h - half)
    return np.asarray(image.resize((LARGE, LARGE), Image.Resampling.LANCZOS, box=(x - half, y - half, x + half, y + half)))


def is_held_out(name: str) -> bool:
    """One head in sixteen, the same whatever else is added."""
    return zlib.crc32(name.encode()) % 16 == 0


def random_heads(heads: Tensor, n: int) -> Tensor:
    """(n, 3, 112, 112) in [-1, 1]: mirrored half of the time, moved by up to 6 pixels."""
    x = to_float(heads[torch.randint(len(heads), (n,))], DEVICE)
    x = torch.where((torch.rand(n, 1, 1, 1) < 0.5).to(DEVICE), x.flip(3), x)
    return random_translate(x, 6 - torch.randint(13, (n, 2)))


# ---- training ----


class Run:
    """Everything that a stop must not lose, and how the networks are joined.

    features: of pretrained networks, if any. warm, grow: images after which the adversary joins, and the decoder grows;
    images: after which the training ends.
    """

    def __init__(self, features: FeatureDistance | None, warm: int, grow: int, images: int):
        self.features, self.warm, self.grow_at, self.images = features, warm, grow, images
        self.step, self.grown_at = 0, None
        self._make({})

    def _make(self, weights: dict[str, Tensor]) -> None:
        """The networks and optimizers of this size; layers of the VAE that are not among `weights` start anew."""
        self.vae = ResidualVAE(grown=self.grown_at is not None, image_size=56 if self.grown_at is None else LARGE)
        self.vae.load_state_dict(weights, strict=False)
        self.vae.to(device=DEVICE, memory_format=torch.channels_last).crop = "head"
        self.average = copy.deepcopy(self.vae).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.vae.parameters(), betas=(0.5, 0.99), fused=True)
        self.adversary = Adversary(self.vae.image_size, self.features, device=DEVICE, bf16=BF16)

    @property
    def parts(self) -> dict:
        return {name: getattr(self, name) for name in ("vae", "average", "optimizer", "adversary")}

    def save(self, path: Path) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()} | {"step": self.step, "grown_at": self.grown_at}
        with atomic_write(path) as partial:
            torch.save(state, partial)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=DEVICE, weights_only=True)
        self.step, self.grown_at = state["step"], state["grown_at"]
        self._make({})
        for name, part in self.parts.items():
            part.load_state_dict(state[name])

    def grow(self) -> None:
        """Go on at 112 x 112 from the average, with a new discriminator on pixels."""
        before, self.grown_at = self.adversary.networks, self.step
        self._make(self.average.state_dict())
        if self.features:
            self.adversary.networks["features"].load_state_dict(before["features"].state_dict())

    def train_step(self, heads: Tensor) -> dict[str, Tensor]:
        """Learn from one batch; returns the losses."""
        if self.grown_at is None and self.step * BATCH >= self.grow_at:
            self.grow()
        adversarial = self.step * BATCH >= self.warm
        x = self.sized(random_heads(heads, BATCH))
        n = BATCH // 2 if adversarial else BATCH  # reconstructions; the others are draws from N(0, I)
        rise = min(1, (self.step - (self.grown_at or 0) + 1) / 200)
        fall = min(1.0, (self.images - self.step * BATCH) / COOLING)
        self.optimizer.param_groups[0]["lr"] = (2e-4 if adversarial else 5e-4) * rise * fall
        self.adversary.optimizer.param_groups[0]["lr"] = 2e-4 * fall
        with autocast():
            mu, logvar = self.vae.encode(x[:n])
            eps = torch.randn_like(mu)
            if adversarial:
                eps[: n // 3] = 0
            draws = torch.randn(BATCH - n, *self.vae.latent_shape, device=DEVICE)
            x_hat = self.vae.decode(torch.cat([reparameterize(mu, logvar, eps), draws]))
        losses = {"pixels": F.mse_loss(x_hat[:n], x[:n]), "kl": kl_divergence(mu, logvar).mean()}
        if adversarial:
            losses |= self.adversary.step(x_hat, x, n)._asdict()
        elif self.features:
            with autocast():
                losses["features"] = self.features(self.features.network(x_hat), self.features.network(x))
        weights = WEIGHTS if self.grown_at is None else WEIGHTS | {"kl": KL_GROWN}
        loss = sum(weight * losses[name] for name, weight in weights.items() if name in losses)
        optimizer_step(loss, self.optimizer, self.vae.parameters(), 5.0)
        update_ema(self.average, self.vae, self.step, EMA_DECAY)
        self.step += 1
        return losses

    def sized(self, x: Tensor) -> Tensor:
        """Heads (B, 3, 112, 112) as the VAE takes them."""
        x = F.avg_pool2d(x, 2) if self.grown_at is None else x
        return x.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def sheet(self, held_out: Tensor) -> tuple[np.ndarray, float]:
        """The picture to look at, (H, W, 3), and the PSNR in dB of held-out heads (uint8) from the mean."""
        x = self.sized(to_float(held_out))
        with autocast():
            back = decode_latents(self.average, encode_images(self.average, to_uint8(x))[0]).clamp(-1, 1)
            draws = self.average.sample(64, torch.Generator().manual_seed(0)).cpu()
        images = to_uint8(torch.cat([draws, x[:8], back[:8], x[8:16], back[8:16]])).permute(0, 2, 3, 1).numpy()
        size = images.shape[1]
        picture = images.reshape(-1, 8, size, size, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 8 * size, 3)
        return picture, 10 * torch.log10(4 / F.mse_loss(back, x)).item()


def main(arguments: list[str] | None = None, network: nn.Module | None = None) -> None:
    """network: another one than --features says, for tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dogs", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--features", choices=["lite0", "off"], default="lite0")
    for name, default in (("images", 600_000), ("warm", 50_000), ("grow", 100_000), ("save-every", 6_000), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(arguments)
    torch.manual_seed(0), torch.set_num_threads(options.threads)
    heads, names = read_heads(options.dogs)
    held_out = torch.tensor([is_held_out(name) for name in names])
    heads, held_out = heads[~held_out].contiguous(), heads[held_out]
    network, features = network or (Lite0() if options.features == "lite0" else None), None
    if network:
        some = torch.randperm(len(heads), generator=torch.Generator().manual_seed(0))[:200]
        with autocast():
            features = FeatureDistance(network.to(DEVICE), to_float(heads[some], DEVICE))
    run, path = Run(features, options.warm, options.grow, options.images), options.run.with_suffix(".pt")
    if path.exists():
        run.load(path)
    torch.manual_seed(run.step)  # going on does not draw the first batches again
    print(f"{len(heads)} heads to learn from, {len(held_out)} held out; {run.step * BATCH} images seen", flush=True)
    started, first = time.perf_counter(), run.step
    while run.step * BATCH < options.images:
        losses = run.train_step(heads)
        images = run.step * BATCH
        if run.step % 50 == 0:
            speed = (run.step - first) * BATCH / (time.perf_counter() - started)
            print(f"images {images} ({speed:.1f} a second) " + " ".join(f"{k} {v:.3f}" for k, v in losses.items()), flush=True)
        if images // options.save_every > (images - BATCH) // options.save_every or images >= options.images:
            run.save(path)
            picture, decibels = run.sheet(held_out)
            Image.fromarray(picture).save(f"{options.run}_{images:07d}.png")
            print(f"  held out: {decibels:.2f} dB", flush=True)
    save_checkpoint(options.run.with_suffix(".safetensors"), Checkpoint(run.average), torch.float16)
    mu, logvar = encode_images(run.average, to_uint8(run.sized(to_float(heads))))
    prior = FullGaussian(run.average.latent_shape).fit(mu, (0.5 * logvar).exp())
    prior.save(options.run.with_name(f"{options.run.name}_prior.safetensors"), torch.float16)


if __name__ == "__main__":
    main()
