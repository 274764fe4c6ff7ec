"""Gradients through reversible Heun at constant memory: the steps are run backwards instead of being kept.

Solving the step of `ReversibleHeun` for what it started from,

    p = 2 z' - p' - f(p') dt - g(p') dW
    z = z' - 1/2 (f(p) + f(p')) dt - 1/2 (g(p) + g(p')) dW,

gives every state of the forward pass back up to rounding, so the gradients are those of backprop through the same
steps. The states at the visits are kept (they are the output), and the companions there and at rests, row by row: each
gap is run backwards from its own end, and rounding errors do not pile up over gaps. Source: Kidger, Foster, Li and
Lyons (2021), arXiv 2105.13493, section 3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neurodyn.solvers.brownian import BLOCK, Brownian
from neurodyn.solvers.loop import Cost, noise_blocks, rows_of, run_steps, shares, step_length
from neurodyn.solvers.own_backward import Wanted, add_gradients
from neurodyn.solvers.schemes import Left, ReversibleHeun


class ReversibleSolve(torch.autograd.Function):
    """A solve for `solve_by` by a `ReversibleHeun`: back, every step takes one evaluation and one small backward."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        scheme: ReversibleHeun,
        cost: Cost | None,
        noise: Tensor | Brownian,
        places: list[int],
        gaps: list[int],
        wanted: Wanted,
        z0: Tensor,
        *params: Tensor,
    ) -> Any:
        state = scheme.start(z0)
        seen: dict[int, Tensor] = {}
        companions: dict[int, Tensor] = {}
        costs: dict[int, Tensor] = {}
        marked = marked_rows(scheme)
        for first, block in noise_blocks(noise):
            last = first + len(block)
            start = first
            # cut at the marks, to keep the companions there
            for stop in [*(place for place in marked if first < place < last), last]:
                part = block[start - first : stop - first]
                state, some_seen, some_costs = run_steps(scheme, cost, start, stop, part, state)
                seen.update(some_seen)
                for gap, paid in some_costs.items():
                    costs[gap] = paid if gap not in costs else costs[gap] + paid
                if stop in marked:
                    companions[stop] = rows_of(state[1], marked[stop])
                start = stop
        outputs = [seen[place] for place in places]
        ctx.scheme, ctx.cost, ctx.noise, ctx.places, ctx.gaps = scheme, cost, noise, places, gaps
        ctx.marked, ctx.wanted = marked, wanted
        ctx.save_for_backward(z0, state[0], state[1], *outputs, *companions.values(), *params)
        return (*outputs, *(costs[gap] for gap in gaps))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:  # noqa: D102
        count, kept = len(ctx.places), len(ctx.places) + len(ctx.marked)
        z0, z, p, *saved = ctx.saved_tensors
        outputs = dict(zip(ctx.places, saved[:count], strict=True))
        companions = dict(zip(ctx.marked, saved[count:kept], strict=True))
        params = saved[kept:]
        pulled = dict(zip(ctx.places, grads[:count], strict=True))
        rates = dict(zip(ctx.gaps, grads[count:], strict=True))
        back = _Backward(ctx.scheme, ctx.cost, ctx.noise, params, rates, ctx.marked, ctx.wanted)
        grad_z0, grad_params = back.run(z0, z, p, outputs, companions, pulled)
        return (None, None, None, None, None, None, grad_z0, *grad_params)


def marked_rows(scheme: ReversibleHeun) -> dict[int, Tensor | None]:
    """Where companions are kept, in order: the places of visits, and of rests; which rows (R,), None for all."""
    marked = {place: rows for place, rows in scheme.visits.items() if place > 0}
    for place, rows in scheme.resting.items():
        other = marked.get(place, rows)
        marked[place] = None if other is None else torch.unique(torch.cat((other, rows)))
    return dict(sorted(marked.items()))


def put_rows(state: Tensor, rows: Tensor | None, values: Tensor) -> Tensor:
    """The state (..., B, d) with these rows (R,) replaced; None stands for all of them."""
    return values if rows is None else state.index_copy(-2, rows, values)


def add_rows(state: Tensor, rows: Tensor | None, values: Tensor) -> Tensor:
    """The state (..., B, d) with something added to these rows (R,); None stands for all of them."""
    return state + values if rows is None else state.index_add(-2, rows, values)


class _Backward:
    """One backward pass. Gradients of the loss by z, p, f(p), g(p) at a step are called a_z, a_p, a_f, a_g."""

    def __init__(
        self,
        scheme: ReversibleHeun,
        cost: Cost | None,
        noise: Tensor | Brownian,
        params: list[Tensor],
        rates: dict[int, Tensor],
        marked: dict[int, Tensor | None],
        wanted: Wanted,
    ) -> None:
        self.scheme, self.cost, self.noise, self.rates = scheme, cost, noise, rates
        self.params, self.marked, self.wanted = params, marked, wanted
        self.grad_params = [torch.zeros_like(parameter) for parameter in params]
        self.block: tuple[int, list[Tensor]] = (-1, [])

    def increment(self, k: int) -> Tensor:
        """dW of step k; the blocks are drawn again from the last to the first."""
        if isinstance(self.noise, Tensor):
            return self.noise[k]
        number = k // BLOCK
        if self.block[0] != number:
            self.block = (number, list(self.noise.block(number).unbind(0)))
        return self.block[1][k - number * BLOCK]

    def evaluate(self, k: int, p: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """p as a leaf, f, g with their graph, and the cost there weighted by the gradients it gets."""
        with torch.enable_grad():
            leaf = p.detach().requires_grad_()
            f, g = self.scheme.evaluate(k, leaf)
            paid = None
            if self.cost is not None:
                scheme = self.scheme
                rate = self.cost(min(k, scheme.grid.num_steps - 1), scheme.times[k], Left(leaf, f, g))
                weights = [
                    share * step_length(scheme, step) * self.rates[scheme.gap_of[step]]
                    for step, share in shares(scheme, k)
                ]
                paid = (rate * sum(weights)).sum()
        return leaf, f, g, paid

    def pull(self, k: int, evaluated: tuple, a_f: Tensor, a_g: Tensor) -> Tensor:
        """Gradient by p of f(p), g(p) and the cost at the start of step k; those of the parameters are added up."""
        leaf, f, g, paid = evaluated
        # A diffusion that every row shares may come without the rows' axes.
        pairs = [(f, a_f.sum_to_size(f.shape)), (g, a_g.sum_to_size(g.shape))]
        if paid is not None:
            pairs.append((paid, torch.ones_like(paid)))
        pairs = [(value, grad) for value, grad in pairs if value.requires_grad]
        if not pairs:
            return torch.zeros_like(leaf)
        values, weights = zip(*pairs, strict=True)
        step = min(k, self.scheme.grid.num_steps - 1)
        own = self.wanted.between(step, step + 1)
        inputs = [leaf, *(self.params[place] for place in own)]
        a_p, *found = torch.autograd.grad(values, inputs, weights, allow_unused=True)
        add_gradients(self.grad_params, found, own)
        return torch.zeros_like(leaf) if a_p is None else a_p

    def outer(self, a: Tensor, dw: Tensor) -> Tensor:
        """Gradient by g of g dW, given that of its value."""
        return a * dw if self.scheme.diagonal else a.unsqueeze(-1) * dw.unsqueeze(-2)

    def run(
        self,
        z0: Tensor,
        z: Tensor,
        p: Tensor,
        outputs: dict[int, Tensor],
        companions: dict[int, Tensor],
        pulled: dict[int, Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """Gradients by z0 and by the parameters, from the last z and p, and from what was kept, by its place."""
        scheme, total = self.scheme, self.scheme.grid.num_steps
        a_z, a_p = torch.zeros_like(z0), torch.zeros_like(z0)
        ahead = self.evaluate(total, p)
        a_f = torch.zeros_like(z0)
        a_g = torch.zeros_like(self.outer(z0, self.increment(total - 1)))
        for k in reversed(range(total)):
            dw, dt = self.increment(k), scheme.steps[k]
            if k + 1 in outputs:
                rows = scheme.visits[k + 1]
                z, a_z = put_rows(z, rows, outputs[k + 1]), add_rows(a_z, rows, pulled[k + 1])
            half, half_dw = 0.5 * a_z, self.outer(0.5 * a_z, dw)
            a_p = a_p + self.pull(k + 1, ahead, a_f + half * dt, a_g + half_dw)
            p_ahead, f_ahead, g_ahead = (part.detach() for part in ahead[:3])
            if k == 0:
                p = z0
            else:
                p = scheme.hold(k, scheme.advance(2 * z - p_ahead, -f_ahead, -g_ahead, dt, dw), p_ahead)
                if k in companions:
                    p = put_rows(p, self.marked[k], companions[k])
            here = self.evaluate(k, p)
            f, g = here[1].detach(), here[2].detach()
            z = scheme.advance(z, -(f + f_ahead), -(g + g_ahead), 0.5 * dt, 0.5 * dw)
            a_f = half * dt + a_p * dt
            a_g = half_dw + self.outer(a_p, dw)
            # where a row rests, p' is z
            a_z, a_p = (
                scheme.hold(k, a_z + 2 * a_p, a_z, a_z + a_p),
                scheme.hold(k, -a_p, a_p, torch.zeros_like(a_p)),
            )
            ahead = here
        return a_z + a_p + self.pull(0, ahead, a_f, a_g), self.grad_params
