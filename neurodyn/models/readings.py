"""The diagnostics of a fitted latent SDE on a batch of series, as its report shows them."""

from __future__ import annotations

import torch
from torch import Tensor

from neurodyn.diagnostics import Diagnostic, diffusion_collapse, drift_gap, forecast_calibration, posterior_collapse
from neurodyn.models.latent_sde import LatentSDE
from neurodyn.noise import RowNoise
from neurodyn.posteriors.base import PathDetail
from neurodyn.posteriors.matched import MatchedPosterior
from neurodyn.posteriors.simulated import SimulatedPosterior
from neurodyn.series import SeriesBatch
from neurodyn.solvers.solve import sdeint

MAX_ROWS = 64
"""Rows that are looked at: enough for a verdict, and few enough to be quick."""


@torch.no_grad()
def read_latent_sde(model: LatentSDE, batch: SeriesBatch, pit: Tensor | None = None) -> list[Diagnostic]:
    """Posterior collapse, diffusion collapse, drift gap, and the calibration of forecasts where their PIT is given.

    The diffusion is looked at for matched and simulated posteriors of laws with diagonal noise; the smoother of a
    linear core has the core's diffusion by construction.

    Args:
        model: on any device.
        batch: series to infer. Rows with two visits or more are looked at, of more than `MAX_ROWS` the first; where
            there are not two such rows, only the forecasts are.
        pit: of forecasts, from `neurodyn.metrics.score`.
    """
    device = next(model.parameters()).device
    calibration = [] if pit is None else [forecast_calibration(pit)]
    moving = (batch.present.sum(1) > 1).nonzero()[:MAX_ROWS, 0]
    if len(moving) < 2:
        return calibration
    batch = batch.rows(moving).compact().to(device, next(model.encoder.parameters()).dtype)
    noise = RowNoise.of(batch, torch.Generator().manual_seed(0))
    context = model.encoder(batch)
    loss = model.loss(batch, generator=torch.Generator().manual_seed(0))
    z = model.posterior(context, model.prior, noise, num_samples=16).z
    found = [posterior_collapse(loss.initial_kl + loss.path_kl, z, batch.present)]
    detail = model.posterior.detail(context, model.prior, noise, num_times=100)
    paths = _paths(model, context, z[0, :, 0], detail, noise)
    if paths is not None:
        found.append(diffusion_collapse(paths, detail.times, model.prior.sde.diffusion(detail.times, paths)))
    control = detail.control
    found.append(drift_gap(control, torch.zeros_like(control), torch.ones_like(control), detail.times))
    return found + calibration


def _paths(model: LatentSDE, context: object, start: Tensor, detail: PathDetail, noise: RowNoise) -> Tensor | None:
    """Real posterior paths on the detail's times, (S, B, N, d), where the diffusion is a coordinate's own."""
    if model.prior.sde.noise_type != "diagonal":
        return None
    if isinstance(model.posterior, SimulatedPosterior):
        return detail.z
    if not isinstance(model.posterior, MatchedPosterior):
        return None
    law = model.posterior.law(context, model.prior.sde)  # type: ignore[arg-type]
    return sdeint(law, start, detail.times, dt=model.longest_step, seeds=noise)[None]
