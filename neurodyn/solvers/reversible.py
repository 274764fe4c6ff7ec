"""Gradients through reversible Heun at constant memory: the steps are run backwards instead of being kept.

Solving the step of `ReversibleHeun` for what it started from,

    p = 2 z' - p' - f(p') dt - g(p') dW
    z = z' - 1/2 (f(p) + f(p')) dt - 1/2 (g(p) + g(p')) dW,

gives every state of the forward pass back up to rounding, so the gradients are those of backprop through the same
steps. The states at the visits are kept (they are the output), and each gap is run backwards from its own end: rounding
errors do not pile up over gaps. Source: Kidger, Foster, Li and Lyons (2021), arXiv 2105.13493, section 3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neurodyn.solvers.brownian import BLOCK, Brownian
from neurodyn.solvers.loop import Cost, noise_blocks, run_steps, shares, step_length
from neurodyn.solvers.own_backward import add_gradients
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
        z0: Tensor,
        *params: Tensor,
    ) -> Any:
        state = scheme.start(z0)
        seen: dict[int, Tensor] = {}
        companions: list[Tensor] = []
        costs: dict[int, Tensor] = {}
        bounds = {place for place in (*places, *scheme.grid.rests) if place > 0}
        for first, block in noise_blocks(noise):
            start = first
            # Cut at the visits and rests as well, to keep the companion state there.
            for stop in sorted({p for p in bounds if first < p < first + len(block)} | {first + len(block)}):
                part = block[start - first : stop - first]
                state, some_seen, some_costs = run_steps(scheme, cost, start, stop, part, state)
                seen.update(some_seen)
                for gap, paid in some_costs.items():
                    costs[gap] = paid if gap not in costs else costs[gap] + paid
                if stop in bounds:
                    companions.append(state[1])
                start = stop
        outputs = [seen[place] for place in places]
        ctx.scheme, ctx.cost, ctx.noise, ctx.places, ctx.gaps = scheme, cost, noise, places, gaps
        ctx.bounds = sorted(bounds)
        ctx.save_for_backward(z0, *outputs, *companions, *params)
        return (*outputs, *(costs[gap] for gap in gaps))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:  # noqa: D102
        count, kept = len(ctx.places), len(ctx.places) + len(ctx.bounds)
        z0, *saved = ctx.saved_tensors
        outputs = dict(zip(ctx.places, saved[:count], strict=True))
        companions = dict(zip(ctx.bounds, saved[count:kept], strict=True))
        params = saved[kept:]
        pulled = dict(zip(ctx.places, grads[:count], strict=True))
        rates = dict(zip(ctx.gaps, grads[count:], strict=True))
        grad_z0, grad_params = _Backward(ctx.scheme, ctx.cost, ctx.noise, params, rates).run(
            z0, outputs, companions, pulled
        )
        return (None, None, None, None, None, grad_z0, *grad_params)


class _Backward:
    """One backward pass. Gradients of the loss by z, p, f(p), g(p) at a step are called a_z, a_p, a_f, a_g."""

    def __init__(
        self,
        scheme: ReversibleHeun,
        cost: Cost | None,
        noise: Tensor | Brownian,
        params: list[Tensor],
        rates: dict[int, Tensor],
    ) -> None:
        self.scheme, self.cost, self.noise, self.rates = scheme, cost, noise, rates
        self.params = params
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

    def pull(self, evaluated: tuple, a_f: Tensor, a_g: Tensor) -> Tensor:
        """Gradient by p of f(p), g(p) and the cost; those of the parameters are added up."""
        leaf, f, g, paid = evaluated
        # A diffusion that every row shares may come without the rows' axes.
        pairs = [(f, a_f.sum_to_size(f.shape)), (g, a_g.sum_to_size(g.shape))]
        if paid is not None:
            pairs.append((paid, torch.ones_like(paid)))
        pairs = [(value, grad) for value, grad in pairs if value.requires_grad]
        if not pairs:
            return torch.zeros_like(leaf)
        values, weights = zip(*pairs, strict=True)
        a_p, *found = torch.autograd.grad(values, [leaf, *self.params], weights, allow_unused=True)
        add_gradients(self.grad_params, found)
        return torch.zeros_like(leaf) if a_p is None else a_p

    def outer(self, a: Tensor, dw: Tensor) -> Tensor:
        """Gradient by g of g dW, given that of its value."""
        return a * dw if self.scheme.diagonal else a.unsqueeze(-1) * dw.unsqueeze(-2)

    def run(
        self, z0: Tensor, outputs: dict[int, Tensor], companions: dict[int, Tensor], pulled: dict[int, Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Gradients by z0 and by the parameters."""
        scheme, total = self.scheme, self.scheme.grid.num_steps
        z, a_z, a_p = outputs[total], torch.zeros_like(z0), torch.zeros_like(z0)
        ahead = self.evaluate(total, companions[total])
        a_f = torch.zeros_like(z0)
        a_g = torch.zeros_like(self.outer(z0, self.increment(total - 1)))
        for k in reversed(range(total)):
            dw, dt = self.increment(k), scheme.steps[k]
            if k + 1 in outputs:
                z, a_z = outputs[k + 1], a_z + pulled[k + 1]
            if k in scheme.grid.rests:
                # p' = z, and nothing of what was evaluated before is used any more
                a_z = a_z + a_p + self.pull(ahead, a_f, a_g)
                a_p, a_f, a_g = torch.zeros_like(a_p), torch.zeros_like(a_f), torch.zeros_like(a_g)
                ahead = self.evaluate(k, companions.get(k, z0))
                continue
            half, half_dw = 0.5 * a_z, self.outer(0.5 * a_z, dw)
            a_p = a_p + self.pull(ahead, a_f + half * dt, a_g + half_dw)
            p_ahead, f_ahead, g_ahead = (part.detach() for part in ahead[:3])
            if k in companions:
                p = companions[k]
            elif k == 0:
                p = z0
            else:
                p = scheme.hold(k, scheme.advance(2 * z - p_ahead, -f_ahead, -g_ahead, dt, dw), p_ahead)
            here = self.evaluate(k, p)
            f, g = here[1].detach(), here[2].detach()
            z = scheme.advance(z, -(f + f_ahead), -(g + g_ahead), 0.5 * dt, 0.5 * dw)
            a_f = half * dt + a_p * dt
            a_g = half_dw + self.outer(a_p, dw)
            a_z, a_p = scheme.hold(k, a_z + 2 * a_p, a_z), scheme.hold(k, -a_p, a_p)
            ahead = here
        return a_z + a_p + self.pull(ahead, a_f, a_g), self.grad_params
