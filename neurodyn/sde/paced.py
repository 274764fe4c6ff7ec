"""Series that follow one law, each at a pace of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from neurodyn.sde.base import SDE, Time


class PacedLaw(SDE):
    """A law of z whose clock runs at a series' own speed v = exp(scale c), where c, the last coordinate, never moves.

        dz = v h(z, t) dt + sqrt(v) g(z, t) dW,

    the random change of time z(v t) of dz = h dt + g dW, if h and g do not depend on t. With c ~ N(0, 1) speeds are
    log-normal with log standard deviation `scale`.

    Args:
        law: with one static coordinate or more, on all of which its drift may depend.
        scale: positive.

    Raises:
        ValueError: a law without a static coordinate or without diagonal noise, a scale that is not positive.
    """

    sde_type = "ito"

    def __init__(self, law: SDE, scale: float) -> None:
        if law.static_size < 1 or law.noise_type != "diagonal" or law.sde_type != "ito":
            raise ValueError(
                f"law: {law.static_size} static coordinates, {law.noise_type} noise and {law.sde_type} given, "
                "at least 1, diagonal noise and ito wanted"
            )
        if not scale > 0:
            raise ValueError(f"scale: {scale} given, a positive one wanted")
        super().__init__()
        self.law, self.scale = law, scale
        self.noise_type = law.noise_type
        self.state_size, self.noise_size, self.static_size = law.state_size, law.noise_size, law.static_size

    def speed(self, z: Tensor) -> Tensor:
        """v, (..., 1)."""
        return torch.exp(self.scale * z[..., -1:])

    def drift(self, t: Time, z: Tensor) -> Tensor:
        """(..., d), zero for static coordinates."""
        return self.speed(z) * self.law.drift(t, z)

    def diffusion(self, t: Time, z: Tensor) -> Tensor:
        """(..., d), zero for static coordinates."""
        return self.speed(z).sqrt() * self.law.diffusion(t, z)

    def half_divergence(self, t: Time, z: Tensor) -> Tensor:
        """The law's own times v: what has noise does not change the speed."""
        return self.speed(z) * self.law.half_divergence(t, z)

    def ito_correction(self, t: Time, z: Tensor) -> Tensor:
        """The law's own times v, for the same reason."""
        return self.speed(z) * self.law.ito_correction(t, z)
