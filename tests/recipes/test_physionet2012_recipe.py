"""The recipe physionet2012 on made-up stays: what is scaled, hidden and scored, and that short runs go through."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from neurodyn.datasets import physionet2012
from neurodyn.forecast import Forecast
from neurodyn.recipes.physionet2012 import Config, forecast_scores, interpolation_errors, prepare, run, train


@pytest.fixture(autouse=True)
def stays_at_hand(monkeypatch):
    """Forty stays whose heart rate and temperature move along a line, every four hours."""
    generator = np.random.default_rng(0)
    lines = []
    for stay in range(1, 41):
        level, slope = 60 + 40 * generator.random(), generator.normal()
        lines += [(stay, 0, "Age", 30.0 + stay), (stay, 0, "ICUType", 1.0 + stay % 4)]
        for hour in range(0, 48, 4):
            minute = 60 * hour + int(generator.integers(0, 60))
            lines.append((stay, minute, "HR", level + slope * minute / 60))
            lines.append((stay, minute, "Temp", 37.0 + 0.02 * slope * minute / 60))
    # every variable has a value somewhere, and two different ones
    lines += [(1 + k % 40, 60, name, 1.0 + k % 2) for k, name in enumerate(physionet2012.BENCHMARK)]
    lines += [(1 + k % 39, 120, name, 2.0 + k % 2) for k, name in enumerate(physionet2012.BENCHMARK)]
    frame = pd.DataFrame(lines, columns=["RecordID", "minute", "param", "value"])
    frame["param"] = pd.Categorical(frame["param"])
    monkeypatch.setattr(physionet2012, "table", lambda name: frame if name == "a" else frame.iloc[:0])
    deaths = pd.Series(0, index=range(1, 41), name="In-hospital_death")
    monkeypatch.setattr(physionet2012, "outcomes", lambda name: deaths)


@pytest.mark.parametrize(("task", "variables"), [("interpolation", 41), ("extrapolation", 35)])
def test_training_stays_have_mean_zero_and_sd_one_and_two_days_are_one(task: str, variables: int) -> None:
    stays = prepare(task)
    assert stays.train.num_variables == variables
    for k, name in enumerate(stays.train.variables):
        known = stays.train.values[..., k][stays.train.mask[..., k]].double()
        if name in ("HR", "Temp"):
            assert known.mean().item() == pytest.approx(0, abs=1e-5)
            assert known.std(unbiased=False).item() == pytest.approx(1, abs=1e-4)
    assert 0.9 < float(stays.train.last_time.max()) <= 1


def test_the_unit_of_errors_is_each_variables_largest_value() -> None:
    stays, raw = prepare("interpolation"), physionet2012.interpolation()
    hr = stays.test.variables.index("HR")
    row, visit = raw.test.mask[..., hr].nonzero()[0].tolist()
    scaled = stays.test.values[row, visit, hr] - stays.test.values[row, :, hr][stays.test.mask[row, :, hr]][-1]
    plain = raw.test.values[row, visit, hr] - raw.test.values[row, :, hr][raw.test.mask[row, :, hr]][-1]
    largest = max(float(part.values[..., hr].max()) for part in raw[:3])
    assert float(scaled / stays.unit[hr]) == pytest.approx(float(plain) / largest, rel=1e-3)


def test_errors_count_hidden_visits_apart_and_hidden_values_are_not_seen() -> None:
    stays, given = prepare("interpolation"), []

    class Zero:
        """Fills in zeros, and remembers what it was shown."""

        def interpolate(self, batch, times, num_samples, *, generator):
            given.append(batch)
            return torch.zeros(num_samples, *times.shape, batch.num_variables)

    found = interpolation_errors(Zero(), stays.test, 0.6, stays.unit, num_samples=2, seed=5)
    held = physionet2012.hidden(stays.test, 0.6, 5)
    squares = (stays.test.values / stays.unit).square()
    away = held[..., None] & stays.test.mask
    assert found["hidden"] == pytest.approx(float(squares[away].mean()), rel=1e-5)
    assert found["all"] == pytest.approx(float(squares[stays.test.mask].mean()), rel=1e-5)
    shown = sum(int(batch.mask.sum()) for batch in given)
    assert shown == int(stays.test.mask.sum()) - int(away.sum())


def test_a_forecast_that_knows_the_future_scores_nothing() -> None:
    stays = prepare("extrapolation")

    class Oracle:
        """Looks the answer up."""

        def forecast(self, history, times, num_samples, *, generator):
            rows = [stays.test.ids.index(name) for name in history.ids]
            place = (stays.test.times[rows][:, None] - times[..., None]).abs().argmin(-1)
            values = stays.test.values[rows].gather(1, place[..., None].expand(-1, -1, 35))
            assert float(history.last_time.max()) <= 0.5 < float(times.min())
            return Forecast.of(history, times, values.expand(num_samples, -1, -1, -1))

    found = forecast_scores(Oracle(), stays.test, num_samples=5)
    assert found == {"CRPS": pytest.approx(0, abs=1e-6), "MSE of the mean": pytest.approx(0), "90 % coverage": 1.0}


@pytest.mark.parametrize("task", ["interpolation", "extrapolation"])
def test_a_short_run_goes_through_and_follows_its_seed(task, capsys) -> None:
    config = Config(task=task, latent_size=3, steps=8, progress=False)
    found = run(config)
    assert len(found) == (5 if task == "interpolation" else 3)
    assert all(np.isfinite(value) for value in found.values())
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(found)
    stays = prepare(task)
    one, two = (train(config, stays)[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
