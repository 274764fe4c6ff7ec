"""Persistence models against processes whose optimal forecast is known in closed form."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodyn.metrics.scores import crps, interval_coverage
from neurodyn.models.baselines.pairs import last_seen, training_pairs
from neurodyn.models.baselines.persistence import LastValue, RegressedLastValue, TrainingValues
from neurodyn.series import SeriesBatch


def irregular_times(rows, visits, generator, scale=0.5):
    gaps = torch.empty(rows, visits, dtype=torch.float64).exponential_(1 / scale, generator=generator) + 0.01
    return gaps.cumsum(1)


def ou_series(rows, visits, *, rate, mixing, seed, missing=0.0):
    """Exact stationary OU paths with unit variance and correlated noise; `missing` of the values dropped."""
    generator = torch.Generator().manual_seed(seed)
    times = irregular_times(rows, visits, generator)
    size = mixing.shape[0]
    state = torch.randn(rows, size, dtype=torch.float64, generator=generator) @ mixing.mT
    path = [state]
    for gap in times.diff(dim=1).unbind(1):
        keep = torch.exp(-rate * gap)[:, None]
        noise = torch.randn(rows, size, dtype=torch.float64, generator=generator) @ mixing.mT
        state = keep * state + (1 - keep**2).sqrt() * noise
        path.append(state)
    values = torch.stack(path, 1)
    mask = torch.rand(values.shape, generator=generator) >= missing
    mask[:, 0, 0] = True
    return SeriesBatch(times, values, mask)


CORRELATED = torch.linalg.cholesky(torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64))


def brute_force_pairs(batch):
    found = []
    for row in range(batch.num_rows):
        visits = batch.present[row].nonzero()[:, 0].tolist()
        for later in visits:
            for cut in visits:
                if cut < later:
                    found.append((row, cut, later))
    return found


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 4), visits=st.integers(2, 6), seed=st.integers(0, 10_000))
def test_pairs_are_all_pairs_of_present_visits_with_what_was_known(rows, visits, seed):
    generator = torch.Generator().manual_seed(seed)
    times = irregular_times(rows, visits, generator)
    values = torch.randn(rows, visits, 2, generator=generator, dtype=torch.float64)
    mask = torch.rand(rows, visits, 2, generator=generator) < 0.6
    mask[:, 0, 0] = mask[:, -1, 1] = True
    batch = SeriesBatch(times, values, mask)
    pairs = training_pairs(batch)
    expected = brute_force_pairs(batch)
    assert len(pairs.horizon) == len(expected)
    for n, (row, cut, later) in enumerate(expected):
        assert pairs.horizon[n] == times[row, later] - times[row, cut]
        assert torch.equal(pairs.truth[n], batch.values[row, later])
        assert torch.equal(pairs.observed[n], mask[row, later])
        for v in range(2):
            seen = mask[row, : cut + 1, v].nonzero()[:, 0]
            assert bool(pairs.seen[n, v]) == (len(seen) > 0)
            if len(seen):
                assert pairs.last[n, v] == values[row, seen[-1], v]
                assert pairs.age[n, v] == times[row, later] - times[row, seen[-1]]


def test_thinned_pairs_are_legal_pairs_of_every_row():
    batch = ou_series(3, 60, rate=1.0, mixing=CORRELATED, seed=0)
    pairs = training_pairs(batch, limit=500, generator=torch.Generator().manual_seed(1))
    assert pairs.horizon.shape == (500,)
    assert bool((pairs.horizon > 0).all())
    gaps = batch.times[:, :, None] - batch.times[:, None, :]
    assert bool(torch.isin(pairs.horizon, gaps.flatten()).all())
    owners = (pairs.truth[:, None, :1] == batch.values[None, :, :, 0].flatten(1).T[None, :, :]).any(1)
    assert bool(owners.any(0).all())


def test_last_seen_ignores_padding_and_masked_values():
    batch = ou_series(4, 8, rate=1.0, mixing=CORRELATED, seed=3, missing=0.4)
    plain, padded = last_seen(batch), last_seen(batch.padded(12))
    for one, other in zip(plain, padded, strict=True):
        assert torch.equal(one[:, -1], other[:, -1])


def test_last_value_spread_grows_as_the_root_of_the_horizon_on_a_random_walk():
    generator = torch.Generator().manual_seed(0)
    times = irregular_times(400, 8, generator)
    steps = (
        torch.randn(400, 8, 1, dtype=torch.float64, generator=generator)
        * times.diff(dim=1, prepend=times[:, :1] * 0).sqrt()[..., None]
    )
    batch = SeriesBatch(times, steps.cumsum(1))
    model = LastValue().fit(batch)
    history = batch.rows(slice(0, 4)).history(count=2)
    ahead = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)
    forecast = model.forecast(history, history.last_time[:, None] + ahead, 2000, generator=generator)
    last = last_seen(history).value[:, -1, 0]
    assert torch.allclose(forecast.sd[..., 0], ahead.sqrt().expand(4, -1), rtol=0.12)
    assert torch.allclose(forecast.mean[..., 0], last[:, None].expand(-1, 3), atol=0.25)


def test_regression_finds_the_decay_of_an_ou_process_and_its_optimal_score():
    rate = 0.7
    train = ou_series(600, 8, rate=rate, mixing=CORRELATED, seed=1)
    test = ou_series(300, 8, rate=rate, mixing=CORRELATED, seed=2)
    model = RegressedLastValue().fit(train)
    horizon = torch.tensor([0.2, 0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    assert torch.allclose(model.coefficient(horizon), torch.exp(-rate * horizon)[:, None].expand(-1, 2), atol=0.06)
    history, after = test.history(fraction=0.5), test.after(fraction=0.5)
    forecast = model.forecast(history, after.times, 300, generator=torch.Generator().manual_seed(0))
    assert 0.88 < float(interval_coverage(forecast.samples, after.values, 0.9, after.mask).nanmean()) < 0.92
    # the best possible forecast is Gaussian with variance 1 - exp(-2 rate h); its expected CRPS is its sd / sqrt(pi)
    best = (1 - torch.exp(-2 * rate * (after.times - history.last_time[:, None]))).sqrt() / math.sqrt(math.pi)
    score = crps(forecast.samples, after.values, after.mask).nanmean()
    assert float(score) < 1.05 * float(best.mean())
    persistence = LastValue().fit(train).forecast(history, after.times, 300, generator=torch.Generator().manual_seed(0))
    assert float(score) < 0.9 * float(crps(persistence.samples, after.values, after.mask).nanmean())


def test_errors_keep_their_correlation_over_variables():
    train = ou_series(500, 6, rate=1.0, mixing=CORRELATED, seed=4)
    model = RegressedLastValue().fit(train)
    history = train.rows([0]).history(count=3)
    forecast = model.forecast(
        history, history.last_time[:, None] + 1.0, 4000, generator=torch.Generator().manual_seed(0)
    )
    assert 0.72 < float(torch.corrcoef(forecast.samples[:, 0, 0].T)[0, 1]) < 0.88


def test_a_variable_never_observed_in_the_history_gets_the_training_distribution():
    train = ou_series(500, 6, rate=1.0, mixing=3 * CORRELATED, seed=5)
    values, mask = train.values.clone(), train.mask.clone()
    values[..., 1] += 10
    train = SeriesBatch(train.times, values, mask)
    mask = mask[:1].clone()
    mask[..., 1] = False
    history = SeriesBatch(train.times[:1], values[:1], mask).history(count=2)
    for model in (LastValue(), RegressedLastValue()):
        forecast = model.fit(train).forecast(
            history, history.last_time[:, None] + 0.1, 4000, generator=torch.Generator().manual_seed(0)
        )
        assert float(forecast.mean[0, 0, 1]) == pytest.approx(10, abs=0.3)
        assert float(forecast.sd[0, 0, 1]) == pytest.approx(3, rel=0.1)
        assert float(forecast.sd[0, 0, 0]) < 2  # the one that was seen a moment ago


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_padding_and_unobserved_visits_change_no_forecast(dtype):
    train = ou_series(60, 8, rate=1.0, mixing=CORRELATED, seed=6, missing=0.3).to(dtype=dtype)
    model = RegressedLastValue().fit(train.compact())
    same = RegressedLastValue().fit(train.padded(11))
    history = train.rows(slice(0, 3)).history(fraction=0.5)
    times = history.last_time[:, None] + torch.tensor([0.0, 0.4, 9.0])
    one = model.forecast(history, times, 50, generator=torch.Generator().manual_seed(0))
    other = same.forecast(history.padded(10), times, 50, generator=torch.Generator().manual_seed(0))
    assert one.samples.dtype == dtype
    assert torch.allclose(one.samples, other.samples, atol=1e-5)


def test_training_values_are_drawn_whatever_the_history():
    train = ou_series(200, 8, rate=1.0, mixing=CORRELATED, seed=7, missing=0.3)
    model = TrainingValues().fit(train)
    history = train.history(fraction=0.5).rows([3])
    times = history.last_time[:, None] + torch.tensor([0.1, 5.0])
    samples = model.forecast(history, times, 4000, generator=torch.Generator().manual_seed(0)).samples[:, 0]
    known = [train.values[..., k][train.mask[..., k]] for k in range(2)]
    for k in range(2):
        assert set(samples[:, 1, k].tolist()) <= set(known[k].tolist())
        assert samples[..., k].mean(0) == pytest.approx(known[k].mean().item(), abs=0.07)
        assert samples[..., k].std(0) == pytest.approx(known[k].std().item(), rel=0.06)
    with pytest.raises(ValueError, match="history: 1 variables given, 2 wanted"):
        model.forecast(train.select(["y1"]), times)


def test_a_row_of_the_forecast_needs_no_other_row_to_have_the_same_distribution():
    train = ou_series(60, 8, rate=1.0, mixing=CORRELATED, seed=7)
    model = LastValue(neighbours=1).fit(train)  # one neighbour: nothing is drawn, so the answer is exact
    history = train.history(fraction=0.5)
    times = history.last_time[:, None] + 0.5
    together = model.forecast(history, times, 3).samples
    alone = model.forecast(history.rows([7]), times[7:8], 3).samples
    assert torch.equal(together[:, 7:8], alone)


def test_what_cannot_be_learned_is_refused():
    times = torch.arange(2.0)[None].repeat(3, 1)
    values = torch.randn(3, 2, 2)
    single = torch.tensor([[[True, True], [False, False]]]).repeat(3, 1, 1)
    with pytest.raises(ValueError, match="train: no row with two or more visits"):
        LastValue().fit(SeriesBatch(times, values, single))
    once = torch.tensor([[[True, True], [True, False]]]).repeat(3, 1, 1)
    with pytest.raises(ValueError, match="'y2' has no two observations"):
        LastValue().fit(SeriesBatch(times, values, once))
    full = SeriesBatch(times, values)
    with pytest.raises(ValueError, match="neighbours: 0 given"):
        LastValue(neighbours=0).fit(full)
    with pytest.raises(ValueError, match="times"):
        LastValue().fit(full).forecast(full, torch.full((3, 1), 0.5))


def test_a_variable_that_thinning_loses_is_fitted_from_its_own_pairs_and_fits_repeat() -> None:
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(40, 30, generator=generator, dtype=torch.float64).cumsum(1)
    values, mask = torch.randn(40, 30, 2, generator=generator), torch.ones(40, 30, 2, dtype=torch.bool)
    mask[..., 1] = False
    mask[7, [3, 20], 1] = True  # one pair of the second variable among some 17 000
    train = SeriesBatch(times, values, mask)
    models = [LastValue(max_pairs=50).fit(train) for _ in range(2)]
    history = SeriesBatch(times[:1, :2], torch.ones(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool))
    first, second = (
        model.forecast(history, times[:1, 2:4], 20, generator=torch.Generator().manual_seed(1)) for model in models
    )
    assert torch.equal(first.samples, second.samples)
    error = values[7, 20, 1] - values[7, 3, 1]
    torch.testing.assert_close(first.samples[..., 1], (1 + error).expand(20, 1, 2))
