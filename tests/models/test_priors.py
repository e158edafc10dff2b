import pytest
import torch

from vae_helpers.models import FullGaussian, GaussianMixture, LatentFlow, Prior, StandardNormal

SHAPE = (2, 2, 2)
KINDS = [
    StandardNormal(SHAPE),
    FullGaussian(SHAPE),
    GaussianMixture(SHAPE, n_components=2),
    LatentFlow(SHAPE, width=16, depth=1, heads=2),
]


def two_modes(n: int, seed: int = 0) -> torch.Tensor:
    """(n, 2, 2, 2): half of the latents around -2, half around +2, width 0.3, all numbers of a latent on the same side."""
    torch.manual_seed(seed)
    side = torch.where(torch.rand(n) < 0.5, -2.0, 2.0).view(n, 1, 1, 1)
    return side + 0.3 * torch.randn(n, *SHAPE)


@pytest.fixture(scope="module", params=KINDS, ids=lambda prior: type(prior).__name__)
def fitted(request) -> Prior:
    torch.manual_seed(0)
    settings = {"steps": 5} if isinstance(request.param, LatentFlow) else {}
    return request.param.fit(two_modes(200), **settings)


def test_samples_have_the_shape_of_latents_and_follow_from_the_generator(fitted):
    first, again, other = (fitted.sample(5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.shape == (5, *SHAPE) and first.dtype == torch.float32
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_prior_gives_the_same_samples_after_being_saved_and_loaded(fitted, tmp_path):
    path = tmp_path / "prior.safetensors"
    fitted.save(path)
    loaded = type(fitted).load(path)
    assert torch.equal(*(prior.sample(5, torch.Generator().manual_seed(1)) for prior in (fitted, loaded)))


def test_a_prior_in_half_precision_gives_nearly_the_same_samples(fitted, tmp_path):
    fitted.save(tmp_path / "prior.safetensors", torch.float16)
    loaded = type(fitted).load(tmp_path / "prior.safetensors")
    samples = (prior.sample(5, torch.Generator().manual_seed(1)) for prior in (fitted, loaded))
    torch.testing.assert_close(*samples, atol=0.05, rtol=0.05)


def test_a_file_of_another_prior_is_refused(fitted, tmp_path):
    fitted.save(tmp_path / "prior.safetensors")
    other = FullGaussian if isinstance(fitted, StandardNormal) else StandardNormal
    with pytest.raises(ValueError, match=f"holds {type(fitted).__name__}, not a {other.__name__}"):
        other.load(tmp_path / "prior.safetensors")


def test_latents_of_another_shape_are_refused(fitted):
    with pytest.raises(ValueError, match=r"latents \(N, 2, 2, 2\)"):
        fitted.fit(torch.zeros(10, 8))


def test_a_full_gaussian_recovers_mean_and_covariance():
    torch.manual_seed(0)
    factor, mean, n = torch.randn(8, 8), torch.randn(8), 50_000
    latents = (mean + torch.randn(n, 8) @ factor.T).unflatten(1, SHAPE)
    samples = FullGaussian(SHAPE).fit(latents).sample(n, torch.Generator().manual_seed(0)).flatten(1)
    covariance = factor @ factor.T
    spread = covariance.diagonal().sqrt()
    assert ((samples.mean(0) - mean).abs() < 5 * spread * (2 / n) ** 0.5).all()
    assert ((samples.T.cov() - covariance).abs() < 5 * torch.outer(spread, spread) * (4 / n) ** 0.5).all()


def test_a_full_gaussian_takes_fewer_latents_than_numbers():
    assert FullGaussian(SHAPE).fit(two_modes(4)).sample(3).isfinite().all()


def test_one_gaussian_fills_the_gap_between_two_modes_and_a_mixture_does_not():
    gap = {}
    for prior in (FullGaussian(SHAPE), GaussianMixture(SHAPE, n_components=2)):
        means = prior.fit(two_modes(2000)).sample(2000, torch.Generator().manual_seed(0)).flatten(1).mean(1)
        gap[type(prior)] = (means.abs() < 1).float().mean()
        assert 0.45 < (means > 0).float().mean() < 0.55
    assert gap[FullGaussian] > 0.3 and gap[GaussianMixture] < 0.01


def test_the_flow_finds_both_modes_and_leaves_the_gap_empty():
    torch.manual_seed(0)
    flow, reports = LatentFlow(SHAPE, width=32, depth=1, heads=2, dropout=0.0), []
    flow.fit(two_modes(4000), steps=400, batch_size=128, learning_rate=3e-3, on_report=reports.append)
    means = flow.sample(500, torch.Generator().manual_seed(0), steps=16).flatten(1).mean(1)
    assert 0.35 < (means > 0).float().mean() < 0.65
    assert (means.abs() < 1).float().mean() < 0.1
    assert abs(means.abs().mean() - 2) < 0.3
    assert reports[-1]["step"] == 400 and len(reports) == 50
    assert reports[-1]["loss"] < 0.7 * reports[0]["loss"]
    held_out = two_modes(500, seed=1)
    assert flow.loss(held_out) == flow.loss(held_out) < LatentFlow(SHAPE, width=32, depth=1, heads=2).loss(held_out)


def test_a_flow_stops_when_its_time_is_up():
    flow, reports = LatentFlow(SHAPE, width=16, depth=1, heads=2), []
    flow.fit(two_modes(100), steps=10**9, seconds=0.5, on_report=reports.append)
    assert 0.4 < reports[-1]["seconds"] < 5


def test_a_flow_over_means_and_widths_samples_as_wide_as_their_posteriors():
    torch.manual_seed(0)
    flow = LatentFlow(SHAPE, width=16, depth=1, heads=2, dropout=0.0)
    means = torch.zeros(100, *SHAPE)
    flow.fit(means, std=torch.full_like(means, 3.0), steps=50, learning_rate=1e-3)
    torch.testing.assert_close(flow.std, torch.full(SHAPE, 3.0))
    assert 2.4 < flow.sample(500, torch.Generator().manual_seed(0)).std() < 3.6


@pytest.mark.parametrize("wrong", [{"latent_shape": (8,)}, {"latent_shape": SHAPE, "width": 10, "heads": 4}])
def test_sizes_that_do_not_fit_a_flow_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        LatentFlow(**wrong)


def correlated(n: int, seed: int = 0) -> torch.Tensor:
    """(n, 2, 2, 2) of a Gaussian whose numbers have different widths and go together."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(8, 8, generator=generator) * torch.linspace(0.1, 2, 8)
    return (1 + torch.randn(n, 8, generator=generator) @ mix).unflatten(1, (2, 2, 2))


def test_a_flow_over_a_gaussian_is_that_gaussian_before_it_has_learned():
    z = correlated(20_000)
    flow = LatentFlow((2, 2, 2), width=16, depth=1, heads=2, gaussian_baseline=True).fit(z, steps=1, learning_rate=1e-9)
    new = flow.sample(20_000, torch.Generator().manual_seed(1), steps=64)
    torch.testing.assert_close(new.flatten(1).mean(0), z.flatten(1).mean(0), atol=0.1, rtol=0.05)
    wanted, found = z.flatten(1).T.cov(), new.flatten(1).T.cov()
    assert (found - wanted).norm() < 0.05 * wanted.norm()


def test_its_velocity_is_the_average_of_the_straight_lines_through_a_place():
    """Of lines from noise to a Gaussian z that pass near x at time t, the mean of z - noise."""
    z = correlated(400_000)
    flow = LatentFlow((2, 2, 2), width=16, depth=1, heads=2, gaussian_baseline=True).fit(
        z[:50_000], steps=1, learning_rate=1e-9
    )
    scaled, noise, t = (z - flow.mean) / flow.std, torch.randn(z.shape, generator=torch.Generator().manual_seed(2)), 0.6
    x = (1 - t) * noise + t * scaled
    # both Gaussian, so the average given x is linear in x: least squares finds it
    fitted = torch.linalg.lstsq(x.flatten(1), (scaled - noise).flatten(1)).solution
    with torch.no_grad():
        ours = flow.velocity(x[:1000], torch.full((1000,), t)).flatten(1)
    torch.testing.assert_close(ours, x[:1000].flatten(1) @ fitted, atol=0.05, rtol=0.05)


def test_posterior_widths_belong_to_the_gaussian_that_a_flow_starts_from():
    mu, width = correlated(2000), 3.0
    flow = LatentFlow((2, 2, 2), width=16, depth=1, heads=2, gaussian_baseline=True)
    flow.fit(mu, torch.full_like(mu, width), steps=1, learning_rate=1e-9)
    new = flow.sample(20_000, torch.Generator().manual_seed(1), steps=64).flatten(1)
    wanted = mu.flatten(1).T.cov() + width**2 * torch.eye(8)
    assert (new.T.cov() - wanted).norm() < 0.1 * wanted.norm()


def test_a_flow_over_a_gaussian_can_be_kept(tmp_path):
    flow = LatentFlow((2, 2, 2), width=16, depth=1, heads=2, gaussian_baseline=True).fit(correlated(100), steps=2)
    flow.save(tmp_path / "flow.safetensors")
    again = LatentFlow.load(tmp_path / "flow.safetensors")
    draw = {"n": 3, "steps": 2}
    torch.testing.assert_close(
        again.sample(**draw, generator=torch.Generator().manual_seed(0)),
        flow.sample(**draw, generator=torch.Generator().manual_seed(0)),
    )
