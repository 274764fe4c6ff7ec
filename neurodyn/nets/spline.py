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
    piece = hermite_piece(knot_times, values, slope_left, slope_right, query)
    return piece.value(), piece.derivative()


def hermite_jet(
    knot_times: Tensor,
    values: Tensor,
    slope_left: Tensor,
    slope_right: Tensor,
    query: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `hermite`, with the second derivative too, (B, Q, C): linear on each interval, and it jumps at the knots."""
    piece = hermite_piece(knot_times, values, slope_left, slope_right, query)
    return piece.value(), piece.derivative(), piece.curvature()


def natural_slopes(knot_times: Tensor, values: Tensor) -> Tensor:
    """The slopes (B, K, C) that make a Hermite curve the natural cubic spline: twice differentiable, straight ends.

    Args:
        knot_times: (B, K), increasing along each row; padding repeats the last time, and has slope 0.
        values: (B, K, C).

    No gradient passes. One loop over knots for all rows together. Source: de Boor (1978), chapter IV.
    """
    with torch.no_grad():
        length = knot_times.diff(dim=1).to(torch.float64)[..., None]
        steep = torch.where(length > 0, 1 / length.clamp(min=1e-300), 0.0)  # 0 where there is no interval
        pull = 3 * steep.square() * values.to(torch.float64).diff(dim=1)
        zero = steep.new_zeros(len(steep), 1, 1)
        before, after = torch.cat((zero, steep), 1).unbind(1), torch.cat((steep, zero), 1).unbind(1)
        wide = pull.new_zeros(len(pull), 1, pull.shape[-1])
        right = (torch.cat((wide, pull), 1) + torch.cat((pull, wide), 1)).unbind(1)
        upper, rest = [torch.zeros_like(zero[:, 0])], [torch.zeros_like(wide[:, 0])]
        for low, high, wanted in zip(before, after, right, strict=True):
            pivot = 2 * (low + high) - low * upper[-1]
            pivot = torch.where(pivot > 0, pivot, 1.0)
            upper.append(high / pivot)
            rest.append((wanted - low * rest[-1]) / pivot)
        slopes = [rest[-1]]
        for share, known in zip(reversed(upper[1:-1]), reversed(rest[1:-1]), strict=True):
            slopes.append(known - share * slopes[-1])
        return torch.stack(slopes[::-1], 1).to(values.dtype)


class Piece(NamedTuple):
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
        """(B, Q, C)."""
        w = 1.0 - self.u
        value = self.start + self.u * self.rise + self.length * self.u * w * (w * self.bend0 - self.u * self.bend1)
        # Where there is no interval (all knots coincide) the value is the knot's own, whatever the slopes.
        return torch.where(self.proper, value, self.start)

    def derivative(self) -> Tensor:
        """(B, Q, C), zero outside the knots."""
        u = self.u
        found = self.chord + (1.0 - u) * (1.0 - 3.0 * u) * self.bend0 + u * (3.0 * u - 2.0) * self.bend1
        return torch.where(self.inside, found, torch.zeros_like(found))

    def curvature(self) -> Tensor:
        """(B, Q, C), the second derivative, zero outside the knots."""
        found = ((6.0 * self.u - 4.0) * self.bend0 + (6.0 * self.u - 2.0) * self.bend1) / self.length
        return torch.where(self.inside, found, torch.zeros_like(found))


def hermite_piece(knot_times: Tensor, values: Tensor, slope_left: Tensor, slope_right: Tensor, query: Tensor) -> Piece:
    """What `hermite` evaluates, for those who need the place in the interval and its length too. Arguments as there."""
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
    return Piece(u, length, v0, v1 - v0, chord, s0 - chord, s1 - chord, proper.unsqueeze(-1), inside.unsqueeze(-1))


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
