"""Ordinary differential equations through torchdiffeq, with times per row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from neurodyn.solvers.grid import step_grid

# Methods of torchdiffeq that choose their steps themselves.
_ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
_FIXED = ("rk4", "midpoint", "euler")


def odeint(
    drift: Callable[[Tensor, Tensor], Tensor],
    y0: Tensor,
    ts: Tensor | Sequence[float],
    *,
    dt: float,
    method: str = "rk4",
    rtol: float = 1e-6,
    atol: float = 1e-8,
) -> Tensor:
    """Solve dz/dt = drift(t, z) from y0 at the first time, and return z at all times, (..., T, d).

    Every gap between times is solved by itself in a time that runs alike in all rows, so that steps end at the times.
    Adaptive methods then share the steps of the whole batch, and their error control too: results depend on the batch
    within the tolerances.

    Args:
        drift: f(t, z) -> (..., d); t is 0-d, or (...) per row where the times are.
        y0: (..., d).
        ts: (T,) shared and strictly increasing, or (..., T) per row and not decreasing, as in `sdeint`.
        dt: longest step of the fixed-step methods "rk4", "midpoint" and "euler"; not used by the others.
        method: one of these, or "dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun".
        rtol, atol: tolerances of the adaptive methods.

    Raises:
        ValueError: unsorted times, an unknown method, or shapes that do not fit.
    """
    import torchdiffeq  # here, because it brings scipy.integrate: a quarter of a second

    if method not in _FIXED + _ADAPTIVE:
        raise ValueError(f"method: got {method!r}, want one of {', '.join(_FIXED + _ADAPTIVE)}")
    grid = step_grid(ts, dt)
    try:
        lead = torch.broadcast_shapes(y0.shape[:-1], grid.rows)
    except RuntimeError:
        wanted = f"one that fits the times' {tuple(grid.rows)}"
        raise ValueError(f"y0: got leading shape {tuple(y0.shape[:-1])}, want {wanted}") from None
    state = y0.expand(*lead, y0.shape[-1])
    options = {"step_size": 1.0} if method in _FIXED else None
    states = [state]
    for start, end in zip(grid.index[:-1], grid.index[1:], strict=True):
        if end > start:
            begins = grid.times[..., start]
            pace = (grid.times[..., end] - begins) / (end - start)
            field = _paced(drift, begins.to(y0), pace.to(y0))
            ends = torch.tensor([0.0, end - start], dtype=y0.dtype, device=y0.device)
            state = torchdiffeq.odeint(field, state, ends, rtol=rtol, atol=atol, method=method, options=options)[-1]
        states.append(state)
    return torch.stack(states, -2)


def _paced(
    drift: Callable[[Tensor, Tensor], Tensor], begins: Tensor, pace: Tensor
) -> Callable[[Tensor, Tensor], Tensor]:
    """The drift in steps instead of time: t = begins + s pace."""
    return lambda s, z: drift(begins + s * pace, z) * pace.unsqueeze(-1)
