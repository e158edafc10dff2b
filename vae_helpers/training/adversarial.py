"""An adversary: discriminators that learn to tell photos from decoded pictures, and so teach a decoder what is wrong with them.

`Adversary.step` alternates: the discriminators learn from photos and decoded pictures, which are detached from the decoder;
then they stand still and say what the decoder is to change. Goodfellow et al. 2014; for VAEs Larsen et al. 2016 and Esser et
al. 2021. `FeatureDiscriminator` looks at the features of a pretrained network, as in Sauer et al. 2021.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.parametrizations import spectral_norm

from ..models.layers import GroupNorm, conv
from .batches import random_translate
from .optim import optimizer_step


class AdversaryLosses(NamedTuple):
    """Scalars. judges: the discriminators' own loss, before their step. fooled: what the decoder lowers to be taken for photos.
    features: the `FeatureDistance` of x_hat and x, 0 without one."""

    judges: Tensor
    fooled: Tensor
    features: Tensor


class FeatureDistance:
    """A frozen pretrained network, and how far apart the features lie that it finds in two batches of pictures.

    network: images (B, 3, S, S) in [-1, 1] -> features at four scales, each (B, channels, H, W), the finest first. photos: some
    images; the variance of their features at each scale is the unit of the distance there.
    """

    def __init__(self, network: nn.Module, photos: Tensor):
        self.network = network.eval().requires_grad_(False)
        with torch.no_grad():
            scales = network(photos)
        self.channels = [features.shape[1] for features in scales]
        self.variances = [features.float().var().clamp_min(1e-3) for features in scales]

    def __call__(self, found: list[Tensor], wanted: list[Tensor]) -> Tensor:
        """Mean squared difference at each scale, over its variance on photos, summed over the scales: a scalar."""
        scales = zip(found, wanted, self.variances, strict=True)
        return sum(F.mse_loss(a.float(), b.float()) / variance for a, b, variance in scales)


class FeatureDiscriminator(nn.Module):
    """Features at four scales, mixed by fixed random convolutions, and a small discriminator on each. Sauer et al. 2021.

    channels: of the features, the finest scale first. mixed: channels after mixing. width: of the discriminators. labels: how
    many labels pictures may have; then a verdict is also on how well the picture fits its label (Miyato & Koyama 2018).
    """

    def __init__(self, channels: list[int], mixed: tuple[int, ...] = (48, 80, 128, 192), width: int = 96, labels: int = 0):
        super().__init__()
        self.across = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(channels, mixed, strict=True))
        self.between = nn.ModuleList(conv(mixed[i], mixed[max(i - 1, 0)]) for i in range(4))
        for layer in (*self.across, *self.between):
            nn.init.kaiming_normal_(layer.weight), nn.init.zeros_(layer.bias), layer.requires_grad_(False)
        self.heads, self.verdicts = nn.ModuleList(), nn.ModuleList()
        for c, halvings in zip(mixed, (3, 2, 1, 0), strict=True):
            layers = []
            for c_in in (c, width, width)[:halvings]:
                layers += [spectral_norm(nn.Conv2d(c_in, width, 4, 2, 1)), GroupNorm(8, width), nn.LeakyReLU(0.2)]
            layers = layers or [spectral_norm(conv(c, width)), nn.LeakyReLU(0.2)]
            *rest, last = _verdict(width, width)
            self.heads.append(nn.Sequential(*layers, *rest)), self.verdicts.append(last)
        self.embeddings = nn.ModuleList(spectral_norm(nn.Embedding(labels, width)) for _ in mixed if labels)

    def forward(self, features: list[Tensor], label: Tensor | None = None) -> list[Tensor]:
        """Four of (B, channels, H, W), each half as wide as the one before -> four maps of verdicts (B, 1, h, w).

        label: (B,) of the pictures, where there are labels.
        """
        mixed = [layer(x) for layer, x in zip(self.across, features, strict=True)]
        for i in (3, 2, 1):
            mixed[i - 1] = mixed[i - 1] + F.interpolate(self.between[i](mixed[i]), size=mixed[i - 1].shape[-2:])
        seen = [head(x) for head, x in zip(self.heads, mixed, strict=True)]
        verdicts = [verdict(x) for verdict, x in zip(self.verdicts, seen, strict=True)]
        for i, embedding in enumerate(self.embeddings):
            verdicts[i] = verdicts[i] + (embedding(label)[:, :, None, None] * seen[i]).sum(1, keepdim=True)
        return verdicts


def pixel_discriminator(image_size: int, width: int = 48) -> nn.Sequential:
    """(B, 3, S, S) -> verdicts on patches (B, 1, h, w). It sees what pretrained features are blind to: grids, noise."""
    layers, c = [], 3
    for c_out in (width, 2 * width, 4 * width)[: 3 if image_size > 80 else 2]:
        layers += [spectral_norm(nn.Conv2d(c, c_out, 4, 2, 1)), nn.LeakyReLU(0.2)]
        c = c_out
    return nn.Sequential(*layers, *_verdict(c, 4 * width))


def _verdict(c_in: int, width: int) -> list[nn.Module]:
    return [spectral_norm(conv(c_in, width)), nn.LeakyReLU(0.2), spectral_norm(conv(width, 1))]


def random_augmentation(
    n: int, image_size: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> Callable[[Tensor], Tensor]:
    """The same random change of colour and place, and the same hole, for photos and decoded pictures (n, 3, S, S).

    With few photos the discriminators would learn them by heart instead of what photos have in common. Zhao et al. 2020.
    device: of the pictures, and of generator, which is for the same changes again.
    """
    drawn, most = {"generator": generator, "device": device}, image_size // 8
    brightness, saturation, contrast, has_hole = torch.rand(4, n, 1, 1, 1, **drawn)
    shift = most - torch.randint(2 * most + 1, (n, 2), **drawn)
    y, x = torch.randint(image_size, (2, n, 1), **drawn)
    at = torch.arange(image_size, device=device)
    hole = ((at - y).abs() < image_size // 4)[:, :, None] & ((at - x).abs() < image_size // 4)[:, None]
    keep = ~hole[:, None] | (has_hole < 0.5)

    def augment(x: Tensor) -> Tensor:
        x = x + 0.6 * (brightness - 0.5)
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * (1.2 * saturation + 0.4)
        middle = x.mean((1, 2, 3), keepdim=True)
        x = middle + (x - middle) * (0.6 * contrast + 0.7)
        return (random_translate(x, shift, most) * keep).contiguous(memory_format=torch.channels_last)

    return augment


class Adversary:
    """Discriminators on pixels and, when `features` are given, on the features of its network; with their optimizer.

    image_size: S of the pictures. learning_rate: of the discriminators. device: where they are, and the pictures will be.
    bf16: compute in bfloat16; weights and losses stay in float32. labels: how many labels pictures may have; needs features.
    width: of the discriminators on features.
    """

    def __init__(
        self,
        image_size: int,
        features: FeatureDistance | None = None,
        learning_rate: float = 2e-4,
        device: torch.device | str = "cpu",
        bf16: bool = False,
        labels: int = 0,
        width: int = 96,
    ):
        if labels and not features:
            raise ValueError(f"labels={labels}: only discriminators on features know labels")
        self.features, self.bf16 = features, bf16
        self.networks = nn.ModuleDict({"pixels": pixel_discriminator(image_size)})
        if features:
            self.networks["features"] = FeatureDiscriminator(features.channels, width=width, labels=labels)
        self.networks.to(device=device, memory_format=torch.channels_last)
        self.learners = [weight for weight in self.networks.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.Adam(self.learners, learning_rate, betas=(0.0, 0.99), fused=True)

    def step(
        self,
        x_hat: Tensor,
        x: Tensor,
        n_matched: int | None = None,
        generator: torch.Generator | None = None,
        label: Tensor | None = None,
    ) -> AdversaryLosses:
        """Let the discriminators learn from one batch (hinge loss), then say what they make of x_hat.

        x_hat: decoded pictures (B, 3, S, S), with their graph; x: photos (B, 3, S, S). n_matched: how many of x_hat, the first
        ones, are reconstructions of those of x, and so have features to be compared; all when left out. generator: of the
        augmentation, on the pictures' device. label: (B,), of x_hat and of x alike. Raises FloatingPointError as
        `optimizer_step` does.
        """
        augment = random_augmentation(len(x), x.shape[-1], generator, x.device)
        x_hat, x = augment(x_hat), augment(x)
        found, wanted = self._extract(x_hat), self._extract(x)

        self._learn(True)
        real = self._verdicts(x, wanted, label)
        fake = self._verdicts(x_hat.detach(), [f.detach() for f in found], label)
        judges = sum(F.relu(1 - a).mean() + F.relu(1 + b).mean() for a, b in zip(real, fake, strict=True))
        optimizer_step(judges, self.optimizer, self.learners, max_grad_norm=math.inf)

        self._learn(False)  # they stand still: gradients only pass through them
        fooled = -sum(verdict.mean() for verdict in self._verdicts(x_hat, found, label))
        matched = ([f[:n_matched] for f in scales] for scales in (found, wanted))
        return AdversaryLosses(judges.detach(), fooled, self.features(*matched) if self.features else x.new_zeros(()))

    def state_dict(self) -> dict[str, Any]:
        """What a training needs to go on with them."""
        return {"networks": self.networks.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.networks.load_state_dict(state["networks"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _learn(self, learn: bool) -> None:
        for weight in self.learners:
            weight.requires_grad_(learn)

    def _extract(self, x: Tensor) -> list[Tensor]:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            return self.features.network(x) if self.features else []

    def _verdicts(self, x: Tensor, features: list[Tensor], label: Tensor | None) -> list[Tensor]:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            maps = [self.networks["pixels"](x), *(self.networks["features"](features, label) if self.features else ())]
        return [verdicts.float() for verdicts in maps]
