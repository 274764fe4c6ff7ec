"""Every forecaster of a comparison by its name: fitted, resumed, and left as it was by what surrounds it."""

import math

import pytest
import torch

from neurodyn.metrics.forecasts import evaluate
from neurodyn.models.forecasters import BASELINES, FORECASTERS, STABLE, Training, fit_forecaster
from neurodyn.models.readings import read_latent_sde
from neurodyn.series import SeriesBatch

QUICK = Training(seed=1, quick=True, progress=False, device="cpu", latent={"hidden_size": 16, "context_size": 8})


def series(rows, seed, visits=6):
    """An Ornstein-Uhlenbeck process around each row's own level, two variables, a fifth missing."""
    generator = torch.Generator().manual_seed(seed)
    times = (torch.rand(rows, visits, generator=generator, dtype=torch.float64) + 0.05).cumsum(1)
    state = torch.randn(rows, 2, generator=generator)
    path = []
    for gap in times.diff(dim=1, prepend=times[:, :1]).float().unbind(1):
        keep = torch.exp(-gap)[:, None]
        state = keep * state + (1 - keep**2).sqrt() * torch.randn(rows, 2, generator=generator)
        path.append(state)
    values = torch.stack(path, 1)
    mask = torch.rand(values.shape, generator=generator) > 0.2
    mask[:, 0] = True
    return SeriesBatch(times, values, mask, ids=tuple(f"row {k}" for k in range(rows)))


TRAIN, VALIDATION, TEST = series(60, 0), series(20, 1), series(20, 2)


@pytest.mark.parametrize("name", FORECASTERS)
def test_each_forecaster_fits_and_beats_a_wild_guess(name):
    state = torch.get_rng_state()
    fitted = fit_forecaster(name, TRAIN, VALIDATION, QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    history, after = TEST.history(fraction=0.5), TEST.after(fraction=0.5)
    forecast = fitted.forecast(history, after.times, 50, seed=3)
    assert torch.equal(forecast.samples, fitted.forecast(history, after.times, 50, seed=3).samples)
    # the CRPS of a normal forecast with twice the marginal's spread, of a standard normal truth
    wild = 2 * (math.sqrt(2 * (1 + 0.25) / math.pi) - 1 / math.sqrt(math.pi))
    assert evaluate(forecast, after)["crps"] < wild
    assert fitted.seconds >= 0
    assert not fitted.interrupted


def test_a_finished_fit_is_read_from_its_folder(tmp_path):
    history = TEST.history(fraction=0.5)
    times = history.last_time[:, None] + 0.5
    for name in ("linear_sde", "latent_sde", "direct_gru"):
        first = fit_forecaster(name, TRAIN, VALIDATION, QUICK, folder=tmp_path / name)
        again = fit_forecaster(name, TRAIN, VALIDATION, QUICK, folder=tmp_path / name)
        assert again.seconds == pytest.approx(first.seconds, abs=0.5)
        one, two = (f.forecast(history, times, 20).samples for f in (first, again))
        assert torch.equal(one, two)


def test_the_settings_reach_the_networks():
    training = Training(schedules={"latent_ode": {"steps": 7, "batch_size": 5}}, progress=False, device="cpu")
    fitted = fit_forecaster("latent_ode", TRAIN, VALIDATION, training)
    assert fitted.result is not None
    assert fitted.result.history[-1]["step"] == 7
    matched = Training(quick=True, progress=False, device="cpu", latent={"posterior": "matched", "latent_size": 3})
    assert fit_forecaster("latent_sde", TRAIN, VALIDATION, matched).model.prior.sde.state_size == 3


@pytest.mark.parametrize("posterior", ["smoother", "matched", "simulated"])
def test_readings_exist_for_every_posterior(posterior):
    latent = {"posterior": posterior, "hidden_size": 16, "context_size": 8}
    training = Training(quick=True, progress=False, device="cpu", latent=latent)
    model = fit_forecaster("latent_sde", TRAIN, VALIDATION, training).model
    pit = torch.linspace(0, 1, 50)
    names = [reading.name for reading in read_latent_sde(model, VALIDATION, pit)]
    own = [] if posterior == "smoother" else ["diffusion collapse"]
    assert names == ["posterior collapse", *own, "drift gap", "forecast calibration"]
    assert [r.name for r in read_latent_sde(model, VALIDATION.rows([0]), pit)] == ["forecast calibration"]


def test_readings_do_not_depend_on_rows_without_a_path():
    training = Training(quick=True, progress=False, device="cpu", latent={"posterior": "matched", "hidden_size": 16})
    model = fit_forecaster("latent_sde", TRAIN, VALIDATION, training).model
    single = SeriesBatch.concat([VALIDATION, TEST.history(count=1)])
    for one, two in zip(read_latent_sde(model, VALIDATION), read_latent_sde(model, single), strict=True):
        assert one.value == pytest.approx(two.value, rel=1e-4)


def test_unknown_names_and_impossible_values_are_refused():
    with pytest.raises(ValueError, match="name: 'prophet' given, one of last_value"):
        fit_forecaster("prophet", TRAIN, VALIDATION)
    counts = Training(quick=True, progress=False, latent={"posterior": "matched", "likelihood": "poisson"})
    with pytest.raises(ValueError, match="values: variable"):
        fit_forecaster("latent_sde", TRAIN, VALIDATION, counts)
    assert set(BASELINES) == set(FORECASTERS) - {"latent_sde", *STABLE}
