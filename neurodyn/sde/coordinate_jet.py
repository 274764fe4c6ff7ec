"""Small networks of one input and their slopes at many points, a part of the points at a time.

Values of hidden units, a few hundred per point, are the most that such networks write and read. In parts they stay in
the processor's cache, and the backward pass takes them again instead of keeping them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

PART = 2**17  # hidden units at a time: buffers of some hundred kilobytes


class SoftplusJet(torch.autograd.Function):
    """sum_j c_ij softplus(a_ij z_i + b_ij) and its derivative by z_i, both (..., d), for z (..., d) and a, b, c (d, J).

    Its gradients are not differentiable again.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Any:  # noqa: D102
        points = z.reshape(-1, z.shape[-1])
        out, slope = torch.empty_like(points), torch.empty_like(points)
        steep = a * c
        for here in _parts(points, a):
            before = torch.addcmul(b, points[here].unsqueeze(-1), a)
            torch.sum(softplus(before).mul_(c), -1, out=out[here])
            torch.sum(before.sigmoid_().mul_(steep), -1, out=slope[here])
        ctx.save_for_backward(points, a, b, c)
        ctx.shape = z.shape
        return out.reshape(z.shape), slope.reshape(z.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_out: Tensor, to_slope: Tensor) -> Any:  # noqa: D102
        points, a, b, c = ctx.saved_tensors
        to_out, to_slope = to_out.reshape(points.shape), to_slope.reshape(points.shape)
        to_z = torch.empty_like(points)
        to_a, to_b, to_c, to_steep = (torch.zeros_like(a) for _ in range(4))
        steep = a * c
        for here in _parts(points, a):
            z, by_out, by_slope = (part[here].unsqueeze(-1) for part in (points, to_out, to_slope))
            before = torch.addcmul(b, z, a)
            to_c += softplus(before).mul_(by_out).sum(0)
            gate = before.sigmoid_()
            turned = (1 - gate).mul_(gate).mul_(by_slope)  # of the slope, by what stands before the activation
            to_steep += torch.mul(gate, by_slope).sum(0)
            back = turned.mul_(steep).addcmul_(gate.mul_(by_out), c)
            torch.sum(back * a, -1, out=to_z[here])
            to_b += back.sum(0)
            to_a += back.mul_(z).sum(0)
        # slope = sum of steep * gate, with steep = a c
        return to_z.reshape(ctx.shape), to_a.addcmul_(to_steep, c), to_b, to_c.addcmul_(to_steep, a)


def _parts(points: Tensor, a: Tensor) -> list[slice]:
    size = max(1, PART // a.numel())
    return [slice(start, start + size) for start in range(0, len(points), size)]
