"""Stable neural SDEs: three classes of laws along a control path whose long run is known before anything is learned.

    NeuralLSDE    dz = -grad U(z; X) dt + sigma(t) dW                     Langevin type: rests in a stationary law
    NeuralLNSDE   dz = gamma(t, z, X) dt + sigma(t) z dW                  linear noise: solutions forget their start
    NeuralGSDE    dz = gamma(t, z, X) z dt + sigma(t) z dW                geometric: stays positive, and forgets

Drift and noise are Lipschitz by construction (bounded spectral norms) and sigma decreases from its start to a floor, so
each solution exists, is unique, and follows a change of its control by no more than in proportion: a series that
loses observations moves the state by as much as the path that is drawn through what is left.

Source: Oh, Lim and Kim (2024), "Stable neural stochastic differential equations in analyzing irregular time series
data", ICLR, arXiv 2402.14989, section 3. As the authors' code computes them: `neurodyn.sde.stable_released`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neurodyn.sde.base import SDE, Time
from neurodyn.sde.controlled import Along, Control, ControlledLaw, TanhForm
from neurodyn.sde.lipschitz import LipschitzField, bounded_linear


class DecreasingNoise(nn.Module):
    """sigma_i(t) = low_i + (high_i - low_i) exp(-rate_i t), positive and falling, from high at t = 0 to low.

    Args:
        size: d. largest: bound on sigma(0), in state units per square root of time.
    """

    def __init__(self, size: int, largest: float = 0.5) -> None:
        if not largest > 0:
            raise ValueError(f"largest: got {largest}, want a positive noise")
        super().__init__()
        self.largest = largest
        self.raw_high = nn.Parameter(torch.zeros(size))
        self.raw_low = nn.Parameter(torch.zeros(size))
        self.log_rate = nn.Parameter(torch.zeros(size))

    @property
    def high(self) -> Tensor:
        """sigma(0), (d,)."""
        return self.largest * torch.sigmoid(self.raw_high)

    @property
    def low(self) -> Tensor:
        """The limit, (d,), below `high`."""
        return self.high * torch.sigmoid(self.raw_low)

    def forward(self, t: Tensor) -> Tensor:
        """(..., d) at times (...) since the start; before it, its value there."""
        high, low = self.high, self.low
        decay = torch.exp(-self.log_rate.exp() * t.clamp_min(0.0).unsqueeze(-1))
        return low + (high - low) * decay


class _Stable(ControlledLaw):
    """What the three share: sizes, noise, and the part of the first layer that reads control and time."""

    def __init__(
        self, state_size: int, control_size: int, hidden_size: int, largest_noise: float, timed: bool, margin: float
    ) -> None:
        for name, size in (("state_size", state_size), ("control_size", control_size), ("hidden_size", hidden_size)):
            if size < 1:
                raise ValueError(f"{name}: got {size}, want 1 or more")
        if not margin > 0:
            raise ValueError(f"margin: got {margin}, want a positive rate per unit of time")
        super().__init__()
        self.state_size, self.control_size, self.timed = state_size, control_size, timed
        self.noise = DecreasingNoise(state_size, largest_noise)
        self.reader = nn.Linear(control_size + timed, hidden_size)
        # softplus of this is the margin, the rate that training may change but not make negative
        self.raw_margin = nn.Parameter(torch.tensor(margin).expm1().log())

    @property
    def margin(self) -> Tensor:
        """(), positive, per unit of time."""
        return nn.functional.softplus(self.raw_margin)

    def prepare(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `ControlledLaw`."""
        seen = torch.cat((x, t.unsqueeze(-1)), -1) if self.timed else x
        return self.reader(seen), self.noise(t)


class NeuralLSDE(_Stable):
    """Langevin type: dz = -grad U(z; X(t)) dt + sigma(t) dW, with

        U(z; x) = margin |z|^2 / 2 + sum_i a_i log cosh((W z + V x + b)_i),    |a_i| <= bound, |W| <= 1.

    The second term is Lipschitz, so U grows as |z|^2: for a control that stands still, the law of z tends to the
    stationary density, proportional to exp(-2 U / sigma^2), where sigma is the noise's floor, if that is the same in
    all coordinates. The drift is at most (margin + bound)-Lipschitz, and does not see the time but through X.

    Args:
        state_size: d. control_size: C. hidden_size: terms of the sum.
        bound: on a. Above the margin, U may have several minima.
        largest_noise: bound on sigma(0).
        margin: stiffness of U to begin with.
    """

    state_independent = True

    def __init__(
        self,
        state_size: int,
        control_size: int,
        hidden_size: int = 32,
        *,
        bound: float = 4.0,
        largest_noise: float = 0.5,
        margin: float = 1.0,
    ) -> None:
        super().__init__(state_size, control_size, hidden_size, largest_noise, False, margin)
        if not bound > 0:
            raise ValueError(f"bound: got {bound}, want a positive number")
        self.bound = bound
        self.turn = bounded_linear(state_size, hidden_size, bias=False)
        self.weights = nn.Parameter(torch.randn(hidden_size))

    def energy(self, z: Tensor, x: Tensor) -> Tensor:
        """U (...) at z (..., d) and controls x (..., C)."""
        # log cosh(s) without overflow
        s = (self.turn(z) + self.reader(x)).abs()
        bumps = s + nn.functional.softplus(-2 * s) - math.log(2)
        return 0.5 * self.margin * z.square().sum(-1) + (self._strengths() * bumps).sum(-1)

    def velocity(self, u: Tensor, pull: Tensor) -> Tensor:
        """-grad U, in closed form."""
        push = self._strengths() * torch.tanh(self.turn(u) + pull)
        return -self.margin * u - push @ self.turn.weight

    def spread(self, u: Tensor, level: Tensor) -> Tensor:
        """sigma(t)."""
        return level

    def tanh_form(self, pull: Tensor, level: Tensor) -> TanhForm:
        """See `ControlledLaw`."""
        turn = self.turn.weight
        return TanhForm(turn, -(self._strengths() * turn.mT), pull, turn.new_zeros(()), self.margin, level, False)

    def _strengths(self) -> Tensor:
        return self.bound * torch.tanh(self.weights)


class _Contracting(_Stable):
    """What the two whose solutions come together share: a Lipschitz field that sees the time."""

    def __init__(
        self,
        state_size: int,
        control_size: int,
        hidden_size: int = 32,
        hidden_layers: int = 1,
        *,
        bound: float = 2.0,
        largest_noise: float = 0.5,
        margin: float = 0.5,
    ) -> None:
        super().__init__(state_size, control_size, hidden_size, largest_noise, True, margin)
        self.field = LipschitzField(state_size, hidden_size, hidden_layers, bound)


class NeuralLNSDE(_Contracting):
    """Linear noise: dz = (-k z + field(z, X(t), t)) dt + sigma(t) z dW, with k = margin + bound + max sigma(0)^2 / 2.

    The field is `bound`-Lipschitz in z, so for two solutions under the same noise and control

        d E|z - z'|^2 / dt <= (2 bound - 2 k + max sigma^2) E|z - z'|^2 <= -2 margin E|z - z'|^2:

    they come together in mean square at the margin's rate, wherever they started.

    Args:
        state_size: d. control_size: C. hidden_size, hidden_layers: of the field.
        bound: the field's Lipschitz constant in the state, per unit of time.
        largest_noise: bound on sigma(0). margin: to begin with, per unit of time.
    """

    @property
    def stiffness(self) -> Tensor:
        """k, ()."""
        return self.margin + self.field.bound + 0.5 * self.noise.high.square().max()

    def velocity(self, u: Tensor, pull: Tensor) -> Tensor:
        """-k u + field."""
        return self.field(u, pull) - self.stiffness * u

    def spread(self, u: Tensor, level: Tensor) -> Tensor:
        """sigma(t) u."""
        return level * u

    def tanh_form(self, pull: Tensor, level: Tensor) -> TanhForm | None:
        """See `ControlledLaw`; a field of several layers has none."""
        if len(self.field.middle):
            return None
        last = self.field.last
        return TanhForm(self.field.first.weight, last.weight, pull, last.bias, self.stiffness, level, True)


class NeuralGSDE(_Contracting):
    """Geometric: dz = gamma(t, z, X(t)) z dt + sigma(t) z dW, z > 0, with gamma = -k log z + field(log z, X, t).

    What is solved is u = log z, du = (gamma - sigma^2 / 2) dt + sigma dW, so z is positive in every step of any length.
    The field is `bound`-Lipschitz in u and k = margin + bound: two solutions under the same noise and control come
    together, |log z - log z'| <= exp(-margin t) |log z0 - log z0'|, path by path. Zero is absorbing and is not reached.

    Arguments as in `NeuralLNSDE`.
    """

    state_independent = True  # of u, which is what is solved

    def prepare(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `ControlledLaw`; the pull carries sigma^2 / 2 after the field's own."""
        pull, level = super().prepare(t, x)
        return torch.cat((pull, 0.5 * level.square()), -1), level

    def velocity(self, u: Tensor, pull: Tensor) -> Tensor:
        """gamma - sigma^2 / 2, of u = log z."""
        own, correction = pull.split((pull.shape[-1] - self.state_size, self.state_size), -1)
        return self.field(u, own) - (self.margin + self.field.bound) * u - correction

    def spread(self, u: Tensor, level: Tensor) -> Tensor:
        """sigma(t), of u = log z."""
        return level

    def tanh_form(self, pull: Tensor, level: Tensor) -> TanhForm | None:
        """See `ControlledLaw`; a field of several layers has none."""
        if len(self.field.middle):
            return None
        own, correction = pull.split((pull.shape[-1] - self.state_size, self.state_size), -1)
        last, rate = self.field.last, self.margin + self.field.bound
        return TanhForm(self.field.first.weight, last.weight, own, last.bias - correction, rate, level, False)

    def inner(self, z: Tensor) -> Tensor:
        """log z."""
        return z.log()

    def outer(self, u: Tensor) -> Tensor:
        """exp u."""
        return u.exp()

    def of_state(self, control: Control) -> SDE:
        """The law of z itself along a path, for `sdeint` in z: its Euler steps may cross zero if they are long."""
        return _Geometric(self, control)


class _Geometric(Along):
    """z = exp(u): by Ito's formula dz = (velocity + sigma^2 / 2) z dt + sigma z dW."""

    def __init__(self, law: NeuralGSDE, control: Control) -> None:
        super().__init__(law, control)
        self.state_independent = False

    def drift(self, t: Time, z: Tensor) -> Tensor:
        """gamma z."""
        pull, level = self._prepared(t, z)
        tiny = torch.finfo(z.dtype).tiny
        rate = self.law.velocity(z.abs().clamp_min(tiny).log(), pull) + 0.5 * level.square()
        return rate * z

    def diffusion(self, t: Time, z: Tensor) -> Tensor:
        """sigma z."""
        return self._prepared(t, z)[1] * z
