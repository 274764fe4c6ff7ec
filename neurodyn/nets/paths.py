"""Control paths: curves through irregular, partly observed series, with value and derivative at any times per row.

A neural controlled equation reads a series as a path X: dz = f(z) dX, or dz = f(z, X) dt. What the path does between
visits is a choice:

- "linear": straight lines between a channel's observations. Continuous; the derivative jumps at visits.
- "hermite": cubic, continuously differentiable; the slope at a visit is that of the line from the visit before
  ("backward differences"), so a new visit changes nothing before the visit it follows.
- "cubic": the natural cubic spline, twice differentiable; every visit moves all of it.
- "rectilinear": online. Each gap is two moves, first time alone, then all values, on a clock of its own; what has been
  seen by a time fixes the path up to there.

Source: Kidger, Morrill, Foster and Lyons (2020), arXiv 2005.08926; Morrill, Kidger, Yang and Lyons (2021), arXiv
2106.11028, section 3, for "hermite" and "rectilinear".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from neurodyn.nets.context import last_observed_index
from neurodyn.nets.spline import hermite
from neurodyn.sde.base import Time
from neurodyn.series import SeriesBatch

PathKind = Literal["linear", "hermite", "cubic", "rectilinear"]
PATH_KINDS: tuple[PathKind, ...] = get_args(PathKind)


@dataclass(frozen=True, eq=False)
class ControlPath:
    """A curve per row: piecewise cubic between knots on a clock, constant before the first and after the last.

    The clock is the time itself, except for "rectilinear" paths, where it counts moves: `clock` takes times to it. An
    integral along the path does not depend on its clock, so it may run over either.

    Attributes:
        knots: (B, K) float64, clock readings. Padding repeats a row's last.
        values: (B, K, C) at the knots. slope_left, slope_right: (B, K, C), on both sides of each, per unit of clock.
        times: (B, T) float64, the visits. visits: (B, T) float64, their clock readings.
    """

    knots: Tensor
    values: Tensor
    slope_left: Tensor
    slope_right: Tensor
    times: Tensor
    visits: Tensor

    @property
    def num_channels(self) -> int:
        """C."""
        return self.values.shape[-1]

    @property
    def start(self) -> Tensor:
        """(B, C), the value at the first knot."""
        return self.values[:, 0]

    def __call__(self, clock: Tensor) -> tuple[Tensor, Tensor]:
        """Value and derivative per unit of clock at clock readings (B, Q), both (B, Q, C)."""
        return hermite(self.knots, self.values, self.slope_left, self.slope_right, clock)

    def value(self, clock: Tensor) -> Tensor:
        """(B, Q, C) at clock readings (B, Q)."""
        return self(clock)[0]

    def derivative(self, clock: Tensor) -> Tensor:
        """(B, Q, C) per unit of clock at clock readings (B, Q)."""
        return self(clock)[1]

    def at(self, clock: Time) -> Tensor:
        """(..., B, C) at one clock reading for all rows or (..., B) of them: what a law of motion asks for."""
        rows = self.knots.shape[0]
        asked = torch.as_tensor(clock, dtype=torch.float64, device=self.knots.device)
        asked = asked.expand(*asked.shape[:-1], rows)
        lead = asked.shape[:-1]
        found = self.value(asked.reshape(-1, rows).mT)
        return found.transpose(0, 1).reshape(*lead, rows, -1)

    def clock(self, times: Tensor) -> Tensor:
        """Clock readings (B, Q) float64 of times (B, Q); a visit's own value counts as seen at its time."""
        times = times.to(torch.float64)
        if self.visits is self.times:
            return times
        last = torch.searchsorted(self.times, self.times[:, -1:].contiguous())
        left = torch.searchsorted(self.times, times.contiguous(), right=True) - 1
        left = torch.minimum(left, last).clamp_min(0)
        right = torch.minimum(left + 1, last)
        start = self.times.gather(1, left)
        gap = self.times.gather(1, right) - start
        share = torch.where(gap > 0, (times - start) / torch.where(gap > 0, gap, 1.0), 0.0)
        return self.visits.gather(1, left) + share.clamp(0.0, 1.0)


def control_path(
    batch: SeriesBatch, kind: PathKind = "hermite", *, time: bool = True, intensity: bool = False
) -> ControlPath:
    """The control path of each row of a batch; its channels are time, values, counts, in this order.

    Missing values are filled channel by channel: from the line between the observations around them, from the first
    (last) one before (after) all of them; "rectilinear" holds the last one instead, zero before there is any. A channel
    that a row never observes is zero. Visits with nothing observed, and padding, change nothing.

    Args:
        kind: one of `PATH_KINDS`.
        time: whether time since the row's first visit is a channel. Without it an equation cannot tell how long
            anything took.
        intensity: whether the number of observations of each variable so far is a channel per variable: for data whose
            being measured says something.

    Raises:
        ValueError: an unknown kind.
    """
    batch = batch.compact()
    parts, masks = [batch.values], [batch.mask]
    present = batch.present.unsqueeze(-1)
    if time:
        elapsed = batch.times - batch.first_time.unsqueeze(1)
        parts.insert(0, elapsed.to(batch.dtype).unsqueeze(-1))
        masks.insert(0, present)
    if intensity:
        parts.append(batch.mask.cumsum(1).to(batch.dtype))
        masks.append(present.expand_as(batch.mask))
    path = interpolate(batch.times, torch.cat(parts, -1), torch.cat(masks, -1), kind)
    if time and kind == "rectilinear":
        # the move of time comes before that of the values: at odd knots it already is what it will be at the visit
        values = path.values.clone()
        values[:, 1::2, 0] = values[:, 2::2, 0]
        return _from_chords(path.knots, values, path.times, path.visits)
    return path


def interpolate(times: Tensor, values: Tensor, mask: Tensor | None = None, kind: PathKind = "hermite") -> ControlPath:
    """A control path through given values: what `control_path` does, without a batch and its further channels.

    Args:
        times: (B, T), not decreasing; padding repeats a row's last time, with nothing observed there or the last values
            again.
        values: (B, T, C). mask: (B, T, C) bool, True where observed; everywhere if not given.
        kind: one of `PATH_KINDS`. "rectilinear" holds all channels and then moves them at once: a channel of time among
            them is moved before the others by `control_path` only.

    Raises:
        ValueError: shapes that do not fit, or an unknown kind.
    """
    if kind not in PATH_KINDS:
        raise ValueError(f"kind: got {kind!r}, want one of {', '.join(PATH_KINDS)}")
    if times.ndim != 2 or values.ndim != 3 or values.shape[:2] != times.shape or not times.shape[1]:
        raise ValueError(
            f"times, values: got shapes {tuple(times.shape)} and {tuple(values.shape)}, want (B, T) and (B, T, C)"
        )
    if mask is not None and mask.shape != values.shape:
        raise ValueError(f"mask: got shape {tuple(mask.shape)}, want {tuple(values.shape)}, that of the values")
    times = times.to(torch.float64).contiguous()
    mask = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    if kind == "rectilinear":
        return _rectilinear(times, held(values, mask))
    filled = lines(times, values, mask)
    if kind == "linear":
        return _from_chords(times, filled, times, times)
    if kind == "cubic":
        return _natural(times, filled, mask)
    chord = _chords(times, filled)
    slope = torch.cat((chord[:, :1], chord), 1) if chord.shape[1] else torch.zeros_like(filled)
    return ControlPath(times, filled, slope, slope, times, times)


def held(values: Tensor, mask: Tensor) -> Tensor:
    """Each channel's last observed value, zero before there is one: (B, T, C), the observed ones as they are."""
    index = last_observed_index(mask)
    return torch.where(index >= 0, values.gather(1, index.clamp_min(0)), torch.zeros_like(values))


def lines(times: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """(B, T, C) with gaps of each channel filled by straight lines in time, ends by its first and last observation."""
    before = last_observed_index(mask)
    steps = mask.shape[1]
    after = steps - 1 - last_observed_index(mask.flip(1)).flip(1)  # `steps` where there is none
    none = (before < 0) & (after >= steps)
    left = torch.where(before >= 0, before, after).clamp_max(steps - 1)
    right = torch.where(after < steps, after, before).clamp_min(0)
    clock = times.unsqueeze(-1).expand(mask.shape)
    start, end = clock.gather(1, left), clock.gather(1, right)
    gap = end - start
    share = torch.where(gap > 0, (clock - start) / torch.where(gap > 0, gap, 1.0), 0.0).clamp(0.0, 1.0)
    first = values.gather(1, left)
    filled = first + share.to(values.dtype) * (values.gather(1, right) - first)
    return torch.where(none, torch.zeros_like(values), torch.where(mask, values, filled))


def _chords(knots: Tensor, values: Tensor) -> Tensor:
    """(B, K - 1, C), slopes of the lines between knots; zero where a gap has no length."""
    gap = knots.diff(dim=1).unsqueeze(-1)
    gap = torch.where(gap > 0, gap, torch.inf).to(values.dtype)
    return values.diff(dim=1) / gap


def _from_chords(knots: Tensor, values: Tensor, times: Tensor, visits: Tensor) -> ControlPath:
    chord = _chords(knots, values)
    none = torch.zeros_like(values[:, :1])
    left, right = torch.cat((none, chord), 1), torch.cat((chord, none), 1)
    return ControlPath(knots, values, left, right, times, visits)


def _rectilinear(times: Tensor, values: Tensor) -> ControlPath:
    rows, steps = times.shape
    # a row's clock stops at its last visit, where padding is
    last = torch.searchsorted(times, times[:, -1:].contiguous())
    count = torch.arange(2 * steps - 1, device=times.device).expand(rows, -1)
    knots = torch.minimum(count, 2 * last).to(torch.float64)
    doubled = values.repeat_interleave(2, 1)[:, :-1]
    return _from_chords(knots, doubled, times, knots[:, ::2].contiguous())


def _natural(times: Tensor, filled: Tensor, mask: Tensor) -> ControlPath:
    """Each channel's own spline through its own observations and the filled ends, read at all visits.

    Between two visits it is one cubic, so values and slopes there hold all of it.
    """
    rows, steps, channels = filled.shape
    ends = torch.zeros(steps, dtype=torch.bool, device=times.device)
    ends[0] = ends[-1] = True
    known = (mask | ends.view(1, -1, 1)).transpose(1, 2).reshape(rows * channels, steps)
    clock = times.repeat_interleave(channels, 0)
    values = filled.transpose(1, 2).reshape(rows * channels, steps).to(torch.float64)
    order = torch.sort(~known, dim=1, stable=True).indices
    kept = known.gather(1, order)
    knots = torch.where(kept, clock.gather(1, order), clock[:, -1:])
    # padding repeats the last time: of knots that coincide the first is the one with an interval on its left
    values = values.gather(1, order).unsqueeze(-1)
    slope = natural_slopes(knots, values[..., 0]).unsqueeze(-1)
    value, derivative = (
        part[..., 0].view(rows, channels, steps) for part in hermite(knots, values, slope, slope, clock)
    )
    value, derivative = (part.transpose(1, 2).to(filled.dtype) for part in (value, derivative))
    return ControlPath(times, value, derivative, derivative, times, times)


def natural_slopes(knots: Tensor, values: Tensor) -> Tensor:
    """Slopes (R, K) at the knots (R, K) of the natural cubic spline through the values (R, K); padding repeats knots.

    The second derivatives M solve a tridiagonal system with M = 0 at both ends (Thomas' algorithm, which needs no
    pivots here because the matrix is diagonally dominant), one sweep each way for all rows at once.
    """
    if knots.shape[1] < 2:
        return torch.zeros_like(values)
    gap = knots.diff(dim=1)
    chord = values.diff(dim=1) / torch.where(gap > 0, gap, torch.inf)
    inner = (gap[:, :-1] > 0) & (gap[:, 1:] > 0)  # knots 1 ... K - 2 that are not at an end of their row
    lower, upper = (torch.where(inner, part, 0.0).unbind(1) for part in (gap[:, :-1], gap[:, 1:]))
    middle = torch.where(inner, 2 * (gap[:, :-1] + gap[:, 1:]), 1.0).unbind(1)
    bend = torch.where(inner, 6 * chord.diff(dim=1), 0.0).unbind(1)
    zero = torch.zeros_like(values[:, 0])
    ratio, part = [zero], [zero]
    for a, b, c, r in zip(lower, middle, upper, bend, strict=True):
        pivot = b - a * ratio[-1]
        ratio.append(c / pivot)
        part.append((r - a * part[-1]) / pivot)
    second = [zero]
    for c, r in zip(reversed(ratio), reversed(part), strict=True):
        second.append(r - c * second[-1])
    curve = torch.stack(second[::-1], 1)  # M at the K knots, zero at both ends
    first = chord[:, :1] - gap[:, :1] * (2 * curve[:, :1] + curve[:, 1:2]) / 6
    return torch.cat((first, chord + gap * (curve[:, :-1] + 2 * curve[:, 1:]) / 6), 1)
