"""`LinearSDE` against Gaussian processes written out by their kernels, and against statsmodels' mixed model."""

import numpy as np
import pytest
import scipy.stats
import torch

from neurodyn.models.linear_sde import LinearSDE
from neurodyn.series import SeriesBatch

VARIABLES = 2
COMPONENTS = [("level", "slope", "ou"), ("level", "slope"), ("ou",), ("level", "ou")]


@pytest.fixture(scope="module")
def batch() -> SeriesBatch:
    """Three ragged, padded rows, with 30 % missing."""
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.random((3, 6)) * 0.7 + 0.01, 1)
    mask = rng.random((3, 6, VARIABLES)) > 0.3
    mask[:, 0, 0] = True
    mask[0, 4:] = False
    values = torch.tensor(rng.normal(size=mask.shape) * mask)
    return SeriesBatch(torch.tensor(times), values, torch.tensor(mask), ids=("a", "b", "c")).compact().padded(8)


def lively(components: tuple[str, ...], joint: bool) -> LinearSDE:
    torch.manual_seed(0)
    model = LinearSDE(VARIABLES, components, joint)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return model


def process(model: LinearSDE, since: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the noiseless variables `which` at times `since` the row's first, by their kernels.

    level_i + slope_i t is a linear form in random effects; cov(ou_i(t), ou_j(s)) = exp(-rate_late (later - earlier))
    S_ij, the rate that of the later one, S_ij = (L L^T)_ij / (rate_i + rate_j).
    """
    core = model.core
    law, effects = core.law, core.law.trend_size
    mean, covariance = (part.detach().numpy() for part in core.initial())
    forms = np.zeros((len(since), effects))
    if "level" in core.components:
        forms[np.arange(len(since)), which] = 1
    if "slope" in core.components:
        forms[np.arange(len(since)), VARIABLES + which] = since
    centre = forms @ mean[:effects] if effects else core.mean.detach().numpy()[which]
    kernel = forms @ covariance[:effects, :effects] @ forms.T
    if "ou" in core.components:
        rate, noise = law.log_rate.exp().detach().numpy(), law.ou_noise().detach().numpy()
        stationary = noise @ noise.T / (rate[:, None] + rate)
        lag = since[:, None] - since
        late = np.where(lag >= 0, rate[which][:, None], rate[which])
        kernel = kernel + stationary[np.ix_(which, which)] * np.exp(-late * np.abs(lag))
    return centre, kernel


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("components", COMPONENTS)
def test_evidence_and_forecasts_are_those_of_the_gaussian_process(
    batch: SeriesBatch, components: tuple[str, ...], joint: bool
) -> None:
    model, draws = lively(components, joint), 20_000
    ahead = batch.last_time[:, None] + torch.tensor([0.0, 0.3, 2.0], dtype=torch.float64)
    forecast = model.forecast(batch, ahead, draws, generator=torch.Generator().manual_seed(0))
    evidence = model.evidence(batch).detach()
    variance = model.core.observation().variance.detach().numpy()
    for row in range(batch.num_rows):
        visit, seen = batch.mask[row].nonzero().T.numpy()
        future, asked = (grid.ravel() for grid in np.meshgrid(range(3), range(VARIABLES), indexing="ij"))
        since = np.concatenate((batch.times[row].numpy()[visit], ahead[row].numpy()[future])) - float(
            batch.first_time[row]
        )
        which = np.concatenate((seen, asked))
        mean, kernel = process(model, since, which)
        kernel = kernel + np.diag(variance[which])
        n, value = len(seen), batch.values[row].numpy()[visit, seen]
        law = scipy.stats.multivariate_normal(mean[:n], kernel[:n, :n])
        assert evidence[row].item() == pytest.approx(law.logpdf(value), abs=1e-9)
        gain = np.linalg.solve(kernel[:n, :n], kernel[:n, n:]).T
        middle = mean[n:] + gain @ (value - mean[:n])
        spread = kernel[n:, n:] - gain @ kernel[:n, n:]
        found = forecast.samples[:, row].flatten(1).numpy()
        own = np.diag(spread)
        assert (np.abs(found.mean(0) - middle) < 4.5 * np.sqrt(own / draws)).all()
        error = np.sqrt((np.outer(own, own) + spread**2) / draws)
        assert (np.abs(np.cov(found.T) - spread) < 4.5 * error).all()


@pytest.mark.parametrize("visits", [6, 1])
@pytest.mark.parametrize("components", COMPONENTS)
def test_the_smoother_is_that_of_the_gaussian_process(
    batch: SeriesBatch, components: tuple[str, ...], visits: int
) -> None:
    model = lively(components, True)
    batch = SeriesBatch(batch.times, batch.values, batch.mask & (torch.arange(8) < visits)[:, None])
    since = torch.tensor([0.4, 0.0, 0.11, 9.0], dtype=torch.float64)  # in any order, the last after all visits
    mean, spread = model.smooth(batch, batch.first_time[:, None] + since)
    early, _ = model.smooth(batch, batch.first_time[:, None] - since)
    torch.testing.assert_close(early, mean[:, 1:2].expand_as(early))
    variance = model.core.observation().variance.detach().numpy()
    for row in range(batch.num_rows):
        visit, seen = batch.mask[row].nonzero().T.numpy()
        when, asked = (grid.ravel() for grid in np.meshgrid(since.numpy(), range(VARIABLES), indexing="ij"))
        before = batch.times[row].numpy()[visit] - float(batch.first_time[row])
        centre, kernel = process(model, np.concatenate((before, when)), np.concatenate((seen, asked)))
        n = len(seen)
        noisy = kernel[:n, :n] + np.diag(variance[seen])
        gain = np.linalg.solve(noisy, kernel[:n, n:]).T
        wanted = centre[n:] + gain @ (batch.values[row].numpy()[visit, seen] - centre[:n])
        left = np.diag(kernel[n:, n:] - gain @ kernel[:n, n:])
        np.testing.assert_allclose(mean[row].flatten().numpy(), wanted, atol=1e-8)
        np.testing.assert_allclose(spread[row].flatten().detach().numpy(), left, atol=1e-8)


def test_the_smoother_refuses_times_that_are_none(batch: SeriesBatch) -> None:
    with pytest.raises(ValueError, match=r"times: some that are not finite given"):
        lively(("ou",), True).smooth(batch, torch.full((3, 2), float("nan")))
    with pytest.raises(ValueError, match=r"times: shape \(2, 2\) given, \(3, H\) or \(H,\) wanted"):
        lively(("ou",), True).smooth(batch, torch.zeros(2, 2))


def test_the_mixed_model_is_that_of_statsmodels() -> None:
    # wanted: mixedlm("y ~ t", groups=row, re_formula="~t").fit(reml=False) of statsmodels 0.15 on these numbers
    rng = np.random.default_rng(1)
    times = np.sort(rng.random((80, 8)) * 4, 1)
    since = times - times[:, :1]
    level = rng.normal(0.3, 1.0, 80)
    slope = 0.2 + 0.15 * level + rng.normal(0, 0.3, 80)
    values = level[:, None] + slope[:, None] * since + rng.normal(0, 0.5, times.shape)
    batch = SeriesBatch(torch.tensor(times), torch.tensor(values)[..., None])
    model = LinearSDE(1, ("level", "slope"), joint=False).fit(batch)
    assert model.evidence(batch).sum().item() == pytest.approx(-704.15984, abs=0.01)
    initial = model.core.initial()
    np.testing.assert_allclose(initial.mean.detach(), [-0.02616, 0.15349], atol=0.005)
    np.testing.assert_allclose(initial.covariance.detach(), [[1.21611, 0.27747], [0.27747, 0.13805]], atol=0.01)
    assert model.core.observation().variance.item() == pytest.approx(0.28288, abs=0.002)
