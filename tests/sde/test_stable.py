"""Stable neural SDEs keep what their theory promises: bounds, a stationary law, contraction, positivity."""

import math

import pytest
import torch
from torch.nn.utils import parametrize

from neurodyn.sde.base import SDE
from neurodyn.sde.lipschitz import LipschitzField, bounded_linear
from neurodyn.sde.stable import DecreasingNoise, NeuralGSDE, NeuralLNSDE, NeuralLSDE
from neurodyn.sde.stable_released import ReleasedNeuralSDE
from neurodyn.solvers.solve import sdeint

DOUBLE = torch.float64
LAWS = {"lsde": NeuralLSDE, "lnsde": NeuralLNSDE, "gsde": NeuralGSDE}


def scrambled(law, scale=3.0):
    """Weights far from where they start: what is promised holds whatever is learned."""
    with torch.no_grad():
        for parameter in law.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return law.double()


def still(value):
    """A control that stands still."""
    return lambda t: torch.as_tensor(value, dtype=DOUBLE)


def slope_bound(function, size, points=200):
    """The largest spectral norm of a function's Jacobian over random points near and far."""
    z = torch.randn(points, size, dtype=DOUBLE) * torch.logspace(-2, 2, points, dtype=DOUBLE)[:, None]
    jacobians = torch.func.vmap(torch.func.jacrev(function))(z)
    return float(torch.linalg.matrix_norm(jacobians.detach(), 2).max())


def test_bounded_matrices_are_within_their_bound_and_small_ones_untouched():
    layer = bounded_linear(5, 7, 1.5)
    small = layer.parametrizations.weight.original.detach() / 100
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(small)
    torch.testing.assert_close(layer.weight, small)
    with torch.no_grad():
        layer.parametrizations.weight.original.mul_(1e4)
    assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) == pytest.approx(1.5, rel=1e-5)


def test_fields_keep_their_lipschitz_constant():
    field = scrambled(LipschitzField(4, 16, 3, bound=2.0), 10.0)
    assert slope_bound(lambda z: field(z, torch.ones(16, dtype=DOUBLE)), 4) <= 2.0 + 1e-9


def test_noise_falls_from_its_start_to_a_positive_floor():
    noise = DecreasingNoise(3, largest=0.7)
    with torch.no_grad():
        noise.raw_high.copy_(torch.tensor([-2.0, 0.0, 9.0]))
    levels = noise(torch.linspace(-1, 50, 200))
    assert bool((levels.diff(dim=0) <= 0).all()) and bool((levels > 0).all()) and levels.max().item() < 0.7
    torch.testing.assert_close(levels[0], noise.high)
    torch.testing.assert_close(levels[-1], noise.low)


@pytest.mark.parametrize("name", LAWS)
def test_drift_and_diffusion_are_lipschitz_whatever_is_learned(name):
    law = scrambled(LAWS[name](3, 2, 8, bound=2.0))
    t, x = torch.tensor(0.3, dtype=DOUBLE), torch.randn(2, dtype=DOUBLE)
    with parametrize.cached(), torch.no_grad():
        pull, level = law.prepare(t, x)
        drift = slope_bound(lambda u: law.velocity(u, pull), 3)
        spread = slope_bound(lambda u: law.spread(u, level) + 0 * u, 3)
    stiffness = {"lsde": law.margin, "lnsde": getattr(law, "stiffness", 0), "gsde": law.margin + 2.0}[name]
    assert drift <= float(stiffness.detach()) + 2.0 + 1e-9
    assert spread <= (float(level.max()) + 1e-9 if name == "lnsde" else 1e-9)


def test_langevin_drift_is_the_gradient_of_its_potential():
    law = scrambled(NeuralLSDE(3, 2, 8))
    z = torch.randn(50, 3, dtype=DOUBLE, requires_grad=True)
    x = torch.randn(50, 2, dtype=DOUBLE)
    (gradient,) = torch.autograd.grad(law.energy(z, x).sum(), z)
    pull, _ = law.prepare(torch.zeros(50, dtype=DOUBLE), x)
    torch.testing.assert_close(law.velocity(z, pull), -gradient)


def test_langevin_type_comes_to_rest_in_the_boltzmann_law():
    """Long-run moments stop moving, from whatever start, at those of exp(-2 U / sigma^2) by quadrature."""
    law = scrambled(NeuralLSDE(1, 1, 4, bound=2.0), 0.7).requires_grad_(False)
    law.noise.log_rate.fill_(2.0)
    control = still([0.8])
    starts = torch.tensor([-3.0, 3.0], dtype=DOUBLE).repeat_interleave(4000)[:, None]
    with parametrize.cached():
        path = sdeint(law.along(control), starts, [0.0, 8.0, 12.0], dt=0.01, generator=torch.Generator().manual_seed(0))
        grid = torch.linspace(-8, 8, 4001, dtype=DOUBLE)[:, None]
        energy = law.energy(grid, torch.tensor([0.8], dtype=DOUBLE))
    weight = torch.softmax(-2 * energy / law.noise.low.square(), 0)[:, None]
    mean = float((weight * grid).sum())
    variance = float((weight * (grid - mean) ** 2).sum())
    for late in (path[:, 1], path[:, 2]):
        for half in (late[:4000], late[4000:]):
            assert float(half.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / 4000) + 0.01)
            assert float(half.var()) == pytest.approx(variance, rel=0.12)


def pairs(law, control, start, times, dt=0.002, paths=2000, inner=None):
    """Two solutions from two starts under the same noise, (2, paths, T, d)."""
    begin = torch.tensor(start, dtype=DOUBLE)[:, None].expand(2, paths, -1)
    noise = torch.randn(
        round(times[-1] / dt), paths, law.state_size, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)
    )
    both = (noise * math.sqrt(dt))[:, None].expand(-1, 2, -1, -1)
    sde: SDE = law.along(control)
    with parametrize.cached(), torch.no_grad():
        return sdeint(sde, begin, times, dt=dt, noise=both)


def test_linear_noise_solutions_come_together_in_mean_square():
    law = scrambled(NeuralLNSDE(2, 1, 8, bound=1.0, largest_noise=1.0, margin=1.0), 1.0)
    times = [0.0, 0.25, 0.5, 1.0, 2.0]
    path = pairs(law, still([0.5]), [[-1.0, 2.0], [1.5, -0.5]], times)
    apart = (path[0] - path[1]).square().sum(-1).mean(0)
    bound = apart[0] * torch.exp(-2 * law.margin.detach() * torch.tensor(times, dtype=DOUBLE))
    assert bool((apart <= 1.05 * bound).all()), (apart, bound)


def test_geometric_solutions_come_together_path_by_path_and_stay_positive():
    law = scrambled(NeuralGSDE(2, 1, 8, bound=1.0, largest_noise=2.0, margin=1.0), 2.0)
    times = [0.0, 0.25, 0.5, 1.0, 2.0]
    logs = pairs(law, still([-0.5]), [[-3.0, 2.0], [1.5, -4.0]], times)
    apart = (logs[0] - logs[1]).square().sum(-1).sqrt()
    bound = apart[:, :1] * torch.exp(-law.margin.detach() * torch.tensor(times, dtype=DOUBLE))
    assert bool((apart <= 1.01 * bound).all())
    states = law.outer(logs)
    assert bool((states > 0).all()) and bool(states.isfinite().all())
    torch.testing.assert_close(law.inner(states), logs)


def test_geometric_law_of_the_state_is_that_of_its_logarithm():
    law = scrambled(NeuralGSDE(2, 1, 8, largest_noise=0.5), 0.3).requires_grad_(False)
    control, dt = still([0.4]), 0.001
    noise = torch.randn(1000, 200, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) * math.sqrt(dt)
    z0 = torch.tensor([0.5, 2.0], dtype=DOUBLE).expand(200, 2)
    with parametrize.cached():
        state = sdeint(law.of_state(control), z0, [0.0, 1.0], dt=dt, noise=noise, method="milstein")[:, -1]
        log = sdeint(law.along(control), z0.log(), [0.0, 1.0], dt=dt, noise=noise)[:, -1]
        nothing = sdeint(law.of_state(control), 0 * z0, [0.0, 1.0], dt=dt, noise=noise)[:, -1]
    torch.testing.assert_close(state, log.exp(), rtol=0.01, atol=0.0)
    assert not nothing.any()  # zero is absorbing


@pytest.mark.parametrize("name", LAWS)
def test_a_shifted_control_moves_solutions_in_proportion(name):
    law = scrambled(LAWS[name](2, 1, 8, bound=1.0), 1.0)
    base = pairs(law, still([0.3]), [[0.5, -0.5]] * 2, [0.0, 1.0, 2.0], dt=0.01)[0]
    gaps = []
    for shift in (1e-3, 1e-2, 1e-1):
        moved = pairs(law, still([0.3 + shift]), [[0.5, -0.5]] * 2, [0.0, 1.0, 2.0], dt=0.01)[0]
        gaps.append(float((moved - base).norm(dim=-1).amax()) / shift)
    reading = float(torch.linalg.matrix_norm(law.reader.weight[:, :1].detach(), 2))
    # Gronwall: |dz| <= shift L_x / contraction for the two that contract; e^{L t} for a potential with several minima
    limit = {"lsde": 4 * 2 * math.exp(2 * (float(law.margin.detach()) + 1.0)), "lnsde": 2 / 0.1, "gsde": 2 / 0.1}[name]
    assert max(gaps) <= reading * limit and min(gaps) > 0


def test_released_laws_are_their_formulas():
    """By the equations, written out for one state."""
    torch.manual_seed(1)
    t, x, y = torch.tensor(0.7), torch.randn(2), torch.randn(5)
    season = torch.stack((t.sin(), t.cos()))
    for kind in ("langevin", "linear_noise", "geometric", "plain", "controlled"):
        law = ReleasedNeuralSDE(kind, 5, 2, hidden_layers=2)
        pull, level = law.prepare(t, x)
        hidden = law.read_state(y)
        if kind != "langevin":
            hidden = hidden + season @ law.read_time.weight.mT
        if kind != "plain":
            hidden = law.merge(torch.cat((hidden, law.read_control(x))))
        hidden = law.layers[1](torch.relu(law.layers[0](torch.relu(hidden))))
        hidden = hidden * torch.tanh(y) if kind == "geometric" else hidden
        torch.testing.assert_close(law.velocity(y, pull), torch.tanh(hidden), msg=kind)
        inputs = law.noise_in(season) + (0 if law.noise_state is None else law.noise_state(y))
        noise = torch.relu(law.noise_out(torch.relu(inputs)))
        noise = noise * y if kind in ("linear_noise", "geometric") else noise
        torch.testing.assert_close(law.spread(y, level), torch.tanh(torch.sigmoid(law.theta) * noise), msg=kind)


def test_the_plain_law_does_not_see_the_path():
    law = ReleasedNeuralSDE("plain", 4, 3)
    t = torch.zeros(2)
    first, second = (law.prepare(t, x) for x in (torch.zeros(2, 3), torch.ones(2, 3)))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("make", [*LAWS.values(), lambda d, c: ReleasedNeuralSDE("geometric", d, c)])
def test_laws_take_any_leading_shape_and_times_per_row(make):
    law = make(3, 2)
    t, x = torch.rand(4), torch.randn(4, 2)
    sde = law.along(lambda time: x)
    z = torch.randn(5, 4, 3)
    drift, diffusion = sde.drift(t, z), sde.diffusion(t, z)
    assert drift.shape == diffusion.shape == z.shape
    for row in range(4):
        alone = law.along(lambda time, row=row: x[row])
        torch.testing.assert_close(alone.drift(float(t[row]), z[2, row]), drift[2, row])
        torch.testing.assert_close(alone.diffusion(float(t[row]), z[2, row]), diffusion[2, row])


def test_bad_input_is_named():
    for make, message in [
        (lambda: NeuralLSDE(0, 1), "state_size: got 0"),
        (lambda: NeuralLSDE(2, 1, bound=0.0), "bound: got 0.0"),
        (lambda: NeuralLNSDE(2, 1, margin=-1.0), "margin: got -1.0"),
        (lambda: NeuralGSDE(2, 1, hidden_layers=0), "hidden_layers, bound: got 0"),
        (lambda: DecreasingNoise(2, 0.0), "largest: got 0.0"),
        (lambda: ReleasedNeuralSDE("naive", 2, 1), "kind: got 'naive'"),
        (lambda: ReleasedNeuralSDE("plain", 2, 1, 0), "hidden_layers: got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
