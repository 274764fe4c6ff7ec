"""A simulated posterior that begins as the bridges of `neurodyn.posteriors.bridge`, for latents that are the variables.

SCOTCH (Wang, Jennings and Gong, ICLR 2024, arXiv 2311.03309) simulates a posterior dz = h(z, t) dt + g dW whose drift h
knows nothing of the prior's. From scratch it has to learn, through an encoder, where the next values are, before the
graph sees a path that is worth explaining. Here

    h(z, t) = m'(t) + (m(t) - z) / (v + r) + g u(z, t),

with m the smooth curve through the values, v the time that is left to the variable's own next value, r a learned slack
(variance of the observation noise over g²), and u learned: affine in z along curves of v, with a network of z, both
from the encoder's context (`SimulatedPosterior`). With u = 0 and r = 0 these are Brownian bridges about m, the matched
posterior; and u can leave them. Steps are Euler's, their width that of the exact bridge under Euler's noise, and the KL
is that of the two discretised laws, Gaussian step by step.
"""

from __future__ import annotations

import math
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from neurodyn.nets.context import Context
from neurodyn.nets.spline import hermite_piece
from neurodyn.noise import RowNoise
from neurodyn.posteriors.base import PosteriorPaths
from neurodyn.posteriors.bridge import PACE, Curves, curves_of
from neurodyn.posteriors.simulated import NARROWEST, SimulatedPosterior
from neurodyn.sde.base import Time
from neurodyn.sde.prior import Prior
from neurodyn.series import SeriesBatch
from neurodyn.solvers.brownian import Brownian
from neurodyn.solvers.grid import Grid, packed_grid
from neurodyn.solvers.native import integrate


class GuidedPosterior(nn.Module):
    """See the module. For priors with diagonal noise.

    Args:
        size: D. context_size: of the encoder's features.
        longest_step: of the grid, in units of time.
        noise: (D,), standard deviation of the observation noise to begin with.
        scale: (D,), the prior's diffusion to begin with.
        bend: (D,), shares of the spline's bends to begin with; 1 if not given.
    """

    def __init__(
        self,
        size: int,
        context_size: int,
        *,
        longest_step: float,
        noise: Tensor,
        scale: Tensor,
        bend: Tensor | None = None,
    ) -> None:
        super().__init__()
        coupling = "full" if size <= 32 else "diagonal"
        self.size, self.longest_step = size, longest_step
        self.steering = SimulatedPosterior(size, size, context_size, longest_step=longest_step, coupling=coupling)  # type: ignore[arg-type]
        self.log_slack = nn.Parameter(2 * (noise / scale).log())
        self.register_buffer("width", noise.clone())
        self.width: Tensor
        self.slow_bend = nn.Parameter((torch.ones(size) if bend is None else bend) / PACE)
        self._guides: WeakKeyDictionary[SeriesBatch, tuple[Grid, Curves]] = WeakKeyDictionary()

    def forward(self, context: Context, prior: Prior, noise: RowNoise, num_samples: int = 1) -> PosteriorPaths:
        """As `Posterior.forward`."""
        batch, law = context.batch, prior.sde
        known = self._guides.get(batch)
        if known is None:
            known = self._guides[batch] = (packed_grid(batch.times, self.longest_step), curves_of(batch, math.inf))
        grid, curves = known
        z0, initial_kl = self._begin(context, prior, noise, num_samples)
        if batch.num_times == 1:
            return PosteriorPaths(z0[:, :, None], torch.zeros_like(initial_kl), initial_kl)
        guide = self._guide(grid, curves, batch)
        control = self.steering.control_at(context, grid.times[:, :-1], grid.gaps)
        steps = grid.steps.to(z0)
        assert control.pull is not None
        log_variance = guide.log_variance - NARROWEST * torch.tanh(steps[..., None] * control.pull / NARROWEST)
        spread = (0.5 * log_variance).exp().unbind(1)
        rate, at, pull = (part.unbind(1) for part in (guide.rate, guide.at, guide.pull))

        def drift(k: int, t: Time, z: Tensor) -> Tensor:
            return rate[k] + pull[k] * (at[k] - z) + law.diffusion(t, z) * control(k, z)

        def diffusion(k: int, t: Time, z: Tensor) -> Tensor:
            return law.diffusion(t, z) * spread[k]

        brownian = Brownian(grid, z0.shape[:-1], self.size, seeds=noise, dtype=z0.dtype, device=z0.device)
        path = integrate(drift, diffusion, z0, grid, brownian, method="euler")
        # the graphs of a law stand beside samples and rows: steps go in front of them
        points, t = path.points.movedim(-2, 0), grid.times[:, :-1].mT[:, None]
        steered = guide.along(path.points).movedim(-2, 0)
        miss = (steered - law.drift(t, points)) / law.diffusion(t, points) + control.along(path.points).movedim(-2, 0)
        width = 0.5 * (torch.expm1(log_variance) - log_variance) * (steps > 0)[..., None]
        paid = 0.5 * (miss.square().sum(-1) * steps.mT[:, None]).sum(0).mean(0) + width.sum((1, 2))
        assert grid.places is not None
        index = grid.places[..., None].expand(*z0.shape[:-1], grid.places.shape[1], self.size)
        return PosteriorPaths(path.states.gather(-2, index), paid, initial_kl)

    def _begin(self, context: Context, prior: Prior, noise: RowNoise, num_samples: int) -> tuple[Tensor, Tensor]:
        """At the first visit: about the values, where there are any, as wide as their noise."""
        batch = context.batch
        mean, root = self.steering.start(context, prior)
        seen = batch.mask[:, 0]
        mean = mean + torch.where(seen, batch.values[:, 0], 0.0)
        root = torch.where(seen, self.width, 1.0)[..., None] * root
        eps = noise.samples("start", num_samples, self.size, dtype=mean.dtype)
        return mean + (root @ eps[..., None])[..., 0], prior.initial.kl_from(mean, root)

    def _guide(self, grid: Grid, curves: Curves, batch: SeriesBatch) -> _Guide:
        """Curve, its rate and the pull towards it, for all steps at once."""
        query = grid.times.repeat_interleave(self.size, 0)
        values, slopes = curves.values[..., :1], curves.slopes[..., :1]
        piece = hermite_piece(curves.knots, values, slopes, slopes, query)
        bend = (PACE * self.slow_bend).repeat(batch.num_rows)[:, None, None]
        curve = piece._replace(bend0=bend * piece.bend0, bend1=bend * piece.bend1).value()
        # to the own next value; before the first one that is the next, after the last one there is none
        early = (curves.knots[:, :1] - query)[..., None].to(curve)
        left = torch.where(early > 0, early, piece.length * (1 - piece.u) * piece.proper)

        def by_row(table: Tensor) -> Tensor:  # (B D, N + 1, 1) to (B, N + 1, D)
            return table[..., 0].unflatten(0, (batch.num_rows, self.size)).transpose(1, 2)

        at, left = by_row(curve), by_row(left)[:, :-1]
        length = grid.steps.to(at)[..., None]
        moving = (left > 0) & (length > 0)
        pull = torch.where(moving, 1 / (torch.where(moving, left, 1.0) + self.log_slack.exp()), 0.0)
        rate = torch.where(length > 0, at.diff(dim=1) / torch.where(length > 0, length, 1.0), 0.0)
        log_variance = torch.log1p(-(pull * length).clamp(max=1 - 1e-6))
        return _Guide(rate, at[:, :-1], pull, log_variance)


class _Guide(NamedTuple):
    """(B, N, D) each: the curve's mean rate over a step, the curve, the pull towards it, log of the step's variance."""

    rate: Tensor
    at: Tensor
    pull: Tensor
    log_variance: Tensor

    def along(self, points: Tensor) -> Tensor:
        """The guide's drift at points (..., B, N, D)."""
        return self.rate + self.pull * (self.at - points)
