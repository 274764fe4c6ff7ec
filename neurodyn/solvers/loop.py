"""The loop over the steps of a fixed grid, which every way of getting gradients shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from neurodyn.sde.base import Time
from neurodyn.solvers.brownian import BLOCK, Brownian
from neurodyn.solvers.grid import Grid
from neurodyn.solvers.schemes import Left, Scheme, State

# (k, t, left) -> what being there costs per unit of time, (...)
Cost = Callable[[int, Time, Left], Tensor]


def run_steps(
    scheme: Scheme, cost: Cost | None, start: int, stop: int, noise: Sequence[Tensor], state: State
) -> tuple[State, dict[int, Tensor], dict[int, Tensor]]:
    """Steps start..stop-1: the state after them, the states z at the visits among them by their place, costs by gap."""
    visits, gap_of = scheme.visits, scheme.gap_of
    seen: dict[int, Tensor] = {}
    costs: dict[int, Tensor] = {}
    for k in range(start, stop):
        state, left = scheme.step(k, state, noise[k - start])
        if k + 1 in visits:
            seen[k + 1] = state[0]
        if cost is not None:
            paid = cost(k, scheme.times[k], left) * step_length(scheme, k)
            costs[gap_of[k]] = paid if gap_of[k] not in costs else costs[gap_of[k]] + paid
    return state, seen, costs


def step_length(scheme: Scheme, k: int) -> Time:
    """Length of step k, to multiply something of the leading shape (...) with."""
    dt = scheme.steps[k]
    return dt.squeeze(-1) if isinstance(dt, Tensor) else dt


def noise_blocks(noise: Tensor | Brownian) -> Iterator[tuple[int, list[Tensor]]]:
    """First step and increments of each block; a tensor is one block."""
    if isinstance(noise, Tensor):
        yield 0, list(noise.unbind(0))
        return
    for number in range(noise.num_blocks):
        yield number * BLOCK, list(noise.block(number).unbind(0))


def check_noise(noise: Tensor | Brownian, grid: Grid, z0: Tensor) -> None:
    """The noise has one increment (..., m) for every step and row."""
    lead, steps = z0.shape[:-1], grid.num_steps
    given: tuple[int, ...]
    given = tuple(noise.shape) if isinstance(noise, Tensor) else (noise.num_steps, *noise.shape, noise.noise_size)
    if given[:-1] != (steps, *lead):
        raise ValueError(f"noise: got shape {given}, want {(steps, *lead)} and the noise size: one increment per step")
    if noise.dtype != z0.dtype:
        raise ValueError(f"noise: got {noise.dtype}, want {z0.dtype}, that of the state")


def one_by_one(noise: Tensor | Brownian) -> Iterator[Tensor]:
    """The increment (..., m) of each step."""
    for _, block in noise_blocks(noise):
        yield from block
