"""One small `LinearSDE` per variable: what the exact smoother and filter of each variable alone can say."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from neurodyn.forecast import Forecast
from neurodyn.models.linear_sde import LinearSDE
from neurodyn.noise import RowNoise
from neurodyn.series import SeriesBatch

ROWS = 600  # training rows with the variable, at most: three or four parameters need no more


class PerVariable:
    """Level and Ornstein-Uhlenbeck part of each variable by itself, fitted by exact evidence."""

    def fit(self, train: SeriesBatch) -> Self:
        """Fit all of them."""
        self.models = []
        for k in range(train.num_variables):
            have = train.mask[..., k].any(1).nonzero()[:ROWS, 0]
            self.models.append(LinearSDE(1, ("level", "ou")).fit(_alone(train, have, k), max_iterations=25))
        return self

    def interpolate(
        self, batch: SeriesBatch, times: Tensor, num_samples: int, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Means of the exact smoother, (1, B, H, D); of the prior where the row has no value of the variable."""
        filled = batch.values.new_zeros(1, *times.shape, batch.num_variables)
        for k, model in enumerate(self.models):
            have = batch.mask[..., k].any(1).nonzero()[:, 0]
            filled[..., k] = float(model.core.initial().mean[0] + model.core.observation().bias[0])
            if len(have):
                mean, _ = model.smooth(_alone(batch, have, k), times[have])
                filled[0, have, :, k] = mean[..., 0].to(filled)
        return filled

    def forecast(
        self, history: SeriesBatch, times: Tensor, num_samples: int, *, generator: torch.Generator | None = None
    ) -> Forecast:
        """Samples of each variable's exact predictive law, independent over variables; of its prior's where the row has
        no value of it."""
        noise = RowNoise.of(history, generator)
        samples = history.values.new_zeros(num_samples, *times.shape, history.num_variables)
        for k, model in enumerate(self.models):
            start, reading = model.core.initial(), model.core.observation()
            level, motion = (
                noise.samples(f"level {k}", num_samples, 1),
                noise.samples(f"rest {k}", num_samples, times.shape[1]),
            )
            rest = (start.covariance[1, 1] + reading.variance[0]).sqrt()
            samples[..., k] = (
                (start.mean[0] + start.covariance[0, 0].sqrt() * level + rest * motion).detach().to(samples)
            )
            have = history.mask[..., k].any(1).nonzero()[:, 0]
            if len(have):
                own = RowNoise.keyed(noise.keys[have] + k)
                found = model.sample_forecast(_alone(history, have, k), times[have], num_samples, own)
                samples[:, have, :, k] = found[..., 0].to(samples)
        return Forecast.of(history, times, samples)


def _alone(batch: SeriesBatch, rows: Tensor, variable: int) -> SeriesBatch:
    own = slice(variable, variable + 1)
    return SeriesBatch(batch.times[rows], batch.values[rows][..., own], batch.mask[rows][..., own]).compact()
