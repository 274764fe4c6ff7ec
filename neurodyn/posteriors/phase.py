"""Families of one-time marginals of positions and velocities, under a flow whose positions move by the velocities.

With smooth curves m (n), S (n, n), R (n, n) of time, a dash for d/dt and independent e1, e2 ~ N(0, I),

    q = m + S e1,      v = m' + S' e1 + R e2.

At fixed e1 the position moves by m' + S' e1 = E[v | q], which is all that the continuity equation of q asks for. A flow
of single states that keeps these marginals and moves q by v itself turns the noise: e1' = S^-1 R e2, e2' = -R^T S^-T e1
(a skew generator keeps N(0, I)). Along it q' = v, and

    v' = m'' + (S'' - R R^T S^-T) e1 + (R' + S' S^-1 R) e2.

Any further skew turn e2' = K e2 keeps the marginals too, and leaves q alone. The score in v is -R^-T e2.

Channels are (B, M, C): first those of m and S, which need two continuous values (curve and slope), then those of R,
which may have kinks. eps = (e1, e2) is (S, B, M, 2 n).
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

Jet = tuple[Tensor, Tensor, Tensor]  # channels and their first two derivatives in time


class PhaseSample(NamedTuple):
    """States of the marginals and what moves them.

    z: (S, B, M, 2 n), (q, v). flow: (S, B, M, n), v' above. score: (S, B, M, n), the gradient of log q(q, v) in v.
    """

    z: Tensor
    flow: Tensor
    score: Tensor


class PhaseFamily(Protocol):
    """What the posterior needs of a family."""

    size: int
    num_channels: int
    num_smooth: int
    """How many channels, from the first on, are of m and S."""

    def start(self, scale: float) -> Tensor:
        """Channels (C,) of a position law N(0, scale^2 I)."""
        ...

    def sample(self, jet: Jet, eps: Tensor) -> PhaseSample:
        """States, flow and score at eps."""
        ...

    def inverse(self, jet: Jet, z: Tensor) -> Tensor:
        """eps with these states z (S, B, M, 2 n)."""
        ...

    def moments(self, jet: Jet) -> tuple[Tensor, Tensor]:
        """Mean (B, M, 2 n) of (q, v), and the lower triangular root of its covariance (B, M, 2 n, 2 n)."""
        ...

    def spread(self, jet: Jet) -> Tensor:
        """R, (B, M, n, n)."""
        ...


def resting_spread(log_sd: Tensor, noise_scale: float) -> Tensor:
    """Log of the r that costs least at a given position spread s under noise g: r = (g^2 s)^(1/3) / sqrt(2).

    Without a prior drift the rate of the path KL in one dimension is [(r^2 / s)^2 + (g^2 / (2 r))^2] / (2 g^2).
    """
    return log_sd / 3 + math.log(noise_scale) * 2 / 3 - 0.5 * math.log(2)


class DiagonalPhase:
    """Independent coordinates: S = diag(s), R = diag(r). Channels (m, log s, log r - log of the resting r).

    Args:
        size: n.
        noise_scale: g in the resting r; a scale, not a bound.
    """

    def __init__(self, size: int, noise_scale: float = 1.0) -> None:
        self.size, self.noise_scale = size, noise_scale
        self.num_channels, self.num_smooth = 3 * size, 2 * size

    def start(self, scale: float) -> Tensor:
        """See `PhaseFamily`."""
        return torch.tensor([0.0, math.log(scale), 0.0]).repeat_interleave(self.size)

    def _spreads(self, jet: Jet) -> tuple[Tensor, Tensor, Tensor]:
        """s, r, and r'/r."""
        (_, log_sd, log_extra), (_, log_sd_rate, extra_rate) = (part.chunk(3, -1) for part in jet[:2])
        log_r = log_extra + resting_spread(log_sd, self.noise_scale)
        return log_sd.exp(), log_r.exp(), extra_rate + log_sd_rate / 3

    def sample(self, jet: Jet, eps: Tensor) -> PhaseSample:
        """Only 1 / s and 1 / r are taken."""
        (mean, _, _), (mean_rate, log_rate, _), (mean_bend, log_bend, _) = (part.chunk(3, -1) for part in jet)
        first, second = eps.chunk(2, -1)
        s, r, log_r_rate = self._spreads(jet)
        velocity = mean_rate + s * log_rate * first + r * second
        along_first = s * (log_bend + log_rate.square()) - r.square() / s
        flow = mean_bend + along_first * first + r * (log_r_rate + log_rate) * second
        return PhaseSample(torch.cat((mean + s * first, velocity), -1), flow, -second / r)

    def inverse(self, jet: Jet, z: Tensor) -> Tensor:
        """See `PhaseFamily`."""
        (mean, _, _), (mean_rate, log_rate, _) = (part.chunk(3, -1) for part in jet[:2])
        q, v = z.chunk(2, -1)
        s, r, _ = self._spreads(jet)
        first = (q - mean) / s
        return torch.cat((first, (v - mean_rate - s * log_rate * first) / r), -1)

    def moments(self, jet: Jet) -> tuple[Tensor, Tensor]:
        """See `PhaseFamily`."""
        s, r, _ = self._spreads(jet)
        mean, rate, log_rate = jet[0][..., : self.size], jet[1][..., : self.size], jet[1].chunk(3, -1)[1]
        return torch.cat((mean, rate), -1), _blocks(
            torch.diag_embed(s), torch.diag_embed(s * log_rate), self.spread(jet)
        )

    def spread(self, jet: Jet) -> Tensor:
        """See `PhaseFamily`."""
        return torch.diag_embed(self._spreads(jet)[1])


class FullPhase:
    """Coupled coordinates: S = diag(s) (I + N), N any matrix with a zero diagonal, R = diag(r) (I + L), L below it.

    Any law of (q, v) whose positions move by the velocities has this form. Channels (m, log s, N by rows; log r - log
    of the resting r, L by rows).

    Args: as for `DiagonalPhase`.
    """

    def __init__(self, size: int, noise_scale: float = 1.0) -> None:
        self.size, self.noise_scale = size, noise_scale
        off = size * (size - 1)
        self._split = (size, size, off, size, off // 2)
        self.num_smooth, self.num_channels = 2 * size + off, sum(self._split)
        eye = torch.eye(size, dtype=torch.bool)
        self._off = (~eye).flatten().nonzero()[:, 0]
        rows, columns = torch.tril_indices(size, size, -1)
        self._below = rows * size + columns

    def start(self, scale: float) -> Tensor:
        """See `PhaseFamily`."""
        channels = torch.zeros(self.num_channels)
        channels[self.size : 2 * self.size] = math.log(scale)
        return channels

    def _square(self, entries: Tensor, places: Tensor) -> Tensor:
        """A matrix (..., n, n) with these entries (..., k) at these flat places, else zeros."""
        flat = entries.new_zeros(*entries.shape[:-1], self.size**2)
        return flat.index_copy(-1, places.to(entries.device), entries).unflatten(-1, (self.size, self.size))

    def _position_root(self, jet: Jet) -> tuple[Tensor, Tensor, Tensor]:
        """S, S', S''."""
        (_, log_sd, off, _, _), (_, rate, off_rate, _, _), (_, bend, off_bend, _, _) = (
            part.split(self._split, -1) for part in jet
        )
        eye = torch.eye(self.size, dtype=log_sd.dtype, device=log_sd.device)
        mixing = self._square(off, self._off) + eye
        mixing_rate, mixing_bend = self._square(off_rate, self._off), self._square(off_bend, self._off)
        scale, rate, bend = log_sd.exp()[..., None], rate[..., None], bend[..., None]
        first = scale * (rate * mixing + mixing_rate)
        second = scale * ((bend + rate.square()) * mixing + 2 * rate * mixing_rate + mixing_bend)
        return scale * mixing, first, second

    def _velocity_root(self, jet: Jet) -> tuple[Tensor, Tensor]:
        """R, R'."""
        (_, log_sd, _, extra, below), (_, sd_rate, _, extra_rate, below_rate) = (
            part.split(self._split, -1) for part in jet[:2]
        )
        scale = (extra + resting_spread(log_sd, self.noise_scale)).exp()[..., None]
        rate = (extra_rate + sd_rate / 3)[..., None]
        mixing = self._square(below, self._below) + torch.eye(self.size, dtype=scale.dtype, device=scale.device)
        return scale * mixing, scale * (rate * mixing + self._square(below_rate, self._below))

    def sample(self, jet: Jet, eps: Tensor) -> PhaseSample:
        """See `PhaseFamily`."""
        size = self.size
        mean, mean_rate, mean_bend = (part[..., :size] for part in jet)
        first, second = eps[..., :size], eps[..., size:]
        s, s_rate, s_bend = self._position_root(jet)
        r, r_rate = self._velocity_root(jet)
        kick = _apply(r, second)
        turned = _apply(r, _apply(r.mT, _solve(s.mT, first)))
        flow = mean_bend + _apply(s_bend, first) - turned + _apply(s_rate, _solve(s, kick)) + _apply(r_rate, second)
        z = torch.cat((mean + _apply(s, first), mean_rate + _apply(s_rate, first) + kick), -1)
        score = -torch.linalg.solve_triangular(r.mT, second[..., None], upper=True)[..., 0]
        return PhaseSample(z, flow, score)

    def inverse(self, jet: Jet, z: Tensor) -> Tensor:
        """See `PhaseFamily`."""
        q, v = z.chunk(2, -1)
        mean, mean_rate = jet[0][..., : self.size], jet[1][..., : self.size]
        s, s_rate, _ = self._position_root(jet)
        first = _solve(s, q - mean)
        left = v - mean_rate - _apply(s_rate, first)
        return torch.cat((first, _solve(self.spread(jet), left)), -1)

    def moments(self, jet: Jet) -> tuple[Tensor, Tensor]:
        """See `PhaseFamily`. S is turned into a lower triangular root by a rotation of e1."""
        s, s_rate, _ = self._position_root(jet)
        root = torch.linalg.cholesky(s @ s.mT)
        turned = torch.linalg.solve_triangular(root, s @ s_rate.mT, upper=False).mT
        mean = torch.cat((jet[0][..., : self.size], jet[1][..., : self.size]), -1)
        return mean, _blocks(root, turned, self.spread(jet))

    def spread(self, jet: Jet) -> Tensor:
        """See `PhaseFamily`."""
        return self._velocity_root(jet)[0]


PHASES: dict[str, type[DiagonalPhase] | type[FullPhase]] = {"diagonal": DiagonalPhase, "full": FullPhase}


def _blocks(position: Tensor, cross: Tensor, velocity: Tensor) -> Tensor:
    """[[position, 0], [cross, velocity]]."""
    top = torch.cat((position, torch.zeros_like(position)), -1)
    return torch.cat((top, torch.cat((cross, velocity), -1)), -2)


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]


def _solve(matrix: Tensor, vector: Tensor) -> Tensor:
    return torch.linalg.solve(matrix, vector[..., None])[..., 0]
