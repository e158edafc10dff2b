"""Priors of one's own latents: which kinds there are, and which one held-out latents choose."""

import pytest
import torch

from vae_helpers.models import LatentFlow, StandardNormal
from vae_helpers.training import KINDS, fit_flow, fit_prior


def latents(n, seed, breeds=3):
    """(mu, std, breed of each): clusters of a number each, three apart, with narrow posteriors."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(breeds, (n,), generator=generator)
    mu = torch.randn(n, 4, generator=generator) + 3.0 * label[:, None]
    return mu, torch.full_like(mu, 0.1), [f"breed {i}" for i in label.tolist()]


def test_every_kind_is_likelier_than_a_standard_normal_and_a_gaussian_a_breed_than_one_for_all():
    (mu, std, breeds), (held_out, _, _) = latents(600, seed=1), latents(200, seed=2)
    priors = {kind: fit_prior(kind, mu, std, held_out, breeds, steps=100) for kind in KINDS}
    nats = {kind: prior.log_prob(held_out).mean().item() for kind, prior in priors.items()}
    standard = StandardNormal((4,)).log_prob(held_out).mean().item()
    assert min(nats.values()) > standard + 5
    assert nats["breeds"] > nats["gaussian"] + 0.3


def test_a_prior_of_breeds_draws_the_breed_that_is_asked_for_and_leaves_out_photos_without_one():
    mu, std, breeds = latents(300, seed=1)
    stray = torch.full((1, 4), 1000.0)
    prior = fit_prior("breeds", torch.cat([mu, stray]), torch.cat([std, std[:1]]), mu, [*breeds, None])
    assert prior.names == ("breed 0", "breed 1", "breed 2")
    for i, name in enumerate(prior.names):
        assert (prior.sample(500, torch.Generator().manual_seed(0), name).mean(0) - 3 * i).abs().max() < 0.4
    each = prior.sample(4, torch.Generator().manual_seed(0), ["breed 2", "breed 0", "breed 2", "breed 0"])
    for i, name in ((0, "breed 2"), (1, "breed 0")):
        torch.testing.assert_close(each[i::2], prior.sample(4, torch.Generator().manual_seed(0), name)[i::2])
    with pytest.raises(ValueError):
        prior.sample(1, name="poodle")


def test_breeds_are_refused_where_there_is_one_and_so_is_an_unknown_kind():
    mu, std, _ = latents(20, seed=0)
    with pytest.raises(ValueError, match="two breeds at least"):
        fit_prior("breeds", mu, std, mu, ["pug"] * 20)
    with pytest.raises(ValueError, match="kind='kde' must be one of gaussian, mixture, breeds, flow"):
        fit_prior("kde", mu, std, mu)


def test_a_flow_ends_where_held_out_latents_are_predicted_no_better_and_keeps_its_best_weights():
    generator = torch.Generator().manual_seed(0)
    few, held_out = torch.randn(12, 4, generator=generator), torch.randn(500, 4, generator=generator)
    short, long = (fit_prior("flow", few, 0.01 * torch.ones_like(few), held_out, steps=steps) for steps in (150, 600))
    assert long.validation_loss(held_out) < 1.5 * short.validation_loss(held_out)  # by heart, it would be many times


def test_a_flow_that_was_stopped_goes_on_and_leaves_no_state(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vae_helpers.training.progress.SAVE_EVERY", 0)
    mu, std, _ = latents(60, seed=1)
    path, steps = tmp_path / "prior_state.pth", []

    def fit(stop_at: int) -> None:
        def report(record: dict[str, float]) -> None:
            steps.append(record["step"])
            if record["step"] == stop_at:
                raise KeyboardInterrupt

        fit_flow(LatentFlow((4,), 32, 1, 2), mu, std, steps=50, batch_size=8, on_report=report, state_path=path)

    with pytest.raises(KeyboardInterrupt):
        fit(stop_at=20)
    assert path.exists() and steps == [*range(1, 21)]
    fit(stop_at=0)
    assert steps[20:] == [*range(20, 51)] and not path.exists()  # the step that was interrupted is taken again
    assert "Going on with the flow: 19 of 50 steps are done." in capsys.readouterr().out
