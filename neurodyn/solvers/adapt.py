"""Modules written for torchsde as laws of ours, and laws turned from one calculus into the other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from neurodyn.sde.base import NOISE_TYPES, SDE, SDE_TYPES, SDEType, Time


class TorchSDELaw(SDE):
    """A module with f(t, y), g(t, y), perhaps h(t, y), noise_type and sde_type, written for torchsde, as a law.

    The module sees what torchsde would give it: y of shape (batch, d), with all leading axes in one, and a 0-d tensor
    for the time. Rows at different times, which torchsde does not have, are given as (batch, 1). "diagonal" means
    coordinate-wise, as torchsde demands.

    Attributes:
        module: the module, unchanged; its parameters belong to this law.
    """

    def __init__(self, module: Any, state_size: int) -> None:
        super().__init__()
        self.module = module
        self.noise_type, self.sde_type = module.noise_type, module.sde_type
        self.state_size = state_size
        self.coordinatewise = module.noise_type == "diagonal"
        self.state_independent = module.noise_type == "additive"

    def drift(self, t: Time, z: Tensor) -> Tensor:
        """The module's f, (..., d)."""
        return self._call(self.module.f, t, z)

    def diffusion(self, t: Time, z: Tensor) -> Tensor:
        """The module's g, (..., d) or (..., d, m)."""
        return self._call(self.module.g, t, z)

    def h(self, t: Time, y: Tensor) -> Tensor:
        """The module's prior drift, (..., d)."""
        return self._call(self.module.h, t, y)

    def _call(self, function: Any, t: Time, z: Tensor) -> Tensor:
        lead = z.shape[:-1]
        if not isinstance(t, Tensor):
            t = z.new_full((), t)
        elif t.ndim:
            t = t.expand(lead).reshape(-1, 1)
        out: Tensor = function(t, z.reshape(-1, z.shape[-1]))
        return out.reshape(*lead, *out.shape[1:])


class ConvertedLaw(SDE):
    """The same process in the other calculus: the drift is moved by the Ito correction, the diffusion is the same."""

    def __init__(self, law: SDE, sde_type: SDEType) -> None:
        super().__init__()
        self.law = law
        self.noise_type, self.sde_type = law.noise_type, sde_type
        self.state_size, self.noise_size = law.state_size, law.noise_size
        self.coordinatewise, self.state_independent = law.coordinatewise, law.state_independent
        self._sign = 1.0 if sde_type == "ito" else -1.0

    def drift(self, t: Time, z: Tensor) -> Tensor:
        """Drift plus (towards Ito) or minus (towards Stratonovich) 1/2 sum_jk g_jk dg_ik/dz_j."""
        return torch.add(self.law.drift(t, z), self.law.ito_correction(t, z), alpha=self._sign)

    def diffusion(self, t: Time, z: Tensor) -> Tensor:
        """That of the law."""
        return self.law.diffusion(t, z)

    def coordinate_slope(self, t: Time, z: Tensor) -> tuple[Tensor, Tensor]:
        """That of the law."""
        return self.law.coordinate_slope(t, z)

    def h(self, t: Time, y: Tensor) -> Tensor:
        """The prior's drift, moved alike: differences of drifts, and with them the path KL, stay."""
        return torch.add(self.law.h(t, y), self.law.ito_correction(t, y), alpha=self._sign)


def convert(law: SDE, sde_type: SDEType) -> SDE:
    """The same process as a law in the sense of `sde_type` ("ito" or "stratonovich").

    Raises:
        ValueError: an unknown calculus.
    """
    if sde_type not in SDE_TYPES:
        raise ValueError(f"sde_type: got {sde_type!r}, want one of {', '.join(SDE_TYPES)}")
    return law if law.sde_type == sde_type else ConvertedLaw(law, sde_type)


def as_law(sde: SDE | nn.Module, state_size: int) -> SDE:
    """`sde` itself if it is a law of ours, else the torchsde-style module as one.

    Raises:
        ValueError: an object without f and g, or with an unknown noise_type or sde_type.
    """
    if isinstance(sde, SDE):
        return sde
    missing = [name for name in ("f", "g", "noise_type", "sde_type") if not hasattr(sde, name)]
    if missing:
        raise ValueError(
            f"sde: got {type(sde).__name__} without {', '.join(missing)}, want an SDE or f, g and their types"
        )
    module: Any = sde
    if module.noise_type not in NOISE_TYPES:
        raise ValueError(f"sde: got noise_type {module.noise_type!r}, want one of {', '.join(NOISE_TYPES)}")
    if module.sde_type not in SDE_TYPES:
        raise ValueError(f"sde: got sde_type {module.sde_type!r}, want one of {', '.join(SDE_TYPES)}")
    return TorchSDELaw(module, state_size)
