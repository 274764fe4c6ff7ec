"""Laws of second order: dq = v dt, dv = a(t, q, v) dt + s(t, q) dW, with noise on the velocities alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neurodyn.sde.base import SDE, Time, time_column


class SecondOrderLaw(SDE):
    """A law of positions q and velocities v, n each; the state is (q, v), d = 2 n, the noise has m = n.

    Subclasses write `acceleration` and `velocity_noise`. Since the noise depends on q only and moves v only, Ito and
    Stratonovich agree, whatever it depends on.

    Args:
        size: n.
        constant_noise: the velocity noise does not depend on q: noise_type is then "additive", else "general".
    """

    sde_type = "ito"

    def __init__(self, size: int, *, constant_noise: bool) -> None:
        if size < 1:
            raise ValueError(f"size: got {size}, want 1 or more")
        super().__init__()
        self.size, self.state_size, self.noise_size = size, 2 * size, size
        self.state_independent = constant_noise
        self.noise_type = "additive" if constant_noise else "general"

    def acceleration(self, t: Time, q: Tensor, v: Tensor) -> Tensor:
        """a, (..., n), in position units per unit of time squared."""
        raise NotImplementedError(f"{type(self).__name__} has no acceleration")

    def velocity_noise(self, t: Time, q: Tensor) -> Tensor:
        """s, (..., n), positive, in velocity units per square root of unit time."""
        raise NotImplementedError(f"{type(self).__name__} has no velocity_noise")

    def drift(self, t: Time, z: Tensor) -> Tensor:
        """(v, a), (..., 2 n)."""
        q, v = z.chunk(2, -1)
        return torch.cat((v, self.acceleration(t, q, v)), -1)

    def diffusion(self, t: Time, z: Tensor) -> Tensor:
        """Zeros above diag(s), (..., 2 n, n)."""
        q = z[..., : self.size]
        noise = torch.diag_embed(self.velocity_noise(t, q).expand(q.shape))
        return torch.cat((torch.zeros_like(noise), noise), -2)

    def half_divergence(self, t: Time, z: Tensor) -> Tensor:
        """Zero: the noise on v does not depend on v."""
        return torch.zeros_like(z)

    def ito_correction(self, t: Time, z: Tensor) -> Tensor:
        """Zero, for the same reason."""
        return torch.zeros_like(z)


class SecondOrderMLP(SecondOrderLaw):
    """a = -k q - c v + network(q, v[, t]), constant noise: second order without a potential.

    Args:
        size: n.
        hidden_size: of the network's two hidden layers. Its last layer starts at zero, so a fresh law is a damped
            oscillator.
        stiffness, friction, noise: initial k, c and s, learned per coordinate.
        time_dependent: whether the network sees the time.
    """

    def __init__(
        self,
        size: int,
        hidden_size: int = 64,
        *,
        stiffness: float = 1.0,
        friction: float = 1.0,
        noise: float = math.sqrt(2.0),
        time_dependent: bool = False,
    ) -> None:
        for name, given in (("stiffness", stiffness), ("friction", friction), ("noise", noise)):
            if not given > 0:
                raise ValueError(f"{name}: got {given}, want positive")
        super().__init__(size, constant_noise=True)
        self.time_dependent = time_dependent
        self.log_stiffness = nn.Parameter(torch.full((size,), math.log(stiffness)))
        self.log_friction = nn.Parameter(torch.full((size,), math.log(friction)))
        self.log_noise = nn.Parameter(torch.full((size,), math.log(noise)))
        last = nn.Linear(hidden_size, size)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        inputs = 2 * size + time_dependent
        self.net = nn.Sequential(
            nn.Linear(inputs, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size), nn.SiLU(), last
        )

    def acceleration(self, t: Time, q: Tensor, v: Tensor) -> Tensor:
        """See `SecondOrderLaw`."""
        inputs = [q, v, time_column(t, q)] if self.time_dependent else [q, v]
        return self.net(torch.cat(inputs, -1)) - self.log_stiffness.exp() * q - self.log_friction.exp() * v

    def velocity_noise(self, t: Time, q: Tensor) -> Tensor:
        """See `SecondOrderLaw`."""
        return self.log_noise.exp().expand(q.shape)


class SymplecticSteps(SDE):
    """The law whose Euler steps of length `step` are symplectic Euler steps of a law of second order:

        v' = v + a(q, v) dt + s(q) dW,      q' = q + v' dt.

    Euler's own steps add energy to an oscillator at any step; these do not as long as step times frequency is below 2.
    Both laws have one noise and one control of it, and q' follows from v', so path KLs are those of the steps.

    Args:
        law: what moves.
        step: dt, the length of the steps to be made, in units of time.
    """

    sde_type = "ito"

    def __init__(self, law: SecondOrderLaw, step: float) -> None:
        if not step > 0:
            raise ValueError(f"step: got {step}, want positive")
        super().__init__()
        self.law, self.step = law, step
        self.state_size, self.noise_size = law.state_size, law.noise_size
        self.noise_type, self.state_independent = law.noise_type, law.state_independent

    def drift(self, t: Time, z: Tensor) -> Tensor:
        """(v + a dt, a), (..., 2 n)."""
        q, v = z.chunk(2, -1)
        push = self.law.acceleration(t, q, v)
        return torch.cat((v + self.step * push, push), -1)

    def diffusion(self, t: Time, z: Tensor) -> Tensor:
        """diag(s) dt above diag(s), (..., 2 n, n)."""
        noise = self.law.diffusion(t, z)[..., self.law.size :, :]
        return torch.cat((self.step * noise, noise), -2)
