"""The training loop: `fit`, the same on a laptop's CPU, a GPU, or several processes (Hugging Face Accelerate).

Everything random in epoch e follows from (seed, e) alone: the order of the images, the flips, the noise `eps`. So a run
that was stopped goes on as if it never had been, and nothing but the optimizer's state is needed for it.
"""

import copy
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from .batches import epoch_batches, shifted
from .checkpoint import (
    STATE_FILE,
    Checkpoint,
    checkpoint_path,
    list_checkpoints,
    load_checkpoint,
    load_training_state,
    move_run,
    run_name,
    save_checkpoint,
    save_training_state,
)
from .data import to_signed
from .loss import BETA, calibrated_beta, kl_weight, vae_loss
from .model import VAE, follow
from .settings import best_device, bf16_pays

MAX_BAD_STEPS = 10  # in a row, before training is given up


@dataclass(frozen=True)
class TrainingSettings:
    """What a training run is made with, apart from its data and its network."""

    epochs: int = 25
    """Passes over the training images."""
    batch_size: int = 32
    """Images in a step, over all processes."""
    learning_rate: float = 2e-3
    """Adam's step at its largest: it rises over the first steps, then falls to zero along a cosine."""
    beta: float = BETA
    """Weight of the KL divergence: loss = recon + beta * kl."""
    calibrated: bool = False
    """Instead of a given beta, the one whose noise is the decoder's own error: 2 * recon / D, anew in every step."""
    kl_warmup: float = 0.0
    """Share of the training (of each cycle) over which the KL's weight rises from 0 to beta."""
    kl_cycles: int = 1
    """How often the KL's weight starts again from 0."""
    free_bits: float = 0.0
    """Nats that every latent number may carry unpunished."""
    flip: bool = True
    """Mirror every image left to right half of the time."""
    shift: int = 0
    """Move every image by up to so many pixels each way, its border mirrored: few photos are learned by heart more slowly."""
    average: float = 0.0
    """Keep a moving average of the weights as the model, so much of it at every step (0.999, say); 0: the newest weights."""
    max_grad_norm: float = 1.0
    """Longer gradients are shortened to this norm."""
    seed: int = 0
    """Order of the images, flips and noise follow from it."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        for name in ("beta", "free_bits"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if not 0 <= self.kl_warmup <= 1:
            raise ValueError(f"kl_warmup={self.kl_warmup} must be a share of the training, from 0 to 1")
        if self.shift < 0:
            raise ValueError(f"shift={self.shift} must not be negative")
        if not 0 <= self.average < 1:
            raise ValueError(f"average={self.average} must be at least 0 and below 1")
        if self.kl_cycles < 1 or (self.kl_cycles > 1 and not self.kl_warmup):
            raise ValueError(f"kl_cycles={self.kl_cycles} must be at least 1, and more than one needs kl_warmup above 0")


def learning_rate_factor(step: int, total: int, warmup: int = 100) -> float:
    """What the learning rate is multiplied with at `step` of `total`: a linear rise, then a cosine down to zero."""
    warmup = min(warmup, max(1, total // 3))
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / total))


def fit(
    vae: VAE,
    train: Tensor,
    validation: Tensor,
    settings: TrainingSettings | None = None,
    checkpoint_dir: str | Path | None = None,
    on_epoch: Callable[[VAE, dict[str, float]], None] | None = None,
) -> list[dict[str, float]]:
    """Train `vae` in place and return its history, one dict of averages per epoch. Leaves it in eval mode.

    train, validation: uint8 pixels (N, 3, S, S). checkpoint_dir: where a checkpoint is kept after every epoch; when it
    holds an earlier part of this very run, training goes on from there, and any other run found in it is moved aside.
    on_epoch: called with the model (in eval mode) and the epoch's record after each epoch, in one process only.

    In the history `train_*` are averages over the epoch as it was learned (z sampled, images flipped), `validation_*` are
    of the model as it was at the epoch's end (z sampled, always with the same noise).
    Raises FloatingPointError when the loss stays NaN or infinite, ValueError for images that do not fit.
    """
    settings = settings or TrainingSettings()
    for name, pixels in (("train", train), ("validation", validation)):
        if pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != (3, vae.image_size, vae.image_size) or not len(pixels):
            raise ValueError(
                f"{name} must be uint8 images (N, 3, {vae.image_size}, {vae.image_size}), N > 0; "
                f"got {pixels.dtype} {tuple(pixels.shape)}"
            )
    accelerator = Accelerator(cpu=best_device().type == "cpu")
    device = accelerator.device  # with several GPUs, this process's own
    bf16 = bf16_pays(device)

    history: list[dict[str, float]] = []
    vae.to(device=device, memory_format=torch.channels_last)
    learner = copy.deepcopy(vae) if settings.average else vae  # with an average, `vae` is that, and follows it
    optimizer = torch.optim.Adam(learner.parameters(), lr=settings.learning_rate)
    run = _describe(vae, train, validation, settings)
    if checkpoint_dir is not None:
        history = _resume(Path(checkpoint_dir), run, settings, vae, learner, optimizer, accelerator.is_main_process)
        if not history and accelerator.is_main_process:  # whose folder this is, before the first checkpoint is in it
            save_training_state(checkpoint_dir, {"run": run, "epoch": 0})
    model, optimizer = accelerator.prepare(learner, optimizer)

    steps = math.ceil(len(train) / settings.batch_size)
    bad_in_a_row = 0
    for epoch in range(len(history) + 1, settings.epochs + 1):
        started = time.perf_counter()
        model.train()
        totals, learned_from, bad_steps = torch.zeros(3, device=device), 0, 0
        bar = tqdm(total=len(train), desc=f"epoch {epoch}/{settings.epochs}", unit="image", leave=False)
        for step, batch in enumerate(epoch_batches(len(train), settings, epoch, vae.latent_shape)):
            mine = slice(accelerator.process_index, None, accelerator.num_processes)
            x = to_signed(train[batch.indices[mine]], device)
            x = torch.where(batch.flip[mine].to(device)[:, None, None, None], x.flip(3), x)
            x = shifted(x, batch.shift[mine], settings.shift) if settings.shift else x
            x = x.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                x_hat, mu, logvar = model(x, batch.eps[mine].to(device))
            done, total = (epoch - 1) * steps + step, settings.epochs * steps
            weight = kl_weight(done / total, settings.kl_warmup, settings.kl_cycles)
            beta = settings.beta
            if settings.calibrated:  # all processes together have one noise
                recon = accelerator.reduce(F.mse_loss(x_hat.detach().float(), x), "mean")
                beta = calibrated_beta(recon, x[0].numel())
            parts = vae_loss(x_hat, x, mu, logvar, weight * beta, settings.free_bits)

            factor = learning_rate_factor(done, total)
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * factor
            optimizer.zero_grad()
            accelerator.backward(parts.loss)
            norm = accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            if torch.isfinite(norm):
                optimizer.step()
                if settings.average:
                    follow(vae, learner, done, settings.average)
                totals += len(batch.indices) * torch.stack([part.detach() for part in parts])
                learned_from += len(batch.indices)
                bad_in_a_row = 0
            else:  # one bad batch must not spoil the weights for good
                bad_steps, bad_in_a_row = bad_steps + 1, bad_in_a_row + 1
                if bad_in_a_row == MAX_BAD_STEPS:
                    raise FloatingPointError(
                        f"the gradient was NaN or infinite {MAX_BAD_STEPS} times in a row in epoch {epoch}: "
                        f"lower learning_rate={settings.learning_rate}, or set VAE_BF16=0"
                    )
            bar.update(len(batch.indices))
            if step % 10 == 0:
                bar.set_postfix(loss=f"{parts.loss:.4f}", recon=f"{parts.recon:.4f}", kl=f"{parts.kl:.1f}")
        bar.close()
        seconds = time.perf_counter() - started

        averages = accelerator.reduce(totals, "mean").div(learned_from or math.nan).tolist()
        beta = None if settings.calibrated else settings.beta
        held_out = validate(vae, validation, beta, seed=settings.seed, bf16=bf16)
        record = {"epoch": epoch, "beta": held_out.pop("beta")}
        record |= {f"train_{name}": value for name, value in zip(parts._fields, averages, strict=True)}
        record |= {f"validation_{name}": value for name, value in held_out.items()}
        record |= {"images_per_second": len(train) / seconds, "seconds": seconds, "skipped_steps": bad_steps}
        history.append(record)
        if accelerator.is_main_process:
            if checkpoint_dir is not None:
                save_checkpoint(checkpoint_path(checkpoint_dir, epoch), Checkpoint(vae, epoch, history, asdict(settings)))
                state = {"run": run, "epoch": epoch, "optimizer": optimizer.state_dict()}
                state |= {"learner": learner.state_dict()} if settings.average else {}
                save_training_state(checkpoint_dir, state)
            print(_line(record, settings.epochs))
            if on_epoch is not None:
                on_epoch(vae.eval(), record)
        accelerator.wait_for_everyone()
    vae.eval()
    return history


@torch.no_grad()
def validate(
    vae: VAE, pixels: Tensor, beta: float | None = BETA, seed: int = 0, bf16: bool = False, batch_size: int = 256
) -> dict[str, float]:
    """Averages of `loss`, `recon` and `kl` over uint8 images (N, 3, S, S), z sampled, and the `beta` they were made with.

    beta: None for the calibrated one, whose noise is the error on these images. Each image has its own noise eps, drawn
    from the seed, so the figures do not depend on the batch size.
    """
    vae.eval()
    device = next(vae.parameters()).device
    eps = torch.randn(len(pixels), *vae.latent_shape, generator=torch.Generator().manual_seed(seed))
    totals = torch.zeros(2, dtype=torch.float64)
    for some, noise in zip(pixels.split(batch_size), eps.split(batch_size), strict=True):
        x = to_signed(some, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            x_hat, mu, logvar = vae(x, noise.to(device))
        totals += len(x) * torch.stack(vae_loss(x_hat, x, mu, logvar)[1:]).cpu().double()
    recon, kl = (totals / len(pixels)).tolist()
    beta = calibrated_beta(recon, pixels[0].numel()) if beta is None else beta
    return {"loss": recon + beta * kl, "recon": recon, "kl": kl, "beta": beta}


def _describe(vae: VAE, train: Tensor, validation: Tensor, settings: TrainingSettings) -> dict:
    """What makes a run this run and no other. More epochs of it are still the same run."""
    pixels = hashlib.sha256()
    for tensor in (train, validation):
        pixels.update(str(tuple(tensor.shape)).encode())
        pixels.update(tensor.contiguous().numpy())
    made_with = {name: value for name, value in asdict(settings).items() if name != "epochs"}
    return {"data": pixels.hexdigest(), "architecture": vae.architecture, "settings": made_with}


def _resume(folder: Path, run: dict, settings: TrainingSettings, vae: VAE, learner: VAE, optimizer, say: bool) -> list:
    """Put the newest part of `run` in `folder` into vae, learner and optimizer; returns its history, empty for a new one."""
    found = list_checkpoints(folder)
    if not found:
        return []
    state = load_training_state(folder)
    reason = _cannot_go_on(state, run, settings, found)
    if reason:
        if say:
            moved = move_run(folder, run_name(state["run"] if state else {}))
            print(f"{folder.name} holds a run with {reason}; moved to {folder.name}/{moved.name}. Starting anew.")
        return []
    if state["epoch"] == 0:  # stopped in its first epoch
        return []
    checkpoint = load_checkpoint(found[state["epoch"]])
    vae.load_state_dict(checkpoint.vae.state_dict())
    if settings.average:
        learner.load_state_dict(state["learner"])
    optimizer.load_state_dict(state["optimizer"])
    if say:
        left = settings.epochs - checkpoint.epoch
        print(f"Going on from {found[checkpoint.epoch].name}: {checkpoint.epoch} epochs done, {left} to go.")
    return checkpoint.history


def _cannot_go_on(state: dict | None, run: dict, settings: TrainingSettings, found: dict[int, Path]) -> str:
    """Why the run in a folder is not continued by `run`, in words; empty when it is."""
    if state is None:
        return f"no {STATE_FILE}"
    differs = [part for part in run if state["run"].get(part) != run[part]]
    if differs:
        return "other " + " and other ".join(differs)
    if state["epoch"] > settings.epochs:
        return f"{state['epoch']} epochs, more than the {settings.epochs} asked for"
    if state["epoch"] and state["epoch"] not in found:
        return f"its checkpoint of epoch {state['epoch']} missing"
    return ""


def _line(record: dict[str, float], epochs: int) -> str:
    train, held_out = (f"{record[f'{who}_loss']:.4f}" for who in ("train", "validation"))
    parts = f"recon {record['validation_recon']:.4f}, kl {record['validation_kl']:5.1f} nats"
    skipped = f", {record['skipped_steps']} steps skipped: gradient not finite" if record["skipped_steps"] else ""
    speed = f"{record['images_per_second']:.0f} images/s"
    return f"epoch {record['epoch']:2d}/{epochs}  train loss {train}  validation loss {held_out} ({parts})  {speed}{skipped}"
