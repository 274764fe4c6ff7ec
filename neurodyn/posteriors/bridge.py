"""SDE Matching where the latents are the variables themselves: bridges through the observed values.

Between two values of a variable, dt apart, its path is a smooth curve m(t) through both and a Brownian bridge about it,

    z(t) = m(t) + s(t) eps,    s² = g² dt tau (1 - tau),    tau the share of the interval that has passed,

independent over variables. m is the line from value to value, bent towards the natural cubic spline by a learned share,
one per variable; 0 suits motion that is mostly noise at this spacing, 1 smooth motion (see `smoothness`). For a law
dz = f(z) dt + g dW with constant g this posterior's evidence bound needs no path and no encoder: Girsanov's price
against the bridge of g dW alone, and Stein's identity for the bridge's own pull, give

    log p(values after the first | first) >= -sum over intervals of log(g sqrt(2 pi dt))
        - integral of E[ (m' - f)² / (2 g²) + tau df_j/dz_j ] dt        for each variable j,

with equality if f is constant and m straight. It is SDE Matching (Bartosh, Vetrov and Naesseth 2025, arXiv 2502.02472)
in the limit of exact observations, in which that posterior's own KL diverges and its likelihood compensates.

With observation noise sigma the values are endpoints drawn from q(z_k) = N(x_k + c (line_k - x_k), r²), where line_k is
the line between the neighbouring values; c and r are learned per variable, and the bound gets the entropy of q and
E_q log N(x_k; z_k, sigma²), both in closed form.

A variable has its own intervals, between its own observed values. Before its first and after its last one its path
stands still there and costs nothing.

Where visits are too far apart for a curve to know the motion between them, `steps=True` asks for a one-step map: m is
straight, without a bridge about it, and the drift is evaluated where an interval begins. The bound is then Euler's
density of the next value, N(x_k + f(x_k) dt, g² dt), over the intervals that are one step long.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from neurodyn.nets.spline import hermite_piece, natural_slopes
from neurodyn.noise import RowNoise
from neurodyn.posteriors.path_times import path_times
from neurodyn.sde.graph import GraphLaw
from neurodyn.series import SeriesBatch

Kept = TypeVar("Kept")

PACE = 5.0
"""How many times faster than other parameters an optimiser like Adam moves the bends."""
_LOG_2PI = math.log(2 * math.pi)


class PerBatch(WeakKeyDictionary[SeriesBatch, Kept]):
    """What was worked out once for a batch, for as long as the batch lives; not part of a model that is pickled."""

    def __reduce__(self) -> tuple[type[PerBatch[Kept]], tuple[()]]:
        return type(self), ()


class BridgePoints(NamedTuple):
    """Where a bridge looks at its path: M times of each row.

    Attributes:
        z: (S, B, M, D), samples. velocity: (B, M, D) or (S, B, M, D), of the curve.
        passed: (B, M, D), tau. weight: (B, M, D), in units of time: of this point in the integral, 0 outside the
            variable's own range.
        constant: (B, D), the terms of the bound, in nats, that do not depend on the law's drift.
    """

    z: Tensor
    velocity: Tensor
    passed: Tensor
    weight: Tensor
    constant: Tensor


class BridgePosterior(nn.Module):
    """Bridges through the values of a batch, see the module.

    Args:
        size: D.
        noise: standard deviation of the observation noise: None for exact values; a number, fixed; or "learned", one
            per variable, from a tenth on.
        num_times: stratified times per row and step. In evaluation mode, a fixed quadrature.
        steps: Euler's density of one step instead of a bridge.
        longest: with `steps`, the length of the longest interval that counts as one step.
        bend: (D,), shares of the spline's bends to begin with; 1 if not given. Without meaning with `steps`.

    Raises:
        ValueError: a noise that is not positive, or no times.
    """

    def __init__(
        self,
        size: int,
        noise: float | Literal["learned"] | None = None,
        *,
        num_times: int = 16,
        steps: bool = False,
        longest: float = math.inf,
        bend: Tensor | None = None,
    ) -> None:
        if isinstance(noise, str) and noise != "learned":
            raise ValueError(f"noise: {noise!r} given, None, a positive number or 'learned' wanted")
        if isinstance(noise, int | float) and not noise > 0:
            raise ValueError(f"noise: {noise} given, None, a positive number or 'learned' wanted")
        if num_times < 1:
            raise ValueError(f"num_times: {num_times} given, 1 or more wanted")
        super().__init__()
        self.size, self.num_times, self.noisy = size, num_times, noise is not None
        self.steps, self.longest = steps, longest if steps else math.inf
        if noise is not None:
            begin = torch.full((size,), math.log(0.1 if isinstance(noise, str) else noise))
            self.log_noise = nn.Parameter(begin.clone(), requires_grad=noise == "learned")
            self.log_spread = nn.Parameter(begin - 0.7)  # r
            self.slack = nn.Parameter(torch.full((size,), -3.0))  # logit of c
        bend = torch.zeros(size) if steps else torch.ones(size) if bend is None else bend
        self.slow_bend = nn.Parameter(bend / PACE, requires_grad=not steps)
        self._curves: PerBatch[Curves] = PerBatch()

    def bend(self) -> Tensor:
        """(D,): how much of the spline's bends the curve of each variable has."""
        return PACE * self.slow_bend

    def forward(self, batch: SeriesBatch, scale: Tensor, noise: RowNoise, num_samples: int = 2) -> BridgePoints:
        """Points of a batch whose rows are compact, for a law with the constant diffusion `scale` (D,)."""
        rows, size, dtype = batch.num_rows, batch.num_variables, batch.dtype
        curves = self._curves.get(batch)
        if curves is None:
            curves = self._curves[batch] = curves_of(batch, self.longest)
        number = self.num_times if self.training else None
        times, weights = (_step_times if self.steps else path_times)(batch.times, noise, number)
        values, slopes = curves.values, curves.slopes
        if not self.noisy:
            values, slopes = values[..., :1], slopes[..., :1]
        else:
            shaken = noise.paired("endpoints", num_samples, batch.num_times, size, dtype=dtype)
            more = shaken.permute(1, 3, 2, 0).flatten(0, 1).gather(1, curves.order.expand(-1, -1, num_samples))
            values = torch.cat((values, more), -1)
            slopes = torch.cat((slopes, natural_slopes(curves.knots, more)), -1)
        query = times.repeat_interleave(size, 0)
        piece = hermite_piece(curves.knots, values, slopes, slopes, query)

        def by_row(table: Tensor) -> Tensor:  # (B D, M) to (B, M, D)
            return table.unflatten(0, (rows, size)).transpose(1, 2)

        proper, passed, length = (part[..., 0] for part in (piece.inside & piece.proper, piece.u, piece.length))
        weights = weights[..., None]
        if self.steps:
            proper = proper & (passed == 0) & (length <= self.longest)
            weights = weights * by_row(length)
        bend = self.bend().repeat(rows)[:, None, None]
        piece = piece._replace(bend0=bend * piece.bend0, bend1=bend * piece.bend1)
        passed, length = (torch.where(proper, part, 0.0) for part in (passed, length))
        spread = scale * by_row((length * passed * (1 - passed)).sqrt())
        eps = noise.paired("times", num_samples, times.shape[1], size, dtype=dtype)
        where, rate = (self._curve(table, rows) for table in (piece.value(), piece.derivative()))
        constant = -curves.intervals * (scale.log() + 0.5 * _LOG_2PI) - 0.5 * curves.log_length
        if self.noisy:
            constant = constant + self._observed(curves)
        weight = torch.where(by_row(proper), weights.to(dtype), 0.0)
        return BridgePoints(where + spread * eps, rate, by_row(passed), weight, constant)

    def _curve(self, table: Tensor, rows: int) -> Tensor:
        """Channels (B D, M, C) of the values, of the lines and of the endpoints' noise, as one curve (..., B, M, D)."""
        channels = table.permute(2, 0, 1).unflatten(1, (rows, self.size)).transpose(2, 3)
        if not self.noisy:
            return channels[0]
        share = torch.sigmoid(self.slack)
        return channels[0] + share * (channels[1] - channels[0]) + self.log_spread.exp() * channels[2:]

    def _observed(self, curves: Curves) -> Tensor:
        """Entropy of the endpoints and the expected log-likelihood of the values, (B, D) nats."""
        off = (torch.sigmoid(self.slack) * curves.off).square()
        ratio = (off + curves.visits * (2 * self.log_spread).exp()) * (-2 * self.log_noise).exp()
        return curves.visits * (self.log_spread - self.log_noise + 0.5) - 0.5 * ratio


def bridge_cost(points: BridgePoints, law: GraphLaw, graphs: Tensor) -> Tensor:
    """The integral in the bound, (B, M, D) nats, point by point: what the drift under `graphs` costs.

    Args:
        points: of a bridge. law: its diffusion is constant. graphs: (..., D, D), broadcasting with the points' z.
    """
    drift, slope = law.drift_slope(points.z, graphs)
    miss = (points.velocity - drift) * (-law.log_scale).exp()
    return ((0.5 * miss.square() + points.passed * slope) * points.weight).mean(0)


def smoothness(batch: SeriesBatch) -> Tensor:
    """How far from a line towards a cubic the value between four others is found, (D,) in [0, 1], pooled over rows.

    The coefficient of a regression, without intercept, of a value less the line through its two neighbours on the cubic
    through four neighbours less that line: 0 for Brownian motion, whatever the spacing, 1 for smooth motion that the
    spacing resolves. A variable without five values in any row has 0.
    """
    curves = curves_of(batch.to("cpu", torch.float64).compact(), math.inf)
    times, values = curves.knots, curves.values[..., 0]
    count = times.shape[1] - 4
    if count < 1:
        return torch.zeros(batch.num_variables)
    middle, where = times[:, 2 : 2 + count, None], (0, 1, 3, 4)
    four, others = (torch.stack([part[:, k : k + count] for k in where], -1) for part in (times, values))
    proper = four[..., 3] > four[..., 2]  # padding repeats the last time
    own = torch.eye(4, dtype=torch.bool)
    apart = torch.where(own | ~proper[..., None, None], 1.0, four[..., :, None] - four[..., None, :])
    ratio = torch.where(own, 1.0, (middle - four)[..., None, :] / apart)
    cubic = (ratio.prod(-1) * others).sum(-1)  # Lagrange's interpolation
    share = (middle[..., 0] - four[..., 1]) / torch.where(proper, four[..., 2] - four[..., 1], 1.0)
    line = torch.lerp(others[..., 1], others[..., 2], share)
    bent, off = (
        torch.where(proper, part - line, 0.0).unflatten(0, (batch.num_rows, -1))
        for part in (cubic, values[:, 2 : 2 + count])
    )
    found = (bent * off).sum((0, 2)) / bent.square().sum((0, 2)).clamp(min=1e-300)
    return found.clamp(0, 1).to(torch.get_default_dtype())


class Curves(NamedTuple):
    """Each variable of each row by itself, its observed values first: R = B D rows of T knots.

    knots (R, T), values and slopes (R, T, C), order (R, T, 1) of the visits; intervals and visits (B, D), how many;
    log_length (B, D) the sum of the logarithms of intervals, off (B, D) the root of the sum of squared distances of the
    values from the lines between their neighbours. The second channel, of the lines, is there for noisy values.
    """

    knots: Tensor
    values: Tensor
    slopes: Tensor
    order: Tensor
    intervals: Tensor
    visits: Tensor
    log_length: Tensor
    off: Tensor


def _step_times(times: Tensor, noise: RowNoise, number: int | None) -> tuple[Tensor, Tensor]:
    """Visits that begin an interval, (B, M), and how many each stands for: random ones, stratified; all if None."""
    count = (times.diff(dim=1) > 0).sum(1, keepdim=True)
    if number is None:
        every = torch.arange(times.shape[1] - 1, device=times.device)
        return times[:, :-1], (every < count).to(times)
    place = torch.arange(number, device=times.device, dtype=times.dtype) + noise.uniform("points", number)
    index = (place / number * count).long().clamp(max=max(0, times.shape[1] - 2))
    return times.gather(1, index), (count / number).expand(index.shape).to(times)


def curves_of(batch: SeriesBatch, longest: float) -> Curves:
    """The curves of a compact batch; `longest`: only intervals up to this length count."""
    mask = batch.mask.transpose(1, 2).flatten(0, 1)
    shape = (batch.num_rows, batch.num_variables)
    order = torch.sort(~mask, dim=1, stable=True).indices
    kept = mask.gather(1, order)
    times = batch.times.repeat_interleave(batch.num_variables, 0).gather(1, order)
    last = torch.where(kept, times, -torch.inf).amax(1, keepdim=True)
    # a variable that a row never shows has all its knots at one time, and so no interval
    last = torch.where(kept.any(1, keepdim=True), last, times[:, :1])
    knots = torch.where(kept, times, last).contiguous()
    values = batch.values.transpose(1, 2).flatten(0, 1).gather(1, order)
    final = values.gather(1, (kept.sum(1, keepdim=True) - 1).clamp(min=0))
    values = torch.where(kept, values, final)
    length = knots.diff(dim=1)
    there = (length > 0) & (length <= longest)
    log_length = torch.where(there, length.clamp(min=1e-300).log(), 0.0).sum(1)
    inner = kept[:, 2:]
    share = torch.where(inner, length[:, :-1] / (length[:, :-1] + length[:, 1:]).clamp(min=1e-300), 0.0).to(values)
    between = torch.lerp(values[:, :-2], values[:, 2:], share)
    lines = values.clone()
    lines[:, 1:-1] = torch.where(inner, between, values[:, 1:-1])
    both = torch.stack((values, lines), -1)
    return Curves(
        knots,
        both,
        natural_slopes(knots, both),
        order[..., None],
        there.sum(1).reshape(shape).to(values),
        kept.sum(1).reshape(shape).to(values),
        log_length.reshape(shape).to(values),
        (lines - values).square().sum(1).sqrt().reshape(shape),
    )
