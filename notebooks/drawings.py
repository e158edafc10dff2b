"""What only notebook 02 shows: planes of two latent numbers, two diagrams, a point to drag."""

import base64
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import anywidget
import ipywidgets as widgets
import matplotlib.pyplot as plt
import traitlets
from IPython.display import display
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.text import Text
from torch import Tensor

from vae_helpers.plots import ACCENT, GREY, INK, SECOND, figure_bytes

PANEL = 4.0  # inches
REACH = 4.0  # how far the planes are shown from their middle, at least

Panel = tuple[Tensor, Tensor, Tensor | None]


def planes(panels: Mapping[str, Panel], title: str, colour: str) -> Figure:
    """Dogs as points in the plane, one panel for each label, all of one scale.

    panels: label -> mu (N, 2), the factor that colours the points (N,), sigma (N, 2) or None. With
    sigma only every twelfth dog is shown, with its cloud around it, an ellipse of one sigma.
    colour: what the colours mean. The dashed circle of radius 2 holds
    1 - exp(-2) = 86% of the draws from N(0, I).
    """
    size = (PANEL * len(panels) + 0.6, PANEL + 0.5)
    figure, all_axes = plt.subplots(1, len(panels), figsize=size, dpi=80, layout="constrained")
    plt.close(figure)
    reach = max(REACH, *(1.05 * mu.abs().max().item() for mu, _, _ in panels.values()))
    for axes, (label, (mu, factor, sigma)) in zip(all_axes, panels.items(), strict=True):
        shown = slice(None, None, 1 if sigma is None else 12)
        dots = axes.scatter(*mu[shown].T, c=factor[shown], s=7, cmap="cividis", zorder=2)
        axes.add_patch(plt.Circle((0, 0), 2, fill=False, ls="--", lw=1.5, color=SECOND))
        for middle, width in zip(mu[shown], [] if sigma is None else sigma[shown], strict=False):
            axes.add_patch(Ellipse(middle.tolist(), *(2 * width).tolist(), fill=False, color=INK))
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.set(xlabel="first latent number", ylabel="second latent number")
        axes.set_title(label, fontsize=11)
    figure.colorbar(dots, ax=all_axes, shrink=0.8, label=colour)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    return figure


def _diagram(width: float, height: float, title: str) -> tuple[Figure, plt.Axes]:
    figure, axes = plt.subplots(figsize=(width, height), dpi=80, layout="constrained")
    plt.close(figure)
    axes.set(xlim=(0, 100), ylim=(0, 10 * height), xticks=[], yticks=[], frame_on=False)
    axes.set_title(title, loc="left", fontsize=12, color=INK)
    return figure, axes


def _box(axes: plt.Axes, x: float, y: float, text: str, colour: str = INK) -> Text:
    frame = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": colour, "lw": 1.5}
    centred = {"ha": "center", "va": "center"}
    return axes.text(x, y, text, **centred, fontsize=10, bbox=frame, color=INK, zorder=3)


def _arrow(
    axes: plt.Axes, a: Text, b: Text, colour: str = INK, bend: float = 0, ls: str = "-"
) -> None:
    ends = {"patchA": a.get_bbox_patch(), "patchB": b.get_bbox_patch(), "shrinkA": 2, "shrinkB": 2}
    style = {"arrowstyle": "-|>", "connectionstyle": f"arc3,rad={bend}", "lw": 1.5, "ls": ls}
    props = {"color": colour} | style | ends
    axes.annotate("", b.get_position(), a.get_position(), arrowprops=props)


def architecture() -> Figure:
    """The autoencoder above, the VAE below: what goes in, what comes out, where the loss looks."""
    title = "A VAE is an autoencoder whose latent is drawn from a cloud around the mean"
    figure, axes = _diagram(11, 5, title)
    picture = "3 × 56 × 56"
    axes.text(0, 48, "autoencoder", fontsize=11, weight="bold", color=INK)
    x, encoder = _box(axes, 8, 41, f"x\n{picture}"), _box(axes, 27, 41, "encoder", ACCENT)
    z, decoder = _box(axes, 60, 41, "z"), _box(axes, 77, 41, "decoder", ACCENT)
    x_hat = _box(axes, 93, 41, f"x̂\n{picture}")
    for a, b in pairwise((x, encoder, z, decoder, x_hat)):
        _arrow(axes, a, b)

    axes.text(0, 27, "VAE", fontsize=11, weight="bold", color=INK)
    x, encoder = _box(axes, 8, 18, f"x\n{picture}"), _box(axes, 27, 18, "encoder", ACCENT)
    z, decoder = _box(axes, 60, 18, "z = mu + sigma · eps"), _box(axes, 77, 18, "decoder", ACCENT)
    x_hat, eps = _box(axes, 93, 18, f"x̂\n{picture}"), _box(axes, 60, 29, "eps from N(0, I)", GREY)
    mu, logvar = _box(axes, 41, 24, "mu", SECOND), _box(axes, 41, 12, "logvar", SECOND)
    ways = (x, encoder), (encoder, mu), (encoder, logvar), (mu, z), (logvar, z), (eps, z)
    for a, b in (*ways, (z, decoder), (decoder, x_hat)):
        _arrow(axes, a, b)
    kl = _box(axes, 41, 3, "KL: are mu and sigma far from N(0, I)?", SECOND)
    recon = _box(axes, 88, 3, "recon: is x̂ near x?", SECOND)
    _arrow(axes, logvar, kl, SECOND, ls=":")
    _arrow(axes, x_hat, recon, SECOND, ls=":")
    return figure


def gradient_way() -> Figure:
    """Forward in black, the gradient's way back in orange: cut on the left, open on the right."""
    title = "A direct draw cuts the gradient's way back (orange); mu + sigma · eps leaves it open"
    figure, axes = _diagram(11, 4, title)
    for x, name in ((3, "drawn from N(mu, sigma²)"), (55, "mu + sigma · eps")):
        cut = x == 3
        axes.text(x - 3, 36, name, fontsize=11, weight="bold", color=INK)
        mu, sigma = _box(axes, x, 29, "mu"), _box(axes, x, 11, "sigma")
        z, decoder = _box(axes, x + 18, 20, "z"), _box(axes, x + 29, 20, "decoder", ACCENT)
        loss = _box(axes, x + 41, 20, "loss")
        for a, b in ((mu, z), (sigma, z), (z, decoder), (decoder, loss)):
            _arrow(axes, a, b)
        for a, b in ((loss, decoder), (decoder, z)):
            _arrow(axes, a, b, SECOND, bend=0.6)
        for end, bend in ((mu, 0.4), (sigma, -0.4)):
            _arrow(axes, z, end, SECOND, bend, ls=":" if cut else "-")
        for y in (29, 11) if cut else ():
            where = {"ha": "center", "va": "center", "zorder": 4}
            axes.text(x + 11, y - 0.1 * (y - 20), "✕", fontsize=24, color=SECOND, **where)
    _arrow(axes, _box(axes, 73, 4, "eps from N(0, 1)", GREY), z)
    return figure


class DraggedPoint(anywidget.AnyWidget):
    """A picture of the plane with a point that the mouse, a finger or the arrow keys move.

    picture: a PNG, in base64. x, y: where the point is. reach: the plane is shown from -reach
    to reach both ways.
    """

    _esm = """
    export default { render({ model, el }) {
      const box = document.createElement("div"), dot = document.createElement("div");
      const reach = model.get("reach");
      box.tabIndex = 0;
      box.style.cssText = `position:relative;width:300px;height:300px;touch-action:none;
        cursor:crosshair;background:center/100% url(data:image/png;base64,${model.get("picture")})`;
      dot.style.cssText = `position:absolute;width:12px;height:12px;margin:-8px;border-radius:50%;
        border:2px solid white;background:#d1682f;pointer-events:none`;
      const paint = () => {
        dot.style.left = `${150 * (1 + model.get("x") / reach)}px`;
        dot.style.top = `${150 * (1 - model.get("y") / reach)}px`;
      };
      const move = (x, y) => {
        const inside = (v) => Math.max(-reach, Math.min(reach, v));
        model.set({ x: inside(x), y: inside(y) });
        model.save_changes();
      };
      const drag = (event) => {
        const { left, top } = box.getBoundingClientRect();
        move(reach * ((event.clientX - left) / 150 - 1), reach * (1 - (event.clientY - top) / 150));
      };
      box.onpointerdown = (event) => { box.setPointerCapture(event.pointerId); drag(event); };
      box.onpointermove = (event) => { if (event.buttons) drag(event); };
      box.onkeydown = (event) => {
        const across = { ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
        const by = { ...across, ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
        if (!by) return;
        event.preventDefault();
        event.stopPropagation();
        move(model.get("x") + (by[0] * reach) / 20, model.get("y") + (by[1] * reach) / 20);
      };
      model.on("change:x change:y", paint);
      box.append(dot);
      el.append(box);
      paint();
    } };
    """
    picture = traitlets.Unicode().tag(sync=True)
    x = traitlets.Float(0.0).tag(sync=True)
    y = traitlets.Float(0.0).tag(sync=True)
    reach = traitlets.Float(3.0).tag(sync=True)


def small_plane(mu: Tensor, factor: Tensor, reach: float = 3.0) -> str:
    """The points mu (N, 2) as a picture for `DraggedPoint`. factor: (N,), their colour."""
    figure = plt.figure(figsize=(4, 4), dpi=150)
    plt.close(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.scatter(*mu.T, c=factor, s=8, cmap="cividis")
    axes.add_patch(plt.Circle((0, 0), 2, fill=False, ls="--", lw=1.5, color=SECOND))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[])
    return base64.b64encode(figure_bytes(figure)).decode()


def show_live(
    inputs: Sequence[widgets.Widget], draw: Callable[[], bytes], still: Figure, alt: str
) -> None:
    """Show `inputs` beside the picture that `draw` makes from them; where no kernel runs, `still`.

    draw: returns a PNG; called again whenever a `value`, `x` or `y` of the inputs changes.
    alt: describes the still.
    """
    picture = widgets.Image(value=draw(), format="png", width=300)

    def redraw(_change: object) -> None:
        picture.value = draw()

    for widget in inputs:
        names = [name for name in ("value", "x", "y") if widget.has_trait(name)]
        widget.observe(redraw, names)
    live = widgets.HBox([widgets.VBox(inputs), picture])
    view = {"version_major": 2, "version_minor": 0, "model_id": live.model_id}
    bundle = {"application/vnd.jupyter.widget-view+json": view}
    bundle |= {"image/png": figure_bytes(still), "text/plain": alt}
    display(bundle, raw=True, metadata={"image/png": {"alt": alt}})
