"""Scores of a forecast object against a batch: alignment, masks, tables, and what must not change them."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from neurodyn.forecast import Forecast
from neurodyn.metrics.forecasts import evaluate, score
from neurodyn.metrics.scores import crps, energy_score
from neurodyn.scaling import Scaling
from neurodyn.series import SeriesBatch


def case(rows=30, visits=6, size=3, samples=40, seed=0, dtype=torch.float64):
    """A calibrated forecast: truth and samples from one law whose spread grows with the lead time."""
    g = torch.Generator().manual_seed(seed)
    times = torch.rand(rows, visits, generator=g, dtype=torch.float64).add(0.1).cumsum(1)
    mask = torch.rand(rows, visits, size, generator=g) > 0.3
    mask[:, 0, 0] = True
    centre = torch.randn(rows, visits, size, generator=g, dtype=dtype)
    sd = times.sqrt().to(dtype)[..., None]
    values = centre + sd * torch.randn(rows, visits, size, generator=g, dtype=dtype)
    draws = centre + sd * torch.randn(samples, rows, visits, size, generator=g, dtype=dtype)
    truth = SeriesBatch(times, values, mask, ids=tuple(f"p{k}" for k in range(rows)))
    forecast = Forecast(draws, truth.times, truth.ids, truth.variables, origin=torch.zeros(rows))
    return forecast, truth


def test_overall_is_the_mean_over_observed_entries():
    forecast, truth = case()
    found = evaluate(forecast, truth)
    entries = crps(forecast.samples, truth.values)[truth.mask]
    assert found["crps"] == pytest.approx(float(entries.mean()))
    visits = energy_score(forecast.samples, truth.values, truth.mask)[truth.mask.any(-1)]
    assert found["energy_score"] == pytest.approx(float(visits.mean()))
    median = forecast.samples.median(0).values  # of an even number torch takes the lower middle
    upper = -(-forecast.samples).median(0).values
    assert found["mae"] == pytest.approx(float(((median + upper) / 2 - truth.values).abs()[truth.mask].mean()))
    assert found["mse"] == pytest.approx(float((forecast.mean - truth.values).square()[truth.mask].mean()))
    low, high = forecast.interval(0.9)
    inside = (low <= truth.values) & (truth.values <= high)
    assert found["coverage_90"] == pytest.approx(float(inside[truth.mask].double().mean()))
    assert found["width_50"] == pytest.approx(
        float((forecast.interval(0.5)[1] - forecast.interval(0.5)[0])[truth.mask].mean())
    )
    assert found["count"] == int(truth.mask.sum())


def test_a_calibrated_forecast_is_found_calibrated():
    forecast, truth = case(rows=1500, seed=3)
    found = score(forecast, truth)
    assert scipy.stats.kstest(found.pit[truth.mask].numpy(), "uniform").pvalue > 0.01
    overall = found.overall()
    assert overall["coverage_90"] == pytest.approx(0.9, abs=0.01)
    assert overall["coverage_50"] == pytest.approx(0.5, abs=0.015)
    # Expected CRPS of a perfect normal forecast, fair: sd / sqrt(pi).
    sd = truth.times.sqrt()[..., None].expand(truth.mask.shape)[truth.mask].mean()
    assert overall["crps_fair"] == pytest.approx(float(sd) / math.sqrt(math.pi), rel=0.03)


def test_tables_average_to_the_whole():
    forecast, truth = case()
    scores = score(forecast, truth)
    whole = scores.overall()
    for table in (scores.by_variable(), scores.by_horizon(), scores.by_horizon([0, 1, 2, 99]), scores.by_row()):
        assert table["count"].sum() == whole["count"]
        for name in ("crps", "mse", "coverage_90", "gaussian_nll"):
            assert np.average(table[name], weights=table["count"]) == pytest.approx(whole[name])
    horizon = scores.by_horizon([0, 1, 2, 99])
    near = (truth.times <= 1)[..., None] & truth.mask
    assert horizon["crps"][0] == pytest.approx(float(crps(forecast.samples, truth.values)[near].mean()))
    assert horizon["to"].tolist() == [1, 2, 99] and horizon["lead"].is_monotonic_increasing
    assert horizon["width_90"].is_monotonic_increasing  # the spread of this law grows with time
    assert scores.by_variable().index.tolist() == ["y1", "y2", "y3"]


def test_without_origin_the_horizon_is_the_number_of_the_visit():
    forecast, truth = case()
    blind = Forecast(forecast.samples, forecast.times, forecast.ids, forecast.variables)
    table = score(blind, truth).by_horizon()
    assert table["lead"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table["crps"][2] == pytest.approx(float(crps(forecast.samples, truth.values)[:, 2][truth.mask[:, 2]].mean()))


def test_scores_ignore_row_order_padding_and_times_nobody_asked_about():
    forecast, truth = case()
    wanted = evaluate(forecast, truth)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    assert evaluate(forecast.rows(order), truth.rows(order)) == pytest.approx(wanted)
    assert evaluate(forecast, truth.padded(9)) == pytest.approx(wanted)
    # The forecast at more times than the truth has: half-way before each of them.
    earlier = torch.cat([torch.zeros(30, 1, dtype=torch.float64), truth.times[:, :-1]], 1).lerp(truth.times, 0.5)
    times = torch.stack([earlier, truth.times], 2).flatten(1)
    samples = torch.stack([torch.full_like(forecast.samples, 99.0), forecast.samples], 3).flatten(2, 3)
    dense = Forecast(samples, times, truth.ids, truth.variables)
    assert evaluate(dense, truth) == pytest.approx(wanted)


def test_scores_survive_scaling_times_and_back():
    forecast, truth = case()
    scaling = Scaling.fit(truth)
    scaled = Forecast(
        (forecast.samples - scaling.mean) / scaling.sd, scaling.apply_times(truth.times), truth.ids, truth.variables
    )
    assert evaluate(scaled.undo(scaling), truth)["crps"] == pytest.approx(evaluate(forecast, truth)["crps"])


def test_rows_without_a_later_visit_count_for_nothing():
    forecast, truth = case()
    history = truth.history(count=5)
    later = truth.after(count=5)
    assert int(later.mask.any(-1).sum()) < truth.num_rows  # some rows are empty
    made = Forecast.of(history, later.times, forecast.samples[:, :, : later.num_times])
    found = score(made, later)
    assert found.overall()["count"] == int(later.mask.sum())
    assert bool((found.lead[later.present] > 0).all())
    empty = ~later.mask.flatten(1).any(1)
    assert found.by_row()["crps"].isna().tolist() == empty.tolist()


def test_large_forecasts_are_scored_in_chunks(monkeypatch):
    forecast, truth = case()
    wanted = score(forecast, truth)
    monkeypatch.setattr("neurodyn.metrics.forecasts._CHUNK", 7 * 40 * 6 * 3)  # seven rows at a time
    found = score(forecast, truth)
    assert found.overall() == pytest.approx(wanted.overall())


def test_one_sample_has_no_spread_to_score():
    forecast, truth = case(samples=1)
    found = evaluate(forecast, truth)
    assert found["crps"] == pytest.approx(found["mae"])
    assert "gaussian_nll" not in found and "crps_fair" not in found


def test_bad_input_is_named():
    forecast, truth = case()
    with pytest.raises(ValueError, match="^truth: 29 rows given, 30 wanted"):
        evaluate(forecast, truth.rows(slice(0, 29)))
    with pytest.raises(ValueError, match="^truth: row 0 is 'p1'"):
        evaluate(forecast, truth.rows([1, 0, *range(2, 30)]))
    with pytest.raises(ValueError, match="^truth: row 'p0' has a visit at .* not forecast"):
        evaluate(forecast, SeriesBatch(truth.times + 0.01, truth.values, truth.mask, ids=truth.ids))
    with pytest.raises(ValueError, match="^truth: variables a, b, c"):
        evaluate(forecast, SeriesBatch(truth.times, truth.values, truth.mask, variables=("a", "b", "c")))
    with pytest.raises(ValueError, match="^truth: nothing observed"):
        evaluate(forecast, truth.after(count=99).padded(6))
    with pytest.raises(ValueError, match="^edges: "):
        score(forecast, truth).by_horizon([1, 1])
    with pytest.raises(ValueError, match="^level: "):
        evaluate(forecast, truth, levels=(90,))
