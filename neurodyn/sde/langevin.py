"""Langevin laws: motion in a potential under friction and the noise that friction brings at a temperature.

    underdamped   dq = v dt,   m dv = (F(t, q) - dU/dq - m c v) dt + sqrt(2 m c kT) dW
    overdamped    dq = D (F(t, q) - dU/dq) / kT dt + div D dt + sqrt(2 D) dW,   D = kT / (m c),   in the Ito sense

with masses m, friction rates c, per coordinate or not, c perhaps a function of q. Fluctuation and dissipation balance:
without the outer force F, both rest in the Boltzmann law, exp(-U / kT) for q (and N(0, kT / m) for v). div D keeps it
so where the friction depends on q; the underdamped law needs no such term.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neurodyn.sde.base import SDE, Time
from neurodyn.sde.potentials import Potential
from neurodyn.sde.second_order import SecondOrderLaw

LEARNABLE = ("mass", "friction", "temperature")


class StateFriction(nn.Module):
    """Friction rates c(q) between `low` and `high`, per unit of time, by a network, (..., n) for q (..., n)."""

    def __init__(self, size: int, hidden_size: int = 32, *, low: float = 0.1, high: float = 10.0) -> None:
        if not 0 < low < high:
            raise ValueError(f"low, high: got {low} and {high}, want 0 < low < high")
        super().__init__()
        self.low, self.high = low, high
        self.net = nn.Sequential(nn.Linear(size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, size))

    def forward(self, q: Tensor) -> Tensor:
        """c, geometric between the bounds, so that the middle is sqrt(low high)."""
        share = torch.sigmoid(self.net(q))
        return self.low * (self.high / self.low) ** share


class Bath(nn.Module):
    """Masses, friction rates and temperature.

    Args:
        size: n.
        mass: a number or (n,).
        friction: rates per unit of time: a number, a tensor () or (n,), or a module that takes q (..., n) and gives
            positive rates (..., n) or (..., 1).
        temperature: kT, a number, in the units of the potential.
        learn: which of "mass", "friction", "temperature" training moves. Scaling U, m and kT alike changes nothing, so
            something among them should stay.
    """

    def __init__(
        self,
        size: int,
        mass: float | Tensor = 1.0,
        friction: float | Tensor | nn.Module = 1.0,
        temperature: float = 1.0,
        learn: Sequence[str] = ("friction", "temperature"),
    ) -> None:
        if unknown := [name for name in learn if name not in LEARNABLE]:
            raise ValueError(f"learn: got {unknown}, want some of {list(LEARNABLE)}")
        super().__init__()
        self.log_mass = _log_parameter("mass", mass, size, "mass" in learn)
        self.log_temperature = _log_parameter("temperature", temperature, None, "temperature" in learn)
        self.network: nn.Module | None = None
        self.log_friction: nn.Parameter | None = None
        if isinstance(friction, nn.Module):
            self.network = friction.requires_grad_("friction" in learn)
        else:
            self.log_friction = _log_parameter("friction", friction, size, "friction" in learn)

    @property
    def constant(self) -> bool:
        """Whether the friction does not depend on q."""
        return self.network is None

    @property
    def mass(self) -> Tensor:
        """m, () or (n,)."""
        return self.log_mass.exp()

    @property
    def temperature(self) -> Tensor:
        """kT, ()."""
        return self.log_temperature.exp()

    def friction(self, q: Tensor) -> Tensor:
        """c at q (..., n), per unit of time; broadcasts against q."""
        if self.log_friction is not None:
            return self.log_friction.exp()
        assert self.network is not None
        rate: Tensor = self.network(q)
        return rate


class UnderdampedLangevin(SecondOrderLaw):
    """The underdamped law of positions and velocities, state (q, v), noise on v.

    Args:
        potential: U of n coordinates.
        mass, friction, temperature, learn: see `Bath`.
        force: F(t, q), a module called with the time (as in `SDE`) and q (..., n), in units of dU/dq: an outer input,
            which makes the law depend on time, or any other push that is no gradient.
    """

    def __init__(
        self,
        potential: Potential,
        *,
        mass: float | Tensor = 1.0,
        friction: float | Tensor | nn.Module = 1.0,
        temperature: float = 1.0,
        force: nn.Module | None = None,
        learn: Sequence[str] = ("friction", "temperature"),
    ) -> None:
        super().__init__(potential.size, constant_noise=not isinstance(friction, nn.Module))
        self.potential, self.force = potential, force
        self.bath = Bath(potential.size, mass, friction, temperature, learn)

    def push(self, t: Time, q: Tensor) -> Tensor:
        """(F - dU/dq) / m, (..., n): the acceleration without friction."""
        return _outer_and_inner(self.potential, self.force, t, q) / self.bath.mass

    def acceleration(self, t: Time, q: Tensor, v: Tensor) -> Tensor:
        """The push less c v."""
        return self.push(t, q) - self.bath.friction(q) * v

    def velocity_noise(self, t: Time, q: Tensor) -> Tensor:
        """sqrt(2 c kT / m)."""
        return (2 * self.bath.friction(q) * self.bath.temperature / self.bath.mass).sqrt().expand(q.shape)

    def energy(self, z: Tensor) -> Tensor:
        """H = U + m |v|^2 / 2, (...), for z = (q, v)."""
        q, v = z.chunk(2, -1)
        return self.potential.energy(q) + 0.5 * (self.bath.mass * v.square()).sum(-1)

    def log_density(self, z: Tensor) -> Tensor:
        """Log of the stationary density without its constant, -H / kT, (...), in the absence of an outer force."""
        return -self.energy(z) / self.bath.temperature


class OverdampedLangevin(SDE):
    """The law of positions alone, the limit of the underdamped one with the same arguments at high friction.

    Args: as for `UnderdampedLangevin`.
    """

    noise_type = "diagonal"
    sde_type = "ito"

    def __init__(
        self,
        potential: Potential,
        *,
        mass: float | Tensor = 1.0,
        friction: float | Tensor | nn.Module = 1.0,
        temperature: float = 1.0,
        force: nn.Module | None = None,
        learn: Sequence[str] = ("friction", "temperature"),
    ) -> None:
        super().__init__()
        self.potential, self.force = potential, force
        self.bath = Bath(potential.size, mass, friction, temperature, learn)
        self.state_size = self.noise_size = potential.size
        self.state_independent = self.coordinatewise = self.bath.constant

    def drift(self, t: Time, z: Tensor) -> Tensor:
        """D (F - dU/dq) / kT + div D, (..., n)."""
        pushed = _outer_and_inner(self.potential, self.force, t, z)
        drift = pushed / (self.bath.mass * self.bath.friction(z))
        # g g^T = 2 D, so half its divergence is that of D
        return drift if self.state_independent else drift + self.half_divergence(t, z)

    def diffusion(self, t: Time, z: Tensor) -> Tensor:
        """sqrt(2 D), (..., n)."""
        return (2 * self.bath.temperature / (self.bath.mass * self.bath.friction(z))).sqrt().expand(z.shape)

    def log_density(self, z: Tensor) -> Tensor:
        """Log of the stationary density without its constant, -U / kT, (...), in the absence of an outer force."""
        return -self.potential.energy(z) / self.bath.temperature


def _outer_and_inner(potential: Potential, force: nn.Module | None, t: Time, q: Tensor) -> Tensor:
    """F - dU/dq."""
    inner = -potential.gradient(q)
    return inner if force is None else inner + force(t, q)


def _log_parameter(name: str, given: float | Tensor, size: int | None, learned: bool) -> nn.Parameter:
    value = torch.as_tensor(given).detach()
    value = value if value.is_floating_point() else value.to(torch.get_default_dtype())
    shapes = [()] if size is None else [(), (size,)]
    if tuple(value.shape) not in shapes:
        wanted = "a number" if size is None else f"a number or ({size},)"
        raise ValueError(f"{name}: got shape {tuple(value.shape)}, want {wanted}")
    if not bool((value > 0).all()) or not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name}: got {given}, want positive and finite")
    return nn.Parameter(value.log(), requires_grad=learned)
