"""The guided posterior against Brownian motion, whose evidence is known."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from neurodyn.nets.encoders import make_encoder
from neurodyn.noise import RowNoise
from neurodyn.posteriors.base import PosteriorPaths
from neurodyn.posteriors.guided import GuidedPosterior
from neurodyn.sde.graph import GraphLaw
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.prior import Prior
from neurodyn.series import SeriesBatch

NOISE, SCALE = 0.02, torch.tensor([0.7, 1.3], dtype=torch.float64)


def batch() -> SeriesBatch:
    """Two variables at irregular times; the second is missing at some, the last among them."""
    times = torch.tensor([[0.0, 0.3, 0.35, 1.0, 1.4], [0.0, 0.5, 0.9, 1.3, 1.3]], dtype=torch.float64)
    values = torch.tensor(
        [
            [[0.2, -0.1], [0.5, 0.4], [0.6, 0.0], [-0.2, 1.5], [0.1, 0.0]],
            [[-0.4, 0.0], [0.1, 0.3], [0.3, -0.6], [0.9, 0.2], [0.0, 0.0]],
        ],
        dtype=torch.float64,
    )
    mask = torch.ones(2, 5, 2, dtype=torch.bool)
    mask[0, 2, 1] = mask[0, 4, 1] = mask[1, 0, 1] = False
    mask[1, 4] = False
    return SeriesBatch(times, values, mask, ids=("a", "b"))


def drawn(longest: float, samples: int, bend: float = 0.0) -> tuple[SeriesBatch, PosteriorPaths]:
    data, law = batch(), GraphLaw(2, "targets", hidden_size=4, scale=SCALE).double()
    with torch.no_grad():
        law.net.weight_out.zero_()  # no drift
    posterior = GuidedPosterior(
        2, 3, longest_step=longest, noise=torch.full((2,), NOISE), scale=SCALE, bend=torch.full((2,), bend)
    ).double()
    prior = Prior(law, GaussianInitial(2)).double()
    context = make_encoder("gru", 2, 3).double()(data)
    with torch.no_grad():
        return data, posterior(context, prior, RowNoise(0, data.ids or ()), samples)


def exact(data: SeriesBatch) -> list[float]:
    """log p(values) of each row: start N(0, 1), Brownian motion, independent noise."""
    found = []
    for row in range(2):
        total = 0.0
        for k in range(2):
            seen = data.mask[row, :, k]
            t, x = data.times[row, seen] - data.times[row, 0], data.values[row, seen, k]
            covariance = 1 + SCALE[k] ** 2 * torch.minimum(t, t[:, None]) + NOISE**2 * torch.eye(len(t)).double()
            total += float(MultivariateNormal(torch.zeros_like(x), covariance).log_prob(x))
        found.append(total)
    return found


@pytest.mark.parametrize("longest", [10.0, 0.12])
def test_without_drift_it_is_the_exact_bridge_whatever_the_steps(longest: float) -> None:
    data, paths = drawn(longest, 4000)
    log_prob = Normal(paths.z, NOISE).log_prob(data.values)
    bound = torch.where(data.mask, log_prob, 0.0).sum((-1, -2)).mean(0) - paths.path_kl - paths.initial_kl
    gap = torch.tensor(exact(data)) - bound
    # what is lost is of the order of the squared noise, and the start of the variable that is first seen later
    assert float(gap[0].abs()) < 0.05
    assert 0 < float(gap[1]) < 1


def test_paths_pass_through_the_values_and_a_bent_curve_costs_what_it_bends() -> None:
    data, straight = drawn(0.05, 400)
    seen = data.mask.expand(400, -1, -1, -1)
    missed = (straight.z - data.values)[seen]
    assert float(missed.std()) == pytest.approx(NOISE, rel=0.1)
    _, bent = drawn(0.05, 400, bend=1.0)
    assert float((bent.z - data.values)[seen].std()) == pytest.approx(NOISE, rel=0.1)
    assert (bent.path_kl > straight.path_kl).all()
