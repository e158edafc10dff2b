import asyncio
import io
from html import escape

import numpy as np
import pytest
import torch
from ipywidgets import Widget
from ipywidgets.widgets.widget import _instances as open_widgets
from PIL import Image
from tiny import png_pixels, random_pixels, stirred, vivid_vae
from torch import Tensor

from vae_helpers.data import DogImages, decode_image
from vae_helpers.latent import LatentExplorer, attribute_directions, lerp, slerp
from vae_helpers.models import (
    AttentionVAE,
    FullGaussian,
    GaussianMixture,
    ResidualVAE,
    SpatialVAE,
    decode_latents,
    encode_images,
    to_float,
    to_uint8,
)

DOGS = random_pixels(30)
AXES, MORE_AXES, NUMBERS, MORE_NUMBERS = (
    f"{name} {page}" for name in ("principal axes", "single dimensions") for page in ("1–8", "9–12")
)


@pytest.fixture
def explore(tmp_path):
    """Opens explorers, as a notebook does, that save into a temporary folder; closes them in the end."""

    def explore(vae=None, dogs=DOGS, directions=None, **kw) -> LatentExplorer:
        return LatentExplorer(vae or vivid_vae(), dogs, directions, output_dir=tmp_path / "outputs", **kw)

    yield explore
    Widget.close_all()


@pytest.fixture
def explorer(explore):
    return explore()


@torch.no_grad()
def decoded(explorer, z: Tensor) -> Tensor:
    """uint8 (3, 16, 16)"""
    return to_uint8(explorer.vae.decode(z[None])[0])


@torch.no_grad()
def encoded(explorer, pixels: Tensor) -> Tensor:
    """The mean of a dog, uint8 (3, 16, 16)."""
    return explorer.vae.encode(to_float(pixels[None]))[0][0]


def shown(explorer) -> Tensor:
    """The big picture, uint8 (3, 16, 16): 392 pixels across hold 24 for each of the image's."""
    return png_pixels(explorer.picture.value, 24)


def coordinates(explorer) -> Tensor:
    return explorer.directions.coordinates(explorer.z[None])[0]


def visible(explorer) -> list[int]:
    """Numbers of the sliders that can be seen."""
    return [k for k, row in enumerate(explorer.rows) if row.layout.display != "none"]


def drag(slider) -> None:
    """Move a slider as a hand would, to the end that is further away."""
    slider.value = 0 if slider.value > 25 else 50


def press(explorer, text: str) -> None:
    """Click the button that says `text`."""
    parts = [explorer]
    for part in parts:
        parts += getattr(part, "children", ())
        if getattr(part, "description", None) == text:
            return part.click()
    raise LookupError(text)


def everything(explorer) -> dict:
    """All that a reader sees but the line of status, and the place where one stands."""
    values = [explorer.picture, explorer.photo, explorer.other, *explorer.ends, explorer.sheet, explorer.pages]
    values += [*explorer.labels, explorer.morph_slider, *explorer.sliders, explorer.on_sphere]
    return {"z": explorer.z.tolist(), "values": [w.value for w in values], "ranges": explorer.ranges, "seen": visible(explorer)}


def assert_all_of_one_dog(explorer) -> None:
    """Picture, sliders and thumbnails show the dog at `explorer.z`."""
    assert torch.equal(shown(explorer), decoded(explorer, explorer.z))
    assert len(explorer.directions) == len(visible(explorer))
    for k, here in enumerate(coordinates(explorer).tolist()):
        low, high = explorer.ranges[k]
        assert low - 1e-4 <= here <= high + 1e-4
        assert explorer.sliders[k].value == pytest.approx(50 * (here - low) / (high - low), abs=0.501)  # the nearest place
        assert float(explorer.labels[k].value.split("</b>")[1].split("<")[0]) == pytest.approx(here, abs=0.0051)
        for end, value in zip(explorer.ends[2 * k : 2 * k + 2], (low, high), strict=True):
            expected = decoded(explorer, explorer.directions.move(explorer.z[None], k, value)[0])
            assert (png_pixels(end.value, 3).int() - expected.int()).abs().max() <= 1


# ---------------------------------------------------------------- walking


@pytest.mark.parametrize("page", [AXES, NUMBERS])
def test_a_slider_moved_by_hand_changes_the_picture_and_one_coordinate(explorer, page):
    explorer.choose_directions(page)
    for k, slider in enumerate(explorer.sliders):
        picture, expected = shown(explorer), coordinates(explorer)
        drag(slider)
        assert not torch.equal(shown(explorer), picture)
        expected[k] = explorer.ranges[k][slider.value == 50]
        torch.testing.assert_close(coordinates(explorer), expected, atol=1e-4, rtol=0)
    explorer.move(2, 5.0)  # further than the slider goes
    assert explorer.sliders[2].value == 50 and coordinates(explorer)[2].item() == pytest.approx(5, abs=1e-4)


HANDS = {
    "slider": lambda explorer: drag(explorer.sliders[2]),
    "morph": lambda explorer: setattr(explorer.morph_slider, "value", 15),
    "way": lambda explorer: setattr(explorer.on_sphere, "value", False),
    "page": lambda explorer: setattr(explorer.pages, "value", MORE_NUMBERS),
    "random": lambda explorer: press(explorer, "Random"),
    "dog": lambda explorer: [setattr(explorer.number, "value", 5), press(explorer, "Start from it")],
    "other dog": lambda explorer: [setattr(explorer.number, "value", 7), press(explorer, "Morph towards it")],
    "photo": lambda explorer: upload(explorer, "rex.png", PHOTO),
    "reset": lambda explorer: press(explorer, "Reset"),
}


def test_whatever_one_does_all_that_is_shown_is_of_the_same_dog(explorer):
    assert_all_of_one_dog(explorer)
    for name in (*HANDS, "slider", "morph", "page", "slider", "random", "slider"):
        HANDS[name](explorer)
        assert_all_of_one_dog(explorer)


def test_a_reset_brings_back_the_first_picture_to_the_last_byte(explorer):
    first, z = explorer.picture.value, encoded(explorer, DOGS[0])
    for away in (
        lambda: [drag(slider) for slider in explorer.sliders],
        lambda: [explorer.morph_towards_dog(5), explorer.morph(1.0)],
        lambda: [HANDS["way"](explorer), explorer.choose_directions(NUMBERS), drag(explorer.sliders[3])],
    ):
        away()
        assert explorer.picture.value != first and "walked <b>0.00</b>" not in explorer.status.value
        explorer.reset()
        assert explorer.picture.value == first and torch.equal(explorer.z, z)
        assert explorer.status.value == "walked <b>0.00</b> from dog 0"


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


@pytest.mark.parametrize("kind", [AttentionVAE, SpatialVAE])
def test_a_latent_that_is_a_small_picture_is_walked_too(explore, kind):
    explorer = explore(stirred(kind(8, 3, 4, 16)))
    assert explorer.z.shape == (3, 2, 2)
    before, (_, high) = explorer.picture.value, explorer.ranges[0]
    explorer.move(0, high)
    assert coordinates(explorer)[0].item() == pytest.approx(high, rel=1e-3) and explorer.picture.value != before
    explorer.reset()
    assert explorer.picture.value == before


# ---------------------------------------------------------------- where a walk begins and leads


@pytest.mark.parametrize(("on_sphere", "way"), [(True, slerp), (False, lerp)])
def test_a_morph_goes_from_one_dog_to_the_other_on_its_way(explorer, on_sphere, way):
    explorer.start_from_dog(4)
    explorer.morph_towards_dog(7)
    assert torch.equal(png_pixels(explorer.photo.value, 7), DOGS[4])
    assert torch.equal(png_pixels(explorer.other.value, 7), DOGS[7])
    drag(explorer.sliders[0])  # a morph starts where the walk began, not where it went
    explorer.on_sphere.value = on_sphere
    ends = [encoded(explorer, DOGS[i]) for i in (4, 7)]
    for place in (0, 25, 50):
        explorer.morph(place / 50)
        torch.testing.assert_close(explorer.z, way(*ends, torch.tensor([place / 50]))[0])
    torch.testing.assert_close(explorer.z, ends[1])


def draws(explorer) -> Tensor:
    """(30, L): where "Random" led, thirty times."""
    return torch.stack([(press(explorer, "Random"), explorer.z)[1] for _ in range(30)])


def test_random_dogs_are_drawn_from_the_prior_that_is_given(explore):
    prior = FullGaussian((12,)).fit(5 + 0.1 * torch.randn(100, 12, generator=torch.Generator().manual_seed(0)))
    explorer = explore(prior=prior)
    drawn = draws(explorer)
    assert abs(drawn.mean() - 5) < 0.1 and abs(drawn.std() - 0.1) < 0.03
    assert torch.equal(shown(explorer), decoded(explorer, drawn[-1]))


def test_without_a_prior_random_dogs_are_standard_normal_and_no_two_are_the_same(explorer):
    drawn = draws(explorer)
    assert drawn.mean().abs() < 0.2 and abs(drawn.std() - 1) < 0.15  # four standard errors
    assert len(drawn.unique(dim=0)) == 30 and explorer.status.value.endswith("from a random draw")


def test_the_first_twenty_dogs_are_seen_and_all_can_be_picked_by_number(explorer):
    sheet = png_pixels(explorer.sheet.value)
    for i in range(20):
        y, x = 18 * (i // 10) + 2, 18 * (i % 10) + 2  # 16 pixels and a gap of 2
        assert torch.equal(sheet[:, y : y + 16, x : x + 16], DOGS[i])
    explorer.number.value = 1000
    press(explorer, "Start from it")
    assert torch.equal(explorer.z, encoded(explorer, DOGS[29])) and explorer.status.value.endswith("from dog 29")


def test_there_are_pages_of_at_most_eight_directions_and_those_given_come_first(explore):
    means = torch.randn(40, 12, generator=torch.Generator().manual_seed(0))
    mine = attribute_directions(means, {"<i>ears</i>": means[:, 0], "size": means[:, 1] + means[:, 2]})
    explorer = explore(directions={"what I see": mine})
    assert explorer.pages.options == ("what I see 1–2", AXES, MORE_AXES, NUMBERS, MORE_NUMBERS)
    assert explorer.pages.value == "what I see 1–2" and explorer.directions.names == mine.names
    texts = " ".join(label.value for label in explorer.labels[:2])
    assert "&lt;i&gt;ears" in texts and "<i>" not in texts and "held-out R² 1.00" in texts
    z, picture = explorer.z, explorer.picture.value
    for page, n in ((AXES, 8), (MORE_AXES, 4), (NUMBERS, 8), (MORE_NUMBERS, 4)):
        explorer.pages.value = page
        assert visible(explorer) == list(range(n))
        assert all(f"<b>{d}</b>" in label.value for d, label in zip(explorer.directions.names, explorer.labels, strict=False))
        assert torch.equal(explorer.z, z) and explorer.picture.value == picture


def test_sliders_reach_from_end_to_end_of_the_dogs_and_to_a_dog_outside_them(explorer):
    outside = 0
    for _ in range(5):
        explorer.random()
        d = explorer.directions
        for range_, low, high, here in zip(explorer.ranges, d.low, d.high, coordinates(explorer), strict=True):
            assert range_ == pytest.approx((min(low, here).item(), max(high, here).item()), abs=1e-4)
            outside += not low < here < high
    assert outside > 10


def test_a_saved_dog_is_the_one_in_the_picture_and_replaces_none(explorer, tmp_path):
    press(explorer, "Save PNG")
    first = (tmp_path / "outputs/dog_1.png").read_bytes()
    drag(explorer.sliders[0])
    assert explorer.save() == tmp_path / "outputs/dog_2.png"
    assert torch.equal(png_pixels((tmp_path / "outputs/dog_2.png").read_bytes(), 24), shown(explorer))
    assert (tmp_path / "outputs/dog_1.png").read_bytes() == first
    assert explorer.status.value == "wrote outputs/dog_2.png"


# ---------------------------------------------------------------- breeds

BREEDS = ("Beagle", "Pug")
BREED_DOGS = random_pixels(10, image_size=56)


@pytest.fixture(scope="module")
def breed_vae():
    return stirred(ResidualVAE(latent_dim=16, widths=(8, 8, 8, 16), encoder_widths=(8, 8, 8), breeds=BREEDS))


@pytest.fixture(scope="module")
def breed_prior():
    """Three times as many Pugs as Beagles, far from each other."""
    label = torch.arange(200) % 4 > 0
    z = torch.randn(200, 16, generator=torch.Generator().manual_seed(0)) + torch.where(label, 4.0, -4.0)[:, None]
    return GaussianMixture((16,), names=BREEDS).fit(z, label=label.long())


def assert_drawn_as(explorer, breed: str | None) -> None:
    """Picture and thumbnails show the dog at `explorer.z` as `breed`."""
    wanted = to_uint8(decode_latents(explorer.vae, explorer.z[None], breed=breed)[0])
    assert torch.equal(png_pixels(explorer.picture.value, 7), wanted)
    for k, ends in enumerate(explorer.ranges):
        for widget, end in zip(explorer.ends[2 * k : 2 * k + 2], ends, strict=True):
            z = explorer.directions.move(explorer.z[None], k, end)
            wanted = to_uint8(decode_latents(explorer.vae, z, breed=breed)[0])
            assert (png_pixels(widget.value).int() - wanted.int()).abs().max() <= 1


def test_a_dog_turned_into_another_breed_keeps_what_makes_it_differ_from_the_mean_of_its_breed(explore, breed_vae, breed_prior):
    explorer = explore(breed_vae, BREED_DOGS, prior=breed_prior)
    drag(explorer.sliders[1])
    own, seen = explorer.z, [explorer.picture.value]
    beagle, pug = breed_prior.means
    for breed, mean in (("Beagle", beagle), ("Pug", pug), ("any", beagle / 4 + 3 * pug / 4)):
        explorer.breeds.value = breed
        torch.testing.assert_close(explorer.z - mean, own - (beagle + 3 * pug) / 4, atol=1e-4, rtol=0)
        assert explorer.breed == (None if breed == "any" else breed)
        assert_drawn_as(explorer, explorer.breed)
        seen.append(explorer.picture.value)
    assert len({*seen[:3]}) == 3


def test_start_and_other_dog_turn_with_the_dog(explore, breed_vae, breed_prior):
    explorer = explore(breed_vae, BREED_DOGS, prior=breed_prior)
    ends = encode_images(breed_vae, BREED_DOGS[[4, 7]])[0]
    explorer.start_from_dog(4)
    explorer.morph_towards_dog(7)
    drag(explorer.sliders[0])
    walked = explorer.status.value
    explorer.choose_breed("Pug")
    assert explorer.breeds.value == "Pug" and explorer.status.value == walked
    expected = ends + (breed_prior.means[1] - breed_prior.means[0]) / 4
    for act, z in ((explorer.reset, expected[0]), (lambda: explorer.morph(1.0), expected[1])):
        act()
        torch.testing.assert_close(explorer.z, z, atol=1e-4, rtol=0)
        assert_drawn_as(explorer, "Pug")
    explorer.start_from_dog(4)  # chosen before or after, the dog is the same Pug
    torch.testing.assert_close(explorer.z, expected[0], atol=1e-4, rtol=0)
    assert "<b>0.00</b>" in explorer.status.value


@pytest.mark.parametrize(("breed", "signs"), [("Beagle", {-1}), ("Pug", {1}), ("any", {-1, 1})])
def test_random_dogs_are_of_the_chosen_breed(explore, breed_vae, breed_prior, breed, signs):
    explorer = explore(breed_vae, BREED_DOGS, prior=breed_prior)
    explorer.breeds.value = breed
    assert {int(z.mean().sign()) for z in draws(explorer)} == signs
    assert_drawn_as(explorer, explorer.breed)


def test_with_a_prior_that_knows_no_breeds_only_the_decoder_turns_the_dog(explore, breed_vae):
    explorer = explore(breed_vae, BREED_DOGS)
    z, picture = explorer.z, explorer.picture.value
    explorer.choose_breed("Pug")
    assert torch.equal(explorer.z, z) and explorer.picture.value != picture
    press(explorer, "Random")
    assert_drawn_as(explorer, "Pug")


def test_a_breed_that_the_model_does_not_know_is_an_error_and_changes_nothing(explore, breed_vae, breed_prior):
    explorer = explore(breed_vae, BREED_DOGS, prior=breed_prior)
    explorer.choose_breed("Pug")
    before = everything(explorer) | {"breed": (explorer.breed, explorer.breeds.value)}
    with pytest.raises(ValueError, match="'Cat' is none that this model knows"):
        explorer.choose_breed("Cat")
    assert everything(explorer) | {"breed": (explorer.breed, explorer.breeds.value)} == before


def test_breeds_can_be_chosen_where_the_model_knows_any(explore, explorer, breed_vae):
    assert explorer.breeds.layout.display == "none"
    shown = explore(breed_vae, BREED_DOGS).breeds
    assert shown.layout.display is None and shown.options == ("any", *BREEDS)


# ---------------------------------------------------------------- the reader's photo


def png_file(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


PHOTO = png_file(Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 36, 3), dtype=np.uint8)))


def upload(explorer, name: str, file: bytes | None, size: int = 0) -> None:
    """What explorer.js sends; without a file when it does not fit."""
    explorer.receive_photo({"name": name, "size": size, "limit": 8_000_000}, [] if file is None else [memoryview(file)])


@pytest.mark.parametrize("crop", ["none", "center"])
def test_a_walk_begins_at_a_photo_that_is_cropped_as_the_models_images_were(explore, tmp_path, crop):
    vae = vivid_vae()
    vae.crop = crop
    explorer = explore(vae)
    drag(explorer.sliders[0])
    upload(explorer, "rex.png", PHOTO)
    pixels = torch.from_numpy(decode_image(PHOTO, 16, crop=crop).copy()).permute(2, 0, 1)
    assert torch.equal(png_pixels(explorer.photo.value, 7), pixels)
    assert torch.equal(explorer.z, encoded(explorer, pixels))
    assert explorer.status.value == "walked <b>0.00</b> from your photo"
    (tmp_path / "rex.png").write_bytes(PHOTO)
    before = everything(explorer)
    explorer.start_from_photo(tmp_path / "rex.png")
    assert everything(explorer) == before


UNUSABLE = {
    "<i>notes.png": lambda: b"this is a text",
    "empty.png": lambda: b"",
    "half.png": lambda: PHOTO[: len(PHOTO) // 2],
    "hundred megapixels.png": lambda: png_file(Image.new("1", (10_000, 10_000))),
    "too large to be sent.png": lambda: None,
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", UNUSABLE)
def test_a_photo_that_cannot_be_used_is_answered_in_a_sentence_and_changes_nothing(explorer, name):
    drag(explorer.sliders[0])
    explorer.morph(0.4)
    before = everything(explorer)
    upload(explorer, name, UNUSABLE[name](), size=23_400_000)
    said = explorer.status.value
    assert said.startswith(f"{escape(name)} was not used: ") and said.endswith("Nothing was changed.")
    assert "BytesIO" not in said and "0x" not in said
    assert ("23,400,000 bytes" in said and "8,000,000 do" in said) == name.startswith("too large")
    assert everything(explorer) == before
    explorer.reset()
    assert torch.equal(explorer.z, encoded(explorer, DOGS[0])) and explorer.status.value.startswith("walked")


# ---------------------------------------------------------------- errors


def breaks(vae):
    """Lets the model fail; returns what mends it."""

    def fail(*args):
        raise RuntimeError("no <memory> left")

    return vae.decoder.register_forward_pre_hook(fail)


@pytest.mark.parametrize("hand", ["slider", "morph", "way", "page"])
def test_an_error_is_shown_where_the_reader_is_and_raised(explorer, hand):
    broken = breaks(explorer.vae)
    with pytest.raises(RuntimeError, match="no <memory> left"):
        HANDS[hand](explorer)
    assert explorer.status.value == "RuntimeError: no &lt;memory&gt; left"
    broken.remove()
    assert torch.equal(shown(explorer), decoded(explorer, explorer.z))
    drag(explorer.sliders[2])
    assert explorer.status.value.startswith("walked")
    assert_all_of_one_dog(explorer)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # from closing what was never open
@pytest.mark.parametrize(
    ("dogs", "said"),
    [
        (to_float(DOGS), "got torch.float32"),
        (DOGS[:1], r"got torch.uint8 \(1, 3, 16, 16\)"),
        (random_pixels(6, image_size=24), "24, 24"),
    ],
    ids=["floats", "one dog", "another size"],
)
def test_dogs_of_another_shape_are_an_error_and_leave_no_widget(dogs, said):
    before = set(open_widgets)
    with pytest.raises(ValueError, match=said):
        LatentExplorer(vivid_vae(), dogs)
    assert set(open_widgets) == before


# ---------------------------------------------------------------- opening


def test_dogs_may_come_with_names(explore):
    assert everything(explore(dogs=DogImages(DOGS, [f"{i}.png" for i in range(len(DOGS))]))) == everything(explore())


def test_it_shows_itself_as_a_widget_and_as_a_picture_of_its_sliders_for_where_no_kernel_runs(explore):
    explorer = explore(title="Ears & <b>")
    assert "Ears &amp; &lt;b&gt;" in explorer.children[0].value
    before, heights = everything(explorer), []
    for page in (AXES, MORE_AXES):
        explorer.choose_directions(page)
        bundle, about = explorer._repr_mimebundle_(include=None, exclude=None)
        assert all(name in about["image/png"]["alt"] for name in explorer.directions.names)
        assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
        with Image.open(io.BytesIO(bundle["image/png"])) as still:
            assert np.asarray(still.convert("L")).std() > 10
            heights.append(still.height)
    assert heights[0] - heights[1] == pytest.approx(4 * 18, abs=2)  # eight rows, then four, of 16 pixels and a gap of 2
    explorer.choose_directions(AXES)
    assert everything(explorer) == before


# ---------------------------------------------------------------- in a notebook's event loop


async def drag_all(explorer) -> None:
    for slider in explorer.sliders:
        drag(slider)
        await asyncio.sleep(0)


def test_the_ends_are_drawn_once_and_when_the_hand_rests(explore):
    async def notebook():
        explorer = explore()
        sizes = []  # of the batches that are decoded: one for a picture, two for each slider's ends
        explorer.vae.decoder.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
        for times in (0, 1):
            await drag_all(explorer)
            assert torch.equal(shown(explorer), decoded(explorer, explorer.z)) and sizes.count(16) == times
            await asyncio.sleep(0.5)
            assert sizes.count(16) == times + 1
            assert_all_of_one_dog(explorer)
        return explorer

    explorer = asyncio.run(notebook())
    drag(explorer.sliders[0])  # it goes on without the loop that it was made in
    assert_all_of_one_dog(explorer)


def test_an_error_after_the_hand_rested_is_shown_too(explore, caplog):
    async def notebook():
        explorer = explore()
        drag(explorer.sliders[0])
        breaks(explorer.vae)
        await asyncio.sleep(0.5)
        assert explorer.status.value == "RuntimeError: no &lt;memory&gt; left"

    asyncio.run(notebook())
    assert "no <memory> left" in caplog.text


def test_a_photo_without_a_head_is_shown_whole_by_a_model_of_heads_which_says_so(explore):
    vae = vivid_vae()
    vae.crop = "head"
    explorer, file = explore(vae), io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(file, "PNG")
    explorer.start_from_photo(file.getvalue())
    assert "no head was found" in explorer.status.value
    assert torch.allclose(explorer.z, encoded(explorer, torch.tensor(decode_image(file.getvalue(), 16)).permute(2, 0, 1)))
