import json
import math
import re
from html.parser import HTMLParser

import pytest
import torch
from matplotlib.figure import Figure
from tiny import random_pixels, vivid_vae

from vae_helpers.evaluation import evaluate_model, evaluate_vae, recover_factors, write_report
from vae_helpers.models import encode_images, to_float

TRAIN, TEST = random_pixels(48, seed=1), random_pixels(24, seed=2)
BETA = 0.001


def mean_colours(pixels: torch.Tensor) -> torch.Tensor:
    """A feature extractor that looks at four parts of a picture: (B, 12)."""
    return torch.nn.functional.avg_pool2d(pixels.float(), 8).flatten(1)


def labels(vae, test) -> dict[str, torch.Tensor]:
    return {"first": encode_images(vae, test)[0][:, 0], "brightness": test.float().mean((1, 2, 3))}


def evaluation(vae=None, test=TEST, **options):
    vae = vae or vivid_vae()
    options = {"labels": labels(vae, test), "extractor": mean_colours, "reference": "24 drawn ones"} | options
    return evaluate_model(vae, TRAIN, test, BETA, **options)


@pytest.fixture(scope="module")
def one():
    return evaluation()


def flat(value, name="") -> dict[str, float]:
    """Every number in nested dicts, by its path."""
    if isinstance(value, dict):
        return {path: number for key, part in value.items() for path, number in flat(part, f"{name}/{key}").items()}
    return {name: value} if isinstance(value, int | float) else {}


def test_the_figures_are_those_of_the_functions_they_are_named_after(one):
    vae = vivid_vae()
    assert one.metrics["vae"] == evaluate_vae(vae, TEST, BETA).summary()
    assert one.metrics["vae_on_train"] == evaluate_vae(vae, TRAIN[:24], BETA).summary()
    assert one.metrics["n_images"] == 24 and one.metrics["images"] == "24 drawn ones"
    mu, _ = encode_images(vae, TEST)
    recovery = recover_factors(mu, labels(vae, TEST))
    assert [one.metrics["recovery"][name]["linear"] for name in recovery.names] == pytest.approx(recovery.linear.tolist())
    assert one.metrics["decoder_noise"] == pytest.approx((BETA * 768 / 2) ** 0.5)
    bits = one.metrics["bits_per_dimension"]
    assert bits["importance_weighted"] <= bits["elbo"]
    assert one.metrics["samples"]["reference"] == "half of the 24 drawn ones"


def test_everything_that_is_said_to_be_reported_is(one):
    numbers = flat(one.metrics)
    for wanted in (
        "similarity_vae/ssim",
        "similarity_pca/psnr",
        "similarity_webp/mse",
        "webp_bytes",
        "ppca_same_noise/loss",
        "active_units",
        "prior_share_beyond",
        "mig",
        "disentanglement",
        "samples/frechet_mean_colours",
        "samples/frechet_mean_colours_floor",
        "samples/nearest_median_ratio",
        "reconstructions/coverage",
        "seed",
    ):
        assert f"/{wanted}" in numbers


def test_every_figure_is_the_same_again_and_another_seed_changes_only_what_is_drawn(one):
    assert flat(evaluation().metrics) == pytest.approx(flat(one.metrics), rel=1e-6)
    first, other = flat(one.metrics), flat(evaluation(seed=1).metrics)
    assert other["/similarity_vae/psnr"] == pytest.approx(first["/similarity_vae/psnr"])
    assert other["/vae/recon_sampled"] != first["/vae/recon_sampled"]
    assert other["/samples/frechet_mean_colours"] != first["/samples/frechet_mean_colours"]


def test_without_labels_nothing_is_said_of_properties():
    metrics = evaluation(labels=None).metrics
    assert "recovery" not in metrics and "mig" not in metrics


BREEDS = [None, "pug", "beagle", "rare", "pug", "beagle"] * 4


def test_breeds_with_enough_images_are_told_apart():
    vae = vivid_vae()
    found = evaluation(vae, breeds=BREEDS)
    mu, _ = encode_images(vae, TEST)
    error = (vae.decoder(mu).clamp(-1, 1) - to_float(TEST)).square().mean((1, 2, 3))
    psnr = {
        breed: 10 * math.log10(4 / error[[i for i, b in enumerate(BREEDS) if b == breed]].mean().item())
        for breed in ("pug", "beagle")
    }
    assert {name: about["psnr"] for name, about in found.metrics["breeds"].items()} == pytest.approx(psnr, rel=1e-4)
    assert all(about["images"] == 8 for about in found.metrics["breeds"].values())
    known = [i for i, breed in enumerate(BREEDS) if breed in psnr]
    closest = [min((j for j in known if j != i), key=lambda j: (mu[i] - mu[j]).norm().item()) for i in known]
    same = sum(BREEDS[i] == BREEDS[j] for i, j in zip(known, closest, strict=True)) / 16
    assert found.metrics["same_breed_closest"] == same and found.metrics["same_breed_by_chance"] == pytest.approx(7 / 15)
    (section,) = [section for section in found.sections if "breeds" in section.title]
    assert f"for {same:.0%} (47% by chance)" in section.verdict and len(section.table) == 3


@pytest.mark.parametrize("breeds", [(), [None] * 24, ["pug"] * 24, ["pug"] * 20 + ["rare"] * 4])
def test_where_fewer_than_two_breeds_are_known_nothing_is_said_of_them(breeds):
    assert "breeds" not in evaluation(breeds=breeds).metrics


def test_breeds_of_other_images_are_refused():
    with pytest.raises(ValueError, match="23 breeds for 24 test images"):
        evaluation(breeds=BREEDS[1:])


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="needs at least 16"):
        evaluation(test=TEST[:15])


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags, self.sources, self.words = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.words += data


def test_the_page_needs_no_other_file_and_says_in_words_what_was_found(one, tmp_path):
    write_report(one, tmp_path / "new", "A <title>")
    page = Page((tmp_path / "new/report.html").read_text(encoding="utf-8"))
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert page.tags.count("img") == sum(len(section.figures) for section in one.sections) >= 5
    assert page.tags.count("tr") == sum(len(section.table) for section in one.sections)
    assert "A <title>" in page.words
    for section in one.sections:
        assert page.words.count(section.verdict) == 2  # in short, and where it belongs
    words = page.words.split("</style>")[-1]
    assert not re.search(r"\bloss\b", words, re.IGNORECASE)
    assert "24 drawn ones" in words and "seed 0" in words
    assert json.loads((tmp_path / "new/metrics.json").read_text()) == one.metrics


def test_verdicts_turn_with_the_figures(one):
    class Useless(type(vivid_vae())):
        def decode(self, z):
            return super().decode(0 * z)  # the same picture for all

    useless = Useless(latent_dim=12, widths=(8, 8, 8), image_size=16).eval()
    said = " ".join(section.verdict for section in evaluation(vae=useless).sections)
    assert "WORSE than from as many principal components" in said
    assert all(isinstance(figure, Figure) for section in one.sections for figure in section.figures)
