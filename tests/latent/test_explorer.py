import asyncio
import base64
import io
import json
from html import escape

import numpy as np
import pytest
import torch
from ipywidgets.widgets.widget import _instances as open_widgets
from PIL import Image
from tiny import png_pixels, random_pixels, stirred, tree, vivid_vae
from torch import Tensor

from vae_helpers.data import DogImages, decode_image
from vae_helpers.latent import MAX_UPLOAD, ROLES, STEPS, WAYS, LatentExplorer, attribute_directions, explorer_panel, lerp, slerp
from vae_helpers.models import AttentionVAE, SpatialVAE, to_float, to_uint8

DOGS = random_pixels(20)
AXES, MORE_AXES, NUMBERS, MORE_NUMBERS = (
    f"{name} {page}" for name in ("principal axes", "single dimensions") for page in ("1–8", "9–12")
)


@pytest.fixture
def explore():
    """Opens explorers, as a notebook does; closes those that a test leaves open."""
    opened = []

    def explore(vae=None, dogs=DOGS, **kw) -> LatentExplorer:
        opened.append(LatentExplorer(vae or vivid_vae(), dogs, **kw))
        return opened[-1]

    yield explore
    for explorer in opened:
        explorer.close()


@pytest.fixture
def explorer(explore):
    return explore()


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("VAE_HOME", str(tmp_path))
    return tmp_path


@torch.no_grad()
def decoded(explorer, z: Tensor) -> Tensor:
    """uint8 (3, 16, 16)"""
    return to_uint8(explorer.vae.decode(z[None])[0])


@torch.no_grad()
def encoded(explorer, pixels: Tensor) -> Tensor:
    """The mean of a dog, uint8 (3, 16, 16)."""
    return explorer.vae.encode(to_float(pixels[None]))[0][0]


def shown(explorer) -> Tensor:
    """The big picture, uint8 (3, 16, 16)"""
    return png_pixels(explorer.picture.value, 7)


def coordinates(explorer) -> Tensor:
    return explorer.directions.coordinates(explorer.z[None])[0]


def visible(explorer) -> list[int]:
    """Numbers of the sliders that can be seen."""
    return [k for k, row in enumerate(explorer.rows) if row.layout.display != "none"]


def drag(slider) -> None:
    """Move a slider as a hand would, to the end that is further away."""
    slider.value = 0 if slider.value > STEPS / 2 else STEPS


def button(explorer, text: str):
    """The button that says `text`."""
    parts = [explorer]
    for part in parts:
        parts += getattr(part, "children", ())
        if getattr(part, "description", None) == text:
            return part
    raise LookupError(text)


def everything(explorer) -> dict:
    """All that a reader sees and the place where one stands."""
    pictures = [explorer.picture, explorer.photo, explorer.reconstruction, explorer.other, *explorer.thumbnails]
    ends = [end for pair in explorer.ends for end in pair]
    texts = [explorer.distance, explorer.pages, explorer.way, explorer.role, *explorer.labels]
    sliders = [explorer.morph_slider, *explorer.sliders]
    return {
        "z": explorer.z.tolist(),
        "pictures": [picture.value for picture in (*pictures, *ends)],
        "texts": [text.value for text in texts] + [button.description for button in explorer.pick_buttons],
        "sliders": [slider.value for slider in sliders] + explorer.ranges,
        "hidden": [explorer.photo.layout.visibility, visible(explorer)],
    }


def assert_all_of_one_dog(explorer) -> None:
    """Picture, sliders and thumbnails show the dog at `explorer.z`."""
    assert torch.equal(shown(explorer), decoded(explorer, explorer.z))
    assert len(explorer.directions) == len(visible(explorer))
    for k, here in enumerate(coordinates(explorer).tolist()):
        low, high = explorer.ranges[k]
        assert low - 1e-4 <= here <= high + 1e-4
        assert explorer.sliders[k].value == pytest.approx(STEPS * (here - low) / (high - low), abs=0.501)  # the nearest place
        assert float(explorer.labels[k].value.split("</b>")[1].split("<")[0]) == pytest.approx(here, abs=0.0051)
        for end, value in zip(explorer.ends[k], (low, high), strict=True):
            expected = decoded(explorer, explorer.directions.move(explorer.z[None], k, value)[0])
            assert (png_pixels(end.value).int() - expected.int()).abs().max() <= 1


# ---------------------------------------------------------------- walking


@pytest.mark.parametrize("page", [AXES, NUMBERS])
def test_a_slider_moved_by_hand_changes_the_picture_and_one_coordinate(explorer, page):
    explorer.choose_directions(page)
    for k, slider in enumerate(explorer.sliders):
        picture, expected = shown(explorer), coordinates(explorer)
        drag(slider)
        assert not torch.equal(shown(explorer), picture)
        expected[k] = explorer.ranges[k][slider.value == STEPS]
        torch.testing.assert_close(coordinates(explorer), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("k", [0, 5])
def test_a_move_does_what_the_hand_does(explore, k):
    by_hand, by_call = explore(), explore()
    by_hand.sliders[k].value = 40
    by_call.move(k, by_call.value_at(k, 40))
    assert everything(by_hand) == everything(by_call)


def test_a_move_may_go_further_than_its_slider(explorer):
    explorer.move(2, 5.0)
    assert explorer.sliders[2].value == STEPS and coordinates(explorer)[2].item() == pytest.approx(5, abs=1e-4)
    assert torch.equal(shown(explorer), decoded(explorer, explorer.z))


def test_whatever_one_does_all_that_is_shown_is_of_the_same_dog(explorer):
    assert_all_of_one_dog(explorer)
    for do in (
        lambda: drag(explorer.sliders[0]),
        lambda: drag(explorer.sliders[7]),
        lambda: setattr(explorer.morph_slider, "value", 15),
        lambda: setattr(explorer.way, "value", WAYS[1]),
        lambda: setattr(explorer.pages, "value", MORE_NUMBERS),
        lambda: drag(explorer.sliders[3]),
        lambda: explorer.random(),
        lambda: setattr(explorer.pages, "value", AXES),
        lambda: drag(explorer.sliders[4]),
        lambda: explorer.pick(5),
        lambda: setattr(explorer.role, "value", ROLES[1]),
        lambda: explorer.pick(6),
        lambda: explorer.morph(0.9),
        lambda: explorer.start_from_photo(PHOTO),
        lambda: drag(explorer.sliders[1]),
        lambda: explorer.turn(1),
        lambda: explorer.reset(),
    ):
        do()
        assert_all_of_one_dog(explorer)


def test_many_quick_movements_end_at_the_last(explorer):
    rng = np.random.default_rng(0)
    for _ in range(60):
        explorer.sliders[rng.integers(8)].value = rng.integers(STEPS + 1)
    assert_all_of_one_dog(explorer)


def test_the_smallest_step_of_a_hand_moves_the_dog(explorer):
    for k, slider in enumerate(explorer.sliders):
        low, high = explorer.ranges[k]
        for place in (slider.value + 1, slider.value):
            slider.value = place
            assert coordinates(explorer)[k].item() == pytest.approx(low + (high - low) * place / STEPS, abs=1e-4)
    explorer.reset()
    explorer.morph_slider.value = 1
    assert not torch.equal(explorer.z, encoded(explorer, DOGS[0]))


def test_a_reset_brings_back_the_first_picture_to_the_last_byte(explorer):
    first, z = explorer.picture.value, encoded(explorer, DOGS[0])
    for away in (
        lambda: [drag(slider) for slider in explorer.sliders],
        lambda: explorer.morph(0.7),
        lambda: [explorer.morph_towards_dog(5), explorer.morph(1.0)],
        lambda: [setattr(explorer.way, "value", WAYS[1]), explorer.choose_directions(NUMBERS), drag(explorer.sliders[3])],
    ):
        away()
        assert explorer.picture.value != first
        explorer.reset()
        assert explorer.picture.value == first and torch.equal(explorer.z, z)
        assert "walked <b>0.00</b> from dog 0" in explorer.distance.value


def test_the_way_walked_is_told_in_distances_between_dogs(explorer):
    means = torch.stack([encoded(explorer, dog) for dog in DOGS])
    typical = (means - means.roll(1, 0)).norm(dim=1).median()
    explorer.morph(1.0)
    walked = (means[1] - means[0]).norm()
    assert f"<b>{walked:.2f}</b> from dog 0; two dogs lie {typical:.1f} apart" in explorer.distance.value


@pytest.mark.filterwarnings("error::RuntimeWarning")  # for one, from the share that an axis has of no variance at all
def test_a_model_that_tells_no_dogs_apart_can_be_walked_too(explore):
    vae = vivid_vae()
    with torch.no_grad():
        for weight in vae.encoder.parameters():
            weight.zero_()
    explorer = explore(vae)
    for page in explorer.pages.options:
        explorer.choose_directions(page)
        explorer.move(0, 1.0)
        assert torch.equal(shown(explorer), decoded(explorer, explorer.z))
        explorer.reset()
    assert explorer.distance.value.endswith("from dog 0")  # and no share of the distance between dogs


# ---------------------------------------------------------------- morphs and random draws


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("t", "dog"), [(0.0, 4), (1.0, 7)])
def test_a_morph_begins_and_ends_with_the_two_dogs_reconstructions(explorer, way, t, dog):
    explorer.start_from_dog(4)
    explorer.morph_towards_dog(7)
    explorer.way.value = way
    explorer.morph_slider.value = STEPS // 2
    explorer.morph_slider.value = t * STEPS
    assert torch.equal(shown(explorer), decoded(explorer, encoded(explorer, DOGS[dog])))


@pytest.mark.parametrize(("way", "between"), [(WAYS[0], slerp), (WAYS[1], lerp)])
def test_half_a_morph_is_half_of_its_way(explorer, way, between):
    explorer.morph(0.5)
    explorer.way.value = way
    ends = encoded(explorer, DOGS[0]), encoded(explorer, DOGS[1])
    torch.testing.assert_close(explorer.z, between(*ends, 3)[1])
    other_way = WAYS[1 - WAYS.index(way)]
    picture = shown(explorer)
    explorer.way.value = other_way
    assert not torch.equal(shown(explorer), picture)


def test_a_morph_starts_from_where_the_walk_began_and_not_from_where_it_went(explorer):
    drag(explorer.sliders[0])
    explorer.morph(0.0)
    assert torch.equal(explorer.z, encoded(explorer, DOGS[0]))


def test_another_dog_to_morph_towards_does_not_move_the_picture(explorer):
    before = everything(explorer)
    explorer.morph_towards_dog(9)
    assert torch.equal(png_pixels(explorer.other.value, 2), DOGS[9])
    assert explorer.picture.value == before["pictures"][0] and explorer.z.tolist() == before["z"]


def test_beside_the_picture_are_the_dog_and_its_reconstruction(explorer):
    explorer.start_from_dog(11)
    drag(explorer.sliders[0])
    assert torch.equal(png_pixels(explorer.photo.value, 2), DOGS[11])
    assert torch.equal(png_pixels(explorer.reconstruction.value, 2), decoded(explorer, encoded(explorer, DOGS[11])))


def test_random_dogs_follow_the_seed_and_no_two_are_the_same(explore):
    def three(seed):
        explorer = explore(seed=seed)
        return [[explorer.random(), explorer.z.tolist()][1] for _ in range(3)]

    first, again, other = three(1), three(1), three(2)
    assert first == again
    assert len({tuple(z) for z in first + other}) == 6


def test_a_random_dog_is_drawn_from_the_standard_normal_distribution(explorer):
    drawn = []
    for _ in range(30):
        explorer.random()
        drawn.append(explorer.z)
    drawn = torch.stack(drawn)
    assert drawn.mean().abs() < 0.2 and abs(drawn.std() - 1) < 0.15  # four standard errors


def test_a_random_dog_has_no_photo(explorer):
    explorer.random()
    assert explorer.photo.layout.visibility == "hidden" and "a random draw" in explorer.distance.value
    explorer.start_from_dog(3)
    assert explorer.photo.layout.visibility == "visible"


# ---------------------------------------------------------------- sliders and their directions


def test_there_are_pages_of_at_most_eight_directions_and_those_given_come_first(explore):
    means = torch.randn(40, 12, generator=torch.Generator().manual_seed(0))
    mine = attribute_directions(means, {"<i>ears</i>": means[:, 0], "size": means[:, 1] + means[:, 2]})
    explorer = explore(directions={"what I see": mine})
    assert explorer.pages.options == ("what I see 1–2", AXES, MORE_AXES, NUMBERS, MORE_NUMBERS)
    assert explorer.pages.value == "what I see 1–2" and explorer.directions.names == mine.names
    texts = " ".join(label.value for label in explorer.labels[:2])
    assert escape("<i>ears</i>") in texts and "<i>" not in texts and "held-out R² 1.00" in texts


@pytest.mark.parametrize(("page", "n"), [(AXES, 8), (MORE_AXES, 4), (NUMBERS, 8), (MORE_NUMBERS, 4)])
def test_a_page_shows_as_many_sliders_as_it_has_directions(explorer, page, n):
    explorer.pages.value = page
    assert visible(explorer) == list(range(n))
    for label, name in zip(explorer.labels, explorer.directions.names, strict=False):
        assert f"<b>{name}</b>" in label.value
    explorer.pages.value = AXES
    assert visible(explorer) == list(range(8))


def test_another_page_of_directions_does_not_move_the_dog(explorer):
    drag(explorer.sliders[0])
    z, picture = explorer.z, explorer.picture.value
    explorer.pages.value = NUMBERS
    assert torch.equal(explorer.z, z) and explorer.picture.value == picture
    assert explorer.labels[0].value.startswith("<b>z[")


def test_sliders_reach_from_end_to_end_of_the_dogs_and_to_a_dog_outside_them(explorer):
    outside = 0
    for _ in range(5):
        explorer.random()
        d = explorer.directions
        for range_, low, high, here in zip(explorer.ranges, d.low, d.high, coordinates(explorer), strict=True):
            assert range_ == pytest.approx((min(low, here).item(), max(high, here).item()), abs=1e-4)
            outside += not low < here < high
    assert outside > 10


def test_the_pictures_beside_a_slider_show_its_two_ends(explorer):
    low, high = explorer.ends[3]
    for end, place in ((low, 0), (high, STEPS)):
        explorer.sliders[3].value = place
        assert (png_pixels(end.value).int() - shown(explorer).int()).abs().max() <= 1
    assert low.value != high.value


# ---------------------------------------------------------------- the picker


def numbers_shown(explorer) -> list[int]:
    for picture, button in zip(explorer.thumbnails, explorer.pick_buttons, strict=True):
        assert torch.equal(png_pixels(picture.value), DOGS[int(button.description)])
    return [int(button.description) for button in explorer.pick_buttons]


def test_the_picker_turns_through_all_dogs_and_past_either_end(explorer):
    assert numbers_shown(explorer) == list(range(8))
    button(explorer, "‹").click()
    assert numbers_shown(explorer) == list(range(12, 20))
    for _ in range(3):
        button(explorer, "›").click()
    assert numbers_shown(explorer) == [16, 17, 18, 19, 0, 1, 2, 3]


@pytest.mark.parametrize("place", [0, 6])
def test_a_dog_that_is_picked_is_the_one_in_the_picture_above(explorer, place):
    explorer.turn(2)
    i = numbers_shown(explorer)[place]
    explorer.pick_buttons[place].click()
    assert torch.equal(explorer.z, encoded(explorer, DOGS[i])) and f"from dog {i};" in explorer.distance.value


def test_a_dog_that_is_picked_to_morph_towards_is_the_end_of_the_morph(explorer):
    explorer.role.value = ROLES[1]
    explorer.pick_buttons[3].click()
    assert torch.equal(explorer.z, encoded(explorer, DOGS[0]))
    explorer.morph(1.0)
    assert torch.equal(explorer.z, encoded(explorer, DOGS[3]))


def test_few_dogs_are_shown_again(explore):
    explorer = explore(dogs=DOGS[:5])
    assert numbers_shown(explorer) == [0, 1, 2, 3, 4, 0, 1, 2]
    explorer.turn(1)
    assert numbers_shown(explorer) == [3, 4, 0, 1, 2, 3, 4, 0]


# ---------------------------------------------------------------- buttons


PRESSES = {
    "Random": lambda explorer: explorer.random(),
    "Reset": lambda explorer: explorer.reset(),
    "‹": lambda explorer: explorer.turn(-1),
    "›": lambda explorer: explorer.turn(1),
    "4": lambda explorer: explorer.pick(4),
}


@pytest.mark.parametrize("text", PRESSES)
def test_a_button_does_what_its_method_does(explore, text):
    pressed, called = explore(), explore()
    for explorer in (pressed, called):
        drag(explorer.sliders[0])
    before = everything(pressed)
    button(pressed, text).click()
    PRESSES[text](called)
    assert everything(pressed) == everything(called) != before


def test_the_latent_is_copied_as_numbers_that_make_it_again(explorer, monkeypatch):
    sent = []
    monkeypatch.setattr(explorer.browser, "send", sent.append)
    explorer.random()
    explorer.copy_button.click()
    assert torch.equal(torch.tensor(json.loads(sent[0]["copy"])), explorer.z)
    explorer.browser_says({"copied": True}, [])
    assert "12 numbers are in the clipboard" in explorer.message.value


def test_where_the_clipboard_is_closed_the_numbers_are_shown_instead(explorer):
    explorer.browser_says({"copied": False}, [])
    assert json.dumps(explorer.z.tolist()) in explorer.message.value


# ---------------------------------------------------------------- keeping


def test_a_saved_dog_is_the_one_in_the_picture_and_replaces_none(explorer, home):
    explorer.save_button.click()
    drag(explorer.sliders[0])
    first = (home / "outputs/dog_1.png").read_bytes()
    assert explorer.save() == home / "outputs/dog_2.png"
    assert torch.equal(png_pixels((home / "outputs/dog_2.png").read_bytes(), 8), shown(explorer))
    assert (home / "outputs/dog_1.png").read_bytes() == first
    assert "wrote outputs/dog_2.png" in explorer.message.value and str(home) not in explorer.message.value


def test_a_recorded_walk_is_written_there_and_back_with_a_filmstrip(explorer, home):
    first = shown(explorer)
    explorer.recording.value = True
    for k in range(4):
        drag(explorer.sliders[k])
    last = shown(explorer)
    explorer.recording.value = False
    assert sorted(path.name for path in (home / "outputs").iterdir()) == ["walk_1.gif", "walk_1_filmstrip.png"]
    with Image.open(home / "outputs/walk_1.gif") as gif:
        assert gif.n_frames == 8  # the start and four steps, then back
    with Image.open(home / "outputs/walk_1_filmstrip.png") as image:
        strip = torch.from_numpy(np.array(image))[::2, ::2].permute(2, 0, 1).int()
    assert strip.shape == (3, 16, 5 * 18 - 2)
    assert (strip[:, :, :16] - first).abs().max() <= 1 and (strip[:, :, -16:] - last).abs().max() <= 1
    assert "outputs/walk_1.gif" in explorer.message.value and str(home) not in explorer.message.value


def test_the_record_button_shows_whether_it_records(explorer, home):
    explorer.record()
    assert explorer.recording.value
    explorer.stop_recording()
    assert not explorer.recording.value


def test_a_new_recording_holds_nothing_of_the_last(explorer, home):
    for n_steps, name in ((3, "walk_1"), (1, "walk_2")):
        explorer.record()
        for k in range(n_steps):
            drag(explorer.sliders[k])
        explorer.stop_recording()
        drag(explorer.sliders[7])
        with Image.open(home / f"outputs/{name}_filmstrip.png") as strip:
            assert strip.width == 2 * ((n_steps + 1) * 18 - 2)


def test_what_was_not_recorded_is_written_as_the_one_dog_in_the_picture(explorer, home):
    explorer.record()
    drag(explorer.sliders[0])
    explorer.stop_recording()
    drag(explorer.sliders[1])
    _, strip = explorer.stop_recording()
    assert torch.equal(png_pixels(strip.read_bytes(), 2), shown(explorer))


@pytest.mark.parametrize("there", [["walk_1.gif"], ["walk_1_filmstrip.png"], ["walk_1.gif", "walk_2_filmstrip.png"]], ids=str)
def test_a_recording_replaces_no_file(explorer, home, there):
    (home / "outputs").mkdir()
    for name in there:
        (home / "outputs" / name).write_text("mine")
    explorer.record()
    written = explorer.stop_recording()
    assert len(set(written)) == 2 and all(path.stat().st_size > 100 for path in written)
    assert {name: content for name, content in tree(home / "outputs").items() if name in there} == dict.fromkeys(there, b"mine")


# ---------------------------------------------------------------- the reader's photo


def image_file(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind)
    return file.getvalue()


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 36, 3), dtype=np.uint8))
PHOTO, JPEG = image_file(NOISE), image_file(NOISE, "JPEG")


def upload(explorer, name: str, file: bytes) -> None:
    """What explorer.js sends for a file that fits."""
    explorer.browser._handle_custom_msg({"photo": name, "size": len(file)}, [memoryview(file)])


def test_a_photo_is_where_the_walk_begins(explorer):
    drag(explorer.sliders[0])
    upload(explorer, "rex.png", PHOTO)
    pixels = torch.from_numpy(decode_image(PHOTO, 16).copy()).permute(2, 0, 1)
    assert torch.equal(png_pixels(explorer.photo.value, 2), pixels)
    assert torch.equal(explorer.z, encoded(explorer, pixels)) and explorer.photo_message.value == ""
    assert "walked <b>0.00</b> from your photo" in explorer.distance.value
    assert_all_of_one_dog(explorer)


def test_a_photo_can_be_given_by_its_path(explore, tmp_path):
    by_path, by_bytes = explore(), explore()
    (tmp_path / "rex.png").write_bytes(PHOTO)
    by_path.start_from_photo(tmp_path / "rex.png")
    by_bytes.start_from_photo(PHOTO)
    assert everything(by_path) == everything(by_bytes)


UNUSABLE = {
    "notes.png": lambda: b"this is a text",
    "empty.png": lambda: b"",
    "half.jpg": lambda: JPEG[: len(JPEG) // 2],
    "half.png": lambda: PHOTO[: len(PHOTO) // 2],
    "hundred megapixels.png": lambda: image_file(Image.new("1", (10_000, 10_000))),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", UNUSABLE)
def test_a_photo_that_cannot_be_used_is_answered_in_a_sentence_and_changes_nothing(explorer, name):
    drag(explorer.sliders[0])
    explorer.morph(0.4)
    before = everything(explorer)
    upload(explorer, name, UNUSABLE[name]())
    said = explorer.photo_message.value
    assert said.startswith(f"{name} was not used: ") and said.endswith("Nothing was changed.")
    assert everything(explorer) == before and explorer.message.value == ""
    explorer.reset()
    assert torch.equal(explorer.z, encoded(explorer, DOGS[0]))


@pytest.mark.parametrize("name", ["notes.png", "empty.png"])
def test_what_is_said_of_a_photo_is_for_readers_and_not_for_programmers(explorer, name):
    upload(explorer, name, UNUSABLE[name]())
    assert "BytesIO" not in explorer.photo_message.value and "0x" not in explorer.photo_message.value


def test_a_photo_too_large_for_the_connection_is_answered_with_both_sizes(explorer):
    before = everything(explorer)
    explorer.browser_says({"photo": "huge.png", "size": 23_400_000}, [])  # explorer.js sends no file then
    said = explorer.photo_message.value
    assert "huge.png was not used: 23.4 MB" in said and f"{MAX_UPLOAD / 1e6:.0f} MB do" in said
    assert everything(explorer) == before


def test_what_is_said_of_a_photo_goes_when_another_dog_is_taken(explorer):
    for another in (lambda: upload(explorer, "rex.png", PHOTO), lambda: explorer.pick(2), explorer.random):
        upload(explorer, "notes.png", b"this is a text")
        assert explorer.photo_message.value != ""
        another()
        assert explorer.photo_message.value == ""


def test_a_file_name_is_shown_as_text_and_not_as_html(explorer):
    upload(explorer, "<img src=x onerror=alert(1)>.png", b"this is a text")
    assert "<" not in explorer.photo_message.value and "&lt;img" in explorer.photo_message.value


# ---------------------------------------------------------------- errors


def fail(*args, **kw):
    raise RuntimeError("no <memory> left")


HANDS = {
    "slider": lambda explorer: drag(explorer.sliders[2]),
    "morph": lambda explorer: setattr(explorer.morph_slider, "value", 25),
    "way": lambda explorer: setattr(explorer.way, "value", WAYS[1]),
    "directions": lambda explorer: setattr(explorer.pages, "value", NUMBERS),
}


@pytest.mark.parametrize("hand", HANDS)
def test_an_error_is_shown_where_the_reader_is_and_raised(explorer, monkeypatch, hand):
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="no <memory> left"):
        patch.setattr(explorer.vae, "decode", fail)
        HANDS[hand](explorer)
    assert "RuntimeError: no &lt;memory&gt; left" in explorer.message.value
    drag(explorer.sliders[2])
    assert explorer.message.value == ""
    assert_all_of_one_dog(explorer)


@pytest.mark.parametrize("text", ["Random", "Reset", "3", "Save PNG"])
def test_an_error_behind_a_button_is_shown_until_the_next_is_pressed(explorer, monkeypatch, home, text):
    with monkeypatch.context() as patch:
        patch.setattr(explorer.vae, "decode", fail)
        button(explorer, text).click()
    assert "RuntimeError: no &lt;memory&gt; left" in explorer.message.value
    button(explorer, "Reset").click()
    assert explorer.message.value == ""
    assert_all_of_one_dog(explorer)


def test_a_movement_that_fails_does_not_part_the_picture_from_its_latent(explorer, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(explorer.vae, "decode", fail)
        explorer.move(0, 1.5)
    assert torch.equal(shown(explorer), decoded(explorer, explorer.z))


def test_a_photo_at_which_the_model_fails_changes_nothing(explorer, monkeypatch):
    before = everything(explorer)
    with monkeypatch.context() as patch:
        patch.setattr(explorer.vae, "decode", fail)
        upload(explorer, "rex.png", PHOTO)
    assert everything(explorer) == before
    explorer.reset()
    assert torch.equal(explorer.z, encoded(explorer, DOGS[0])) and "from dog 0;" in explorer.distance.value


# ---------------------------------------------------------------- what it is made from


def test_without_dogs_it_walks_among_dogs_it_dreams(explore):
    first, again, other = (explore(dogs=None, seed=seed) for seed in (1, 1, 2))
    assert everything(first) == everything(again) != everything(other)
    drag(first.sliders[0])
    assert_all_of_one_dog(first)


def test_dogs_may_come_with_their_names(explore):
    named = DogImages(DOGS, [f"{i}.png" for i in range(len(DOGS))])
    assert everything(explore(dogs=named)) == everything(explore(dogs=DOGS))


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # from closing what was never open
@pytest.mark.parametrize(
    ("dogs", "said"),
    [
        (to_float(DOGS), "got torch.float32"),
        (DOGS[0], r"got torch.uint8 \(3, 16, 16\)"),
        (DOGS[:3], r"got torch.uint8 \(3, 3, 16, 16\)"),
        (random_pixels(6, image_size=24), "24, 24"),
        (DOGS[:, :1], "1, 16, 16"),
    ],
    ids=["floats", "one dog", "three dogs", "another size", "grey"],
)
def test_dogs_of_another_shape_are_an_error_and_leave_no_widget(dogs, said):
    before = set(open_widgets)
    with pytest.raises(ValueError, match=said):
        LatentExplorer(vivid_vae(), dogs)
    assert set(open_widgets) == before


def test_a_title_is_shown_as_text(explore):
    assert "<h3 style='margin: 0'>Ears &amp; &lt;b&gt;</h3>" in explore(title="Ears & <b>").children[0].value


def test_two_explorers_of_one_model_do_not_disturb_each_other(explore):
    vae = vivid_vae()
    one, other = explore(vae), explore(vae)
    before = everything(other)
    drag(one.sliders[0])
    one.choose_directions(MORE_NUMBERS)
    one.random()
    one.turn(1)
    assert everything(other) == before
    drag(other.sliders[2])
    assert_all_of_one_dog(one)
    assert_all_of_one_dog(other)


# ---------------------------------------------------------------- opening and closing


def is_open(explorer) -> bool:
    return explorer.comm is not None and explorer.model_id in open_widgets


def test_nothing_is_left_of_an_explorer_that_is_closed():
    before = set(open_widgets)
    explorer = LatentExplorer(vivid_vae(), DOGS)
    explorer.random()
    explorer.choose_directions(NUMBERS)
    assert is_open(explorer) and len(open_widgets) > len(before) + 50
    explorer.close()
    assert set(open_widgets) == before and not is_open(explorer)
    explorer.close()


class Notebook:
    """Stands in for the shell, which knows what cell runs."""

    def __init__(self):
        self.runs, self.cell = 0, None

    def run(self, cell: str | None) -> None:
        self.cell, self.runs = cell, self.runs + 1

    def get_parent(self) -> dict:
        return {"metadata": {"cellId": self.cell} if self.cell else {}, "header": {"msg_id": str(self.runs)}}


@pytest.fixture
def notebook(monkeypatch):
    notebook = Notebook()
    monkeypatch.setattr(explorer_panel, "get_ipython", lambda: notebook)
    return notebook


def test_running_a_cell_again_closes_what_it_made_and_leaves_other_cells(explore, notebook):
    notebook.run("first")
    mine = explore()
    notebook.run("second")
    other = explore()
    before = everything(other)
    notebook.run("first")
    again = explore()
    assert [is_open(explorer) for explorer in (mine, other, again)] == [False, True, True]
    assert everything(other) == before


def test_a_cell_that_is_run_often_leaves_one_explorer(explore, notebook):
    counts = []
    for _ in range(4):
        notebook.run("cell")
        explore()
        counts.append(len(open_widgets))
    assert len(set(counts)) == 1


def test_two_explorers_of_one_cell_stay_both_until_it_runs_again(explore, notebook):
    notebook.run("cell")
    one, other = explore(), explore()
    assert is_open(one) and is_open(other)
    notebook.run("cell")
    explore()
    assert not is_open(one) and not is_open(other)


def test_where_nothing_tells_the_cells_apart_none_is_closed(explore, notebook):
    opened = []
    for _ in range(2):
        notebook.run(None)
        opened.append(explore())
    assert all(is_open(explorer) for explorer in opened)


def test_it_shows_itself_as_a_widget_and_as_a_picture_for_where_no_kernel_runs(explorer):
    before = everything(explorer)
    bundle = explorer._repr_mimebundle_(include=None, exclude=None)
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    with Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))) as still:
        assert still.format == "PNG" and np.asarray(still.convert("L")).std() > 10
    assert everything(explorer) == before


def test_the_still_picture_names_the_sliders_and_shows_their_ways(explorer):
    explorer.choose_directions(MORE_AXES)
    axes = explorer.overview().axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == explorer.directions.names
    sheet = torch.from_numpy(np.array(axes.images[0].get_array())).permute(2, 0, 1)
    for k, (low, high) in enumerate(explorer.ends[:4]):
        row = sheet[:, 18 * k : 18 * k + 16, :-2]  # 16 pixels and a gap of 2
        for end, tile in ((low, row[:, :, :16]), (high, row[:, :, -16:])):
            assert (tile.int() - png_pixels(end.value).int()).abs().max() <= 1


# ---------------------------------------------------------------- in a notebook's event loop


@pytest.fixture
def rest(monkeypatch) -> float:
    """Seconds without a movement that count as a rest."""
    monkeypatch.setattr("vae_helpers.explorer._REST", 0.1)
    return 0.1


async def drag_all(explorer) -> None:
    for slider in explorer.sliders:
        drag(slider)
        await asyncio.sleep(0)


def watch_ends(explorer) -> list[bytes]:
    """Fills with what is drawn at the low end of the first slider."""
    drawn = []
    explorer.ends[0][0].observe(lambda change: drawn.append(change.new), "value")
    return drawn


def test_the_ends_are_drawn_once_and_when_the_hand_rests(explore, rest):
    async def notebook():
        explorer = explore()
        drawn = watch_ends(explorer)
        await drag_all(explorer)
        while_moving = len(drawn)
        await asyncio.sleep(3 * rest)
        assert (while_moving, len(drawn)) == (0, 1)
        assert_all_of_one_dog(explorer)
        await drag_all(explorer)
        assert torch.equal(shown(explorer), decoded(explorer, explorer.z)) and len(drawn) == 1
        await asyncio.sleep(3 * rest)
        assert len(drawn) == 2
        assert_all_of_one_dog(explorer)

    asyncio.run(notebook())


def test_an_explorer_that_is_closed_draws_no_more(explore, rest):
    async def notebook():
        explorer = explore()
        drawn = watch_ends(explorer)
        await drag_all(explorer)
        explorer.close()
        await asyncio.sleep(3 * rest)
        assert drawn == []

    asyncio.run(notebook())


def test_an_error_after_the_hand_rested_is_shown_too(explore, rest, monkeypatch, caplog):
    async def notebook():
        explorer = explore()
        drag(explorer.sliders[0])
        monkeypatch.setattr(explorer.vae, "decode", fail)
        await asyncio.sleep(3 * rest)
        assert "RuntimeError: no &lt;memory&gt; left" in explorer.message.value

    asyncio.run(notebook())
    assert "no <memory> left" in caplog.text


def test_an_explorer_made_in_one_loop_goes_on_without_it(explore, rest):
    async def notebook():
        return explore()

    explorer = asyncio.run(notebook())
    drag(explorer.sliders[0])
    assert_all_of_one_dog(explorer)


@pytest.mark.parametrize("kind", [AttentionVAE, SpatialVAE])
def test_a_latent_that_is_a_small_picture_is_walked_along_its_principal_axes_too(explore, kind):
    explorer = explore(stirred(kind(8, 3, 4, 16)))
    assert explorer.z.shape == (3, 2, 2) and explorer.directions.names[0] == "axis 1"
    before, (_, high) = explorer.picture.value, explorer.ranges[0]
    explorer.move(0, high)
    assert explorer.directions.coordinates(explorer.z[None])[0, 0].item() == pytest.approx(high, rel=1e-3)
    assert explorer.picture.value != before
    explorer.reset()
    assert explorer.picture.value == before
