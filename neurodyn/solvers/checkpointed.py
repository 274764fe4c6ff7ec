"""Gradients at a memory of about sqrt(N): forward keeps one state per chunk, backward runs the chunks again.

With chunks of sqrt(N) steps, sqrt(N) states and the graph of one chunk are held at a time, for one more evaluation of
every step. Source: Chen, Xu, Zhang and Guestrin (2016), arXiv 1604.06174. Written by hand, because torch's general tool
keeps a record of every saved tensor, a quarter of the memory that it is to save.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neurodyn.solvers.brownian import Brownian
from neurodyn.solvers.loop import Cost, one_by_one, run_steps
from neurodyn.solvers.own_backward import Wanted, add_gradients
from neurodyn.solvers.schemes import Scheme


class CheckpointedSolve(torch.autograd.Function):
    """A solve for `solve_by`."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        scheme: Scheme,
        cost: Cost | None,
        noise: Tensor | Brownian,
        places: list[int],
        gaps: list[int],
        wanted: Wanted,
        z0: Tensor,
        *params: Tensor,
    ) -> Any:
        total = scheme.grid.num_steps
        length = max(1, math.isqrt(total))
        ctx.bounds = [(start, min(start + length, total)) for start in range(0, total, length)]
        increments = list(one_by_one(noise))
        state, starts = scheme.start(z0), []
        seen: dict[int, Tensor] = {}
        costs: dict[int, Tensor] = {}
        for start, stop in ctx.bounds:
            starts.append(state)
            state, some_seen, some_costs = run_steps(scheme, cost, start, stop, increments[start:stop], state)
            seen.update(some_seen)
            for gap, paid in some_costs.items():
                costs[gap] = paid if gap not in costs else costs[gap] + paid
        ctx.scheme, ctx.cost, ctx.increments, ctx.places, ctx.gaps = scheme, cost, increments, places, gaps
        ctx.width, ctx.wanted = len(state), wanted
        # The first chunk starts from z0 alone.
        ctx.save_for_backward(z0, *(part for start_state in starts[1:] for part in start_state), *params)
        return (*(seen[place] for place in places), *(costs[gap] for gap in gaps))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:  # noqa: D102
        scheme, count = ctx.scheme, ctx.width
        z0, *saved = ctx.saved_tensors
        split = count * (len(ctx.bounds) - 1)
        params = saved[split:]
        totals = [torch.zeros_like(parameter) for parameter in params]
        by_place = dict(zip(ctx.places, grads[: len(ctx.places)], strict=True))
        by_gap = dict(zip(ctx.gaps, grads[len(ctx.places) :], strict=True))
        after: list[Tensor] = []
        for number in reversed(range(len(ctx.bounds))):
            start, stop = ctx.bounds[number]
            stored = saved[count * (number - 1) : count * number] if number else [z0]
            with torch.enable_grad():
                leaves = [part.detach().requires_grad_() for part in stored]
                state = tuple(leaves) if number else scheme.start(leaves[0])
                state, seen, costs = run_steps(scheme, ctx.cost, start, stop, ctx.increments[start:stop], state)
            pairs = list(zip(state, after, strict=False))
            pairs += [(value, by_place[place]) for place, value in seen.items()]
            pairs += [(value, by_gap[gap]) for gap, value in costs.items()]
            # The state always requires gradients, for it is computed from leaves that do.
            values, weights = zip(*((value, grad) for value, grad in pairs if value.requires_grad), strict=True)
            # reversible Heun evaluates the step after the last one too
            own = ctx.wanted.between(start, stop + 1)
            inputs = [*leaves, *(params[place] for place in own)]
            found = torch.autograd.grad(values, inputs, weights, allow_unused=True)
            add_gradients(totals, found[len(leaves) :], own)
            after = [torch.zeros_like(leaf) for leaf in leaves]
            add_gradients(after, found[: len(leaves)])
        return (None, None, None, None, None, None, after[0], *totals)
