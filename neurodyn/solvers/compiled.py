"""The native engine with its steps compiled, some at a time, by `torch.compile`: forward, and backward by AOTAutograd.

What is compiled is a chunk of `CHUNK` steps of a law by a method, never the horizon: another number of steps or other
times take the same code, other shapes of the state are compiled again. Where compiling fails, for want of a compiler or
because a law does what cannot be traced (as Milstein's method does for scalar noise), the same chunks run as they are,
and one warning says so.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from neurodyn.sde.base import SDE
from neurodyn.solvers.brownian import align_rows
from neurodyn.solvers.grid import Grid
from neurodyn.solvers.loop import check_noise
from neurodyn.solvers.native import Visits
from neurodyn.solvers.path_kl import path_kl_rate
from neurodyn.solvers.schemes import Left, Problem, Scheme, State, make_scheme

CHUNK = 4
BACKEND = "inductor"


class _Window(NamedTuple):
    """What a method asks of its grid, for the steps of one chunk."""

    num_steps: int


def integrate_compiled(
    law: SDE, problem: Problem, z0: Tensor, grid: Grid, noise: Tensor, *, method: str, priced: bool
) -> Visits:
    """As `integrate_visits` with backprop, for a law whose functions do not ask for the number of the step.

    Args:
        law: keeps what has been compiled for it; with `priced`, its paths are priced against its h.
        problem: the law as the method sees it; its functions see times as tensors.
        z0, grid, noise, method: as in `integrate_visits`.
    """
    scheme = make_scheme(method, problem, grid, z0, state_independent=law.state_independent)
    check_noise(noise, grid, z0)
    ndim, total = z0.ndim - 1, grid.num_steps
    times = grid.times.to(z0).unbind(0) if grid.shared else align_rows(grid.times, ndim).squeeze(-1).to(z0).unbind(0)
    lengths = align_rows(grid.steps, ndim).to(z0)
    steps = grid.steps.to(z0).unbind(0) if grid.shared else lengths.unbind(0)
    moving = align_rows(grid.steps > 0, ndim).to(z0.device).unbind(0) if grid.idle else None

    state, start = scheme.start(z0), 0
    states, rates = [], []
    while start < total:
        stop = start + (CHUNK if total - start >= CHUNK else 1)
        local = object.__new__(type(scheme))
        local.__dict__.update(
            problem=problem,
            drift=problem.drift,
            diffusion=problem.diffusion,
            diagonal=scheme.diagonal,
            grid=_Window(stop - start + 1),
            times=list(times[start : stop + 1]),
            steps=list(steps[start:stop]),
            moving=None if moving is None else list(moving[start:stop]),
            resting={},
        )
        state, some_states, some_rates = _run(law, (method, priced), local, state, noise[start:stop])
        states.append(some_states)
        rates.append(some_rates)
        start = stop
    path = torch.cat([z0.unsqueeze(0), *states])
    seen = path[list(grid.index)].movedim(0, -2)
    if not priced:
        return Visits(seen, None)
    rate = torch.cat(rates)
    if scheme.charges_ends:
        end = Left(*state[1:])
        last = path_kl_rate(end.drift - law.h(times[total], end.point), end.diffusion, law.noise_type)
        rate = 0.5 * (rate + torch.cat((rate[1:], last.unsqueeze(0))))
    gap_of = torch.tensor(grid.intervals, device=z0.device)
    paid = rate * lengths.squeeze(-1)
    gaps = paid.new_zeros(len(grid.index) - 1, *paid.shape[1:]).index_add(0, gap_of, paid)
    return Visits(seen, gaps.movedim(0, -1))


def _chunk(law: SDE, priced: bool, scheme: Scheme, state: State, noise: Tensor) -> tuple[State, Tensor, Tensor]:
    """The state after the steps of the window, z after each of them, (K, ..., d), and the price's rates, (K, ...)."""
    states, rates = [], []
    for k, dw in enumerate(noise.unbind(0)):
        state, left = scheme.step(k, state, dw)
        states.append(state[0])
        if priced:
            excess = left.drift - law.h(scheme.times[k], left.point)
            rates.append(path_kl_rate(excess, left.diffusion, law.noise_type))
    stacked = torch.stack(states)
    return state, stacked, torch.stack(rates) if priced else stacked.new_zeros(len(states))


# What has been compiled for a law, by method and price; the plain function where compiling has failed.
_COMPILED: WeakKeyDictionary[SDE, dict[tuple[str, bool], Callable[..., Any]]] = WeakKeyDictionary()


def _run(law: SDE, kind: tuple[str, bool], scheme: Scheme, state: State, noise: Tensor) -> Any:
    known = _COMPILED.setdefault(law, {})
    if kind not in known:
        # a code object of its own, because torch counts compilations by it, and gives up after some
        code = _chunk.__code__.replace(co_name=f"chunk_of_{type(law).__name__}_by_{kind[0]}")
        own = types.FunctionType(code, _chunk.__globals__, code.co_name)
        known[kind] = torch.compile(own, backend=BACKEND, dynamic=False, fullgraph=True)
    if known[kind] is not _chunk:
        try:
            return known[kind](law, kind[1], scheme, state, noise)
        except Exception as error:
            answer = _chunk(law, kind[1], scheme, state, noise)  # a law that fails by itself says so here
            known[kind] = _chunk
            reason = " ".join((str(error).split("\n\n")[0] or type(error).__name__).split())
            warnings.warn(f"compile: failed, so steps run uncompiled ({reason})", stacklevel=4)
            return answer
    return _chunk(law, kind[1], scheme, state, noise)
