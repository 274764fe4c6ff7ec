"""The sets of the Neural Latents Benchmark from their NWB files: windows, bins, lags, splits, jitter, PSTHs.

Bins are those of the whole session, cut from its begin, as the benchmark cuts them: a trial's first bin is the first
one that begins at or after its window. Behaviour is low-passed and decimated on the same bins.

Source: Pei et al. (2021), "Neural Latents Benchmark '21", and the protocol of the code beside it. The files are on
DANDI (000128 to 000130, 000127, 000138 to 000140), each with its licence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import signal as filters

from neurodyn.datasets.nwb import Session, open_nwb
from neurodyn.datasets.spikes import Window, spike_batch
from neurodyn.series import SeriesBatch
from neurodyn.spelling import nearest

Array = NDArray[Any]
FORWARD = 0.2
"""Seconds after the window that the benchmark asks to predict."""
FINE = 0.001
"""Seconds of the bins in which PSTHs are smoothed, and of the samples of behaviour."""
TOGETHER = 32
"""Trials whose counts at 1 ms are in memory at once."""
_ROUNDING = 1e-6  # of a bin, in times that are sums of decimal numbers


class BenchmarkSet(NamedTuple):
    """How the benchmark cuts a set: `align`, `behaviour` and the columns are names in the file, times in s.

    lag: by which behaviour follows the spikes. conditions: columns whose equal values share a PSTH, smoothed with a
    Gaussian of `smooth` s. groups: a column with a decoder of its own for 0 and for 1. since: the column from which
    held-out neurons are scored, up to `align`. jitter: the latest end of a window after `align`. timing: columns of a
    trial's conditions, then that of the time that was produced, in ms; rows of outliers are left out.
    """

    align: str
    start: float
    stop: float
    behaviour: str | None = None
    lag: float = 0.0
    conditions: tuple[str, ...] = ()
    smooth: float = 0.0
    groups: str | None = None
    since: str | None = None
    jitter: float = 0.0
    timing: tuple[str, ...] = ()


_MAZE = BenchmarkSet("move_onset_time", -0.25, 0.45, "hand_vel", 0.12, ("trial_type", "trial_version"), 0.05)
BENCHMARK_SETS: dict[str, BenchmarkSet] = {
    "mc_maze": _MAZE._replace(lag=0.1, smooth=0.07),
    "mc_rtt": BenchmarkSet("start_time", 0.0, 0.6, "finger_vel", 0.14),
    "area2_bump": BenchmarkSet(
        "move_onset_time", -0.1, 0.5, "hand_vel", -0.02, ("cond_dir", "ctr_hold_bump"), 0.04, groups="ctr_hold_bump"
    ),
    "dmfc_rsg": BenchmarkSet(
        "go_time",
        -1.5,
        0.0,
        conditions=("is_eye", "theta", "is_short", "ts"),
        smooth=0.07,
        since="set_time",
        jitter=0.3,
        timing=("is_eye", "theta", "is_short", "tp"),
    ),
    "mc_maze_large": _MAZE,
    "mc_maze_medium": _MAZE,
    "mc_maze_small": _MAZE,
}
OUTLIER = "is_outlier"
"""The column of trials that dmfc_rsg leaves out of timing and of PSTHs."""


class BenchmarkPart(NamedTuple):
    """Trials of one or several splits.

    batch: counts, one variable per unit. held_out: positions of units. observed: bins of the window; what the batch has
    after them is to be predicted. behaviour: (trials, observed, columns), NaN where the file has none, or None.
    groups: (trials, decoders) bool, or None. jitter: (trials,), bins by which windows end later. timing: (trials, K),
    see `BenchmarkSet`, or None. trials: rows of the trial table.
    """

    batch: SeriesBatch
    held_out: tuple[int, ...]
    observed: int
    behaviour: Array | None
    groups: Array | None
    jitter: NDArray[np.intp]
    timing: Array | None
    trials: pd.DataFrame


class ConditionMeans(NamedTuple):
    """PSTHs: expected counts per bin (conditions, bins, units), NaN in bins that are not scored.

    trials: for each condition the positions of its trials in the part that is evaluated.
    """

    psth: Array
    trials: list[NDArray[np.intp]]


def suffixed(name: str, bin_width: float) -> str:
    """The set's name in the benchmark's files: with the bins' ms behind it, but for 5 ms."""
    return name if round(1000 * bin_width) == 5 else f"{name}_{round(1000 * bin_width)}"


def read_benchmark_set(
    path: Path | str | Session,
    name: str,
    *,
    bin_width: float = 0.02,
    part: str | Sequence[str] = "train",
    forward: bool = True,
    seed: int = 0,
) -> BenchmarkPart:
    """A part of a set, as the benchmark's tensors have it.

    Training trials are complete; in others a unit may be silent or unrecorded, and held-out units are observed where
    they are scored. The windows of dmfc_rsg end late by a random number of bins, up to 300 ms, but in the test split.

    Args:
        path: of the file, or what `open_nwb` made of it. name: in `BENCHMARK_SETS`.
        bin_width: in s, 0.005 or 0.02 in the benchmark. part: "train", "val", "test" or several of them.
        forward: with the 200 ms to predict. seed: of the jitter; 0 in the benchmark.

    Raises:
        ValueError: what `benchmark_set`, `open_nwb`, `Session.chosen` and `spike_batch` raise; a unit that was not
            recorded in a training trial.
    """
    chosen, session = benchmark_set(name, bin_width), _session(path, name)
    split = (part,) if isinstance(part, str) else tuple(part)
    training = "train" in split
    trials = session.chosen(chosen.align, split)
    late = _jitter(session, chosen, split, bin_width, seed)[trials.index].to_numpy()
    window = Window(chosen.start, chosen.stop, bin_width)
    whole = window._replace(stop=chosen.stop + (FORWARD if forward else 0.0))
    first = _first_bin(trials[chosen.align].to_numpy(float) + late * bin_width + chosen.start, bin_width)
    counts = session.counts(first * bin_width - chosen.start, whole)
    bins = first[:, None] + np.arange(whole.bins)
    ids = [f"trial-{k}" for k in trials.index]
    for k, intervals in enumerate(session.recorded or ()):
        missed = ~_recorded(intervals, bins * round(bin_width / FINE))
        counts[..., k][missed] = np.nan
        if training and missed.any():
            raise ValueError(
                f"units: {session.names[k]} was not recorded in all bins of {ids[int(missed.any(1).argmax())]} in "
                f"{session.file}, units recorded in every training trial wanted"
            )
    outside = np.flatnonzero(session.held_out)
    if chosen.since is not None and not training:
        begin, end = (trials[column].to_numpy(float)[:, None] for column in (chosen.since, chosen.align))
        at, slack = bins[:, : window.bins] * bin_width, _ROUNDING * bin_width
        silenced = np.zeros(counts.shape, bool)
        silenced[:, : window.bins, outside] = ((at < begin - slack) | (at >= end - slack))[..., None]
        counts[silenced] = np.nan
    batch = spike_batch(counts, bin_width, start=chosen.start, variables=session.names, ids=ids, complete=training)
    moves = None
    if session.signal is not None:
        shifted = first + round(chosen.lag / bin_width)
        moves = _decimated(session, bin_width, shifted[:, None] + np.arange(window.bins))
    groups = None
    if chosen.groups is not None:
        kind = trials[chosen.groups].to_numpy(float)
        groups = np.stack([kind == 0, kind == 1], 1)
    timing = None
    if chosen.timing:
        timing = trials[list(chosen.timing)].to_numpy(float, copy=True)
        timing[_outliers(trials)] = np.nan
    return BenchmarkPart(batch, tuple(outside.tolist()), window.bins, moves, groups, late, timing, trials)


def condition_means(
    path: Path | str | Session,
    name: str,
    *,
    bin_width: float = 0.02,
    parts: Sequence[str] = ("train", "val"),
    evaluated: str = "val",
) -> ConditionMeans | None:
    """The PSTHs that a set is scored by, of all trials of `parts`; None for a set without conditions.

    Spikes are smoothed in bins of 1 ms and summed to the bins of the rates. Where trials differ in length, a PSTH is as
    long as its shortest trial, and trials shorter than four fifths of the mean are left out.

    Args: as for `read_benchmark_set`; parts: splits that are averaged. evaluated: the one that is scored.
    """
    chosen, session = benchmark_set(name, bin_width), _session(path, name)
    if not chosen.conditions:
        return None
    trials = session.chosen(chosen.align, parts)
    scored = session.chosen(chosen.align, evaluated).index
    trials = trials[~_outliers(trials)] if chosen.timing else trials
    bins = Window(chosen.start, chosen.stop, bin_width).bins
    last = _first_bin(trials[chosen.align].to_numpy(float) + chosen.stop, bin_width)
    if chosen.since is None:
        length = np.full(len(trials), bins)
    else:
        length = last - _first_bin(trials[chosen.since].to_numpy(float), bin_width)
    means, members = [], []
    for place in condition_trials(trials, chosen.conditions):
        place = place[length[place] >= 0.8 * length[place].mean()]
        shortest = min(int(length[place].min()), bins)
        mean = np.full((bins, len(session.names)), np.nan)
        mean[bins - shortest :] = _smoothed_mean(session, last[place], shortest, bin_width, chosen.smooth)
        means.append(mean)
        members.append(np.flatnonzero(np.isin(scored, trials.index[place])))
    return ConditionMeans(np.stack(means), members)


def condition_trials(trials: pd.DataFrame, columns: tuple[str, ...]) -> list[NDArray[np.intp]]:
    """For each combination of values of `columns`, in sorted order, the positions of its trials."""
    if not columns:
        return []
    codes = trials.groupby(list(columns), sort=True).ngroup().to_numpy()
    return [np.flatnonzero(codes == k) for k in np.unique(codes[codes >= 0])]


def benchmark_set(name: str, bin_width: float) -> BenchmarkSet:
    """How a set is cut in bins of `bin_width` s.

    Raises:
        ValueError: an unknown name, bins that are no whole number of ms.
    """
    if name not in BENCHMARK_SETS:
        known = tuple(BENCHMARK_SETS)
        raise ValueError(f"name: {name!r} given{nearest(name, known)}, one of {list(known)} wanted")
    fine = bin_width / FINE
    if not fine >= 1 or abs(fine - round(fine)) > _ROUNDING:
        raise ValueError(f"bin_width: {bin_width:g} s given, a whole number of ms wanted, 0.005 or 0.02 s to compare")
    return BENCHMARK_SETS[name]


def _session(path: Path | str | Session, name: str) -> Session:
    return path if isinstance(path, Session) else open_nwb(path, BENCHMARK_SETS[name].behaviour)


def _first_bin(times: Array, bin_width: float) -> NDArray[np.intp]:
    """Number of the first bin of the session that begins at or after a time."""
    return np.ceil(times / bin_width - _ROUNDING).astype(np.intp)


def _outliers(trials: pd.DataFrame) -> NDArray[np.bool_]:
    if OUTLIER not in trials.columns:
        return np.zeros(len(trials), bool)
    return trials[OUTLIER].to_numpy(float) == 1


def _jitter(session: Session, chosen: BenchmarkSet, split: Sequence[str], bin_width: float, seed: int) -> pd.Series:
    """Whole bins by trial of these splits, with the benchmark's draws: one per trial, in order."""
    table = session.trials[session.trials["split"].isin(split)]
    latest = np.zeros(len(table))
    if chosen.jitter:
        room = 1000 * (chosen.stop - chosen.start) - table[chosen.timing[-1]].to_numpy(float)
        free = np.where(table["split"] == "test", 0.0, np.nan_to_num(room).clip(0.0, 1000 * chosen.jitter))
        latest = np.floor(np.round(free / (1000 * bin_width), 4))
    drawn = np.random.RandomState(seed).random_sample(len(table))
    return pd.Series(np.round(drawn * latest).astype(np.intp), index=table.index)


def _recorded(intervals: Array, begin: Array) -> NDArray[np.bool_]:
    """Whether the first ms of a bin lies in a recorded interval; `begin` are ms of the session, of any shape."""
    order = np.argsort(intervals[:, 0], kind="stable")
    low = np.ceil(np.round(intervals[order, 0] / FINE, 6))
    high = np.floor(np.round(intervals[order, 1] / FINE, 6))
    place = np.searchsorted(low, begin, side="right") - 1
    return (place >= 0) & (begin < high[place.clip(0)]) if len(low) else np.zeros(begin.shape, bool)


def _decimated(session: Session, bin_width: float, bins: Array) -> Array:
    """The signal at the begins of bins of the session (trials, T), low-passed without a shift: (trials, T, columns).

    The anti-alias filter is a FIR of 500 taps; gaps are bridged by lines for it, and stay NaN in the result.
    """
    assert session.signal is not None
    times, values = session.signal
    values = values.reshape(len(values), -1)
    exact = times / FINE
    at = np.round(exact).astype(int)
    if len(at) < 2 or np.abs(exact - at).max() > 1e-3 or at[0] < 0:
        raise ValueError(f"behaviour: samples of {session.file} off the whole ms of the session given, on them wanted")
    whole = np.full((at[-1] + 1, values.shape[1]), np.nan)
    whole[at] = values
    factor = round(bin_width / FINE)
    kept = whole[::factor]
    if factor > 1:
        filled = pd.DataFrame(whole).interpolate(limit_direction="both").to_numpy()
        kept = np.where(np.isnan(kept), np.nan, filters.decimate(filled, factor, n=500, ftype="fir", axis=0))
    inside = (bins >= 0) & (bins < len(kept))
    return np.where(inside[..., None], kept[bins.clip(0, len(kept) - 1)], np.nan)


def _smoothed_mean(session: Session, last: Array, length: int, bin_width: float, smooth: float) -> Array:
    """Mean over trials of smoothed counts (length, units) in the bins before the session's bins `last` (trials,)."""
    factor = round(bin_width / FINE)
    taps = int(6 * smooth / FINE)
    kernel = filters.windows.gaussian(taps, smooth / FINE)
    begin = -length * factor - taps
    window = Window(begin * FINE, taps * FINE, FINE)
    mean = np.zeros((window.bins, len(session.names)))
    for few in np.array_split(last, -(-len(last) // TOGETHER)):
        mean += session.counts(few * bin_width, window).sum(0)
    smoothed = filters.oaconvolve(mean / len(last), (kernel / kernel.sum())[:, None], mode="same", axes=0)
    fine = smoothed[taps : taps + length * factor].clip(min=0)
    return fine.reshape(length, factor, -1).sum(1)
