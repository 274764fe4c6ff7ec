"""A grid of steps per row: each row walks to its own times in its own steps, so no row depends on the others in its batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class RowGrid(NamedTuple):
    """Steps of every row, in order; rows that are done take steps of length zero.

    steps: (B, N) lengths. starts: (B, N) time at the start of each step. index: (B, H), how many steps a row has taken when
    it is at its h-th time: 0 is the start.
    """

    steps: Tensor
    starts: Tensor
    index: Tensor


def row_grid(start: Tensor, times: Tensor, longest: float) -> RowGrid:
    """Cut each row's gaps into equal steps of at most `longest`, each gap by itself.

    Args:
        start: (B,). times: (B, H), not decreasing, not before start. longest: the longest step, in units of time.

    Raises:
        ValueError: `longest` is not positive.
    """
    if not longest > 0:
        raise ValueError(f"longest: {longest} given, a positive step wanted")
    gaps = torch.diff(times, dim=1, prepend=start[:, None])
    # the small subtraction keeps a gap of exactly k steps from becoming k + 1
    counts = torch.ceil(gaps / longest - 1e-9).clamp(min=0).long()
    counts = torch.where(gaps > 0, counts.clamp(min=1), counts)
    index = counts.cumsum(1)
    total = max(1, int(index[:, -1].max()))
    place = torch.arange(total, device=times.device)
    gap_of = torch.searchsorted(index, place.expand(len(start), total).contiguous(), right=True).clamp(max=times.shape[1] - 1)
    done = place >= index[:, -1:]
    size = (gaps / counts.clamp(min=1)).gather(1, gap_of)
    steps = torch.where(done, torch.zeros_like(size), size)
    return RowGrid(steps, start[:, None] + torch.cumsum(steps, 1) - steps, index)
