"""Starts of forecasts: the exact filter, causality, a closed-form CRPS, and a toy whose filter is learned."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from toy_models import DOUBLE, drawn_from, free_core, lively_trend, ragged

from neurodyn.nets.encoders import make_encoder
from neurodyn.noise import RowNoise
from neurodyn.posteriors.start import EncodedStart, FilterStart, Start, gaussian_crps
from neurodyn.sde.kalman import kalman_filter, kalman_information, kalman_smoother
from neurodyn.sde.linear_gaussian import FreeLinearGaussian, LinearGaussian
from neurodyn.series import SeriesBatch


def filter_start(core: LinearGaussian, variables: int, kind: str = "gru", lively: bool = False) -> FilterStart:
    torch.manual_seed(0)
    start = FilterStart(make_encoder(kind, variables, 8, hidden_size=16, causal=True), 8, core).double()
    return _lively(start) if lively else start


def encoded_start(variables: int, size: int, kind: str = "gru", lively: bool = False) -> EncodedStart:
    torch.manual_seed(0)
    start = EncodedStart(make_encoder(kind, variables, 8, hidden_size=16, causal=True), 8, size).double()
    return _lively(start) if lively else start


def _lively(start: Start) -> Start:
    for parameter in start.net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return start


@pytest.mark.parametrize("kind", ["gru", "attention"])
@pytest.mark.parametrize("core", [free_core(), lively_trend(2)], ids=["free", "trend"])
def test_a_fresh_filter_start_is_the_exact_filter(core: LinearGaussian, kind: str) -> None:
    batch = ragged(2)
    with torch.no_grad():
        mean, root = filter_start(core, 2, kind).laws(batch)
        exact = core.filter(batch)
    torch.testing.assert_close(mean, exact.mean, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(root @ root.mT, exact.covariance, atol=1e-9, rtol=1e-9)
    assert torch.equal(root, root.tril())


@pytest.mark.parametrize("kind", ["gru", "attention", "window"])
@pytest.mark.parametrize(
    "make", [lambda kind: filter_start(free_core(), 2, kind, True), lambda kind: encoded_start(2, 3, kind, True)]
)
def test_the_future_of_a_row_does_not_change_the_law_at_a_visit(make, kind: str) -> None:
    start, batch = make(kind), ragged(2, rows=3, visits=6)
    other = batch._with(values=torch.where(torch.arange(6)[:, None] > 2, 5.0 - batch.values, batch.values) * batch.mask)
    with torch.no_grad():
        for one, two in zip(start.laws(batch), start.laws(other), strict=True):
            torch.testing.assert_close(one[:, :3], two[:, :3], atol=1e-12, rtol=1e-12)
            assert (one[:, 3:] - two[:, 3:]).abs().max() > 1e-3
        # the same law at the end of the shorter history
        mean, root = start.laws(batch)
        history = batch.history(count=3)
        at_end = start.at_end(history)
        torch.testing.assert_close(at_end[0], mean[:, 2], atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(at_end[1], root[:, 2], atol=1e-12, rtol=1e-12)


def test_at_end_finds_the_last_visit_of_each_row_before_padding() -> None:
    start, batch = encoded_start(2, 3, lively=True), ragged(2, rows=3, visits=6)
    assert int(batch.present[0].sum()) < 6  # a shorter row
    with torch.no_grad():
        mean, root = start.at_end(batch.padded(9))
        for row in range(3):
            alone = start.at_end(batch.rows([row]).trim())
            torch.testing.assert_close(mean[row], alone[0][0], atol=1e-12, rtol=1e-12)
            torch.testing.assert_close(root[row], alone[1][0], atol=1e-12, rtol=1e-12)


def test_encoded_loss_is_minus_the_log_density_at_present_visits_without_gradient_to_the_posterior() -> None:
    start, batch = encoded_start(2, 3, lively=True), ragged(2, rows=3, visits=6)
    z = torch.randn(4, 3, 6, 3, dtype=DOUBLE, requires_grad=True)
    loss = start.loss(batch, z, RowNoise(0, batch.ids or ()))
    mean, root = start.laws(batch)
    density = torch.distributions.MultivariateNormal(mean, scale_tril=root).log_prob(z)
    torch.testing.assert_close(loss, -(density * batch.present).mean(0).sum(1), atol=1e-10, rtol=1e-10)
    assert torch.autograd.grad(loss.sum(), z, allow_unused=True)[0] is None


@pytest.mark.parametrize("kind", ["gru", "window"])
def test_a_few_cuts_stand_for_all_visits_without_bias(kind: str) -> None:
    start, batch = encoded_start(2, 3, kind, lively=True), ragged(2, rows=3, visits=6)
    z = torch.randn(2, 3, 6, 3, dtype=DOUBLE)
    with torch.no_grad():
        whole = start.loss(batch, z, RowNoise(0, batch.ids or ()))
        start.num_cuts = 2
        estimates = torch.stack([start.loss(batch, z, RowNoise(k, batch.ids or ())) for k in range(800)])
        assert torch.equal(start.eval().loss(batch, z, RowNoise(0, batch.ids or ())), whole)  # all visits in evaluation
    error = estimates.std(0) / 800**0.5
    assert (estimates.std(0) > 1e-3).any()
    assert ((estimates.mean(0) - whole).abs() < 4 * error + 1e-9).all()


def test_with_as_many_cuts_as_visits_each_visit_counts_once() -> None:
    start, batch = encoded_start(2, 3, "window", lively=True), ragged(2, rows=3, visits=6)
    z = torch.randn(2, 3, 6, 3, dtype=DOUBLE)
    row = batch.rows(2)
    assert int(row.present.sum()) == 6
    with torch.no_grad():
        whole = start.loss(row, z[:, 2:], RowNoise(0, row.ids or ()))
        start.num_cuts = 6
        torch.testing.assert_close(start.loss(row, z[:, 2:], RowNoise(1, row.ids or ())), whole)
    with pytest.raises(ValueError, match="num_cuts: -1 given"):
        EncodedStart(start.encoder, 8, 3, num_cuts=-1)


@pytest.mark.parametrize(("mean", "sd", "value"), [(0.0, 1.0, 0.3), (2.0, 0.3, -1.0), (-1.0, 5.0, 12.0)])
def test_gaussian_crps_is_the_integral_of_its_definition(mean: float, sd: float, value: float) -> None:
    grid = np.linspace(min(mean - 12 * sd, value - 1), max(mean + 12 * sd, value + 1), 400_001)
    gap = scipy.stats.norm(mean, sd).cdf(grid) - (grid >= value)
    found = gaussian_crps(*(torch.tensor(x, dtype=DOUBLE) for x in (mean, sd, value))).item()
    assert found == pytest.approx(np.trapezoid(gap**2, grid), rel=1e-4)


def predictive(core: LinearGaussian, start: Start, row: SeriesBatch, cut: int) -> Tensor:
    """CRPS of all later values of one row, forecast from the start's law at visit `cut`, one visit at a time."""
    mean, root = (part[0, cut] for part in start.laws(row))
    loading, bias, variance = core.observation()
    total = torch.zeros((), dtype=DOUBLE)
    for k in range(cut + 1, int(row.present[0].sum())):
        step = core.law.transition(row.times[0, k] - row.times[0, cut])
        later = step.matrix @ root @ root.mT @ step.matrix.mT + step.covariance
        centre = loading @ (step.matrix @ mean + step.offset) + bias
        sd = ((loading @ later @ loading.mT).diagonal() + variance).sqrt()
        total = total + (gaussian_crps(centre, sd, row.values[0, k]) * row.mask[0, k]).sum()
    return total


def test_filter_loss_is_the_crps_of_forecasts_from_its_own_cuts() -> None:
    core = lively_trend(2)
    start, batch = filter_start(core, 2, lively=True), ragged(2, rows=4, visits=6)
    noise = RowNoise(3, batch.ids or ())
    with torch.no_grad():
        found = start.loss(batch, torch.empty(0), noise)
        visits = batch.present.sum(1)
        cuts = (noise.uniform("cuts", start.num_cuts) * (visits[:, None] - 1)).long()
        assert len(cuts.unique()) > 2
        for row in range(4):
            alone = batch.rows([row])
            wanted = sum(predictive(core, start, alone, int(cut)) for cut in cuts[row])
            assert found[row].item() == pytest.approx(wanted.item() / (start.num_cuts * 2), rel=1e-9)


def test_filter_loss_trains_the_start_alone_and_one_visit_costs_nothing() -> None:
    core = lively_trend(2)
    start = filter_start(core, 2)
    loss = start.loss(ragged(2), torch.empty(0), RowNoise(0, ["a", "b", "c"]))
    loss.sum().backward()
    assert all(parameter.grad is None for parameter in core.parameters())
    assert start.net[-1].weight.grad.abs().sum() > 0
    assert start.loss(ragged(2, rows=1, visits=1), torch.empty(0), RowNoise(0, ["a"])).item() == 0


def test_filter_start_trained_on_another_processes_data_forecasts_it_better() -> None:
    """The core believes in the wrong level; its start learns to move the filter towards the data's."""
    core, truth = free_core(), free_core()
    with torch.no_grad():
        truth.mean += torch.tensor([2.0, -2.0], dtype=DOUBLE)
        core.log_variance += 3  # so that the wrong core does not listen
    batch = drawn_from(truth, ragged(2, rows=60, visits=5))
    start = filter_start(core, 2)
    fresh = start.loss(batch, torch.empty(0), RowNoise(0, batch.ids or ())).mean().item()
    optimiser = torch.optim.Adam(start.parameters(), 0.01)
    for step in range(60):
        optimiser.zero_grad()
        start.loss(batch, torch.empty(0), RowNoise(step + 1, batch.ids or ())).mean().backward()
        optimiser.step()
    trained = start.loss(batch, torch.empty(0), RowNoise(0, batch.ids or ())).mean().item()
    assert trained < 0.8 * fresh


def test_an_encoded_start_learns_the_known_filter() -> None:
    """-log r at draws of the exact smoother, over many rows: its best law is the exact filter's."""
    core = FreeLinearGaussian(
        *(torch.tensor(x, dtype=DOUBLE) for x in ([[-1.0]], [[1.0]], [0.0], [[0.5]], [[1.0]], [0.1]))
    )
    rows, visits = 256, 4
    times = torch.arange(visits, dtype=DOUBLE).expand(rows, visits) * 0.5
    batch = SeriesBatch(times, torch.zeros(rows, visits, 1, dtype=DOUBLE), ids=tuple(str(k) for k in range(rows)))
    batch = drawn_from(core, batch)
    with torch.no_grad():
        data = (core.observation(), batch.times, batch.values, batch.mask)
        filtered = kalman_filter(core.law, core.initial(), *data)
        smoothed = kalman_smoother(filtered, kalman_information(core.law, *data))
    start = encoded_start(1, 1)
    optimiser = torch.optim.Adam(start.parameters(), 0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        noise = torch.randn(4, rows, visits, 1, dtype=DOUBLE, generator=generator)
        optimiser.zero_grad()
        z = smoothed.mean + noise * smoothed.covariance[..., 0].sqrt()
        start.loss(batch, z, RowNoise(0, batch.ids or ())).mean().backward()
        optimiser.step()
    with torch.no_grad():
        mean, root = start.laws(batch)
        sd, exact_sd = root[..., 0, 0], filtered.covariance[..., 0, 0].sqrt()
        gap = mean[..., 0] - filtered.mean[..., 0]
        kl = (exact_sd / sd).square() / 2 + (gap / sd).square() / 2 - 0.5 - (exact_sd / sd).log()
        prior_kl = -exact_sd.log() + math.log(0.5**0.5) + 0.5 * (exact_sd**2 + filtered.mean[..., 0] ** 2) / 0.5 - 0.5
    assert kl.mean() < 0.03 < 0.5 < prior_kl.mean()
