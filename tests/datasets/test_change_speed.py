"""Walks at other speeds: on a ramp the frame that was read is the value."""

import pytest
import torch

from neurodyn.datasets.mocap35 import change_speed, stretches
from neurodyn.series import SeriesBatch


def ramps(rows: int = 200, frames: int = 60) -> SeriesBatch:
    """x1 is the number of the frame, x2 its square."""
    number = torch.arange(frames, dtype=torch.float64)
    values = torch.stack((number, number.square()), 1).expand(rows, -1, -1)
    return SeriesBatch(0.1 * number.expand(rows, -1), values, ids=tuple(str(k) for k in range(rows)))


def test_every_row_is_read_at_a_constant_speed_that_is_log_normal() -> None:
    batch = ramps()
    moved = change_speed(batch, 0.1, torch.Generator().manual_seed(0))
    count = moved.present.sum(1)
    speed = moved.values[:, 1, 0] - moved.values[:, 0, 0]
    for row in range(batch.num_rows):
        read = moved.values[row, : count[row], 0]
        torch.testing.assert_close(read, read[0] + speed[row] * torch.arange(count[row]), rtol=1e-12, atol=1e-11)
        assert read[0] >= 0 and read[-1] <= 59
        # as long as the walk allows, and no longer than the batch
        assert count[row] == min(60, int(59 / speed[row] + 1e-9) + 1)
    assert torch.equal(moved.times[moved.present], batch.times[moved.present])
    log = speed.log()
    assert abs(float(log.mean())) < 0.03 and float(log.std()) == pytest.approx(0.1, rel=0.15)
    starts = moved.values[:, 0, 0]
    assert (starts[speed > 1] < speed[speed > 1]).all() and starts[speed < 0.9].max() > 1  # slow walks start anywhere


def test_between_frames_values_lie_on_the_line() -> None:
    moved = change_speed(ramps(rows=20), 0.1, torch.Generator().manual_seed(1))
    number, square = moved.values[moved.present].unbind(-1)
    below = number.floor()
    torch.testing.assert_close(square, below.square() + (number - below) * (2 * below + 1), rtol=1e-12, atol=1e-9)


def test_no_spread_changes_nothing() -> None:
    batch = ramps(rows=3)
    same = change_speed(batch, 0.0, torch.Generator().manual_seed(0))
    assert torch.equal(same.values, batch.values) and torch.equal(same.mask, batch.mask)
    assert torch.equal(same.times, batch.times)


def test_stretches_are_whole_pieces_of_walks_with_times_from_zero_on() -> None:
    batch = change_speed(ramps(rows=100), 0.1, torch.Generator().manual_seed(2))
    cut = stretches(batch, 20, torch.Generator().manual_seed(3))
    assert cut.values.shape == (100, 20, 2) and cut.mask.all()
    for row in range(100):
        first = (batch.values[row, :, 0] == cut.values[row, 0, 0]).nonzero()[0, 0]
        assert torch.equal(cut.values[row], batch.values[row, first : first + 20])
        assert first + 20 <= batch.present[row].sum()
    torch.testing.assert_close(cut.times, batch.times[:, :20])
    firsts = cut.values[:, 0, 0]
    assert firsts.min() < 5 and firsts.max() > 30  # from anywhere
    short = stretches(batch, 59, torch.Generator().manual_seed(4))
    assert torch.equal(short.present.sum(1), batch.present.sum(1).clamp(max=59))
