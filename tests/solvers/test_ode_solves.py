"""ODEs through torchdiffeq: order, tolerance, gradients, and rows at their own times."""

import numpy as np
import pytest
import torch
from example_laws import DTYPE, Decay

from neurodyn.solvers.ode import odeint

TS = torch.tensor([[0.0, 0.5, 1.0], [0.3, 1.1, 1.1]], dtype=DTYPE)


def exact(start, ts):
    return torch.stack([Decay().exact(start, ts[..., 0], ts[..., j]) for j in range(ts.shape[-1])], -2)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_order_with_times_per_row(method, order):
    start = torch.randn(4, 2, 3, dtype=DTYPE)
    steps = [4, 8, 16, 32]
    errors = [
        (odeint(Decay().drift, start, TS, dt=1 / n, method=method) - exact(start, TS)).abs().max().item() for n in steps
    ]
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(order, abs=0.25)


def test_adaptive_methods_reach_their_tolerance_and_rows_are_as_if_alone():
    start = torch.randn(2, 3, dtype=DTYPE)
    states = odeint(Decay().drift, start, TS, dt=1.0, method="dopri5", rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(states, exact(start, TS), rtol=1e-7, atol=1e-8)
    alone = odeint(Decay().drift, start[0], TS[0], dt=1.0, method="dopri5", rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(states[0], alone, rtol=1e-7, atol=1e-8)
    assert torch.equal(states[1, 1], states[1, 2])


def test_gradients_equal_the_closed_form():
    start = torch.randn(2, 3, dtype=DTYPE, requires_grad=True)
    (found,) = torch.autograd.grad(odeint(Decay().drift, start, TS, dt=0.02)[:, -1].sum(), start)
    (wanted,) = torch.autograd.grad(exact(start, TS)[:, -1].sum(), start)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


def test_float32_stays_float32():
    assert odeint(Decay().drift, torch.ones(2, 3), TS, dt=0.1).dtype == torch.float32


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="^method: got 'rk5'"):
        odeint(Decay().drift, torch.ones(2, 3), TS, dt=0.1, method="rk5")
    with pytest.raises(ValueError, match="^ts"):
        odeint(Decay().drift, torch.ones(3), [1.0, 0.0], dt=0.1)
    with pytest.raises(ValueError, match="^dt"):
        odeint(Decay().drift, torch.ones(3), [0.0, 1.0], dt=0.0)
    with pytest.raises(ValueError, match="^y0: got leading shape"):
        odeint(Decay().drift, torch.ones(5, 3), TS, dt=0.1)
