"""The contract of every law of motion: dz = drift(t, z) dt + diffusion(t, z) dW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

NoiseType = Literal["diagonal", "scalar", "additive", "general"]
SDEType = Literal["ito", "stratonovich"]
Time = float | Tensor

NOISE_TYPES: tuple[NoiseType, ...] = ("diagonal", "scalar", "additive", "general")
SDE_TYPES: tuple[SDEType, ...] = ("ito", "stratonovich")


class SDE(nn.Module):
    """A law of motion dz = drift(t, z) dt + diffusion(t, z) dW, driven by a Brownian motion W of size m.

    Subclasses set the attributes below (on the class or in the constructor) and write `drift` and `diffusion`. Both
    take z with any leading shape, (..., d), and a time that is a float, a 0-d tensor, or a tensor broadcastable to
    ``z.shape[:-1]``, so that rows may stand at different times.

    Attributes:
        noise_type: "diagonal": the diffusion is (..., d) and multiplies dW entry by entry, m = d.
            "scalar": (..., d, 1), one Brownian motion moves all. "additive": (..., d, m), does not depend on z.
            "general": (..., d, m).
        sde_type: the integral that dW stands for, "ito" or "stratonovich".
        state_size: d. noise_size: m.
        coordinatewise: diagonal noise whose i-th entry depends on z_i and t only (what Milstein steps need, and what
            makes derivatives of the diffusion cost one pass instead of d).
        static_size: how many of the last coordinates never move: drift and diffusion are zero there.
        state_independent: the diffusion does not depend on z. Ito and Stratonovich then agree.
    """

    noise_type: NoiseType
    sde_type: SDEType = "ito"
    state_size: int
    noise_size: int
    coordinatewise: bool = False
    static_size: int = 0
    state_independent: bool = False

    def drift(self, t: Time, z: Tensor) -> Tensor:
        """Mean velocity, (..., d), in state units per unit time."""
        raise NotImplementedError(f"{type(self).__name__} has no drift")

    def diffusion(self, t: Time, z: Tensor) -> Tensor:
        """(..., d) for diagonal noise, else (..., d, m), in state units per square root of unit time."""
        raise NotImplementedError(f"{type(self).__name__} has no diffusion")

    # The names that torchsde asks for. Functions rather than aliases, so that they follow a subclass's overrides.

    def f(self, t: Time, y: Tensor) -> Tensor:
        """`drift`, by torchsde's name."""
        return self.drift(t, y)

    def g(self, t: Time, y: Tensor) -> Tensor:
        """`diffusion`, by torchsde's name."""
        return self.diffusion(t, y)

    def h(self, t: Time, y: Tensor) -> Tensor:
        """Drift of the prior by torchsde's name: a law on its own is its own prior."""
        return self.drift(t, y)

    def half_divergence(self, t: Time, z: Tensor) -> Tensor:
        """The vector with entries 1/2 sum_j d (g g^T)_ij / dz_j, (..., d).

        It is the part that a state-dependent diffusion adds to the drift which keeps given marginals (SDE Matching,
        Bartosh et al. 2025, arXiv 2502.02472). Exactly zero when the diffusion does not depend on the state.
        Coordinate-wise diagonal noise takes one backward pass (none in laws that know their slope), every other noise
        d passes in one batch. The result can be differentiated again.
        """
        if self.state_independent or self.noise_type == "additive":
            return torch.zeros_like(z)
        if self.noise_type == "diagonal" and self.coordinatewise:
            value, slope = self.coordinate_slope(t, z)
            return value * slope
        size = z.shape[-1]
        # One copy of z for each direction of differentiation, stacked in front, where every law broadcasts.
        directions = torch.eye(size, dtype=z.dtype, device=z.device).reshape(size, *(1,) * (z.ndim - 1), size)
        copies = z.expand(size, *z.shape)
        value, slope = self.diffusion_slope(t, copies, directions.expand_as(copies))
        if self.noise_type == "diagonal":
            return (value * slope).diagonal(dim1=0, dim2=-1)
        value = value[0]
        # d(g g^T)_ij/dz_j = sum_k (dg_ik/dz_j g_jk + g_ik dg_jk/dz_j), with the direction j in front of `slope`
        moving_row = torch.einsum("j...ik,...jk->...i", slope, value)
        moving_column = torch.einsum("...ik,j...jk->...i", value, slope)
        return 0.5 * (moving_row + moving_column)

    def coordinate_slope(self, t: Time, z: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinate-wise diagonal noise only: the diffusion and dg_i/dz_i, both (..., d)."""
        return entrywise_slope(lambda state: self.diffusion(t, state), z)

    def diffusion_slope(self, t: Time, z: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """The diffusion and its derivative along `direction` (..., d), both in the shape of the diffusion."""
        return directional_slope(lambda state: self.diffusion(t, state), z, direction)

    def ito_correction(self, t: Time, z: Tensor) -> Tensor:
        """Stratonovich drift + this = Ito drift of the same process: 1/2 sum_jk g_jk dg_ik/dz_j, (..., d).

        Source: Kloeden and Platen (1992), Numerical Solution of Stochastic Differential Equations, eq. 4.9.9.
        """
        if self.state_independent or self.noise_type == "additive":
            return torch.zeros_like(z)
        if self.noise_type == "diagonal":
            # dW_k moves z_k only, which leaves 1/2 g_k dg_k/dz_k
            return 0.5 * self.half_divergence(t, z)
        columns = self.diffusion(t, z).movedim(-1, 0)
        copies = z.expand(columns.shape[0], *z.shape)
        slope = self.diffusion_slope(t, copies, columns)[1]
        return 0.5 * torch.einsum("k...ik->...i", slope)


def entrywise_slope(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slope of a function whose every entry depends on the same entry of z alone, both in the shape of z.

    One backward pass, differentiable again where gradients are on. Forward mode would cost three times as much.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        state = z if z.requires_grad and again else z.detach().requires_grad_()
        value = function(state)
        if not value.requires_grad:
            return value, torch.zeros_like(value)
        # The sum mixes nothing: entry i of the gradient comes from entry i of the value only.
        (slope,) = torch.autograd.grad(value.sum(), state, create_graph=again, allow_unused=True)
    slope = torch.zeros_like(value) if slope is None else slope
    return (value, slope) if again else (value.detach(), slope)


def directional_slope(
    function: Callable[[Tensor], Tensor], z: Tensor, direction: Tensor | Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Value and derivative along `direction` of any function of z, both in the shape of the value.

    The direction is in the shape of z, or a function that makes it from the value. Two backward passes, which every
    operation supports: a vector-Jacobian product differentiated by its vector is a Jacobian-vector product.
    Differentiable again where gradients are on.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        state = z if z.requires_grad and again else z.detach().requires_grad_()
        value = function(state)
        if not value.requires_grad:
            return value, torch.zeros_like(value)
        along = direction(value) if callable(direction) else direction
        weight = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, state, weight, create_graph=True, allow_unused=True)
        slope = None
        if pulled is not None and pulled.requires_grad:
            (slope,) = torch.autograd.grad(pulled, weight, along, create_graph=again, allow_unused=True)
    slope = torch.zeros_like(value) if slope is None else slope
    return (value, slope) if again else (value.detach(), slope)


def time_column(t: Time, z: Tensor) -> Tensor:
    """The time as one more column beside the state: (..., 1), in the dtype and on the device of z (..., d)."""
    if not isinstance(t, Tensor):
        return z.new_full((*z.shape[:-1], 1), t)
    return t.to(dtype=z.dtype, device=z.device).expand(z.shape[:-1]).unsqueeze(-1)
