"""What an encoder hands to a posterior, and the quantities that every encoder of irregular series reads."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from neurodyn.series import SeriesBatch


class Context(NamedTuple):
    """An encoded batch.

    ``features`` at a visit where nothing is observed are the encoder's state there; they exist so that such visits can
    be asked about, and they never influence the features of other visits.
    """

    batch: SeriesBatch
    features: Tensor
    """(B, T, C), one vector per visit; (B, K, C) where the encoder gives `places`."""
    summary: Tensor
    """(B, C), a function of the row's observed visits only."""
    places: Tensor | None = None
    """(B, K), the visits that the features stand at, for encoders that leave some out; None: at every visit."""

    @property
    def times(self) -> Tensor:
        """(B, K) float64: when the features are."""
        return self.batch.times if self.places is None else self.batch.times.gather(1, self.places)

    def at_visits(self) -> Tensor:
        """The features (B, T, C), for parts that need them at every visit.

        Raises:
            ValueError: an encoder that leaves visits out.
        """
        if self.places is not None:
            raise ValueError("encoder: one with features at some visits given, one with features at every visit wanted")
        return self.features


class VisitInputs(NamedTuple):
    """What both encoders read at each visit, free of whatever the batch holds under a False mask."""

    values: Tensor
    """(B, T, D), zero where nothing is observed."""
    mask: Tensor
    """(B, T, D) bool."""
    present: Tensor
    """(B, T) bool: something is observed at this visit."""
    times: Tensor
    """(B, T) float64, relative to the row's first observed visit."""
    extra: Tensor
    """(B, T, num_covariates + num_static): covariates of the visit, then the row's static features."""


def visit_inputs(batch: SeriesBatch, num_variables: int, num_covariates: int, num_static: int) -> VisitInputs:
    """Check the batch's sizes against the encoder's, and take out what an encoder reads.

    Covariates and static features are read only if the encoder was made for them (their number above zero).

    Raises:
        ValueError: the batch has another number of variables, covariates or static features than the encoder.
    """
    values, mask = batch.values, batch.mask
    if values.shape[-1] != num_variables:
        raise ValueError(f"batch: got {values.shape[-1]} variables, want {num_variables} as the encoder was made for")
    extra = [values.new_zeros((*values.shape[:2], 0))]
    for name, table, wanted in (("covariates", batch.covariates, num_covariates), ("static", batch.static, num_static)):
        if wanted == 0:
            continue
        given = 0 if table is None else table.shape[-1]
        if table is None or given != wanted:
            raise ValueError(f"batch.{name}: got {given} columns, want {wanted} as the encoder was made for")
        table = table.to(values.dtype)
        extra.append(table if table.ndim == 3 else table.unsqueeze(1).expand(-1, values.shape[1], -1))
    return VisitInputs(
        values=torch.where(mask, values, torch.zeros_like(values)),
        mask=mask,
        present=batch.present,
        times=batch.times - batch.first_time.unsqueeze(1),
        extra=torch.cat(extra, -1),
    )


def last_observed_index(mask: Tensor) -> Tensor:
    """Index along dim 1 of the latest True at or before each position, -1 where there is none yet; same shape."""
    steps = torch.arange(mask.shape[1], device=mask.device).view(1, -1, *[1] * (mask.ndim - 2))
    return torch.where(mask, steps, torch.full_like(steps, -1)).cummax(1).values
