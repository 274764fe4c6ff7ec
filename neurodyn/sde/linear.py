"""Linear laws of motion dz = (A z + b) dt + G dW, with exact Gaussian transitions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from neurodyn.sde.base import SDE

MIN_VARIANCE = 1e-6
"""What is added to the variances of a level-slope-OU model (start, noise, OU noise per unit of time), in squared units
of the standardised values: with less, values without noise have an evidence without a maximum, and covariances without
an inverse in float64."""


class Double(nn.Module):
    """A module that stays in float64 when the model around it changes its dtype: covariances need the digits."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        device = fn(torch.zeros(1)).device
        return super()._apply(lambda tensor: tensor.to(device), recurse)


class Transition(NamedTuple):
    """p(z(t + dt) | z(t)) = N(matrix z(t) + offset, covariance), for a batch of time steps dt.

    `matrix` and `covariance` are (..., d, d), `offset` is (..., d), with the shape of dt in front.
    """

    matrix: Tensor
    offset: Tensor
    covariance: Tensor


def square_root(covariance: Tensor) -> Tensor:
    """The symmetric R with R R = covariance, for positive semi-definite matrices (..., d, d), singular ones too.

    Of all roots this one alone hangs on nothing but the covariance: eigenvectors have no sign of their own, and where
    eigenvalues are equal no direction either, so that rounding would choose the samples that are made from them.
    """
    value, vector = torch.linalg.eigh(covariance)
    return vector * value.clamp(min=0).sqrt()[..., None, :] @ vector.mT


def linear_transition(matrix: Tensor, offset: Tensor, noise_covariance: Tensor, dt: Tensor) -> Transition:
    """Exact transition of dz = (A z + b) dt + G dW over every step in `dt`.

    The step is halved until |A| h <= 1/2, one augmented matrix exponential (Van Loan 1978) gives the transition over h,
    and doublings, C + Phi C Phi^T for the covariance, bring it back to dt. Unlike one exponential over the whole step,
    this stays exact when fast and slow rates meet a long gap, and short steps stay exact beside long ones.

    Args:
        matrix: A, (d, d), per unit time.
        offset: b, (d,).
        noise_covariance: G G^T, (d, d), per unit time.
        dt: time steps, any shape, not negative.
    """
    size = matrix.shape[0]
    dt = dt.to(matrix.dtype)
    with torch.no_grad():
        reach = float(torch.linalg.matrix_norm(matrix, 1) * dt.max()) if dt.numel() else 0.0
        halvings = max(0, math.ceil(math.log2(max(reach, 1e-300) / 0.5)))
    # exp of [[A, G G^T, I], [0, -A^T, 0], [0, 0, 0]] h holds Phi, Q Phi^-T and the integral of Phi
    eye = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
    big = matrix.new_zeros(3 * size, 3 * size)
    big[:size, :size] = matrix
    big[:size, size : 2 * size] = noise_covariance
    big[size : 2 * size, size : 2 * size] = -matrix.mT
    big[:size, 2 * size :] = eye
    step = torch.linalg.matrix_exp(big * (dt / 2**halvings)[..., None, None])
    covariance = step[..., :size, size : 2 * size] @ step[..., :size, :size].mT
    # Phi - I is doubled in place of Phi, which would lose the digits of steps that are short beside the longest one
    integral = step[..., :size, 2 * size :]
    change = matrix @ integral
    for _ in range(halvings):
        moved = change @ covariance
        covariance = 2 * covariance + moved + moved.mT + moved @ change.mT
        integral = 2 * integral + change @ integral
        change = 2 * change + change @ change
    phi, shift = eye + change, integral @ offset
    return Transition(phi, shift, 0.5 * (covariance + covariance.mT))


class LinearLaw(Double, SDE):
    """A time-homogeneous linear SDE, dz = (A z + b) dt + G dW, that knows its transitions exactly.

    Subclasses give `matrix()` (d, d), `offset()` (d,) and `noise()` (d, m); `transition` may be overridden by a closed
    form. G may have fewer columns than rows, or rows of zeros: levels and slopes that never move are legal.
    """

    sde_type = "ito"
    noise_type = "additive"
    state_independent = True

    def matrix(self) -> Tensor:
        """A, (d, d), per unit time."""
        raise NotImplementedError

    def offset(self) -> Tensor:
        """b, (d,), per unit time."""
        raise NotImplementedError

    def noise(self) -> Tensor:
        """G, (d, m), per square root of unit time."""
        raise NotImplementedError

    def noise_covariance(self) -> Tensor:
        """G G^T, (d, d)."""
        noise = self.noise()
        return noise @ noise.mT

    def reached(self) -> Tensor:
        """(d,) bool: the states that the noise moves, at once or through other states."""
        found, drives = (self.noise() != 0).any(1), self.matrix() != 0
        for _ in range(self.state_size):
            found = found | (drives & found).any(1)
        return found

    def reached_states(self) -> list[int]:
        """The same as numbers of states."""
        return [k for k, moved in enumerate(self.reached().tolist()) if moved]

    def transition(self, dt: Tensor) -> Transition:
        """Exact transition over every step of `dt` (any shape)."""
        return linear_transition(self.matrix(), self.offset(), self.noise_covariance(), dt)

    def drift(self, t: float | Tensor, z: Tensor) -> Tensor:
        """A z + b, for z (..., d)."""
        return z @ self.matrix().mT.to(z.dtype) + self.offset().to(z.dtype)

    def diffusion(self, t: float | Tensor, z: Tensor) -> Tensor:
        """G, expanded to (..., d, m)."""
        noise = self.noise().to(z.dtype)
        return noise.expand(*z.shape[:-1], *noise.shape)


class FreeLinearLaw(LinearLaw):
    """A linear law whose A, b and G are parameters of any value.

    Args:
        matrix: initial A, (d, d), per unit time.
        noise: initial G, (d, m).
        offset: initial b, (d,); zero if not given.
    """

    def __init__(self, matrix: Tensor, noise: Tensor, offset: Tensor | None = None) -> None:
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"matrix: shape {tuple(matrix.shape)} given, (d, d) wanted")
        if noise.ndim != 2 or noise.shape[0] != matrix.shape[0]:
            raise ValueError(f"noise: shape {tuple(noise.shape)} given, ({matrix.shape[0]}, m) wanted")
        super().__init__()
        self.state_size, self.noise_size = noise.shape
        self._matrix = torch.nn.Parameter(matrix.clone())
        self._noise = torch.nn.Parameter(noise.clone())
        self._offset = torch.nn.Parameter(matrix.new_zeros(len(matrix)) if offset is None else offset.clone())

    def matrix(self) -> Tensor:
        """A, (d, d)."""
        return self._matrix

    def offset(self) -> Tensor:
        """b, (d,)."""
        return self._offset

    def noise(self) -> Tensor:
        """G, (d, m)."""
        return self._noise


class TrendOULaw(LinearLaw):
    """Level, slope and Ornstein-Uhlenbeck parts side by side, one of each per variable.

    z = (level, slope, ou), each (D,), those present: d level = slope dt, d slope = 0, d ou = -rate * ou dt + L dW. The
    levels and slopes are random effects: they differ between series through the initial law and carry no noise.

    Args:
        num_variables: D.
        level, slope, ou: which parts there are; a slope needs a level.
        joint: whether the OU noise is correlated over variables (L lower triangular) or not (L diagonal).
        rate: initial rate of the OU part, per unit time.
    """

    def __init__(
        self,
        num_variables: int,
        *,
        level: bool = True,
        slope: bool = True,
        ou: bool = True,
        joint: bool = True,
        rate: float = 1.0,
    ) -> None:
        if slope and not level:
            raise ValueError("slope: given without level, which it moves; give level=True too")
        if not (level or ou):
            raise ValueError("level, ou: neither given, at least one is wanted")
        super().__init__()
        self.num_variables, self.joint = num_variables, joint
        self.has_level, self.has_slope, self.has_ou = level, slope, ou
        self.state_size = num_variables * (level + slope + ou)
        self.noise_size = num_variables if ou else 0
        if ou:
            self.log_rate = torch.nn.Parameter(torch.full((num_variables,), math.log(rate), dtype=torch.float64))
            self.log_scale = torch.nn.Parameter(torch.full((num_variables,), 0.5 * math.log(rate), dtype=torch.float64))
            if joint:
                self.mixing = torch.nn.Parameter(torch.zeros(num_variables, num_variables, dtype=torch.float64))

    @property
    def trend_size(self) -> int:
        """How many entries of the state, from the first on, are levels and slopes."""
        return self.num_variables * (self.has_level + self.has_slope)

    def ou_noise(self) -> Tensor:
        """L, (D, D) lower triangular, noise of the OU part per square root of unit time."""
        scale = ((2 * self.log_scale).exp() + MIN_VARIANCE).sqrt()
        if not self.joint:
            return torch.diag(scale)
        return scale[:, None] * (torch.eye(len(scale), dtype=scale.dtype, device=scale.device) + self.mixing.tril(-1))

    def stationary_covariance(self) -> Tensor:
        """(D, D) covariance of the OU part in its stationary law: (L L^T)_ij / (rate_i + rate_j)."""
        noise, rate = self.ou_noise(), self.log_rate.exp()
        return noise @ noise.mT / (rate[:, None] + rate[None, :])

    def matrix(self) -> Tensor:
        """A, (d, d)."""
        count, size = self.num_variables, self.state_size
        reference = next(self.parameters(), torch.zeros((), dtype=torch.float64))
        matrix = torch.zeros(size, size, dtype=reference.dtype, device=reference.device)
        if self.has_slope:
            matrix[:count, count : 2 * count] = torch.eye(count, dtype=reference.dtype, device=reference.device)
        if self.has_ou:
            decay = torch.diag(-self.log_rate.exp())
            matrix = torch.cat(
                (matrix[: self.trend_size], torch.cat((matrix[self.trend_size :, : self.trend_size], decay), 1)), 0
            )
        return matrix

    def offset(self) -> Tensor:
        """b = 0, (d,)."""
        return self.matrix().new_zeros(self.state_size)

    def noise(self) -> Tensor:
        """G, (d, D): zero for levels and slopes."""
        if not self.has_ou:
            return self.matrix().new_zeros(self.state_size, 0)
        return torch.nn.functional.pad(self.ou_noise(), (0, 0, self.trend_size, 0))

    def reached_states(self) -> list[int]:
        """The OU parts, whatever the parameters are."""
        return list(range(self.trend_size, self.state_size))

    def transition(self, dt: Tensor) -> Transition:
        """Closed form: levels move by slope * dt, the OU part decays towards its stationary covariance."""
        count, trend, size = self.num_variables, self.trend_size, self.state_size
        reference = self.matrix()
        dt = dt.to(reference.dtype)
        eye = torch.eye(size, dtype=reference.dtype, device=reference.device)
        shift = torch.zeros_like(eye)
        if self.has_slope:
            shift[:count, count : 2 * count] = torch.eye(count, dtype=reference.dtype, device=reference.device)
        trend_part = eye.clone()
        trend_part[trend:, trend:] = 0
        matrix = trend_part + shift * dt[..., None, None]
        covariance = reference.new_zeros(*dt.shape, size, size)
        if self.has_ou:
            rate = self.log_rate.exp()
            decay = torch.diag_embed(torch.exp(-rate * dt[..., None]))
            matrix = matrix + torch.nn.functional.pad(decay, (trend, 0, trend, 0))
            total = rate[:, None] + rate[None, :]
            noise = self.ou_noise()
            block = noise @ noise.mT * (-torch.expm1(-total * dt[..., None, None]) / total)
            covariance = torch.nn.functional.pad(block, (trend, 0, trend, 0))
        return Transition(matrix, reference.new_zeros(*dt.shape, size), covariance)
