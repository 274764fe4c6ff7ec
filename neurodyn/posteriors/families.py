"""Families of one-time marginals z = F(eps; channels(t)), eps ~ N(0, I), in closed form all through.

Channels are numbers per time, (B, M, C), with their time derivatives; eps is (S, B, M, d).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class MarginalSample(NamedTuple):
    """z (S, B, M, d), its velocity dF/dt at fixed eps, and the score, the gradient of log q(z, t) in z."""

    z: Tensor
    velocity: Tensor
    score: Tensor
    log_prob: Tensor
    """(S, B, M), log q(z, t)."""


class AffineMoments(NamedTuple):
    """A Gaussian marginal N(mean, root root^T) and its rates: mean (B, M, d), root (B, M, d, d) lower triangular."""

    mean: Tensor
    root: Tensor
    mean_rate: Tensor
    root_rate: Tensor


_LOG_2PI = math.log(2 * math.pi)


class DiagonalAffine:
    """z = mu + sigma * eps; channels (mu, log sigma)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.num_channels = 2 * size

    def start(self, scale: float) -> Tensor:
        """Channels (C,) of N(0, scale^2 I)."""
        return torch.cat((torch.zeros(self.size), torch.full((self.size,), math.log(scale))))

    def moments(self, channels: Tensor, rates: Tensor) -> AffineMoments:
        """Mean, root and their rates."""
        mean, log_sd = channels.split(self.size, -1)
        mean_rate, log_sd_rate = rates.split(self.size, -1)
        sd = log_sd.exp()
        return AffineMoments(mean, torch.diag_embed(sd), mean_rate, torch.diag_embed(sd * log_sd_rate))

    def sample(self, channels: Tensor, rates: Tensor, eps: Tensor) -> MarginalSample:
        """Closed forms: velocity mu' + sigma' eps, score -eps / sigma."""
        mean, log_sd = channels.split(self.size, -1)
        mean_rate, log_sd_rate = rates.split(self.size, -1)
        spread = log_sd.exp() * eps
        log_prob = -(0.5 * (eps.square() + _LOG_2PI) + log_sd).sum(-1)
        return MarginalSample(mean + spread, mean_rate + spread * log_sd_rate, -eps * (-log_sd).exp(), log_prob)

    def inverse(self, channels: Tensor, z: Tensor) -> Tensor:
        """eps with F(eps) = z."""
        mean, log_sd = channels.split(self.size, -1)
        return (z - mean) * (-log_sd).exp()


class FullAffine:
    """z = mu + L eps, L lower triangular with a positive diagonal; channels (mu, log diag L, L below it by rows)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.num_channels = 2 * size + size * (size - 1) // 2
        self._rows, self._columns = torch.tril_indices(size, size, -1)

    def start(self, scale: float) -> Tensor:
        """Channels (C,) of N(0, scale^2 I)."""
        return torch.cat((DiagonalAffine(self.size).start(scale), torch.zeros(self.num_channels - 2 * self.size)))

    def _root(self, diagonal: Tensor, below: Tensor) -> Tensor:
        root = torch.diag_embed(diagonal)
        if below.shape[-1] == 0:
            return root
        index = (self._rows.to(below.device) * self.size + self._columns.to(below.device)).expand(below.shape)
        return root.flatten(-2).scatter_add(-1, index, below).unflatten(-1, (self.size, self.size))

    def moments(self, channels: Tensor, rates: Tensor) -> AffineMoments:
        """Mean, root and their rates."""
        size = self.size
        mean, log_diagonal, below = channels.split((size, size, self.num_channels - 2 * size), -1)
        mean_rate, log_rate, below_rate = rates.split((size, size, self.num_channels - 2 * size), -1)
        diagonal = log_diagonal.exp()
        return AffineMoments(mean, self._root(diagonal, below), mean_rate, self._root(diagonal * log_rate, below_rate))

    def sample(self, channels: Tensor, rates: Tensor, eps: Tensor) -> MarginalSample:
        """Closed forms: velocity mu' + L' eps, score -L^-T eps."""
        mean, root, mean_rate, root_rate = self.moments(channels, rates)
        score = -_solve_transposed(root, eps)
        log_prob = -(0.5 * (eps.square() + _LOG_2PI) + root.diagonal(dim1=-2, dim2=-1).log()).sum(-1)
        return MarginalSample(mean + _apply(root, eps), mean_rate + _apply(root_rate, eps), score, log_prob)

    def inverse(self, channels: Tensor, z: Tensor) -> Tensor:
        """eps with F(eps) = z."""
        mean, root, _, _ = self.moments(channels, torch.zeros_like(channels))
        return torch.linalg.solve_triangular(root, (z - mean)[..., None], upper=False)[..., 0]


class SinhFlow:
    """z = mu + L s(eps), s_i(e) = sinh(b_i asinh(e) + a_i): skewed (a) and heavy- or light-tailed (b) marginals.

    Channels: those of `FullAffine`, then a and log b, (d,) each; a = 0 and b = 1 is the affine family (Jones and
    Pewsey 2009).
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.affine = FullAffine(size)
        self.num_channels = self.affine.num_channels + 2 * size

    def start(self, scale: float) -> Tensor:
        """Channels (C,) of N(0, scale^2 I)."""
        return torch.cat((self.affine.start(scale), torch.zeros(2 * self.size)))

    def sample(self, channels: Tensor, rates: Tensor, eps: Tensor) -> MarginalSample:
        """Closed forms by the change of variables eps -> s -> z."""
        split = (self.affine.num_channels, self.size, self.size)
        affine, shift, log_tail = channels.split(split, -1)
        affine_rate, shift_rate, log_tail_rate = rates.split(split, -1)
        mean, root, mean_rate, root_rate = self.affine.moments(affine, affine_rate)
        tail = log_tail.exp()
        angle = torch.asinh(eps)
        inner = tail * angle + shift
        bent, steep = inner.sinh(), inner.cosh()
        width = (1 + eps.square()).rsqrt()
        log_slope = steep.log() + log_tail + width.log()  # log ds/de
        bent_rate = steep * (tail * log_tail_rate * angle + shift_rate)
        # d/de [log N(e) - log s'(e)]
        eps_score = -eps - (inner.tanh() * tail * width - eps * width.square())
        score = _solve_transposed(root, eps_score * (-log_slope).exp())
        log_root = root.diagonal(dim1=-2, dim2=-1).log()
        log_prob = -(0.5 * (eps.square() + _LOG_2PI) + log_root + log_slope).sum(-1)
        velocity = mean_rate + _apply(root_rate, bent) + _apply(root, bent_rate)
        return MarginalSample(mean + _apply(root, bent), velocity, score, log_prob)

    def inverse(self, channels: Tensor, z: Tensor) -> Tensor:
        """eps with F(eps) = z."""
        affine, shift, log_tail = channels.split((self.affine.num_channels, self.size, self.size), -1)
        bent = self.affine.inverse(affine, z)
        return ((torch.asinh(bent) - shift) * (-log_tail).exp()).sinh()


Family = DiagonalAffine | FullAffine | SinhFlow
FAMILIES: dict[str, type[DiagonalAffine] | type[FullAffine] | type[SinhFlow]] = {
    "diagonal": DiagonalAffine,
    "full": FullAffine,
    "flow": SinhFlow,
}


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]


def _solve_transposed(root: Tensor, vector: Tensor) -> Tensor:
    """root^-T vector."""
    return torch.linalg.solve_triangular(root.mT, vector[..., None], upper=True)[..., 0]
