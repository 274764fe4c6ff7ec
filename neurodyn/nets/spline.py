"""Piecewise cubic Hermite curves in time, one set of knots per row, with a kink allowed at every knot.

The drift of a smoothing posterior jumps where an observation falls, so the exact marginals of a first-order latent are
continuous with *kinks* at the observation times. A C1 spline cannot follow them. Here the value at a knot is shared by
its two intervals, and the slopes on its two sides are free: give the same tensor twice for a smooth (C1) curve.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def hermite(
    knot_times: Tensor,
    values: Tensor,
    slope_left: Tensor,
    slope_right: Tensor,
    query: Tensor,
) -> tuple[Tensor, Tensor]:
    """Values and exact time derivatives of per-row cubic Hermite curves.

    On the interval from knot k to knot k+1 the curve is the one cubic with the values ``values[k], values[k+1]`` and
    the end slopes ``slope_right[k], slope_left[k+1]``. A query that falls on a knot belongs to the interval on the
    knot's right, except at the last time, which belongs to the interval on its left. Before the first and after the
    last knot the curve is constant, with zero derivative: extrapolating a cubic explodes.

    Repeated knot times are allowed. Padding repeats the last time; what the padded knots hold has no influence, and
    the gradients stay finite. A row whose knots all coincide is constant at its first value.

    Args:
        knot_times: (B, K), nondecreasing along each row (not checked here: that would stall a GPU).
        values: (B, K, C) at the knots.
        slope_left: (B, K, C), derivative per unit of time just left of each knot (the first is never used).
        slope_right: (B, K, C), derivative just right of each knot (the last is never used).
        query: (B, Q) times, in any order.

    Returns:
        value (B, Q, C) and derivative (B, Q, C), in the dtype of ``values``. Both are differentiable in every argument;
        time arithmetic runs in the wider of the dtypes of ``knot_times`` and ``query``.

    Raises:
        ValueError: shapes that do not fit together.

    Source: the cubic Hermite basis, e.g. Fritsch and Carlson (1980), eq. 2.
    """
    piece = _piece(knot_times, values, slope_left, slope_right, query)
    return piece.value(), piece.derivative()


def hermite_jet(
    knot_times: Tensor,
    values: Tensor,
    slope_left: Tensor,
    slope_right: Tensor,
    query: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `hermite`, with the second derivative too, (B, Q, C): linear on each interval, and it jumps at the knots."""
    piece = _piece(knot_times, values, slope_left, slope_right, query)
    return piece.value(), piece.derivative(), piece.curvature()


class _Piece(NamedTuple):
    """The cubic that each query falls on: v0 + u (v1 - v0) + length u (1 - u) [(1 - u) bend0 - u bend1].

    The Hermite basis, written around the chord, which is exact at both ends and loses no digits when the values are
    large against their differences; bend0 and bend1 are the end slopes less the chord's. All (B, Q, C) or (B, Q, 1).
    """

    u: Tensor
    length: Tensor
    start: Tensor
    rise: Tensor
    chord: Tensor
    bend0: Tensor
    bend1: Tensor
    proper: Tensor
    inside: Tensor

    def value(self) -> Tensor:
        w = 1.0 - self.u
        value = self.start + self.u * self.rise + self.length * self.u * w * (w * self.bend0 - self.u * self.bend1)
        # Where there is no interval (all knots coincide) the value is the knot's own, whatever the slopes.
        return torch.where(self.proper, value, self.start)

    def derivative(self) -> Tensor:
        u = self.u
        found = self.chord + (1.0 - u) * (1.0 - 3.0 * u) * self.bend0 + u * (3.0 * u - 2.0) * self.bend1
        return torch.where(self.inside, found, torch.zeros_like(found))

    def curvature(self) -> Tensor:
        found = ((6.0 * self.u - 4.0) * self.bend0 + (6.0 * self.u - 2.0) * self.bend1) / self.length
        return torch.where(self.inside, found, torch.zeros_like(found))


def _piece(knot_times: Tensor, values: Tensor, slope_left: Tensor, slope_right: Tensor, query: Tensor) -> _Piece:
    _check_shapes(knot_times, values, slope_left, slope_right, query)
    time_dtype = torch.promote_types(knot_times.dtype, query.dtype)
    knots = knot_times.to(time_dtype)
    query = query.to(time_dtype)

    # Comparing is not differentiable: search on detached, contiguous copies.
    fixed = knots.detach().contiguous()
    # The last interval with a positive length ends at the first knot that carries the row's last time.
    last = torch.searchsorted(fixed, fixed[:, -1:].contiguous(), right=False) - 1
    left = torch.searchsorted(fixed, query.detach().contiguous(), right=True) - 1
    left = torch.minimum(left, last).clamp_min(0)
    right = (left + 1).clamp_max(knots.shape[1] - 1)

    start = knots.gather(1, left)
    length = knots.gather(1, right) - start
    proper = length > 0
    # The inner `where` keeps the division away from zero, so that no NaN enters the backward pass.
    length = torch.where(proper, length, torch.ones_like(length))
    inside = proper & (query >= knots[:, :1]) & (query <= knots[:, -1:])
    u = ((query - start) / length).clamp(0.0, 1.0).to(values.dtype).unsqueeze(-1)
    length = length.to(values.dtype).unsqueeze(-1)

    v0, v1 = _take(values, left), _take(values, right)
    s0, s1 = _take(slope_right, left), _take(slope_left, right)
    chord = (v1 - v0) / length
    return _Piece(u, length, v0, v1 - v0, chord, s0 - chord, s1 - chord, proper.unsqueeze(-1), inside.unsqueeze(-1))


def refine_knots(times: Tensor, inner: int) -> tuple[Tensor, Tensor]:
    """Insert equally spaced inner knots in every interval of every row.

    Args:
        times: (B, T), nondecreasing along each row. Zero-length intervals (padding) stay zero-length.
        inner: how many knots to put inside each interval, 0 or more.

    Returns:
        knots (B, (T-1)*(inner+1)+1) and the index (T,) of the original times in it; ``knots[:, index]`` equals
        ``times`` exactly.

    Raises:
        ValueError: ``times`` is not (B, T) with T >= 1, or ``inner`` is negative.
    """
    if times.ndim != 2 or times.shape[1] < 1:
        raise ValueError(f"times: got shape {tuple(times.shape)}, want (B, T) with T >= 1")
    if inner < 0:
        raise ValueError(f"inner: got {inner}, want 0 or more inner knots per interval")
    stride = inner + 1
    index = torch.arange(times.shape[1], device=times.device) * stride
    fraction = torch.arange(stride, device=times.device, dtype=times.dtype) / stride
    gap = times[:, 1:] - times[:, :-1]
    body = times[:, :-1, None] + gap[..., None] * fraction
    return torch.cat([body.flatten(1), times[:, -1:]], dim=1), index


def _take(table: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` (B, Q) of ``table`` (B, K, C) along its knots: (B, Q, C)."""
    return table.gather(1, index.unsqueeze(-1).expand(-1, -1, table.shape[-1]))


def _check_shapes(
    knot_times: Tensor,
    values: Tensor,
    slope_left: Tensor,
    slope_right: Tensor,
    query: Tensor,
) -> None:
    if knot_times.ndim != 2 or knot_times.shape[1] < 1:
        raise ValueError(f"knot_times: got shape {tuple(knot_times.shape)}, want (B, K) with K >= 1")
    for name, table in (
        ("values", values),
        ("slope_left", slope_left),
        ("slope_right", slope_right),
    ):
        if table.ndim != 3 or table.shape[:2] != knot_times.shape or table.shape != values.shape:
            wanted = f"({knot_times.shape[0]}, {knot_times.shape[1]}, C), the same for values and both slopes"
            raise ValueError(f"{name}: got shape {tuple(table.shape)}, want {wanted}")
    if query.ndim != 2 or query.shape[0] != knot_times.shape[0]:
        raise ValueError(f"query: got shape {tuple(query.shape)}, want ({knot_times.shape[0]}, Q)")
