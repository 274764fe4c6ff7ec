"""The fused engine on a CPU, by its compiled kernel, against the eager one."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodyn.nets.context import Context
from neurodyn.noise import RowNoise
from neurodyn.posteriors.simulated import SimulatedPosterior
from neurodyn.sde.contextual import ContextDrift, ContextSDE
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.neural import MLPSDE
from neurodyn.sde.prior import Prior
from neurodyn.series import SeriesBatch
from neurodyn.solvers import fused_cpu, sdeint
from neurodyn.solvers.fused import integrate_fused
from neurodyn.solvers.fused_laws import fused_law
from neurodyn.solvers.grid import step_grid

SHARED = torch.tensor([0.0, 0.3, 0.4, 1.0], dtype=torch.float64)
# in fours: one row ends early, one rests in a gap, one never moves
RAGGED = torch.tensor(
    [[0.0, 0.3, 0.4, 1.0], [0.1, 0.5, 0.5, 0.6], [0.0, 0.7, 0.7, 0.7], [0.2] * 4], dtype=torch.float64
)


def problem(size, hidden, rows, shared, dtype=torch.float64, activation="softplus", lead=(), scale=1.0):
    """A `ContextSDE`, its start, times, and all that gets gradients. scale: of the first layers' weights."""
    torch.manual_seed(1)
    prior = MLPSDE(size, hidden, diffusion_bounds=(0.1, 1.0)).to(dtype)
    network = ContextDrift(size, 5, hidden + 1, activation).to(dtype)
    with torch.no_grad():
        network.state_layer.weight.mul_(scale)
        prior.net.weight_in.mul_(scale)
    times = SHARED if shared else RAGGED.repeat(-(-rows // 4), 1)[:rows]
    contexts = torch.randn(rows, 3, 5, dtype=torch.float64).to(dtype).requires_grad_()
    z0 = torch.randn(*lead, rows, size, dtype=torch.float64).to(dtype).requires_grad_()
    return ContextSDE(prior, network, times, contexts), z0, times, [z0, contexts, *law_leaves(prior, network)]


def law_leaves(*modules):
    return [parameter for module in modules for parameter in module.parameters()]


def weighted(states, paid):
    torch.manual_seed(2)
    return (states * torch.randn(states.shape).to(states)).sum() + (paid * torch.rand(paid.shape).to(paid)).sum()


def answer(law, z0, times, leaves, engine, dt=0.07):
    """States, prices and gradients with noise from one seed: the engines draw the same."""
    generator = torch.Generator().manual_seed(3)
    states, paid = sdeint(law, z0, times, dt=dt, generator=generator, logqp=True, engine=engine)
    return [states, paid, *torch.autograd.grad(weighted(states, paid), leaves, retain_graph=True)]


@settings(max_examples=8, deadline=None)
@given(
    sizes=st.sampled_from([(1, 5), (3, 4), (4, 9)]),  # each is compiled
    rows=st.integers(1, 70),
    shared=st.booleans(),
    activation=st.sampled_from(["softplus", "silu"]),
    lead=st.sampled_from([(), (2,), (2, 3)]),
)
def test_states_prices_and_gradients_are_the_eager_ones_on_random_shapes(sizes, rows, shared, activation, lead):
    found = problem(*sizes, rows, shared, activation=activation, lead=lead)
    for eager, fused in zip(*(answer(*found, engine) for engine in ("native", "fused")), strict=True):
        torch.testing.assert_close(fused, eager, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_single_precision_stays_as_near_to_double_as_eager_does(scale):
    """With large weights too, where hidden units are far out in both tails of softplus."""
    errors = {}
    for engine in ("native", "fused"):
        exact, rough = (
            by_given_noise(problem(4, 16, 40, False, dtype, scale=scale), engine)
            for dtype in (torch.float64, torch.float32)
        )
        errors[engine] = [
            float((b.double() - a).detach().norm() / a.detach().norm().clamp_min(1e-300))
            for a, b in zip(exact, rough, strict=True)
        ]
    for eager, fused in zip(errors["native"], errors["fused"], strict=True):
        assert fused < 3 * eager + 1e-6


def by_given_noise(found, engine):
    law, z0, times, leaves = found
    source = torch.Generator().manual_seed(0)
    noise = 0.3 * torch.randn(step_grid(times, 0.2).num_steps, *z0.shape, dtype=torch.float64, generator=source)
    states, paid = sdeint(law, z0, times, dt=0.2, noise=noise.to(z0), logqp=True, engine=engine)
    weight = torch.linspace(-1, 1, states.numel(), dtype=torch.float64).reshape(states.shape).to(z0)
    return [states, paid, *torch.autograd.grad((states * weight).sum() + paid.sum(), leaves)]


def test_a_law_on_its_own_has_the_eager_gradients_and_costs_nothing():
    torch.manual_seed(3)
    law = MLPSDE(2, 7, diffusion_bounds=(0.0, 1.0)).double()
    z0 = torch.randn(3, 2, dtype=torch.float64)
    found = []
    for engine in ("native", "fused"):
        states = sdeint(law, z0, SHARED, dt=0.1, seeds=[1, 2, 3], engine=engine)
        found.append([states, *torch.autograd.grad(states.square().sum(), list(law.parameters()))])
    torch.testing.assert_close(found[1], found[0], rtol=1e-11, atol=1e-12)
    assert not sdeint(law, z0, SHARED, dt=0.1, logqp=True, engine="fused").cost.any()


@pytest.mark.parametrize("coupling", ["full", "diagonal"])
def test_the_simulated_posterior_is_the_same_by_both_engines(coupling):
    torch.manual_seed(0)
    size, ids = 3, tuple("abcd")
    prior = Prior(MLPSDE(size, 6, diffusion_bounds=(0.1, 1.0)), GaussianInitial(size)).double()
    posterior = SimulatedPosterior(size, size, 4, longest_step=0.1, coupling=coupling, hidden_size=5, engine="fused")
    posterior.double()
    with torch.no_grad():
        for parameter in posterior.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    features = torch.randn(4, 4, 4, dtype=torch.float64, requires_grad=True)
    times = torch.tensor([[0.0, 0.3, 0.4, 1.0], [0.1, 0.5, 0.55, 0.6], [0.0, 0.7, 0.8, 0.85], [0.2, 0.3, 0.4, 0.41]])
    context = Context(SeriesBatch(times, torch.randn(4, 4, 2), ids=ids), features, features[:, -1])
    leaves = [features, *law_leaves(prior.sde, posterior)]
    found = []
    # with gradient "checkpoint" the eager engine steps on the grid that rows share, as the fused one does
    for posterior.engine, posterior.gradient in (("native", "checkpoint"), ("fused", "backprop")):
        paths = posterior(context, prior, RowNoise(0, ids), num_samples=2)
        loss = weighted(paths.z, paths.path_kl) + paths.initial_kl.sum()
        grads = torch.autograd.grad(loss, leaves, allow_unused=True)
        found.append([paths.z, paths.path_kl, *(torch.zeros(()) if grad is None else grad for grad in grads)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-11, check_dtype=False)


def test_gradients_do_not_depend_on_the_number_of_threads():
    found, threads = [], torch.get_num_threads()
    try:
        for count in (2, 3):
            torch.set_num_threads(count)
            found.append(answer(*problem(2, 4, 90, True, torch.float32), "fused"))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_path_that_is_no_number_stays_none():
    law, z0, times, _ = problem(2, 4, 20, True, torch.float32)
    with torch.no_grad():
        z0[3, 1] = torch.nan
    states = sdeint(law, z0, times, dt=0.1, engine="fused")
    assert states[3, -1].isnan().all() and states[[2, 4]].isfinite().all()


def test_without_a_compiler_the_native_engine_takes_over_with_one_warning(monkeypatch):
    def missing():
        raise fused_cpu.NoKernel("no C++ compiler is found (c++)")

    monkeypatch.setattr(fused_cpu, "_compiler", missing)
    fused_cpu._load.cache_clear()
    fused_cpu.warn_of_fallback.cache_clear()
    found = problem(2, 3, 4, True)
    with pytest.warns(UserWarning, match="^engine: got 'fused', but no C.. compiler is found .*; using 'native'$"):
        first = answer(*found, "fused")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = answer(*found, "fused")
    for one, two, native in zip(first, second, answer(*found, "native"), strict=True):
        assert torch.equal(one, two) and torch.equal(one, native)


def test_a_compiler_that_fails_is_named(monkeypatch):
    monkeypatch.setattr(fused_cpu, "_compiler", lambda: ("false", "this processor"))
    fused_cpu._load.cache_clear()
    law, z0, times, _ = problem(2, 3, 4, True)
    grid = step_grid(times, 0.1)
    with pytest.raises(fused_cpu.NoKernel, match="^false fails: no reason given$"):
        integrate_fused(fused_law(law), z0, grid, torch.zeros(grid.num_steps, *z0.shape, dtype=z0.dtype))
