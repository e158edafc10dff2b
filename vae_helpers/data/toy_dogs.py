"""Toy dogs: drawn by this file, with factors we know, so that what a model learned can be checked.

Every picture follows from one row of factors alone. `FACTORS` lists them with their ranges; `sample_factors` draws rows,
`draw_dog` paints one, `write_toy_dogs` fills a folder with image files and a `factors.csv`.
"""

import colorsys
import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..files import atomic_write, write_file

# name: (lowest, highest) for a continuous factor, a tuple of words for a categorical one. Lengths are in head radii
# unless said otherwise; "left" and "right" are the viewer's.
FACTORS: dict[str, tuple] = {
    "head_width": (0.86, 1.16),
    "ear_length": (0.65, 1.25),
    "ear_point": (0.0, 1.0),  # 0 floppy, 1 pointed
    "muzzle_length": (0.0, 1.0),  # 0 flat-faced, 1 long
    "coat_hue": (0.045, 0.115),  # on the colour circle: red-brown to gold
    "coat_lightness": (0.22, 0.80),
    "eye_size": (0.10, 0.17),
    "head_tilt": (-18.0, 18.0),  # degrees, clockwise
    "head_turn": (-1.0, 1.0),  # looks left to looks right
    "size": (0.85, 1.15),  # 1: the head's radius is 0.27 of the picture
    "place_x": (-0.08, 0.08),  # of the picture's width, from its middle
    "place_y": (-0.05, 0.07),
    "background_hue": (0.25, 0.80),  # green, blue, violet
    "light": (-1.0, 1.0),  # lit from the left to lit from the right
    "patch": ("none", "left", "right", "both"),  # a patch over the eye
    "tongue": ("in", "out"),
}
CONTINUOUS = [name for name, span in FACTORS.items() if not isinstance(span[0], str)]
CATEGORICAL = [name for name in FACTORS if name not in CONTINUOUS]

_DRAWN_AT = 3  # drawn this many times larger, then averaged down: that is the antialiasing


def sample_factors(n: int, seed: int = 0) -> list[dict[str, float | str]]:
    """Draw `n` dogs' factors, each factor uniform over its range and independent of the others.

    The first rows do not depend on `n`. Continuous values are rounded to 4 digits, as `factors.csv` holds them.
    """
    uniform = np.random.default_rng(seed).random((n, len(FACTORS)))
    return [{name: _value(u, span) for u, (name, span) in zip(row, FACTORS.items(), strict=True)} for row in uniform]


def _value(u: float, span: tuple) -> float | str:
    """What is at `u`, from 0 to 1, of a factor's range or words."""
    return span[int(u * len(span))] if isinstance(span[0], str) else round(float(span[0] + u * (span[1] - span[0])), 4)


def _rgb(hue: float, saturation: float, lightness: float) -> tuple[int, int, int]:
    return tuple(round(255 * c) for c in colorsys.hls_to_rgb(hue, min(max(lightness, 0), 1), saturation))


def _ellipse(x: float, y: float, rx: float, ry: float, power: float = 2.0) -> np.ndarray:
    """Outline of a (super)ellipse, (72, 2): power 2 is round, more is boxier."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([x + rx * np.sign(c) * np.abs(c) ** (2 / power), y + ry * np.sign(s) * np.abs(s) ** (2 / power)], 1)


def draw_dog(factors: dict[str, float | str], pixels: int = 112) -> Image.Image:
    """Paint one dog, head and shoulders, as an RGB image of `pixels` x `pixels`.

    factors: one value for every name in `FACTORS`. Raises KeyError for a missing one.
    """
    painter = _Painter(factors, pixels * _DRAWN_AT)
    painter.paint_body_and_head()
    painter.paint_patches()
    painter.paint_muzzle()
    painter.paint_eyes()
    small = np.asarray(painter.image.resize((pixels, pixels), Image.Resampling.BOX), dtype=np.float32)
    across, down = np.meshgrid(np.linspace(-1, 1, pixels), np.linspace(-1, 1, pixels))
    lit = 1.0 + 0.26 * factors["light"] * across - 0.08 * down
    return Image.fromarray(np.clip(small * lit[..., None], 0, 255).astype(np.uint8))


class _Painter:
    """Paints the parts of a dog, back to front. Its coordinates are the head's: the middle is (0, 0), the radius 1."""

    def __init__(self, factors: dict[str, float | str], size: int) -> None:
        self.f = f = factors
        self.size = size
        self.radius, tilt = 0.27 * f["size"], np.radians(f["head_tilt"])
        self.tilted = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
        self.centre = np.array([0.5 + f["place_x"], 0.46 + f["place_y"]])
        self.turn, self.eye_x, self.eye_y = f["head_turn"], 0.40 * f["head_width"], -0.16
        # what stands out further moves further when the head turns
        self.near, self.far = 0.16 * self.turn, 0.30 * self.turn * (0.6 + 0.5 * f["muzzle_length"])
        hue, light = f["coat_hue"], f["coat_lightness"]
        self.coat, self.shade, self.dark = (_rgb(hue, 0.52 - 0.20 * abs(light - 0.5), light * by) for by in (1, 0.80, 0.58))
        self.pale = _rgb(hue + 0.01, 0.55, 0.60 + 0.38 * light)
        self.image = Image.new("RGB", (size, size), _rgb(f["background_hue"], 0.42, 0.70))

    def place(self, outline: np.ndarray, tilted: bool = True) -> list[tuple[float, float]]:
        """Head coordinates to pixels; the shoulders do not tilt with the head."""
        outline = self.radius * outline @ self.tilted if tilted else self.radius * outline
        return [tuple(point) for point in (self.centre + outline) * self.size]

    def polygon(self, outline: np.ndarray, fill: tuple[int, int, int], tilted: bool = True) -> None:
        ImageDraw.Draw(self.image).polygon(self.place(outline, tilted), fill=fill)

    def line(self, points: np.ndarray, fill: tuple[int, int, int]) -> None:
        width = max(1, round(self.radius * self.size * 0.055))
        ImageDraw.Draw(self.image).line(self.place(points), fill=fill, width=width, joint="curve")

    def paint_body_and_head(self) -> None:
        f, turn = self.f, self.turn
        floor = [tuple(point * self.size) for point in _ellipse(0.5, 1.13, 0.95, 0.36)]
        ImageDraw.Draw(self.image).polygon(floor, fill=_rgb(f["background_hue"], 0.34, 0.56))
        self.polygon(_ellipse(-0.10 * turn, 2.05, 1.18, 1.35, 2.6), self.shade, tilted=False)
        self.polygon(_ellipse(-0.04 * turn, 2.15, 0.55, 1.15), self.pale, tilted=False)
        for side in (-1, 1):
            base, ear = self.ear(side, 0.66, -0.62, 0.34)
            self.polygon(ear, self.dark)
            if f["ear_point"] > 0.35:  # the inside of an ear shows once it stands
                inner = base + (ear - base) * (0.30 + 0.35 * f["ear_point"]) + np.array([0, -0.06])
                self.polygon(inner, _rgb(0.02, 0.40, 0.45 + 0.30 * f["coat_lightness"]))
        self.polygon(self.head(), self.coat)
        if f["ear_point"] < 0.5:  # floppy ears hang over the head
            for side in (-1, 1):
                self.polygon(self.ear(side, 0.72, -0.66, 0.32)[1], self.dark)

    def head(self) -> np.ndarray:
        outline = _ellipse(0, 0, self.f["head_width"], 0.98, 2.35)
        outline[:, 0] *= 1 + 0.10 * outline[:, 1]  # cheeks
        return outline

    def ear(self, side: int, x: float, y: float, width: float) -> tuple[np.ndarray, np.ndarray]:
        """Where an ear is attached, and its outline, (34, 2): a bent centre line whose tip hangs (ear_point 0) or stands."""
        base = np.array([side * self.f["head_width"] * x - 0.08 * self.turn, y])
        length, point = self.f["ear_length"], self.f["ear_point"]
        rise = np.array([side * (0.46 - 0.19 * point), -(0.10 + 0.57 * point)]) * length
        lean = np.radians(92 - 177 * point)  # where the tip goes: straight down, outward, then up
        tip = base + rise + np.array([side * np.cos(lean) * (0.60 - 0.40 * point), np.sin(lean)]) * length * 0.85
        t = np.linspace(0, 1, 17)[:, None]
        line = (1 - t) ** 2 * base + 2 * t * (1 - t) * (base + rise) + t**2 * tip
        tangent = np.gradient(line, axis=0)
        normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1) / np.linalg.norm(tangent, axis=1, keepdims=True)
        round_end = np.sqrt(np.clip(1 - (np.clip(t - 0.55, 0, None) / 0.45) ** 2, 0, 1)) * (0.75 + 0.35 * t)
        half_width = width * ((1 - point) * round_end + point * (1 - t) ** 0.8 * 1.25)
        return base, np.concatenate([line + normal * half_width, (line - normal * half_width)[::-1]])

    def paint_patches(self) -> None:
        hue, light, bare = self.f["coat_hue"], self.f["coat_lightness"], self.image.copy()
        # dark on a light coat and light on a dark one
        colour = _rgb(hue, 0.45, light - 0.32) if light > 0.5 else _rgb(hue + 0.01, 0.50, light + 0.26)
        for name, side in (("left", -1), ("right", 1)):
            if self.f["patch"] in (name, "both"):
                self.polygon(_ellipse(side * (self.eye_x + 0.05) + self.near, self.eye_y - 0.06, 0.34, 0.42), colour)
        on_head = Image.new("L", bare.size)
        ImageDraw.Draw(on_head).polygon(self.place(self.head() * 0.985), fill=255)
        self.image = Image.composite(self.image, bare, on_head)

    def paint_muzzle(self) -> None:
        m, far = self.f["muzzle_length"], self.far
        y, ink = 0.40 + 0.14 * m, (36, 26, 28)
        self.polygon(_ellipse(0.7 * self.near, -0.42, 0.13, 0.55), self.pale)  # the blaze
        if self.f["tongue"] == "out":
            self.polygon(_ellipse(far, y + 0.47, 0.19, 0.34, 2.6), (226, 98, 120))
            self.polygon(_ellipse(far, y + 0.45, 0.02, 0.26), (186, 66, 92))
        self.polygon(_ellipse(far * 0.8, y, 0.50 + 0.04 * m, 0.36 + 0.10 * m, 2.2), self.pale)
        nose_y = y - 0.16 - 0.02 * m
        self.line(np.array([[far, nose_y], [far, y + 0.17]]), ink)
        a = np.linspace(0, np.pi * 0.85, 12)
        for side in (-1, 1):  # the mouth, two arcs below the nose
            self.line(np.stack([far + side * 0.17 * (1 - np.cos(a)), y + 0.13 + 0.11 * np.sin(a)], 1), ink)
        nose = _ellipse(far, nose_y, 0.21, 0.145, 2.6)
        nose[:, 0] = far + (nose[:, 0] - far) * (1 - 1.3 * (nose[:, 1] - nose_y))
        self.polygon(nose, ink)
        self.polygon(_ellipse(far - 0.06, nose_y - 0.06, 0.07, 0.03), (132, 122, 126))

    def paint_eyes(self) -> None:
        size, y = self.f["eye_size"], self.eye_y
        for side in (-1, 1):
            squeeze = 1 - 0.22 * max(0.0, side * self.turn)  # the far eye looks narrower
            x = side * self.eye_x + self.near
            self.polygon(_ellipse(x, y, size * 1.30 * squeeze, size * 1.35), self.dark)
            self.polygon(_ellipse(x, y, size * 1.12 * squeeze, size * 1.15), (250, 246, 240))
            x += 0.25 * size * self.turn
            self.polygon(_ellipse(x, y, size * 0.95 * squeeze, size * 1.02), (88, 52, 30))
            self.polygon(_ellipse(x, y, size * 0.62 * squeeze, size * 0.68), (18, 12, 14))
            self.polygon(_ellipse(x - 0.35 * size, y - 0.38 * size, size * 0.30, size * 0.30), (255, 255, 255))


def write_toy_dogs(folder: str | Path, n: int = 4096, seed: int = 0) -> list[Path]:
    """Draw `n` dogs into `folder` as `toy_00000.png` … with their factors in `factors.csv`; returns the image paths.

    Pictures that are there already are kept when `factors.csv` shows that they are the same dogs, so calling this
    again is cheap and an interrupted run goes on where it stopped. A picture is 112 x 112 pixels, about 13 KB.
    """
    folder, rows = Path(folder), sample_factors(n, seed)
    paths = [folder / f"toy_{i:05d}.png" for i in range(n)]
    lines = [["file", *FACTORS], *([path.name, *row.values()] for path, row in zip(paths, rows, strict=True))]
    listing, wanted = folder / "factors.csv", "".join(",".join(map(str, line)) + "\r\n" for line in lines).encode()
    if not (listing.exists() and listing.read_bytes() == wanted):
        for old in folder.glob("toy_*.png"):
            old.unlink()
        write_file(listing, wanted)  # first: whatever is drawn after it belongs to it
    for path, row in zip(paths, rows, strict=True):
        if not path.exists():
            with atomic_write(path) as partial:
                draw_dog(row).save(partial, format="PNG", compress_level=1)
    return paths


def read_factors(folder: str | Path) -> dict[str, dict[str, float | str]]:
    """The factors that `write_toy_dogs` left in `folder`: file name -> factor name -> value."""
    with (Path(folder) / "factors.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {row["file"]: {name: row[name] if name in CATEGORICAL else float(row[name]) for name in FACTORS} for row in rows}
