"""Euler-Maruyama for laws of the form `TanhForm`, with a backward pass of its own.

One step is u' = (a u + c) + dt (outside tanh(inside u + pull)), where a and c hold everything that the state does not
touch: the rate, the shift and the noise. They are made for all steps at once, where autograd sees them; the loop is two
products of matrices, a tanh and two fused sums per step, forwards and backwards, and autograd sees none of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neurodyn.sde.controlled import TanhForm


def tanh_states(form: TanhForm, u0: Tensor, steps: Tensor, increments: Tensor) -> Tensor:
    """The states before and after each of N steps, (N + 1, S, B, d); gradients of first order.

    Args:
        form: its pull, level and shift (B, N, ...), as `prepare` and `tanh_form` make them.
        u0: (S, B, d).
        steps: (B, N), lengths; a row stands still in steps of length zero.
        increments: (N, S, B, d), of Brownian motion.
    """
    samples, rows, _ = u0.shape
    dtype = torch.float32 if u0.dtype in (torch.bfloat16, torch.float16) else u0.dtype
    dt = steps.mT[:, None, :, None].to(u0.device, dtype)  # (N, 1, B, 1)

    def by_step(part: Tensor) -> Tensor:
        part = part.to(dtype)
        return part if part.ndim == 1 or not part.ndim else part.movedim(1, 0).unsqueeze(1)

    moved = by_step(form.level) * increments.to(dtype)
    kept, added = 1 - form.rate.to(dtype) * dt, by_step(form.shift) * dt
    kept, added = (kept + moved, added.expand_as(moved)) if form.multiplies else (kept.expand_as(moved), added + moved)
    pull = by_step(form.pull)
    pull = pull.expand(-1, samples, -1, -1)
    flat = [part.flatten(1, 2) for part in (pull, kept, added, dt.expand(-1, samples, -1, -1))]
    states: Tensor = _TanhSteps.apply(u0.to(dtype).flatten(0, 1), form.inside.to(dtype), form.outside.to(dtype), *flat)
    return states.unflatten(1, (samples, rows))


class _TanhSteps(torch.autograd.Function):
    """(R, d), (h, d), (d, h) and per step (N, R, h), (N, R, d), (N, R, d), (N, R, 1) to the states (N + 1, R, d)."""

    @staticmethod
    def forward(
        ctx: Any, u0: Tensor, inside: Tensor, outside: Tensor, pull: Tensor, kept: Tensor, added: Tensor, dt: Tensor
    ) -> Tensor:
        count, rows, size = len(dt), *u0.shape
        states = u0.new_empty(count + 1, rows, size)
        hidden = u0.new_empty(count, rows, len(inside))
        states[0] = u0
        into, back = inside.mT.contiguous(), outside.mT.contiguous()
        every = states.unbind(0)
        for k, (p, a, c, h, dt_k) in enumerate(
            zip(pull.unbind(0), kept.unbind(0), added.unbind(0), hidden.unbind(0), dt.unbind(0), strict=True)
        ):
            torch.addmm(p, every[k], into, out=h).tanh_()
            torch.addcmul(c, a, every[k], out=every[k + 1]).addcmul_(h @ back, dt_k)
        ctx.save_for_backward(states, hidden, inside, outside, kept, dt)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, due: Tensor) -> tuple[Tensor | None, ...]:
        states, hidden, inside, outside, kept, dt = ctx.saved_tensors
        slope = 1 - hidden.square()
        carried, pulled = torch.empty_like(states[1:]), torch.empty_like(hidden)
        here = due[-1]
        parts = (due[:-1], kept, slope, dt, carried, pulled)
        for asked, a, s, dt_k, c, p in reversed(list(zip(*(part.unbind(0) for part in parts), strict=True))):
            c.copy_(here)
            torch.mul((c * dt_k) @ outside, s, out=p)
            here = torch.addcmul(asked, a, c).addmm_(p, inside)
        flat = (carried * dt).flatten(0, 1)
        return (
            here,
            pulled.flatten(0, 1).mT @ states[:-1].flatten(0, 1),
            flat.mT @ hidden.flatten(0, 1),
            pulled,
            carried * states[:-1],
            carried,
            None,
        )
