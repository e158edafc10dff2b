"""Toy dogs: drawn by this file, with factors we know, so that what a model learned can be checked.

Every picture follows from one row of factors alone. `FACTORS` lists them with their ranges; `sample_factors` draws rows,
`draw_dog` paints one, `write_toy_dogs` fills a folder with image files and a `factors.csv`.
"""

import colorsys
import csv
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..files import atomic_write

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
    rng = np.random.default_rng(seed)
    rows = []
    for uniform in rng.random((n, len(FACTORS))):
        row: dict[str, float | str] = {}
        for u, (name, span) in zip(uniform, FACTORS.items(), strict=True):
            if name in CATEGORICAL:
                row[name] = span[int(u * len(span))]
            else:
                row[name] = round(float(span[0] + u * (span[1] - span[0])), 4)
        rows.append(row)
    return rows


def _rgb(hue: float, saturation: float, lightness: float) -> tuple[int, int, int]:
    return tuple(round(255 * c) for c in colorsys.hls_to_rgb(hue, min(max(lightness, 0), 1), saturation))


def _ellipse(x: float, y: float, rx: float, ry: float, power: float = 2.0) -> np.ndarray:
    """Outline of a (super)ellipse, (72, 2): power 2 is round, more is boxier."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([x + rx * np.sign(c) * np.abs(c) ** (2 / power), y + ry * np.sign(s) * np.abs(s) ** (2 / power)], 1)


def _ear(side: int, base: np.ndarray, length: float, point: float, width: float) -> np.ndarray:
    """Outline of one ear, (34, 2): a bent centre line whose tip hangs (point 0) or stands (point 1)."""
    rise = np.array([side * (0.46 - 0.19 * point), -(0.10 + 0.57 * point)]) * length
    lean = np.radians(92 - 177 * point)  # where the tip goes: straight down, outward, then up
    tip = base + rise + np.array([side * np.cos(lean) * (0.60 - 0.40 * point), np.sin(lean)]) * length * 0.85
    t = np.linspace(0, 1, 17)[:, None]
    line = (1 - t) ** 2 * base + 2 * t * (1 - t) * (base + rise) + t**2 * tip
    tangent = np.gradient(line, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1) / np.linalg.norm(tangent, axis=1, keepdims=True)
    round_end = np.sqrt(np.clip(1 - (np.clip(t - 0.55, 0, None) / 0.45) ** 2, 0, 1)) * (0.75 + 0.35 * t)
    taper = (1 - t) ** 0.8 * 1.25
    half_width = width * ((1 - point) * round_end + point * taper)
    return np.concatenate([line + normal * half_width, (line - normal * half_width)[::-1]])


def draw_dog(factors: dict[str, float | str], pixels: int = 112) -> Image.Image:
    """Paint one dog, head and shoulders, as an RGB image of `pixels` x `pixels`.

    factors: one value for every name in `FACTORS`. Raises KeyError for a missing one.
    """
    f = factors
    big = pixels * _DRAWN_AT
    radius = 0.27 * f["size"]
    tilt = np.radians(f["head_tilt"])
    turn_by = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    centre = np.array([0.5 + f["place_x"], 0.46 + f["place_y"]])

    def on_head(outline: np.ndarray) -> list[tuple[float, float]]:  # head coordinates to pixels
        return [tuple(p) for p in (centre + radius * outline @ turn_by) * big]

    def on_body(outline: np.ndarray) -> list[tuple[float, float]]:  # the shoulders do not tilt
        return [tuple(p) for p in (centre + radius * outline) * big]

    hue, light = f["coat_hue"], f["coat_lightness"]
    saturation = 0.52 - 0.20 * abs(light - 0.5)
    coat = _rgb(hue, saturation, light)
    shade = _rgb(hue, saturation, light * 0.80)
    dark = _rgb(hue, saturation, light * 0.58)
    pale = _rgb(hue + 0.01, 0.55, 0.60 + 0.38 * light)
    # a patch is dark on a light coat and light on a dark one
    patch = _rgb(hue, 0.45, light - 0.32) if light > 0.5 else _rgb(hue + 0.01, 0.50, light + 0.26)

    image = Image.new("RGB", (big, big), _rgb(f["background_hue"], 0.42, 0.70))
    draw = ImageDraw.Draw(image)
    draw.polygon([tuple(p * big) for p in _ellipse(0.5, 1.13, 0.95, 0.36)], fill=_rgb(f["background_hue"], 0.34, 0.56))

    turn, w, m = f["head_turn"], f["head_width"], f["muzzle_length"]
    near, far = 0.16 * turn, 0.30 * turn * (0.6 + 0.5 * m)  # what stands out further moves further

    draw.polygon(on_body(_ellipse(-0.10 * turn, 2.05, 1.18, 1.35, 2.6)), fill=shade)
    draw.polygon(on_body(_ellipse(-0.04 * turn, 2.15, 0.55, 1.15)), fill=pale)

    for side in (-1, 1):
        base = np.array([side * w * 0.66 - 0.08 * turn, -0.62])
        ear = _ear(side, base, f["ear_length"], f["ear_point"], 0.34)
        draw.polygon(on_head(ear), fill=dark)
        if f["ear_point"] > 0.35:  # the inside of an ear shows once it stands
            inner = base + (ear - base) * (0.30 + 0.35 * f["ear_point"]) + np.array([0, -0.06])
            draw.polygon(on_head(inner), fill=_rgb(0.02, 0.40, 0.45 + 0.30 * light))
    head = _ellipse(0, 0, w, 0.98, 2.35)
    head[:, 0] *= 1 + 0.10 * head[:, 1]  # cheeks
    draw.polygon(on_head(head), fill=coat)
    for side in (-1, 1):  # floppy ears hang over the head: the same ear again, faded in by how floppy it is
        if f["ear_point"] < 0.5:
            base = np.array([side * w * 0.72 - 0.08 * turn, -0.66])
            draw.polygon(on_head(_ear(side, base, f["ear_length"], f["ear_point"], 0.32)), fill=dark)

    eye_y, eye_x = -0.16, 0.40 * w
    mask = Image.new("L", (big, big))
    ImageDraw.Draw(mask).polygon(on_head(head * 0.985), fill=255)
    painted = image.copy()
    for name, side in (("left", -1), ("right", 1)):
        if f["patch"] in (name, "both"):
            outline = _ellipse(side * (eye_x + 0.05) + near, eye_y - 0.06, 0.34, 0.42)
            ImageDraw.Draw(painted).polygon(on_head(outline), fill=patch)
    image.paste(painted, mask=mask)
    draw = ImageDraw.Draw(image)

    muzzle_y = 0.40 + 0.14 * m
    draw.polygon(on_head(_ellipse(0.7 * near, -0.42, 0.13, 0.55)), fill=pale)  # the blaze
    if f["tongue"] == "out":
        draw.polygon(on_head(_ellipse(far, muzzle_y + 0.47, 0.19, 0.34, 2.6)), fill=(226, 98, 120))
        draw.polygon(on_head(_ellipse(far, muzzle_y + 0.45, 0.02, 0.26)), fill=(186, 66, 92))
    draw.polygon(on_head(_ellipse(far * 0.8, muzzle_y, 0.50 + 0.04 * m, 0.36 + 0.10 * m, 2.2)), fill=pale)

    ink = (36, 26, 28)
    nose_y = muzzle_y - 0.16 - 0.02 * m
    line = max(1, round(radius * big * 0.055))
    draw.line(on_head(np.array([[far, nose_y], [far, muzzle_y + 0.17]])), fill=ink, width=line)
    for side in (-1, 1):  # the mouth, two arcs below the nose
        a = np.linspace(0, np.pi * 0.85, 12)
        arc = np.stack([far + side * 0.17 * (1 - np.cos(a)), muzzle_y + 0.13 + 0.11 * np.sin(a)], 1)
        draw.line(on_head(arc), fill=ink, width=line, joint="curve")
    nose = _ellipse(far, nose_y, 0.21, 0.145, 2.6)
    nose[:, 0] = far + (nose[:, 0] - far) * (1 - 1.3 * (nose[:, 1] - nose_y))
    draw.polygon(on_head(nose), fill=ink)
    draw.polygon(on_head(_ellipse(far - 0.06, nose_y - 0.06, 0.07, 0.03)), fill=(132, 122, 126))

    for side in (-1, 1):
        squeeze = 1 - 0.22 * max(0.0, side * turn)  # the far eye looks narrower
        x = side * eye_x + near
        size = f["eye_size"]
        draw.polygon(on_head(_ellipse(x, eye_y, size * 1.30 * squeeze, size * 1.35)), fill=dark)
        draw.polygon(on_head(_ellipse(x, eye_y, size * 1.12 * squeeze, size * 1.15)), fill=(250, 246, 240))
        x += 0.25 * size * turn
        draw.polygon(on_head(_ellipse(x, eye_y, size * 0.95 * squeeze, size * 1.02)), fill=(88, 52, 30))
        draw.polygon(on_head(_ellipse(x, eye_y, size * 0.62 * squeeze, size * 0.68)), fill=(18, 12, 14))
        glint = _ellipse(x - 0.35 * size, eye_y - 0.38 * size, size * 0.30, size * 0.30)
        draw.polygon(on_head(glint), fill=(255, 255, 255))

    small = np.asarray(image.resize((pixels, pixels), Image.Resampling.BOX), dtype=np.float32)
    across, down = np.meshgrid(np.linspace(-1, 1, pixels), np.linspace(-1, 1, pixels))
    lit = 1.0 + 0.26 * f["light"] * across - 0.08 * down
    return Image.fromarray(np.clip(small * lit[..., None], 0, 255).astype(np.uint8))


def write_toy_dogs(folder: str | Path, n: int = 4096, seed: int = 0, pixels: int = 112) -> list[Path]:
    """Draw `n` dogs into `folder` as `toy_00000.png` … with their factors in `factors.csv`; returns the image paths.

    Pictures that are there already are kept when `factors.csv` shows that they are the same dogs, so calling this
    again is cheap and an interrupted run goes on where it stopped. Needs about 13 KB a dog at 112 pixels.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"file": f"toy_{i:05d}.png"} | row for i, row in enumerate(sample_factors(n, seed))]
    listing = folder / "factors.csv"
    wanted = [{name: str(value) for name, value in row.items()} for row in rows]
    if not (
        listing.exists() and _read_rows(listing) == wanted and _drawn_pixels(folder) in (None, pixels)
    ):  # the list first: whatever is drawn after it belongs to it
        for old in folder.glob("toy_*.png"):
            old.unlink()
        _write_rows(listing, rows)

    def draw(row: dict) -> Path:
        path = folder / row["file"]
        if not path.exists():
            with atomic_write(path) as partial:
                draw_dog(row, pixels).save(partial, format="PNG", compress_level=1)
        return path

    with ThreadPoolExecutor() as pool:
        return list(pool.map(draw, rows))


def read_factors(folder: str | Path) -> dict[str, dict[str, float | str]]:
    """The factors that `write_toy_dogs` left in `folder`: file name -> factor name -> value."""
    rows = _read_rows(Path(folder) / "factors.csv")
    return {row["file"]: {name: row[name] if name in CATEGORICAL else float(row[name]) for name in FACTORS} for row in rows}


def _drawn_pixels(folder: Path) -> int | None:
    """The size of the pictures that are in the folder; None when there is none."""
    for path in folder.glob("toy_*.png"):
        with Image.open(path) as image:
            return image.width
    return None


def _read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write_rows(path: Path, rows: Iterable[dict]) -> None:
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["file", *FACTORS])
        writer.writeheader()
        writer.writerows(rows)
