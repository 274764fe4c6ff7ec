"""The step grid: steps end at the visits, are no longer than dt, and belong to their row alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodyn.solvers.grid import packed_grid, step_grid

gaps = st.lists(st.lists(st.floats(0.0, 3.0), min_size=3, max_size=3), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(gaps, st.floats(0.05, 2.0))
def test_steps_add_up_to_the_gaps_row_by_row(rows, dt):
    ts = torch.tensor([[0.0, *row] for row in rows], dtype=torch.float64).cumsum(-1)
    grid = step_grid(ts, dt)
    assert torch.equal(grid.times[:, list(grid.index)], ts)
    assert (grid.steps <= dt * (1 + 1e-5)).all()
    torch.testing.assert_close(grid.times[:, :-1] + grid.steps, grid.times[:, 1:], atol=1e-12, rtol=0)
    for row in range(len(rows)):
        alone = step_grid(ts[row : row + 1], dt)
        assert torch.equal(alone.steps[0][alone.steps[0] > 0], grid.steps[row][grid.steps[row] > 0])
    assert grid.idle == bool((grid.steps == 0).any())
    assert len(grid.intervals) == grid.num_steps


def test_shared_times_take_the_fewest_equal_steps():
    grid = step_grid([0.0, 0.3, 1.0], 0.1)
    assert grid.shared and grid.index == (0, 3, 10) and not grid.idle
    assert grid.intervals == [0] * 3 + [1] * 7
    torch.testing.assert_close(grid.steps, torch.full((10,), 0.1, dtype=torch.float64))
    assert step_grid([0.0, 0.31], 0.1).num_steps == 4


def test_padding_costs_no_steps():
    grid = step_grid(torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.5, 0.5]]), 0.5)
    assert grid.num_steps == 2 and grid.index == (0, 2, 2)
    assert grid.steps[1].tolist() == [0.5, 0.0]


def test_refined_keeps_the_visits():
    ts = torch.tensor([[0.0, 0.4, 1.3], [0.0, 0.7, 0.7]], dtype=torch.float64)
    grid = step_grid(ts, 0.25)
    fine = grid.refined(3)
    assert torch.equal(fine.times[:, list(fine.index)], ts)
    torch.testing.assert_close(fine.steps.unflatten(-1, (-1, 3)).sum(-1), grid.steps)
    torch.testing.assert_close(fine.times[:, :-1] + fine.steps, fine.times[:, 1:])


def test_one_time_has_no_steps():
    assert step_grid([2.0], 0.1).num_steps == 0


@pytest.mark.parametrize(
    ("ts", "dt", "message"),
    [
        ([0.0, 1.0], 0.0, "^dt: got 0.0"),
        ([0.0, 1.0], -1.0, "^dt"),
        ([0.0, 1.0], float("nan"), "^dt"),
        ([1.0, 0.0], 0.1, "^ts: .*strictly increasing"),
        ([0.0, 0.0], 0.1, "^ts: .*strictly increasing"),
        ([[0.0, 1.0], [1.0, 0.5]], 0.1, "^ts: .*decrease"),
        ([0.0, float("nan")], 0.1, "^ts: .*NaN"),
        (3.0, 0.1, r"^ts: got shape \(\)"),
        ([], 0.1, r"^ts: got shape \(0,\)"),
    ],
)
def test_bad_times_and_steps_are_named(ts, dt, message):
    with pytest.raises(ValueError, match=message):
        step_grid(torch.tensor(ts), dt)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 5), visits=st.integers(1, 6))
def test_a_packed_grid_takes_every_rows_own_steps_and_no_others(seed: int, rows: int, visits: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    gaps = torch.rand(rows, visits, generator=generator, dtype=torch.float64) ** 3
    gaps = gaps * (torch.rand(rows, visits, generator=generator) < 0.8)  # repeated times, as padding has them
    times = gaps.cumsum(1)
    packed, together = packed_grid(times, 0.07), step_grid(times, 0.07)
    assert packed.num_steps == max(int((together.steps[row] > 0).sum()) for row in range(rows))
    torch.testing.assert_close(packed.times.gather(1, packed.places), times, atol=0, rtol=0)
    torch.testing.assert_close(packed.times.diff(dim=1), packed.steps, atol=1e-12, rtol=0)
    intervals = torch.tensor(together.intervals, dtype=torch.int64)
    for row in range(rows):
        moving, own = together.steps[row] > 0, packed.steps[row] > 0
        torch.testing.assert_close(packed.steps[row][own], together.steps[row][moving], atol=0, rtol=0)
        assert packed.gaps[row][own].tolist() == intervals[moving].tolist()
        assert not own[int(own.sum()) :].any()


def test_a_packed_grid_wants_times_per_row() -> None:
    with pytest.raises(ValueError, match=r"ts: got shape \(3,\), want \(B, T\)"):
        packed_grid(torch.tensor([0.0, 1.0, 2.0]), 0.1)
