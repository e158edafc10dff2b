"""Slow check (`make check`): the explorer of notebook 05 under a hand, in JupyterLab in a real browser. Needs Chromium."""

import numpy as np
import pytest
from lab_and_browser import ROOT, Lab, chromium, keep_screenshot, open_notebook, run_all_cells
from PIL import Image

from vae_helpers.data import toy_dogs

pytestmark = pytest.mark.slow
CHAPTER = "05_latent_walk.ipynb"
PIXELS = """() => {
    const image = document.querySelector('.explorer-picture');
    const canvas = document.createElement('canvas');
    canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    return canvas.toDataURL('image/png');
}"""


class Hand:
    """A reader's hand on the explorer that the page shows."""

    def __init__(self, page):
        self.page = page

    def sees(self) -> str:
        """The large picture's pixels, once they have not changed for a while."""
        before = None
        self.page.wait_for_timeout(300)  # a frame may be on its way
        for _ in range(100):
            now = self.page.evaluate(PIXELS)
            if now == before:
                return now
            before = now
            self.page.wait_for_timeout(300)
        raise TimeoutError("the picture never comes to rest")

    def presses(self, key: str, slider: int, times: int = 5) -> None:
        handle = self.page.locator(".explorer .noUi-handle").nth(slider)
        handle.focus()
        for _ in range(times):
            self.page.keyboard.press(key)

    def clicks(self, text: str) -> None:
        self.page.locator(".explorer").get_by_role("button", name=text, exact=True).click()

    def waits_for(self, text: str) -> None:
        """Until the line of status says `text`."""
        told = "text => document.querySelector('.explorer-status').innerText.includes(text)"
        self.page.wait_for_function(told, arg=text)

    def uploads(self, path) -> None:
        self.page.locator(".explorer input[type=file]").set_input_files(str(path))

    def reads(self) -> str:
        return self.page.locator(".explorer-status").inner_text()


@pytest.fixture(scope="module")
def hand(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explorer")
    lab = Lab(folder)
    lab.bring(ROOT / "notebooks" / CHAPTER)
    with chromium() as browser:
        page, complaints = open_notebook(lab, browser, CHAPTER, height=1100)
        run_all_cells(lab, page, CHAPTER)
        page.evaluate("""async () => {
            const notebook = window.jupyterapp.shell.currentWidget.content;
            const shown = cell => cell.model.sharedModel.getSource().includes('explorer = LatentExplorer(');
            const index = notebook.widgets.findIndex(shown);
            if (index < 0) throw new Error('no cell makes an explorer');
            notebook.activeCellIndex = index;
            await notebook.scrollToItem(index, 'start');
        }""")
        page.wait_for_selector(".explorer .noUi-handle", timeout=60_000)
        page.locator(".explorer").scroll_into_view_if_needed()
        yield Hand(page)
        keep_screenshot(page, "explorer_last")
        page.close()
    assert lab.end() in (0, -15)
    assert not complaints


def test_a_hand_walks_and_finds_its_way_back(hand, tmp_path):
    start = hand.sees()
    keep_screenshot(hand.page, "explorer")
    seen = [start]
    for slider in (0, 1, 2):
        hand.presses("ArrowRight", slider)
        hand.presses("ArrowLeft", slider, 2)
        seen.append(hand.sees())
        assert seen[-1] != seen[-2], f"slider {slider} does not change the picture"
    assert "walked 0.00" not in hand.reads()
    keep_screenshot(hand.page, "explorer_walked")
    hand.clicks("Reset")
    assert hand.sees() == start
    assert "walked 0.00" in hand.reads()


def test_random_and_morph_lead_elsewhere_and_reset_back(hand):
    start = hand.sees()
    hand.presses("End", 8)  # the morph slider, to its end
    other = hand.sees()
    assert other != start
    hand.presses("Home", 8)
    assert hand.sees() == start
    hand.clicks("Random")
    drawn = hand.sees()
    assert drawn != start and drawn != other
    hand.presses("Home", 0)
    low_end = hand.sees()
    hand.presses("End", 0)
    assert hand.sees() != low_end
    hand.clicks("Reset")
    assert hand.sees() == drawn


def test_a_photo_is_taken_and_what_is_none_is_named(hand, tmp_path):
    dog, text = tmp_path / "my dog.png", tmp_path / "notes.png"
    toy_dogs.draw_dog(toy_dogs.sample_factors(1, seed=99)[0], 200).save(dog)
    text.write_text("not a picture")
    before = hand.sees()
    hand.uploads(dog)
    hand.waits_for("your photo")
    mine = hand.sees()
    assert mine != before
    hand.uploads(text)
    hand.waits_for("notes.png was not used")
    assert hand.sees() == mine


def test_a_photo_too_large_for_the_connection_is_refused_and_the_connection_holds(hand, tmp_path):
    large = tmp_path / "large.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (2200, 2200, 3), dtype=np.uint8)).save(large, compress_level=0)
    before = hand.sees()
    hand.uploads(large)
    hand.waits_for("large.png was not used")
    assert "bytes do not fit" in hand.reads()
    assert hand.sees() == before
    hand.presses("Home", 0)
    hand.presses("ArrowRight", 0)
    assert hand.sees() != before


def test_a_fast_run_of_keys_ends_at_the_last_of_them(hand):
    """Frames of a fast drag are dropped, never queued: soon after the last key the picture is that of the last place."""
    hand.clicks("Reset")
    hand.presses("Home", 1, 1)
    hand.sees()
    hand.presses("ArrowRight", 1, 40)
    hand.page.wait_for_timeout(1000)  # 40 frames in a queue would take more than twice that
    soon = hand.page.evaluate(PIXELS)
    assert soon == hand.sees()


def test_the_picture_follows_the_mouse_while_it_drags(hand):
    hand.clicks("Reset")
    before = hand.sees()
    box = hand.page.locator(".explorer .noUi-handle").nth(1).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    middle = hand.page.locator(".explorer .noUi-target").nth(1).bounding_box()
    towards = 1 if x < middle["x"] + middle["width"] / 2 else -1
    mouse = hand.page.mouse
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 40 * towards, y, steps=10)
    halfway = hand.sees()
    mouse.move(x + 80 * towards, y, steps=10)
    further = hand.sees()
    mouse.up()
    assert halfway != before and further != halfway
    assert hand.sees() == further


def test_a_dog_is_picked_by_its_number_and_the_picture_is_saved(hand):
    hand.clicks("Reset")
    before = hand.sees()
    hand.page.locator(".explorer input[type=number]").fill("7")
    hand.page.keyboard.press("Tab")
    hand.clicks("Start from it")
    hand.waits_for("from dog 7")
    assert hand.sees() != before
    hand.clicks("Save PNG")
    hand.waits_for("wrote outputs/dog_")
