"""The parts of the benchmark. Each is a function of `quick` that returns plain values; `bench.py` says what they are."""

import copy
import json
import os
import resource
import statistics
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.utils import make_grid, save_image

from vae_helpers.config import best_device, dogs_wanted, folders
from vae_helpers.data import load_images, resolve_source, split_dataset, split_validation
from vae_helpers.evaluation import LinearVAE, evaluate_vae, principal_components
from vae_helpers.models import (
    VAE,
    AttentionVAE,
    BaseVAE,
    SpatialVAE,
    decode_latents,
    encode_images,
    to_float,
    use_bfloat16,
    vae_loss,
)
from vae_helpers.training import TrainingSettings, fit, update_ema

TURNS = 5
FULL_WIDTH = {"width": 128, "groups": 32}  # Stable Diffusion's


def images(quick: bool) -> dict:
    """Fill the workspace: the contract's split of DOGS, or of toy dogs."""
    source = resolve_source(dogs_wanted() or "toy", folders(), 256 if quick else 4096)
    split_dataset(source, folders().train, folders().test)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        n = len(load_images(folders().train, cache_dir=folders().cache))
        seconds.append(time.perf_counter() - started)
    what = "toy dogs" if source == folders().toy_dogs else "photos"
    return {"what": what, "n_train": n, "first_load_seconds": seconds[0], "second_load_seconds": seconds[1]}


def wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine(quick: bool) -> dict:
    """Peak in TFLOP/s: of matrix products and wide convolutions (which of them a library does better differs), the fastest."""
    device, found = best_device(), {}
    sizes = (256,) if quick else (1024, 4096, 8192) if device.type == "cuda" else (512, 1024, 2048)
    for dtype in (torch.float32, torch.bfloat16):
        works = []
        for n in sizes:
            a = torch.randn(n, n, device=device, dtype=dtype)
            works.append((2 * n**3, lambda a=a: a @ a))
            wide = torch.randn(16, min(n, 512) // 2, 28, 28, device=device, dtype=dtype)
            wide = wide.contiguous(memory_format=torch.channels_last)
            weight = torch.randn(wide.shape[1], wide.shape[1], 3, 3, device=device, dtype=dtype)
            convolution = lambda x=wide, w=weight: torch.conv2d(x, w, padding=1)  # noqa: E731
            works.append((2 * 9 * wide.shape[1] ** 2 * 28**2 * 16, convolution))
        speeds = []
        for flops, work in works:
            seconds = []
            for _ in range(3 if quick else 9):
                wait_for_device()
                started = time.perf_counter()
                work()
                wait_for_device()
                seconds.append(time.perf_counter() - started)
            speeds.append(flops / statistics.median(seconds[2:]) / 1e12)
        found[str(dtype).removeprefix("torch.")] = max(speeds)
    return found


def naive_loop(vae: BaseVAE, n_steps: int) -> float:
    """Images per second of the usual loop, after two steps to warm up."""
    to_56 = transforms.Compose([transforms.Resize((56, 56)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    loader = DataLoader(ImageFolder(folders().train.parent, to_56), batch_size=4, shuffle=True)
    device = best_device()
    vae.to(device)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
    for step, (x, _) in enumerate(loader):
        if step == 2:
            wait_for_device()
            started = time.perf_counter()
        if step == n_steps + 2:
            break
        x = x.to(device)
        x_hat, mu, logvar = vae(x)
        optimizer.zero_grad()
        vae_loss(x_hat, x, mu, logvar).loss.backward()
        optimizer.step()
        with torch.no_grad():
            save_image(make_grid(torch.cat([x, vae(x).x_hat]) / 2 + 0.5), folders().root / "reconstruction.png")
    wait_for_device()
    return 4 * n_steps / (time.perf_counter() - started)


def naive(quick: bool) -> dict:
    """The usual loop and `fit`, both with our network, turn about; then the usual loop with its usual network."""
    steps, few, turns = (3, 1, 1) if quick else (100, 12, TURNS)
    pixels = load_images(folders().train, cache_dir=folders().cache).pixels[: 64 if quick else 3200]
    usual, ours = [], []
    for turn in range(1 + turns):
        history = fit(VAE(), pixels, pixels[:8], TrainingSettings(epochs=1))
        speed = naive_loop(VAE(), steps)
        if turn:  # the first warms up
            ours.append(history[0]["images_per_second"])
            usual.append(speed)
    big = AttentionVAE(**({} if quick else FULL_WIDTH))
    return {
        "fit": statistics.median(ours),
        "same_network": statistics.median(usual),
        "fit_is_faster_by": statistics.median(a / b for a, b in zip(ours, usual, strict=True)),
        "usual_network": naive_loop(big, few),
        "usual_network_steps": few,
        "usual_network_parameters": sum(weight.numel() for weight in big.parameters()),
    }


def bare_steps(vae: BaseVAE, x: torch.Tensor, n_steps: int, precision: str) -> float:
    """Images per second of what `fit` computes in a step (forward, loss, backward, clipping, Adam, average), batch ready."""
    device, bf16 = x.device, use_bfloat16(x.device, precision)
    vae.to(device=device, memory_format=torch.channels_last)
    average = copy.deepcopy(vae)
    optimizer = torch.optim.Adam(vae.parameters(), fused=True)
    wait_for_device()
    started = time.perf_counter()
    for step in range(n_steps):
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            x_hat, mu, logvar = vae(x)
        optimizer.zero_grad()
        vae_loss(x_hat, x, mu, logvar).loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        update_ema(average, vae, step, 0.999)
    wait_for_device()
    return n_steps * len(x) / (time.perf_counter() - started)


def flops_per_image(vae: BaseVAE, n: int = 8) -> float:
    """Multiplications and additions of a training step, forward and back, for each image; by torch's own counter."""
    x = torch.zeros(n, 3, vae.image_size, vae.image_size)
    with FlopCounterMode(display=False) as counter:
        x_hat, mu, logvar = vae.to("cpu")(x)
        vae_loss(x_hat, x, mu, logvar).loss.backward()
    return counter.get_total_flops() / n


def network(make: Callable[[], BaseVAE], n_images: int, **changed: object) -> Callable[[bool], dict]:
    """The part that trains such a network on so many images an epoch: `fit` and the bare step, turn about."""

    def part(quick: bool) -> dict:
        settings = TrainingSettings(epochs=1, **changed)
        pixels = load_images(folders().train, cache_dir=folders().cache).pixels
        pixels = pixels.repeat(-(-n_images // len(pixels)), 1, 1, 1)[: 64 if quick else n_images]
        x = to_float(pixels[: settings.batch_size], best_device()).contiguous(memory_format=torch.channels_last)
        result = {"batch_size": settings.batch_size, "flops_per_image": flops_per_image(make())}
        result["parameters"] = sum(weight.numel() for weight in make().parameters())
        for key, precision in (("as_it_comes", "auto"), ("bf16_off", "float32")):
            epochs, bare = [], []
            for turn in range(1 + (1 if quick else TURNS)):
                history = fit(make(), pixels, pixels[:8], settings, precision=precision)
                speed = bare_steps(make(), x, max(1, len(pixels) // len(x)), precision)
                if turn:  # the first warms up
                    epochs.append(history[0]["images_per_second"])
                    bare.append(speed)
            result[key] = {"bf16": use_bfloat16(best_device(), precision)}
            result[key] |= {"epoch": statistics.median(epochs), "bare_step": statistics.median(bare)}
            result[key]["data_path"] = statistics.median(b / e - 1 for b, e in zip(bare, epochs, strict=True))
        unit = 1e9 if sys.platform == "darwin" else 1e6  # bytes there, kilobytes elsewhere
        result["peak_memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        vae, seen = make().to(best_device()).eval(), pixels[: n_images // 4]
        draws = torch.randn(len(seen), *vae.latent_shape, generator=torch.Generator().manual_seed(0))
        for name, work in (("encode", lambda: encode_images(vae, seen)), ("sample", lambda: decode_latents(vae, draws))):
            seconds = []
            for _ in range(4):
                started = time.perf_counter()
                work()
                seconds.append(time.perf_counter() - started)
            result[name] = len(seen) / statistics.median(seconds[1:])
        return result

    return part


def start(quick: bool) -> dict:
    """Seconds of a fresh Python until the package is imported, and until `fit` is; of `train` until its first step."""
    imports, fits, starts = [], [], []
    load_images(folders().train, cache_dir=folders().cache)  # the cache is warm
    for turn in range(1 if quick else 5):
        for seconds, line in ((imports, "import vae_helpers"), (fits, "from vae_helpers import fit")):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", line], check=True)
            seconds.append(time.perf_counter() - started)
        screen, terminal = os.openpty()  # a bar is shown on a terminal only, and on one that has room for it
        termios.tcsetwinsize(terminal, (24, 80))
        started = time.perf_counter()
        command = [sys.executable, "-m", "vae_helpers", "train", "--epochs", "1", "--name", f"start-{turn}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal)
        os.close(terminal)
        if not any(b"epoch 1/1" in shown for shown in iter(lambda screen=screen: os.read(screen, 4096), b"")):
            raise RuntimeError("the training showed no bar of its first epoch")
        starts.append(time.perf_counter() - started)
        process.kill()
        process.wait()
        os.close(screen)
    medians = {"import_seconds": imports, "import_fit_seconds": fits, "first_step_seconds": starts}
    return {name: statistics.median(seconds) for name, seconds in medians.items()}


def quality(quick: bool) -> dict:
    """The validation loss against seconds, checkpoints and all, of a run that takes ten minutes; against the linear VAE."""
    budget = 3 if quick else 600
    learn, validation = split_validation(load_images(folders().train, cache_dir=folders().cache))
    test = load_images(folders().test, cache_dir=folders().cache)
    few = learn.pixels[:1600]
    speed = fit(VAE(), few, few[:8], TrainingSettings(epochs=2))[-1]["images_per_second"]
    epochs = max(1, round(0.96 * budget * speed / len(learn)))
    best_linear = LinearVAE(principal_components(learn.pixels, 128))
    linear = evaluate_vae(best_linear, validation.pixels).loss
    torch.manual_seed(0)
    vae, seconds, started = VAE(), [], time.perf_counter()
    history = fit(
        vae,
        learn.pixels,
        validation.pixels,
        TrainingSettings(epochs=epochs),
        folders().models / "quality",
        lambda vae, record: seconds.append(time.perf_counter() - started),
    )
    curve = [(s, record["validation_loss"]) for s, record in zip(seconds, history, strict=True)]
    below = [s for s, loss in curve if loss < linear]
    return {
        "epochs": epochs,
        "linear": linear,
        "seconds_to_beat_it": below[0] if below else None,
        "validation": curve[-1][1],
        "curve": curve,
        "test": evaluate_vae(vae, test.pixels).loss,
        "linear_on_test": evaluate_vae(best_linear, test.pixels).loss,
    }


def write_pictures(folder: Path, n: int) -> None:
    """`n` small pictures, no two alike: colours that change gently, at random."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for start in range(0, n, 500):
        coarse = torch.rand(min(500, n - start), 3, 12, 12, generator=generator)
        fine = torch.nn.functional.interpolate(coarse, (56, 56), mode="bilinear").mul(255).byte()
        for i, picture in enumerate(fine.permute(0, 2, 3, 1).numpy(), start):
            Image.fromarray(picture).save(folder / f"{i:07d}.jpg")


def anonymous_gb(pid: int) -> float:
    """Gigabytes of a process's memory that no file stands behind; 0 where the system does not tell (it is not Linux)."""
    with suppress(OSError):  # it has just ended
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return sum(int(line.split()[1]) / 1e6 for line in lines if line.startswith("RssAnon:"))
    return 0.0


def scale(n_images: int) -> Callable[[bool], dict]:
    """The part that gives so many pictures to the commands that read many: seconds and anonymous memory of each."""

    def part(quick: bool) -> dict:
        n = n_images // (1000 if quick else 1)
        pictures, home = folders().root / f"pictures-{n}", folders().root / f"scale-{n}"
        write_pictures(pictures, n)
        narrow = ("--network", "spatial", "--width", "8", "--latent-channels", "4", "--batch-size", "256")
        result = {"n_images": n}
        for words in (("split", pictures), ("train", "--epochs", "1", *narrow), ("evaluate",), ("duplicates", pictures)):
            started, memory = time.perf_counter(), [0.0]
            command = [sys.executable, "-m", "vae_helpers", *map(str, words)]
            process = subprocess.Popen(command, env=os.environ | {"VAE_HOME": str(home)}, stdout=subprocess.DEVNULL)
            while process.poll() is None:
                memory.append(anonymous_gb(process.pid))
                time.sleep(0.05)
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, command)
            result[words[0]] = {"seconds": time.perf_counter() - started, "anonymous_gb": max(memory)}
        return result

    return part


def curve(quick: bool) -> dict:
    """Training losses of a few epochs in float32, to compare one device with another."""
    pixels = load_images(folders().train, cache_dir=folders().cache).pixels[: 64 if quick else 1024]
    torch.manual_seed(0)
    settings = TrainingSettings(epochs=2 if quick else 4)
    return {"train_loss": [record["train_loss"] for record in fit(VAE(), pixels, pixels[:64], settings, precision="float32")]}


def gpu(quick: bool) -> dict:
    """What a GPU is asked for; empty without one."""
    if not torch.cuda.is_available():
        return {}
    result, pixels = {}, load_images(folders().train, cache_dir=folders().cache).pixels
    pixels = pixels.repeat(-(-16_463 // len(pixels)), 1, 1, 1)[: 512 if quick else 16_463]
    epochs = 3 if quick else 101
    for batch_size in (32, 256):
        history = fit(VAE(), pixels, pixels[:64], TrainingSettings(epochs=epochs, batch_size=batch_size), compile=True)
        seconds = [record["seconds"] for record in history[1:]]  # the first compiles
        result[f"100_epochs_batch_{batch_size}_seconds"] = 100 * sum(seconds) / len(seconds)
    few = pixels[: 256 if quick else 200 * 128]
    few = few.repeat(-(-200 * 128 // len(few)), 1, 1, 1)[: 256 if quick else 200 * 128]
    history = fit(AttentionVAE(**FULL_WIDTH), few, few[:64], TrainingSettings(epochs=2, batch_size=128), compile=True)
    result["attention_images_per_second"] = history[-1]["images_per_second"]
    result["attention_flops_per_image"] = flops_per_image(AttentionVAE(**FULL_WIDTH))
    result["curve_here"] = curve(quick)["train_loss"]
    command = [sys.executable, str(Path(__file__).with_name("bench.py")), "--part", "curve", *(["--quick"] if quick else [])]
    subprocess.run(command, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, check=True)
    result["curve_on_cpu"] = json.loads((folders().root / "result.json").read_text())["train_loss"]
    return result


NETWORKS = {
    "default": network(VAE, 3200),
    "calibrated": network(VAE, 3200, calibrated=True),
    "spatial": network(SpatialVAE, 1600, calibrated=True),
    "attention": network(AttentionVAE, 320, calibrated=True),
}
SCALES = {"scale": scale(20_000), "scale_by_ten": scale(200_000)}
ALL = {"images": images, "machine": machine, "naive": naive} | NETWORKS | {"start": start, "quality": quality} | SCALES
ALL |= {"gpu": gpu}
EVERY = ALL | {"curve": curve}
