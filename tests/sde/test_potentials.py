"""Potentials: gradients against autograd and finite differences, bounds from below, convexity, known special cases."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neurodyn.sde.potentials import (
    POTENTIALS,
    ConvexPotential,
    CoupledOscillators,
    DoubleWellPotential,
    MLPPotential,
    Potential,
    QuadraticPotential,
    make_potential,
)

DOUBLE = torch.float64
SIZE = 8
COVARIANCE = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(5), dtype=DOUBLE)

MAKERS = {
    "quadratic": lambda: QuadraticPotential(SIZE, torch.linspace(0.5, 2.0, SIZE)),
    "full quadratic": lambda: QuadraticPotential(SIZE, COVARIANCE @ COVARIANCE.mT + torch.eye(SIZE)),
    "double well": lambda: DoubleWellPotential(SIZE, 1.5, 0.7),
    "squares": lambda: CoupledOscillators(SIZE, 2, 5),
    "wave": lambda: CoupledOscillators(SIZE, 2, kernel="wave"),
    "product": lambda: CoupledOscillators(SIZE, 4, form="product"),
    "released": lambda: CoupledOscillators(SIZE, 4, form="released"),
    "mlp": lambda: MLPPotential(SIZE, 16, 3),
    "convex": lambda: ConvexPotential(SIZE, 16, 3),
    "shallow": lambda: ConvexPotential(SIZE, 16, 1),
}


def make(name: str, seed: int = 0) -> Potential:
    torch.manual_seed(seed)
    potential = MAKERS[name]().double()
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return potential


@pytest.mark.parametrize("name", MAKERS)
def test_gradient_is_autograd_and_finite_differences(name: str) -> None:
    potential, h = make(name), 1e-5
    q = torch.randn(3, 4, SIZE, dtype=DOUBLE)
    assert potential.energy(q).shape == (3, 4)
    found = potential.gradient(q)
    torch.testing.assert_close(found, Potential.gradient(potential, q), atol=1e-11, rtol=1e-10)
    bump = h * torch.eye(SIZE, dtype=DOUBLE)
    ahead, behind = potential.energy(q[..., None, :] + bump), potential.energy(q[..., None, :] - bump)
    torch.testing.assert_close(found, (ahead - behind) / (2 * h), atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("name", MAKERS)
def test_hessian_product_is_autograd_and_finite_differences(name: str) -> None:
    potential, h = make(name), 1e-5
    q, along = torch.randn(2, 5, SIZE, dtype=DOUBLE)
    found = potential.hessian_product(q, along)
    torch.testing.assert_close(found, Potential.hessian_product(potential, q, along), atol=1e-10, rtol=1e-10)
    slope = (potential.gradient(q + h * along) - potential.gradient(q - h * along)) / (2 * h)
    torch.testing.assert_close(found, slope, atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(potential.hessian_product(q, along), found)
        torch.testing.assert_close(Potential.gradient(potential, q), potential.gradient(q))


@pytest.mark.parametrize("name", MAKERS)
def test_gradient_trains_every_parameter(name: str) -> None:
    potential = make(name)
    potential.gradient(torch.randn(5, SIZE, dtype=DOUBLE)).square().sum().backward()
    for label, parameter in potential.named_parameters():
        if label != "last.bias":  # a constant has no force
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, label


def floor_of(potential: Potential, q: Tensor) -> Tensor:
    """What each class promises not to go below."""
    square = 0.5 * q.square().sum(-1)
    if isinstance(potential, QuadraticPotential | DoubleWellPotential):
        return torch.zeros_like(square)
    if isinstance(potential, CoupledOscillators):
        assert potential.log_stiffness is not None
        return 0.5 * (potential.log_stiffness.exp() * q.square()).sum(-1)
    assert isinstance(potential, MLPPotential | ConvexPotential)
    confined = potential.log_stiffness.exp() * square
    if isinstance(potential, MLPPotential):
        return confined + potential.last.bias - potential.last.weight.abs().sum()
    return confined


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(set(MAKERS) - {"released"})), st.integers(0, 1000), st.floats(0.01, 100))
def test_bounded_below_as_promised(name: str, seed: int, size: float) -> None:
    potential = make(name, seed)
    q = size * torch.randn(50, SIZE, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
    assert (potential.energy(q) >= floor_of(potential, q) * (1 - 1e-12) - 1e-12).all()


def test_bounds_of_the_oscillators_hold_for_the_worst_direction() -> None:
    for seed in range(20):
        for name in ("squares", "product", "wave"):
            potential = make(name, seed)
            assert isinstance(potential, CoupledOscillators) and potential.log_stiffness is not None
            hessian = potential.gradient(torch.eye(SIZE, dtype=DOUBLE))
            torch.testing.assert_close(hessian, hessian.mT)
            rest = hessian - torch.diag(potential.log_stiffness.exp())
            assert torch.linalg.eigvalsh(rest).min() > -1e-10
    # the released form has directions without bound, which is why it is not the default
    assert torch.linalg.eigvalsh(make("released").gradient(torch.eye(SIZE, dtype=DOUBLE))).min() < -0.1


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["convex", "shallow"]), st.integers(0, 1000), st.floats(0.0, 1.0))
def test_convex_is_convex(name: str, seed: int, weight: float) -> None:
    potential = make(name, seed)
    a, b = 3 * torch.randn(2, 50, SIZE, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
    between = potential.energy(weight * a + (1 - weight) * b)
    assert (between <= weight * potential.energy(a) + (1 - weight) * potential.energy(b) + 1e-10).all()
    # strongly so: the curvature is k at least
    assert isinstance(potential, ConvexPotential)
    slope = (potential.hessian_product(a, b) * b).sum(-1)
    assert (slope >= potential.log_stiffness.exp() * b.square().sum(-1) - 1e-9).all()


def test_paper_energy_is_the_sum_of_all_entries_of_v_q_q_transposed() -> None:
    # written as the paper has it: U = sum of the entries of (V q) q^T, q (groups, places)
    potential = make("released")
    assert isinstance(potential, CoupledOscillators)
    q = torch.randn(6, SIZE, dtype=DOUBLE)
    kernel = torch.nn.functional.normalize(potential.weight, dim=2)
    places = q.reshape(6, 4, -1)
    moved = torch.nn.functional.conv1d(places, kernel, padding=1)
    torch.testing.assert_close(potential.energy(q), (moved @ places.mT).sum((-2, -1)))


def test_wave_kernel_is_the_discrete_wave_equation() -> None:
    potential = CoupledOscillators(6, 1, kernel="wave", stiffness=1e-12).double()
    with torch.no_grad():
        potential.weight.copy_(torch.tensor([[[-1.0, 1.0, 0.0]]], dtype=DOUBLE))
    q = torch.randn(6, dtype=DOUBLE)
    force = -potential.gradient(q)
    torch.testing.assert_close(force[1:-1], q[2:] - 2 * q[1:-1] + q[:-2])
    torch.testing.assert_close(force[-1], q[-2] - q[-1])  # a free end


def test_double_well_has_its_minima_and_barrier() -> None:
    potential = DoubleWellPotential(1, 2.5, 0.6).double()
    q = torch.tensor([[-0.6], [0.0], [0.6]], dtype=DOUBLE)
    torch.testing.assert_close(potential.energy(q), torch.tensor([0.0, 2.5, 0.0], dtype=DOUBLE), atol=1e-7, rtol=1e-6)
    assert potential.gradient(q).abs().max() < 1e-6


def test_quadratic_keeps_the_matrix_it_is_given() -> None:
    wanted = COVARIANCE @ COVARIANCE.mT + torch.eye(SIZE)
    torch.testing.assert_close(QuadraticPotential(SIZE, wanted).stiffness(), wanted)
    torch.testing.assert_close(QuadraticPotential(3, 4.0).stiffness(), 4 * torch.eye(3))


@pytest.mark.parametrize("name", POTENTIALS)
def test_made_by_name_or_given(name: str) -> None:
    potential = make_potential(name, 8)
    assert potential.energy(torch.zeros(2, 8)).shape == (2,)
    assert make_potential(potential, 8) is potential
    assert math.isfinite(potential.gradient(torch.randn(8)).sum().item())


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: make_potential("cubic", 2), "^potential: got 'cubic'"),
        (lambda: make_potential(QuadraticPotential(3), 2), "^potential: got one of 3"),
        (lambda: QuadraticPotential(2, -1.0), "^stiffness: got -1.0"),
        (lambda: QuadraticPotential(2, torch.ones(3)), r"^stiffness: got shape \(3,\)"),
        (lambda: QuadraticPotential(2, torch.tensor([[1.0, 2.0], [2.0, 1.0]])), "^stiffness: .*positive definite"),
        (lambda: DoubleWellPotential(2, barrier=0.0), "^barrier"),
        (lambda: CoupledOscillators(6, 4), "^groups: got 4"),
        (lambda: CoupledOscillators(8, 4, 2), "^taps: got 2"),
        (lambda: CoupledOscillators(8, 4, form="product", kernel="wave"), "^kernel"),
        (lambda: CoupledOscillators(8, 4, form="sum"), "^form"),
        (lambda: MLPPotential(2, stiffness=0.0), "^stiffness"),
    ],
)
def test_bad_input_is_named(made, message) -> None:
    with pytest.raises(ValueError, match=message):
        made()
