"""A linear law with a bounded neural residual that acts through the noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurodyn.sde.base import SDE, Time, time_column
from neurodyn.sde.linear import LinearLaw


class ResidualLaw(SDE):
    """dz = (A z + b + G r(z)) dt + G dW: a linear law and a neural residual r, bounded entry by entry.

    The residual enters through G, so it moves what the noise moves: a path's price against the linear law is |r|^2 / 2
    per unit of time, with no inverse of G G^T, and states without noise (levels, slopes) keep their exact meaning. r is
    bounded by tanh, so far from the data the linear part rules and rollouts cannot run away from it, and starts at
    exactly zero.

    Args:
        linear: the law of the linear part; its parameters belong to this law too.
        hidden_size: of r's two hidden layers.
        bound: of each entry of r, in noise standard deviations per square root of unit time.
        time_dependent: whether r sees the time.
    """

    noise_type = "additive"
    sde_type = "ito"
    state_independent = True

    def __init__(
        self, linear: LinearLaw, hidden_size: int = 64, bound: float = 2.0, *, time_dependent: bool = False
    ) -> None:
        if not bound > 0:
            raise ValueError(f"bound: {bound} given, a positive number wanted")
        super().__init__()
        self.linear, self.bound, self.time_dependent = linear, bound, time_dependent
        self.state_size, self.noise_size = linear.state_size, linear.noise_size
        last = nn.Linear(hidden_size, linear.noise_size)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        inputs = linear.state_size + time_dependent
        self.net = nn.Sequential(
            nn.Linear(inputs, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size), nn.SiLU(), last
        )

    def residual(self, t: Time, z: Tensor) -> Tensor:
        """r, (..., m), for z (..., d)."""
        inputs = torch.cat((z, time_column(t, z)), -1) if self.time_dependent else z
        raw = self.net(inputs.to(next(self.net.parameters()).dtype)).to(z.dtype)
        return self.bound * torch.tanh(raw / self.bound)

    def drift(self, t: Time, z: Tensor) -> Tensor:
        """A z + b + G r(z), (..., d)."""
        return self.linear.drift(t, z) + self.residual(t, z) @ self.linear.noise().mT.to(z.dtype)

    def diffusion(self, t: Time, z: Tensor) -> Tensor:
        """G, (..., d, m)."""
        return self.linear.diffusion(t, z)
