"""The loop over the steps of a fixed grid, which every way of getting gradients shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from neurodyn.sde.base import Time
from neurodyn.solvers.brownian import BLOCK, Brownian
from neurodyn.solvers.grid import Grid
from neurodyn.solvers.schemes import Left, Scheme, State

# (k, t, left) -> what being there costs per unit of time, (...); reversible Heun asks once more, at the very end
Cost = Callable[[int, Time, Left], Tensor]


def run_steps(
    scheme: Scheme, cost: Cost | None, start: int, stop: int, noise: Sequence[Tensor], state: State
) -> tuple[State, dict[int, Tensor], dict[int, Tensor]]:
    """Steps start..stop-1: the state after them, costs by gap, and by place what `rows_of` z has a visit among them."""
    visits = scheme.visits
    seen: dict[int, Tensor] = {}
    costs: dict[int, Tensor] = {}
    for k in range(start, stop):
        state, left = scheme.step(k, state, noise[k - start])
        if k + 1 in visits:
            seen[k + 1] = rows_of(state[0], visits[k + 1])
        if cost is not None:
            charge(scheme, k, cost(k, scheme.times[k], left), costs)
    if cost is not None and scheme.charges_ends and stop == scheme.grid.num_steps:
        end = Left(*state[1:])
        charge(scheme, stop, cost(stop - 1, scheme.times[stop], end), costs)
    return state, seen, costs


def rows_of(state: Tensor, rows: Tensor | None) -> Tensor:
    """These rows (R,) of a state (..., B, d); None stands for all of them."""
    return state if rows is None else state.index_select(-2, rows)


def charge(scheme: Scheme, k: int, rate: Tensor, costs: dict[int, Tensor]) -> None:
    """Add what a rate at the start of step k costs to the gaps that pay for it."""
    for step, share in shares(scheme, k):
        paid, gap = rate * step_length(scheme, step) * share, scheme.gap_of[step]
        costs[gap] = paid if gap not in costs else costs[gap] + paid


def shares(scheme: Scheme, k: int) -> list[tuple[int, float]]:
    """The steps whose lengths a rate at the start of step k is multiplied with, and how much of each.

    The step itself; with a method that moves by the mean of both ends, half of it and half of the step before. A
    control would else push at the end of a gap without a price.
    """
    if not scheme.charges_ends:
        return [(k, 1.0)]
    return [(step, 0.5) for step in (k - 1, k) if 0 <= step < scheme.grid.num_steps]


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
