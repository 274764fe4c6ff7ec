"""Checks of the fused engine against the eager one, in a file of their own: `test_fused.py` runs it in a process where
Triton interprets its kernels on the CPU, and where there is a GPU they run on it.
"""

import os

import numpy as np
import pytest
import torch

from benchmarks.rivals.gpu_steps import EagerStep, FusedStep
from benchmarks.rivals.problem import GAPS, Sizes, make_problem
from neurodyn.nets.context import Context
from neurodyn.noise import RowNoise
from neurodyn.posteriors import simulated
from neurodyn.posteriors.simulated import SimulatedPosterior
from neurodyn.sde.contextual import ContextDrift, ContextSDE
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.neural import MLPSDE
from neurodyn.sde.prior import Prior
from neurodyn.series import SeriesBatch
from neurodyn.solvers import Grid, brownian_increments, sdeint, step_grid
from neurodyn.solvers.fused import integrate_fused
from neurodyn.solvers.fused_laws import draw_keys, fused_law

pytest.importorskip("triton", reason="the fused engine needs triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)

SHARED = torch.tensor([0.0, 0.3, 0.4, 1.0], dtype=torch.float64)
# the last row ends early, the second rests in the second gap
RAGGED = torch.tensor([[0.0, 0.3, 0.4, 1.0], [0.1, 0.5, 0.5, 0.6], [0.0, 0.7, 0.7, 0.7]], dtype=torch.float64)
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-4}


def close(one, other, dtype):
    scale = other.abs().max().clamp_min(1.0)
    assert ((one - other).abs().max() / scale).item() < TOLERANCE[dtype]


def context_problem(size, hidden, times, rows, dtype, activation="softplus", lead=()):
    torch.manual_seed(1)
    prior = MLPSDE(size, hidden, diffusion_bounds=(0.1, 1.0)).to(DEVICE, dtype)
    network = ContextDrift(size, 5, hidden + 3, activation).to(DEVICE, dtype)
    times = times.to(DEVICE)
    contexts = torch.randn(rows, times.shape[-1] - 1, 5, dtype=dtype, device=DEVICE, requires_grad=True)
    z0 = torch.randn(*lead, rows, size, dtype=dtype, device=DEVICE, requires_grad=True)
    leaves = [z0, contexts, *prior.parameters(), *network.parameters()]
    return ContextSDE(prior, network, times, contexts), z0, times, leaves


def weighted(states, paid):
    torch.manual_seed(2)
    on = {"dtype": states.dtype}
    return (states * torch.randn(states.shape, **on).to(DEVICE)).sum() + (
        paid * torch.rand(paid.shape, **on).to(DEVICE)
    ).sum()


# interpreted kernels compute float32 by the same numpy functions, and take seconds
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32] if DEVICE == "cuda" else [torch.float64])
@pytest.mark.parametrize(
    ("size", "hidden", "times", "lead", "activation"),
    [
        (3, 6, SHARED, (), "softplus"),
        (4, 8, RAGGED, (), "silu"),
        (1, 5, RAGGED, (2,), "softplus"),
        (16, 16, SHARED, (), "softplus"),
    ],
)
def test_states_prices_and_gradients_are_the_eager_ones(size, hidden, times, lead, activation, dtype):
    law, z0, times, leaves = context_problem(size, hidden, times, 3, dtype, activation, lead)
    grid = step_grid(times, 0.3)
    noise = brownian_increments(grid, z0.shape[:-1], size, dtype=dtype, device=DEVICE)
    answers = []
    for engine in ("native", "fused"):
        states, paid = sdeint(law, z0, times, dt=0.3, noise=noise, logqp=True, engine=engine)
        answers.append([states, paid, *torch.autograd.grad(weighted(states, paid), leaves, retain_graph=True)])
    for eager, fused in zip(*answers, strict=True):
        assert fused.shape == eager.shape and fused.dtype == eager.dtype
        close(fused, eager, dtype)


def test_a_law_on_its_own_costs_nothing_and_has_the_eager_gradients():
    torch.manual_seed(3)
    law = MLPSDE(2, 7, diffusion_bounds=(0.0, 1.0)).to(DEVICE, torch.float64)
    z0 = torch.randn(3, 2, dtype=torch.float64, device=DEVICE)
    times = SHARED.to(DEVICE)
    noise = brownian_increments(step_grid(times, 0.1), (3,), 2, dtype=torch.float64, device=DEVICE)
    found = []
    for engine in ("native", "fused"):
        states = sdeint(law, z0, times, dt=0.1, noise=noise, engine=engine)
        found.append([states, *torch.autograd.grad(states.square().sum(), list(law.parameters()))])
    for eager, fused in zip(*found, strict=True):
        close(fused, eager, torch.float64)
    assert not sdeint(law, z0, times, dt=0.1, logqp=True, engine="fused").cost.any()


def test_noise_of_the_kernel_is_standard_normal_and_drawn_again_by_the_backward_pass():
    law, z0, times, leaves = context_problem(16, 4, SHARED, 256 if DEVICE == "cuda" else 8, torch.float64)
    with torch.no_grad():
        for parameter in law.prior.net.parameters():
            parameter.zero_()  # g = 0.55 everywhere
        for parameter in law.network.output_layer.parameters():
            parameter.zero_()  # f = 0
    seeds = list(range(z0.shape[0]))
    states = sdeint(law, z0, times, dt=0.35, seeds=seeds, engine="fused")
    gaps = times.diff().sqrt()[None, :, None]
    normal = (states.diff(dim=1) / (0.55 * gaps)).flatten().double()
    count = len(normal)
    assert abs(normal.mean()) < 4 / count**0.5
    assert abs(normal.square().mean() - 1) < 4 * (2 / count) ** 0.5
    # No two rows, steps or coordinates share a stream. Single draws of 24 bits may meet: about count^2 / 2^25 pairs do.
    assert count - normal.unique().numel() < 10 + count**2 / 2**24
    by_gap = normal.reshape(-1, 3, 16)
    assert abs((by_gap[:, 0] * by_gap[:, 1]).mean()) < 4 / (count / 3) ** 0.5
    # g moves with its bias by 0.9 / 4, so the gradient is the path itself in other units: the same noise again
    bias = law.prior.net.bias_out
    (grad,) = torch.autograd.grad(states[:, -1].sum(), bias)
    slope = 0.9 * 0.25
    close(grad, ((states[:, -1] - states[:, 0]) / 0.55 * slope).sum(0), torch.float64)


def test_drawn_noise_gives_the_gradients_of_the_same_noise_given():
    """Increments are read off additive paths with the same keys; then both ways of the kernel agree."""
    law, z0, times, leaves = context_problem(3, 6, RAGGED, 3, torch.float64, lead=(2,))
    grid = step_grid(times, 0.3)
    seeds = [7, 8, 9]
    flat = MLPSDE(3, 6, diffusion_bounds=(0.0, 2.0)).to(DEVICE, torch.float64)
    with torch.no_grad():
        for parameter in flat.parameters():
            parameter.zero_()  # dz = dW
    every = Grid(grid.times, grid.steps, tuple(range(grid.num_steps + 1)), grid.idle)
    walk = integrate_fused(fused_law(flat), torch.zeros_like(z0), every, draw_keys(z0, None, seeds)).states
    noise = walk.diff(dim=-2).movedim(-2, 0)
    found = []
    for options in ({"noise": noise}, {"seeds": seeds}):
        states, paid = sdeint(law, z0, times, dt=0.3, logqp=True, engine="fused", **options)
        found.append([states, paid, *torch.autograd.grad(weighted(states, paid), leaves, retain_graph=True)])
    for given, drawn in zip(*found, strict=True):
        close(drawn, given, torch.float64)


def test_a_row_with_a_seed_does_not_depend_on_its_company():
    law, z0, times, _ = context_problem(2, 4, RAGGED, 3, torch.float32)
    whole = sdeint(law, z0, times, dt=0.3, seeds=[4, 5, 6], engine="fused")
    for row in range(3):
        alone = ContextSDE(law.prior, law.network, times[row : row + 1], torch.zeros(1, 3, 5, device=DEVICE))
        alone.shift = law.shift[row : row + 1]
        states = sdeint(alone, z0[row : row + 1], times[row : row + 1], dt=0.3, seeds=[4 + row], engine="fused")
        close(states[0], whole[row], torch.float32)
    drawn = [sdeint(law, z0, times, dt=0.3, engine="fused") for _ in range(2)]
    assert (drawn[0][:, -1] != drawn[1][:, -1]).any()


def test_samples_of_a_row_differ():
    law, z0, times, _ = context_problem(2, 4, SHARED, 3, torch.float32)
    states = sdeint(law, z0.expand(5, 3, 2), times, dt=0.3, seeds=[4, 5, 6], engine="fused")
    assert states.shape == (5, 3, 4, 2)
    assert states[:, :, -1].flatten().unique().numel() == 30


@pytest.mark.parametrize("coupling", ["full", "diagonal"])
def test_the_simulated_posterior_by_the_fused_engine(coupling, monkeypatch):
    torch.manual_seed(0)
    dtype, rows, size = torch.float64, 3, 3
    prior = Prior(MLPSDE(size, 6, diffusion_bounds=(0.1, 1.0)), GaussianInitial(size)).to(DEVICE, dtype)
    posterior = SimulatedPosterior(size, size, 4, longest_step=0.25, coupling=coupling, hidden_size=5, engine="fused")
    posterior.to(DEVICE, dtype)
    with torch.no_grad():
        for parameter in posterior.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    times = torch.tensor([[0.0, 0.3, 0.4, 1.0], [0.1, 0.5, 0.55, 0.6], [0.0, 0.7, 0.8, 0.85]], dtype=torch.float64)
    batch = SeriesBatch(times, torch.randn(rows, 4, 2), ids=("a", "b", "c")).to(DEVICE)
    features = torch.randn(rows, 4, 4, dtype=dtype, device=DEVICE, requires_grad=True)
    context = Context(batch, features, features[:, -1])
    leaves = [features, *prior.sde.parameters(), *posterior.parameters()]
    noise = RowNoise(0, ["a", "b", "c"], DEVICE)
    found = []
    # the same increments for both: what the kernel draws is another stream than the eager engine's
    grid = step_grid(batch.times, posterior.longest_step)
    increments = brownian_increments(grid, (2, rows), size, seeds=noise, dtype=dtype, device=DEVICE)
    monkeypatch.setattr(
        simulated, "integrate_fused", lambda law, z0, grid, _: integrate_fused(law, z0, grid, increments)
    )
    # the eager engine packs its grid; a row's own steps and their increments are the same ones
    for posterior.engine in ("native", "fused"):
        paths = posterior(context, prior, noise, num_samples=2)
        loss = weighted(paths.z, paths.path_kl) + paths.initial_kl.sum()
        found.append([paths.z, paths.path_kl, *torch.autograd.grad(loss, leaves, allow_unused=True)])
    for eager, fused in zip(*found, strict=True):
        if eager is None:
            assert fused is None
        else:
            close(fused, eager, dtype)


def test_the_benchmarks_step_has_the_loss_and_gradients_of_the_eager_one():
    problem = make_problem(Sizes(batch=2, steps=GAPS, latent=3), np.float64)
    increments = problem.increments(1)
    wanted = EagerStep(problem, "cpu").answer(increments)
    found = FusedStep(problem, DEVICE).answer(increments)
    assert found.loss == pytest.approx(wanted.loss, rel=1e-10)
    for name, value in wanted.gradients.items():
        assert np.abs(found.gradients[name] - value).max() < 1e-9 * max(1.0, np.abs(value).max()), name
