"""How good a forecast was: scores of a `Forecast` against the series that then happened, overall and in tables.

The scores of arrays themselves are in :mod:`neurodyn.metrics.scores` and can be imported from here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from neurodyn.forecast import Forecast
from neurodyn.metrics.scores import (
    absolute_error,
    calibration_curve,
    crps,
    crps_fair,
    energy_score,
    gaussian_nll,
    interval_coverage,
    interval_width,
    log_score,
    masked_mean,
    pit,
    pit_histogram,
    squared_error,
)
from neurodyn.series import SeriesBatch

__all__ = [
    "Scores",
    "absolute_error",
    "calibration_curve",
    "crps",
    "crps_fair",
    "energy_score",
    "evaluate",
    "gaussian_nll",
    "interval_coverage",
    "interval_width",
    "log_score",
    "masked_mean",
    "pit",
    "pit_histogram",
    "score",
    "squared_error",
]

_CHUNK = 2**25  # entries of samples that are sorted at once: bounds the memory of the scores


def evaluate(forecast: Forecast, truth: SeriesBatch, levels: Sequence[float] = (0.5, 0.9)) -> dict[str, float]:
    """Scores of a forecast, each the mean over all observed entries of the truth.

    Args:
        forecast: of the rows of ``truth``, at least at the times of its visits.
        truth: what then happened, in the forecast's units: ``batch.after(...)``. Rows may be empty.
        levels: probabilities of central intervals.

    Returns:
        ``crps``, ``crps_fair``, ``mae`` (of the median) and ``width_90`` in the units of the data; ``mse`` (of the
        mean) in their square; ``gaussian_nll`` in nats; ``coverage_90`` a share, its target the level;
        ``energy_score``, the mean over visits, over whose variables it adds up; ``count``, the entries scored. CRPS,
        energy score and the rest mix the variables: in standardised units all count alike.

    Raises:
        ValueError: see :func:`score`.
    """
    return score(forecast, truth, levels).overall()


def score(
    forecast: Forecast,
    truth: SeriesBatch,
    levels: Sequence[float] = (0.5, 0.9),
    *,
    generator: torch.Generator | None = None,
) -> Scores:
    """Scores of every entry, from which the tables are made. Arguments as :func:`evaluate`.

    Args:
        generator: source of the randomised PIT; seeded with 0 when omitted, so that a report can be made again.

    Raises:
        ValueError: other rows or variables than the truth's, a visit of the truth at a time that was not forecast, a
            truth without an observation, a level outside (0, 1).
    """
    column = _align(forecast, truth)
    if generator is None:
        generator = torch.Generator(forecast.samples.device).manual_seed(0)
    chunks: dict[str, list[Tensor]] = {}
    for rows in _row_chunks(forecast):
        index = column[rows]
        samples = forecast.samples[:, rows]
        samples = samples.gather(2, index[None, :, :, None].expand(samples.shape[0], -1, -1, samples.shape[3]))
        values, mask = truth.values[rows].to(samples), truth.mask[rows].to(samples.device)
        found = {
            "crps": crps(samples, values, mask),
            "mae": absolute_error(samples, values, mask),
            "mse": squared_error(samples, values, mask),
            "pit": pit(samples, values, mask, generator=generator),
            "energy_score": energy_score(samples, values, mask),
        }
        if forecast.num_samples > 1:
            found["crps_fair"] = crps_fair(samples, values, mask)
            found["gaussian_nll"] = gaussian_nll(samples, values, mask)
        for level in levels:
            found[f"coverage_{100 * level:g}"] = interval_coverage(samples, values, level, mask)
            found[f"width_{100 * level:g}"] = interval_width(samples, level, mask)
        for name, table in found.items():
            chunks.setdefault(name, []).append(table)
    tables = {name: torch.cat(parts).cpu() for name, parts in chunks.items()}
    origin = None if forecast.origin is None else forecast.origin.cpu()
    lead = None if origin is None else truth.times.cpu() - origin[:, None]
    energy, values = tables.pop("energy_score"), tables.pop("pit")
    return Scores(tables, energy, values, truth.mask.cpu(), lead, column.cpu(), truth.variables)


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores entry by entry, on the CPU; NaN where the truth was not observed.

    Attributes:
        entries: name to (B, T, D), the names of :func:`evaluate`.
        energy_score: (B, T).
        pit: (B, T, D), randomised.
        mask: (B, T, D) bool, where the truth was observed.
        lead: (B, T), time from the forecast's origin to the visit; None where the forecast has no origin.
        place: (B, T), the number of the visit among the forecast's times.
        variables: D names.
    """

    entries: dict[str, Tensor]
    energy_score: Tensor
    pit: Tensor
    mask: Tensor
    lead: Tensor | None
    place: Tensor
    variables: tuple[str, ...]

    def overall(self) -> dict[str, float]:
        """Means over all observed entries."""
        return self._means(torch.ones_like(self.mask))

    def by_variable(self) -> pd.DataFrame:
        """One line per variable (the index), and ``count``; without the energy score, which joins the variables."""
        lines = []
        for d in range(len(self.variables)):
            chosen = torch.zeros_like(self.mask)
            chosen[..., d] = True
            means = self._means(chosen)
            means.pop("energy_score")
            lines.append(means)
        return pd.DataFrame(lines, index=pd.Index(self.variables, name="variable"))

    def by_horizon(self, edges: Sequence[float] | None = None) -> pd.DataFrame:
        """One line per span of lead time: columns ``from``, ``to``, ``lead`` (mean lead time), then the scores.

        Args:
            edges: increasing lead times that bound the spans, each without its lower and with its upper end. When
                omitted, up to six spans with about as many entries each; or, for a forecast without an origin, one line
                per number of the visit (``from`` = ``to`` = ``lead`` = 1, 2, ...).

        Spans without an observed entry are left out.
        """
        observed = self.mask.any(-1)
        lead = (self.place + 1).double() if self.lead is None else self.lead
        if edges is None and self.lead is None:
            spans = [(float(k), float(k)) for k in lead[observed].unique()]
        else:
            spans = list(_pairs(_equal_spans(lead[observed]) if edges is None else _checked_edges(edges)))
        lines = []
        for low, high in spans:
            chosen = (lead > low) & (lead <= high) if low < high else lead == low
            if bool((chosen & observed).any()):
                where = chosen[..., None] & self.mask
                mean_lead = float(lead[..., None].expand(self.mask.shape)[where].mean())
                lines.append({"from": low, "to": high, "lead": mean_lead, **self._means(where)})
        return pd.DataFrame(lines)

    def by_row(self) -> pd.DataFrame:
        """One line per row of the batch, in its order: the unit to resample in comparisons. NaN for an empty row."""
        lines = []
        for b in range(self.mask.shape[0]):
            chosen = torch.zeros_like(self.mask)
            chosen[b] = True
            lines.append(self._means(chosen))
        return pd.DataFrame(lines)

    def _means(self, chosen: Tensor) -> dict[str, float]:
        means = {name: float(masked_mean(table[chosen])) for name, table in self.entries.items()}
        means["energy_score"] = float(masked_mean(self.energy_score[chosen.any(-1)]))
        return means | {"count": int((self.mask & chosen).sum())}


def _align(forecast: Forecast, truth: SeriesBatch) -> Tensor:
    """(B, T) long: the forecast's column for each visit of the truth (0 at visits without an observation)."""
    if forecast.num_rows != truth.num_rows:
        raise ValueError(f"truth: {truth.num_rows} rows given, {forecast.num_rows} wanted, those of the forecast")
    if forecast.variables != truth.variables:
        raise ValueError(
            f"truth: variables {', '.join(truth.variables)} given, {', '.join(forecast.variables)} wanted, those of "
            "the forecast"
        )
    if truth.ids is not None and forecast.ids != truth.ids:
        row = next(k for k, (a, b) in enumerate(zip(forecast.ids, truth.ids, strict=True)) if a != b)
        raise ValueError(f"truth: row {row} is {truth.ids[row]!r}, want {forecast.ids[row]!r} as in the forecast")
    observed = truth.mask.any(-1).to(forecast.times.device)
    if not bool(observed.any()):
        raise ValueError("truth: nothing observed in any row, at least one entry wanted")
    times = truth.times.to(forecast.times)
    # Undoing a scaling of times may leave the last bits different.
    slack = 1e-9 * (1 + torch.maximum(times.abs(), forecast.times.abs().amax(1, keepdim=True)))
    column = torch.searchsorted(forecast.times, (times - slack).contiguous()).clamp(max=forecast.horizon - 1)
    found = (forecast.times.gather(1, column) - times).abs() <= slack
    found &= forecast.present.gather(1, column)
    missing = (observed & ~found).nonzero()
    if len(missing):
        row, visit = missing[0].tolist()
        raise ValueError(
            f"truth: row {forecast.ids[row]!r} has a visit at {float(times[row, visit]):.9g} that was not forecast "
            f"({len(missing)} such visits); forecast at the truth's times"
        )
    return torch.where(observed, column, 0)


def _row_chunks(forecast: Forecast) -> Iterator[slice]:
    size, rows, horizon, variables = forecast.samples.shape
    step = max(1, _CHUNK // (size * horizon * variables))
    for start in range(0, rows, step):
        yield slice(start, start + step)


def _equal_spans(lead: Tensor, spans: int = 6) -> list[float]:
    """Edges of spans with about as many visits each; fewer where lead times repeat."""
    inner = torch.quantile(
        lead.double(), torch.arange(1, spans + 1, dtype=torch.float64) / spans, interpolation="lower"
    )
    start = min(0.0, float(lead.min()) - 1e-9)
    return [start, *[e for e in inner.unique().tolist() if e > start]]


def _checked_edges(edges: Sequence[float]) -> list[float]:
    given = [float(e) for e in edges]
    if len(given) < 2 or any(b <= a for a, b in _pairs(given)):
        raise ValueError(f"edges: want at least two increasing lead times, got {given}")
    return given


def _pairs(edges: Sequence[float]) -> Iterator[tuple[float, float]]:
    return zip(edges, edges[1:], strict=False)
