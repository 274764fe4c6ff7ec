"""Recordings in NWB files (extra `neural`), read with pynwb: spike times of `units`, one row of `trials` per trial, and
behaviour from the processing modules or the acquisition. A column `heldout` of `units` and a column `split` of `trials`
mean what they mean in the files of the Neural Latents Benchmark (`neurodyn.datasets.neural_latents`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurodyn.datasets.sources import unreadable
from neurodyn.datasets.spikes import Window, bin_spikes, sample_behaviour, spike_batch
from neurodyn.series import SeriesBatch
from neurodyn.spelling import nearest

Array = NDArray[Any]


class Session(NamedTuple):
    """What a file holds, times in s from the begin of the session.

    file: its name. times, units: of spikes, in order of time. names, held_out: of units. recorded: intervals (k, 2) by
    unit, or None where the file does not say. trials: the trial table. signal: times (n,) and values (n, ...), or None.
    """

    file: str
    times: Array
    units: Array
    names: tuple[str, ...]
    held_out: Array
    recorded: list[Array] | None
    trials: pd.DataFrame
    signal: tuple[Array, Array] | None

    def counts(self, zero: Array, window: Window, **options: Any) -> Array:
        """Counts (trials, bins, units) around the times `zero` (trials,); options of `bin_spikes`."""
        return bin_spikes(self.times, self.units, zero, window, num_units=len(self.names), **options)

    def chosen(self, align: str, split: str | Sequence[str] | None) -> pd.DataFrame:
        """Trials of these values of `split`, all if None, that have a time `align`.

        Raises:
            ValueError: a column that is not there; no such trial.
        """
        table = self.trials
        for column in (align, *(() if split is None else ("split",))):
            if column not in table.columns:
                raise ValueError(
                    f"trials: no column {column!r} in {self.file}{nearest(column, table.columns)}, "
                    f"one of {list(table.columns)} wanted"
                )
        if split is not None:
            table = table[table["split"].isin((split,) if isinstance(split, str) else split)]
        table = table[table[align].notna()]
        if table.empty:
            raise ValueError(
                f"trials: none with a time {align!r} and split {split!r} in {self.file}, one at least wanted"
            )
        return table


class Recording(NamedTuple):
    """Trials of a file.

    batch: counts, one variable per unit. held_out: positions of units that the file marks as `heldout`.
    behaviour: (trials, bins, columns), NaN where the file has none, or None. trials: the rows of the trial table.
    observed: bins of the window; what the batch has after them is to be predicted.
    """

    batch: SeriesBatch
    held_out: tuple[int, ...]
    behaviour: Array | None
    trials: pd.DataFrame
    observed: int


def open_nwb(path: Path | str, behaviour: str | None = None) -> Session:
    """A file in memory, with the time series `behaviour`.

    Raises:
        ValueError: no units, trials or series of that name; a file that cannot be read. ImportError: without pynwb.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there")
    try:
        from pynwb import NWBHDF5IO
    except ImportError as error:
        raise ImportError("pynwb is needed for NWB files: pip install 'neurodyn[neural]'") from error
    try:
        io = NWBHDF5IO(path, "r")
        file = io.read()
    except Exception as error:  # h5py's, hdmf's and pynwb's own kinds
        raise unreadable(path, error, "a whole NWB file wanted") from error
    with io:
        units = file.units
        if units is None or len(units) == 0 or "spike_times" not in units.colnames:
            raise ValueError(f"{path.name}: no units with spike_times, sorted units wanted")
        if file.trials is None or len(file.trials) == 0:
            raise ValueError(f"{path.name}: no trials, a trial table wanted")
        count = len(units)
        spikes = [np.asarray(units["spike_times"][k], float) for k in range(count)]
        times, owner = np.concatenate(spikes), np.repeat(np.arange(count), [len(part) for part in spikes])
        order = np.argsort(times, kind="stable")
        outside = np.asarray(units["heldout"][:], bool) if "heldout" in units.colnames else np.zeros(count, bool)
        recorded = None
        if "obs_intervals" in units.colnames:
            recorded = [np.asarray(units["obs_intervals"][k], float).reshape(-1, 2) for k in range(count)]
        names = tuple(f"unit{number}" for number in units.id[:])
        signal = None if behaviour is None else _signal(file, behaviour, path.name)
        table = file.trials.to_dataframe()
        return Session(path.name, times[order], owner[order], names, outside, recorded, table, signal)


def read_nwb(
    path: Path | str,
    window: Window,
    *,
    align: str = "start_time",
    split: str | tuple[str, ...] | None = None,
    behaviour: str | None = None,
    lag: float = 0.0,
    forward: float = 0.0,
    inside: bool = True,
    allow_missing: bool = False,
) -> Recording:
    """Spike counts around a column of the trial table, and behaviour in the same bins.

    Args:
        window: seconds from `align`, a time column of the trial table. Trials without that time are left out.
        split: values of the column `split` to keep.
        behaviour: name of a time series. lag: s by which behaviour follows the spikes it goes with.
        forward: s after the window that the batch covers too, for prediction.
        inside: the window, with what is to be predicted, has to lie between a trial's start_time and stop_time.
        allow_missing: bins without behaviour are NaN; otherwise they are an error.

    Raises:
        ValueError: what `open_nwb`, `Session.chosen` and `spike_batch` raise; a trial shorter than the window; a unit
            that was not recorded in some trial (its `obs_intervals`). ImportError: without pynwb.
    """
    whole = window._replace(stop=window.stop + forward)
    observed, _ = window.bins, whole.bins
    session = open_nwb(path, behaviour)
    trials = session.chosen(align, split)
    ids = [f"trial-{k}" for k in trials.index]
    zero = trials[align].to_numpy(float)
    limits = trials[["start_time", "stop_time"]].to_numpy(float) if inside else None
    counts = session.counts(zero, whole, spans=limits, ids=ids)
    for k, intervals in enumerate(session.recorded or ()):
        _check_recorded(session.names[k], intervals, zero, whole, ids)
    moves = None
    if session.signal is not None:
        moves = sample_behaviour(*session.signal, zero, whole, lag)
        missing: Array = np.argwhere(np.isnan(moves[:, :observed]))
        if len(missing) and not allow_missing:
            row, bin_, _ = missing[0]
            raise ValueError(
                f"behaviour: {behaviour} is NaN at bin {bin_} of {ids[row]} in {session.file}, numbers wanted; leave "
                "the trial out, or allow_missing=True"
            )
    batch = spike_batch(counts, window.bin_width, start=window.start, variables=session.names, ids=ids)
    return Recording(batch, tuple(np.flatnonzero(session.held_out).tolist()), moves, trials, observed)


def _signal(file: Any, name: str, path: str) -> tuple[Array, Array]:
    """Times and values of a time series by name."""
    places = {**{k: v for module in file.processing.values() for k, v in module.data_interfaces.items()}}
    places |= dict(file.acquisition.items())
    found: dict[str, Any] = {}
    for key, place in places.items():  # containers such as Position and BehavioralTimeSeries hold series
        held = getattr(place, "time_series", None) or getattr(place, "spatial_series", None)
        found |= dict(held.items()) if held is not None else {key: place}
    if name not in found:
        raise ValueError(
            f"behaviour: no series {name!r} in {path}{nearest(name, tuple(found))}, one of {sorted(found)} wanted"
        )
    series = found[name]
    values = np.asarray(series.data[:], float)
    if series.timestamps is not None:
        return np.asarray(series.timestamps[:], float), values
    return series.starting_time + np.arange(len(values)) / series.rate, values


def _check_recorded(unit: str, recorded: Array, zero: Array, window: Window, ids: list[str]) -> None:
    begin, end = zero + window.start, zero + window.stop
    covered = ((recorded[:, :1] <= begin + 1e-9) & (recorded[:, 1:] >= end - 1e-9)).any(0)
    if not covered.all():
        row = int(np.argmin(covered))
        raise ValueError(
            f"units: {unit} was not recorded in {ids[row]} ({begin[row]:g} to {end[row]:g} s), units recorded in "
            "every trial wanted; leave the unit or the trial out"
        )
