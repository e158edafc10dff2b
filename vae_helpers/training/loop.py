"""The training loop: `fit`, the same on a laptop's CPU, a GPU, or several processes (Hugging Face Accelerate).

Everything random in epoch e follows from (seed, e) alone: the order of the images, the flips, the noise `eps`. So a run
that was stopped goes on as if it never had been, and nothing but the optimizer's state is needed for it.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from ..config import best_device, compile_wanted, use_bfloat16
from ..files import remove_stale_temp_files
from ..models.checkpoint import Checkpoint, checkpoint_path, list_checkpoints, run_name, save_checkpoint, save_training_state
from ..models.inference import to_float
from ..models.losses import BETA, calibrated_beta, kl_per_dim, kl_weight, vae_loss
from ..models.vae import BaseVAE
from .batches import epoch_batches, make_batch, near
from .optim import learning_rate_factor, update_ema
from .resume import resume, run_fingerprint, warn_of_little_room
from .settings import TrainingSettings

MAX_BAD_STEPS = 10  # in a row, before training is given up


def make_accelerator() -> Accelerator:
    """The processes that were launched to train together: this one, or several, each with its GPU or on the CPU."""
    return Accelerator(cpu=best_device().type == "cpu", mixed_precision="no")  # autocast is up to `fit`


def fit(
    vae: BaseVAE,
    train: Tensor,
    validation: Tensor,
    settings: TrainingSettings | None = None,
    checkpoint_dir: str | Path | None = None,
    on_epoch: Callable[[BaseVAE, dict[str, float]], None] | None = None,
    keep_last: int | None = None,
) -> list[dict[str, float]]:
    """Train `vae` in place and return its history, one dict of averages per epoch. Leaves it in eval mode, to be used, also
    when it is stopped (Ctrl-C): it then is the model as it was at that moment.

    train, validation: uint8 pixels (N, 3, S, S). checkpoint_dir: where a checkpoint is kept after every epoch; when it
    holds an earlier part of this very run, training goes on from there, and any other run found in it is moved aside.
    on_epoch: called with the model (in eval mode) and the epoch's record after each epoch, in one process only. keep_last:
    how many of the newest checkpoints are kept; all when left out.

    In the history `train_*` are averages over the epoch as it was learned (z sampled, images flipped), `validation_*` are
    of the model as it was at the epoch's end (z sampled, always with the same noise).
    Raises FloatingPointError when the loss stays NaN or infinite, ValueError for images that do not fit, OSError when a
    checkpoint cannot be written; those before it stay.
    """
    settings = settings or TrainingSettings()
    if keep_last is not None and keep_last < 1:
        raise ValueError(f"keep_last={keep_last} must be at least 1, or None for all")
    for name, pixels in (("train", train), ("validation", validation)):
        if pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != (3, vae.image_size, vae.image_size) or not len(pixels):
            raise ValueError(
                f"{name} must be uint8 images (N, 3, {vae.image_size}, {vae.image_size}), N > 0; "
                f"got {pixels.dtype} {tuple(pixels.shape)}"
            )
    if settings.shift >= vae.image_size:
        raise ValueError(f"shift={settings.shift} must be less than the images' {vae.image_size} pixels")
    try:
        return _fit(vae, train, validation, settings, checkpoint_dir, on_epoch, keep_last)
    except KeyboardInterrupt:
        if checkpoint_dir is not None:
            print("Stopped. The checkpoints of finished epochs are kept, and the same call goes on from the newest.")
        raise
    finally:
        vae.eval()


def _fit(
    vae: BaseVAE,
    train: Tensor,
    validation: Tensor,
    settings: TrainingSettings,
    checkpoint_dir: str | Path | None,
    on_epoch: Callable[[BaseVAE, dict[str, float]], None] | None,
    keep_last: int | None,
) -> list[dict[str, float]]:
    accelerator = make_accelerator()
    device, here, processes = accelerator.device, accelerator.process_index, accelerator.num_processes
    steps = math.ceil(len(train) / settings.batch_size)
    if len(train) // steps < processes:
        raise ValueError(f"batches of {len(train) // steps} images cannot be shared by {processes} processes: raise batch_size")
    if processes > 1:
        accelerator.print(f"{processes} processes share every batch.")
    bf16, compiled = use_bfloat16(device), compile_wanted()
    torch.backends.cudnn.benchmark = device.type == "cuda"  # all batches have one size, or two

    history: list[dict[str, float]] = []
    vae.to(device=device, memory_format=torch.channels_last)
    learner = copy.deepcopy(vae) if settings.average else vae  # with an average, `vae` is that, and follows it
    optimizer = torch.optim.Adam(learner.parameters(), lr=settings.learning_rate, fused=True)
    if checkpoint_dir is not None:
        run = run_fingerprint(vae, train, validation, asdict(settings))
        name = run_name(run)
        with accelerator.main_process_first():  # it may move another run out of the others' way
            history = resume(Path(checkpoint_dir), run, settings.epochs, vae, learner, optimizer, accelerator.is_main_process)
            if accelerator.is_main_process:
                remove_stale_temp_files(checkpoint_dir)
                warn_of_little_room(Path(checkpoint_dir), vae, settings.epochs - len(history), keep_last)
                if not history:  # whose folder this is, before the first checkpoint is in it
                    save_training_state(checkpoint_dir, {"run": run, "epoch": 0})
        if len(set(accelerator.gather(torch.tensor([len(history)], device=device)).tolist())) > 1:
            raise ValueError(
                f"the processes see different checkpoints in {str(checkpoint_dir)!r}: it must be one folder for all"
            )
    model = accelerator.prepare(torch.compile(learner) if compiled else learner)  # now all have the first one's weights
    if not history:
        vae.load_state_dict(learner.state_dict())
    pixels = near(train, device)

    bad_in_a_row = torch.zeros((), device=device)
    for epoch in range(len(history) + 1, settings.epochs + 1):
        started = time.perf_counter()
        model.train()
        totals, bad_steps = torch.zeros(4, device=device), torch.zeros((), device=device)
        bar = tqdm(total=len(train), desc=f"epoch {epoch}/{settings.epochs}", unit="image", leave=False, disable=here > 0)
        for step, batch in enumerate(epoch_batches(len(train), settings, epoch, vae.latent_shape)):
            mine = batch.share(here, processes)
            share = len(mine.indices) / len(batch.indices)  # of the batch: shares differ by an image when it does not divide
            x = make_batch(mine, pixels, device, settings.shift)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                x_hat, mu, logvar = model(x, mine.eps.to(device))
            done, total = (epoch - 1) * steps + step, settings.epochs * steps
            weight = kl_weight(done / total, settings.kl_warmup, settings.kl_cycles)
            beta = settings.beta
            if settings.calibrated:  # all processes together have one noise
                recon = accelerator.reduce(share * F.mse_loss(x_hat.detach().float(), x), "sum")
                beta = calibrated_beta(recon, x[0].numel())
            kl_of_all = None
            if settings.free_bits:  # whether a number is below its limit is a matter of the whole batch
                kl_of_all = accelerator.reduce(share * kl_per_dim(mu, logvar).detach().mean(0), "sum")
            parts = vae_loss(x_hat, x, mu, logvar, weight * beta, settings.free_bits, kl_of_all)

            optimizer.param_groups[0]["lr"] = settings.learning_rate * learning_rate_factor(done, total)
            optimizer.zero_grad()
            (parts.loss * (share * processes)).backward()  # gradients are averaged over processes, not images
            norm = torch.nn.utils.clip_grad_norm_(learner.parameters(), settings.max_grad_norm)
            # One bad batch must not spoil the weights for good. What to do with it is settled where the gradient is: to ask
            # `if` here would let a GPU wait in every step. A fused optimizer skips a step in which `found_inf` is 1.
            bad = (~norm.isfinite()).float()
            optimizer.found_inf = bad
            if device.type != "mps" or not bad:  # where some versions of torch overlook it
                optimizer.step()
            if settings.average:
                update_ema(vae, learner, done, settings.average)
            figures = len(mine.indices) * torch.stack([part.detach() for part in (*parts, torch.ones_like(parts.loss))])
            totals += torch.where(bad > 0, 0, figures)
            bad_steps, bad_in_a_row = bad_steps + bad, (bad_in_a_row + 1) * bad
            bar.update(len(batch.indices))
            if step % 10 == 0 or step == steps - 1:
                bar.set_postfix(loss=f"{parts.loss:.4f}", recon=f"{parts.recon:.4f}", kl=f"{parts.kl:.1f}")
                if bad_in_a_row >= MAX_BAD_STEPS:
                    raise FloatingPointError(
                        f"the gradient was NaN or infinite {int(bad_in_a_row)} times in a row in epoch {epoch}: "
                        f"lower learning_rate={settings.learning_rate}, or set VAE_BF16=0"
                    )
        bar.close()
        seconds = time.perf_counter() - started

        *sums, learned_from = accelerator.reduce(totals, "sum").tolist()
        beta = None if settings.calibrated else settings.beta
        held_out = validate(vae, validation, beta, seed=settings.seed, bf16=bf16, accelerator=accelerator)
        record = {"epoch": epoch, "beta": held_out.pop("beta")}
        record |= {f"train_{name}": value / (learned_from or math.nan) for name, value in zip(parts._fields, sums, strict=True)}
        record |= {f"validation_{name}": value for name, value in held_out.items()}
        record |= {"images_per_second": len(train) / seconds, "seconds": seconds, "skipped_steps": int(bad_steps)}
        history.append(record)
        if accelerator.is_main_process:
            if checkpoint_dir is not None:
                newest = Checkpoint(vae, epoch, history, asdict(settings), name)
                save_checkpoint(checkpoint_path(checkpoint_dir, epoch), newest)
                state = {"run": run, "epoch": epoch, "optimizer": optimizer.state_dict()}
                state |= {"learner": learner.state_dict()} if settings.average else {}
                save_training_state(checkpoint_dir, state)
                for older, path in list_checkpoints(checkpoint_dir).items():
                    if keep_last and older <= epoch - keep_last:
                        path.unlink()
            print(_line(record, settings.epochs))
            if on_epoch is not None:
                on_epoch(vae.eval(), record)
        accelerator.wait_for_everyone()
    return history


@torch.no_grad()
def validate(
    vae: BaseVAE,
    pixels: Tensor,
    beta: float | None = BETA,
    seed: int = 0,
    bf16: bool = False,
    batch_size: int = 64,
    accelerator: Accelerator | None = None,
) -> dict[str, float]:
    """Averages of `loss`, `recon` and `kl` over uint8 images (N, 3, S, S), z sampled, and the `beta` they were made with.

    beta: None for the calibrated one, whose noise is the error on these images. Each image has its own noise eps, drawn
    from the seed, so the figures do not depend on the batch size. accelerator: its processes share the images out; every one
    of them must call this, and gets the figures of all.
    """
    vae.eval()
    device = next(vae.parameters()).device
    eps = torch.randn(len(pixels), *vae.latent_shape, generator=torch.Generator().manual_seed(seed))
    batches = list(zip(pixels.split(batch_size), eps.split(batch_size), strict=True))
    totals = torch.zeros(2, dtype=torch.float64)
    for some, noise in batches[accelerator.process_index :: accelerator.num_processes] if accelerator else batches:
        x = to_float(some, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            x_hat, mu, logvar = vae(x, noise.to(device))
        totals += len(x) * torch.stack(vae_loss(x_hat, x, mu, logvar)[1:]).cpu().double()
    totals = totals / len(pixels)
    recon, kl = (accelerator.reduce(totals.to(device, torch.float32), "sum") if accelerator else totals).tolist()
    beta = calibrated_beta(recon, pixels[0].numel()) if beta is None else beta
    return {"loss": recon + beta * kl, "recon": recon, "kl": kl, "beta": beta}


def _line(record: dict[str, float], epochs: int) -> str:
    train, held_out = (f"{record[f'{who}_loss']:.4f}" for who in ("train", "validation"))
    parts = f"recon {record['validation_recon']:.4f}, kl {record['validation_kl']:5.1f} nats"
    skipped = f", {record['skipped_steps']} steps skipped: gradient not finite" if record["skipped_steps"] else ""
    speed = f"{record['images_per_second']:.0f} images/s"
    return f"epoch {record['epoch']:2d}/{epochs}  train loss {train}  validation loss {held_out} ({parts})  {speed}{skipped}"
