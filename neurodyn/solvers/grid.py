"""The steps that a fixed-step solve takes, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Gaps within this fraction of a whole number of steps count as whole, so that 0.3 / 0.1 gives 3 steps.
_SLACK = 1e-6


@dataclass(frozen=True, eq=False)
class Grid:
    """Steps that carry every row from each of its visits to the next.

    Rows share the number of steps, N, but not the times. Where a row needs fewer steps than another one it stands
    still: a step of length zero. So a row's own steps depend on its own times only, and a solution does not change with
    the batch that the row is in.

    Attributes:
        times: (..., N + 1) float64, where each step starts, and the end of the last. (N + 1,) if all rows share them.
        steps: (..., N) float64, length of each step; 0 where the row stands still.
        index: T ints, place of each visit: ``times[..., index[i]]`` equals ``ts[..., i]`` exactly. On a packed grid
            the start and the end only.
        idle: whether any row stands still in any step.
        places: of a packed grid, (B, T) int64: ``times[b, places[b, i]]`` equals ``ts[b, i]``.
        rests: of a packed grid, (B, N) bool, still steps at the ends of gaps; see `packed_grid`.
    """

    times: Tensor
    steps: Tensor
    index: tuple[int, ...]
    idle: bool
    places: Tensor | None = None
    rests: Tensor | None = None

    @property
    def num_steps(self) -> int:
        """N."""
        return self.steps.shape[-1]

    @property
    def shared(self) -> bool:
        """Whether all rows have the same times."""
        return self.times.ndim == 1

    @property
    def rows(self) -> torch.Size:
        """Leading shape of the times; empty if shared."""
        return self.times.shape[:-1]

    @property
    def intervals(self) -> list[int]:
        """For each of the N steps, which interval of `index` it lies in: 0 for the first."""
        bounds = zip(self.index[:-1], self.index[1:], strict=True)
        return [i for i, (start, end) in enumerate(bounds) for _ in range(end - start)]

    @property
    def gaps(self) -> Tensor:
        """Which gap between visits each step lies in: (N,), or (B, N) of a packed grid; the last one after the end."""
        if self.places is None:
            return torch.tensor(self.intervals, device=self.times.device)
        return _gap_of_steps(self.places, self.num_steps)

    @property
    def visitors(self) -> dict[int, Tensor | None]:
        """The places of the visits in order, and which rows (R,) have one there; None: all of them."""
        if self.places is None:
            return dict.fromkeys(self.index)
        rows = torch.arange(len(self.places), device=self.places.device)
        return dict(rows_by_step(self.places, rows[:, None].expand_as(self.places)))

    def refined(self, factor: int) -> Grid:
        """The same grid with every step cut into `factor` equal ones."""
        if factor < 1:
            raise ValueError(f"factor: got {factor}, want 1 or more")
        steps = (self.steps / factor).repeat_interleave(factor, -1)
        part = torch.arange(factor, dtype=torch.float64, device=steps.device).repeat(self.num_steps)
        start = self.times[..., :-1].repeat_interleave(factor, -1) + part * steps
        times = torch.cat((start, self.times[..., -1:]), -1)
        places = None if self.places is None else factor * self.places
        rests = None if self.rests is None else self.rests.repeat_interleave(factor, -1)
        return Grid(times, steps, tuple(factor * place for place in self.index), self.idle, places, rests)


def step_grid(ts: Tensor | Sequence[float], dt: float) -> Grid:
    """Cut the gaps between visits into the fewest equal steps of at most `dt`.

    Args:
        ts: visit times, (T,) shared by all rows and strictly increasing, or (..., T) per row and not decreasing
            (padding repeats a row's last time).
        dt: longest step, in units of time.

    Raises:
        ValueError: times that are not sorted or not finite, or a `dt` that is not positive.
    """
    times = _checked(ts, dt)
    gaps = times.diff(dim=-1)
    counts = _own_counts(gaps, dt)
    shared_counts = counts.reshape(-1, gaps.shape[-1]).amax(0) if counts.numel() else counts.new_zeros(gaps.shape[-1])
    most = [int(count) for count in shared_counts.tolist()]
    where = [(i, j) for i, count in enumerate(most) for j in range(count)]
    gap, part = torch.tensor(where, dtype=torch.int64, device=times.device).reshape(-1, 2).unbind(-1)
    count = counts[..., gap]
    moving = part < count
    steps = torch.where(moving, gaps[..., gap] / count.clamp_min(1.0), 0.0)
    start = torch.where(moving, times[..., gap] + part * steps, times[..., gap + 1])
    index = [0]
    for taken in most:
        index.append(index[-1] + taken)
    return Grid(torch.cat((start, times[..., -1:]), -1), steps, tuple(index), not bool(moving.all()))


def packed_grid(ts: Tensor, dt: float, *, rests: bool = False) -> Grid:
    """The steps of `step_grid`, row by row one after the other: N is the most steps that a row takes in all.

    On `step_grid` the rows meet at every visit, and N is the sum of what the slowest row needs in each gap: with
    irregular times most rows stand still most of the time. Here they stand still after their last visit only.

    Args:
        ts: visit times (B, T), not decreasing (padding repeats a row's last time).
        dt: longest step, in units of time.
        rests: whether every gap ends with one more step, a rest of length zero. For laws that jump at the visits, under
            reversible Heun, which evaluates them once per place: what it sees at the end of a gap then belongs to that
            gap, and the rest makes it look again and start anew.

    Raises:
        ValueError: as in `step_grid`, and times that are not (B, T).
    """
    times = _checked(ts, dt)
    if times.ndim != 2:
        raise ValueError(f"ts: got shape {tuple(times.shape)}, want (B, T)")
    gaps = times.diff(dim=-1)
    counts = _own_counts(gaps, dt).long()
    taken = counts + (counts > 0) if rests else counts
    places = torch.nn.functional.pad(taken.cumsum(-1), (1, 0))
    total = int(places[:, -1].max()) if places.numel() else 0
    start, steps, moving, resting = _one_after_the_other(times, counts, places, total)
    return Grid(start, steps, (0, total), not bool(moving.all()), places, resting if rests else None)


def fixed_grid(times: Tensor, dt: float, num_steps: int) -> tuple[Grid, Tensor]:
    """The steps of `packed_grid`, so many in all whatever the times are, and the places (B, T) of the visits.

    For programs whose shapes are settled before the data comes (`torch.export`): nothing is checked, and nothing read
    back from the device. A row that needs more steps than there are has places beyond the last one.

    Args:
        times: (B, T) float64, T >= 2, not decreasing.
    """
    counts = _own_counts(times.diff(dim=-1), dt).long()
    places = torch.nn.functional.pad(counts.cumsum(-1), (1, 0))
    start, steps, _, _ = _one_after_the_other(times, counts, places, num_steps)
    return Grid(start, steps, (0, num_steps), True), places


def _one_after_the_other(
    times: Tensor, counts: Tensor, places: Tensor, total: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of so many steps a row: starts and the end (B, N + 1), lengths, whether they move, whether they rest, (B, N)."""
    gap, number = _gap_of_steps(places, total), torch.arange(total, device=times.device)
    part, count = number - places.gather(1, gap), counts.gather(1, gap)
    inside = number < places[:, -1:]
    moving, resting = inside & (part < count), inside & (part == count)
    steps = torch.where(moving, times.diff(dim=-1).gather(1, gap) / count.clamp_min(1), 0.0)
    start = torch.where(moving, times.gather(1, gap) + part * steps, times[:, 1:].gather(1, gap))
    return torch.cat((start, times[:, -1:]), -1), steps, moving, resting


def _gap_of_steps(places: Tensor, total: int) -> Tensor:
    """Which gap each of so many steps lies in, (B, N), the last one after the end."""
    number = torch.arange(total, device=places.device).expand(places.shape[0], -1)
    gap = torch.searchsorted(places[:, 1:].contiguous(), number.contiguous(), right=True)
    return gap.clamp_max(max(places.shape[1] - 2, 0))


def rows_by_step(steps: Tensor, rows: Tensor) -> dict[int, Tensor]:
    """The rows that go with each step, both without repeats and in order, of pairs (step, row) of any shape."""
    pairs = torch.unique(torch.stack((steps.flatten(), rows.flatten()), -1), dim=0)
    unique, counts = torch.unique_consecutive(pairs[:, 0], return_counts=True)
    return dict(zip(unique.tolist(), pairs[:, 1].split(counts.tolist()), strict=True))


def _checked(ts: Tensor | Sequence[float], dt: float) -> Tensor:
    times = torch.as_tensor(ts).detach().to(torch.float64)
    if times.ndim < 1 or times.shape[-1] < 1:
        raise ValueError(f"ts: got shape {tuple(times.shape)}, want (T,) or (..., T) with T >= 1")
    if not 0 < dt < float("inf"):
        raise ValueError(f"dt: got {dt}, want a positive step")
    if not bool(torch.isfinite(times).all()):
        raise ValueError("ts: got NaN or infinite times, want finite ones")
    gaps = times.diff(dim=-1)
    if times.ndim == 1 and bool((gaps <= 0).any()):
        raise ValueError("ts: got shared times that are not strictly increasing, want them sorted without repeats")
    if bool((gaps < 0).any()):
        raise ValueError("ts: got a row whose times decrease, want every row sorted")
    return times


def _own_counts(gaps: Tensor, dt: float) -> Tensor:
    """How many equal steps of at most dt each gap takes; none where it has no length."""
    return torch.ceil(gaps / dt - _SLACK).clamp_min(1.0) * (gaps > 0)
