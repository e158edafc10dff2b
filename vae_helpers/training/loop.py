"""The training loop: `fit`, the same on a laptop's CPU, a GPU, or several processes (Hugging Face Accelerate).

    fit: for every epoch
        train_epoch: for every batch
            train_step: forward, loss, backward, Adam
        validate, write the checkpoint

Everything random in epoch e follows from (seed, e) alone: the order of the images, the flips, the noise `eps`. So a run
that was stopped goes on as if it never had been, and nothing but the optimizer's state is needed for it.
"""

import copy
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from ..files import lock_folder
from ..models.inference import to_float
from ..models.layers import use_bfloat16
from ..models.losses import VAELoss, calibrated_beta, free_bits_kl, kl_per_dim, kl_weight, vae_loss
from ..models.vae import BaseVAE
from .batches import Batch, epoch_batches, make_batch
from .optim import learning_rate_factor, optimizer_step, update_ema
from .resume import TrainState, resume, run_fingerprint, save_epoch
from .settings import TrainingSettings


def make_accelerator() -> Accelerator:
    """The processes that were launched to train together: this one, or several, each with its GPU or on the CPU."""
    mps = torch.backends.mps.is_available() and not torch.distributed.is_torchelastic_launched()  # processes cannot share it
    return Accelerator(cpu=not (torch.cuda.is_available() or mps), mixed_precision="no")  # bfloat16 is up to `fit`


def fit(
    vae: BaseVAE,
    train: Tensor,
    validation: Tensor,
    settings: TrainingSettings | None = None,
    checkpoint_dir: str | Path | None = None,
    on_epoch: Callable[[BaseVAE, dict[str, float]], None] | None = None,
    *,
    precision: str = "auto",
    compile: bool = False,
) -> list[dict[str, float]]:
    """Train `vae` in place and return its history, one dict of averages per epoch. Leaves it in eval mode, to be used, also
    when it is stopped (Ctrl-C): it then is the model as it was at that moment.

    train, validation: uint8 pixels (N, 3, S, S). checkpoint_dir: where a checkpoint is kept after every epoch; when it
    holds an earlier part of this very run, training goes on from there, and any other run found in it is moved aside.
    on_epoch: called with the model (in eval mode) and the epoch's record after each epoch, in one process only. precision:
    "float32", "bfloat16" (weights and sums stay in float32), or "auto": bfloat16 where it is faster. compile: compile the
    network first, for long runs on a GPU.

    In the history `train_*` are averages over the epoch as it was learned (z sampled, images flipped), `validation_*` are
    of the model as it was at the epoch's end (z sampled, always with the same noise).
    Raises FloatingPointError when the gradient or the loss is not finite, ValueError for images that do not fit, OSError when
    a checkpoint cannot be written (those before it stay), BlockingIOError when another process writes in `checkpoint_dir`.
    """
    settings, accelerator = settings or TrainingSettings(), make_accelerator()
    _check(vae, train, validation, settings, accelerator)
    state = _begin(vae, settings, accelerator, precision, compile)
    folder = None if checkpoint_dir is None else Path(checkpoint_dir)
    writes = folder is not None and accelerator.is_main_process
    try:
        with lock_folder(folder, "the checkpoints") if writes else nullcontext():
            if folder is not None:
                state.run = run_fingerprint(vae, train, validation, settings)
                resume(folder, state)
            if accelerator.device.type == "cuda" and train.nbytes < torch.cuda.mem_get_info(accelerator.device)[0] / 2:
                train = train.to(accelerator.device)  # it has room for them
            for epoch in range(len(state.history) + 1, settings.epochs + 1):
                record = {"epoch": epoch} | train_epoch(state, train, epoch) | validate(state, validation)
                if not (math.isfinite(record["validation_loss"]) and record["validation_recon"] < 100):  # 4: all pixels wrong
                    found = f"in epoch {epoch} the validation error is {record['validation_recon']:.3g} (NaN, or no picture)"
                    raise FloatingPointError(f"{found}: lower the learning_rate, or compute in float32 (VAE_BF16=0)")
                state.history.append(record)
                if writes:
                    save_epoch(folder, state)
                accelerator.print(_line(record, settings.epochs), flush=True)
                if on_epoch is not None and accelerator.is_main_process:
                    on_epoch(vae, record)
                accelerator.wait_for_everyone()
            return state.history
    finally:
        vae.eval()


def train_epoch(state: TrainState, pixels: Tensor, epoch: int) -> dict[str, float]:
    """Learn from every image of uint8 (N, 3, S, S) once. Returns the averages of that, over all processes, and what it took."""
    n, settings, accelerator, started = len(pixels), state.settings, state.accelerator, time.perf_counter()
    totals, skipped, steps = torch.zeros(4, device=accelerator.device), 0, math.ceil(n / settings.batch_size)
    state.network.train()
    batches, title = epoch_batches(n, settings, epoch, state.vae.latent_shape), f"epoch {epoch}/{settings.epochs}"
    bar = tqdm(batches, title, steps, leave=False, disable=None if accelerator.is_main_process else True)
    untold = epoch == 1  # how long it will take: after a minute, where the first epoch is longer than that
    for step, batch in enumerate(bar, (epoch - 1) * steps):
        losses, images, finite = train_step(state, pixels, batch, step, settings.epochs * steps)
        totals += images * torch.stack([*losses, torch.ones_like(losses.loss)]) if finite else 0
        skipped += not finite
        if untold and time.perf_counter() - started > 60:
            minutes = (time.perf_counter() - started) / 60 * settings.epochs * steps / (step + 1)
            accelerator.print(f"After a minute: this will take about {minutes:.0f} minutes.", flush=True)
            untold = False
    seconds = time.perf_counter() - started
    *sums, learned_from = accelerator.reduce(totals, "sum").tolist()
    averages = {f"train_{name}": value / (learned_from or math.nan) for name, value in zip(VAELoss._fields, sums, strict=True)}
    return averages | {"images_per_second": n / seconds, "seconds": seconds, "skipped_steps": skipped}


def train_step(state: TrainState, pixels: Tensor, batch: Batch, step: int, total_steps: int) -> tuple[VAELoss, int, bool]:
    """Learn from one batch, at `step` of the whole run: the loss on this process's shard, its images, whether it was finite."""
    settings, accelerator, device = state.settings, state.accelerator, state.accelerator.device
    shard = batch.shard(accelerator.process_index, accelerator.num_processes)
    fraction = len(shard.indices) / len(batch.indices)  # shards differ by an image when the batch does not divide

    x = make_batch(shard, pixels, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=state.bf16):
        x_hat, mu, logvar = state.network(x, shard.eps.to(device))
    _, recon, kl = vae_loss(x_hat, x, mu, logvar)
    global_recon = accelerator.reduce(fraction * recon.detach(), "sum")  # all processes together have one noise
    beta = calibrated_beta(global_recon, x[0].numel()) if settings.calibrated else settings.beta
    beta = kl_weight(step / total_steps, settings.kl_warmup) * beta
    losses = VAELoss(recon + beta * kl, recon, kl)
    if settings.free_bits:  # whether a latent number is below its limit is a matter of the whole batch
        kls = kl_per_dim(mu, logvar).mean(0)
        global_kls = accelerator.reduce(fraction * kls.detach(), "sum")
        losses = losses._replace(loss=recon + beta * free_bits_kl(kls, global_kls, settings.free_bits))

    state.optimizer.param_groups[0]["lr"] = settings.learning_rate * learning_rate_factor(step, total_steps)
    loss = losses.loss * (fraction * accelerator.num_processes)  # gradients are averaged over processes, not images
    finite = optimizer_step(loss, state.optimizer, state.model.parameters(), settings.max_grad_norm)
    if state.vae is not state.model:
        update_ema(state.vae, state.model, step, settings.ema_decay)
    return VAELoss(*(part.detach() for part in losses)), len(x), finite


@torch.no_grad()
def validate(state: TrainState, pixels: Tensor) -> dict[str, float]:
    """Averages of loss, recon and kl over uint8 images (N, 3, S, S), z sampled, and the beta they were made with.

    Each image has its own noise, drawn from the seed, and the same every time. Of a calibrated run, beta is the one whose
    noise is the error on these images. The processes share the images out, and each gets the averages of all.
    """
    vae, settings, accelerator, device = state.vae.eval(), state.settings, state.accelerator, state.accelerator.device
    eps = torch.randn(len(pixels), *vae.latent_shape, generator=torch.Generator().manual_seed(settings.seed))
    batches = list(zip(pixels.split(64), eps.split(64), strict=True))
    totals = torch.zeros(2, dtype=torch.float64)
    for batch, noise in batches[accelerator.process_index :: accelerator.num_processes]:
        x = to_float(batch, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=state.bf16):
            x_hat, mu, logvar = vae(x, noise.to(device))
        totals += len(x) * torch.stack(vae_loss(x_hat, x, mu, logvar)[1:]).cpu().double()
    recon, kl = accelerator.reduce((totals / len(pixels)).to(device, torch.float32), "sum").tolist()
    beta = calibrated_beta(recon, pixels[0].numel()) if settings.calibrated else settings.beta
    return {"beta": beta, "validation_loss": recon + beta * kl, "validation_recon": recon, "validation_kl": kl}


def _check(vae: BaseVAE, train: Tensor, validation: Tensor, settings: TrainingSettings, accelerator: Accelerator) -> None:
    """Raise ValueError for what `fit` cannot train with."""
    size = vae.image_size
    for name, pixels in (("train", train), ("validation", validation)):
        if pixels.dtype != torch.uint8 or pixels.shape[1:] != (3, size, size) or not len(pixels):
            raise ValueError(f"{name} must be uint8 (N, 3, {size}, {size}), N > 0; got {pixels.dtype} {tuple(pixels.shape)}")
    if settings.max_shift >= vae.image_size:
        raise ValueError(f"max_shift={settings.max_shift} must be less than the images' {vae.image_size} pixels")
    smallest, processes = len(train) // math.ceil(len(train) / settings.batch_size), accelerator.num_processes
    if smallest < processes:
        raise ValueError(f"batches of {smallest} images cannot be shared by {processes} processes: raise batch_size")


def _begin(vae: BaseVAE, settings: TrainingSettings, accelerator: Accelerator, precision: str, compile: bool) -> TrainState:
    """The state of a run that is new, on the device where it is trained. Every process has the first one's weights."""
    if accelerator.num_processes > 1:
        accelerator.print(f"{accelerator.num_processes} processes share every batch.")
    torch.backends.cudnn.benchmark = accelerator.device.type == "cuda"  # all batches have one size, or two
    vae.to(device=accelerator.device, memory_format=torch.channels_last)
    model = copy.deepcopy(vae) if settings.ema_decay else vae
    if compile:
        try:
            torch.compile(torch.sin)(torch.ones(8, device=accelerator.device))
        except Exception as error:  # there is no compiler, or it is broken in any way
            accelerator.print(f"torch.compile fails here ({type(error).__name__}). Going on without it.")
            compile = False
    network = accelerator.prepare(torch.compile(model) if compile else model)
    vae.load_state_dict(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)
    return TrainState(settings, accelerator, use_bfloat16(accelerator.device, precision), vae, model, network, optimizer)


def _line(record: dict[str, float], epochs: int) -> str:
    losses = "  ".join(f"{name} loss {record[f'{name}_loss']:.4f}" for name in ("train", "validation"))
    parts = f"recon {record['validation_recon']:.4f}, kl {record['validation_kl']:5.1f} nats"
    skipped = f", {record['skipped_steps']} steps skipped: gradient not finite" if record["skipped_steps"] else ""
    left = record["seconds"] * (epochs - record["epoch"]) / 60
    speed = f"{record['images_per_second']:.0f} images/s, {left:.1f} minutes left"
    return f"epoch {record['epoch']:2d}/{epochs}  {losses} ({parts})  {speed}{skipped}"
