"""Prior rollouts for forecasts: each row from its own start to its own times, with row noise."""

from __future__ import annotations

import torch
from torch import Tensor

from neurodyn.noise import RowNoise
from neurodyn.sde.base import SDE, Time
from neurodyn.sde.langevin import UnderdampedLangevin
from neurodyn.sde.linear import square_root
from neurodyn.sde.residual import ResidualLaw
from neurodyn.solvers.brownian import Brownian
from neurodyn.solvers.grid import Grid, step_grid
from neurodyn.solvers.native import integrate_visits
from neurodyn.solvers.splitting import integrate_splitting


def rollout(sde: SDE, z: Tensor, start: Tensor, times: Tensor, noise: RowNoise, longest_step: float) -> Tensor:
    """Simulate `sde` (Ito) from z (S, B, d) at `start` (B,) to `times` (B, H): (S, B, H, d).

    Euler-Maruyama in steps of at most `longest_step`; a `ResidualLaw` moves its linear part exactly instead
    (exponential Euler), so with a zero residual the result is exact in law for any step, and an `UnderdampedLangevin`
    law takes BAOAB steps. A row's result does not depend on the other rows.
    """
    grid = step_grid(torch.cat((start[:, None], times), 1), longest_step)
    if isinstance(sde, ResidualLaw):
        return _exponential(sde, z, grid, noise)
    path = Brownian(grid, z.shape[:-1], sde.noise_size, seeds=noise, dtype=z.dtype, device=z.device)
    if isinstance(sde, UnderdampedLangevin):
        return integrate_splitting(sde, z, grid, path).states[:, :, 1:]

    def drift(k: int, t: Time, state: Tensor) -> Tensor:
        return sde.drift(t, state)

    def diffusion(k: int, t: Time, state: Tensor) -> Tensor:
        return sde.diffusion(t, state)

    visits = integrate_visits(drift, diffusion, z, grid, path, method="euler", noise_type=sde.noise_type)
    return visits.states[:, :, 1:]


def _exponential(sde: ResidualLaw, z: Tensor, grid: Grid, noise: RowNoise) -> Tensor:
    """z' = Phi z + offset + Phi(step / 2) G r(z) step + N(0, Q): exact in the linear part, first order in r."""
    # the linear part computes in its own precision, the result is of the state's
    given, z = z.dtype, z.to(sde.linear.noise().dtype)
    steps = grid.steps.to(z)
    transition = sde.linear.transition(steps)
    push = sde.linear.transition(0.5 * steps).matrix @ sde.linear.noise() * steps[..., None, None]
    root = noise_root(transition.covariance, sde.linear.reached())
    unit = Brownian(grid, z.shape[:-1], root.shape[-1], seeds=noise, dtype=z.dtype, device=z.device).increments()
    unit = unit / steps.sqrt().clamp(min=1e-300).mT[:, None, :, None]
    moves = (root.movedim(1, 0)[:, None] @ unit[..., None])[..., 0]
    parts = (part.unbind(1) for part in (transition.matrix, transition.offset, push, grid.times[:, :-1]))
    states = [z]
    for move, phi, offset, force, time in zip(moves.unbind(0), *parts, strict=True):
        pushed = phi @ z[..., None] + force @ sde.residual(time, z)[..., None]
        z = pushed[..., 0] + offset + move
        states.append(z)
    return torch.stack([states[place] for place in grid.index[1:]], 2).to(given)


def noise_root(covariance: Tensor, reached: Tensor) -> Tensor:
    """R (..., d, k) with R R^T = covariance (..., d, d), which is zero but for the k states in `reached` (d,) bool."""
    where = reached.nonzero()[:, 0]
    root = covariance.new_zeros(*covariance.shape[:-1], len(where))
    root[..., where, :] = square_root(covariance[..., where[:, None], where])
    return root
