"""How the explorer looks: its widgets, their layout, and what leads from a hand's movement to a method. Knows no model."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import ClassVar
from weakref import WeakSet

import anywidget
import ipywidgets as widgets
import traitlets
from IPython import get_ipython

N_SLIDERS = 8
MAX_UPLOAD = 8_000_000  # bytes; Jupyter's connection breaks at a message of 10 MiB
STEPS = 50  # from a slider's low end to its high one
WAYS = ["on the sphere", "straight"]
ROLES = ["start from it", "morph towards it"]
_LINE = {"align_items": "center", "flex_flow": "row wrap"}


class _Browser(anywidget.AnyWidget):
    """Photo button and clipboard. Sends {"photo": name, "size": bytes} with the file, or without it when it is too large."""

    _esm = Path(__file__).with_name("explorer.js")
    max_bytes = traitlets.Int(MAX_UPLOAD).tag(sync=True)


class ExplorerPanel(widgets.VBox):
    """The parts of `LatentExplorer`, which gives the methods that they call."""

    _open: ClassVar[WeakSet["ExplorerPanel"]] = WeakSet()

    def __init__(self, title: str, pages: Sequence[str]):
        self._quiet = False
        self.picture = _image(392)
        self.photo, self.reconstruction, self.other = _image(112), _image(112), _image(112)
        self.distance = widgets.HTML(layout={"width": "400px"})
        self.message, self.photo_message = widgets.HTML(), widgets.HTML()
        page = widgets.Dropdown(options=pages, layout={"width": "260px"})
        self.pages = self._on_change(page, self.choose_directions)
        self.sliders = [self._slider(lambda place, k=k: self.move(k, self.value_at(k, place))) for k in range(N_SLIDERS)]
        self.ends = [(_image(56), _image(56)) for _ in range(N_SLIDERS)]
        self.labels = [widgets.HTML(layout={"width": "250px"}) for _ in range(N_SLIDERS)]
        self.morph_slider = self._slider(lambda place: self.morph(place / STEPS))
        way = widgets.Dropdown(options=WAYS, layout={"width": "110px"})
        self.way = self._on_change(way, lambda _: self.morph(self.morph_slider.value / STEPS))
        self.role = widgets.ToggleButtons(options=ROLES, style={"button_width": "auto"})
        self.thumbnails = [_image(56) for _ in range(N_SLIDERS)]
        self.pick_buttons = [self._button("", lambda i=i: self.pick(i), 56) for i in range(N_SLIDERS)]
        self.random_button, self.reset_button = self._button("Random", self.random), self._button("Reset", self.reset)
        self.save_button, self.copy_button = self._button("Save PNG", self.save), self._button("Copy latent", self.copy)
        record = widgets.ToggleButton(description="Record", layout={"width": "100px"})
        self.recording = self._on_change(record, lambda on: self.record() if on else self.stop_recording())
        self.browser = _Browser()
        self.browser.on_msg(lambda _, content, buffers: self._shown(self.browser_says)(content, buffers))
        super().__init__(self._arranged(title))
        self.add_class("explorer")  # names for whoever looks at the page: tests, a reader's own style
        for name in ("picture", "distance", "message", "photo_message"):
            getattr(self, name).add_class(f"explorer-{name.replace('_', '-')}")
        self._close_earlier_ones()

    def say(self, text: str, colour: str = "inherit") -> None:
        """Show a sentence below everything."""
        self.message.value = f"<span style='color: {colour}'>{escape(text)}</span>"

    def close(self) -> None:
        """Close every part of it; no comm is left."""
        ExplorerPanel._open.discard(self)
        parts = [self]
        for part in parts:
            parts += getattr(part, "children", ())
        for part in parts:
            for owned in (getattr(part, "layout", None), getattr(part, "style", None)):
                if isinstance(owned, widgets.Widget):
                    owned.close()
            widgets.Widget.close(part)

    @contextmanager
    def quietly(self):
        """What is set in here is shown, but is no hand's movement."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _arranged(self, title: str) -> list[widgets.Widget]:
        began = [(self.photo, "where it began"), (self.reconstruction, "its reconstruction"), (self.other, "morphs towards")]
        below = [widgets.VBox([image, widgets.HTML(text)], layout={"width": "130px"}) for image, text in began]
        left = widgets.VBox([self.picture, self.distance, widgets.HBox(below)])
        parts = zip(self.ends, self.labels, self.sliders, strict=True)
        self.rows = [
            widgets.HBox([low, widgets.VBox([text, bar]), high], layout={"align_items": "center"})
            for (low, high), text, bar in parts
        ]
        label = widgets.HTML("<b>morph</b>", layout={"width": "56px"})
        morph = widgets.HBox([label, self.morph_slider, self.way], layout={"align_items": "center"})
        right = widgets.VBox([self.pages, *self.rows, morph])
        buttons = [self.random_button, self.reset_button, self.browser, self.save_button, self.copy_button, self.recording]
        back, on = self._button("‹", lambda: self.turn(-1), 36), self._button("›", lambda: self.turn(1), 36)
        dogs = [widgets.VBox(pair) for pair in zip(self.thumbnails, self.pick_buttons, strict=True)]
        return [
            widgets.HTML(f"<h3 style='margin: 0'>{escape(title)}</h3>"),
            widgets.HBox([left, right], layout={"flex_flow": "row wrap"}),
            widgets.HBox(buttons, layout=_LINE),
            self.photo_message,
            widgets.HBox([back, *dogs, on, self.role], layout=_LINE),
            self.message,
        ]

    def _slider(self, moved: Callable[[int], None]) -> widgets.IntSlider:
        # Places are whole numbers and ranges never change: told to show anything else, the browser answers with what it
        # rounded that to, and its answer cannot be told from a hand's movement
        return self._on_change(widgets.IntSlider(max=STEPS, readout=False, layout={"width": "230px"}), moved)

    def _button(self, text: str, does: Callable[[], object], width: int = 100) -> widgets.Button:
        button = widgets.Button(description=text, layout={"width": f"{width}px"})
        button.on_click(lambda _: self._moved(does))
        return button

    def _on_change(self, widget: widgets.Widget, does: Callable[[object], object]) -> widgets.Widget:
        widget.observe(lambda change: None if self._quiet else self._moved(does, change.new), "value")
        return widget

    def _moved(self, does: Callable, *event) -> None:
        self.message.value = ""  # it was about an earlier movement
        self._shown(does)(*event)

    def _shown(self, does: Callable) -> Callable:
        """`does`, but an exception in it is also shown where the user is: the frontends would hide it in a log."""

        def handle(*event) -> None:
            try:
                does(*event)
            except Exception as error:
                self.say(f"{type(error).__name__}: {error}", colour="#b00020")
                raise

        return handle

    def _close_earlier_ones(self) -> None:
        """Close what an earlier run of the same cell made, where the frontend says which cell it is."""
        parent = getattr(get_ipython(), "get_parent", dict)()
        self._cell = parent.get("metadata", {}).get("cellId")
        self._run = parent.get("header", {}).get("msg_id")
        for other in list(ExplorerPanel._open):
            if self._cell and other._cell == self._cell and other._run != self._run:
                other.close()
        ExplorerPanel._open.add(self)


def _image(size: int) -> widgets.Image:
    return widgets.Image(layout={"width": f"{size}px", "height": f"{size}px"})
