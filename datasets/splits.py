"""What every loader returns, and the cut of rows into what is known and what is to be forecast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from neurodyn.series import SeriesBatch


class Splits(NamedTuple):
    """A data set ready for use, in its own units (`Scaling.fit(train, log=info["log"])` standardises).

    `info` holds at least: `name`, `source`, `licence`, `citation`, `time_unit` (of times), `log` (names of variables to
    take logarithms of), `protocols` (name to the arguments of `histories`) and `static_names`.
    """

    train: SeriesBatch
    validation: SeriesBatch
    test: SeriesBatch
    info: dict[str, Any]


def histories(
    batch: SeriesBatch,
    *,
    until: float | Tensor | None = None,
    fraction: float | None = None,
    count: int | Tensor | None = None,
) -> tuple[SeriesBatch, SeriesBatch]:
    """(history, future) of the rows that have observed visits on both sides of the cut, in the same order.

    Exactly one argument is given, as in `SeriesBatch.history`; a tensor has one entry per row of `batch`.

    Raises:
        ValueError: if no row has visits on both sides.
    """
    cut: dict[str, Any] = {"until": until, "fraction": fraction, "count": count}
    later = batch.after(**cut).present.sum(1)
    both = ((later > 0) & (later < batch.present.sum(1))).cpu()
    if not both.any():
        given = next(f"{name}={value}" for name, value in cut.items() if value is not None)
        raise ValueError(
            f"{given}: none of {batch.num_rows} rows has visits on both sides of the cut, at least one wanted"
        )
    chosen = batch.rows(both)
    mine: dict[str, Any] = {k: v[both.to(v.device)] if isinstance(v, Tensor) and v.ndim else v for k, v in cut.items()}
    return chosen.history(**mine), chosen.after(**mine)


def stratified(labels: Tensor | None, fractions: Sequence[float], seed: int) -> list[Tensor]:
    """Row indices of a random split, every class split by itself; each part gets one row of each class at least.

    Raises:
        ValueError: no labels, or a class with fewer rows than there are parts.
    """
    if labels is None:
        raise ValueError("labels: none given, class codes (B,) wanted")
    codes = labels.cpu().numpy()
    rng = np.random.default_rng(seed)
    parts: list[list[int]] = [[] for _ in fractions]
    for code in np.unique(codes):
        own = rng.permutation(np.flatnonzero(codes == code))
        if len(own) < len(parts):
            raise ValueError(f"labels: {len(own)} rows of class {code} given, {len(parts)} or more wanted")
        edges = np.round(np.cumsum((0.0, *fractions)) * len(own)).astype(int)
        for k in range(1, len(parts)):  # room for one row in every part on both sides of an edge
            edges[k] = np.clip(edges[k], edges[k - 1] + 1, len(own) - (len(parts) - k))
        for part, low, high in zip(parts, edges[:-1], edges[1:], strict=True):
            part += own[low:high].tolist()
    return [torch.tensor(sorted(part)) for part in parts]
