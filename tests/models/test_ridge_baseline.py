"""Ridge baselines: leaving out by one decomposition is leaving out, and linear worlds are solved."""

import pytest
import torch

from neurodyn.models.baselines.ridge import PENALTIES, RidgeForecast, RidgeInterpolation, ridge
from neurodyn.series import SeriesBatch


def test_penalties_are_chosen_by_the_error_of_lines_left_out():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, generator=g, dtype=torch.float64)
    y = x[:, :1] - 0.5 * x[:, 1:2] + torch.randn(30, 1, generator=g, dtype=torch.float64)

    def by_hand(penalty, rows):
        centre, level = x[rows].mean(0), y[rows].mean(0)
        moved = x[rows] - centre
        weights = torch.linalg.solve(moved.mT @ moved + penalty * torch.eye(4).double(), moved.mT @ (y[rows] - level))
        return weights, level - centre @ weights

    errors = []
    for penalty in PENALTIES:
        left_out = []
        for k in range(30):
            weights, constant = by_hand(penalty, torch.arange(30) != k)
            left_out.append(y[k] - x[k] @ weights - constant)
        errors.append(torch.stack(left_out).square().mean())
    best = int(torch.stack(errors).argmin())
    found = ridge(x, y, torch.ones(30, 1, dtype=torch.bool))
    weights, constant = by_hand(PENALTIES[best], torch.arange(30))
    torch.testing.assert_close(found.weights, torch.cat((weights, constant[None])))
    torch.testing.assert_close(found.spread, errors[best].sqrt()[None], rtol=1e-6, atol=0)


def straight(rows: int, seed: int = 0) -> SeriesBatch:
    """Lines in time, the second variable the first's mirror image; a quarter of the values missing."""
    g = torch.Generator().manual_seed(seed)
    times = torch.arange(9.0).expand(rows, -1)
    level, slope = torch.randn(2, rows, 1, generator=g)
    values = torch.stack((level + slope * times / 4, -level - slope * times / 4), -1)
    mask = torch.rand(rows, 9, 2, generator=g) > 0.25
    mask[:, [0, 5]] = True
    return SeriesBatch(times, values, mask, ids=tuple(f"{seed}-{k}" for k in range(rows)))


def test_lines_go_on_as_lines():
    model = RidgeForecast(5.0, classes=3).fit(straight(200))
    test = straight(20, 1)
    history, future = test.history(until=5.0), test.after(until=5.0)
    found = model.forecast(history, future.times, 400, generator=torch.Generator().manual_seed(0))
    error = (found.samples.mean(0) - future.values)[future.mask]
    assert error.square().mean() < 0.02 * future.values[future.mask].var()
    alone = model.forecast(history.rows(3), future.rows(3).times, 400, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(alone.samples[:, 0], found.samples[:, 3])


def test_hidden_values_are_read_off_the_mirror():
    model = RidgeInterpolation().fit(straight(200))
    known, hidden = straight(20, 1).drop_observed(0.5, torch.Generator().manual_seed(2))
    found = model.sample(known, hidden.times, 200, generator=torch.Generator().manual_seed(0))
    error = (found.samples.mean(0) - hidden.values)[hidden.mask]
    assert error.square().mean() < 0.1 * hidden.values[hidden.mask].var()
    with pytest.raises(ValueError, match="hidden|fraction"):
        RidgeInterpolation(hidden=1.0).fit(straight(5))
