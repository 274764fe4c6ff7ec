"""Grids with rests: reversible Heun starts anew at every visit, whatever the company of a row."""

import pytest
import torch
from torch import nn

from neurodyn.noise import RowNoise
from neurodyn.solvers.brownian import Brownian
from neurodyn.solvers.grid import step_grid
from neurodyn.solvers.native import integrate, integrate_visits

DOUBLE = torch.float64
TIMES = torch.tensor([[0.0, 0.35, 1.0, 1.0], [0.1, 0.15, 0.6, 1.7], [0.0, 0.9, 1.0, 1.3]], dtype=DOUBLE)


def test_a_rest_adds_a_still_step_at_the_end_of_each_gap_and_keeps_all_times() -> None:
    grid = step_grid(TIMES, 0.2)
    rested = grid.rested()
    assert rested.num_steps == grid.num_steps + 3
    assert rested.rests == {place - 1 for place in rested.index[1:]}
    assert torch.equal(rested.times[:, list(rested.index)], TIMES)
    assert (rested.steps[:, sorted(rested.rests)] == 0).all()
    moving = [k for k in range(rested.num_steps) if k not in rested.rests]
    torch.testing.assert_close(rested.steps[:, moving], grid.steps, atol=1e-14, rtol=0)
    assert [rested.intervals[k] for k in moving] == grid.intervals
    torch.testing.assert_close(rested.steps, rested.times.diff(dim=1), atol=1e-14, rtol=0)


def test_rests_of_shared_times() -> None:
    rested = step_grid([0.0, 0.5, 1.0], 0.25).rested()
    assert rested.times.tolist() == [0.0, 0.25, 0.5, 0.5, 0.75, 1.0, 1.0]
    assert rested.index == (0, 3, 6) and rested.rests == {2, 5}


class Jumping(nn.Module):
    """A drift that jumps at every visit: a table looked up by the gap."""

    def __init__(self, gaps: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(gaps, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)))

    def forward(self, gap: int, z: torch.Tensor) -> torch.Tensor:
        return 3 * self.table[gap] - 5 * z + torch.sin(z.flip(-1))


def test_a_solve_with_rests_is_one_solve_after_another() -> None:
    law, noise = Jumping(3), RowNoise(0, ["a", "b", "c"])
    grid = step_grid(TIMES, 0.1).rested()
    dw = Brownian(grid, (3,), 2, seeds=noise, dtype=DOUBLE).increments()
    kinds = {"method": "reversible_heun", "state_independent": True}
    z0 = torch.ones(3, 2, dtype=DOUBLE)
    whole = integrate(
        lambda k, t, z: law(grid.intervals[k], z), lambda k, t, z: torch.ones_like(z), z0, grid, dw, **kinds
    )
    z = z0
    for gap in range(3):
        start, end = grid.index[gap : gap + 2]
        part = step_grid(TIMES[:, gap : gap + 2], 0.1)
        piece = integrate(
            lambda k, t, z, gap=gap: law(gap, z),
            lambda k, t, z: torch.ones_like(z),
            z,
            part,
            dw[start : end - 1],
            **kinds,
        )
        z = piece.states[:, -1]
        torch.testing.assert_close(whole.states[:, end], z, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("gradient", ["checkpoint", "reversible"])
@pytest.mark.parametrize("dt", [0.1, 0.005])
def test_gradients_through_rests_are_those_of_backprop(gradient: str, dt: float) -> None:
    law, grid = Jumping(3), step_grid(TIMES, dt).rested()
    z0 = torch.ones(3, 2, dtype=DOUBLE, requires_grad=True)
    found = {}
    for way in ("backprop", gradient):
        visits = integrate_visits(
            lambda k, t, z: law(grid.intervals[k], z),
            lambda k, t, z: torch.ones_like(z),
            z0,
            grid,
            Brownian(grid, (3,), 2, seeds=RowNoise(0, ["a", "b", "c"]), dtype=DOUBLE),
            method="reversible_heun",
            state_independent=True,
            cost=lambda k, t, left: left.drift.square().sum(-1),
            gradient=way,
            params=list(law.parameters()),
        )
        loss = visits.states.sin().sum() + visits.cost.sum()
        found[way] = torch.autograd.grad(loss, [z0, *law.parameters()])
    for one, other in zip(found["backprop"], found[gradient], strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)
