"""Visits that a model's encoder is not shown, and visits that it is asked about."""

from __future__ import annotations

import torch
from torch import Tensor

from neurodyn.noise import RowNoise
from neurodyn.series import SeriesBatch


def hide_visits(batch: SeriesBatch, noise: RowNoise, largest: float) -> SeriesBatch:
    """The batch with a random share of each row's visits unobserved, uniform between none and `largest`.

    Visits keep their times, and each row at least one of them its values. For training an encoder that is to
    interpolate: what it reads of the batch, while the whole of it is to be explained.
    """
    present = batch.present
    draw = torch.where(present, noise.uniform("hidden visits", batch.num_times), -1.0)
    share = largest * noise.uniform("hidden share")[:, None]
    seen = batch.mask & ((draw >= share) | (draw == draw.amax(1, keepdim=True)))[..., None]
    return batch._with(mask=seen, values=torch.where(seen, batch.values, 0))


def ask_at(batch: SeriesBatch, times: Tensor) -> tuple[SeriesBatch, Tensor]:
    """A compact batch with unobserved visits at more times (B, H), in the order of time; and where those are, (B, H).

    Raises:
        ValueError: times of another shape or not finite; a batch with covariates, which are not known there.
    """
    rows = batch.num_rows
    given = torch.as_tensor(times).to(batch.times)
    if given.ndim not in (1, 2) or given.numel() == 0 or (given.ndim == 2 and len(given) != rows):
        raise ValueError(f"times: shape {tuple(given.shape)} given, ({rows}, H) or (H,) with H >= 1 wanted")
    if not bool(given.isfinite().all()):
        raise ValueError("times: some that are not finite given, finite ones wanted")
    if batch.covariates is not None:
        raise ValueError("batch: covariates given, none wanted: they are not known at other times than the visits'")
    given = given.expand(rows, -1)
    end = torch.maximum(batch.last_time, given.amax(1))[:, None]
    joined, order = torch.cat((torch.where(batch.present, batch.times, end), given), 1).sort(dim=1, stable=True)
    wide = order[..., None].expand(-1, -1, batch.num_variables)
    pad = (0, 0, 0, given.shape[1])
    values, mask = (torch.nn.functional.pad(part, pad).gather(1, wide) for part in (batch.values, batch.mask))
    return batch._with(times=joined, values=values, mask=mask), order.argsort(1)[:, batch.num_times :]
