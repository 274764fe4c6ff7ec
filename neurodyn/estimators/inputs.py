"""What estimators are given, as `SeriesBatch`: frames of visits, arrays, or a batch itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from neurodyn.frames import from_frame, has_timestamps, timestamps
from neurodyn.series import SeriesBatch

KINDS = {True: "dates", False: "numbers"}


class Columns(NamedTuple):
    """Which columns of a frame say which series and when, which are variables, and the unit of timestamps.

    `dates` is whether an estimator was fitted to timestamps (True) or numbers (False) as times, so that it takes no
    others; None where it was not, or to what does not say.
    """

    id: str
    time: str
    values: Sequence[str] | None = None
    time_unit: str | None = None
    dates: bool | None = None

    def read(self, frame: pd.DataFrame, values: Sequence[str] | None = None) -> SeriesBatch:
        """The series of a frame; of these variables, if given.

        Raises:
            ValueError: timestamps where the estimator was fitted to numbers, or numbers where to timestamps.
        """
        chosen, dates = self.values if values is None else values, self.has_timestamps(frame)
        names = None if chosen is None else list(chosen)
        unit = self.time_unit if dates else None
        series = from_frame(frame, id=self.id, time=self.time, values=names, time_unit=unit)
        self._as_in_fit(f"time: {KINDS[dates]} given in column {self.time!r}", dates)
        return series

    def read_array(self, values: np.ndarray[Any, Any], variables: Sequence[str] | None, *, alike: bool) -> SeriesBatch:
        """`series_of_array`, whose times are numbers.

        Raises:
            ValueError: the estimator was fitted to timestamps.
        """
        self._as_in_fit("X: an array given, whose times are numbers", False)
        return series_of_array(values, variables, alike=alike)

    def given_dates(self, X: Any) -> bool | None:  # noqa: N803
        """`dates` of an estimator that is fitted to X; None for a `SeriesBatch`, which does not say."""
        if isinstance(X, SeriesBatch):
            return None
        return isinstance(X, pd.DataFrame) and self.has_timestamps(X)

    def has_timestamps(self, frame: pd.DataFrame) -> bool:
        """Whether the frame's times are moments, and not numbers."""
        if self.time not in frame:
            return False  # `from_frame` says so
        return has_timestamps(frame[self.time])

    def questions(self, frame: pd.DataFrame, known: SeriesBatch) -> tuple[SeriesBatch, Tensor]:
        """The series that have lines without any value after their last one, and the times (B, H) of these lines.

        Raises:
            ValueError: no such line.
        """
        columns = ["value"] if "value" in frame and not set(known.variables) & set(frame) else list(known.variables)
        empty = frame[frame[columns].isna().all(axis=1)]
        if len(empty):
            known, asked = self._lines(empty, known)
            asked = asked.after(until=known.last_time)
            some = asked.present.any(1)
            if bool(some.any()):
                return known.rows(some), asked.rows(some).trim().times
        raise ValueError(
            "X: no line without values after the last visit of its series given; the lines to forecast wanted, with id "
            "and time and nothing else, or give times"
        )

    def times(self, times: Any, frame: pd.DataFrame | None, known: SeriesBatch) -> tuple[SeriesBatch, Tensor]:
        """The series that are asked about and times, (B, H) or (H,): of the lines of a frame, or given for all series.

        Raises:
            ValueError: a line of a series that is not known; dates where times are numbers, or numbers where dates.
        """
        if isinstance(times, pd.DataFrame):
            known, asked = self._lines(times, known)
            return known, asked.times
        wanted = frame is not None and self.has_timestamps(frame)
        if _are_dates(times) != wanted:
            of = f"column {self.time!r}" if frame is not None else "X"
            raise ValueError(f"times: {KINDS[not wanted]} given, {KINDS[wanted]} wanted as in {of}")
        if wanted:
            lines = pd.DataFrame({self.id: "all", self.time: pd.DatetimeIndex(times), "asked": 1.0})
            return known, self.read(lines, ["asked"]).times[0]
        return known, torch.as_tensor(np.asarray(times, dtype=np.float64))

    def _as_in_fit(self, given: str, dates: bool) -> None:
        if self.dates is not None and self.dates != dates:
            raise ValueError(f"{given}, {KINDS[self.dates]} in column {self.time!r} wanted as in fit")

    def _lines(self, frame: pd.DataFrame, known: SeriesBatch) -> tuple[SeriesBatch, SeriesBatch]:
        """The rows of `known` that have lines in the frame, and the times of these lines as a batch of as many rows."""
        batch = self.read(frame[[self.id, self.time]].drop_duplicates().assign(asked=1.0), ["asked"])
        place = {name: k for k, name in enumerate(batch.ids or ())}
        rows = [k for k, name in enumerate(known.ids or ()) if name in place]
        if len(rows) < len(place):
            unknown = next(name for name in place if name not in (known.ids or ()))
            raise ValueError(f"times: {self.id} {unknown!r} given, which has no visit in X; a series of X wanted")
        return known.rows(rows), batch.rows([place[(known.ids or ())[k]] for k in rows])

    def restore(self, table: pd.DataFrame, frame: pd.DataFrame | None) -> pd.DataFrame:
        """A table with `unique_id` and `ds` with the names, ids and moments of the frame that was given."""
        if frame is None:
            return table
        own = {str(name): name for name in frame[self.id].unique()}
        table = table.assign(unique_id=table["unique_id"].map(own))
        if self.has_timestamps(frame):
            moments = timestamps(table["ds"].to_numpy(), self.time_unit or "D")
            zone = getattr(frame[self.time].dt, "tz", None) if hasattr(frame[self.time], "dt") else None
            table = table.assign(ds=moments.tz_convert(zone) if zone is not None else moments.tz_localize(None))
        return table.rename(columns={"unique_id": self.id, "ds": self.time})


def _are_dates(times: Any) -> bool:
    """Whether times, (H,) or (B, H), are dates and not numbers."""
    if isinstance(times, Tensor):
        return False
    return has_timestamps(pd.Series(np.ravel(times) if np.ndim(times) > 1 else times))


def series_of_array(values: np.ndarray[Any, Any], variables: Sequence[str] | None, *, alike: bool) -> SeriesBatch:
    """Series (n, T, D) at the times 0, 1, ..., NaN where missing.

    Args:
        variables: D names; y1, y2, ... if not given.
        alike: whether all rows share their noise, so that what a row gives does not depend on its place.
    """
    count, length, _ = values.shape
    table = torch.tensor(values)  # a copy: the array may be read-only
    return SeriesBatch(
        torch.arange(length, dtype=torch.float64).expand(count, -1),
        table.nan_to_num(0.0),
        ~table.isnan(),
        ids=("series",) * count if alike else tuple(str(k) for k in range(count)),
        variables=None if variables is None else tuple(variables),  # type: ignore[arg-type]
    )
