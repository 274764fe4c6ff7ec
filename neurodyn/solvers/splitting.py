"""Splitting integrators of underdamped Langevin laws: kicks (B), drifts (A) and exact Ornstein-Uhlenbeck parts (O).

    B  v += h (F - dU/dq) / m     A  q += h v     O  v = e^(-c h) v + sqrt((1 - e^(-2 c h)) kT / m) xi

    BAOAB   B(h/2) A(h/2) O(h) A(h/2) B(h/2)       OBABO   O(h/2) B(h/2) A(h) B(h/2) O(h/2)

Both have weak order 2 at one gradient per step, the last kick's being the next step's first. On a harmonic well of
frequency w both are stable for h w < 2; BAOAB has the exact law of q for every such h, and <v^2> = kT/m (1 - h^2 w^2 /
4), OBABO the exact law of v, and <q^2> = kT / (m w^2) / (1 - h^2 w^2 / 4). Friction that depends on q is exact too, as
q rests during O. Source: Leimkuhler and Matthews (2013), Applied Mathematics Research eXpress 2013:34.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from neurodyn.sde.base import SDE, Time
from neurodyn.sde.langevin import UnderdampedLangevin
from neurodyn.solvers.brownian import Brownian
from neurodyn.solvers.checkpointed import CheckpointedSolve
from neurodyn.solvers.grid import Grid
from neurodyn.solvers.loop import check_noise, one_by_one, run_steps
from neurodyn.solvers.native import Visits, gather_visits
from neurodyn.solvers.own_backward import solve_by
from neurodyn.solvers.schemes import Left, Problem, Scheme, State

_SHORTEST = 1e-12  # stands for a step of length zero in a quotient whose limit there is finite


class Splitting(Scheme):
    """A splitting bound to an underdamped law and a grid. Its state is (z, push where z is).

    The noise of a step is one Brownian increment of size n for each O in it; divided by the square root of the step it
    is the O part's xi, so a row that stands still does not move.
    """

    draws = 1  # O parts per step

    def __init__(self, law: UnderdampedLangevin, grid: Grid, like: Tensor) -> None:
        problem = Problem(
            lambda k, t, z: law.drift(t, z), lambda k, t, z: law.diffusion(t, z), law.noise_type, law.sde_type
        )
        super().__init__(problem, grid, like)
        self.law = law

    def start(self, z: Tensor) -> State:
        """(z, push)."""
        return (z, self.law.push(self.times[0], z[..., : self.law.size])) if self.grid.num_steps else (z,)

    def step(self, k: int, state: State, dw: Tensor) -> tuple[State, Left]:
        """Step number k. What it returns as evaluated at its start is the push alone: no path price is taken here."""
        z, push = state
        q, v = z.chunk(2, -1)
        q, v, ahead = self.split(k, q, v, push, dw)
        return (torch.cat((q, v), -1), ahead), Left(z, push, push)

    def split(self, k: int, q: Tensor, v: Tensor, push: Tensor, dw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q and v after the step, and the push there."""
        raise NotImplementedError

    def relax(self, q: Tensor, v: Tensor, dt: Time, share: float, dw: Tensor) -> Tensor:
        """O over `share` of the step dt, with an increment dw ~ N(0, dt): exact."""
        bath = self.law.bath
        rate = share * bath.friction(q)
        span = dt.clamp_min(_SHORTEST) if isinstance(dt, Tensor) else max(dt, _SHORTEST)
        variance = bath.temperature / bath.mass * (-torch.expm1(-2 * rate * span) / span)
        return torch.exp(-rate * dt) * v + variance.sqrt() * dw


class BAOAB(Splitting):
    """B(h/2) A(h/2) O(h) A(h/2) B(h/2)."""

    def split(self, k: int, q: Tensor, v: Tensor, push: Tensor, dw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Splitting`."""
        dt = self.steps[k]
        half = 0.5 * dt
        v = v + half * push
        q = q + half * v
        v = self.relax(q, v, dt, 1.0, dw)
        q = q + half * v
        ahead = self.law.push(self.times[k + 1], q)
        return q, v + half * ahead, ahead


class OBABO(Splitting):
    """O(h/2) B(h/2) A(h) B(h/2) O(h/2)."""

    draws = 2

    def split(self, k: int, q: Tensor, v: Tensor, push: Tensor, dw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Splitting`."""
        dt = self.steps[k]
        half = 0.5 * dt
        before, after = dw.chunk(2, -1)
        v = self.relax(q, v, dt, 0.5, before) + half * push
        q = q + dt * v
        ahead = self.law.push(self.times[k + 1], q)
        return q, self.relax(q, v + half * ahead, dt, 0.5, after), ahead


SPLITTINGS: dict[str, type[Splitting]] = {"baoab": BAOAB, "obabo": OBABO}


def splitting_noise_size(law: SDE, method: str) -> int:
    """Size of the noise per step: n for BAOAB, 2 n for OBABO.

    Raises:
        ValueError: an unknown method, or a law that is not an underdamped Langevin law.
    """
    if method not in SPLITTINGS:
        raise ValueError(f"method: got {method!r}, want one of {', '.join(SPLITTINGS)}")
    if not isinstance(law, UnderdampedLangevin):
        raise ValueError(f"method: got {method!r} for a {type(law).__name__}, want an UnderdampedLangevin law for it")
    return law.size * SPLITTINGS[method].draws


def integrate_splitting(
    law: SDE,
    z0: Tensor,
    grid: Grid,
    noise: Tensor | Brownian,
    *,
    method: str = "baoab",
    gradient: Literal["backprop", "checkpoint"] = "backprop",
    params: Sequence[Tensor] = (),
) -> Visits:
    """Solve an underdamped Langevin law on a grid, and keep the visits.

    Args:
        law: an `UnderdampedLangevin` law of n coordinates.
        z0: (..., 2 n) positions and velocities, with the full leading shape.
        grid: N steps; its rows broadcast against the leading shape.
        noise: Brownian increments (N, ..., m), m as `splitting_noise_size` says.
        method: "baoab" or "obabo".
        gradient, params: as in `integrate_visits`.

    Raises:
        ValueError: another law, shapes that do not fit, or another gradient.
    """
    size = splitting_noise_size(law, method)
    assert isinstance(law, UnderdampedLangevin)
    check_noise(noise, grid, z0)
    given = noise.shape[-1] if isinstance(noise, Tensor) else noise.noise_size
    if given != size:
        raise ValueError(f"noise: got increments of size {given}, want {size} for method {method!r}")
    scheme = SPLITTINGS[method](law, grid, z0)
    if gradient == "backprop":
        _, seen, _ = run_steps(scheme, None, 0, grid.num_steps, list(one_by_one(noise)), scheme.start(z0))
    elif gradient == "checkpoint":
        seen, _ = solve_by(CheckpointedSolve, scheme, None, z0, noise, params)
    else:
        raise ValueError(f"gradient: got {gradient!r} with method {method!r}, want backprop or checkpoint")
    return gather_visits(grid, z0, seen, None)
