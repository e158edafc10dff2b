"""Slow checks (`make check`): the explorer's web pages under a hand, in a browser. Needs Chromium and Node.js."""

import base64
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from lab_and_browser import ROOT, keep_screenshot
from PIL import Image

from vae_helpers import load_pretrained, load_prior
from vae_helpers.data import NoHead, decode_image
from vae_helpers.models import decode_latents, encode_images, to_uint8

pytestmark = pytest.mark.slow
EXPLORER = ROOT / "docs/site/explorer"
UNIT = 2048  # steps of a latent's number in a link, as in explorer.js
SIZES = {"phone": (390, 844), "desktop": (1440, 900)}
PIXELS = """() => {
    const canvas = document.getElementById('picture');
    return Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data);
}"""
FIRST_PICTURE = """
new MutationObserver(() => { if (document.querySelector('#picture[data-frame]')) window.firstPicture ??= Date.now(); })
    .observe(document, {subtree: true, attributes: true, attributeFilter: ['data-frame']});
"""
WATCH = """() => {
    window.latencies = []; let asked = null;
    document.addEventListener('input', event => { asked ??= event.timeStamp; }, true);
    new MutationObserver(() => requestAnimationFrame(() => setTimeout(() => {
        if (asked !== null) window.latencies.push(performance.now() - asked);
        asked = null;
    }))).observe(document.getElementById('picture'), {attributeFilter: ['data-frame']});
}"""


class Server(ThreadingHTTPServer):
    """Serves a folder on this machine, with nothing but what any server sends; `asked` is what it was asked for."""

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.asked: list[str] = []
        self.asked_at: dict[str, float] = {}  # since the epoch
        self.address = f"http://127.0.0.1:{self.server_port}/some/where/explorer/"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def end(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        self.server.asked.append(self.path)
        self.server.asked_at.setdefault(self.path, time.time())


class Hand:
    """A visitor's hand on a page, and what it sees. place: the page's folder, below that of `heads`."""

    def __init__(self, browser, server: Server, place: str = "", **options):
        self.server, self.place, self.complaints = server, place, []
        self.context = browser.new_context(**{"viewport": {"width": 390, "height": 844}} | options)
        self.context.set_default_timeout(120_000)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None)
        self.page.on(
            "request", lambda r: None if r.url.startswith((server.address, "blob:")) else self.complaints.append(r.url)
        )

    def opens(self, link: str = "") -> float:
        """Load the page; the seconds until the first picture."""
        started = time.perf_counter()
        self.page.goto(self.server.address + self.place + link)
        self.page.wait_for_selector("#picture[data-frame]")
        return time.perf_counter() - started

    def waits_until_all_is_there(self) -> None:
        self.page.wait_for_selector("body[data-ready]")
        self.page.evaluate("navigator.serviceWorker.ready.then(() => true)")

    def sees(self) -> np.ndarray:
        """The picture, (S, S, 3), once it has come to rest."""
        before = None
        for _ in range(200):
            self.page.wait_for_selector("#picture[aria-busy=false]")
            now = self.page.get_attribute("#picture", "data-frame"), self.page.url
            if now == before:
                pixels = np.array(self.page.evaluate(PIXELS), dtype=np.uint8)
                side = round((len(pixels) / 4) ** 0.5)
                return pixels.reshape(side, side, 4)[..., :3]
            before = now
            self.page.wait_for_timeout(600)  # the address follows 300 ms after the picture
        raise TimeoutError("the picture never comes to rest")

    def latent(self) -> np.ndarray:
        """What the address holds."""
        text = self.page.url.rpartition(".")[2]
        return np.frombuffer(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), dtype="<i2") / UNIT

    def label(self) -> int:
        """Of the breed that the dog is drawn as, what the address holds."""
        return int(self.page.url.rpartition("#")[2].split(".")[2])

    def goes_to(self, z: np.ndarray) -> np.ndarray:
        """Follow the link of a latent; what it shows."""
        head = self.page.url.partition("#")[2].rpartition(".")[0]
        numbers = np.round(z * UNIT).astype("<i2").tobytes()
        frame = self.page.get_attribute("#picture", "data-frame")
        code = base64.urlsafe_b64encode(numbers).decode().rstrip("=")
        self.page.evaluate("hash => { location.hash = hash; }", f"{head}.{code}")
        self.page.wait_for_function("frame => document.getElementById('picture').dataset.frame !== frame", arg=frame)
        return self.sees()

    def clicks(self, text: str) -> None:
        self.page.get_by_role("button", name=text).click()

    def gives(self, file: Path) -> str:
        """Choose a file as the photo; what the page says to it."""
        self.page.set_input_files("#photo", str(file))
        done = "() => /was not used|^Your photo/.test(document.getElementById('status').textContent)"
        self.page.wait_for_function(done)
        return self.page.inner_text("#status")

    def chooses(self, breed: str) -> np.ndarray:
        """Turn the dog into another breed; what it shows then."""
        frame = self.page.get_attribute("#picture", "data-frame")
        self.page.select_option("#breed", label=breed)
        self.page.wait_for_function("frame => document.getElementById('picture').dataset.frame !== frame", arg=frame)
        return self.sees()


def crowding() -> float:
    """How many times as long as alone this machine now takes for work on one core."""
    wall, cpu = time.perf_counter(), time.process_time()
    while time.process_time() - cpu < 1.0:
        pass
    return (time.perf_counter() - wall) / (time.process_time() - cpu)


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Path:
    """The folder that is served; the page lies three folders below."""
    if shutil.which("npm") is None:
        reason = "no npm on this machine: the explorer was not built (install Debian's packages nodejs and npm)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    folder = tmp_path_factory.mktemp("served")
    subprocess.run([sys.executable, str(EXPLORER / "build.py"), str(folder / "some/where/explorer")], check=True)
    return folder


@pytest.fixture(scope="module")
def server(served):
    server = Server(served)
    yield server
    server.end()


@pytest.fixture(scope="module")
def hand(server, browser):
    hand = Hand(browser, server)
    hand.opens()
    hand.waits_until_all_is_there()
    yield hand
    assert not hand.complaints
    hand.context.close()


@pytest.fixture(scope="module")
def breeder(server, browser):
    """A hand on the page of whole dogs."""
    hand = Hand(browser, server, "dogs/")
    hand.opens()
    hand.waits_until_all_is_there()
    yield hand
    assert not hand.complaints
    hand.context.close()


@pytest.fixture(scope="module")
def dogs():
    """(vae, prior) of whole dogs."""
    return load_pretrained("dogs"), load_prior("dogs")


def test_the_first_picture_is_there_soon_and_after_few_bytes(served, server, browser):
    waits, sizes = [], []
    for _ in range(3):
        server.asked_at.clear()
        hand, crowd = Hand(browser, server), crowding()
        hand.context.add_init_script(FIRST_PICTURE)
        waits.append(hand.opens() / crowd)
        shown = hand.page.evaluate("window.firstPicture") / 1000
        before = {path.rpartition("explorer/")[2] or "index.html" for path, at in server.asked_at.items() if at <= shown}
        assert "decoder.onnx" in before
        hand.page.close()
        hand.context.close()
        assert not hand.complaints
        assert not {name for name in before if "webgpu" in name or "asyncify" in name or "encoder" in name or "finder" in name}
        folder = served / "some/where/explorer"
        sizes.append(sum(len(gzip.compress((folder / name).read_bytes())) for name in before))
    print(f"first picture after {[round(s, 2) for s in waits]} s, {max(sizes) / 1e6:.1f} MB with gzip")
    assert max(sizes) <= 15e6
    assert min(waits) <= 3.0


def test_latents_become_the_pictures_that_torch_makes_of_them(hand):
    z = load_prior("heads").sample(32, torch.Generator().manual_seed(0)).mul(UNIT).round().div(UNIT)
    expected = to_uint8(decode_latents(load_pretrained("heads"), z)).permute(0, 2, 3, 1).numpy().astype(int)
    shown = np.stack([hand.goes_to(row) for row in z.numpy()]).astype(int)
    difference = np.abs(shown - expected)
    print(f"mean difference {difference.mean():.4f} of 255; {(difference <= 3).mean():.4%} within 3")
    assert difference.mean() <= 0.5 and (difference <= 3).mean() >= 0.999


def test_random_dogs_are_draws_from_the_prior(hand):
    draws = []
    for _ in range(24):
        hand.clicks("Random dog")
        hand.sees()
        draws.append(hand.latent())
    z = torch.tensor(np.stack(draws)).float()
    prior = load_prior("heads")
    expected = prior.log_prob(prior.sample(2000, torch.Generator().manual_seed(0)))
    assert abs(prior.log_prob(z).mean() - expected.mean()) < 4 * expected.std() / len(z) ** 0.5
    assert len({tuple(row) for row in draws}) == len(draws)


def test_a_slider_moves_its_own_direction_and_no_other_and_reset_goes_back(hand, served):
    named = json.loads((served / "some/where/explorer/directions.json").read_text())["directions"]["named"]
    coef, intercept = np.array(named["coef"]), np.array(named["intercept"])
    before = hand.goes_to(load_prior("heads").sample(1, torch.Generator().manual_seed(0))[0].numpy())  # at no end
    z = hand.latent()
    slider = hand.page.get_by_role("slider", name="background: dark to light")
    slider.focus()
    hand.page.keyboard.press("End")
    assert (hand.sees() != before).any()
    k = named["names"].index("background: dark to light")
    there = coef @ hand.latent() + intercept
    assert there[k] == pytest.approx(max(named["high"][k], coef[k] @ z + intercept[k]), abs=0.01)
    assert np.delete(there - coef @ z - intercept, k) == pytest.approx(0, abs=0.01)
    assert "background light" in hand.page.get_attribute("#picture", "aria-label")
    assert slider.get_attribute("aria-valuetext") == "100% of the way from dark to light"
    hand.clicks("Reset")
    assert np.array_equal(hand.sees(), before)


def test_the_picture_follows_the_mouse_while_it_drags(hand):
    box = hand.page.get_by_role("slider", name="fur: dark to light").bounding_box()
    y, mouse = box["y"] + box["height"] / 2, hand.page.mouse
    mouse.move(box["x"] + 0.2 * box["width"], y)
    mouse.down()
    first = hand.sees()
    mouse.move(box["x"] + 0.8 * box["width"], y, steps=8)
    second = hand.sees()
    mouse.up()
    assert second.mean() > first.mean() + 5  # lighter fur
    assert np.array_equal(hand.sees(), second)


def test_a_thumb_can_do_all_of_it(server, browser):
    thumb = Hand(browser, server, has_touch=True, is_mobile=True)
    thumb.opens()
    thumb.waits_until_all_is_there()
    assert thumb.page.evaluate("document.documentElement.scrollWidth") <= 390
    before = thumb.sees()
    thumb.page.get_by_role("button", name="Random dog").tap()
    assert (thumb.sees() != before).any()
    slider = thumb.page.get_by_role("slider", name="tongue: in to out")
    slider.scroll_into_view_if_needed()
    box, before = slider.bounding_box(), thumb.sees()
    thumb.page.touchscreen.tap(box["x"] + 0.95 * box["width"], box["y"] + box["height"] / 2)
    assert (thumb.sees() != before).any()
    picture = thumb.page.locator("#picture").bounding_box()
    assert picture["y"] >= 0 and picture["y"] + picture["height"] < box["y"]  # the dog stays in sight above the thumb
    small = """() => [...document.querySelectorAll('button, input:not(#photo), .file, summary')]
        .filter(one => one.offsetParent && one.getBoundingClientRect().height < 43).map(one => one.outerHTML)"""
    assert thumb.page.evaluate(small) == []
    assert not thumb.complaints
    thumb.context.close()


def test_a_slider_is_quick_and_a_fast_run_of_keys_ends_at_the_last_of_them(hand):
    slider = hand.page.get_by_role("slider", name="fur: dark to light")
    slider.focus()
    hand.page.keyboard.press("Home")
    hand.sees()
    hand.page.evaluate(WATCH)
    crowds = []
    for i in range(100):
        if i % 25 == 0:
            crowds.append(crowding())
        hand.page.keyboard.press("ArrowLeft" if i // 25 % 2 else "ArrowRight")
        hand.page.wait_for_timeout(150)
    latencies = np.array(hand.page.evaluate("() => window.latencies"))
    p95, crowd = np.quantile(latencies, 0.95), max(crowds)
    print(f"slider to pixels: median {np.median(latencies):.0f} ms, 95% {p95:.0f} ms, at a crowding of {crowd:.1f}")
    assert len(latencies) > 20 and p95 <= 100 * crowd
    hand.page.keyboard.press("Home")
    hand.sees()
    frame = int(hand.page.get_attribute("#picture", "data-frame"))
    hand.page.evaluate(
        """() => { const slider = document.activeElement;
        for (let i = 1; i <= 60; i++) { slider.value = i; slider.dispatchEvent(new Event('input', {bubbles: true})); } }"""
    )
    last = hand.sees()
    assert int(hand.page.get_attribute("#picture", "data-frame")) - frame <= 3  # of sixty
    hand.page.keyboard.press("ArrowRight")
    hand.sees()
    hand.page.keyboard.press("ArrowLeft")
    assert np.abs(hand.sees().astype(int) - last).max() <= 2


def test_a_morph_has_the_start_at_one_end_and_the_other_dog_at_the_other(hand):
    hand.clicks("Random dog")
    start = hand.sees()
    hand.clicks("Put this dog there")
    hand.clicks("Random dog")
    other = hand.sees()
    morph = hand.page.get_by_role("slider", name="Morph from the start to the other dog")
    for key, expected in (("End", start), ("Home", other)):
        morph.press(key)
        assert np.abs(hand.sees().astype(int) - expected).max() <= 2
    morph.press("PageUp")
    between = hand.sees()
    assert (between != start).any() and (between != other).any()


def test_a_picture_is_saved_and_a_link_brings_the_same_dog_to_somebody_else(hand, server, browser):
    hand.clicks("Random dog")
    seen = hand.sees()
    with hand.page.expect_download() as download:
        hand.clicks("Save picture")
    with Image.open(download.value.path()) as image:
        assert (image.format, image.size) == ("PNG", (448, 448))
        assert np.abs(np.asarray(image.convert("RGB").resize((112, 112), Image.Resampling.BOX)).astype(int) - seen).mean() < 4
    hand.clicks("Copy link")
    hand.page.wait_for_function("() => /link/.test(document.getElementById('status').textContent)")
    friend = Hand(browser, server)
    friend.opens("#" + hand.page.url.partition("#")[2])
    friend.waits_until_all_is_there()
    assert np.abs(friend.sees().astype(int) - seen).max() <= 2
    friend.context.close()


@pytest.mark.parametrize("link", ["#heads", "#vector.1.0.AAAA", "#heads.zz.0.%%%", "#heads.0.0." + "A" * 684])
def test_a_link_that_is_none_of_this_model_is_said_to_be_and_a_random_dog_is_shown(hand, link):
    hand.clicks("Random dog")
    before = hand.sees()
    hand.page.evaluate("hash => { location.hash = hash; }", link)
    hand.page.wait_for_function("() => /link is of another model/.test(document.getElementById('status').textContent)")
    hand.page.wait_for_function("link => location.hash !== link", arg=link)
    assert (hand.sees() != before).any() and len(hand.latent()) == 256


def test_a_change_of_breed_keeps_the_dog_whose_latent_moves_as_the_mean_does(breeder, dogs):
    vae, prior = dogs
    breeder.chooses("any")
    breeder.clicks("Random dog")
    first, own = breeder.sees(), vae.breeds[breeder.label() - 1]
    assert breeder.page.inner_text("#status") == f"A random {own}, drawn from the prior"
    differs = breeder.latent() - prior.means[prior.names.index(own)].numpy()
    for breed in ("Pug", "Afghan hound"):
        shown, mean = breeder.chooses(breed), prior.means[prior.names.index(breed)].numpy()
        assert np.abs(breeder.latent() - mean - differs).max() < 2 / UNIT
        drawn = to_uint8(decode_latents(vae, torch.tensor(breeder.latent())[None].float(), breed=breed))[0].permute(1, 2, 0)
        assert np.abs(shown.astype(int) - drawn.numpy()).mean() < 1 < np.abs(shown.astype(int) - first).mean()
        assert breeder.page.inner_text("#status") == f"The same dog as a{'n' * (breed[0] == 'A')} {breed}"
        assert breed in breeder.page.get_attribute("#picture", "aria-label")
    assert np.abs(breeder.chooses("any").astype(int) - first).max() <= 2
    assert breeder.page.inner_text("#status").endswith(own)


def test_start_other_dog_and_link_are_of_the_breed_that_is_chosen(breeder, server, browser):
    breeder.clicks("Random dog")
    breeder.sees()
    breeder.clicks("Put this dog there")
    other = breeder.chooses("Samoyed")
    breeder.clicks("Random dog")
    pug = breeder.chooses("Pug")
    brightness = breeder.page.get_by_role("slider", name="brightness")
    brightness.press("Home" if int(brightness.input_value()) > 50 else "End")  # it may be at one end already
    assert (breeder.sees() != pug).any()
    breeder.clicks("Reset")
    assert np.abs(breeder.sees().astype(int) - pug).max() <= 2
    breeder.chooses("Samoyed")
    breeder.page.get_by_role("slider", name="Morph from the start to the other dog").press("End")
    assert np.abs(breeder.sees().astype(int) - other).max() <= 2
    friend = Hand(browser, server, "dogs/")
    friend.opens("#" + breeder.page.url.partition("#")[2])
    friend.waits_until_all_is_there()
    assert np.abs(friend.sees().astype(int) - other).max() <= 2
    assert friend.page.locator("#breed option:checked").inner_text() == "Samoyed"
    friend.context.close()


def test_random_dogs_are_drawn_from_the_breed_that_is_chosen(breeder, dogs):
    _, prior = dogs
    pug, samoyed = (prior.means[prior.names.index(breed)] for breed in ("Pug", "Samoyed"))
    way = torch.linalg.solve_triangular(prior.scale_tril, (samoyed - pug)[:, None], upper=False)[:, 0]
    breeder.chooses("Samoyed")
    draws = []
    for _ in range(12):
        breeder.clicks("Random dog")
        breeder.sees()
        draws.append(torch.tensor(breeder.latent()).float() - pug)
    places = torch.linalg.solve_triangular(prior.scale_tril, torch.stack(draws).T, upper=False).T @ way / way.square().sum()
    assert abs(places.mean() - 1) < 4 / way.norm() / 12**0.5 < 0.5  # a Pug is at 0, a Samoyed at 1
    assert breeder.page.inner_text("#status") == "A random Samoyed, drawn from the prior"


def test_the_dog_of_a_photo_is_turned_into_another_breed(breeder, dogs, photo):
    vae, prior = dogs
    breeder.chooses("any")
    assert breeder.gives(photo) == "Your photo, as the network draws it"
    breeder.sees()
    mu, _ = encode_images(vae, torch.from_numpy(decode_image(photo, 56, "box").copy()).permute(2, 0, 1)[None])
    assert np.abs(breeder.latent() - mu[0].numpy()).mean() < 0.03 * mu.std()
    breeder.chooses("Pug")
    assert breeder.page.inner_text("#status") == "Your dog as a Pug"
    moved = (prior.means[prior.names.index("Pug")] - prior.weights @ prior.means).numpy()
    assert np.abs(breeder.latent() - mu[0].numpy() - moved).mean() < 0.03 * mu.std()


def test_each_page_loads_its_own_model_and_leads_to_the_other_and_works_offline(served, browser):
    server = Server(served)
    hand = Hand(browser, server, "dogs/")
    hand.opens()
    hand.waits_until_all_is_there()
    models = [path for path in server.asked if path.endswith(".onnx")]
    assert models and all("/dogs/" in path for path in models)
    told = hand.page.locator("#named label").all_inner_texts()
    assert told == ["brightness", "warmth", "light from above"]  # no contrast: latents do not tell it
    hand.page.get_by_role("link", name="Dogs' heads").click()
    hand.page.wait_for_function('() => document.title.startsWith("Dogs\' heads")')
    hand.waits_until_all_is_there()
    assert not hand.page.locator("#breed").is_visible()
    hand.page.get_by_role("link", name="Whole dogs, by breed").click()
    hand.page.wait_for_function("() => document.title.startsWith('Whole dogs')")
    hand.page.wait_for_selector("body[data-ready]")
    server.end()
    hand.opens()
    hand.page.wait_for_selector("body[data-ready]")
    hand.chooses("Pug")
    assert not hand.complaints
    hand.context.close()


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    """A draw from the prior, as a photo in which a dog's head is somewhere on the right."""
    z = load_prior("heads").sample(1, torch.Generator().manual_seed(5))
    pixels = to_uint8(decode_latents(load_pretrained("heads"), z))[0].permute(1, 2, 0).numpy()
    scene = Image.new("RGB", (640, 480), (120, 130, 110))
    scene.paste(Image.fromarray(pixels).resize((320, 320), Image.Resampling.BICUBIC), (280, 90))
    path = tmp_path_factory.mktemp("photos") / "my dog.png"
    scene.save(path)
    return path


def test_a_photo_gets_the_latent_that_the_package_gives_it(hand, photo):
    said = hand.gives(photo)
    hand.sees()
    try:
        pixels, found = decode_image(photo, 112, "head"), True
    except NoHead:
        pixels, found = decode_image(photo, 112), False
    mu, _ = encode_images(load_pretrained("heads"), torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])
    difference = np.abs(hand.latent() - mu[0].numpy())
    print(f"{said}; latents differ by {difference.mean():.4f} on average, their spread is {mu.std():.2f}")
    assert difference.mean() < 0.03 * mu.std()
    assert ("No dog's head was found" in said) is not found
    assert not [path for path in hand.server.asked if "dog.png" in path]


def test_a_text_that_is_called_jpg_changes_nothing_and_a_sentence_says_why(hand, tmp_path):
    text = tmp_path / "notes.jpg"
    text.write_text("Buy dog food.\n" * 100)
    before = hand.sees()
    said = hand.gives(text)
    assert said.startswith("notes.jpg was not used: it is not a picture") and "Nothing was changed" in said
    assert np.array_equal(hand.sees(), before)


def test_a_picture_of_a_hundred_megapixels_is_used_or_a_sentence_says_why_not(hand, photo, tmp_path):
    large = tmp_path / "large.jpg"
    with Image.open(photo) as image:
        image.resize((11_600, 8_700)).save(large, quality=60)
    said = hand.gives(large)
    assert said.startswith("Your photo") or "too large" in said
    hand.clicks("Random dog")
    assert hand.sees().std() > 10  # the page is still alive


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(hand, tmp_path):
    path = tmp_path / "huge.png"
    content = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(content, "PNG")
    path.write_bytes(content.getvalue())
    assert "20000 x 20000 pixels are too many" in hand.gives(path)


def test_it_works_offline_after_it_was_opened_once_photo_and_all(served, browser, photo):
    server = Server(served)
    hand = Hand(browser, server)
    hand.opens()
    hand.waits_until_all_is_there()
    decoders = [path for path in server.asked if path.endswith("decoder.onnx")]
    server.end()
    hand.opens()
    hand.page.wait_for_selector("body[data-ready]")
    assert hand.gives(photo).startswith("Your photo")
    assert hand.sees().std() > 10
    assert len(decoders) <= 2 and not hand.complaints  # the second only asks whether it changed
    hand.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("place", ["", "dogs/"], ids=["heads", "dogs"])
def test_axe_finds_nothing_serious(server, browser, place, size, scheme):
    width, height = SIZES[size]
    hand = Hand(browser, server, place, viewport={"width": width, "height": height}, color_scheme=scheme)
    hand.opens()
    hand.waits_until_all_is_there()
    hand.sees()
    keep_screenshot(hand.page, f"explorer_page_{place.strip('/') or 'heads'}_{size}_{scheme}")
    hand.page.locator("summary").click()
    hand.page.add_script_tag(path=EXPLORER / "node_modules/axe-core/axe.min.js")
    found = hand.page.evaluate("axe.run().then(result => result.violations)")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []
    assert not hand.complaints
    hand.context.close()
