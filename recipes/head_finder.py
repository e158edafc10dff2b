"""How `head_finder` is made: a small network that says where a dog's head is. One core is enough.

    python recipes/head_finder.py DOGS RUN [--steps 12000]
    python recipes/head_finder.py DOGS --check

DOGS holds photos/ and breeds/, `heads.json` with boxes of heads, and cats/. RUN.pt keeps everything; the same command goes on
from it. RUN.safetensors is what the package ships, in half precision. --check measures the finder that the package ships, on
what nothing was learned from, and exits with 1 where a figure is worse than is asked.

A third of each batch are parts of photos that touch no box, an eighth cats and made-up textures; the others hold a head: whole
photos, or random windows around one. A photo without a box is not used, since it may hold a head all the same. One photo in
eight is held out, and half of the cats; what the finder makes of them is printed every thousand steps.
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from head_finder_check import check
from head_finder_data import (
    LEAST,
    Photos,
    Targets,
    cut,
    iou,
    is_held_out,
    make_batch,
    read_cats,
    read_marks,
    read_photos,
    read_square,
    windows_without,
)
from torch import Tensor

from vae_helpers.data import CELLS, INPUT, HeadFinder
from vae_helpers.files import atomic_write, save_weights
from vae_helpers.models import use_bfloat16
from vae_helpers.training import learning_rate_factor, optimizer_step, update_ema


class Training:
    """What a stopped run goes on with, from `path` where it is there: the network, the average of its weights, the optimizer,
    and how many steps were made."""

    def __init__(self, path: Path):
        self.path, self.step = path, 0
        self.finder = HeadFinder().to(memory_format=torch.channels_last)
        self.average = HeadFinder().eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.finder.parameters(), 2e-3, weight_decay=1e-3)
        self.parts = {"finder": self.finder, "average": self.average, "optimizer": self.optimizer}
        if path.exists():
            state = torch.load(path, weights_only=True)
            self.step = state["step"]
            for name, part in self.parts.items():
                part.load_state_dict(state[name])

    def save(self) -> None:
        """Write `path`, whole or not at all."""
        with atomic_write(self.path) as partial:
            torch.save({name: part.state_dict() for name, part in self.parts.items()} | {"step": self.step}, partial)

    def train_step(self, photos: Photos, cats: Tensor, steps: int) -> float:
        """One step of `steps` on a random batch. Returns its loss."""
        self.optimizer.param_groups[0]["lr"] = 2e-3 * learning_rate_factor(self.step, steps, 300)
        x, wanted = make_batch(photos, cats)
        with torch.autocast("cpu", torch.bfloat16, enabled=use_bfloat16(torch.device("cpu"))):
            out = self.finder(x.contiguous(memory_format=torch.channels_last))
        loss = finder_loss(out, wanted)
        optimizer_step(loss, self.optimizer, self.finder.parameters(), 10.0)
        update_ema(self.average, self.finder, self.step, 0.998)
        for averaged, latest in zip(self.average.buffers(), self.finder.buffers(), strict=True):
            averaged.copy_(latest)
        self.step += 1
        return loss.item()


def finder_loss(out: Tensor, wanted: Targets) -> Tensor:
    """Focal loss of the heat map (Law & Deng 2018, eq. 1), and the absolute error of place and size where heads are.

    out: (B, 5, 14, 14). Returns the sum over the batch for each head in it.
    """
    out = out.float().flatten(2)
    logit, heat, learn = out[:, 0], wanted.heat.flatten(1), wanted.learn.flatten(1)
    p, is_middle = logit.sigmoid(), heat >= 0.999
    hit = -(1 - p).square() * F.logsigmoid(logit) * is_middle
    miss = -((1 - heat) ** 4) * p.square() * F.logsigmoid(-logit) * (~is_middle & learn)
    at = out[:, 1:].gather(2, wanted.place[:, None].expand(-1, 4, -1)).transpose(1, 2)
    error = (at - torch.cat([wanted.offset, wanted.log_size], 2)).abs().sum(2)
    return (hit.sum() + miss.sum() + (error * wanted.there).sum()) / wanted.there.sum().clamp(min=1)


@torch.no_grad()
def find_all(finder: HeadFinder, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (N,) and boxes (N, 4) of the surest head in each of (N, 3, 112, 112)."""
    out = torch.cat([finder(part).flatten(2) for part in x.split(64)])
    score, best = out[:, 0].max(1)
    dx, dy, log_w, log_h = out[:, 1:].gather(2, best[:, None, None].expand(-1, 4, 1))[..., 0].T
    x, y, w, h = (best % CELLS + dx) / CELLS, (best // CELLS + dy) / CELLS, log_w.exp() / 2, log_h.exp() / 2
    return score.sigmoid(), torch.stack([x - w, y - h, x + w, y + h], 1).clamp(0, 1)


def shrink(pixels: Tensor) -> Tensor:
    """uint8 (N, 3, S, S) -> float (N, 3, 112, 112) in [-1, 1]."""
    return F.interpolate(pixels.float(), size=(INPUT, INPUT), mode="bilinear", antialias=True) / 127.5 - 1


def report(finder: HeadFinder, held_out: Photos, without_head: Tensor, cats: Tensor) -> str:
    """What the finder makes of what it does not learn from, a line for each score from which a head could be reported."""
    score, box = find_all(finder, shrink(held_out.pixels))
    overlap = (iou(box[:, None], held_out.boxes[..., :4]) * (held_out.boxes[..., 4] > 0)).amax(1)
    empty, cat = find_all(finder, without_head)[0], find_all(finder, shrink(cats))[0]
    return "\n".join(
        f"  score {least}: {(score >= least).float().mean():.3f} of {len(score)} reported, IoU 0.5 in "
        f"{(overlap[score >= least] >= 0.5).float().mean():.3f} of them; of {len(empty)} without a head "
        f"{(empty >= least).float().mean():.3f}, of {len(cat)} cats {(cat >= least).float().mean():.3f}"
        for least in (0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
    )


def train(dogs: Path, run: Path, steps: int, report_every: int, limit: int) -> None:
    """Train for `steps` in all, on at most `limit` photos and cats, and write RUN.pt and RUN.safetensors."""
    marks = read_marks(dogs)
    sure = [name for name, boxes in marks.items() if max(box[4] for box in boxes) >= LEAST][:limit]
    photos = read_photos(dogs, [name for name in sure if not is_held_out(name)], marks)
    held_out = read_photos(dogs, [name for name in list(marks)[:limit] if is_held_out(name)], marks)
    cats, unseen_cats = (torch.stack([read_square(path) for path in part]) for part in read_cats(dogs, limit))
    windows, found = windows_without(held_out.boxes)
    without_head = cut(held_out.pixels[found], windows[found], torch.zeros(int(found.sum()), dtype=torch.bool))[:500]
    print(
        f"{len(photos.pixels)} photos to learn from, {len(held_out.pixels)} held out, "
        f"{len(without_head)} parts of them without a head",
        flush=True,
    )
    training = Training(run.with_suffix(".pt"))
    torch.manual_seed(training.step)
    started, losses = time.perf_counter(), []
    while training.step < steps:
        losses = [*losses[-199:], training.train_step(photos, cats, steps)]
        if training.step % 200 == 0:
            seconds = time.perf_counter() - started
            print(f"step {training.step} loss {sum(losses) / len(losses):.3f} {seconds:.0f} s", flush=True)
        if training.step % report_every == 0 or training.step == steps:
            print(report(training.average, held_out, without_head, unseen_cats), flush=True)
            training.save()
    weights = {name: weight for name, weight in training.average.state_dict().items() if weight.is_floating_point()}
    save_weights(run.with_suffix(".safetensors"), weights, {"network": "HeadFinder"}, torch.float16)  # no counts of batches


def main(arguments: list[str] | None = None) -> None:
    """Train a finder, or measure the shipped one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dogs", type=Path)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--check", action="store_true")
    for name, default in (("steps", 12_000), ("report-every", 1_000), ("threads", 1), ("limit", 10**6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(arguments)
    if not (options.check or options.run):
        parser.error("name RUN, the file to train to, or ask for --check")
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    if options.check:
        check(options.dogs, options.limit)
    else:
        train(options.dogs, options.run, options.steps, options.report_every, options.limit)


if __name__ == "__main__":
    main()
