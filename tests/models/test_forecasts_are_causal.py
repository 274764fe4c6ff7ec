"""A forecast is made of the history alone: nothing that happens after the cut can reach it."""

import pytest
import torch

from neurodyn.models.forecasters import FORECASTERS, Training, fit_forecaster
from neurodyn.series import SeriesBatch

DOUBLE = torch.float64
CUT = 2  # index of the last visit of the histories
LATENT = [
    {"posterior": "matched"},
    {"posterior": "simulated"},
    {"posterior": "matched", "encoder": "attention", "num_covariates": 1, "num_static": 1},
]
CASES = [(name, None) for name in FORECASTERS] + [("latent_sde", options) for options in LATENT]


def rows(count: int, seed: int) -> SeriesBatch:
    generator = torch.Generator().manual_seed(seed)
    times = 0.1 + torch.rand(count, 7, generator=generator, dtype=DOUBLE).cumsum(1)
    mask = torch.rand(count, 7, 2, generator=generator) > 0.3
    mask[:, : CUT + 1, 0] = True
    mask[::3, 5:] = False
    values = 0.5 * torch.randn(count, 7, 2, generator=generator).cumsum(1) * mask
    covariates, static = torch.randn(count, 7, 1, generator=generator), torch.randn(count, 1, generator=generator)
    return SeriesBatch(times, values, mask, covariates, static, ids=tuple(f"{seed}-{k}" for k in range(count)))


def with_another_future(batch: SeriesBatch) -> SeriesBatch:
    times, values, mask, covariates = (
        part.clone() for part in (batch.times, batch.values, batch.mask, batch.covariates)
    )
    times[:, CUT + 1 :] = times[:, CUT : CUT + 1] + torch.tensor([0.01, 2.0, 5.0, 11.0], dtype=DOUBLE)
    values[:, CUT + 1 :], covariates[:, CUT + 1 :], mask[:, CUT + 1 :] = 9.0, 77.0, True
    return SeriesBatch(times, values, mask, covariates, batch.static, ids=batch.ids)


@pytest.mark.parametrize(("name", "latent"), CASES)
def test_what_comes_after_the_cut_does_not_reach_a_forecast(name, latent):
    train, validation, test = rows(30, 0), rows(8, 1), rows(5, 2)
    fitted = fit_forecaster(name, train, validation, Training(quick=True, progress=False, latent=latent))
    cut = test.times[:, CUT]
    ask = cut[:, None] + torch.tensor([0.0, 0.5, 3.0], dtype=DOUBLE)
    one, other = (
        fitted.forecast(batch.history(until=cut), ask, 10).samples for batch in (test, with_another_future(test))
    )
    assert torch.equal(one, other)
    # while the past does reach it
    past = test._with(values=torch.where(test.mask, test.values + 1.0, 0.0))
    assert not torch.equal(one, fitted.forecast(past.history(until=cut), ask, 10).samples)
