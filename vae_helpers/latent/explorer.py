"""`LatentExplorer`: sliders that walk the latent space, in JupyterLab, Notebook 7, Colab or VS Code.

What a hand can do has a method too, so that a notebook or a test can do the same. The picture is always the decoded
`explorer.z`.
"""

import asyncio
import base64
import io
import json
from collections.abc import Mapping
from html import escape
from itertools import count
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..config import folders
from ..data.images import DogImages, decode_image
from ..models.inference import decode_latents, encode_images, to_uint8
from ..models.vae import VAE
from ..plots import image_rows
from .directions import Directions, dimensions_by_kl, lerp, principal_axes, slerp
from .explorer_panel import MAX_UPLOAD, N_SLIDERS, ROLES, STEPS, WAYS, ExplorerPanel
from .walks import enlarged, filmstrip, png_bytes, save_gif, save_png

_REST = 0.25  # seconds without a movement until the thumbnails beside the sliders are drawn again
_MOST_DOGS = 2000  # so many at most are encoded to find axes and ranges


class LatentExplorer(ExplorerPanel):
    """A widget that walks the latent space of `vae`; it shows itself as the last line of a cell.

    dogs: held-out images to start from, and to measure axes and ranges on: `DogImages` or uint8 (N, 3, S, S), N at least 4;
    when left out, 256 dogs are dreamt from N(0, I). directions: more sets of sliders, name -> `Directions`, shown before
    principal axes and single dimensions. seed: of the random draws. title: its heading. Raises ValueError for dogs of
    another shape.

    `z` is where one stands, (*latent_shape) on the CPU; `picture.value` is that dog as PNG bytes; `ranges` holds both ends'
    coordinates of each slider, whose own value runs from 0 to 50. `close()` closes it; running its cell again closes what
    the cell's last run made.
    """

    _timer = None  # also for `close`, which Python calls when __init__ raises

    def __init__(
        self,
        vae: VAE,
        dogs: DogImages | Tensor | None = None,
        directions: Mapping[str, Directions] | None = None,
        seed: int = 0,
        title: str = "A walk through the latent space",
    ):
        self.vae, self.title = vae.eval(), title
        self._generator = torch.Generator().manual_seed(seed)
        if dogs is None:
            dogs = to_uint8(decode_latents(vae, torch.randn(256, *vae.latent_shape, generator=self._generator)))
        self.dogs = dogs.pixels if isinstance(dogs, DogImages) else dogs
        if self.dogs.dtype != torch.uint8 or self.dogs.dim() != 4 or len(self.dogs) < 4:
            raise ValueError(f"dogs: uint8 (N, 3, S, S), N at least 4, please; got {self.dogs.dtype} {tuple(self.dogs.shape)}")
        mu, logvar = encode_images(vae, self.dogs[:_MOST_DOGS])
        self._typical = (mu - mu.roll(1, 0)).flatten(1).norm(dim=1).median().item()
        own = {"principal axes": principal_axes(mu, 16), "single dimensions": dimensions_by_kl(mu, logvar, 16)}
        given = dict(directions or {})
        self._pages = _pages(given | {name: d for name, d in own.items() if name not in given})
        self.directions = next(iter(self._pages.values()))
        self.z, self._start, self._target, self._came_from = mu[0], mu[0], mu[1], ""
        self._timer, self._recorded, self._first_shown = None, None, 0
        super().__init__(title, list(self._pages))
        self.turn(0)
        self.start_from_dog(0)
        self.morph_towards_dog(1)
        self.choose_directions(self.pages.value)

    def start_from_dog(self, i: int) -> None:
        """Stand at the mean of dog `i` of those given."""
        self._start_from(self._encode(self.dogs[i]), self.dogs[i], f"dog {i}")

    def start_from_photo(self, file: str | Path | bytes) -> None:
        """Stand at the mean of a photo, given by its path or as a file's bytes. Raises what `decode_image` raises."""
        photo = torch.from_numpy(decode_image(file, self.vae.image_size).copy()).permute(2, 0, 1)
        self._start_from(self._encode(photo), photo, "your photo")

    def random(self) -> None:
        """Stand at a new draw from N(0, I)."""
        self._start_from(torch.randn(self.vae.latent_shape, generator=self._generator), None, "a random draw")

    def reset(self) -> None:
        """Go back to where the walk began."""
        self.morph(0.0)

    def move(self, k: int, value: float) -> None:
        """Go to the dog whose coordinate along direction `k` is `value`, its other coordinates as they are."""
        self._stand_at(self.directions.move(self.z[None], k, value)[0])
        self._show_place(k, value)
        self._draw_ends_when_still()

    def value_at(self, k: int, place: int) -> float:
        """The coordinate along direction `k` at a place of its slider, 0 to 50."""
        low, high = self.ranges[k]
        return low + (high - low) * place / STEPS

    def morph(self, t: float) -> None:
        """Stand between the start (0) and the other dog (1), `t` of the way."""
        with self.quietly():
            self.morph_slider.value = round(t * STEPS)
        way = slerp if self.way.value == WAYS[0] else lerp
        self._stand_at(way(self._start, self._target, torch.tensor([t]))[0])
        self._place_sliders()
        self._draw_ends_when_still()

    def morph_towards_dog(self, i: int) -> None:
        """Make dog `i` the other end of the morph."""
        self._target = self._encode(self.dogs[i])
        self.other.value = png_bytes(self.dogs[i], 2)

    def choose_directions(self, page: str) -> None:
        """Let the sliders walk other directions: `page` is one of `pages.options`."""
        d = self.directions = self._pages[page]
        with self.quietly():
            self.pages.value = page
        for k, row in enumerate(self.rows):
            row.layout.display = "flex" if k < len(d) else "none"
        self._place_sliders()
        self._draw_ends_when_still()

    def turn(self, by: int) -> None:
        """Turn the page of the picker; past either end it goes on at the other."""
        self._first_shown = (self._first_shown + by * N_SLIDERS) % len(self.dogs)
        for place, (picture, button) in enumerate(zip(self.thumbnails, self.pick_buttons, strict=True)):
            i = (self._first_shown + place) % len(self.dogs)
            picture.value, button.description = png_bytes(self.dogs[i]), str(i)

    def pick(self, place: int) -> None:
        """Take the dog at `place` (0 to 7) of the picker, in the role that the switch beside it shows."""
        i = (self._first_shown + place) % len(self.dogs)
        (self.start_from_dog if self.role.value == ROLES[0] else self.morph_towards_dog)(i)

    def save(self) -> Path:
        """Keep this dog as outputs/dog_N.png in the workspace; returns its path."""
        [path] = _free_paths("dog", ".png")
        save_png(enlarged(decode_latents(self.vae, self.z[None]), 8)[0], path)
        self.say(f"wrote {folders().shown(path)}")
        return path

    def copy(self) -> None:
        """Put the latent's numbers into the reader's clipboard, as JSON."""
        self.browser.send({"copy": json.dumps(self.z.tolist())})

    def record(self) -> None:
        """Record every step of the walk from here on."""
        with self.quietly():
            self.recording.value = True
        self._recorded = [self.z]
        self.say("recording the walk; press the button again to write it")

    def stop_recording(self) -> tuple[Path, Path]:
        """Write what was recorded as outputs/walk_N.gif and walk_N_filmstrip.png; returns both paths."""
        with self.quietly():
            self.recording.value = False
        images = decode_latents(self.vae, torch.stack(self._recorded or [self.z]))
        gif, strip = _free_paths("walk", ".gif", "_filmstrip.png")
        save_gif(images, gif, seconds=max(1.0, 0.06 * len(images)))
        save_png(filmstrip(images[:: -(-len(images) // 24)]), strip)
        self._recorded = None
        self.say(f"wrote {folders().shown(gif)} and {folders().shown(strip)}")
        return gif, strip

    def overview(self) -> Figure:
        """What each slider does from here, from its low end to its high one: a picture for where no kernel runs."""
        five = self.z.expand(5, *self.z.shape)
        rows = {}
        for k, name in enumerate(self.directions.names):
            values = torch.linspace(*self.ranges[k], 5)
            rows[name] = decode_latents(self.vae, self.directions.move(five, k, values))
        return image_rows(rows, self.title, scale=1.0)

    def close(self) -> None:
        """Close every part of it; no comm and no timer is left."""
        if self._timer:
            self._timer.cancel()
        super().close()

    def browser_says(self, content: dict, buffers: list) -> None:
        """A message from explorer.js: a photo arrived, or did not; the clipboard was filled, or was not."""
        if "photo" in content:
            self._photo_arrived(content["photo"], content["size"], buffers)
        elif content["copied"]:
            self.say(f"{self.z.numel()} numbers are in the clipboard; torch.tensor([...]) makes a latent of them")
        else:
            self.say(f"this browser lets no page fill its clipboard; copy from here: {json.dumps(self.z.tolist())}")

    def _photo_arrived(self, name: str, size: int, buffers: list) -> None:
        """A photo that cannot be used is the reader's to mend, no error of ours: a sentence under the button."""
        try:
            if not buffers:
                raise ValueError(
                    f"{size / 1e6:.1f} MB do not fit through the notebook's connection ({MAX_UPLOAD / 1e6:.0f} MB do)"
                )
            self.start_from_photo(bytes(buffers[0]))
        except Exception as error:  # a broken file can make a reader raise anything
            self.photo_message.value = f"{escape(name)} was not used: {escape(str(error))}. Nothing was changed."

    def _repr_mimebundle_(self, **kw) -> dict:
        """The widget where a kernel runs, and a still picture of what its sliders do for where none does."""
        still = io.BytesIO()
        self.overview().savefig(still, format="png", dpi=80)
        return super()._repr_mimebundle_(**kw) | {"image/png": base64.b64encode(still.getvalue()).decode()}

    def _encode(self, pixels: Tensor) -> Tensor:
        return encode_images(self.vae, pixels[None])[0][0]

    def _start_from(self, z: Tensor, photo: Tensor | None, came_from: str) -> None:
        self.reconstruction.value = png_bytes(decode_latents(self.vae, z[None])[0], 2)
        self._start, self._came_from, self.photo_message.value = z, came_from, ""
        self.photo.layout.visibility = "hidden" if photo is None else "visible"
        if photo is not None:
            self.photo.value = png_bytes(photo, 2)
        self.reset()

    def _stand_at(self, z: Tensor) -> None:
        self.picture.value = png_bytes(decode_latents(self.vae, z[None])[0], 7)
        self.z = z  # only now: should decoding fail, picture and z still belong together
        walked = (z - self._start).norm().item()
        two_dogs = f"; two dogs lie {self._typical:.1f} apart" if self._typical else ""
        self.distance.value = f"walked <b>{walked:.2f}</b> from {self._came_from}{two_dogs}"
        if self._recorded is not None:
            self._recorded.append(z)

    def _place_sliders(self) -> None:
        """Every slider shows where `z` lies on its direction; its range is widened when `z` lies outside."""
        d = self.directions
        here = d.coordinates(self.z[None])[0].tolist()
        self.ranges = [(min(a, x), max(b, x)) for a, b, x in zip(d.low.tolist(), d.high.tolist(), here, strict=True)]
        for k, value in enumerate(here):
            self._show_place(k, value)

    def _show_place(self, k: int, value: float) -> None:
        d, (low, high) = self.directions, self.ranges[k]
        with self.quietly():
            self.sliders[k].value = round(STEPS * (value - low) / ((high - low) or 1))
        score = f"<small style='opacity: .7'>{d.score_name} {d.scores[k]:.2f}</small>"
        self.labels[k].value = f"<b>{escape(d.names[k])}</b> {value:.2f} {score}"

    def _draw_ends_when_still(self) -> None:
        if self._timer:
            self._timer.cancel()
        try:
            self._timer = asyncio.get_running_loop().call_later(_REST, self._shown(self._draw_ends))
        except RuntimeError:  # no event loop, so no hand that could rest
            self._draw_ends()

    def _draw_ends(self) -> None:
        here, d = self.z[None], self.directions
        ends = [d.move(here, k, end) for k in range(len(d)) for end in self.ranges[k]]
        for pair, (low, high) in zip(self.ends, decode_latents(self.vae, torch.cat(ends)).unflatten(0, (-1, 2)), strict=False):
            pair[0].value, pair[1].value = png_bytes(low), png_bytes(high)


def _pages(sets: Mapping[str, Directions]) -> dict[str, Directions]:
    """Sets of directions in pages of at most 8, each with a name."""
    pages = {}
    for name, d in sets.items():
        for first in range(0, len(d), N_SLIDERS):
            last = min(first + N_SLIDERS, len(d))
            pages[f"{name} {first + 1}–{last}"] = d.take(range(first, last))
    return pages


def _free_paths(stem: str, *endings: str) -> list[Path]:
    """outputs/{stem}_{n}{ending} for the first n for which none of them is there."""
    for n in count(1):
        paths = [folders().outputs / f"{stem}_{n}{ending}" for ending in endings]
        if not any(path.exists() for path in paths):
            return paths
