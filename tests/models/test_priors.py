"""One list of laws for every prior, then what belongs to one kind alone."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import multivariate_normal
from torch import Tensor

from vae_helpers.files import load_weights, save_weights
from vae_helpers.models import FullGaussian, GaussianMixture, LatentFlow, Prior, StandardNormal, load_prior
from vae_helpers.training import fit_flow

SHAPE = (2, 2, 2)
FIXTURES = Path(__file__).parents[1] / "fixtures" / "9addd0c"
KINDS = {
    "normal": StandardNormal,
    "gaussian": FullGaussian,
    "mixture": lambda shape: GaussianMixture(shape, n_components=2),
    "flow": lambda shape: LatentFlow(shape, width=16, depth=1, heads=2),
    "flow on a Gaussian": lambda shape: LatentFlow(shape, width=16, depth=1, heads=2, gaussian_baseline=True),
}


def learn(prior: Prior, mu: Tensor, std: Tensor | None = None) -> Prior:
    if isinstance(prior, LatentFlow):
        return fit_flow(prior, mu, std, steps=5, batch_size=16)
    return prior if isinstance(prior, StandardNormal) else prior.fit(mu, std)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_modes(n: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Tensor:
    """(n, *shape): half of the latents around -2, half around +2, width 0.3, all numbers of a latent on the same side."""
    side = torch.where(torch.rand(n, generator=seeded(seed)) < 0.5, -2.0, 2.0).view(n, *[1] * len(shape))
    return side + 0.3 * torch.randn(n, *shape, generator=seeded(seed + 1000))


def correlated(n: int, seed: int = 0) -> Tensor:
    """(n, 2, 2, 2) of a Gaussian whose numbers have different widths and go together."""
    mix = torch.randn(8, 8, generator=seeded(seed)) * torch.linspace(0.1, 2, 8)
    return (1 + torch.randn(n, 8, generator=seeded(seed + 1000)) @ mix).unflatten(1, SHAPE)


@pytest.fixture(scope="module", params=KINDS)
def fitted(request) -> Prior:
    return learn(KINDS[request.param](SHAPE), two_modes(200))


@pytest.fixture(params=KINDS)
def build(request):
    return KINDS[request.param]


def test_samples_have_the_shape_of_latents_and_follow_from_the_generator_alone(fitted, monkeypatch):
    first, other = (fitted.sample(5, seeded(seed)) for seed in (1, 2))
    monkeypatch.setenv("VAE_BF16", "1")
    again = fitted.sample(5, seeded(1))
    assert first.shape == (5, *SHAPE) and first.dtype == torch.float32
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_log_prob_is_one_number_for_each_latent_and_the_same_again(fitted):
    z = two_modes(7, seed=3)
    nats = fitted.log_prob(z)
    assert nats.shape == (7,) and nats.dtype == torch.float64 and nats.isfinite().all()
    assert torch.equal(nats, fitted.log_prob(z)) and not torch.equal(nats, fitted.log_prob(z + 0.1))


def test_a_prior_that_was_saved_is_the_same_prior(fitted, tmp_path):
    fitted.save(tmp_path / "prior.safetensors")
    loaded, z = load_prior(tmp_path / "prior.safetensors"), two_modes(3)
    assert type(loaded) is type(fitted) and not loaded.training
    assert torch.equal(loaded.sample(5, seeded(1)), fitted.sample(5, seeded(1)))
    torch.testing.assert_close(loaded.log_prob(z), fitted.log_prob(z))


def test_a_prior_in_half_precision_gives_nearly_the_same_samples(fitted, tmp_path):
    fitted.save(tmp_path / "prior.safetensors", torch.float16)
    loaded = load_prior(tmp_path / "prior.safetensors")
    torch.testing.assert_close(loaded.sample(5, seeded(1)), fitted.sample(5, seeded(1)), atol=0.05, rtol=0.05)


def test_learning_drawing_and_measuring_leave_the_global_generator_alone(build):
    torch.manual_seed(5)
    wanted = torch.randn(3)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    prior = build(SHAPE)  # new weights are drawn from it, as everywhere in torch
    torch.set_rng_state(state)
    learn(prior, two_modes(50)).sample(2, seeded(0))
    prior.log_prob(two_modes(2))
    assert torch.equal(torch.randn(3), wanted)


def test_density_and_samples_are_of_the_same_distribution_which_is_a_vector_here(build):
    prior = learn(build((2,)), two_modes(500, (2,)))
    axis = torch.linspace(-6, 6, 41)
    grid = torch.cartesian_prod(axis, axis)
    fewer = {"steps": 16, "n_probes": 1} if isinstance(prior, LatentFlow) else {}
    mass = prior.log_prob(grid, **fewer).exp() * (axis[1] - axis[0]) ** 2
    assert mass.sum().item() == pytest.approx(1, abs=0.02)
    drawn = prior.sample(2000, seeded(0)).double()
    torch.testing.assert_close(mass @ grid.double(), drawn.mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(mass @ grid.double().square(), drawn.square().mean(0), atol=0.1, rtol=0.1)


@pytest.mark.parametrize("build", [kind for kind in KINDS if kind != "normal"], indirect=True)  # which learns nothing
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ((torch.zeros(10, 8), None), r"latents \(N, 2, 2, 2\)"),
        ((torch.zeros(1, *SHAPE), None), "N > 1"),
        ((torch.zeros(10, *SHAPE), torch.ones(9, *SHAPE)), r"std \(9, 2, 2, 2\)"),
        ((torch.zeros(10, *SHAPE).index_fill(0, torch.tensor([3, 5]), torch.nan), None), "2 of 10 latents"),
        ((torch.zeros(10, *SHAPE), torch.zeros(10, *SHAPE).index_fill(0, torch.tensor(4), torch.inf)), "1 of 10 latents"),
        ((torch.zeros(10, *SHAPE), torch.full((10, *SHAPE), -1.0)), "10 of 10 latents .* negative std"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(build, broken, message):
    with pytest.raises(ValueError, match=message):
        learn(build(SHAPE), *broken)


def test_a_file_of_something_else_or_with_nan_is_refused(tmp_path):
    gaussian = FullGaussian(SHAPE).fit(two_modes(20))
    gaussian.means[0, 3] = torch.nan
    gaussian.save(tmp_path / "nan.safetensors")
    LatentFlow(SHAPE, width=16, depth=1, heads=2).save(tmp_path / "flow.safetensors")
    state, metadata = load_weights(tmp_path / "flow.safetensors")
    save_weights(tmp_path / "deeper.safetensors", state, metadata | {"arguments": metadata["arguments"] | {"depth": 2}})
    for name, message in {"nan": "NaN", "deeper": "network.blocks.1"}.items():
        with pytest.raises(ValueError, match=message):
            load_prior(tmp_path / f"{name}.safetensors")


def test_the_closed_forms_are_those_of_scipy():
    z, mu = two_modes(50, seed=7), two_modes(300)
    flat = z.flatten(1).double().numpy()
    torch.testing.assert_close(StandardNormal(SHAPE).log_prob(z).numpy(), multivariate_normal(np.zeros(8)).logpdf(flat))
    for prior in (FullGaussian(SHAPE).fit(mu), GaussianMixture(SHAPE, 3).fit(mu)):
        scale = prior.scale_tril.double()
        parts = [multivariate_normal(mean.double(), scale @ scale.T).pdf(flat) for mean in prior.means]
        wanted = np.log(prior.weights.double().numpy() @ np.stack(parts))
        np.testing.assert_allclose(prior.log_prob(z).numpy(), wanted, rtol=1e-6)


def test_a_full_gaussian_has_the_mean_and_covariance_of_its_latents_and_draws_from_them():
    z = correlated(50_000)
    prior = FullGaussian(SHAPE).fit(z)
    flat, drawn = z.flatten(1), prior.sample(50_000, seeded(0)).flatten(1)
    covariance, spread = flat.T.cov(), flat.std(0)
    torch.testing.assert_close(prior.means[0], flat.mean(0))
    torch.testing.assert_close(prior.scale_tril @ prior.scale_tril.T, covariance, atol=1e-3, rtol=1e-3)
    assert ((drawn.mean(0) - flat.mean(0)).abs() < 5 * spread * (1 / 50_000) ** 0.5).all()
    assert ((drawn.T.cov() - covariance).abs() < 5 * torch.outer(spread, spread) * (2 / 50_000) ** 0.5).all()


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("z", [correlated(4), torch.ones(4, *SHAPE)], ids=["fewer latents than numbers", "all the same"])
def test_directions_without_width_do_no_harm(build, z):
    for std in (None, torch.zeros_like(z)):
        assert learn(build(SHAPE), z, std).sample(3, seeded(0)).isfinite().all()


@pytest.mark.parametrize("n_components", [1, 2])
def test_the_mean_of_the_posteriors_variances_is_added_to_the_covariance_exactly(n_components):
    mu, std = two_modes(500), torch.rand(500, *SHAPE, generator=seeded(1))
    prior = GaussianMixture(SHAPE, n_components).fit(mu, std)
    side = mu.flatten(1).mean(1).sign()[:, None] * (n_components - 1)  # which of the two each belongs to, without a doubt
    of_means = sum((side == s).double().mean() * mu.flatten(1)[side[:, 0] == s].T.cov(correction=0) for s in side.unique())
    wanted = of_means + std.square().mean(0).flatten().double().diag()
    torch.testing.assert_close((prior.scale_tril @ prior.scale_tril.T).double(), wanted, atol=1e-3, rtol=1e-3)


def test_one_gaussian_fills_the_gap_between_two_modes_and_a_mixture_does_not():
    gap, nats = {}, {}
    for prior in (FullGaussian(SHAPE), GaussianMixture(SHAPE, n_components=2)):
        means = prior.fit(two_modes(2000)).sample(2000, seeded(0)).flatten(1).mean(1)
        gap[type(prior)], nats[type(prior)] = (means.abs() < 1).float().mean(), prior.log_prob(two_modes(500, seed=1)).mean()
        assert 0.45 < (means > 0).float().mean() < 0.55
    assert gap[FullGaussian] > 0.3 and gap[GaussianMixture] < 0.01
    assert nats[GaussianMixture] > nats[FullGaussian] + 1


def test_the_flow_finds_both_modes_and_leaves_the_gap_empty():
    torch.manual_seed(0)
    flow, reports = LatentFlow(SHAPE, width=32, depth=1, heads=2, dropout=0.0), []
    held_out = two_modes(200, seed=1)
    untrained = flow.validation_loss(held_out)
    fit_flow(flow, two_modes(4000), steps=400, batch_size=128, learning_rate=3e-3, on_report=reports.append)
    means = flow.sample(500, seeded(0), steps=16).flatten(1).mean(1)
    assert 0.35 < (means > 0).float().mean() < 0.65
    assert (means.abs() < 1).float().mean() < 0.1
    assert abs(means.abs().mean() - 2) < 0.3
    assert reports[-1]["step"] == 400 and len(reports) == 50
    assert reports[-1]["loss"] < 0.7 * reports[0]["loss"]
    assert flow.validation_loss(held_out) == flow.validation_loss(held_out) < untrained
    assert (
        flow.log_prob(held_out[:50], steps=16).mean() > FullGaussian(SHAPE).fit(two_modes(4000)).log_prob(held_out[:50]).mean()
    )


def test_one_seed_trains_one_flow_dropout_included():
    torch.manual_seed(0)
    start = LatentFlow(SHAPE, width=16, depth=1, heads=2, dropout=0.5)
    flows = [fit_flow(copy.deepcopy(start), two_modes(50), steps=3, batch_size=8, seed=seed) for seed in (0, 0, 1)]
    one, again, other = (flow.network.proj_out.weight for flow in flows)
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_a_flow_that_never_makes_a_finite_step_raises():
    flow = LatentFlow(SHAPE, 16, 1, 2)
    torch.nn.init.constant_(flow.network.proj_out.bias, torch.nan)
    with pytest.raises(FloatingPointError, match="10 times in a row"):
        fit_flow(flow, two_modes(20), steps=100, batch_size=4)


def test_a_flow_over_means_and_widths_samples_as_wide_as_their_posteriors():
    torch.manual_seed(0)
    flow, mu = LatentFlow(SHAPE, width=16, depth=1, heads=2, dropout=0.0), torch.zeros(100, *SHAPE)
    fit_flow(flow, mu, torch.full_like(mu, 3.0), steps=50)
    torch.testing.assert_close(flow.std, torch.full(SHAPE, 3.0))
    assert 2.4 < flow.sample(500, seeded(0)).std() < 3.6


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="width=10 must be a multiple of heads=4"):
        LatentFlow(SHAPE, width=10, heads=4)


def untrained_on_gaussian(mu: Tensor, std: Tensor | None = None) -> LatentFlow:
    """The network's last layer starts at zero, so that such a flow is its Gaussian, but for the steps of its integration."""
    flow = LatentFlow(SHAPE, width=16, depth=1, heads=2, gaussian_baseline=True)
    flow.set_statistics(*flow.check_latents(mu, std))
    return flow


@pytest.mark.parametrize("std", [None, 3.0])
def test_a_flow_over_a_gaussian_is_that_gaussian_before_it_has_learned(std):
    mu = correlated(2000)
    widths = None if std is None else torch.full_like(mu, std)
    flow, gaussian = untrained_on_gaussian(mu, widths), FullGaussian(SHAPE).fit(mu, widths)
    z = gaussian.sample(30, seeded(2))
    torch.testing.assert_close(flow.log_prob(z, steps=64, n_probes=1), gaussian.log_prob(z), atol=0.05, rtol=0)
    new = flow.sample(1500, seeded(1), steps=32).flatten(1)
    wanted = gaussian.scale_tril @ gaussian.scale_tril.T
    torch.testing.assert_close(new.mean(0), gaussian.means[0], atol=0.3, rtol=0.05)
    assert (new.T.cov() - wanted).norm() < 0.15 * wanted.norm()


def test_its_velocity_is_the_average_of_the_straight_lines_through_a_place():
    """Of lines from noise to a Gaussian z that pass near x at time t, the mean of z - noise."""
    z = correlated(400_000)
    flow, t = untrained_on_gaussian(z[:50_000]), 0.6
    scaled, noise = (z - flow.mean) / flow.std, torch.randn(z.shape, generator=seeded(2))
    x = (1 - t) * noise + t * scaled
    # both Gaussian, so the average given x is linear in x: least squares finds it
    fitted = torch.linalg.lstsq(x.flatten(1), (scaled - noise).flatten(1)).solution
    with torch.no_grad():
        ours = flow.velocity(x[:1000], torch.full((1000,), t)).flatten(1)
    torch.testing.assert_close(ours, x[:1000].flatten(1) @ fitted, atol=0.05, rtol=0.05)


def test_a_flow_of_tree_9addd0c_loads_and_draws_what_it_drew_there():
    flow = load_prior(FIXTURES / "flow.safetensors")
    assert flow.gaussian_baseline  # then called over_gaussian
    wanted = load_file(FIXTURES / "flow_samples.safetensors")["z"]
    torch.testing.assert_close(flow.sample(len(wanted), seeded(3)), wanted, atol=1e-4, rtol=1e-4)
