"""Series of the user's own: the options that name a file and its columns, the same in every recipe that reads one."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from neurodyn.frames import has_timestamps, read_series, read_table, seconds_in
from neurodyn.series import SeriesBatch

UNITS = {"s": "s", "min": "min", "h": "h", "D": "days", "W": "weeks", "Y": "years"}
"""Units of timestamps, in words."""


@dataclass
class OwnSeries:
    """The options of a recipe's configuration that say where the user's own series are."""

    data: Path | None = None
    """Your own series: .csv, .csv.gz, .tsv or .parquet, with one line per visit or per observation."""
    id: str = "unique_id"
    """With --data: the column that says which series."""
    time: str = "ds"
    """With --data: the column that says when, in numbers or timestamps."""
    values: tuple[str, ...] = ()
    """With --data: the columns of variables; all others if not given."""
    variable: str | None = None
    """With --data of one line per observation: the column with the variable's name."""
    value: str | None = None
    """With --data of one line per observation: the column with its value."""
    time_unit: str | None = None
    """With --data and timestamps: what to count them in, s, min, h, D, W or Y; D if not given."""
    log: tuple[str, ...] = ()
    """Skewed, positive variables to take logarithms of; those that the data set names if not given."""

    @property
    def columns(self) -> dict[str, Any]:
        """What `neurodyn.frames.from_frame` is told about the columns."""
        names = {name: getattr(self, name) for name in ("id", "time", "variable", "value", "time_unit")}
        return names | {"values": list(self.values) or None}

    @functools.cached_property
    def stamp_unit(self) -> str | None:
        """The unit that timestamps of the file are counted in since 1970-01-01 UTC; None if its times are numbers."""
        if self.data is None or not has_timestamps(read_table(self.data)[self.time]):
            return None
        return self.time_unit or "D"

    @property
    def clock(self) -> str:
        """What times are counted in, for labels: the unit of timestamps, or the name of the column."""
        return self.time if self.stamp_unit is None else UNITS[self.stamp_unit]

    def moment(self, option: str, given: float | str) -> float:
        """A time that an option gives, as the number that it is in the series.

        Raises:
            ValueError: a date where times are numbers, a number where they are dates, or text that is neither.
        """
        if self.stamp_unit is None:
            if isinstance(given, str):
                raise ValueError(f"{option}: {given!r} given, a number wanted as times are")
            return float(given)
        stamp = pd.to_datetime(given, utc=True, errors="coerce") if isinstance(given, str) else pd.NaT
        if stamp is pd.NaT:
            raise ValueError(f"{option}: {given!r} given, a date such as 2021-03-01 wanted as in column {self.time!r}")
        return float(stamp.timestamp()) / seconds_in(self.stamp_unit)

    def read(self) -> SeriesBatch:
        """The series in the file that `data` names."""
        assert self.data is not None
        return read_series(self.data, **self.columns)
