"""How the explorer looks: its controls, where they stand, and the method that each of them calls. Knows no model."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import anywidget
import ipywidgets as widgets

N_SLIDERS, STEPS = 8, 50  # at a time; from a slider's low end to its high end
LARGE, MEDIUM, SMALL = 392, 112, 56  # pixels across the pictures


class _PhotoButton(anywidget.AnyWidget):
    """Sends {"name": of the file, "size": and "limit": in bytes}, and the file as a buffer unless it is above the limit."""

    _esm = Path(__file__).with_name("explorer.js")


class ExplorerPanel(widgets.VBox):
    """The controls of `LatentExplorer`, which has the methods that they call."""

    def __init__(self, title: str, pages: Sequence[str], breeds: Sequence[str], n_dogs: int):
        self._quiet = False
        # Class names are for tests, and for a reader's own style
        self.picture, self.status = _image(LARGE).add_class("explorer-picture"), widgets.HTML().add_class("explorer-status")
        self.photo, self.other = _image(MEDIUM), _image(MEDIUM)
        hidden = {} if breeds else {"display": "none"}
        self.breeds = widgets.Dropdown(options=["any", *breeds], description="breed", layout=hidden)
        self._on_change(self.breeds, lambda breed: self.choose_breed(breed if breed in breeds else None))
        self.pages = self._on_change(widgets.Dropdown(options=pages), self.choose_directions)
        self.sliders = [self._slider(lambda place, k=k: self.slide(k, place)) for k in range(N_SLIDERS)]
        self.labels = [widgets.HTML(layout={"width": "250px"}) for _ in range(N_SLIDERS)]
        self.ends = [_image(SMALL) for _ in range(2 * N_SLIDERS)]  # low and high, slider by slider
        self.morph_slider = self._slider(lambda place: self.morph(place / STEPS))
        on_sphere = widgets.Checkbox(value=True, description="on the sphere", indent=False, layout={"width": "120px"})
        self.on_sphere = self._on_change(on_sphere, lambda _: self.morph(self.morph_slider.value / STEPS))
        self.sheet = widgets.Image(layout={"max_width": f"{11 * SMALL}px"})
        self.number = widgets.BoundedIntText(max=n_dogs - 1, layout={"width": "80px"})
        self.upload = _PhotoButton()
        self.upload.on_msg(lambda _, content, buffers: self.receive_photo(content, buffers))
        below = [widgets.VBox([self.photo, widgets.HTML("start")]), widgets.VBox([self.other, widgets.HTML("morph towards")])]
        left = widgets.VBox([self.picture, self.status, widgets.HBox(below)])
        controls = zip(self.ends[::2], self.labels, self.sliders, self.ends[1::2], strict=True)
        self.rows = [widgets.HBox([low, widgets.VBox([label, slider]), high]) for low, label, slider, high in controls]
        morph = widgets.HBox([widgets.HTML("<b>morph</b>"), self.morph_slider, self.on_sphere])
        start = self._button("Start from it", lambda: self.start_from_dog(self.number.value))
        towards = self._button("Morph towards it", lambda: self.morph_towards_dog(self.number.value))
        buttons = [self._button(*b) for b in (("Random", self.random), ("Reset", self.reset), ("Save PNG", self.save))]
        parts = [
            widgets.HTML(f"<h3>{escape(title)}</h3>"),
            widgets.HBox([left, widgets.VBox([self.breeds, self.pages, *self.rows, morph])], layout={"flex_flow": "row wrap"}),
            widgets.HBox([*buttons, self.upload]),
            self.sheet,
            widgets.HBox([widgets.HTML("dog number"), self.number, start, towards]),
        ]
        super().__init__(parts)
        self.add_class("explorer")

    def _slider(self, moved: Callable[[int], None]) -> widgets.IntSlider:
        # Places are whole numbers and ranges never change: told to show anything else, the browser answers with what it
        # rounded that to, and its answer cannot be told from a hand's movement
        return self._on_change(widgets.IntSlider(max=STEPS, readout=False, layout={"width": "230px"}), moved)

    def _button(self, text: str, does: Callable[[], object]) -> widgets.Button:
        button = widgets.Button(description=text)
        button.on_click(lambda _: self._handle(does))
        return button

    def _on_change(self, widget: widgets.Widget, does: Callable[[object], object]) -> widgets.Widget:
        widget.observe(lambda change: None if self._quiet else self._handle(does, change.new), "value")
        return widget

    def _handle(self, does: Callable, *event) -> None:
        """Do what a hand asks for; an exception is shown where the reader is, too: frontends would hide it in a log."""
        try:
            does(*event)
        except Exception as error:
            self.status.value = escape(f"{type(error).__name__}: {error}")
            raise

    def _set(self, widget: widgets.Widget, value: object) -> None:
        """Let a control show a value without calling its method."""
        self._quiet = True
        widget.value = value
        self._quiet = False


def _image(size: int) -> widgets.Image:
    return widgets.Image(layout={"width": f"{size}px", "height": f"{size}px"})
