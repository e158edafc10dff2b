"""`LatentExplorer`: sliders that walk the latent space, in JupyterLab, Notebook 7, Colab or VS Code.

Each control calls a method, so a notebook or a test can do the same as a hand. The picture is always the decoded
`explorer.z`.
"""

import asyncio
from collections.abc import Mapping
from html import escape
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from ..data.heads import NoHead
from ..data.images import DogImages, decode_image
from ..files import write_file
from ..models.inference import decode_latents, encode_images
from ..models.priors import GaussianMixture, Prior, StandardNormal
from ..models.vae import BaseVAE
from ..plots import figure_bytes, image_rows, image_sheet
from .directions import Directions, dimensions_by_kl, lerp, principal_axes, slerp
from .explorer_panel import LARGE, MEDIUM, N_SLIDERS, SMALL, STEPS, ExplorerPanel
from .walks import png_bytes


class LatentExplorer(ExplorerPanel):
    """A widget that walks the latent space of `vae`; it shows itself as the last line of a cell.

    dogs: held-out images to start from, and to measure axes and ranges on: `DogImages` or uint8 (N, 3, S, S), N at least 2.
    directions: more sets of sliders, name -> `Directions`, shown before principal axes and single dimensions. title: its
    heading. output_dir: where "Save PNG" writes. prior: what "Random" draws from, N(0, I) when left out. Raises ValueError for
    dogs of another shape.

    `z` is the latent in the picture, (*latent_shape) on the CPU, and `breed` what it is drawn as (None: any); `picture.value`
    is its image as PNG bytes; `ranges` holds both ends' coordinates of each slider, whose own value runs from 0 to 50.
    """

    def __init__(
        self,
        vae: BaseVAE,
        dogs: DogImages | Tensor,
        directions: Mapping[str, Directions] | None = None,
        title: str = "A walk through the latent space",
        output_dir: str | Path = "outputs",
        prior: Prior | None = None,
    ):
        self.vae, self.title, self.output_dir, self.breed = vae, title, Path(output_dir), None
        self.prior = prior or StandardNormal(vae.latent_shape)
        mixture = self.prior if isinstance(self.prior, GaussianMixture) else GaussianMixture(vae.latent_shape)
        shifts = (mixture.means - mixture.weights @ mixture.means).cpu().unflatten(1, vae.latent_shape)
        self._shifts = dict(zip(mixture.names, shifts, strict=False))  # from the mean of all dogs to that of a breed
        self._generator, self._timer = torch.Generator().manual_seed(0), None
        self.dogs = dogs.pixels if isinstance(dogs, DogImages) else dogs
        if self.dogs.dtype != torch.uint8 or self.dogs.dim() != 4 or len(self.dogs) < 2:
            raise ValueError(f"dogs: uint8 (N, 3, S, S), N at least 2, please; got {self.dogs.dtype} {tuple(self.dogs.shape)}")
        mu, logvar = encode_images(vae, self.dogs[:2000])  # enough to find axes and ranges
        own = {"principal axes": principal_axes(mu, 16), "single dimensions": dimensions_by_kl(mu, logvar, 16)}
        given = dict(directions or {})
        self._pages = {}
        for name, d in (given | own | given).items():
            for first in range(0, len(d), N_SLIDERS):
                page = d.take(range(len(d))[first : first + N_SLIDERS])
                self._pages[f"{name} {first + 1}–{first + len(page)}"] = page
        super().__init__(title, list(self._pages), vae.breeds, len(self.dogs))
        self.sheet.value = png_bytes(image_sheet(self.dogs[:20], 10))  # the first, ten to a row, to pick from
        self.z = mu[0]
        self.choose_directions(self.pages.value)
        self.morph_towards_dog(1)
        self.start_from_dog(0)

    def start_from_dog(self, i: int) -> None:
        """Go to the mean of dog `i` of those given."""
        self._start_from(self.dogs[i], f"dog {i}")

    def start_from_photo(self, file: str | Path | bytes) -> None:
        """Go to the mean of a photo, cropped as the model's images were; whole where no head is found to crop it to.

        file: its path, or what is in it. Raises what `decode_image` raises.
        """
        try:
            pixels, title = decode_image(file, self.vae.image_size, crop=self.vae.crop), "your photo"
        except NoHead:
            pixels, title = decode_image(file, self.vae.image_size), "your photo (squashed whole: no head was found in it)"
        self._start_from(torch.from_numpy(pixels.copy()).permute(2, 0, 1), title)

    def random(self) -> None:
        """Go to a new draw from the prior, of the chosen breed where the prior knows it."""
        z = self.prior.sample(1, self._generator, **({"name": self.breed} if self.breed in self._shifts else {}))
        self._start_from(self._decode(z)[0], "a random draw", z[0] - self._shifts.get(self.breed, 0))

    def reset(self) -> None:
        """Go back to where the walk began."""
        self.morph(0.0)

    def move(self, k: int, value: float) -> None:
        """Change the coordinate along direction `k` to `value`; the other coordinates stay."""
        self._go_to(self.directions.move(self.z[None], k, value)[0], self.breed)
        self._show_coordinates()

    def slide(self, k: int, place: int) -> None:
        """Move along direction `k` to a place of its slider, 0 to 50."""
        low, high = self.ranges[k]
        self.move(k, low + (high - low) * place / STEPS)

    def morph(self, t: float) -> None:
        """Go between the start (0) and the other dog (1), `t` of the way."""
        self._set(self.morph_slider, round(t * STEPS))
        way, shift = slerp if self.on_sphere.value else lerp, self._shifts.get(self.breed, 0)
        self._go_to(way(self._start + shift, self._target + shift, torch.tensor([t]))[0], self.breed)
        self._fit_ranges()

    def morph_towards_dog(self, i: int) -> None:
        """Make dog `i` the other end of the morph."""
        self._target = encode_images(self.vae, self.dogs[i][None])[0][0]
        self.other.value = png_bytes(self.dogs[i], MEDIUM)

    def choose_breed(self, breed: str | None) -> None:
        """Turn the dog into one of `vae.breeds`, or into any (None); what makes it differ from its breed's mean stays.

        The start and the other dog turn with it. Of a breed that `prior` does not know, the mean is that of all dogs. Raises
        ValueError for a breed that the model does not know.
        """
        self._go_to(self.z - self._shifts.get(self.breed, 0) + self._shifts.get(breed, 0), breed)
        self._set(self.breeds, breed or "any")
        self._fit_ranges()

    def choose_directions(self, page: str) -> None:
        """Let the sliders move along other directions: `page` is one of `pages.options`."""
        self.directions = self._pages[page]
        self._set(self.pages, page)
        for k, row in enumerate(self.rows):
            row.layout.display = "flex" if k < len(self.directions) else "none"
        self._fit_ranges()

    def save(self) -> Path:
        """Save the picture as dog_N.png in `output_dir`, N the first that is free; returns its path."""
        path = next(path for n in count(1) if not (path := self.output_dir / f"dog_{n}.png").exists())
        write_file(path, self.picture.value)
        self.status.value = escape(f"wrote {path.parent.name}/{path.name}")
        return path

    def receive_photo(self, content: dict, buffers: list) -> None:
        """What explorer.js sends. A photo that cannot be used is for the reader to mend, so a sentence tells why."""
        try:
            if not buffers:
                raise ValueError("{size:,} bytes do not fit through the notebook's connection ({limit:,} do)".format(**content))
            self.start_from_photo(bytes(buffers[0]))
        except Exception as error:  # a broken file can make a reader raise anything
            self.status.value = escape(f"{content['name']} was not used: {error}. Nothing was changed.")

    _ipython_display_ = None  # of ipywidgets 7 (Colab), which would show no still picture

    def _repr_mimebundle_(self, **kw) -> tuple[dict, dict]:
        """The widget; and for where no kernel runs, a picture of each slider's way from its low end to its high end."""
        z, d = self.z.expand(5, *self.z.shape), self.directions
        rows = {name: self._decode(d.move(z, k, torch.linspace(*self.ranges[k], 5))) for k, name in enumerate(d.names)}
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        still = {"text/plain": self.title, "image/png": figure_bytes(image_rows(rows, self.title, scale=1.0))}
        alt = f"{self.title}. From top to bottom: {', '.join(rows)}"
        return still | {"application/vnd.jupyter.widget-view+json": view}, {"image/png": {"alt": alt}}

    def _decode(self, z: Tensor) -> Tensor:
        return decode_latents(self.vae, z, breed=self.breed)

    def _start_from(self, image: Tensor, name: str, start: Tensor | None = None) -> None:
        """`_start` and `_target` are as of any breed; what the mean of the chosen one adds is added when they are shown."""
        self._start = encode_images(self.vae, image[None])[0][0] if start is None else start
        self._start_name, self.photo.value = name, png_bytes(image, MEDIUM)
        self.reset()

    def _go_to(self, z: Tensor, breed: str | None) -> None:
        self.picture.value = png_bytes(decode_latents(self.vae, z[None], breed=breed)[0], LARGE)
        self.z, self.breed = z, breed  # only now: should decoding fail, picture and z still belong together
        self.status.value = f"walked <b>{(z - self._shifts.get(breed, 0) - self._start).norm():.2f}</b> from {self._start_name}"

    def _fit_ranges(self) -> None:
        """A slider's ends are the directions' low and high, or `z` where it lies outside."""
        d, here = self.directions, self.directions.coordinates(self.z[None])[0]
        self.ranges = torch.stack([d.low.minimum(here), d.high.maximum(here)], 1).tolist()
        self._show_coordinates()

    def _show_coordinates(self) -> None:
        """Every slider shows where `z` lies on its direction; its two ends are drawn when the hand rests."""
        d = self.directions
        for k, value in enumerate(d.coordinates(self.z[None])[0].tolist()):
            low, high = self.ranges[k]
            self._set(self.sliders[k], round(STEPS * (value - low) / ((high - low) or 1)))
            self.labels[k].value = f"<b>{escape(d.names[k])}</b> {value:.2f} <small>{d.score_name} {d.scores[k]:.2f}</small>"
        if self._timer:
            self._timer.cancel()
        try:
            self._timer = asyncio.get_running_loop().call_later(0.25, self._handle, self._draw_ends)  # seconds
        except RuntimeError:  # no event loop, so no hand that could rest
            self._draw_ends()

    def _draw_ends(self) -> None:
        z, d = self.z[None], self.directions
        images = self._decode(torch.cat([d.move(z, k, end) for k in range(len(d)) for end in self.ranges[k]]))
        for widget, image in zip(self.ends, images, strict=False):
            widget.value = png_bytes(image, SMALL)
