"""Langevin laws: the Boltzmann law solves the Fokker-Planck equation exactly, friction and noise balance, limits."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from neurodyn.sde.base import SDE, Time
from neurodyn.sde.langevin import OverdampedLangevin, StateFriction, UnderdampedLangevin
from neurodyn.sde.linear import FreeLinearLaw
from neurodyn.sde.potentials import CoupledOscillators, DoubleWellPotential, MLPPotential, Potential, QuadraticPotential
from neurodyn.sde.second_order import SecondOrderLaw, SecondOrderMLP, SymplecticSteps

DOUBLE = torch.float64
SIZE = 4


def fokker_planck(sde: SDE, log_density: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """The right-hand side of the Ito Fokker-Planck equation over the density, at z (N, d): zero if it is stationary.

    -div(f p) + 1/2 sum_ij d_i d_j ((g g^T)_ij p), all over p, by autograd through everything.
    """

    def over_p(row: Tensor) -> Tensor:
        anchor = log_density(row).detach()

        def probability(x: Tensor) -> Tensor:
            return (log_density(x) - anchor).exp()

        def current(x: Tensor) -> Tensor:
            def spread(y: Tensor) -> Tensor:
                g = sde.diffusion(0.0, y)
                g = torch.diag(g) if sde.noise_type == "diagonal" else g
                return g @ g.mT * probability(y)

            slope = torch.autograd.functional.jacobian(spread, x, create_graph=True)  # (d, d, d)
            return sde.drift(0.0, x) * probability(x) - 0.5 * torch.einsum("ijj->i", slope)

        return -torch.trace(torch.autograd.functional.jacobian(current, row))

    return torch.stack([over_p(row) for row in z])


FRICTIONS = {
    "scalar": lambda: 0.7,
    "diagonal": lambda: torch.linspace(0.3, 2.0, SIZE),
    "state-dependent": lambda: StateFriction(SIZE, 8, low=0.3, high=3.0),
    "one for all, state-dependent": lambda: nn.Sequential(
        nn.Linear(SIZE, 8), nn.Tanh(), nn.Linear(8, 1), nn.Softplus()
    ),
}
POTENTIALS = {
    "quadratic": lambda: QuadraticPotential(SIZE, 1.7),
    "double well": lambda: DoubleWellPotential(SIZE),
    "oscillators": lambda: CoupledOscillators(SIZE, 2),
    "mlp": lambda: MLPPotential(SIZE, 8),
}


@pytest.mark.parametrize("friction", FRICTIONS)
@pytest.mark.parametrize("potential", POTENTIALS)
@pytest.mark.parametrize("kind", [UnderdampedLangevin, OverdampedLangevin])
def test_boltzmann_law_is_stationary(kind: type, potential: str, friction: str) -> None:
    mass = torch.linspace(0.5, 2.0, SIZE)
    law = kind(POTENTIALS[potential](), mass=mass, friction=FRICTIONS[friction](), temperature=1.3).double()
    z = torch.randn(3, law.state_size, dtype=DOUBLE)
    assert fokker_planck(law, law.log_density, z).abs().max() < 1e-9


def test_the_check_sees_a_missing_term() -> None:
    # without div D the overdamped law rests elsewhere: the identity must notice
    law = OverdampedLangevin(QuadraticPotential(SIZE), friction=StateFriction(SIZE, 8)).double()

    class Without(SDE):
        noise_type, state_size = "diagonal", SIZE

        def drift(self, t: Time, z: Tensor) -> Tensor:
            return law.drift(t, z) - law.half_divergence(t, z)

        def diffusion(self, t: Time, z: Tensor) -> Tensor:
            return law.diffusion(t, z)

    assert fokker_planck(Without(), law.log_density, torch.randn(2, SIZE, dtype=DOUBLE)).abs().min() > 1e-3


@pytest.mark.parametrize("friction", FRICTIONS)
def test_fluctuation_balances_dissipation(friction: str) -> None:
    # g g^T = 2 c kT / m, with c read off the drift's slope in v
    mass = torch.linspace(0.5, 2.0, SIZE)
    law = UnderdampedLangevin(
        DoubleWellPotential(SIZE), mass=mass, friction=FRICTIONS[friction](), temperature=0.6
    ).double()
    z = torch.randn(2 * SIZE, dtype=DOUBLE)
    slope = torch.autograd.functional.jacobian(lambda x: law.drift(0.0, x), z)
    noise = law.diffusion(0.0, z)
    wanted = torch.zeros(2 * SIZE, 2 * SIZE, dtype=DOUBLE)
    wanted[SIZE:, SIZE:] = -2 * 0.6 * slope[SIZE:, SIZE:] / mass
    torch.testing.assert_close(noise @ noise.mT, wanted, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(law.velocity_noise(0.0, z[:SIZE]), noise[SIZE:].diagonal())


def test_harmonic_law_is_the_linear_law_with_its_stationary_covariance() -> None:
    root = torch.randn(3, 3, dtype=DOUBLE)
    stiffness = root @ root.mT + torch.eye(3, dtype=DOUBLE)
    law = UnderdampedLangevin(QuadraticPotential(3, stiffness), friction=0.8, temperature=1.5).double()
    eye, none = torch.eye(3, dtype=DOUBLE), torch.zeros(3, 3, dtype=DOUBLE)
    matrix = torch.cat((torch.cat((none, eye), 1), torch.cat((-stiffness, -0.8 * eye), 1)))
    linear = FreeLinearLaw(matrix, torch.cat((none, (2 * 0.8 * 1.5) ** 0.5 * eye)))
    z = torch.randn(5, 6, dtype=DOUBLE)
    torch.testing.assert_close(law.drift(0.0, z), linear.drift(0.0, z), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(law.diffusion(0.0, z), linear.diffusion(0.0, z), atol=1e-6, rtol=1e-6)
    boltzmann = 1.5 * torch.block_diag(torch.linalg.inv(stiffness), eye)
    torch.testing.assert_close(linear.transition(torch.tensor(60.0)).covariance, boltzmann, atol=1e-8, rtol=1e-8)


def test_overdamped_is_the_limit_of_underdamped() -> None:
    # slow mode of a damped oscillator: rate (c - sqrt(c^2 - 4 w^2)) / 2 against w^2 / c
    for friction, tolerance in ((20.0, 0.016), (200.0, 1.6e-4)):  # the next term is w^2 / c^2
        potential = QuadraticPotential(1, 3.0).double()
        full = UnderdampedLangevin(potential, friction=friction, mass=0.5).double()
        slow = OverdampedLangevin(potential, friction=friction, mass=0.5).double()
        slope = torch.autograd.functional.jacobian(lambda x, law=full: law.drift(0.0, x), torch.zeros(2, dtype=DOUBLE))
        rate = torch.linalg.eigvals(slope).real.max()
        found = slow.drift(0.0, torch.ones(1, dtype=DOUBLE)).item()
        assert found == pytest.approx(rate.item(), rel=tolerance)


class Swing(nn.Module):
    """An outer force that swings, per row at its own time."""

    def forward(self, t: Time, q: Tensor) -> Tensor:
        time = torch.as_tensor(t, dtype=q.dtype)
        return torch.sin(time).unsqueeze(-1).expand(q.shape)


@pytest.mark.parametrize("kind", [UnderdampedLangevin, OverdampedLangevin])
def test_outer_force_pushes_by_its_mobility_at_every_rows_time(kind: type) -> None:
    options = {"mass": 2.0, "friction": 0.5}
    pushed = kind(DoubleWellPotential(SIZE), force=Swing(), **options).double()
    free = kind(pushed.potential, **options).double()
    t, z = torch.tensor([0.3, 1.1], dtype=DOUBLE), torch.randn(5, 2, pushed.state_size, dtype=DOUBLE)
    gained = (pushed.drift(t, z) - free.drift(t, z))[..., -SIZE:]
    per_force = 1 / 2.0 if kind is UnderdampedLangevin else 1 / (2.0 * 0.5)
    torch.testing.assert_close(gained, (per_force * t.sin())[:, None].expand(5, 2, SIZE))
    if kind is UnderdampedLangevin:
        torch.testing.assert_close(pushed.drift(t, z)[..., :SIZE], z[..., SIZE:], atol=0, rtol=0)


def test_base_contract_derivatives_are_the_generic_ones() -> None:
    law = UnderdampedLangevin(DoubleWellPotential(2), friction=StateFriction(2, 8)).double()
    z = torch.randn(3, 4, dtype=DOUBLE)
    torch.testing.assert_close(SDE.half_divergence(law, 0.0, z), law.half_divergence(0.0, z), atol=1e-12, rtol=0)
    torch.testing.assert_close(SDE.ito_correction(law, 0.0, z), law.ito_correction(0.0, z), atol=1e-12, rtol=0)
    assert (law.noise_type, law.state_independent) == ("general", False)
    constant = UnderdampedLangevin(DoubleWellPotential(2))
    assert (constant.noise_type, constant.state_independent) == ("additive", True)
    assert constant.diffusion(0.0, torch.zeros(5, 1, 4)).shape == (5, 1, 4, 2)


def test_only_what_is_to_be_learned_is() -> None:
    law = UnderdampedLangevin(DoubleWellPotential(2), mass=2.0, learn=("friction",))
    names = {name for name, parameter in law.bath.named_parameters() if parameter.requires_grad}
    assert names == {"log_friction"}
    frozen = OverdampedLangevin(DoubleWellPotential(2), friction=StateFriction(2), learn=("mass",))
    assert {n for n, p in frozen.bath.named_parameters() if p.requires_grad} == {"log_mass"}


def test_state_friction_keeps_its_bounds() -> None:
    friction = StateFriction(3, low=0.5, high=2.0)(100 * torch.randn(200, 3))
    assert friction.min() >= 0.5 - 1e-6 and friction.max() <= 2.0 + 1e-6 and friction.std() > 0.1


def test_fresh_second_order_mlp_is_a_damped_oscillator() -> None:
    law = SecondOrderMLP(2, 8, stiffness=3.0, friction=0.5, noise=0.7, time_dependent=True).double()
    z = torch.randn(4, 3, 4, dtype=DOUBLE)
    q, v = z.chunk(2, -1)
    drift = law.drift(torch.rand(3, dtype=DOUBLE), z)
    torch.testing.assert_close(drift, torch.cat((v, -3 * q - 0.5 * v), -1), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(law.diffusion(0.0, z)[..., 2:, :].sum(-1), torch.full_like(q, 0.7))


def test_euler_steps_become_symplectic_euler_steps() -> None:
    law, dt = SecondOrderMLP(2, 8).double(), 0.1
    for parameter in law.net.parameters():
        nn.init.normal_(parameter)
    z, dw = torch.randn(4, 3, 4, dtype=DOUBLE), torch.randn(4, 3, 2, dtype=DOUBLE)
    steps = SymplecticSteps(law, dt)
    q, v = z.chunk(2, -1)
    v = v + law.acceleration(0.0, q, v) * dt + law.velocity_noise(0.0, q) * dw
    moved = z + steps.drift(0.0, z) * dt + (steps.diffusion(0.0, z) @ dw[..., None])[..., 0]
    torch.testing.assert_close(moved, torch.cat((q + v * dt, v), -1))


def test_symplectic_steps_keep_the_energy_of_an_oscillator() -> None:
    law = UnderdampedLangevin(QuadraticPotential(1, torch.tensor(4.0, dtype=DOUBLE)), friction=1e-9).double()
    energies = {}
    for name, stepped in (("symplectic", SymplecticSteps(law, 0.3)), ("euler", law)):
        z = torch.tensor([[1.0, 0.0]], dtype=DOUBLE)
        energies[name] = []
        for _ in range(300):
            z = z + 0.3 * stepped.drift(0.0, z)
            energies[name].append(float(law.energy(z).detach()))
    assert 1.3 < min(energies["symplectic"]) and max(energies["symplectic"]) < 3.5, energies["symplectic"][:20]
    assert energies["euler"][-1] > 1e6


def made(**options: object) -> SDE:
    potential: Potential = QuadraticPotential(2)
    return UnderdampedLangevin(potential, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: made(mass=0.0), "^mass: got 0.0"),
        (lambda: made(friction=torch.ones(3)), r"^friction: got shape \(3,\)"),
        (lambda: made(friction=-1.0), "^friction: got -1.0"),
        (lambda: made(temperature=float("inf")), "^temperature: got inf"),
        (lambda: made(temperature=torch.ones(2)), r"^temperature: got shape \(2,\)"),
        (lambda: made(learn=("potential",)), "^learn: got"),
        (lambda: StateFriction(2, low=2.0, high=1.0), "^low, high"),
        (lambda: SecondOrderMLP(2, noise=0.0), "^noise: got 0.0"),
        (lambda: SecondOrderLaw(0, constant_noise=True), "^size: got 0"),
        (lambda: SymplecticSteps(SecondOrderMLP(2), 0.0), "^step: got 0.0"),
    ],
)
def test_bad_input_is_named(build: Callable[[], SDE], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
