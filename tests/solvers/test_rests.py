"""Packed grids, and their rests: reversible Heun starts anew at every visit, whatever the company of a row."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from neurodyn.noise import RowNoise
from neurodyn.solvers.brownian import Brownian, brownian_increments
from neurodyn.solvers.grid import Grid, packed_grid, step_grid
from neurodyn.solvers.native import Visits, integrate_visits

DOUBLE = torch.float64
# the second row repeats a time, as padding does; the third takes the most steps
TIMES = torch.tensor([[0.0, 0.35, 1.0, 1.0], [0.1, 0.15, 0.15, 0.7], [0.0, 0.9, 1.0, 1.3]], dtype=DOUBLE)
ROWS = ("a", "b", "c")
HEUN = {"method": "reversible_heun", "state_independent": True}


def test_a_rest_is_a_still_step_at_the_end_of_each_gap() -> None:
    grid, plain = packed_grid(TIMES, 0.2, rests=True), packed_grid(TIMES, 0.2)
    assert grid.places is not None and grid.rests is not None and plain.places is not None and plain.rests is None
    assert torch.equal(grid.times.gather(1, grid.places), TIMES)
    assert (grid.steps[grid.rests] == 0).all()
    assert grid.rests.sum(1).tolist() == [2, 2, 3]  # as many as the row has gaps with a length
    torch.testing.assert_close(grid.steps, grid.times.diff(dim=1), atol=1e-14, rtol=0)
    for row in range(3):
        for gap, (start, end) in enumerate(zip(grid.places[row, :-1], grid.places[row, 1:], strict=True)):
            if start < end:
                assert grid.rests[row, start:end].nonzero().flatten().tolist() == [int(end - start) - 1]
                assert grid.gaps[row, start:end].unique().tolist() == [gap]
        own, without = grid.steps[row] > 0, plain.steps[row] > 0
        torch.testing.assert_close(grid.steps[row][own], plain.steps[row][without], atol=1e-14, rtol=0)


class Jumping(nn.Module):
    """A drift that jumps at every visit: a table looked up by the gap."""

    def __init__(self, gaps: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(gaps, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)))

    def forward(self, gap: int | Tensor, z: Tensor) -> Tensor:
        return 3 * self.table[gap] - 5 * z + torch.sin(z.flip(-1))


def solve(law: Jumping, z0: Tensor, grid: Grid, ids: Sequence[str] = ROWS, gradient: str = "backprop") -> Visits:
    # without rests a method that looks at steps' ends sees the next gap there: such laws must not jump
    gaps = (grid.gaps if grid.rests is not None else torch.zeros_like(grid.gaps)).unbind(-1)
    return integrate_visits(
        lambda k, t, z: law(gaps[k], z),
        lambda k, t, z: torch.ones_like(z),
        z0,
        grid,
        Brownian(grid, z0.shape[:-1], 2, seeds=RowNoise(0, list(ids)), dtype=DOUBLE),
        cost=lambda k, t, left: left.drift.square().sum(-1),
        gradient=gradient,
        params=list(law.parameters()),
        **HEUN,
    )


class Jumping(nn.Module):
    """A drift that jumps at every visit: a table looked up by the gap."""

    def __init__(self, gaps: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(gaps, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)))

    def forward(self, gap: int, z: torch.Tensor) -> torch.Tensor:
        return 3 * self.table[gap] - 5 * z + torch.sin(z.flip(-1))


def test_a_solve_with_rests_is_one_solve_after_another() -> None:
    law = Jumping(3)
    grid = packed_grid(TIMES, 0.1, rests=True)
    assert grid.places is not None
    whole = solve(law, torch.ones(3, 2, dtype=DOUBLE), grid)
    dw = Brownian(grid, (3,), 2, seeds=RowNoise(0, list(ROWS)), dtype=DOUBLE).increments()
    for row in range(3):
        z, paid = torch.ones(1, 2, dtype=DOUBLE), 0.0
        for gap in range(3):
            torch.testing.assert_close(whole.states[row, gap], z[0], atol=1e-12, rtol=1e-12)
            start, end = grid.places[row, gap : gap + 2].tolist()
            if start == end:
                continue
            part = step_grid(TIMES[row : row + 1, gap : gap + 2], 0.1)
            visits = integrate_visits(
                lambda k, t, z, gap=gap: law(gap, z),
                lambda k, t, z: torch.ones_like(z),
                z,
                part,
                dw[start : end - 1, row : row + 1],
                cost=lambda k, t, left: left.drift.square().sum(-1),
                **HEUN,
            )
            z, paid = visits.states[:, -1], paid + visits.cost[0, 0]
        torch.testing.assert_close(whole.states[row, 3], z[0], atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(whole.cost[row, 0], paid, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("lead", [(), (2,)])
@pytest.mark.parametrize("rests", [True, False])
def test_a_row_does_not_know_its_company(rests: bool, lead: tuple[int, ...]) -> None:
    law, z0 = Jumping(3), torch.ones(*lead, 3, 2, dtype=DOUBLE)
    together = solve(law, z0, packed_grid(TIMES, 0.1, rests=rests))
    for row, name in enumerate(ROWS):
        alone = solve(law, z0[..., :1, :], packed_grid(TIMES[row : row + 1], 0.1, rests=rests), [name])
        torch.testing.assert_close(together.states[..., row, :, :], alone.states[..., 0, :, :], atol=1e-12, rtol=0)
        torch.testing.assert_close(together.cost[..., row, :], alone.cost[..., 0, :], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("gradient", ["checkpoint", "reversible"])
@pytest.mark.parametrize("rests", [True, False])
@pytest.mark.parametrize("dt", [0.1, 0.005])
def test_gradients_on_packed_grids_are_those_of_backprop(gradient: str, rests: bool, dt: float) -> None:
    law, grid = Jumping(3), packed_grid(TIMES, dt, rests=rests)
    z0 = torch.ones(2, 3, 2, dtype=DOUBLE, requires_grad=True)
    found = {}
    for way in ("backprop", gradient):
        visits = solve(law, z0, grid, gradient=way)
        loss = visits.states.sin().sum() + visits.cost.sum()
        found[way] = torch.autograd.grad(loss, [z0, *law.parameters()])
    for one, other in zip(found["backprop"], found[gradient], strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("gradient", ["checkpoint", "reversible"])
def test_params_of_steps_get_their_gradients(gradient: str) -> None:
    grid = packed_grid(TIMES, 0.1, rests=True)
    generator = torch.Generator().manual_seed(3)
    leaf = torch.randn(3, grid.num_steps, 2, dtype=DOUBLE, generator=generator, requires_grad=True)
    rate = torch.tensor(2.0, dtype=DOUBLE, requires_grad=True)
    dw = brownian_increments(grid, (3,), 2, generator=generator, dtype=DOUBLE)
    found = {}
    for way in ("backprop", gradient):
        pushes = leaf.sin().unbind(1)
        options = {"gradient": way, "params": [rate, pushes], **HEUN}
        visits = integrate_visits(
            lambda k, t, z, pushes=pushes: pushes[k] - rate * z,
            lambda k, t, z: torch.ones_like(z),
            torch.ones(3, 2, dtype=DOUBLE),
            grid,
            dw,
            **options,
        )
        found[way] = torch.autograd.grad(visits.states.square().sum(), [leaf, rate])
    for one, other in zip(found["backprop"], found[gradient], strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)
    with pytest.raises(ValueError, match="^params: got a list of 1 tensors, want one for each of the"):
        integrate_visits(
            lambda k, t, z: rate * z,
            lambda k, t, z: torch.ones_like(z),
            torch.ones(3, 2, dtype=DOUBLE),
            grid,
            dw,
            params=[[rate]],
            gradient=gradient,
            **HEUN,
        )
