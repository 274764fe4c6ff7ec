"""Splitting integrators: exact stationary covariances in the step, weak order 2, rows of their own, gradients."""

import math

import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from neurodyn.noise import RowNoise
from neurodyn.sde.base import Time
from neurodyn.sde.langevin import StateFriction, UnderdampedLangevin
from neurodyn.sde.linear import linear_transition
from neurodyn.sde.neural import MLPSDE
from neurodyn.sde.potentials import DoubleWellPotential, MLPPotential, QuadraticPotential
from neurodyn.solvers.brownian import brownian_increments, coarsen
from neurodyn.solvers.grid import step_grid
from neurodyn.solvers.rollout import rollout
from neurodyn.solvers.solve import sdeint
from neurodyn.solvers.splitting import splitting_noise_size

DOUBLE = torch.float64
METHODS = ["baoab", "obabo"]


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=DOUBLE)


def span(time: float) -> Tensor:
    return torch.tensor([0.0, time], dtype=DOUBLE)


def harmonic(frequency: float = 1.0, friction: float = 1.0, temperature: float = 1.0, mass: float = 1.0):
    """One coordinate in a well of this frequency; float64 throughout, so that closed forms can be met to rounding."""
    potential = QuadraticPotential(1, number(mass * frequency**2))
    return UnderdampedLangevin(potential, mass=number(mass), friction=number(friction), temperature=number(temperature))


@torch.no_grad()
def step_map(law: UnderdampedLangevin, method: str, h: float) -> tuple[Tensor, Tensor]:
    """On a quadratic potential a step is z' = A z + N(0, C): A and C, read off the integrator itself."""
    size, noise_size = law.state_size, splitting_noise_size(law, method)
    states = torch.cat((torch.eye(size, dtype=DOUBLE), torch.zeros(noise_size, size, dtype=DOUBLE)))
    noise = torch.cat((torch.zeros(size, noise_size, dtype=DOUBLE), torch.eye(noise_size, dtype=DOUBLE)))
    out = sdeint(law, states, span(h), dt=h, method=method, noise=noise[None])[:, 1]
    matrix, columns = out[:size].mT, out[size:].mT
    return matrix, h * columns @ columns.mT  # increments have variance h


def stationary(law: UnderdampedLangevin, method: str, h: float) -> Tensor:
    matrix, noise = step_map(law, method, h)
    return torch.from_numpy(scipy.linalg.solve_discrete_lyapunov(matrix.numpy(), noise.numpy()))


@pytest.mark.parametrize("h", [0.1, 0.4, 0.8, 1.9])
@pytest.mark.parametrize(
    ("frequency", "friction", "temperature", "mass"),
    [(1.0, 1.0, 1.0, 1.0), (1.0, 0.05, 2.0, 1.0), (0.9, 30.0, 0.5, 3.0)],
)
def test_stationary_covariance_is_the_closed_form(h, frequency, friction, temperature, mass) -> None:
    law = harmonic(frequency, friction, temperature, mass)
    shrink = 1 - (h * frequency) ** 2 / 4
    of_q, of_v = temperature / (mass * frequency**2), temperature / mass
    wanted = {"baoab": (of_q, of_v * shrink), "obabo": (of_q / shrink, of_v)}
    for method in METHODS:
        found = stationary(law, method, h)
        torch.testing.assert_close(
            found, torch.diag(torch.tensor(wanted[method], dtype=DOUBLE)), atol=1e-10, rtol=1e-10
        )


@pytest.mark.parametrize("method", METHODS)
def test_coupled_oscillators_rest_in_the_same_closed_forms(method: str) -> None:
    # a full stiffness: h^2 w^2 is h^2 K, and the friction may differ between coordinates
    root = torch.randn(3, 3, dtype=DOUBLE)
    stiffness, eye, h, temperature = root @ root.mT + torch.eye(3, dtype=DOUBLE), torch.eye(3, dtype=DOUBLE), 0.3, 0.7
    law = UnderdampedLangevin(
        QuadraticPotential(3, stiffness), friction=torch.tensor([0.3, 1.0, 2.0], dtype=DOUBLE), temperature=number(0.7)
    )
    shrink = eye - h**2 / 4 * stiffness
    inverse = torch.linalg.inv(stiffness)
    wanted = (inverse, shrink) if method == "baoab" else (inverse @ torch.linalg.inv(shrink), eye)
    found = stationary(law, method, h)
    torch.testing.assert_close(found, temperature * torch.block_diag(*wanted), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_simulated_moments_are_the_closed_forms_to_monte_carlo_error(method: str) -> None:
    # the same through the whole engine: drawn noise, many steps, a mass and a temperature
    law, h, paths = harmonic(1.0, 1.0, 1.5, 2.0), 0.8, 60_000
    start = torch.zeros(paths, 2, dtype=DOUBLE)
    with torch.no_grad():
        end = sdeint(law, start, [0.0, 24.0], dt=h, method=method, generator=torch.Generator().manual_seed(0))[:, 1]
    shrink = 1 - h**2 / 4
    wanted = torch.tensor([0.75, 0.75 * shrink] if method == "baoab" else [0.75 / shrink, 0.75], dtype=DOUBLE)
    error = (end.var(0) / wanted - 1).abs()
    assert (error < 4 * math.sqrt(2 / paths)).all(), error
    assert (end.mean(0).abs() < 4 * (wanted / paths).sqrt()).all()


@pytest.mark.parametrize("method", METHODS)
def test_weak_order_two_in_mean_and_covariance_without_sampling(method: str) -> None:
    law, start, time = harmonic(1.3, 0.6, 0.8), torch.tensor([0.7, -0.4], dtype=DOUBLE), 2.0
    matrix = torch.tensor([[0.0, 1.0], [-(1.3**2), -0.6]], dtype=DOUBLE)
    noise = torch.diag(torch.tensor([0.0, 2 * 0.6 * 0.8], dtype=DOUBLE))
    exact = linear_transition(matrix, torch.zeros(2, dtype=DOUBLE), noise, number(time))
    steps, errors = [8, 16, 32, 64], []
    for count in steps:
        step, kick = step_map(law, method, time / count)
        mean, covariance = start, torch.zeros(2, 2, dtype=DOUBLE)
        for _ in range(count):
            mean, covariance = step @ mean, step @ covariance @ step.mT + kick
        of_mean = (mean - exact.matrix @ start).norm()
        errors.append(torch.stack((of_mean, (covariance - exact.covariance).norm())))
    slope = (torch.stack(errors).log2()[:-1] - torch.stack(errors).log2()[1:]).mean(0)
    assert ((slope - 2).abs() < 0.1).all(), slope


@pytest.mark.parametrize("method", METHODS)
def test_weak_order_two_in_a_double_well_under_an_outer_force(method: str) -> None:
    # E[phi] at steps h and h / 2 from one Brownian path, so that their difference is nearly free of noise
    law = UnderdampedLangevin(
        DoubleWellPotential(1, 0.5, 1.0), friction=StateFriction(1, 4, low=0.5, high=1.5), force=Swing()
    ).double()
    paths, time, counts = 250_000, 1.0, [4, 8, 16]
    grid = step_grid(span(time), time / counts[-1])
    # the two increments of an OBABO step belong to its halves: they are steps of a path twice as fine
    grid = grid.refined(2) if method == "obabo" else grid
    fine = brownian_increments(grid, (paths,), 1, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    start = torch.tensor([0.6, 0.5], dtype=DOUBLE).expand(paths, 2)
    values = []
    with torch.no_grad():
        for count in counts:
            noise = coarsen(fine, counts[-1] // count)
            if method == "obabo":  # (2 N, ..., 1) to (N, ..., 2), each half step's increment scaled to the whole step
                noise = math.sqrt(2) * noise.unflatten(0, (-1, 2)).squeeze(-1).movedim(1, -1)
            q, v = sdeint(law, start, span(time), dt=time / count, method=method, noise=noise)[:, 1].unbind(-1)
            values.append(torch.stack((q, q**2, v**2, q * v)))
    gaps = torch.stack([(a - b) for a, b in zip(values[:-1], values[1:], strict=True)])  # (2, 4, paths)
    mean, error = gaps.mean(-1), gaps.std(-1) / math.sqrt(paths)
    clear = mean[-1].abs() > 25 * error[-1]
    assert clear.sum() >= 2, (mean, error)
    slope = (mean[0] / mean[-1]).abs().log2()[clear]
    assert ((slope - 2).abs() < 0.3).all(), slope


class Swing(nn.Module):
    """An outer force, at each row's own time."""

    def forward(self, t: Time, q: Tensor) -> Tensor:
        return torch.cos(3 * torch.as_tensor(t, dtype=q.dtype)).unsqueeze(-1).expand(q.shape)


def lively_law(size: int = 2) -> UnderdampedLangevin:
    torch.manual_seed(0)
    return UnderdampedLangevin(MLPPotential(size, 8), friction=StateFriction(size, 8), force=Swing()).double()


@pytest.mark.parametrize("gradient", ["backprop", "checkpoint"])
@pytest.mark.parametrize("method", METHODS)
def test_rows_equal_separate_solves(method: str, gradient: str) -> None:
    law = lively_law()
    ts = torch.tensor([[0.0, 0.3, 1.0], [0.5, 0.6, 2.2], [1.0, 1.4, 1.4]], dtype=DOUBLE)
    grid = step_grid(ts, 0.1)
    dw = brownian_increments(grid, (4, 3), splitting_noise_size(law, method), dtype=DOUBLE)
    start = torch.randn(4, 3, 4, dtype=DOUBLE)
    together = sdeint(law, start, ts, dt=0.1, method=method, noise=dw, gradient=gradient)
    assert together.shape == (4, 3, 3, 4)
    for row in range(3):
        moving, own = grid.steps[row] > 0, ts[row].unique()
        alone = sdeint(law, start[:, row], own, dt=0.1, method=method, noise=dw[moving][:, :, row])
        torch.testing.assert_close(together[:, row, : len(own)], alone, rtol=1e-12, atol=1e-13)
    assert torch.equal(together[:, 2, 1], together[:, 2, 2]), "padding changes nothing"


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("method", METHODS)
def test_seeded_rows_do_not_see_their_batch(method: str, dtype: torch.dtype) -> None:
    law = lively_law().to(dtype)
    ts = torch.rand(4, 3, dtype=DOUBLE).cumsum(-1)
    start = torch.randn(2, 4, 4, dtype=dtype)
    whole = sdeint(law, start, ts, dt=0.1, method=method, seeds=RowNoise(3, ["a", "b", "c", "d"]))
    order = [2, 0]
    part = sdeint(law, start[:, order], ts[order], dt=0.1, method=method, seeds=RowNoise(3, ["c", "a"]))
    tolerance = 1e-12 if dtype == DOUBLE else 1e-4
    assert whole.dtype == dtype
    torch.testing.assert_close(whole[:, order], part, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_checkpointed_gradients_are_those_of_backprop_and_finite_differences(method: str) -> None:
    law, start = lively_law(), torch.randn(3, 4, dtype=DOUBLE, requires_grad=True)
    ts = torch.tensor([[0.0, 0.5], [0.1, 1.1], [0.2, 0.9]], dtype=DOUBLE)

    def end(gradient: str) -> Tensor:
        return sdeint(law, start, ts, dt=0.1, method=method, seeds=[1, 2, 3], gradient=gradient)[:, 1].square().sum()

    wanted = [start, *law.parameters()]
    used = [tensor for tensor in wanted if tensor.requires_grad]
    found = {way: torch.autograd.grad(end(way), used, allow_unused=True) for way in ("backprop", "checkpoint")}
    for a, b in zip(*found.values(), strict=True):
        if a is None:  # the potential's constant moves nothing
            assert b is None or not b.any()
        else:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        before, h = law.bath.log_temperature.clone(), 1e-6
        ends = [end("backprop") for law.bath.log_temperature.data in (before + h, before - h)]
        law.bath.log_temperature.data = before
    place = [i for i, tensor in enumerate(used) if tensor is law.bath.log_temperature][0]
    slope = (ends[0] - ends[1]) / (2 * h)
    torch.testing.assert_close(found["backprop"][place], slope, rtol=1e-6, atol=1e-8)


def test_harmonic_gradients_stay_finite_in_rows_that_stand_still() -> None:
    law = harmonic()
    ts = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 1.0]], dtype=DOUBLE)
    for method in METHODS:
        end = sdeint(law, torch.ones(2, 2, dtype=DOUBLE), ts, dt=0.2, method=method, seeds=[1, 2])
        grads = torch.autograd.grad(end.sum(), [p for p in law.parameters() if p.requires_grad])
        assert all(torch.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize(
    ("law", "options", "message"),
    [
        (MLPSDE(2, 4), {"method": "baoab"}, "^method: got 'baoab' for a MLPSDE, want an UnderdampedLangevin"),
        (harmonic(), {"method": "baoab", "logqp": True}, "^logqp: got True with method 'baoab'"),
        (harmonic(), {"method": "obabo", "gradient": "reversible"}, "^gradient: got 'reversible' with method 'obabo'"),
        (harmonic(), {"method": "obabo", "noise": torch.zeros(10, 3, 1).double()}, "^noise: got increments of size 1"),
        (harmonic(), {"method": "baob"}, "^method: got 'baob'"),
    ],
)
def test_bad_input_is_named(law, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        sdeint(law, torch.zeros(3, 2, dtype=DOUBLE), [0.0, 1.0], dt=0.1, **options)


def test_rollouts_of_underdamped_laws_have_the_exact_law_of_q_at_large_steps() -> None:
    # Euler at this step would be 75 % off in <q^2>
    law, samples, ids = harmonic(), 20_000, ["a", "b"]
    start, times = torch.tensor([0.3, 1.0], dtype=DOUBLE), torch.tensor([[16.3, 20.3], [21.0, 25.0]], dtype=DOUBLE)
    with torch.no_grad():
        found = rollout(law, torch.zeros(samples, 2, 2, dtype=DOUBLE), start, times, RowNoise(0, ids), 0.4)
    assert found.shape == (samples, 2, 2, 2)
    assert ((found.var(0) / torch.tensor([1.0, 0.96]) - 1).abs() < 5 * math.sqrt(2 / samples)).all()
