"""How `head_finder` is made: a small network that says where a dog's head is. One core, about half an hour.

    python recipes/head_finder.py ../shared/dogs RUN [--steps 12000]

DOGS holds photos/ and breeds/, `heads.json` with boxes of heads, and cats/. RUN.pt keeps everything; the same command goes on
from it. RUN.safetensors is what the package ships, in half precision.

A third of each batch are parts of photos that touch no box, a tenth cats and made-up textures; the others hold a head: whole
photos, or random windows around one. A photo without a box is not used, since it may hold a head all the same. One photo in
eight is held out, and half of the cats; what the finder makes of them, and of 500 pictures without a head, is printed.
"""

import argparse
import json
import time
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vae_helpers.data.heads import CELLS, INPUT, HeadFinder
from vae_helpers.files import save_weights
from vae_helpers.models import use_bfloat16
from vae_helpers.training import learning_rate_factor, optimizer_step, update_ema

SIDE, BATCH, MOST = 144, 32, 3  # pixels of a photo in memory; images in a step; heads in a photo
LEAST = 0.2  # confidence of a box that is believed; where one is less sure, nothing is learned about heads


def read_square(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)).transpose(2, 0, 1)


def is_held_out(name: str) -> bool:
    return zlib.crc32(name.encode()) % 8 == 0


class Photos:
    """Photos with boxes. pixels: uint8 (N, 3, S, S); boxes: (N, 3, 5) left, top, right, bottom, confidence; zeros: none."""

    def __init__(self, dogs: Path, names: list[str], marks: dict[str, list[list[float]]]):
        self.names, self.pixels = names, torch.from_numpy(np.stack([read_square(dogs / name) for name in names]))
        self.boxes = torch.zeros(len(names), MOST, 5)
        for i, name in enumerate(names):
            found = torch.tensor(sorted(marks[name], key=lambda box: -box[4])[:MOST])
            self.boxes[i, : len(found)] = found


def windows_with(boxes: Tensor) -> Tensor:
    """For each of (B, 5) boxes a window (B, 4) that holds it: the whole photo, nearly, or a part of it with the box inside."""
    n, whole = len(boxes), (torch.rand(len(boxes)) < 0.4)[:, None]
    size = (boxes[:, 2:4] - boxes[:, :2]).amax(1, keepdim=True)
    least = (size * 1.15).clamp(max=1)
    side = (least + (1 - least) * torch.rand(n, 1)) * (1 + 0.15 * (2 * torch.rand(n, 2) - 1))
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2
    room = (side - (boxes[:, 2:4] - boxes[:, :2])).clamp(min=0)
    start = middle - side / 2 + room * (torch.rand(n, 2) - 0.5)
    start = torch.where(side < 1, start.clamp(min=0).minimum((1 - side).clamp(min=0)), (1 - side) * torch.rand(n, 2))
    part = torch.cat([start, start + side], 1)
    grown = 1 + 0.2 * torch.rand(n, 2) - 0.08
    shift = (1 - grown) * torch.rand(n, 2)
    return torch.where(whole, torch.cat([shift, shift + grown], 1), part)


def windows_without(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """For each of (B, 3, 5) boxes of a photo a window (B, 4) that touches none of them, and whether one was found (B,)."""
    n, tries = len(boxes), 60
    side = 0.2 + 0.5 * torch.rand(n, tries, 1) * torch.ones(2)
    start = torch.rand(n, tries, 2) * (1 - side)
    window = torch.cat([start, start + side], 2)
    b = boxes[:, None, :, :4]
    apart = (b[..., 2] <= window[..., None, 0]) | (b[..., 0] >= window[..., None, 2])
    apart |= (b[..., 3] <= window[..., None, 1]) | (b[..., 1] >= window[..., None, 3]) | (boxes[:, None, :, 4] == 0)
    free = apart.all(2)
    return window[torch.arange(n), free.float().argmax(1)], free.any(1)


def cut(pixels: Tensor, windows: Tensor, flip: Tensor) -> Tensor:
    """uint8 (B, 3, S, S), windows in fractions -> float (B, 3, 112, 112) in [-1, 1]; flip: which are mirrored."""
    at = (torch.arange(INPUT) + 0.5) / INPUT
    x = windows[:, None, 0] + (windows[:, 2] - windows[:, 0])[:, None] * at
    x = torch.where(flip[:, None], x.flip(1), x)
    y = windows[:, None, 1] + (windows[:, 3] - windows[:, 1])[:, None] * at
    grid = torch.stack([x[:, None, :].expand(-1, INPUT, -1), y[:, :, None].expand(-1, -1, INPUT)], 3) * 2 - 1
    return F.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False) / 127.5 - 1


def targets(boxes: Tensor, windows: Tensor, flip: Tensor) -> tuple[Tensor, ...]:
    """Boxes (B, 3, 5) as seen in the windows: the heat map (B, 14, 14), where to learn it, and the places, offsets and
    log-sizes of the heads that are there: (B, 3), (B, 3, 2), (B, 3, 2), (B, 3) whether."""
    start, side = windows[:, None, :2], (windows[:, None, 2:] - windows[:, None, :2])
    low, high = (boxes[..., :2] - start) / side, (boxes[..., 2:4] - start) / side
    low_x, high_x = (
        torch.where(flip[:, None], 1 - high[..., 0], low[..., 0]),
        torch.where(flip[:, None], 1 - low[..., 0], high[..., 0]),
    )
    low, high = torch.stack([low_x, low[..., 1]], -1), torch.stack([high_x, high[..., 1]], -1)
    seen_low, seen_high = low.clamp(0, 1), high.clamp(0, 1)
    visible = (seen_high - seen_low).prod(-1) / (high - low).prod(-1).clamp(min=1e-6)
    there, touched = (visible > 0.6) & (boxes[..., 4] >= LEAST), (visible > 0.1) & (boxes[..., 4] > 0)
    middle, size = (seen_low + seen_high) / 2, (seen_high - seen_low).clamp(min=0.02)
    cell = (middle * CELLS).floor().clamp(0, CELLS - 1)
    at = torch.arange(CELLS)
    sigma = (size.mean(-1) * CELLS / 8).clamp(min=0.6)[..., None]
    bump = torch.exp(
        -((at - cell[..., :1]) ** 2)[:, :, None] / (2 * sigma[..., None] ** 2)
        - ((at - cell[..., 1:]) ** 2)[..., None] / (2 * sigma[..., None] ** 2)
    )
    heat = (bump * there[..., None, None]).amax(1)
    inside_x = ((at + 0.5) / CELLS > low[..., :1]) & ((at + 0.5) / CELLS < high[..., :1])
    inside_y = ((at + 0.5) / CELLS > low[..., 1:]) & ((at + 0.5) / CELLS < high[..., 1:])
    unsure = (inside_y[..., None] & inside_x[:, :, None] & (touched & ~there)[..., None, None]).any(1)
    return heat, ~unsure, (cell[..., 1] * CELLS + cell[..., 0]).long(), middle * CELLS - cell, size.log(), there


def random_colours(x: Tensor) -> Tensor:
    n = len(x)
    mean = x.mean((2, 3), keepdim=True)
    x = (
        (x - mean) * (0.6 + 0.8 * torch.rand(n, 1, 1, 1))
        + mean
        + 0.4 * (torch.rand(n, 3, 1, 1) * 0.4 + torch.rand(n, 1, 1, 1) - 0.7)
    )
    grey = (torch.rand(n, 1, 1, 1) < 0.1).float()
    x = grey * x.mean(1, keepdim=True) + (1 - grey) * x
    return (x + 0.03 * torch.randn_like(x) * torch.rand(n, 1, 1, 1)).clamp(-1, 1)


def textures(n: int) -> Tensor:
    """Pictures of nothing: noise at some scale over a flat colour."""
    sizes = [2 ** int(k) for k in torch.randint(1, 7, (n,))]
    noise = [F.interpolate(torch.randn(1, 3, s, s), size=(INPUT, INPUT), mode="bilinear") for s in sizes]
    return (torch.cat(noise) * torch.rand(n, 1, 1, 1) + 2 * torch.rand(n, 3, 1, 1) - 1).clamp(-1, 1)


def make_batch(photos: Photos, cats: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    n_cats, n_made, n_empty = 3, 1, 10
    n = BATCH - n_cats - n_made
    index = torch.randint(len(photos.pixels), (n,))
    boxes = photos.boxes[index]
    windows = windows_with(boxes[:, 0])
    windows[:n_empty], found = windows_without(boxes[:n_empty])
    windows[:n_empty][~found] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    flip = torch.rand(n) < 0.5
    few = torch.randint(len(cats), (n_cats,))
    side, start = 0.5 + 0.5 * torch.rand(n_cats, 1), torch.rand(n_cats, 2)
    corner = start * (1 - side)
    x = [cut(photos.pixels[index], windows, flip), cut(cats[few], torch.cat([corner, corner + side], 1), flip[:n_cats])]
    none = torch.zeros(n_cats + n_made, MOST, 5)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(n_cats + n_made, 4)
    all_boxes, all_windows = torch.cat([boxes, none]), torch.cat([windows, whole])
    return random_colours(torch.cat([*x, textures(n_made)])), targets(
        all_boxes, all_windows, torch.cat([flip, flip[: n_cats + n_made]])
    )


def finder_loss(out: Tensor, wanted: tuple[Tensor, ...]) -> Tensor:
    """Focal loss of the heat map (Law & Deng 2018, eq. 1), and the absolute error of place and size where heads are."""
    heat, learn, place, offset, log_size, there = wanted
    out = out.float().flatten(2)
    logit, heat, learn = out[:, 0], heat.flatten(1), learn.flatten(1)
    p, is_middle = logit.sigmoid(), heat >= 0.999
    hit = -(1 - p).square() * F.logsigmoid(logit) * is_middle
    miss = -((1 - heat) ** 4) * p.square() * F.logsigmoid(-logit) * (~is_middle & learn)
    at = out[:, 1:].gather(2, place[:, None].expand(-1, 4, -1)).transpose(1, 2)
    error = (at - torch.cat([offset, log_size], 2)).abs().sum(2)
    heads = there.sum().clamp(min=1)
    return (hit.sum() + miss.sum() + (error * there).sum()) / heads


@torch.no_grad()
def find_all(finder: HeadFinder, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (N,) and boxes (N, 4) of the surest head in each of (N, 3, 112, 112)."""
    out = torch.cat([finder(part).flatten(2) for part in x.split(64)])
    score, best = out[:, 0].max(1)
    dx, dy, log_w, log_h = out[:, 1:].gather(2, best[:, None, None].expand(-1, 4, 1))[..., 0].T
    x, y, w, h = (best % CELLS + dx) / CELLS, (best // CELLS + dy) / CELLS, log_w.exp() / 2, log_h.exp() / 2
    return score.sigmoid(), torch.stack([x - w, y - h, x + w, y + h], 1).clamp(0, 1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    both = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    return both / ((a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - both).clamp(min=1e-9)


def report(finder: HeadFinder, held_out: Photos, empty: Tensor, cats: Tensor) -> str:
    whole = F.interpolate(held_out.pixels.float(), size=(INPUT, INPUT), mode="bilinear", antialias=True) / 127.5 - 1
    score, box = find_all(finder, whole)
    overlap = (iou(box[:, None], held_out.boxes[..., :4]) * (held_out.boxes[..., 4] > 0)).amax(1)
    nothing, cat = find_all(finder, empty)[0], find_all(finder, cats)[0]
    lines = []
    for least in (0.2, 0.25, 0.3, 0.35, 0.4, 0.5):
        said = score >= least
        lines.append(
            f"  score {least}: {said.float().mean():.3f} of {len(score)} reported, IoU 0.5 in {(overlap[said] >= 0.5).float().mean():.3f} of them; "
            f"of {len(nothing)} without a head {(nothing >= least).float().mean():.3f}, of {len(cat)} cats {(cat >= least).float().mean():.3f}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dogs", type=Path)
    parser.add_argument("run", type=Path)
    for name, default in (("steps", 12_000), ("report-every", 1_000), ("threads", 1), ("limit", 10**6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(arguments)
    torch.manual_seed(0), torch.set_num_threads(options.threads)
    marks = {name: boxes for name, boxes in sorted(json.loads((options.dogs / "heads.json").read_text()).items()) if boxes}
    sure = [name for name, boxes in marks.items() if max(box[4] for box in boxes) >= LEAST][: options.limit]
    photos = Photos(options.dogs, [name for name in sure if not is_held_out(name)], marks)
    held_out = Photos(options.dogs, [name for name in list(marks)[: options.limit] if is_held_out(name)], marks)
    cats = [read_square(path) for path in sorted((options.dogs / "cats").iterdir())[: options.limit]]
    cats, unseen_cats = torch.from_numpy(np.stack(cats[::2])), torch.from_numpy(np.stack(cats[1::2]))
    windows, found = windows_without(held_out.boxes)
    empty = cut(held_out.pixels[found], windows[found], torch.zeros(int(found.sum()), dtype=torch.bool))[:500]
    shown = F.interpolate(unseen_cats.float(), size=(INPUT, INPUT), mode="bilinear", antialias=True) / 127.5 - 1
    finder = HeadFinder().to(memory_format=torch.channels_last)
    average = HeadFinder().eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(finder.parameters(), 2e-3, weight_decay=1e-3)
    parts, step, path = {"finder": finder, "average": average, "optimizer": optimizer}, 0, options.run.with_suffix(".pt")
    if path.exists():
        state = torch.load(path, weights_only=True)
        step = state.pop("step")
        for name, part in parts.items():
            part.load_state_dict(state[name])
    torch.manual_seed(step)
    print(
        f"{len(photos.names)} photos to learn from, {len(held_out.names)} held out, {len(empty)} parts of them without a head",
        flush=True,
    )
    started, losses = time.perf_counter(), []
    while step < options.steps:
        optimizer.param_groups[0]["lr"] = 2e-3 * learning_rate_factor(step, options.steps, 300)
        x, wanted = make_batch(photos, cats)
        with torch.autocast("cpu", torch.bfloat16, enabled=use_bfloat16(torch.device("cpu"))):
            out = finder(x.contiguous(memory_format=torch.channels_last))
        loss = finder_loss(out, wanted)
        optimizer_step(loss, optimizer, finder.parameters(), 10.0)
        update_ema(average, finder, step, 0.998)
        for mine, theirs in zip(average.buffers(), finder.buffers(), strict=True):
            mine.copy_(theirs)
        step, losses = step + 1, [*losses[-199:], loss.item()]
        if step % 200 == 0:
            print(f"step {step} loss {np.mean(losses):.3f} {(time.perf_counter() - started):.0f} s", flush=True)
        if step % options.report_every == 0 or step == options.steps:
            print(report(average, held_out, empty, shown), flush=True)
            torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": step}, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
    save_weights(options.run.with_suffix(".safetensors"), average.state_dict(), {"network": "HeadFinder"}, torch.float16)


if __name__ == "__main__":
    main()
