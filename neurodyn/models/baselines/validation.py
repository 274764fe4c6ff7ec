"""The score by which forecasters choose their weights: CRPS of their forecasts of the validation rows' later visits."""

from __future__ import annotations

import torch
from torch import nn

from neurodyn.metrics.scores import crps_fair
from neurodyn.series import SeriesBatch

FRACTIONS = (0.3, 0.5, 0.7)


@torch.no_grad()
def forecast_crps(model: nn.Module, batch: SeriesBatch, num_samples: int = 40) -> float:
    """Mean fair CRPS of all values after cuts at 30, 50 and 70 % of each row's visits.

    The random numbers are the same at every call.

    Args:
        model: has `forecast(history, times, num_samples, generator=)`.

    Raises:
        ValueError: no row has two visits.
    """
    total, count = 0.0, 0
    for fraction in FRACTIONS:
        history, after = batch.history(fraction=fraction), batch.after(fraction=fraction)
        generator = torch.Generator().manual_seed(0)
        forecast = model.forecast(history, after.times, num_samples, generator=generator)  # type: ignore[operator]
        scores = crps_fair(forecast.samples, after.values, after.mask)
        total += float(scores[after.mask].double().sum())
        count += int(after.mask.sum())
    if count == 0:
        raise ValueError("validation: no row with two or more visits given, so there is nothing to forecast")
    return total / count
