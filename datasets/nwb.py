"""Recordings in NWB files (extra `neural`), any of them, and the sets of the Neural Latents Benchmark by their names.

Files are read with pynwb: spike times of `units`, one row of `trials` per trial, behaviour from the processing modules
or the acquisition. In the benchmark's files `units` has a column `heldout` and `trials` a column `split`.

Source of windows, lags and splits: Pei et al. (2021), "Neural Latents Benchmark '21", and the code beside it. Its files
are on DANDI (000128 to 000130, 000127, 000138 to 000140).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from neurodyn.datasets.sources import unreadable
from neurodyn.datasets.spikes import Window, bin_spikes, sample_behaviour, spike_batch
from neurodyn.series import SeriesBatch
from neurodyn.spelling import nearest

FORWARD = 0.2
"""Seconds after the window that the benchmark asks to predict."""


class BenchmarkSet(NamedTuple):
    """How the benchmark cuts a set: `align` and `behaviour` are names in the file, times in s.

    `scored_from`: the column from which evaluation bins count; earlier ones are unobserved. `trial_columns`: of the
    trial table, in place of behaviour over time. `conditions`: columns whose equal values share a PSTH, smoothed with a
    Gaussian of `smooth` s.
    """

    align: str
    start: float
    stop: float
    behaviour: str | None
    lag: float
    conditions: tuple[str, ...]
    smooth: float
    scored_from: str | None = None
    trial_columns: tuple[str, ...] = ()


_MAZE = BenchmarkSet("move_onset_time", -0.25, 0.45, "hand_vel", 0.12, ("trial_type", "trial_version"), 0.05)
BENCHMARK_SETS: dict[str, BenchmarkSet] = {
    "mc_maze": _MAZE._replace(lag=0.1, smooth=0.07),
    "mc_rtt": BenchmarkSet("start_time", 0.0, 0.6, "finger_vel", 0.14, (), 0.0),
    "area2_bump": BenchmarkSet("move_onset_time", -0.1, 0.5, "hand_vel", -0.02, ("cond_dir", "ctr_hold_bump"), 0.04),
    "dmfc_rsg": BenchmarkSet(
        "go_time",
        -1.5,
        0.0,
        None,
        0.0,
        ("is_eye", "theta", "is_short", "ts"),
        0.07,
        "set_time",
        ("is_eye", "theta", "is_short", "ts", "tp"),
    ),
    "mc_maze_large": _MAZE,
    "mc_maze_medium": _MAZE,
    "mc_maze_small": _MAZE,
}


class Recording(NamedTuple):
    """Trials of a file.

    batch: counts, one variable per unit. held_out: positions of units that the file marks as `heldout`.
    behaviour: (trials, bins, columns), NaN where the file has none, or None. trials: the rows of the trial table.
    observed: bins of the window; what the batch has after them is to be predicted.
    """

    batch: SeriesBatch
    held_out: tuple[int, ...]
    behaviour: NDArray[Any] | None
    trials: pd.DataFrame
    observed: int


def read_nwb(
    path: Path | str,
    window: Window,
    *,
    align: str = "start_time",
    split: str | tuple[str, ...] | None = None,
    behaviour: str | None = None,
    lag: float = 0.0,
    forward: float = 0.0,
    inside: bool = False,
    allow_missing: bool = False,
) -> Recording:
    """Spike counts around a column of the trial table, and behaviour in the same bins.

    Args:
        window: seconds from `align`, a time column of the trial table. Trials without that time are left out.
        split: values of the column `split` to keep.
        behaviour: name of a time series. lag: s by which behaviour follows the spikes it goes with.
        forward: s after the window that the batch covers too, for prediction.
        inside: the window has to lie between a trial's start_time and stop_time.
        allow_missing: bins without behaviour are NaN; otherwise they are an error.

    Raises:
        ValueError: no units, trials, column or series of that name; a trial shorter than the window; a unit that was
            not recorded in some trial (its `obs_intervals`); what `spike_batch` raises. ImportError: without pynwb.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there")
    try:
        from pynwb import NWBHDF5IO
    except ImportError as error:
        raise ImportError("pynwb is needed for NWB files: pip install 'neurodyn[neural]'") from error
    whole = window._replace(stop=window.stop + forward)
    observed, _ = window.bins, whole.bins
    try:
        io = NWBHDF5IO(path, "r")
        file = io.read()
    except Exception as error:  # h5py's, hdmf's and pynwb's own kinds
        raise unreadable(path, error) from error
    with io:
        if file.units is None or len(file.units) == 0 or "spike_times" not in file.units.colnames:
            raise ValueError(f"{path.name}: no units with spike_times, sorted units wanted")
        if file.trials is None or len(file.trials) == 0:
            raise ValueError(f"{path.name}: no trials, a trial table wanted")
        trials = _trials(file.trials.to_dataframe(), path.name, align, split)
        spikes = [np.asarray(file.units["spike_times"][k], float) for k in range(len(file.units))]
        columns = file.units.colnames
        outside = np.asarray(file.units["heldout"][:], bool) if "heldout" in columns else np.zeros(len(spikes), bool)
        spans = (
            [np.asarray(file.units["obs_intervals"][k], float) for k in range(len(spikes))]
            if ("obs_intervals" in columns)
            else None
        )
        names = tuple(f"unit{number}" for number in file.units.id[:])
        signal = None if behaviour is None else _signal(file, behaviour, path.name)
    ids = [f"trial-{k}" for k in trials.index]
    zero = trials[align].to_numpy(float)
    units = np.concatenate([np.full(len(times), k) for k, times in enumerate(spikes)])
    limits = trials[["start_time", "stop_time"]].to_numpy(float) if inside else None
    counts = bin_spikes(np.concatenate(spikes), units, zero, whole, num_units=len(spikes), spans=limits, ids=ids)
    if spans is not None:
        for k, recorded in enumerate(spans):
            _check_recorded(names[k], recorded, zero, window, ids)
    moves = None
    if signal is not None:
        moves = sample_behaviour(*signal, zero, whole, lag)
        missing: NDArray[Any] = np.argwhere(np.isnan(moves[:, :observed]))
        if len(missing) and not allow_missing:
            row, bin_, _ = missing[0]
            raise ValueError(
                f"behaviour: {behaviour} is NaN at bin {bin_} of {ids[row]} in {path.name}, numbers wanted; leave the "
                "trial out, or allow_missing=True"
            )
    batch = spike_batch(counts, window.bin_width, start=window.start, variables=names, ids=ids)
    return Recording(batch, tuple(np.flatnonzero(outside).tolist()), moves, trials, observed)


def read_benchmark_set(
    path: Path | str, name: str, *, bin_width: float = 0.02, part: str | tuple[str, ...] = "train", forward: bool = True
) -> Recording:
    """A set of the Neural Latents Benchmark with its window, lag and split; training rows of dmfc_rsg without jitter.

    Args:
        name: in `BENCHMARK_SETS`. bin_width: in s, 0.005 or 0.02 in the benchmark. part: "train", "val", "test" or
            several of them. forward: with the 200 ms to predict.

    Raises:
        ValueError: an unknown name, and what `read_nwb` raises.
    """
    if name not in BENCHMARK_SETS:
        known = tuple(BENCHMARK_SETS)
        raise ValueError(f"name: {name!r} given{nearest(name, known)}, one of {list(known)} wanted")
    chosen = BENCHMARK_SETS[name]
    found = read_nwb(
        path,
        Window(chosen.start, chosen.stop, bin_width),
        align=chosen.align,
        split=part,
        behaviour=chosen.behaviour,
        lag=chosen.lag,
        forward=FORWARD if forward else 0.0,
        allow_missing=True,
    )
    if chosen.trial_columns:
        table = found.trials[list(chosen.trial_columns)].to_numpy(float)
        found = found._replace(behaviour=table[:, None].repeat(found.batch.num_times, 1))
    if chosen.scored_from is not None and "train" not in part:
        early = (found.trials[chosen.scored_from] - found.trials[chosen.align]).to_numpy(float)
        before = found.batch.times < torch.tensor(early)[:, None] - 1e-9
        batch = found.batch
        found = found._replace(
            batch=SeriesBatch(
                batch.times, batch.values, batch.mask & ~before[..., None], ids=batch.ids, variables=batch.variables
            )
        )
    return found


def condition_trials(trials: pd.DataFrame, columns: tuple[str, ...]) -> list[NDArray[np.intp]]:
    """For each combination of values of `columns`, in sorted order, the positions of its trials."""
    if not columns:
        return []
    codes = trials.groupby(list(columns), sort=True).ngroup().to_numpy()
    return [np.flatnonzero(codes == k) for k in range(codes.max() + 1)]


def _trials(table: pd.DataFrame, name: str, align: str, split: str | tuple[str, ...] | None) -> pd.DataFrame:
    for column in (align, *(() if split is None else ("split",))):
        if column not in table.columns:
            raise ValueError(f"trials: no column {column!r} in {name}, one of {list(table.columns)} wanted")
    if split is not None:
        wanted = (split,) if isinstance(split, str) else split
        table = table[table["split"].isin(wanted)]
    table = table[table[align].notna()]
    if table.empty:
        raise ValueError(f"trials: none with a time {align!r} and split {split!r} in {name}, one at least wanted")
    return table


def _signal(file: Any, name: str, path: str) -> tuple[NDArray[Any], NDArray[Any]]:
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


def _check_recorded(unit: str, recorded: NDArray[Any], zero: NDArray[Any], window: Window, ids: list[str]) -> None:
    begin, end = zero + window.start, zero + window.stop
    covered = ((recorded[:, :1] <= begin + 1e-9) & (recorded[:, 1:] >= end - 1e-9)).any(0)
    if not covered.all():
        row = int(np.argmin(covered))
        raise ValueError(
            f"units: {unit} was not recorded in {ids[row]} ({begin[row]:g} to {end[row]:g} s), units recorded in "
            "every trial wanted; leave the unit or the trial out"
        )
