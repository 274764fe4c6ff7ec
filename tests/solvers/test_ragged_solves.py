"""Rows at their own times: as if each were solved alone, whatever stands beside it."""

import pytest
import torch
from example_laws import DTYPE, Decay, OrnsteinUhlenbeck
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodyn.noise import RowNoise
from neurodyn.sde.neural import MLPSDE
from neurodyn.solvers.brownian import brownian_increments
from neurodyn.solvers.grid import step_grid
from neurodyn.solvers.native import integrate
from neurodyn.solvers.solve import sdeint

METHODS = [("euler", "ito"), ("milstein", "ito"), ("heun", "stratonovich"), ("reversible_heun", "stratonovich")]


def build(kind, dtype=DTYPE):
    torch.manual_seed(0)
    return MLPSDE(2, 6, sde_type=kind, time_dependent=True).to(dtype)


WAYS = [(*pair, gradient) for pair in METHODS for gradient in ("backprop", "checkpoint")]


@pytest.mark.parametrize(("method", "kind", "gradient"), [*WAYS, ("reversible_heun", "stratonovich", "reversible")])
def test_rows_equal_separate_solves(method, kind, gradient):
    law = build(kind)
    ts = torch.tensor([[0.0, 0.3, 1.0], [0.5, 0.6, 2.2], [1.0, 1.4, 1.4]], dtype=DTYPE)
    grid = step_grid(ts, 0.1)
    dw = brownian_increments(grid, (4, 3), 2, dtype=DTYPE)
    start = torch.randn(4, 3, 2, dtype=DTYPE)
    together = sdeint(law, start, ts, dt=0.1, method=method, noise=dw, gradient=gradient)
    assert together.shape == (4, 3, 3, 2)
    for row in range(3):
        moving = grid.steps[row] > 0
        own = ts[row].unique()
        alone = sdeint(law, start[:, row], own, dt=0.1, method=method, noise=dw[moving][:, :, row], gradient=gradient)
        torch.testing.assert_close(together[:, row, : len(own)], alone, rtol=1e-12, atol=1e-13)
    assert torch.equal(together[:, 2, 1], together[:, 2, 2]), "padding changes nothing"


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(5)), st.integers(1, 4), st.integers(0, 2), st.sampled_from([torch.float32, DTYPE]))
def test_seeded_solutions_do_not_see_their_batch(order, split, padding, dtype):
    law = build("ito", dtype)
    generator = torch.Generator().manual_seed(0)
    gaps = torch.rand(5, 4, generator=generator, dtype=DTYPE)
    ts, start = gaps.cumsum(-1), torch.randn(3, 5, 2, generator=generator, dtype=DTYPE).to(dtype)
    seeds = [7, 8, 9, 10, 11]

    def solve(rows, padding=0):
        own = torch.cat((ts[rows], ts[rows, -1:].expand(-1, padding)), -1)
        return sdeint(law, start[:, rows], own, dt=0.11, seeds=[seeds[r] for r in rows])[:, :, :4]

    whole = solve(list(range(5)))
    parts = torch.cat((solve(order[:split], padding), solve(order[split:])), 1)
    tolerance = 1e-12 if dtype == DTYPE else 1e-5
    torch.testing.assert_close(parts, whole[:, order], rtol=tolerance, atol=tolerance)


def test_row_noise_seeds_like_integers_do():
    law, start, ts = build("ito"), torch.zeros(2, 3, 2, dtype=DTYPE), [0.0, 1.0]
    one, two = (sdeint(law, start, ts, dt=0.1, seeds=RowNoise(seed, ["a", "b", "c"])) for seed in (1, 2))
    assert torch.equal(one, sdeint(law, start, ts, dt=0.1, seeds=RowNoise(1, ["a", "b", "c"])))
    assert not torch.equal(one, two)
    assert not torch.equal(one[0], one[1]), "samples of a row differ"


def test_shared_times_are_rows_of_the_same_times():
    law, start = build("ito"), torch.randn(3, 2, dtype=DTYPE)
    ts = torch.tensor([0.0, 0.4, 1.0], dtype=DTYPE)
    dw = brownian_increments(step_grid(ts, 0.1), (3,), 2, dtype=DTYPE)
    shared = sdeint(law, start, ts, dt=0.1, noise=dw)
    torch.testing.assert_close(sdeint(law, start, ts.expand(3, -1), dt=0.1, noise=dw), shared, rtol=1e-12, atol=1e-13)


def test_one_state_is_spread_over_the_rows_of_the_times():
    ts = torch.tensor([[0.0, 1.0], [0.5, 3.0]], dtype=DTYPE)
    states = sdeint(Decay(), torch.ones(2, dtype=DTYPE), ts, dt=1e-3)
    wanted = Decay().exact(torch.ones(2, 2, dtype=DTYPE), ts[:, 0], ts[:, 1])
    torch.testing.assert_close(states[:, -1], wanted, rtol=0.01, atol=1e-3)


def test_rows_have_the_law_of_their_own_time():
    ts = torch.tensor([[0.0, 0.4], [0.0, 2.0], [1.0, 1.8]], dtype=DTYPE)
    law = OrnsteinUhlenbeck()
    states = sdeint(law, torch.ones(6000, 3, 2, dtype=DTYPE), ts, dt=0.01)[..., -1, :]
    for row, span in enumerate((ts[:, 1] - ts[:, 0]).tolist()):
        decay = torch.exp(torch.tensor(-law.k * span, dtype=DTYPE))
        spread = (1 - decay**2) / (2 * law.k) * law.matrix @ law.matrix.mT
        torch.testing.assert_close(torch.cov(states[:, row].mT), spread, atol=0.02, rtol=0)
        torch.testing.assert_close(states[:, row].mean(0), decay.expand(2), atol=0.02, rtol=0)


def test_a_single_time_returns_the_start():
    start = torch.randn(3, 2, dtype=DTYPE)
    assert torch.equal(sdeint(build("ito"), start, [0.7], dt=0.1), start.unsqueeze(-2))
    states, price = sdeint(build("ito"), start, [0.7], dt=0.1, logqp=True)
    assert states.shape == (3, 1, 2) and price.shape == (3, 0)


@pytest.mark.parametrize(("method", "kind"), METHODS)
@pytest.mark.parametrize("shared", [True, False])
def test_the_path_holds_what_the_steps_used(method, kind, shared):
    law = build(kind)
    ts = torch.tensor([[0.0, 0.2, 0.9], [0.0, 0.5, 0.5]], dtype=DTYPE)
    ts = ts[0] if shared else ts
    grid = step_grid(ts, 0.1)
    dw = brownian_increments(grid, (4, 2), 2, dtype=DTYPE)
    start = torch.randn(4, 2, 2, dtype=DTYPE)
    path = integrate(
        lambda k, t, z: law.drift(t, z),
        lambda k, t, z: law.diffusion(t, z),
        start,
        grid,
        dw,
        method=method,
        sde_type=kind,
    )
    steps = grid.num_steps
    assert path.states.shape == (4, 2, steps + 1, 2) and path.drift.shape == path.diffusion.shape == (4, 2, steps, 2)
    torch.testing.assert_close(
        path.states[..., list(grid.index), :], sdeint(law, start, ts, dt=0.1, method=method, noise=dw)
    )
    times = grid.times[..., :-1]
    torch.testing.assert_close(path.drift, law.drift(times, path.points))
    torch.testing.assert_close(path.diffusion, law.diffusion(times, path.points))
    if method != "reversible_heun":
        assert torch.equal(path.points, path.states[..., :-1, :])
