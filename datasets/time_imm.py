"""`time_imm`: real irregular multivariate series of the Time-IMM benchmark: EPA-Air, ILINet, StudentLife, RepoHealth.

Source: github.com/blacksnail789521/Time-IMM at commit e934cef, the numeric series (`time_series.csv`) of each entity;
    the texts that accompany them are not read.
Licence: the repository states none; the loader says so. Collected from public sources (US EPA, US CDC, StudentLife,
    GitHub).
Citation: C. Chang, J. Hwang, Y. Shi, H. Wang, W. Wang, W.-C. Peng, T.-F. Chen, Time-IMM: A Dataset and Benchmark for
    Irregular Multimodal Multivariate Time Series, NeurIPS 2025 Datasets and Benchmarks.

What is done to the records: values of one entity with the same time (three weeks of ILINet) are averaged; lines
without any value, and variables with fewer than two different values in training windows, are left out.

Protocol of this loader, not the benchmark's own: each entity's span is cut in time at 60 % and 80 %. A row is a
window: a history and the forecast horizon after it. Training windows end before the first cut; the horizons of
validation windows lie between the cuts, those of test windows after the second, with histories that may reach back.
Windows with an empty history or an empty horizon are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from neurodyn.datasets.sources import fetch, local, tell_no_licence, unreadable
from neurodyn.datasets.splits import Splits
from neurodyn.frames import from_frame
from neurodyn.series import SeriesBatch

FOLDER = "time_imm"
COMMIT = "e934cef23d526817dcf0d1a66c6f82274c96c04b"
URL = f"https://raw.githubusercontent.com/blacksnail789521/Time-IMM/{COMMIT}/"
WINDOWS = {"EPA-Air": (7.0, 1.0), "ILINet": (364.0, 84.0), "StudentLife": (56.0, 14.0), "RepoHealth": (112.0, 28.0)}
"""Default days of history and of horizon."""
CUTS = (0.6, 0.8)

_CHECKSUMS = Path(__file__).parent / "data" / "time_imm.sha256"


def load(
    subset: str = "EPA-Air", history: float | None = None, horizon: float | None = None, stride: float | None = None
) -> Splits:
    """Splits of windows; times are days since the start of the window, so every history ends at `history`.

    `info["starts"]` gives the timestamp of a window's start by row id (`<entity>@<number>`).

    Args:
        subset: EPA-Air (8 counties, hourly), ILINet (1, weekly), StudentLife (20 students, daily) or RepoHealth (4
            repositories, days to weeks).
        history, horizon: in days; by default as in `WINDOWS`.
        stride: days between windows; the horizon where left out, so that horizons don't overlap.

    Raises:
        ValueError: unknown subset, lengths that are not positive, no window in one of the splits, altered files.
        FileNotFoundError: no file and no network.
    """
    if subset not in WINDOWS:
        raise ValueError(f"subset: {subset!r} given, one of {list(WINDOWS)} wanted")
    history = WINDOWS[subset][0] if history is None else history
    horizon = WINDOWS[subset][1] if horizon is None else horizon
    stride = horizon if stride is None else stride
    if min(history, horizon, stride) <= 0:
        raise ValueError(
            f"history, horizon, stride: {history}, {horizon}, {stride} given, positive numbers of days wanted"
        )
    tell_no_licence(f"time_imm {subset}", "github.com/blacksnail789521/Time-IMM")
    frame = table(subset)
    variables = [name for name in frame.columns if name not in ("entity", "date_time")]
    parts: list[pd.DataFrame] = []
    starts: dict[str, str] = {}
    for part in range(3):
        pieces = list(_windows(frame, variables, part, history, horizon, stride, starts))
        if not pieces:
            name = ("training", "validation", "test")[part]
            raise ValueError(
                f"history, horizon: {history}, {horizon} days given, but {subset} has no {name} window that long"
            )
        parts.append(pd.concat(pieces, ignore_index=True))
    dull = [name for name in variables if parts[0][name].nunique() < 2]
    variables = [name for name in variables if name not in dull]
    train, validation, test = (_batch(part, variables, history) for part in parts)
    return Splits(
        train,
        validation,
        test,
        {
            "name": f"time_imm {subset}",
            "source": f"github.com/blacksnail789521/Time-IMM at {COMMIT[:7]}",
            "licence": "none stated",
            "citation": "Chang et al., Time-IMM, NeurIPS 2025 Datasets and Benchmarks",
            "time_unit": "days since the start of the window",
            "log": (),
            "static_names": (),
            "protocols": {"window": {"until": history}},
            "starts": starts,
            "left_out": tuple(dull),
        },
    )


def table(subset: str) -> pd.DataFrame:
    """One line per entity and time: entity, date_time (UTC) and the numeric columns, sorted."""
    path = local(FOLDER, f"{subset}.parquet")
    if path is None:
        frame = pd.concat([_official(file, sha256) for file, sha256 in _files(subset)], ignore_index=True)
    else:
        try:
            frame = pd.read_parquet(path).drop(columns="record_id")
            frame["date_time"] = pd.to_datetime(frame["date_time"], utc=True)
        except Exception as error:  # pyarrow's errors for broken files have no common base
            raise unreadable(path, error) from error
    return frame.groupby(["entity", "date_time"], as_index=False).mean()


def parse(path: Path, entity: str) -> pd.DataFrame:
    """One entity's official `time_series.csv`: entity, date_time (UTC) and numbers."""
    try:
        frame = pd.read_csv(path).drop(columns="record_id")
        frame["date_time"] = pd.to_datetime(frame["date_time"], utc=True, format="mixed")
        numbers = frame.drop(columns="date_time").astype(np.float64)
    except Exception as error:  # whatever fails here, the file is not what it should be
        raise unreadable(path, error) from error
    numbers.insert(0, "entity", entity)
    numbers.insert(1, "date_time", frame["date_time"])
    return numbers


def _files(subset: str) -> list[tuple[str, str]]:
    """(path in the repository, sha256) of a subset's files."""
    lines = (line.split() for line in _CHECKSUMS.read_text().splitlines())
    return [(file, sha256) for sha256, file in lines if file.split("/")[1] == subset]


def _official(file: str, sha256: str) -> pd.DataFrame:
    _, subset, _, entity, _ = file.split("/")
    return parse(fetch(FOLDER, f"{subset}-{entity}.csv", URL + file, sha256), entity)


def _windows(
    frame: pd.DataFrame,
    variables: list[str],
    part: int,
    history: float,
    horizon: float,
    stride: float,
    starts: dict[str, str],
) -> Iterator[pd.DataFrame]:
    """Windows of one split as wide frames with the columns id, time (days since the start) and the variables."""
    for entity, own in frame.groupby("entity", sort=True):
        own = own[own[variables].notna().any(axis=1)]
        origin = own["date_time"].iloc[0]
        days = ((own["date_time"] - origin) / pd.Timedelta(days=1)).to_numpy()
        span = days[-1]
        edges = [history, CUTS[0] * span, CUTS[1] * span, span]
        first, last = edges[part], edges[part + 1]
        for k in range(int(np.floor((last - horizon - first) / stride + 1e-9)) + 1):
            cut = first + k * stride
            low, middle, high = np.searchsorted(days, [cut - history, cut, cut + horizon], side="right")
            if low < middle < high:
                name = f"{entity}@{part}.{k}"
                starts[name] = (origin + pd.Timedelta(days=cut - history)).isoformat()
                yield own[variables].iloc[low:high].assign(id=name, time=days[low:high] - (cut - history))


def _batch(frame: pd.DataFrame, variables: list[str], history: float) -> SeriesBatch:
    """Rows of one split; windows that lost a side with the variables left out are dropped."""
    seen = frame[frame[variables].notna().any(axis=1)]
    sides = (seen["time"] <= history).groupby(seen["id"]).nunique()
    whole = frame["id"].map(sides) == 2
    return from_frame(frame[whole], id="id", time="time", values=variables)
