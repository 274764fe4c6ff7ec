"""The native fixed-grid engine: a plain loop over steps, noise drawn beforehand, nothing else inside."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from neurodyn.sde.base import NoiseType, SDEType
from neurodyn.solvers.brownian import Brownian
from neurodyn.solvers.checkpointed import CheckpointedSolve
from neurodyn.solvers.grid import Grid
from neurodyn.solvers.loop import Cost, check_noise, one_by_one, run_steps
from neurodyn.solvers.own_backward import Params, solve_by
from neurodyn.solvers.reversible import ReversibleSolve
from neurodyn.solvers.schemes import Problem, ReversibleHeun, SlopeFunction, StepFunction, make_scheme

Gradient = Literal["backprop", "checkpoint", "reversible"]


class Path(NamedTuple):
    """Every step of a solution, with the leading shape (...) of the state.

    Attributes:
        times: (N + 1,) or (..., N + 1) float64.
        states: (..., N + 1, d).
        drift: (..., N, d) and diffusion (..., N, d) or (..., N, d, m), where each step starts.
        steps: (N,) or (..., N) float64, lengths.
        points: (..., N, d), where drift and diffusion were evaluated: the first N states, except for reversible Heun,
            which evaluates them at its companion state.
    """

    times: Tensor
    states: Tensor
    drift: Tensor
    diffusion: Tensor
    steps: Tensor
    points: Tensor


class Visits(NamedTuple):
    """A solution at the visits: states (..., T, d), and the cost of each gap, (..., T - 1), if asked for.

    On a packed grid the cost is that of the whole path, (..., 1).
    """

    states: Tensor
    cost: Tensor | None


def integrate(
    drift: StepFunction,
    diffusion: StepFunction,
    z0: Tensor,
    grid: Grid,
    noise: Tensor | Brownian,
    *,
    method: str = "euler",
    noise_type: NoiseType = "diagonal",
    sde_type: SDEType = "ito",
    state_independent: bool = False,
    slope: SlopeFunction | None = None,
) -> Path:
    """Solve on a grid and keep every step; gradients by backprop through the steps.

    Args:
        drift, diffusion: called as f(k, t, z) with the number k of the step, so that what changes from gap to gap can
            be an unbound list (`Grid.intervals` says which gap a step is in). t is a float if the grid is shared, else
            a tensor that broadcasts against ``z.shape[:-1]``.
        z0: (..., d), with the full leading shape.
        grid: N steps; its rows broadcast against the leading shape.
        noise: Brownian increments (N, ..., m).
        method: "euler", "milstein" (for coordinate-wise diagonal, scalar or additive noise), "heun", "reversible_heun".
        noise_type, sde_type, state_independent: as in `SDE`.
        slope: for Milstein, the diffusion and its derivative along itself; made by autograd if not given.

    Raises:
        ValueError: shapes that do not fit, or a method that does not fit the noise.
    """
    problem = Problem(drift, diffusion, noise_type, sde_type, slope)
    scheme = make_scheme(method, problem, grid, z0, state_independent=state_independent)
    check_noise(noise, grid, z0)
    state = scheme.start(z0)
    states, lefts = [z0], []
    for k, dw in enumerate(one_by_one(noise)):
        state, left = scheme.step(k, state, dw)
        states.append(state[0])
        lefts.append(left)
    if not lefts:
        raise ValueError("grid: got no steps, want at least one")
    axis = z0.ndim - 1
    points, drifts, diffusions = (torch.stack(part, axis) for part in zip(*lefts, strict=True))
    return Path(grid.times, torch.stack(states, axis), drifts, diffusions, grid.steps, points)


def integrate_visits(
    drift: StepFunction,
    diffusion: StepFunction,
    z0: Tensor,
    grid: Grid,
    noise: Tensor | Brownian,
    *,
    method: str = "euler",
    noise_type: NoiseType = "diagonal",
    sde_type: SDEType = "ito",
    state_independent: bool = False,
    slope: SlopeFunction | None = None,
    cost: Cost | None = None,
    gradient: Gradient = "backprop",
    params: Params = (),
) -> Visits:
    """Solve on a grid and keep the visits only. Arguments as in `integrate`, and:

    Args:
        cost: c(k, t, left) -> (...), a rate that is summed over the steps of each gap, taken where each step starts;
            for reversible Heun the mean of both ends.
        gradient: "backprop" keeps all steps. "checkpoint" keeps about sqrt(N) and computes the others again: memory
            O(sqrt N), the same gradients. "reversible" (reversible Heun only) keeps the visits and runs the steps
            backwards: memory does not grow with N, the same gradients up to rounding.
        params: for "checkpoint" and "reversible": every tensor that the functions use and that needs gradients. Where
            one is computed from others, as a context is from an encoder's weights, those get theirs through it. A list
            of N tensors is one of which step number k uses the k-th only, which spares the others a look in every step.

    Raises:
        ValueError: as in `integrate`, and an unknown gradient or one that the method does not have.
    """
    problem = Problem(drift, diffusion, noise_type, sde_type, slope)
    scheme = make_scheme(method, problem, grid, z0, state_independent=state_independent)
    check_noise(noise, grid, z0)
    if gradient not in ("backprop", "checkpoint", "reversible"):
        raise ValueError(f"gradient: got {gradient!r}, want backprop, checkpoint or reversible")
    if gradient == "reversible" and not isinstance(scheme, ReversibleHeun):
        raise ValueError(f"gradient: got 'reversible' with method {method!r}, want method 'reversible_heun'")
    if gradient == "backprop":
        increments = list(one_by_one(noise))
        _, seen, costs = run_steps(scheme, cost, 0, grid.num_steps, increments, scheme.start(z0))
    else:
        function = ReversibleSolve if gradient == "reversible" else CheckpointedSolve
        seen, costs = solve_by(function, scheme, cost, z0, noise, params)
    return gather_visits(grid, z0, seen, costs if cost is not None else None)


def gather_visits(grid: Grid, z0: Tensor, seen: dict[int, Tensor], costs: dict[int, Tensor] | None) -> Visits:
    """Stack what was kept: states by their place in the grid, costs by their gap."""
    if grid.places is None:
        seen = {0: z0, **seen}
        states = torch.stack([seen[place] for place in grid.index], z0.ndim - 1)
    else:
        # what was kept, place by place and in each of them row by row, is in the order of place * B + row
        rows = len(grid.places)
        number = grid.places * rows + torch.arange(rows, device=grid.places.device)[:, None]
        where = torch.unique(number, return_inverse=True)[1].to(z0.device)
        kept = torch.cat([z0, *seen.values()], -2)
        states = kept.index_select(-2, where.flatten()).unflatten(-2, tuple(where.shape))
    if costs is None:
        return Visits(states, None)
    nothing = z0.new_zeros(z0.shape[:-1])
    gaps = [costs.get(gap, nothing) for gap in range(len(grid.index) - 1)]
    return Visits(states, torch.stack(gaps, -1) if gaps else z0.new_zeros(*z0.shape[:-1], 0))
