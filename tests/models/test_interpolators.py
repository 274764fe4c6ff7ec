"""Ways to fill in values by name: exact where there is a closed form, honest spreads, better than what is simpler."""

import math

import pytest
import torch

from neurodyn.metrics.forecasts import evaluate
from neurodyn.models.forecasters import Training
from neurodyn.models.interpolators import INTERPOLATORS, LinearSmoother, Neighbour, fit_interpolator
from neurodyn.models.linear_sde import LinearSDE
from neurodyn.sde.linear_gaussian import FreeLinearGaussian
from neurodyn.series import SeriesBatch

DOUBLE = torch.float64
QUICK = Training(seed=1, quick=True, progress=False, device="cpu")


def walks(rows=100, visits=12, seed=0):
    """Ornstein-Uhlenbeck series of two variables, a fifth missing."""
    g = torch.Generator().manual_seed(seed)
    times = (torch.rand(rows, visits, generator=g, dtype=DOUBLE) + 0.02).cumsum(1)
    state, path = torch.randn(rows, 2, generator=g), []
    for gap in times.diff(dim=1, prepend=times[:, :1]).float().unbind(1):
        keep = torch.exp(-gap)[:, None]
        state = keep * state + (1 - keep**2).sqrt() * torch.randn(rows, 2, generator=g)
        path.append(state)
    values = torch.stack(path, 1)
    mask = torch.rand(values.shape, generator=g) > 0.2
    mask[:, 0] = True
    return SeriesBatch(times, values, mask, ids=tuple(f"row {k}" for k in range(rows)))


@pytest.mark.parametrize("name", INTERPOLATORS)
def test_each_fits_and_its_intervals_hold(name):
    train, validation, test = walks(), walks(30, seed=1), walks(60, seed=2)
    fitted = fit_interpolator(name, train, validation, QUICK)
    known, hidden = test.drop_observed(0.4, torch.Generator().manual_seed(3))
    drawn = fitted.sample(known, hidden.times, 200, seed=4)
    assert torch.equal(drawn.samples, fitted.sample(known, hidden.times, 200, seed=4).samples)
    scores = evaluate(drawn, hidden)
    # the CRPS of the marginal law itself, which knows nothing of the row; holding a value is hardly better
    assert scores["crps"] < (1.05 if name == "last_value" else 0.97) / math.sqrt(math.pi)
    assert 0.8 < scores["coverage_90"] < 0.99
    alone = fitted.sample(known.rows([5]), hidden.times[5:6], 200, seed=4)
    torch.testing.assert_close(alone.samples, drawn.samples[:, 5:6], rtol=1e-4, atol=1e-4)


def test_linear_smoother_is_the_joint_gaussians_conditional():
    """One Ornstein-Uhlenbeck process, seen at two visits: between, at, and after them by hand."""
    one = torch.ones(1, 1, dtype=DOUBLE)
    core = FreeLinearGaussian(
        -one, math.sqrt(2) * one, torch.zeros(1, dtype=DOUBLE), one, one, torch.tensor([0.1]).double()
    )
    smoother = LinearSmoother(LinearSDE(1, core=core))
    known = SeriesBatch(torch.tensor([[0.0, 1.0]]), torch.tensor([[[1.0], [-0.5]]], dtype=DOUBLE))
    at = torch.tensor([[0.0, 0.4, 1.0, 2.5]], dtype=DOUBLE)
    drawn = smoother.sample(known, at, 200_000, generator=torch.Generator().manual_seed(0)).samples[:, 0, :, 0]
    seen = torch.tensor([0.0, 1.0], dtype=DOUBLE)
    inner = torch.exp(-(seen[:, None] - seen).abs()) + 0.1 * torch.eye(2, dtype=DOUBLE)
    cross = torch.exp(-(at[0][:, None] - seen).abs())
    mean = cross @ torch.linalg.solve(inner, known.values[0, :, 0])
    variance = 1.1 - (cross * torch.linalg.solve(inner, cross.mT).mT).sum(1)
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.01, rtol=0)
    torch.testing.assert_close(drawn.var(0), variance, atol=0.01, rtol=0)


def test_neighbours_have_the_spread_of_their_errors():
    train, test = walks(300), walks(300, seed=1)
    known, hidden = test.drop_observed(0.5, torch.Generator().manual_seed(1))
    for straight in (True, False):
        model = Neighbour(straight).fit(train)
        drawn = model.sample(known, hidden.times, 200, generator=torch.Generator().manual_seed(0))
        error = (drawn.samples.mean(0) - hidden.values)[hidden.mask].square().mean().sqrt()
        assert float(error) == pytest.approx(float(model.spread.square().mean().sqrt()), rel=0.1)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="name: 'spline' given, one of last_value"):
        fit_interpolator("spline", walks(5), walks(5))
