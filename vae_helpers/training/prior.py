"""Priors for the latents of one's own photos: several kinds are fitted, and held-out latents say which is the best."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..models.flow import LatentFlow
from ..models.priors import FullGaussian, GaussianMixture, Prior
from .optim import fit_flow

KINDS = ("gaussian", "mixture", "breeds", "flow")
PATIENCE = 5
"""How many reports of `fit_flow` in a row, each after a fiftieth of its steps, may bring no better held-out loss."""


def fit_prior(
    kind: str,
    mu: Tensor,
    std: Tensor,
    held_out: Tensor,
    breeds: Sequence[str | None] = (),
    *,
    steps: int = 3000,
    seed: int = 0,
    state_path: Path | None = None,
) -> Prior:
    """A prior of latents with these posterior means and standard deviations, each (N, *latent_shape).

    kind: "gaussian"; "mixture" of eight; "breeds", a Gaussian for each; or "flow", which is trained for `steps` at most, and
    ends before where `held_out`, latents of other photos (M, *latent_shape), are predicted no better: the best weights are
    kept. breeds: of each latent, for "breeds". seed: of the flow. state_path: as in `fit_flow`. Raises ValueError for another
    kind, latents that do not fit, and "breeds" without at least two of them.
    """
    shape = tuple(mu.shape[1:])
    if kind == "gaussian":
        return FullGaussian(shape).fit(mu, std)
    if kind == "mixture":
        return GaussianMixture(shape, min(8, len(mu))).fit(mu, std)
    if kind == "breeds":
        known, names = torch.tensor([breed is not None for breed in breeds], dtype=torch.bool), sorted({*breeds} - {None})
        if len(names) < 2:
            raise ValueError("a Gaussian a breed needs photos of two breeds at least, in folders that bear their names")
        label = torch.tensor([names.index(breed) for breed in breeds if breed is not None])
        return GaussianMixture(shape, names=names).fit(mu[known], std[known], label)
    if kind != "flow":
        raise ValueError(f"kind={kind!r} must be one of {', '.join(KINDS)}")
    torch.manual_seed(seed)
    flow, best, since = LatentFlow(shape, 192, 4, 4, gaussian_baseline=True), (math.inf, {}), 0

    def is_over(report: dict[str, float]) -> bool:
        nonlocal best, since
        loss, since = flow.validation_loss(held_out), since + 1
        if loss < best[0]:
            best, since = (loss, copy.deepcopy(flow.state_dict())), 0
        return since >= PATIENCE

    fit_flow(flow, mu, std, steps=steps, batch_size=128, seed=seed, on_report=is_over, state_path=state_path)
    flow.load_state_dict(best[1])
    return flow
