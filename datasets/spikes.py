"""Spikes as series: counts in regular bins, one row per trial, one variable per neuron.

A population is a `SeriesBatch` like any other: the times of its visits are the starts of its bins, in seconds from what
a trial is aligned to; a NaN count is an unobserved entry; `covariates` hold behaviour in the same bins. Held-out
neurons are positions of variables that a model is told not to read, and bins to predict are bins whose mask is False.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from neurodyn.series import SeriesBatch

Array = NDArray[Any]


def spike_batch(
    counts: ArrayLike,
    bin_width: float,
    *,
    start: float = 0.0,
    behaviour: ArrayLike | None = None,
    variables: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    labels: Tensor | None = None,
    complete: bool = True,
) -> SeriesBatch:
    """Counts (trials, bins, neurons) as a batch; NaN is unobserved, and so is what a short trial lacks at its end.

    Args:
        bin_width: in s. start: of the first bin, in s.
        behaviour: (trials, bins, columns), finite where any neuron is observed.
        variables: names of neurons. ids: names of trials. labels: (trials,), for instance conditions.
        complete: ask for a spike of every neuron, and an observation of it in every trial, as training needs them.

    Raises:
        ValueError: a count that is negative or no whole number, a neuron without a spike or without an observation in
            some trial, behaviour that is NaN: named with its trial and neuron.
    """
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 3 or 0 in table.shape:
        raise ValueError(f"counts: shape {table.shape} given, (trials, bins, neurons), none of them 0, wanted")
    if not bin_width > 0:
        raise ValueError(f"bin_width: {bin_width} given, a positive number of seconds wanted")
    trials, bins, neurons = table.shape
    names = tuple(variables) if variables is not None else tuple(f"n{k + 1}" for k in range(neurons))
    rows = tuple(ids) if ids is not None else tuple(f"trial-{k}" for k in range(trials))
    known: Array = ~np.isnan(table)
    if where := _first(known & ((table < 0) | (table != np.round(table)))):
        row, bin_, unit = where
        raise ValueError(
            f"counts: {table[row, bin_, unit]:g} given for neuron {names[unit]} in bin {bin_} of {rows[row]}, "
            "whole numbers from 0 wanted"
        )
    if complete and (where := _first(~known.any(1))):
        row, unit = where
        raise ValueError(
            f"counts: neuron {names[unit]} has no observed bin in {rows[row]}, one in every trial wanted; leave out "
            "the neuron or the trial"
        )
    silent: Array = np.nansum(table, (0, 1)) == 0
    if complete and (where := _first(silent)):
        raise ValueError(f"counts: neuron {names[where[0]]} is silent in all {trials} trials, one spike wanted")
    moves = None
    if behaviour is not None:
        moves = np.asarray(behaviour, dtype=np.float64)
        if moves.shape[:2] != (trials, bins) or moves.ndim != 3:
            raise ValueError(f"behaviour: shape {moves.shape} given, ({trials}, {bins}, columns) wanted")
        missing: Array = np.isnan(moves) & np.any(known, axis=2, keepdims=True)
        if where := _first(missing):
            row, bin_, column = where
            raise ValueError(
                f"behaviour: NaN in column {column} at bin {bin_} of {rows[row]}, a number at every observed bin "
                "wanted; cut the trial there"
            )
    dtype = torch.get_default_dtype()
    return SeriesBatch(
        (start + bin_width * torch.arange(bins, dtype=torch.float64)).expand(trials, -1).clone(),
        torch.as_tensor(np.nan_to_num(table), dtype=dtype),
        torch.as_tensor(known),
        None if moves is None else torch.as_tensor(np.nan_to_num(moves), dtype=dtype),
        labels=labels,
        ids=rows,
        variables=names,
    )


def counts_of(batch: SeriesBatch) -> Array:
    """Counts (trials, bins, neurons), NaN where unobserved."""
    return torch.where(batch.mask, batch.values.double(), torch.nan).cpu().numpy()


class Window(NamedTuple):
    """Bins of a trial: from `start` to `stop`, in s from what it is aligned to, in bins of `bin_width` s."""

    start: float
    stop: float
    bin_width: float

    @property
    def bins(self) -> int:
        """How many.

        Raises:
            ValueError: bins that do not divide the window, or none.
        """
        exact = (self.stop - self.start) / self.bin_width if self.bin_width > 0 else 0.0
        if not exact >= 1 or abs(exact - round(exact)) > 1e-6:
            raise ValueError(
                f"window: {self.start:g} to {self.stop:g} s given with bins of {self.bin_width:g} s, which make "
                f"{exact:g} bins, a whole number from 1 wanted"
            )
        return round(exact)

    @property
    def edges(self) -> Array:
        """(bins + 1,), in s."""
        return self.start + self.bin_width * np.arange(self.bins + 1)


def bin_spikes(
    times: ArrayLike,
    units: ArrayLike,
    aligned: ArrayLike,
    window: Window,
    *,
    num_units: int | None = None,
    spans: ArrayLike | None = None,
    ids: Sequence[str] | None = None,
) -> Array:
    """Counts (trials, bins, units) of a recording around the times to which trials are aligned.

    A spike belongs to the bin with edge <= time < next edge.

    Args:
        times: of spikes, in s, in any order. units: of each spike, 0 to num_units - 1.
        aligned: (trials,), in s.
        spans: (trials, 2), begin and end of what was recorded for each trial, in s. A trial that begins after its
            window or ends before it is an error.
        ids: names of trials, for messages.

    Raises:
        ValueError: arrays that do not fit, bins that do not divide the window, a trial shorter than the window.
    """
    spikes, unit = np.asarray(times, dtype=np.float64), np.asarray(units)
    zero = np.asarray(aligned, dtype=np.float64)
    if spikes.shape != unit.shape or spikes.ndim != 1:
        raise ValueError(f"times, units: shapes {spikes.shape} and {unit.shape} given, one unit per spike wanted")
    count = num_units if num_units is not None else (int(unit.max()) + 1 if len(unit) else 0)
    if len(unit) and (unit.min() < 0 or unit.max() >= count):
        raise ValueError(f"units: {unit.min()} to {unit.max()} given, 0 to {count - 1} wanted")
    names = list(ids) if ids is not None else [f"trial-{k}" for k in range(len(zero))]
    edges = window.edges
    if spans is not None:
        limits = np.asarray(spans, dtype=np.float64)
        short = (limits[:, 0] > zero + edges[0] + 1e-9) | (limits[:, 1] < zero + edges[-1] - 1e-9)
        if where := _first(short):
            (row,) = where
            begin, end = limits[row] - zero[row]
            raise ValueError(
                f"trials: {names[row]} covers {begin:g} to {end:g} s of its alignment, the window {edges[0]:g} to "
                f"{edges[-1]:g} s wanted; shorten the window or leave the trial out"
            )
    order = np.argsort(spikes, kind="stable")
    spikes, unit = spikes[order], unit[order].astype(int)
    found = np.zeros((len(zero), len(edges) - 1, count))
    for row, at in enumerate(zero):
        low, high = np.searchsorted(spikes, (at + edges[0] - 1e-9, at + edges[-1] + 1e-9))
        # a spike on an edge belongs to the bin that begins there, rounding of the sums, of about a ns, aside
        place = np.floor((spikes[low:high] - at - window.start + 5e-10) / window.bin_width).astype(int)
        inside = (place >= 0) & (place < len(edges) - 1)
        np.add.at(found[row], (place[inside], unit[low:high][inside]), 1)
    return found


def sample_behaviour(
    times: ArrayLike, values: ArrayLike, aligned: ArrayLike, window: Window, lag: float = 0.0
) -> Array:
    """A signal (n, columns) at times (n,) averaged over the bins of each trial, `lag` s later: (trials, bins, columns).

    Bins without a finite sample get the value interpolated at their middle from neighbours within one bin, else NaN.
    """
    t, signal = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    signal = signal.reshape(len(t), -1)
    zero = np.asarray(aligned, dtype=np.float64)
    good = np.isfinite(signal).all(1)
    t, signal = t[good], signal[good]
    edges = window.edges + lag
    found = np.full((len(zero), len(edges) - 1, signal.shape[1]), np.nan)
    middles = (edges[1:] + edges[:-1]) / 2
    total = np.concatenate([np.zeros((1, signal.shape[1])), np.cumsum(signal, 0)])
    for row, at in enumerate(zero):
        index = np.searchsorted(t, at + edges - 1e-9)
        size = np.diff(index)
        full = size > 0
        found[row, full] = (total[index[1:]] - total[index[:-1]])[full] / size[full, None]
        for k in np.flatnonzero(~full):
            right = min(index[k], len(t) - 1)
            left = max(right - 1, 0)
            middle = at + middles[k]
            if len(t) and max(abs(t[left] - middle), abs(t[right] - middle)) <= 1.5 * window.bin_width:
                found[row, k] = [
                    np.interp(middle, t[left : right + 1], column) for column in signal[left : right + 1].T
                ]
    return found


def read_spike_table(
    spikes: pd.DataFrame | Path | str,
    trials: pd.DataFrame | Path | str,
    window: Window,
    *,
    time: str = "time",
    unit: str = "unit",
    align: str = "start",
    stop: str | None = None,
    label: str | None = None,
) -> SeriesBatch:
    """A batch from a table with a line per spike and one with a line per trial, frames or CSV or parquet files.

    Args:
        time, unit: columns of `spikes`: seconds of the session, and which neuron, any names.
        align: column of `trials`: the second to which the window belongs. stop: its end, if trials may be too short.
        label: column of `trials` that becomes `labels`, as codes of its sorted values.

    Raises:
        ValueError: a column that is not there, and what `bin_spikes` and `spike_batch` raise.
    """
    fired, table = _frame(spikes), _frame(trials)
    for name, frame, wanted in (("spikes", fired, (time, unit)), ("trials", table, (align, stop, label))):
        if missing := [column for column in wanted if column is not None and column not in frame.columns]:
            raise ValueError(f"{name}: no column {missing[0]!r}, one of {list(map(str, frame.columns))} wanted")
    codes, names = pd.factorize(fired[unit], sort=True)
    zero = table[align].to_numpy(float)
    spans = None if stop is None else np.stack([zero + window.start, table[stop].to_numpy(float)], 1)
    ids = [f"trial-{k}" for k in table.index]
    counts = bin_spikes(fired[time].to_numpy(float), codes, zero, window, num_units=len(names), spans=spans, ids=ids)
    labels = None if label is None else torch.as_tensor(pd.factorize(table[label], sort=True)[0])
    return spike_batch(
        counts, window.bin_width, start=window.start, variables=[str(n) for n in names], ids=ids, labels=labels
    )


def _frame(given: pd.DataFrame | Path | str) -> pd.DataFrame:
    if isinstance(given, pd.DataFrame):
        return given
    path = Path(given)
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def _first(bad: ArrayLike) -> list[int]:
    found = np.argwhere(np.asarray(bad))
    return found[0].tolist() if len(found) else []
