"""Sharpening: a decoder goes on to learn with an adversary, while the encoder, and so every latent, stays what it is.

The decoder draws reconstructions, and dogs from latents that the prior draws. The adversary compares both with photos, so the
decoder learns to put in what the latents do not say: fur, the gleam of an eye. What they do say is held by the error.
"""

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.layers import use_bfloat16
from ..models.pretrained import digest
from ..models.priors import Prior
from ..models.vae import BaseVAE, reparameterize
from .adversarial import Adversary, FeatureDistance
from .batches import Batch, make_batch
from .optim import learning_rate_factor, optimizer_step, update_ema
from .progress import forget, resumable_steps

LOSS_WEIGHTS = {"pixels": 10.0, "features": 1.0, "fooled": 0.25}
"""Of each loss that the decoder lowers."""
POOL = 10_000  # latents that are drawn from the prior before the first step; a flow is slow


def sharpen(
    vae: BaseVAE,
    prior: Prior,
    pixels: Tensor,
    features: FeatureDistance | None = None,
    *,
    images: int = 40_000,
    batch_size: int = 32,
    learning_rate: float = 2e-4,
    seed: int = 0,
    precision: str = "auto",
    state_path: Path | None = None,
) -> BaseVAE:
    """A copy of `vae` whose decoder has learned on, on the device of `vae`; its encoder is the same.

    prior: where new latents come from. pixels: uint8 photos (N, 3, S, S) to learn from, mirrored half of the time. features: of
    a pretrained network, on the same device; without them the adversary sees pixels alone. images: how many photos it sees, all
    in all. learning_rate: at its largest, of the decoder and of the adversary; it falls along a cosine. Everything random
    follows from `seed` and the step. precision: as in `fit`. state_path: a file that keeps what a stopped run goes on from.
    Raises FloatingPointError when the gradient is NaN or infinite ten times in a row.
    """
    device, steps, n = next(vae.parameters()).device, max(1, images // batch_size), batch_size // 2
    bf16 = use_bfloat16(device, precision)
    fresh = prior.sample(POOL, torch.Generator().manual_seed(seed))
    sharp, learner = copy.deepcopy(vae).eval(), copy.deepcopy(vae.decoder).train()
    torch.manual_seed(seed)  # for the adversary's first weights
    adversary = Adversary(vae.image_size, features, learning_rate, device, bf16)
    optimizer = torch.optim.Adam(learner.parameters(), learning_rate, betas=(0.5, 0.99), fused=True)
    parts = {"learner": learner, "decoder": sharp.decoder, "adversary": adversary, "optimizer": optimizer}
    run = f"{steps} {batch_size} {learning_rate} {seed} {bool(features)} {digest(pixels, fresh)}"
    for step in resumable_steps(steps, parts, state_path, run, "sharpening"):
        generator, augmentation = (torch.Generator(at).manual_seed(seed * 1_000_003 + step) for at in ("cpu", device))
        eps = torch.randn(n, *vae.latent_shape, generator=generator)
        eps[: n // 3] = 0  # a third of the reconstructions is from the mean
        new = fresh[torch.randint(POOL, (batch_size - n,), generator=generator)]
        flip = torch.rand(batch_size, generator=generator) < 0.5
        indices, still = torch.randint(len(pixels), flip.shape, generator=generator), torch.zeros(batch_size, 2)
        x = make_batch(Batch(indices, flip, eps, still), pixels, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            with torch.no_grad():
                z = reparameterize(*vae.encode(x[:n]), eps.to(device))
            x_hat = learner(torch.cat([z, new.to(device)]))
        losses = adversary.step(x_hat, x, n, augmentation)._asdict()
        losses["pixels"] = F.mse_loss(x_hat[:n], x[:n])
        for each in (optimizer, adversary.optimizer):
            each.param_groups[0]["lr"] = learning_rate * learning_rate_factor(step, steps)
        loss = sum(weight * losses[name] for name, weight in LOSS_WEIGHTS.items())
        optimizer_step(loss, optimizer, learner.parameters(), max_grad_norm=5.0)
        update_ema(sharp.decoder, learner, step, 0.999)
    forget(state_path)
    return sharp
