"""What was known at a visit, paired with what a later visit of the row then showed: what persistence models learn."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from neurodyn.series import SeriesBatch


class LastSeen(NamedTuple):
    """The last observed value of each variable up to and including each visit.

    value: (B, T, D), 0 where there is none yet; time: (B, T, D) float64, when it was observed; seen: (B, T, D) bool.
    """

    value: Tensor
    time: Tensor
    seen: Tensor


class Pairs(NamedTuple):
    """N pairs of a cut (a visit that ends the history) and a later visit of the same row.

    horizon: (N,) float64, time from the cut to the later visit, > 0; last: (N, D), last values known at the cut, 0
    where there is none; age: (N, D) float64, time from the last value to the later visit; seen: (N, D) bool, whether
    there is a last value; truth: (N, D), the later visit's values; observed: (N, D) bool, which of them are observed.
    """

    horizon: Tensor
    last: Tensor
    age: Tensor
    seen: Tensor
    truth: Tensor
    observed: Tensor


def last_seen(batch: SeriesBatch) -> LastSeen:
    """Carry every variable's last observed value forward over the visits of each row."""
    position = torch.arange(batch.num_times, device=batch.device)[None, :, None].expand_as(batch.mask)
    index = torch.where(batch.mask, position, -1).cummax(1).values
    seen = index >= 0
    index = index.clamp(min=0)
    zero = torch.zeros((), dtype=batch.dtype, device=batch.device)
    value = torch.where(seen, batch.values.gather(1, index), zero)
    time = batch.times[..., None].expand(batch.mask.shape).gather(1, index)
    return LastSeen(value, time, seen)


def training_pairs(batch: SeriesBatch, *, limit: int = 50_000, generator: torch.Generator | None = None) -> Pairs:
    """All pairs of a visit and a later visit in the same row, or `limit` of them drawn at random if there are more.

    Raises ValueError if no row has two visits.
    """
    present = batch.present
    counts = present.sum(1)
    sizes = counts * (counts - 1) // 2
    total = int(sizes.sum())
    if total == 0:
        raise ValueError(
            "train: no row with two or more visits given, at least one is wanted to learn how values change with time"
        )
    if total > limit:
        flat = torch.randint(total, (limit,), generator=generator, device=batch.device)
    else:
        flat = torch.arange(total, device=batch.device)
    ends = sizes.cumsum(0)
    row = torch.searchsorted(ends, flat, right=True)
    rest = flat - (ends - sizes)[row]
    # the rest-th entry of a strict lower triangle read row by row: later visit j, cut k < j; the square root may round
    # across a boundary, which one correction each way mends
    later = ((1 + (1 + 8 * rest.double()).sqrt()) / 2).floor().long()
    later = torch.where(later * (later - 1) // 2 > rest, later - 1, later)
    later = torch.where(later * (later + 1) // 2 <= rest, later + 1, later)
    cut = rest - later * (later - 1) // 2
    visits = torch.argsort(
        (~present).to(torch.int8), dim=1, stable=True
    )  # positions of each row's present visits, in order
    later, cut = visits[row, later], visits[row, cut]
    known = last_seen(batch)
    when = batch.times[row, later]
    return Pairs(
        horizon=when - batch.times[row, cut],
        last=known.value[row, cut],
        age=when[:, None] - known.time[row, cut],
        seen=known.seen[row, cut],
        truth=batch.values[row, later],
        observed=batch.mask[row, later],
    )
