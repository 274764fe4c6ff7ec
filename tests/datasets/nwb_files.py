"""NWB files in the layout of the Neural Latents Benchmark, with events off the grid of any bins."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pynwb

from neurodyn.datasets.neural_latents import BENCHMARK_SETS

TRIALS, UNITS, SECONDS = 24, 6, 63
HELD_OUT = (2, 5)
SPLITS = ("train", "train", "val", "test")


def spikes() -> list[np.ndarray]:
    """Of units, sorted, in s; the first spikes lie on whole ms."""
    random = np.random.default_rng(1)
    times = [random.uniform(0, SECONDS - 1, 400 + 90 * k) for k in range(UNITS)]
    for part in times:
        part[:100] = np.round(part[:100], 3)
    return [np.sort(part) for part in times]


def events() -> pd.DataFrame:
    """The trials of all sets in one table: times in s, on whole tenths of ms, tp and ts in ms."""
    k = np.arange(TRIALS)
    begin = np.round(1.0 + 2.4 * k + 0.0137 * (k % 7), 4)
    tp = 640.0 + 70 * (k % 9)
    table = pd.DataFrame({"start_time": begin, "stop_time": begin + 2.3, "split": [SPLITS[i % 4] for i in k]})
    table["move_onset_time"] = np.round(begin + 0.9 + 0.0031 * k, 4)
    table["go_time"] = np.round(begin + 1.7 + 0.0023 * k, 4)
    table["set_time"] = np.round(table["go_time"] - tp / 1000, 4)
    table["tp"], table["ts"] = tp, 600.0 + 100 * (k // 8)
    table["is_eye"], table["theta"], table["is_short"] = (k // 12).astype(float), 0.0, 1.0
    table["is_outlier"] = (k == 6).astype(float)
    table["trial_type"], table["trial_version"] = (k // 4 % 2).astype(float), (k // 8).astype(float)
    table["cond_dir"], table["ctr_hold_bump"] = 90.0 * (k // 8), (k // 4 % 2).astype(float)
    return table


def columns_of(name: str) -> list[str]:
    """Of the trial table of a set, but for the times that every table has."""
    chosen = BENCHMARK_SETS[name]
    wanted = {"split", chosen.align, *chosen.conditions, *chosen.timing, "is_outlier"} - {"start_time"}
    return sorted(wanted | ({chosen.since} if chosen.since else set()) | ({chosen.groups} if chosen.groups else set()))


def write_nwb(
    path: Path, name: str = "mc_maze", *, units: bool = True, intervals: dict[int, list[list[float]]] | None = None
) -> None:
    """A file as those of the benchmark: units with heldout, trials with split, behaviour at 1 kHz.

    `intervals` are the obs_intervals of some units; others were recorded all the time.
    """
    file = pynwb.NWBFile("a session", "id", datetime(2020, 1, 1, tzinfo=UTC))
    if units:
        file.add_unit_column("heldout", "not to be read")
        for k, times in enumerate(spikes()):
            recorded = (intervals or {}).get(k, [[0.0, float(SECONDS)]])
            file.add_unit(spike_times=times, heldout=k in HELD_OUT, obs_intervals=recorded)
    columns = columns_of(name)
    for column in columns:
        file.add_trial_column(column, column)
    for row in events()[["start_time", "stop_time", *columns]].to_dict("records"):
        file.add_trial(**row)
    t = np.arange(0, SECONDS, 0.001)
    series = pynwb.TimeSeries(
        name=BENCHMARK_SETS[name].behaviour or "eye_pos",
        data=np.stack([np.sin(9 * t), np.cos(5 * t) + 0.1 * t], 1),
        unit="m/s",
        starting_time=0.0,
        rate=1000.0,
    )
    file.create_processing_module("behavior", "moves").add(series)
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(file)
