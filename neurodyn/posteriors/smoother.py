"""The exact smoother of a linear core, with learned pseudo-observations, for a prior with a neural residual.

q is the law of the core dz = (A z + b) dt + G dW given pseudo-observations y + shift with variances R exp(log_weight),
shift and log_weight from the encoder and zero at the start. Its marginals, its start and its normaliser log Z are exact
(Kalman), and its drift is the core's plus G G^T (lambda - Lambda z), G G^T singular or not. Against the prior, whose
drift has G r(z) on top, Girsanov gives

    KL(q || p) = E_q[log psi] - log Z + integral of E_q[ |r|^2 / 2 - r . G^T (lambda - Lambda z) ],

log psi the log-density of the pseudo-observations. With r = 0 and untouched observations the ELBO is the exact
evidence, sample by sample: training starts where the linear model ends. No path is simulated.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from neurodyn.nets.context import Context
from neurodyn.nets.mlp import mlp
from neurodyn.noise import RowNoise
from neurodyn.posteriors.base import PathDetail, Posterior, PosteriorPaths
from neurodyn.sde.kalman import (
    Filtered,
    Information,
    Observation,
    Smoothed,
    kalman_filter,
    kalman_information,
    kalman_smoother,
    smooth_at,
)
from neurodyn.sde.linear_gaussian import LinearGaussian
from neurodyn.sde.prior import Prior
from neurodyn.sde.residual import ResidualLaw


class Smoothing(NamedTuple):
    """The two exact passes over pseudo-observations: what everything else is read from."""

    values: Tensor
    observation: Observation
    filtered: Filtered
    information: Information


class SmootherPosterior(Posterior):
    """Exact smoother of a linear core under learned pseudo-observations; the prior is a `ResidualLaw` of that core.

    Args:
        core: the linear-Gaussian model (shared with the prior).
        context_size: of the encoder's features.
        num_times: stratified times per row and step for the residual's part of the path KL; twice as many, midpoints,
            in evaluation.
        hidden_size: of the network that moves the observations.
        amortised: whether observations are moved at all; if not, q is the core's exact smoother.
    """

    def __init__(
        self,
        core: LinearGaussian,
        context_size: int,
        *,
        num_times: int = 16,
        hidden_size: int = 64,
        amortised: bool = True,
    ) -> None:
        super().__init__()
        self.context_size = context_size
        self.core, self.num_times = core, num_times
        num_variables = core.observation().loading.shape[0]
        self.net = mlp([context_size, hidden_size, 2 * num_variables], zero_last=True) if amortised else None

    def smoothing(self, context: Context) -> Smoothing:
        """Filter and information of B rows under their pseudo-observations."""
        batch, law, observation = context.batch, self.core.law, self.core.observation()
        values = batch.values.to(observation.bias.dtype)
        if self.net is not None:
            shift, log_weight = self.net(context.at_visits()).to(observation.bias.dtype).chunk(2, -1)
            sd = observation.variance.sqrt()
            # bounded: a pseudo-observation is at most 3 noise sds off, and weighs between e^-4 and e^4 of a real one
            values = values + 3 * sd * torch.tanh(shift / 3)
            observation = observation._replace(
                variance=observation.variance * torch.exp(4 * torch.tanh(log_weight / 4))
            )
        data = (batch.times, values, batch.mask)
        filtered = kalman_filter(law, self.core.initial(), observation, *data)
        return Smoothing(values, observation, filtered, kalman_information(law, observation, *data))

    def forward(self, context: Context, prior: Prior, noise: RowNoise, num_samples: int = 1) -> PosteriorPaths:
        """See `Posterior`. The KL is an unbiased estimate, exact where the residual is zero."""
        law = self._law(prior)
        smoothing = self.smoothing(context)
        values, observation, filtered, information = smoothing
        times, dtype = context.batch.times, context.features.dtype
        visits = kalman_smoother(filtered, information)
        size = law.state_size
        z = visits.mean + _apply(_root(visits.covariance), noise.samples("visits", num_samples, times.shape[1], size))
        log_psi = _log_psi(values, context.batch.mask, observation, z).mean(0)
        initial = self.core.initial()
        initial_kl = _gaussian_kl(visits.mean[:, 0], visits.covariance[:, 0], initial.mean, initial.covariance)
        points, span = self._points(times, noise)
        there = smooth_at(self.core.law, filtered, information, times, points)
        draws = noise.samples("times", num_samples, points.shape[1], size)
        residual, pull = self._controls(law, points, there, draws)
        gap = (0.5 * residual.square() - residual * pull).sum(-1).mean((0, 2))
        path_kl = log_psi - filtered.evidence.sum(-1) - initial_kl + span * gap
        return PosteriorPaths(z.to(dtype), path_kl.to(dtype), initial_kl.to(dtype))

    def _law(self, prior: Prior) -> ResidualLaw:
        if not isinstance(prior.sde, ResidualLaw) or prior.sde.linear is not self.core.law:
            raise ValueError(
                f"prior: a {type(prior.sde).__name__} given, a ResidualLaw of this posterior's core wanted"
            )
        return prior.sde

    def _points(self, times: Tensor, noise: RowNoise) -> tuple[Tensor, Tensor]:
        span = times[:, -1] - times[:, 0]
        count = self.num_times if self.training else 2 * self.num_times
        place = noise.uniform("points", count) if self.training else 0.5
        steps = torch.arange(count, device=times.device, dtype=times.dtype)
        return times[:, :1] + (steps + place) / count * span[:, None], span

    def _controls(self, law: ResidualLaw, points: Tensor, there: Smoothed, draws: Tensor) -> tuple[Tensor, Tensor]:
        """r(z) and G^T (lambda - Lambda z) at samples of q(z, t), both (S, B, M, m)."""
        z = there.mean + _apply(_root(there.covariance), draws)
        pull = (there.vector - _apply(there.matrix, z)) @ law.linear.noise()
        return law.residual(points, z), pull

    @torch.no_grad()
    def detail(
        self, context: Context, prior: Prior, noise: RowNoise, num_times: int = 64, num_samples: int = 16
    ) -> PathDetail:
        """See `Posterior`: marginal samples with one eps per path."""
        law, times = self._law(prior), context.batch.times
        fraction = torch.linspace(0, 1, num_times, dtype=times.dtype, device=times.device)
        points = times[:, :1] + fraction * (times[:, -1:] - times[:, :1])
        smoothing = self.smoothing(context)
        there = smooth_at(self.core.law, smoothing.filtered, smoothing.information, times, points)
        draws = noise.samples("detail", num_samples, 1, law.state_size).expand(-1, -1, num_times, -1)
        residual, pull = self._controls(law, points, there, draws)
        return PathDetail(points, there.mean + _apply(_root(there.covariance), draws), pull - residual)


def _log_psi(values: Tensor, mask: Tensor, observation: Observation, z: Tensor) -> Tensor:
    """Log-density of the pseudo-observations given states z (S, B, T, d): (S, B)."""
    gap = values - observation.bias - z @ observation.loading.mT
    density = -0.5 * (gap.square() / observation.variance + observation.variance.log() + math.log(2 * math.pi))
    return torch.where(mask, density, torch.zeros_like(density)).sum((-2, -1))


def _gaussian_kl(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> Tensor:
    """KL( N(mean, covariance) || N(other_mean, other_covariance) ) in nats, for mean (B, d)."""
    root = torch.linalg.cholesky(other_covariance)
    own = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(root, torch.cat((own, (mean - other_mean)[..., None]), -1), upper=False)
    log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1) - own.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (white.square().sum((-2, -1)) - mean.shape[-1]) + log_det


def _root(covariance: Tensor) -> Tensor:
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    return torch.linalg.cholesky(covariance + 1e-10 * eye)


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]
