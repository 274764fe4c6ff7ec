"""Gradients: against finite differences, and of every way of getting them against plain backprop."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodyn.sde.neural import MLPSDE
from neurodyn.solvers.brownian import brownian_increments
from neurodyn.solvers.grid import step_grid
from neurodyn.solvers.native import integrate, integrate_visits
from neurodyn.solvers.solve import sdeint

DTYPE = torch.float64
NOISES = ["diagonal", "scalar", "additive", "general"]
METHODS = [("euler", "ito"), ("milstein", "ito"), ("heun", "stratonovich"), ("reversible_heun", "stratonovich")]
PAIRS = [(m, k, n) for m, k in METHODS for n in NOISES if (m, n) != ("milstein", "general")]


class WithPrior(MLPSDE):
    """A law whose prior has another drift, so that its paths have a price."""

    def h(self, t, y):
        return -y


def build(noise, kind, size=2, dtype=DTYPE):
    torch.manual_seed(0)
    free = noise in ("additive", "general")
    law = WithPrior(size, 5, noise_type=noise, sde_type=kind, time_dependent=True, noise_size=size if free else None)
    if free:
        with torch.no_grad():
            law.base.add_(torch.eye(size))  # else singular near t = 1, where the price is infinite
    return law.to(dtype)


def solve(law, start, ts, noise, method, gradient, dt=0.1):
    states, price = sdeint(law, start, ts, dt=dt, method=method, noise=noise, gradient=gradient, logqp=True)
    weight = torch.linspace(0.5, 1.5, states.numel(), dtype=states.dtype).reshape(states.shape)
    loss = (states.sin() * weight).sum() + (price * price.detach().cos()).sum()
    return states, price, torch.autograd.grad(loss, [start, *law.parameters()])


@pytest.mark.parametrize(("method", "kind", "noise"), PAIRS)
def test_gradients_equal_finite_differences(method, kind, noise):
    law = build(noise, kind)
    ts = torch.tensor([[0.0, 0.2, 0.3], [0.1, 0.2, 0.2]], dtype=DTYPE)
    dw = brownian_increments(step_grid(ts, 0.1), (2,), law.noise_size, dtype=DTYPE)
    start = torch.randn(2, 2, dtype=DTYPE, requires_grad=True)
    names = [name for name, _ in law.named_parameters()]

    def outputs(start, dw, *values):
        with torch.nn.utils.stateless._reparametrize_module(law, dict(zip(names, values, strict=True))):
            return sdeint(law, start, ts, dt=0.1, method=method, noise=dw, logqp=True)

    values = tuple(value.detach().clone().requires_grad_() for value in law.parameters())
    assert torch.autograd.gradcheck(outputs, (start, dw.requires_grad_(), *values), fast_mode=True)


@pytest.mark.parametrize(("method", "kind", "noise"), PAIRS)
@pytest.mark.parametrize("shared", [True, False])
def test_checkpointed_gradients_are_those_of_backprop(method, kind, noise, shared):
    law = build(noise, kind)
    ts = torch.tensor([0.0, 0.35, 1.0], dtype=DTYPE)
    ts = ts if shared else torch.stack((ts, 0.5 * ts, 0.0 * ts))
    dw = brownian_increments(step_grid(ts, 0.1), (3,), law.noise_size, dtype=DTYPE)
    start = torch.randn(3, 2, dtype=DTYPE, requires_grad=True)
    plain, checked = (solve(law, start, ts, dw, method, way) for way in ("backprop", "checkpoint"))
    assert torch.equal(plain[0], checked[0])
    torch.testing.assert_close(checked[1:], plain[1:], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("shared", [True, False])
def test_reversible_gradients_are_those_of_backprop_through_its_steps(noise, shared):
    law = build(noise, "stratonovich")
    ts = torch.tensor([0.0, 0.35, 1.0, 1.5], dtype=DTYPE)
    ts = ts if shared else torch.stack((ts, 0.5 * ts, 0.0 * ts))
    dw = brownian_increments(step_grid(ts, 0.01), (4, 3), law.noise_size, dtype=DTYPE)
    start = torch.randn(4, 3, 2, dtype=DTYPE, requires_grad=True)
    plain, reversed_ = (
        solve(law, start, ts, dw, "reversible_heun", way, dt=0.01) for way in ("backprop", "reversible")
    )
    assert torch.equal(plain[0], reversed_[0])
    torch.testing.assert_close(reversed_[1:], plain[1:], rtol=1e-9, atol=1e-10)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.sampled_from(NOISES), st.integers(1, 9))
def test_fast_gradients_on_random_shapes(samples, rows, size, noise, steps):
    law = build(noise, "stratonovich", size)
    ts = torch.tensor([0.0, 1.0], dtype=DTYPE)
    dw = brownian_increments(step_grid(ts, 1 / steps), (samples, rows), law.noise_size, dtype=DTYPE)
    start = torch.randn(samples, rows, size, dtype=DTYPE, requires_grad=True)
    ways = ("backprop", "checkpoint", "reversible")
    plain, *fast = (solve(law, start, ts, dw, "reversible_heun", way, dt=1 / steps)[1:] for way in ways)
    for other in fast:
        torch.testing.assert_close(other, plain, rtol=1e-9, atol=1e-10)


def test_all_ways_draw_the_same_path_from_the_same_seed():
    law = build("diagonal", "stratonovich")
    start = torch.zeros(3, 2, dtype=DTYPE, requires_grad=True)
    results = []
    for way in ("backprop", "checkpoint", "reversible"):
        generator = torch.Generator().manual_seed(5)
        options = {"dt": 0.005, "method": "reversible_heun", "gradient": way, "generator": generator}
        states = sdeint(law, start, [0.0, 0.7, 1.0], **options)
        results.append((states, torch.autograd.grad(states.square().sum(), [start, *law.net.parameters()])))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("gradient", ["backprop", "checkpoint", "reversible"])
def test_float32_gradients_stay_near_float64(gradient):
    dw = brownian_increments(step_grid([0.0, 1.0], 0.02), (3,), 2, dtype=DTYPE)
    found = []
    for dtype in (DTYPE, torch.float32):
        law = build("diagonal", "stratonovich", dtype=dtype)
        start = torch.linspace(-1, 1, 6, dtype=dtype).reshape(3, 2).requires_grad_()
        grads = solve(law, start, [0.0, 0.5, 1.0], dw.to(dtype), "reversible_heun", gradient, dt=0.02)[2]
        assert all(grad.dtype == dtype for grad in grads)
        found.append(grads)
    for exact, rough in zip(*found, strict=True):
        torch.testing.assert_close(rough.double(), exact, rtol=1e-3, atol=1e-4)


def closure_problem():
    """Drift with one context per gap, made by a network: gradients must reach the network through the context."""
    torch.manual_seed(1)
    encoder, base = torch.nn.Linear(2, 2).double(), build("diagonal", "stratonovich")
    contexts = encoder(torch.randn(2, 3, 2, dtype=DTYPE)).unbind(0)
    grid = step_grid([0.0, 0.4, 1.0], 0.1)
    gap_of = grid.intervals

    def drift(k, t, z):
        return base.drift(t, z) + contexts[gap_of[k]]

    def diffusion(k, t, z):
        return base.diffusion(t, z)

    dw = brownian_increments(grid, (3,), 2, generator=torch.Generator().manual_seed(2), dtype=DTYPE)
    used = [*base.residual.parameters(), *base.net.parameters()]
    return encoder, contexts, drift, diffusion, torch.zeros(3, 2, dtype=DTYPE), grid, dw, used


@pytest.mark.parametrize("gradient", ["backprop", "checkpoint", "reversible"])
def test_contexts_per_gap_get_their_gradients(gradient):
    encoder, contexts, drift, diffusion, start, grid, dw, used = closure_problem()
    kinds = {"method": "reversible_heun", "sde_type": "stratonovich"}
    path = integrate(drift, diffusion, start, grid, dw, **kinds)
    wanted = torch.autograd.grad(path.states[:, list(grid.index)].square().sum(), [*encoder.parameters(), *used])
    encoder, contexts, drift, diffusion, start, grid, dw, used = closure_problem()
    params = [*contexts, *used]
    visits = integrate_visits(drift, diffusion, start, grid, dw, gradient=gradient, params=params, **kinds)
    found = torch.autograd.grad(visits.states.square().sum(), [*encoder.parameters(), *used])
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("gradient", ["checkpoint", "reversible"])
def test_params_behind_a_context_get_their_gradients_once(gradient):
    kinds = {"method": "reversible_heun", "sde_type": "stratonovich"}
    found = []
    for way in ("backprop", gradient):
        encoder, contexts, drift, diffusion, start, grid, dw, used = closure_problem()
        params = [*contexts, *used, *encoder.parameters()]
        visits = integrate_visits(drift, diffusion, start, grid, dw, gradient=way, params=params, **kinds)
        found.append(torch.autograd.grad(visits.states.square().sum(), [*encoder.parameters(), *used]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-12)

    shared = torch.nn.Parameter(torch.ones(2, dtype=DTYPE))
    twice = 2 * shared
    with pytest.raises(ValueError, match="^params: one of shape .2,. is used both by itself"):
        integrate_visits(
            lambda k, t, z: z * shared + twice,
            diffusion,
            start,
            grid,
            dw,
            params=[shared, twice, *used],
            gradient=gradient,
            **kinds,
        )
    thrice = twice + shared
    with pytest.raises(ValueError, match="^params: one of them is computed from another"):
        integrate_visits(
            lambda k, t, z: z * thrice + twice,
            diffusion,
            start,
            grid,
            dw,
            params=[thrice, twice, *used],
            gradient=gradient,
            **kinds,
        )


@pytest.mark.parametrize("gradient", ["checkpoint", "reversible"])
def test_no_tensor_is_left_without_its_gradient(gradient):
    _, contexts, drift, diffusion, start, grid, dw, used = closure_problem()
    kinds = {"method": "reversible_heun", "sde_type": "stratonovich", "gradient": gradient}
    with pytest.raises(ValueError, match="^params: lacks a tensor of shape"):
        integrate_visits(drift, diffusion, start, grid, dw, params=used, **kinds)
    with pytest.raises(ValueError, match="^params: lacks a tensor of shape"):
        integrate_visits(drift, diffusion, start, grid, dw, params=[*contexts, *used[:-1]], **kinds)
    with pytest.raises(ValueError, match="^noise: requires gradients"):
        integrate_visits(drift, diffusion, start, grid, dw.requires_grad_(), params=[*contexts, *used], **kinds)


def saved_bytes(gradient, steps):
    """What autograd holds on to between forward and backward."""
    law = build("diagonal", "stratonovich")
    start = torch.zeros(8, 2, dtype=DTYPE, requires_grad=True)
    held = {}

    def pack(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    generator = torch.Generator().manual_seed(0)
    options = {"method": "reversible_heun", "gradient": gradient, "generator": generator}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        sdeint(law, start, [0.0, 1.0], dt=1 / steps, **options)
    return sum(held.values())


def test_memory_between_forward_and_backward():
    assert saved_bytes("reversible", 400) == saved_bytes("reversible", 25)
    assert saved_bytes("backprop", 400) > 12 * saved_bytes("backprop", 25)
    assert saved_bytes("backprop", 400) > 20 * saved_bytes("checkpoint", 400)
