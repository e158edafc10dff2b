"""Train `vae_helpers.evaluation.DogFeatures` on photos of dogs without any label; see how its distances rank broken photos.

    python recipes/dog_features.py --photos FOLDER --seconds 200 --out my_features.safetensors

Three tasks share the 128 features. *Contrastive* (NT-Xent; Chen et al. 2020, eq. 1): two random views of a photo are told
from the views of all others, which asks for what is in the picture. *Quarter turns* (Gidaris et al. 2018): how far was the
picture turned? *Frame*: which part of the photo is the view, where and how large? The last two ask where things are and how
sharp they are, which views alone would teach a network to overlook. Views are cropped, mirrored, turned and recoloured, never
blurred, noised or shuffled: the figures must notice these, and they are ranked on them at the end.
"""

import argparse
import hashlib
import math
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file, save
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from vae_helpers.config import best_device, precision_wanted
from vae_helpers.data import decode_image, find_images, unpack
from vae_helpers.evaluation import Comparison, DogFeatures, compare_features, extract_features
from vae_helpers.files import atomic_write
from vae_helpers.models import use_bfloat16
from vae_helpers.training import learning_rate_factor, optimizer_step

SOURCE_SIZE = 64  # photos to cut views from: with room around 56 x 56, so that some views keep every pixel as it is
SIZE = DogFeatures.image_size
LEAST_SIDE = 0.55  # of a view, as a fraction of the photo's
WHOLE_PIXELS = 0.4  # fraction of the views that are cut out without resampling, as sharp as the photo
TEMPERATURE = 0.2
OTHER_TASKS = 0.3  # weight of each of the other two tasks


class Tasks(nn.Module):
    """What is put on top of the features while training, and dropped afterwards."""

    def __init__(self, width: int = DogFeatures.num_features):
        super().__init__()
        self.projection = nn.Sequential(nn.Linear(width, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 128))
        self.turn = nn.Linear(width, 4)
        self.frame = nn.Linear(width, 3)

    def loss(self, features: Tensor, turns: Tensor, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(contrastive, turn, frame) of the features (2B, F) of B photos' first views, then their second ones."""
        contrastive = nt_xent(self.projection(features))
        return contrastive, F.cross_entropy(self.turn(features), turns), F.mse_loss(self.frame(features), frame)


def nt_xent(z: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Cross-entropy in nats of finding each view's partner among all other views. z: (2B, D), partners B apart."""
    z = F.normalize(z)
    similarity = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    return F.cross_entropy(similarity, torch.arange(len(z), device=z.device).roll(len(z) // 2))


def random_views(pixels: Tensor, turns: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(views, frames) of uint8 photos (B, 3, 64, 64): views (B, 3, 56, 56) in [-1, 1], each turned by its quarter turns.

    frames (B, 3): where the view's middle lies, seen as the view is turned, and the logarithm of its side; about [-1, 1].
    """
    n, device = len(pixels), pixels.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    side = LEAST_SIDE + (1 - LEAST_SIDE) * uniform(n, 1)
    place = 2 * uniform(n, 2) - 1  # -1 and 1: the view touches the photo's edge
    whole = uniform(n, 1) < WHOLE_PIXELS
    steps = (SOURCE_SIZE - SIZE) // 2
    side = torch.where(whole, SIZE / SOURCE_SIZE, side)
    place = torch.where(whole, (place * steps).round() / steps, place)

    angle = turns * (math.pi / 2)
    mirror = torch.where(uniform(n) < 0.5, -1.0, 1.0)
    # mirrored first, then turned: the other way round, a quarter to the left would look like one to the right
    turn = torch.stack([mirror * angle.cos(), -mirror * angle.sin(), angle.sin(), angle.cos()], 1).round().view(n, 2, 2)
    middle = place * (1 - side)
    grid = F.affine_grid(torch.cat([side[:, :, None] * turn, middle[:, :, None]], 2), [n, 3, SIZE, SIZE], align_corners=False)
    views = F.grid_sample(pixels.float() / 255, grid, padding_mode="border", align_corners=False)

    seen_at = (turn.transpose(1, 2) @ middle[:, :, None])[..., 0] / (1 - LEAST_SIDE)
    size = 1 - 2 * side.log() / math.log(LEAST_SIDE)
    return recolour(views, uniform(n, 4)) * 2 - 1, torch.cat([seen_at, size], 1)


def recolour(x: Tensor, u: Tensor) -> Tensor:
    """Images (B, 3, S, S) in [0, 1] a little brighter or darker, of more or less contrast and colour; some without colour.

    u: (B, 4) uniform in [0, 1].
    """
    brightness, contrast, saturation = (0.7 + 0.6 * u[:, :3]).view(-1, 3, 1, 1, 1).unbind(1)
    saturation = torch.where(u[:, 3].view(-1, 1, 1, 1) < 0.1, 0, saturation)
    x = x * brightness
    x = x.mean((1, 2, 3), keepdim=True).lerp(x, contrast)
    return x.mean(1, keepdim=True).lerp(x, saturation).clamp(0, 1)


def train(photos: Tensor, plain: Tensor, seconds: float, batch_size: int, seed: int, device: torch.device) -> DogFeatures:
    """Train for so many seconds. photos: uint8 (N, 3, 64, 64); plain: the same, (N, 3, 56, 56), as figures will see them.

    How many steps fit depends on the machine, so the weights are not the same to the last bit on another.
    """
    torch.manual_seed(seed)
    generator = torch.Generator(device).manual_seed(seed)
    network, tasks = DogFeatures().to(device, memory_format=torch.channels_last).train(), Tasks().to(device).train()
    parameters = [*network.parameters(), *tasks.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.05)
    photos, batch_size = photos.to(device), min(batch_size, len(photos))
    start, step, order, last_print = time.perf_counter(), 0, photos.new_empty(0, dtype=torch.long), -math.inf
    while (passed := time.perf_counter() - start) < seconds:
        optimizer.param_groups[0]["lr"] = 2e-3 * learning_rate_factor(passed, seconds, warmup=0.05 * seconds)
        if len(order) < batch_size:
            order = torch.randperm(len(photos), generator=generator, device=device)
        chosen, order = photos[order[:batch_size]], order[batch_size:]
        turns = torch.randint(8, (batch_size,), generator=generator, device=device)
        # mostly upright, as dogs are; both views alike, so that turned is not the same
        turns = torch.where(turns < 4, turns, 0)
        views, frames = zip(*(random_views(chosen, turns, generator) for _ in range(2)), strict=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16(device, precision_wanted())):
            features = network.network(torch.cat(views).contiguous(memory_format=torch.channels_last))
        losses = tasks.loss(features.float(), turns.repeat(2), torch.cat(frames))
        optimizer_step(losses[0] + OTHER_TASKS * (losses[1] + losses[2]), optimizer, parameters)
        step += 1
        if step % 10 == 0 and time.perf_counter() - last_print > min(10, seconds / 5):  # reading a loss waits for the device
            last_print = time.perf_counter()
            named = zip(("contrastive", "turn", "frame"), losses, strict=True)
            said = ", ".join(f"{name} {loss.item():.3f}" for name, loss in named)
            print(f"{passed:6.1f} s  step {step:6d}  epoch {step * batch_size / len(photos):7.1f}  {said}", flush=True)
    print(f"{step} steps of {batch_size} photos, {step * batch_size / len(photos):.1f} epochs, in {seconds:g} s")
    return settle(network, plain)


@torch.no_grad()
def settle(network: DogFeatures, photos: Tensor) -> DogFeatures:
    """Take the batch normalisation's statistics anew over whole photos as they are, layer after layer the same way."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
    device = next(network.parameters()).device
    order = torch.randperm(len(photos), generator=torch.Generator().manual_seed(0))
    for some in order.tensor_split(max(1, len(photos) // 500)):
        network.train()(photos[some].to(device))
    return network.eval()


def save_features(network: DogFeatures, path: Path) -> str:
    """Write the weights, matrices as float16; returns the file's SHA-256."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_write(path) as partial:
        partial.write_bytes(save({name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in state.items()}))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def broken(pixels: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Ways to break images, uint8 (N, 3, S, S) each; none of them was used in training."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(pixels.shape, generator=generator)
    n, _, size, _ = pixels.shape
    cut = size // 4  # 14 px of 56
    patches = pixels.view(n, 3, 4, cut, 4, cut).permute(0, 2, 4, 1, 3, 5).reshape(n, 16, 3, cut, cut)
    shuffled = torch.stack([some[torch.randperm(16, generator=generator)] for some in patches])
    half = F.avg_pool2d(pixels.float(), 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    mean = pixels.float().mean((1, 2, 3), keepdim=True)

    def to_byte(x: Tensor) -> Tensor:
        return x.round().clamp(0, 255).byte()

    return {
        "mirrored": pixels.flip(-1),
        "blurred, 0.6 px": gaussian_blur(pixels, 5, 0.6),
        "blurred, 1.5 px": gaussian_blur(pixels, 11, 1.5),
        "noise, 8 of 255": to_byte(pixels + 8 * noise),
        "noise, 24 of 255": to_byte(pixels + 24 * noise),
        "patches shuffled": shuffled.view(n, 4, 4, 3, cut, cut).permute(0, 3, 1, 4, 2, 5).reshape(n, 3, size, size),
        "half the pixels": to_byte(half),
        "half the contrast": to_byte(mean + (pixels.float() - mean) / 2),
        "one in ten, ten times": pixels[: -(-n // 10)].repeat(10, 1, 1, 1)[:n],
    }


def rank_check(extractor: nn.Module, real: Tensor, seed: int = 0) -> dict[str, Comparison]:
    """One half of the real images against the other half, as it is ("real") and broken in each way."""
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
    n = len(real) // 2
    reference = extract_features(extractor, real[order[:n]])
    other = real[order[n : 2 * n]]
    return {
        name: compare_features(generated=extract_features(extractor, x), real=reference)
        for name, x in ({"real": other} | broken(other)).items()
    }


def split_names(folder: Path) -> tuple[list[str], list[str]]:
    """Which photos `split_dataset` puts into its two folders when nothing else is asked of it, without copying them."""
    train, test = train_test_split(find_images(folder), test_size=0.2, random_state=42)
    return sorted(train), sorted(test)


def decode(folder: Path, names: list[str], image_size: int) -> Tensor:
    """uint8 (N, 3, S, S) of the photos with these names."""
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda name: decode_image(folder / name, image_size), names))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--photos", type=Path, help="a folder of photos; a fifth is held out, as split_dataset does")
    where.add_argument("--tar", type=Path, help="the same in a tar file, all in one folder")
    parser.add_argument("--seconds", type=float, default=200, help="how long to train")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--batch-size", type=int, default=1024, help="photos in a step, two views of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="use only so many photos of each side, to try it out")
    args = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as unpacked:
        folder = args.photos
        if folder is None:
            folder = Path(unpacked)
            unpack(args.tar, folder)
        train_names, test_names = (names[: args.limit] for names in split_names(folder))
        sources, plain = decode(folder, train_names, SOURCE_SIZE), decode(folder, train_names, SIZE)
        held_out = decode(folder, test_names, SIZE)
    device = best_device()
    torch.backends.cudnn.benchmark = True  # every step has the same shapes
    print(f"{len(sources)} photos to train on, {len(held_out)} held out; {device}", flush=True)

    network = train(sources, plain, args.seconds, args.batch_size, args.seed, device)
    sha256 = save_features(network, args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, {sum(p.numel() for p in network.parameters()):,} parameters")
    print(f"SHA-256: {sha256}")
    network.load_state_dict(load_file(args.out))  # the figures are those of the file
    report(network, held_out)


def report(network: DogFeatures, held_out: Tensor) -> None:
    """Print what the network makes of photos that it has not seen: its features, and how broken photos rank."""
    features, mirrored = extract_features(network, held_out), extract_features(network, held_out.flip(-1))
    spread = torch.linalg.eigvalsh(features.T.cov())
    found = (torch.cdist(mirrored, features).argmin(1) == torch.arange(len(features))).double().mean()
    print(f"features of held-out photos: variance {features.var(0).mean():.3f} (1 in training), ", end="")
    print(f"as spread out as {spread.sum() ** 2 / spread.square().sum():.1f} equal directions; ", end="")
    print(f"{found:.1%} of mirrored photos are nearest to their own original")
    n = len(held_out) // 2
    print(f"\n| {n} held-out photos against {n} | Fréchet | precision | recall | coverage |")
    print("|---|---|---|---|---|")
    for name, found in rank_check(network, held_out).items():
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in astuple(found)) + " |")


if __name__ == "__main__":
    main()
