"""Brownian increments: their law, their seeds, and queries between known times."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodyn.noise import RowNoise
from neurodyn.solvers.brownian import BLOCK, Brownian, brownian_increments, coarsen, refine
from neurodyn.solvers.grid import step_grid

DTYPE = torch.float64


def test_increments_are_independent_with_the_variance_of_their_steps():
    ts = torch.tensor([0.0, 0.1, 1.0], dtype=DTYPE)
    grid = step_grid(ts, 0.5)
    dw = brownian_increments(grid, (20000,), 2, generator=torch.Generator().manual_seed(0), dtype=DTYPE)
    flat = dw.permute(0, 2, 1).reshape(-1, 20000)
    wanted = torch.diag(grid.steps.repeat_interleave(2))
    torch.testing.assert_close(torch.cov(flat), wanted, atol=0.02, rtol=0)
    assert flat.mean(1).abs().max() < 0.02


@pytest.mark.parametrize("seeds", [None, [3, 4]])
def test_blocks_can_be_drawn_again_in_any_order(seeds):
    grid = step_grid(torch.tensor([[0.0, 1.0], [0.0, 0.5]]), 1.0 / (2 * BLOCK + 7))
    generator = torch.Generator().manual_seed(1) if seeds is None else None
    path = Brownian(grid, (5, 2), 3, generator=generator, seeds=seeds)
    whole = path.increments()
    assert whole.shape == (2 * BLOCK + 7, 5, 2, 3) and path.num_blocks == 3
    for number in (2, 0, 1):
        part = path.block(number)
        assert torch.equal(part, whole[number * BLOCK : (number + 1) * BLOCK])
    assert whole[-1, :, 1].abs().max() == 0, "the second row stands still at the end"
    assert not torch.equal(whole[0], whole[BLOCK])


def test_the_generator_decides():
    grid = step_grid([0.0, 1.0], 0.25)
    one, same, other = (
        brownian_increments(grid, (3,), 2, generator=torch.Generator().manual_seed(s)) for s in (5, 5, 6)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    torch.manual_seed(7)
    first = brownian_increments(grid, (3,), 2)
    torch.manual_seed(7)
    assert torch.equal(first, brownian_increments(grid, (3,), 2))


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(4)), st.integers(1, 3), st.floats(0.1, 2.0))
def test_seeded_rows_do_not_see_their_batch(order, split, longest):
    generator = torch.Generator().manual_seed(0)
    ts = torch.rand(4, 5, generator=generator, dtype=DTYPE).cumsum(-1)
    seeds = [11, 12, 13, 14]

    def own(rows):
        grid = step_grid(ts[rows], longest)
        dw = brownian_increments(grid, (2, len(rows)), 3, seeds=[seeds[r] for r in rows], dtype=DTYPE)
        return {r: dw[:, :, i][grid.steps[i] > 0] for i, r in enumerate(rows)}

    whole, parts = own(list(range(4))), {**own(order[:split]), **own(order[split:])}
    for row in range(4):
        assert torch.equal(whole[row], parts[row])


def test_seeded_rows_are_standard_normal_and_differ():
    grid = step_grid([0.0, 50.0], 1.0)
    dw = brownian_increments(grid, (200, 3), 2, seeds=RowNoise(1, ["a", "b", "c"]), dtype=DTYPE)
    flat = dw.permute(2, 0, 1, 3).reshape(3, -1)
    torch.testing.assert_close(torch.cov(flat), torch.eye(3, dtype=DTYPE), atol=0.03, rtol=0)
    assert flat.mean(1).abs().max() < 0.03


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_refining_keeps_the_path_where_it_was_known(factor):
    grid = step_grid(torch.tensor([[0.0, 0.3, 1.0], [0.0, 0.5, 0.5]], dtype=DTYPE), 0.3)
    dw = brownian_increments(grid, (4, 2), 2, dtype=DTYPE)
    torch.testing.assert_close(coarsen(refine(dw, grid, factor), factor), dw)


def test_refined_increments_are_brownian():
    grid = step_grid([0.0, 0.4, 1.0], 0.6)
    generator = torch.Generator().manual_seed(2)
    dw = brownian_increments(grid, (30000,), 1, generator=generator, dtype=DTYPE)
    fine = refine(dw, grid, 3, generator=generator).squeeze(-1)
    torch.testing.assert_close(torch.cov(fine), torch.diag(grid.refined(3).steps), atol=0.008, rtol=0)


def test_bad_input_is_named():
    grid = step_grid(torch.tensor([[0.0, 1.0], [0.0, 0.5]]), 0.25)
    with pytest.raises(ValueError, match="^seeds: got 3"):
        brownian_increments(grid, (2,), 1, seeds=[1, 2, 3])
    with pytest.raises(ValueError, match="^shape"):
        brownian_increments(grid, (3,), 1)
    with pytest.raises(ValueError, match="^factor: got 3"):
        coarsen(torch.zeros(4, 2, 1), 3)
    with pytest.raises(ValueError, match="^increments: got shape"):
        refine(torch.zeros(5, 2, 1), grid, 2)
