"""The bound of bridges through the values, against exact densities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from neurodyn.noise import RowNoise
from neurodyn.posteriors.bridge import BridgePosterior, bridge_cost, smoothness
from neurodyn.series import SeriesBatch


@dataclass
class LinearStub:
    """dz_j = (c_j + a_j z_j) dt + g_j dW_j, in the words of a `GraphLaw`."""

    c: Tensor
    a: Tensor
    g: Tensor

    @property
    def log_scale(self) -> Tensor:
        return self.g.log()

    def drift_slope(self, z: Tensor, graph: Tensor) -> tuple[Tensor, Tensor]:
        return self.c + self.a * z, self.a.expand_as(z)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def bound(posterior: BridgePosterior, batch: SeriesBatch, law: LinearStub, samples: int = 2, seed: int = 0) -> Tensor:
    """(B, D) nats."""
    noise = RowNoise.of(batch, torch.Generator().manual_seed(seed))
    points = posterior.double().eval().requires_grad_(False)(batch, law.g, noise, samples)
    return points.constant - bridge_cost(points, law, torch.ones(1)).sum(1)  # type: ignore[arg-type]


def pairs(length: float | Tensor, rows: int = 6) -> SeriesBatch:
    """Rows of two visits, `length` apart."""
    generator = torch.Generator().manual_seed(5)
    start = torch.rand(rows, 1, generator=generator, dtype=torch.float64)
    times = torch.cat((start, start + length), 1)
    return SeriesBatch(times, torch.randn(rows, 2, 2, generator=generator, dtype=torch.float64))


def test_a_constant_drift_is_exact() -> None:
    batch = pairs(torch.linspace(0.1, 2, 6, dtype=torch.float64)[:, None])
    law = LinearStub(numbers(0.5, -2.0), numbers(0.0, 0.0), numbers(0.3, 1.5))
    length = batch.times.diff(dim=1)
    exact = Normal(batch.values[:, 0] + law.c * length, law.g * length.sqrt()).log_prob(batch.values[:, 1])
    assert torch.allclose(bound(BridgePosterior(2), batch, law), exact, rtol=1e-10)


def test_a_curved_path_costs_its_detour() -> None:
    """Three visits: the spline leaves the two chords, and pays the integral of the squared difference of velocities."""
    times = numbers(0.0, 0.5, 1.5).expand(1, 3)
    batch = SeriesBatch(times, numbers(0.0, 1.0, -0.5).reshape(1, 3, 1))
    law = LinearStub(numbers(0.2), numbers(0.0), numbers(0.7))
    length, change = times.diff(), batch.values[0, :, 0].diff()
    exact = Normal(law.c * length, law.g * length.sqrt()).log_prob(change).sum()
    from scipy.interpolate import CubicSpline

    spline = CubicSpline(times[0], batch.values[0, :, 0], bc_type="natural")
    grid = (torch.arange(30000, dtype=torch.float64) + 0.5) / 20000
    chord = torch.where(grid < 0.5, change[0] / 0.5, change[1] / 1.0)
    detour = (torch.as_tensor(spline(grid, 1)) - chord).square().mean() * 1.5 / (2 * 0.7**2)
    assert float(bound(BridgePosterior(1), batch, law)) == pytest.approx(float(exact - detour), abs=1e-6)


def gap(length: float) -> Tensor:
    """Exact log transition density of Ornstein-Uhlenbeck processes less the bound, (B, D)."""
    batch, law = pairs(length, rows=40), LinearStub(numbers(0.3, -1.0), numbers(-1.0, 0.8), numbers(0.5, 1.0))
    decay = (law.a * length).exp()
    mean = batch.values[:, 0] * decay + law.c * (decay - 1) / law.a
    sd = law.g * ((decay.square() - 1) / (2 * law.a)).sqrt()
    return Normal(mean, sd).log_prob(batch.values[:, 1]) - bound(BridgePosterior(2), batch, law, samples=20000)


def test_a_linear_drift_stays_below_the_exact_density_and_tends_to_it() -> None:
    coarse, fine = gap(0.4), gap(0.2)
    assert (coarse > -2e-3).all() and (fine > -2e-3).all()
    # third order in the length
    assert 0.1 < float(fine.mean() / coarse.mean()) < 0.16 and float(fine.mean()) < 1e-3


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_with_noise_it_stays_below_the_exact_evidence(spread: float, share: float) -> None:
    """Brownian motion seen through noise, a flat law of the start: differences of the values are Gaussian."""
    sigma, law = 0.3, LinearStub(numbers(0.0), numbers(0.0), numbers(0.8))
    generator = torch.Generator().manual_seed(2)
    times = torch.tensor([0.0, 0.5, 1.3], dtype=torch.float64).expand(30, 3)
    batch = SeriesBatch(times, torch.randn(30, 3, 1, generator=generator, dtype=torch.float64))
    posterior = BridgePosterior(1, sigma)
    with torch.no_grad():
        posterior.log_spread.fill_(math.log(spread))
        posterior.slack.fill_(math.log(share / (1 - share)))
    first, second = (2 * sigma**2 + 0.64 * step for step in (0.5, 0.8))
    covariance = torch.tensor([[first, -(sigma**2)], [-(sigma**2), second]], dtype=torch.float64)
    exact = MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance).log_prob(batch.values[..., 0].diff())
    below = exact - bound(posterior, batch, law, samples=4000)[:, 0]
    # the samples' error, ten of them
    assert (below > -10 * 1.5 / 4000**0.5 * spread).all()


def test_small_noise_tends_to_exact_values() -> None:
    """With noise far below the motion the best bound is that of exact values, each first value known."""
    batch, law = pairs(1.0), LinearStub(numbers(0.3, -1.0), numbers(0.0, 0.0), numbers(0.5, 1.0))
    posterior = BridgePosterior(2, 1e-3)
    with torch.no_grad():
        posterior.log_spread.fill_(math.log(1e-3))
    noisy = bound(posterior, batch, law, samples=200)
    assert torch.allclose(noisy, bound(BridgePosterior(2), batch, law), atol=0.02)


def test_a_variable_has_its_own_intervals() -> None:
    """The constant of a variable that is missing at some visits is that of the series without them."""
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(3, 7, generator=generator, dtype=torch.float64).cumsum(1)
    values = torch.randn(3, 7, 2, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, 7, 2, generator=generator) < 0.6
    mask[:, 0, 0], mask[:, -1, 0], mask[:, 3] = True, True, True
    batch, law = SeriesBatch(times, values, mask), LinearStub(numbers(0, 0), numbers(0, 0), numbers(0.5, 2.0))
    together = BridgePosterior(2).double().eval()(batch, law.g, RowNoise.of(batch))
    for k in range(2):
        alone = SeriesBatch(times, values[..., k : k + 1], mask[..., k : k + 1]).compact()
        points = BridgePosterior(1).double().eval()(alone, law.g[k : k + 1], RowNoise.of(alone))
        assert torch.allclose(together.constant[:, k], points.constant[:, 0])
        # and the weights of its points add up to its own span
        span = alone.last_time - alone.first_time
        assert torch.allclose(together.weight[..., k].sum(1), span, rtol=1e-9)


def test_bridges_go_through_the_values() -> None:
    batch, law = pairs(0.5), LinearStub(numbers(0, 0), numbers(0, 0), numbers(1.0, 1.0))
    noise = RowNoise.of(batch, torch.Generator().manual_seed(0))
    points = BridgePosterior(2, num_times=4000).double()(batch, law.g, noise)
    late = points.passed[..., 0] > 0.999
    row = late.nonzero()[0, 0]
    assert (points.z[:, row][:, late[row]] - batch.values[row, 1]).abs().max() < 4 * (0.5 * 0.001) ** 0.5
    # halfway the spread is g sqrt(dt) / 2
    half = (points.passed[..., 0] - 0.5).abs() < 0.05
    centre = torch.lerp(batch.values[:, :1], batch.values[:, 1:], points.passed[..., :1])
    assert float((points.z[0] - centre)[..., 0][half].detach().std()) == pytest.approx(0.5**0.5 / 2, rel=0.1)


def test_a_variable_that_a_row_never_shows_costs_nothing() -> None:
    batch = pairs(0.5)
    mask = batch.mask.clone()
    mask[0, :, 1], mask[1, 0, 1] = False, False
    batch = SeriesBatch(batch.times, batch.values, mask)
    law = LinearStub(numbers(1, 1), numbers(1, 1), numbers(1, 1))
    assert (bound(BridgePosterior(2), batch, law)[:2, 1] == 0).all()


def test_with_steps_it_is_eulers_density() -> None:
    """Of any drift, over intervals up to the longest; each variable from its own values to its next."""
    generator = torch.Generator().manual_seed(1)
    times = numbers(0.0, 1.0, 2.0, 4.0, 5.0, 5.9).expand(3, 6)
    values = torch.randn(3, 6, 2, generator=generator, dtype=torch.float64)
    mask = torch.ones(3, 6, 2, dtype=torch.bool)
    mask[1, 4, 1] = False  # row 1 then has no interval of variable 1 from 4.0 on that is one step long
    batch, law = SeriesBatch(times, values, mask), LinearStub(numbers(0.3, -1.0), numbers(-1.0, 0.5), numbers(0.5, 2.0))
    length = times.diff(dim=1)[..., None]
    mean = values[:, :-1] + (law.c + law.a * values[:, :-1]) * length
    each = Normal(mean, law.g * length.sqrt()).log_prob(values[:, 1:])
    counted = (length < 1.5).expand(each.shape).clone()
    counted[1, 3:, 1] = False
    exact = torch.where(counted, each, 0.0).sum(1)
    posterior = BridgePosterior(2, steps=True, longest=1.25, num_times=5)
    assert torch.allclose(bound(posterior, batch, law), exact, rtol=1e-9)
    # random visits, one per stratum of five intervals, are all of them
    noise = RowNoise.of(batch)
    points = posterior.train()(batch, law.g, noise)
    cost = bridge_cost(points, law, torch.ones(1)).sum(1)  # type: ignore[arg-type]
    assert torch.allclose(points.constant - cost, exact, rtol=1e-9)


def test_smoothness_is_0_for_noise_and_1_for_smooth_motion() -> None:
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(20, 60, generator=generator, dtype=torch.float64).add(0.1).cumsum(1)
    walk = (
        torch.randn(20, 60, generator=generator, dtype=torch.float64)
        * times.diff(dim=1, prepend=times[:, :1] - 0.5).sqrt()
    )
    values = torch.stack((walk.cumsum(1), torch.sin(0.8 * times + torch.arange(20)[:, None]), times**3), -1)
    found = smoothness(SeriesBatch(times, values))
    assert float(found[0]) < 0.12 and float(found[1]) > 0.9 and float(found[2]) == pytest.approx(1)  # a cubic, exactly
    mask = torch.rand(values.shape, generator=generator) < 0.8
    mask[:, 0] = True
    again = smoothness(SeriesBatch(times, values, mask).padded(70))
    assert float(again[0]) < 0.15 and float(again[1]) > 0.8 and float(again[2]) == pytest.approx(1)
    assert smoothness(pairs(1.0)).tolist() == [0, 0]


@pytest.mark.parametrize("noise", [0.0, -1.0, "network"])
def test_bad_noise_is_refused(noise) -> None:
    with pytest.raises(ValueError, match="noise: .* given, None, a positive number or 'learned' wanted"):
        BridgePosterior(2, noise)
