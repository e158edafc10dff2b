"""How the weights `heads` are made: a VAE on dog heads, by pixels and features, then with an adversary.

    pip install -e ".[sharpen]"
    python recipes/heads.py ../shared/dogs RUN [--images 1300000] [--minutes 12] [--kl-weight 0.0004] [--start WEIGHTS]

DOGS holds photos, `heads.json` with boxes of heads, and `heads-112.tar` with heads that are cut out already. RUN.pt keeps
everything; the same command goes on from it. RUN_IMAGES.png is a sheet to look at: 64 draws from the prior, then 16 held-out
heads, each above its reconstruction. At the end RUN.safetensors has the averaged weights in half precision, for
`load_pretrained`, and RUN_prior.safetensors the prior, one Gaussian of the latents of the heads that were learned from, for
`load_prior`; RUN_warm.safetensors and RUN_small.safetensors are the averages before the adversary joined and before the
decoder grew. Three phases, counted in images seen:

warm     squared error of pixels and of features of a frozen EfficientNet-Lite0, and the KL: soft faces
then     an adversary joins, on features (Sauer et al. 2021) and on pixels; half of what it sees are draws from the prior, half
         reconstructions, a third of these from the mean
grown    the decoder gets one more stage, 112 x 112, whose picture is a correction to the enlarged one and starts at zero

On a GPU where there is one, there as CUDA graphs; in bfloat16 where the machine has units for it. The card says
what the shipped weights took.
"""

import argparse
import copy
import io
import json
import tarfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from vae_helpers.evaluation import compare_features, extract_features, load_dog_features, psnr
from vae_helpers.files import atomic_write
from vae_helpers.models import (
    Checkpoint,
    FullGaussian,
    GaussianMixture,
    ResidualVAE,
    decode_latents,
    encode_images,
    kl_divergence,
    load_pretrained,
    save_checkpoint,
    to_float,
    to_uint8,
    use_bfloat16,
)
from vae_helpers.training import Adversary, FeatureDistance, Lite0, optimizer_step, random_translate, update_ema

LARGE = 112
LATENT = 256
ANY_BREED = 0.1  # share of pictures with breeds that are learned from without
EMA_DECAY = 0.999
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BF16 = use_bfloat16(DEVICE)
LAYOUT = {"memory_format": torch.channels_last}
torch.backends.cudnn.benchmark = True


def autocast() -> torch.autocast:
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=BF16)


# ---- data ----


class Pictures(NamedTuple):
    """What is learned from. pixels: uint8 (N, 3, S, S). labels: (N,) of each, from 1; 0 where there are no breeds."""

    pixels: Tensor
    labels: Tensor

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """(n, 3, S, S) in [-1, 1], mirrored half of the time, moved by up to a 32nd of their side; and their labels (n,)."""
        at, most = torch.randint(len(self.pixels), (n,), device=DEVICE), self.pixels.shape[-1] // 32
        x = to_float(self.pixels[at], DEVICE)
        x = torch.where(torch.rand(n, 1, 1, 1, device=DEVICE) < 0.5, x.flip(3), x)
        return random_translate(x, most - torch.randint(2 * most + 1, (n, 2), device=DEVICE), most), self.labels[at]


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
    """One picture in sixteen, the same whatever else is added."""
    return zlib.crc32(name.encode()) % 16 == 0


# ---- training ----


class RunningPrior(nn.Module):
    """One Gaussian of the latents, or one for each label with a covariance in common, as they are at this moment."""

    def __init__(self, latent_dim: int, labels: int):
        super().__init__()
        self.register_buffer("means", torch.zeros(labels, latent_dim))
        self.register_buffer("covariance", torch.eye(latent_dim))
        self.register_buffer("root", torch.eye(latent_dim))

    @torch.no_grad()
    def update(self, mu: Tensor, logvar: Tensor, label: Tensor) -> None:
        """Move towards a batch of posteriors (B, latent_dim) and their labels (B,)."""
        off = mu - self.means[label]
        self.means.index_add_(0, label, 0.002 * off)
        self.covariance.lerp_(off.T @ off / len(off) + logvar.exp().mean(0).diag(), 0.005)

    def refresh(self) -> None:
        """Let what is drawn follow; not with every step, since a root is slow."""
        self.root.copy_(torch.linalg.cholesky(self.covariance + 1e-4 * torch.eye(len(self.root), device=self.root.device)))

    def draw(self, label: Tensor, eps: Tensor) -> Tensor:
        return self.means[label] + eps @ self.root.T


class Run:
    """Everything that a stop must not lose, and how the networks are joined.

    features: of pretrained networks, if any. options: `arguments_of` a command line. breeds: names of the labels. sizes: of the
    VAE.
    """

    def __init__(self, features: FeatureDistance | None, options: argparse.Namespace, breeds: Sequence[str] = (), **sizes):
        self.features, self.options, self.batch, self.breeds, self.sizes = features, options, options.batch, breeds, sizes
        self.weights = {name: getattr(options, f"{name}_weight") for name in ("pixels", "features", "fooled", "kl")}
        self.step, self.grown_at = 0, None
        self._make({})
        self.prior = RunningPrior(*self.vae.latent_shape, len(breeds) + 1).to(DEVICE)

    def _make(self, weights: dict[str, Tensor]) -> None:
        """The networks and optimizers of this size; layers of the VAE that are not among `weights` start anew."""
        grown = self.grown_at is not None
        self.vae = ResidualVAE(**self.sizes, grown=grown, image_size=LARGE if grown else 56, breeds=self.breeds)
        self.vae.load_state_dict(weights, strict=False)
        self.vae.to(device=DEVICE, **LAYOUT)
        self.average = copy.deepcopy(self.vae).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.vae.parameters(), betas=(0.5, 0.99), fused=True)
        labels = len(self.breeds) + 1 if self.breeds and self.features else 0
        sizes = {"labels": labels, "width": self.options.width}
        self.adversary = Adversary(self.vae.image_size, self.features, device=DEVICE, bf16=BF16, **sizes)
        self.graph, self.graph_of = None, None

    @property
    def images(self) -> int:
        return self.step * self.batch

    @property
    def phase(self) -> str:
        return "grown" if self.grown_at is not None else "small" if self.images >= self.options.warm else "warm"

    @property
    def parts(self) -> dict:
        return {name: getattr(self, name) for name in ("vae", "average", "optimizer", "adversary", "prior")}

    def save(self, path: Path) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()} | {
            "step": self.step,
            "grown_at": self.grown_at,
            "batch": self.batch,
        }
        with atomic_write(path) as partial:
            torch.save(state, partial)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=DEVICE, weights_only=True)
        if state.get("batch") != self.batch:
            raise ValueError(f"{str(path)!r} was begun with --batch {state.get('batch', 'unknown')}, not {self.batch}")
        self.step, self.grown_at = state["step"], state["grown_at"]
        self._make({})
        for name, part in self.parts.items():
            part.load_state_dict(state[name])

    def start(self, weights: Path) -> None:
        """Begin from the weights of another run, of a VAE of the same sizes; everything else is new."""
        self._make(load_pretrained(weights).state_dict())

    def grow(self) -> None:
        """Go on at 112 x 112 from the average, with a new discriminator on pixels."""
        before, self.grown_at = self.adversary.networks, self.step
        self._make(self.average.state_dict())
        if self.features:
            self.adversary.networks["features"].load_state_dict(before["features"].state_dict())

    def train_step(self, pictures: Pictures, left: float) -> dict[str, Tensor]:
        """Learn from one batch; returns the losses. left: the share of the training that is to come."""
        adversarial = self.phase != "warm"
        rise = min(1, (self.step - (self.grown_at or 0) + 1) / 200)
        fall = min(1.0, 4 * left)  # over the last quarter
        rates = (2e-4 if adversarial else 5e-4) * rise * fall, 2e-4 * fall
        for optimizer, rate in zip((self.optimizer, self.adversary.optimizer), rates, strict=True):
            _set_learning_rate(optimizer, rate)
        if self.step % 20 == 0:
            self.prior.refresh()
        losses = self._replay(pictures) if DEVICE.type == "cuda" else self._learn(pictures, adversarial)
        update_ema(self.average, self.vae, self.step - (self.grown_at or 0), EMA_DECAY)
        self.step += 1
        return losses

    def _learn(self, pictures: Pictures, adversarial: bool) -> dict[str, Tensor]:
        x, label = pictures.draw(self.batch)
        x = self.sized(x)
        said = torch.where(torch.rand(self.batch, device=DEVICE) < ANY_BREED, 0, label)
        n = self.batch // 2 if adversarial else self.batch  # reconstructions; the others are draws from the prior
        with autocast():
            mu, logvar = self.vae.encode(x[:n])
            eps = torch.randn(self.batch, *self.vae.latent_shape, device=DEVICE)
            if adversarial:
                eps[: n // 3] = 0
            z = mu + (0.5 * logvar).exp() * eps[:n]
            x_hat = self.vae.decoder(torch.cat([z, self.prior.draw(label[n:], eps[n:])]), said)
        self.prior.update(mu, logvar, label[:n])
        losses = {"pixels": F.mse_loss(x_hat[:n], x[:n]), "kl": kl_divergence(mu, logvar).mean()}
        if adversarial:
            losses |= self.adversary.step(x_hat, x, n, label=said)._asdict()
        elif self.features:
            with autocast():
                losses["features"] = self.features(self.features.network(x_hat), self.features.network(x))
        loss = sum(weight * losses[name] for name, weight in self.weights.items() if name in losses)
        optimizer_step(loss, self.optimizer, self.vae.parameters(), 5.0)
        return losses

    def _replay(self, pictures: Pictures) -> dict[str, Tensor]:
        """`_learn` as a CUDA graph, captured anew in every phase after some steps in the ordinary way."""
        phase = self.phase
        if self.graph_of != phase:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(10):
                    losses = self._learn(pictures, phase != "warm")
            torch.cuda.current_stream().wait_stream(stream)
            for optimizer in (self.optimizer, self.adversary.optimizer):
                optimizer.param_groups[0]["capturable"] = True
            self.graph, self.graph_of = torch.cuda.CUDAGraph(), phase
            with torch.cuda.graph(self.graph):
                self.losses = self._learn(pictures, phase != "warm")
            return losses
        self.graph.replay()
        return self.losses

    def sized(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, 112, 112), or smaller ones, as the VAE takes them."""
        x = F.avg_pool2d(x, x.shape[-1] // self.vae.image_size)
        return x.contiguous(**LAYOUT)

    @torch.no_grad()
    def draws(self, n: int) -> Tensor:
        """uint8 (n, 3, S, S) from the running prior, seed 0; with breeds: each in turn."""
        eps = torch.randn(n, *self.vae.latent_shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)
        label = (
            1 + torch.arange(n, device=DEVICE) % len(self.breeds)
            if self.breeds
            else torch.zeros(n, dtype=torch.long, device=DEVICE)
        )
        with autocast():
            batches = zip(eps.split(256), label.split(256), strict=True)
            return torch.cat([to_uint8(self.average.decoder(self.prior.draw(at, some), at)) for some, at in batches])

    @torch.no_grad()
    def judge(self, held_out: Tensor, sheet: Path) -> str:
        """Of held-out pictures (uint8) and as many draws; the first go to `sheet`."""
        x = torch.cat([to_uint8(self.sized(to_float(some, DEVICE))) for some in held_out.split(256)])
        with autocast():
            back = to_uint8(decode_latents(self.average, encode_images(self.average, x)[0]))
        draws, network = self.draws(max(64, len(x))), load_dog_features()
        real, *others = (extract_features(network, images, 32) for images in (x, back, draws[: len(x)]))
        decibels = psnr(F.mse_loss(to_float(back), to_float(x)).item())
        found = [compare_features(generated=features, real=real) for features in others]
        Image.fromarray(_grid(torch.cat([draws[:64], x[:8], back[:8], x[8:16], back[8:16]]))).save(sheet)
        text = "; ".join(f"{c.frechet:.1f}, coverage {c.coverage:.2f}" for c in found)
        return f"held out: {decibels:.2f} dB; distances of reconstructions and draws: {text}"

    def export(self, path: Path, crop: str) -> None:
        self.average.crop = crop
        save_checkpoint(path, Checkpoint(self.average), torch.float16)

    def fit_prior(self, pictures: Pictures) -> GaussianMixture:
        """One Gaussian of the latents of all pictures; with breeds one each, in their order, the covariance in common."""
        sized = (to_uint8(self.sized(to_float(some, DEVICE))) for some in pictures.pixels.split(256))
        mu, logvar = encode_images(self.average, torch.cat(list(sized)))
        std, shape = (0.5 * logvar).exp(), self.vae.latent_shape
        if not self.breeds:
            return FullGaussian(shape).fit(mu, std)
        return GaussianMixture(shape, names=self.breeds).fit(mu, std, pictures.labels.cpu() - 1)


def _set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    group = optimizer.param_groups[0]
    if DEVICE.type != "cuda":
        group["lr"] = rate
    elif isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = torch.tensor(rate, device=DEVICE)


def _grid(images: Tensor) -> np.ndarray:
    """uint8 images (N, 3, S, S) in rows of eight: (H, W, 3)."""
    size = images.shape[-1]
    rows = images.permute(0, 2, 3, 1).numpy().reshape(-1, 8, size, size, 3)
    return rows.transpose(0, 2, 1, 3, 4).reshape(-1, 8 * size, 3)


def arguments_of(about: str, arguments: list[str] | None, **defaults: float) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dogs", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--features", choices=["lite0", "off"], default="lite0")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="end after so many, if --images are not seen before"
    )
    parser.add_argument("--start", type=Path, help="weights to begin from, of a VAE of the same sizes")
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    return parser.parse_args(arguments)


def train(
    pictures: Pictures,
    held_out: Tensor,
    options: argparse.Namespace,
    network: nn.Module | None,
    crop: str,
    breeds: Sequence[str] = (),
    **sizes,
) -> None:
    """Everything that this file's first lines say. network: another one than --features says, for tests."""
    torch.manual_seed(0), torch.set_num_threads(options.threads)
    network, features = network or (Lite0(options.look) if options.features == "lite0" else None), None
    pictures = Pictures(*(part.to(DEVICE) for part in pictures))
    if network:
        some = torch.randperm(len(pictures.pixels), generator=torch.Generator().manual_seed(0))[:200].to(DEVICE)
        with autocast():
            features = FeatureDistance(network.to(DEVICE), to_float(pictures.pixels[some], DEVICE))
    run, path = Run(features, options, breeds, **sizes), options.run.with_suffix(".pt")
    if path.exists():
        run.load(path)
    elif options.start:
        run.start(options.start)
    torch.manual_seed(run.step)  # going on does not draw the first batches again
    print(f"{len(pictures.pixels)} pictures to learn from, {len(held_out)} held out; {run.images} images seen", flush=True)
    began, first, phase = time.perf_counter(), run.images, run.phase
    while (left := _left(run, options, began)) > 0:
        grow = run.grown_at is None and run.images >= options.grow
        if grow or run.phase != phase:
            run.export(options.run.with_name(f"{options.run.name}_{phase}.safetensors"), crop)
        if grow:
            run.grow()
        phase = run.phase
        losses = run.train_step(pictures, left)
        ends = _left(run, options, began) <= 0
        saves = run.images // options.save_every > (run.images - options.batch) // options.save_every or ends
        if saves or run.step % options.log_every == 0:
            speed, told = (run.images - first) / (time.perf_counter() - began), {k: v.item() for k, v in losses.items()}
            print(
                f"images {run.images} ({speed:.1f} a second) " + " ".join(f"{k} {v:.3f}" for k, v in told.items()), flush=True
            )
            if not (np.isfinite(sum(told.values())) and all(weight.isfinite().all() for weight in run.vae.parameters())):
                raise FloatingPointError(f"a loss or a weight is not finite; {path} has what was before")
        if saves:
            run.save(path)
            run.export(options.run.with_suffix(".safetensors"), crop)
            print("  " + run.judge(held_out, options.run.with_name(f"{options.run.name}_{run.images:07d}.png")), flush=True)
    run.fit_prior(pictures).save(options.run.with_name(f"{options.run.name}_prior.safetensors"), torch.float16)


def _left(run: Run, options: argparse.Namespace, began: float) -> float:
    """The share of the training that is to come, by images or by time, whichever ends first."""
    return 1 - max(run.images / options.images, (time.perf_counter() - began) / 60 / options.minutes)


DEFAULTS = {"images": 1_300_000, "warm": 150_000, "grow": 600_000, "batch": 64}
# look: pixels that pictures are enlarged to before features are found. width: of the discriminators on features
DEFAULTS |= {"look": 112, "width": 96}
DEFAULTS |= {"pixels_weight": 10.0, "features_weight": 1.0, "fooled_weight": 0.25, "kl_weight": 0.0004}
DEFAULTS |= {"save_every": 20_000, "log_every": 50, "threads": 1}


def main(arguments: list[str] | None = None, network: nn.Module | None = None) -> None:
    options = arguments_of(__doc__, arguments, **DEFAULTS)
    heads, names = read_heads(options.dogs)
    held_out = torch.tensor([is_held_out(name) for name in names])
    learned = heads[~held_out].contiguous()
    pictures = Pictures(learned, torch.zeros(len(learned), dtype=torch.long))
    train(pictures, heads[held_out], options, network, "head", latent_dim=LATENT)


if __name__ == "__main__":
    main()
