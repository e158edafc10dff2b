import json
import re
from html.parser import HTMLParser

import pytest
import torch
from tiny import random_pixels, tiny_vae, vivid_vae

from vae_helpers import evaluate
from vae_helpers.evaluation import evaluate_vae, image_quality, nearest_images, recover_factors, write_report
from vae_helpers.models import decode_latents, encode_images, to_float

TRAIN, TEST = random_pixels(48, seed=1), random_pixels(24, seed=2)
BETA = 0.001


def mean_colours(pixels: torch.Tensor) -> torch.Tensor:
    """A feature extractor that looks at four parts of a picture: (B, 12)."""
    return torch.nn.functional.avg_pool2d(pixels.float(), 8).flatten(1)


def labels(vae, test) -> dict[str, torch.Tensor]:
    return {
        "first": encode_images(vae, test)[0][:, 0],
        "brightness": test.float().mean((1, 2, 3)),
        "same": torch.ones(len(test)),
    }


def evaluation(vae=None, test=TEST, beta=BETA, **options):
    vae = vae or vivid_vae()
    options = {"labels": labels(vae, test), "extractor": mean_colours, "images": "24 drawn ones"} | options
    return evaluate(vae, TRAIN, test, beta, **options)


@pytest.fixture(scope="module")
def one():
    return evaluation()


def flat(value, name="") -> dict[str, float]:
    """Every number in nested dicts, by its path."""
    if isinstance(value, dict):
        return {path: number for key, part in value.items() for path, number in flat(part, f"{name}/{key}").items()}
    return {name: value} if isinstance(value, int | float) else {}


def test_the_metrics_are_those_of_the_functions_they_are_named_after(one):
    vae, m = vivid_vae(), one.metrics
    assert m["vae"] == evaluate_vae(vae, TEST, BETA).summary()
    assert m["vae_on_train"]["n_images"] == 24 and m["linear_vae"]["beta"] == BETA
    assert (m["n_images"], m["n_train"], m["n_train_in_all"], m["images"]) == (24, 48, 48, "24 drawn ones")
    mu, _ = encode_images(vae, TEST)
    assert m["image_quality"]["vae"]["psnr"] == pytest.approx(image_quality(decode_latents(vae, mu), TEST).psnr)
    varying = {name: values for name, values in labels(vae, TEST).items() if name != "same"}
    assert m["factor_r2"] == recover_factors(mu, varying).summary()
    assert m["noise_std"] == pytest.approx((BETA * 768 / 2) ** 0.5)
    assert m["bits_per_dimension"]["importance_weighted"] <= m["bits_per_dimension"]["elbo"]
    assert m["samples"]["k"] == 5 and m["samples"]["nearest_ratio"] > 0 and m["features"]["network"] == "mean_colours"
    assert set(m["samples"]["generated"]) == set(m["samples"]["real_vs_real"]) == {"frechet", "precision", "recall", "coverage"}


def test_the_closest_pictures_are_looked_for_in_all_of_train(one):
    found = evaluation(max_images=16)
    assert (found.metrics["n_images"], found.metrics["n_train"], found.metrics["n_train_in_all"]) == (16, 16, 48)
    _, distance = nearest_images(found.pictures["samples"]["new dog"], TRAIN)
    shown = torch.sub(*found.pictures["closest"].values()).square().mean((1, 2, 3)).sqrt()
    assert shown.tolist() == pytest.approx(distance.sort().values[:8].tolist())


def test_all_is_the_same_again_and_another_seed_changes_only_what_is_drawn(one):
    assert flat(evaluation().metrics) == pytest.approx(flat(one.metrics), rel=1e-6)
    first, other = flat(one.metrics), flat(evaluation(seed=1).metrics)
    assert other["/image_quality/vae/psnr"] == pytest.approx(first["/image_quality/vae/psnr"])
    assert other["/vae/recon_sampled"] != first["/vae/recon_sampled"]
    assert other["/samples/generated/frechet"] != first["/samples/generated/frechet"]


def test_without_labels_nothing_is_said_of_factors():
    assert "factor_r2" not in evaluation(labels=None).metrics


@pytest.mark.parametrize("n", [2, 3, 8, 11, 12])
def test_of_few_images_what_can_be_measured_is_and_the_rest_says_what_it_needs(tmp_path, n):
    found = evaluation(test=TEST[:n])
    left_out = {name: least for name, least in {"factor_r2": 8, "samples": 12}.items() if n < least}
    assert found.metrics["n_images"] == n and {"factor_r2", "samples"} - found.metrics.keys() == left_out.keys()
    verdicts = " ".join(write_report(found, tmp_path))
    assert (f"at least 12 test images, and there are {n}" in verdicts) == (n < 12)


def test_a_single_image_is_refused():
    with pytest.raises(ValueError, match="48 train and 1 test images: an evaluation needs at least 2 of each"):
        evaluation(test=TEST[:1], labels=None)


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags, self.sources, self.alts, self.words = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        self.alts += [value for name, value in attributes if name == "alt"]

    def handle_data(self, data):
        self.words += data


def test_the_page_needs_no_other_file_and_says_in_words_what_was_found(tmp_path):
    found = evaluation(images="24 <drawn> ones")
    verdicts = write_report(found, tmp_path / "new", "A <title> & more")
    page = Page((tmp_path / "new/report.html").read_text(encoding="utf-8"))
    assert page.tags.count("img") == len(page.alts) == 3 and all(page.alts)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    words = " ".join(page.words.split("td {")[-1].split())
    assert "A <title> & more" in words and "24 <drawn> ones" in words and "seed 0" in words
    assert len(verdicts) == 5
    for verdict in verdicts:
        assert words.count(verdict) == 2  # in short, and where it belongs
    assert not re.search(r"\bloss\b|undefined|None", words, re.IGNORECASE)
    assert json.loads((tmp_path / "new/metrics.json").read_text()) == found.metrics


def test_with_beta_zero_there_are_no_bounds_and_the_page_says_why(tmp_path):
    found = evaluation(beta=0.0)
    assert not {"bits_per_dimension", "log_likelihood_nats", "linear_vae"} & set(found.metrics)
    said = " ".join(write_report(found, tmp_path))
    assert "cannot be said, because it was trained with beta 0" in said


def test_verdicts_turn_with_the_metrics(tmp_path):
    class Useless(type(vivid_vae())):
        def decode(self, z):
            return to_float(TRAIN).roll(1, 0)[: len(z)]  # training images, whatever it is asked for

    useless = Useless(latent_dim=12, widths=(8, 8, 8), image_size=16).eval()
    said = " ".join(write_report(evaluation(vae=useless), tmp_path))
    assert "WORSE than from as many principal components" in said and "SUSPICIOUSLY CLOSE to training dogs" in said
    assert "not copies of training dogs" in " ".join(write_report(evaluation(), tmp_path))


@pytest.mark.slow
def test_memory_stays_bounded_however_many_images_there_are():
    resource = pytest.importorskip("resource")
    train = random_pixels(8, 56).repeat(12_500, 1, 1, 1)  # as floats 3.8 GB
    vae = tiny_vae(image_size=56)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = evaluate(vae, train, train[:20_000], extractor=mean_colours, max_images=2000)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6  # GB on Linux
    assert found.metrics["n_images"] == 2000 and grown < 2
