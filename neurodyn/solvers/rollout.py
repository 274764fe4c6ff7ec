"""Prior rollouts for forecasts: each row from its own start to its own times, with row noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neurodyn.noise import RowNoise
from neurodyn.sde.base import SDE, Time
from neurodyn.sde.langevin import UnderdampedLangevin
from neurodyn.sde.linear import square_root
from neurodyn.sde.residual import ResidualLaw
from neurodyn.solvers.brownian import Brownian
from neurodyn.solvers.grid import Grid, fixed_grid, step_grid
from neurodyn.solvers.native import integrate, integrate_visits
from neurodyn.solvers.splitting import integrate_splitting


def rollout(
    sde: SDE,
    z: Tensor,
    start: Tensor,
    times: Tensor,
    noise: RowNoise,
    longest_step: float,
    *,
    num_steps: int | None = None,
) -> Tensor:
    """Simulate `sde` (Ito) from z (S, B, d) at `start` (B,) to `times` (B, H): (S, B, H, d).

    Euler-Maruyama in steps of at most `longest_step`; a `ResidualLaw` moves its linear part exactly instead
    (exponential Euler), so with a zero residual the result is exact in law for any step, and an `UnderdampedLangevin`
    law takes BAOAB steps. A row's result does not depend on the other rows.

    Args:
        num_steps: how many steps are taken in all, for programs whose shapes are settled before the times are known;
            as many as the times ask for if not given. The result is the same, but NaN where a row needs more.

    Raises:
        ValueError: `num_steps` for a law that takes BAOAB steps.
    """
    visits = torch.cat((start[:, None], times), 1)
    places = None
    if num_steps is None:
        grid = step_grid(visits, longest_step)
    else:
        grid, places = fixed_grid(visits, longest_step, num_steps)
    if isinstance(sde, ResidualLaw):
        states = _exponential(sde, z, grid, noise)
        if places is not None:
            return _at_places(torch.stack(states, 2), places[:, 1:]).to(z.dtype)
        return torch.stack([states[place] for place in grid.index[1:]], 2).to(z.dtype)
    path = Brownian(grid, z.shape[:-1], sde.noise_size, seeds=noise, dtype=z.dtype, device=z.device)
    if isinstance(sde, UnderdampedLangevin):
        if places is not None:
            raise ValueError("num_steps: given for an underdamped Langevin law, which takes as many as it needs")
        return integrate_splitting(sde, z, grid, path).states[:, :, 1:]

    def drift(k: int, t: Time, state: Tensor) -> Tensor:
        return sde.drift(t, state)

    def diffusion(k: int, t: Time, state: Tensor) -> Tensor:
        return sde.diffusion(t, state)

    if places is not None:
        whole = integrate(drift, diffusion, z, grid, path, method="euler", noise_type=sde.noise_type)
        return _at_places(whole.states, places[:, 1:])
    seen = integrate_visits(drift, diffusion, z, grid, path, method="euler", noise_type=sde.noise_type)
    return seen.states[:, :, 1:]


def _at_places(states: Tensor, places: Tensor) -> Tensor:
    """States (S, B, N + 1, d) at places (B, H); NaN at places beyond the last."""
    last = states.shape[2] - 1
    index = places.clamp(max=last)[None, :, :, None].expand(states.shape[0], -1, -1, states.shape[-1])
    return torch.where((places > last)[None, :, :, None], torch.nan, states.gather(2, index))


def _exponential(sde: ResidualLaw, z: Tensor, grid: Grid, noise: RowNoise) -> list[Tensor]:
    """The states (S, B, d) from the start on, in the precision of the linear part.

    z' = Phi z + offset + Phi(step / 2) G r(z) step + N(0, Q): exact in the linear part, first order in r.
    """
    # the linear part computes in its own precision
    z = z.to(sde.linear.noise().dtype)
    steps = grid.steps.to(z)
    transition = sde.linear.transition(steps)
    push = sde.linear.transition(0.5 * steps).matrix @ sde.linear.noise() * steps[..., None, None]
    root = noise_root(transition.covariance, sde.linear.reached_states())
    unit = Brownian(grid, z.shape[:-1], root.shape[-1], seeds=noise, dtype=z.dtype, device=z.device).increments()
    unit = unit / steps.sqrt().clamp(min=1e-300).mT[:, None, :, None]
    moves = (root.movedim(1, 0)[:, None] @ unit[..., None])[..., 0]
    parts = (part.unbind(1) for part in (transition.matrix, transition.offset, push, grid.times[:, :-1]))
    states = [z]
    for move, phi, offset, force, time in zip(moves.unbind(0), *parts, strict=True):
        pushed = phi @ z[..., None] + force @ sde.residual(time, z)[..., None]
        z = pushed[..., 0] + offset + move
        states.append(z)
    return states


def noise_root(covariance: Tensor, reached: Sequence[int]) -> Tensor:
    """R (..., d, k) with R R^T = covariance (..., d, d), which is zero but for the k states in `reached`."""
    where = torch.tensor(reached, dtype=torch.long, device=covariance.device)
    root = covariance.new_zeros(*covariance.shape[:-1], len(reached))
    inner = square_root(covariance.index_select(-2, where).index_select(-1, where))
    return root.index_copy(-2, where, inner)
