"""What every loader returns, and the cut of rows into what is known and what is to be forecast."""

from __future__ import annotations

from typing import Any, NamedTuple

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
