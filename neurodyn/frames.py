"""Pandas frames and files to `SeriesBatch`, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from neurodyn.series import SeriesBatch
from neurodyn.spelling import nearest

SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "D": 86400.0, "W": 604800.0, "Y": 365.25 * 86400.0}
"""Time units for timestamps, in seconds; a year (Y) is 365.25 days."""
CHOOSE = "name the wanted columns in values"


def from_frame(
    frame: pd.DataFrame,
    *,
    id: str = "unique_id",
    time: str = "ds",
    values: Sequence[str] | None = None,
    variable: str | None = None,
    value: str | None = None,
    covariates: Sequence[str] = (),
    static: Sequence[str] = (),
    label: str | None = None,
    time_unit: str | None = None,
    dtype: torch.dtype | None = None,
) -> SeriesBatch:
    """Series from a wide frame (one line per visit) or a long one (one line per observation).

    The order of lines does not matter: visits are sorted by time, series come in order of first appearance.
    An empty or NaN cell is a missing value, and a visit with no value at all is dropped.

    Args:
        frame: at least one line.
        id, time: columns that say which series and when. Times are numbers, or timestamps, which become numbers of
            `time_unit` since 1970-01-01 UTC.
        values: wide: the columns of variables; left out: all columns that have no other role. Long: the variables to
            take, in this order; left out: all of them, in order of first appearance (or of a categorical column's
            categories).
        variable, value: long: the columns with the variable's name and its value. A frame with columns `variable` and
            `value` is read as long without being told, unless `values` names columns.
        covariates: columns of known inputs, given at every visit (wide frames only).
        static: columns of numbers that are the same at all visits of a series. label: one such column.
        time_unit: for timestamps only: s, min, h, D (default), W or Y (365.25 days).
        dtype: of values; torch's default where left out.

    Raises:
        ValueError: one line, for an empty frame, unknown columns, cells that are not numbers or not finite, two lines
            with the same id and time (long: and variable), missing ids or times, static columns that change. Lines of
            data are counted from 1, without the header.
    """
    if len(frame) == 0:
        raise ValueError("frame: no line given, at least one wanted")
    columns = [str(name) for name in frame.columns]
    if len(set(columns)) < len(columns):
        raise ValueError(
            f"frame: column {next(c for c in columns if columns.count(c) > 1)!r} given twice, distinct names wanted"
        )
    if isinstance(values, str):
        raise ValueError(f"values: {values!r} given, a list of names wanted")
    if (variable is None) != (value is None):
        raise ValueError("variable, value: one of them given, both (a long frame) or neither (a wide one) wanted")
    if variable is None and {"variable", "value"} <= set(columns) and not set(values or ()) & set(columns):
        variable, value = "variable", "value"
    for argument, names in (
        ("id", [id]),
        ("time", [time]),
        ("covariates", covariates),
        ("static", static),
        ("label", [label]),
    ):
        _known(argument, [name for name in names if name is not None], columns)
    codes, ids = _codes(frame, id)
    clock = _times(frame[time], time, time_unit)

    if variable is not None and value is not None:
        _known("variable", [variable], columns)
        _known("value", [value], columns)
        if covariates:
            raise ValueError(f"covariates: {list(covariates)} given with a long frame, a wide frame wanted")
        lines, table, names = _spread(frame, codes, clock, ids, variable, value, values)
    else:
        used = {id, time, label, *covariates, *static}
        names = [name for name in columns if name not in used] if values is None else list(values)
        if not names:
            raise ValueError(f"values: no column left for variables among {columns}, at least one wanted")
        _known("values", names, columns)
        lines = np.lexsort((clock, codes))
        table = np.stack([_numbers(frame[name], name, CHOOSE) for name in names], 1)[lines]
        same = (np.diff(codes[lines]) == 0) & (np.diff(clock[lines]) == 0)
        if same.any():
            line = lines[1:][same][0]
            raise ValueError(
                f"frame: two lines for {id} {ids[codes[line]]!r} at {time} {frame[time].iloc[line]}, one wanted"
            )

    keep = ~np.isnan(table).all(1)
    missing = np.setdiff1d(np.arange(len(ids)), codes[lines][keep])
    if len(missing):
        raise ValueError(f"frame: {id} {ids[missing[0]]!r} has no observed value of {names}, at least one wanted")
    lines, table = lines[keep], table[keep]
    dtype = dtype or torch.get_default_dtype()
    row, start = codes[lines], np.searchsorted(codes[lines], np.arange(len(ids)))
    visit = np.arange(len(lines)) - start[row]
    shape = (len(ids), int(visit.max()) + 1)

    def lay_out(content: np.ndarray) -> np.ndarray:
        out = np.full(shape + content.shape[1:], np.nan)
        out[row, visit] = content
        return out

    known = None
    if covariates:
        inputs = np.stack([_numbers(frame[name], name, "fill it in", missing_allowed=False) for name in covariates], 1)
        known = torch.as_tensor(lay_out(inputs[lines]), dtype=dtype)
    grid = torch.as_tensor(lay_out(table))
    attributes = {
        name: _constant(frame, name, codes, ids, id) for name in [*static, *([] if label is None else [label])]
    }
    return SeriesBatch(
        times=torch.as_tensor(lay_out(clock[lines])),
        values=grid.to(dtype),
        mask=~grid.isnan(),
        covariates=known,
        static=torch.as_tensor(np.stack([attributes[name] for name in static], 1), dtype=dtype) if static else None,
        labels=None if label is None else _labels(attributes[label]),
        ids=tuple(ids),
        variables=tuple(names),
    )


def read_series(path: str | Path, **options: Any) -> SeriesBatch:
    """`from_frame` on a file, as `read_table` reads it; `options` as there.

    Raises:
        ValueError: one line with the path: what `read_table` or `from_frame` raises.
        FileNotFoundError: no such file.
    """
    frame = read_table(path)
    try:
        return from_frame(frame, **options)
    except ValueError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error


def read_table(path: str | Path) -> pd.DataFrame:
    """The frame in a file: .csv, .csv.gz, .tsv, .txt (tab-separated) or .parquet.

    Raises:
        ValueError: one line with the path: unknown ending, empty or unreadable file.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: {path} given, an existing file wanted")
    name = path.name.removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            return pd.read_parquet(path)
        if name.endswith((".csv", ".tsv", ".txt")):
            return pd.read_csv(path, sep="," if name.endswith(".csv") else "\t")
        raise ValueError("a file ending in .csv, .csv.gz, .tsv, .txt or .parquet wanted")
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path}: empty file, a header and at least one line wanted") from None
    except pd.errors.ParserError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: a table with the same columns in every line wanted ({reason})") from error
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error


def coded_classes(frame: pd.DataFrame, label: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The frame with a column of classes, in words or numbers, turned into codes 0, 1, ...; and the classes' names.

    Codes follow the order of the names: that of numbers, or of the alphabet.

    Raises:
        ValueError: an unknown column, an empty cell, fewer than two classes.
    """
    _known("label", [label], [str(name) for name in frame.columns])
    column = frame[label]
    if column.isna().any():
        raise ValueError(
            f"label: no class of {label!r} in line {int(column.isna().to_numpy().argmax()) + 1}, one wanted"
        )
    classes, codes = np.unique(column.to_numpy(), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"label: {len(classes)} class in {label!r} given, 2 or more wanted")
    return frame.assign(**{label: codes}), tuple(str(name) for name in classes)


def to_frame(batch: SeriesBatch, layout: str = "wide", *, time_unit: str | None = None) -> pd.DataFrame:
    """Observed values as a frame, sorted by row and time; `from_frame` reads it back. Only ids, times and values go in.

    Args:
        batch: rows with distinct ids (their numbers where there are none).
        layout: "wide": unique_id, ds and a column per variable, NaN where missing. "long": unique_id, ds, variable,
            value.
        time_unit: write `ds` as UTC timestamps, reading times as numbers of this unit since 1970-01-01.
    """
    if layout not in ("wide", "long"):
        raise ValueError(f"layout: {layout!r} given, 'wide' or 'long' wanted")
    ids = batch.ids or tuple(str(k) for k in range(batch.num_rows))
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise ValueError(f"batch: two rows have the id {twice!r}, distinct ids wanted")
    batch = batch.to("cpu")
    row, visit = (index.numpy() for index in batch.present.nonzero(as_tuple=True))
    table = torch.where(batch.mask, batch.values, torch.nan)[row, visit].detach().numpy()
    clock: Any = batch.times[row, visit].numpy()
    if time_unit is not None:
        clock = timestamps(clock, time_unit)
    head = {"unique_id": np.asarray(ids, dtype=object)[row], "ds": clock}
    if layout == "wide":
        return pd.DataFrame(head | dict(zip(batch.variables, table.T, strict=True)))
    line, which = (~np.isnan(table)).nonzero()
    return pd.DataFrame(
        {name: column[line] for name, column in head.items()}
        | {"variable": pd.Categorical.from_codes(which, list(batch.variables)), "value": table[line, which]}
    )


def timestamps(times: Any, time_unit: str = "D") -> pd.DatetimeIndex:
    """UTC timestamps of numbers of `time_unit` since 1970-01-01, to the microsecond."""
    seconds = np.asarray(times, dtype=np.float64) * seconds_in(time_unit)
    return pd.DatetimeIndex(np.round(seconds * 1e6).astype("int64").view("datetime64[us]")).tz_localize("UTC")


def has_timestamps(column: pd.Series) -> bool:
    """Whether a column of times holds moments, which `from_frame` counts in a unit, and not numbers."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return True
    return not pd.api.types.is_numeric_dtype(column) and bool(pd.to_numeric(column, errors="coerce").isna().any())


def seconds_in(time_unit: str) -> float:
    """Seconds in a unit of timestamps.

    Raises:
        ValueError: an unknown unit.
    """
    if time_unit not in SECONDS:
        raise ValueError(f"time_unit: {time_unit!r} given, one of {list(SECONDS)} wanted")
    return SECONDS[time_unit]


def _known(argument: str, names: Iterable[str], columns: Sequence[str]) -> None:
    for name in names:
        if name not in columns:
            raise ValueError(
                f"{argument}: no column {name!r}{nearest(str(name), columns)}, one of {list(columns)} wanted"
            )


def _codes(frame: pd.DataFrame, id: str) -> tuple[np.ndarray, list[str]]:
    codes, kinds = pd.factorize(frame[id])
    if (codes < 0).any():
        raise ValueError(
            f"id: column {id!r} is empty in data line {int((codes < 0).argmax()) + 1}, a name or number wanted"
        )
    return codes, [str(kind) for kind in kinds]


def _times(column: pd.Series, name: str, time_unit: str | None) -> np.ndarray:
    """Times as float64 numbers."""
    if column.isna().any():
        raise ValueError(
            f"time: column {name!r} is NaN or empty in data line {int(column.isna().to_numpy().argmax()) + 1}, "
            "a time wanted"
        )
    if not pd.api.types.is_datetime64_any_dtype(column) and not pd.api.types.is_numeric_dtype(column):
        numbers = pd.to_numeric(column, errors="coerce")
        if numbers.isna().any():
            dates = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
            if dates.isna().any():
                neither = dates.isna() & numbers.isna()
                line = int((neither if neither.any() else dates.isna()).to_numpy().argmax())
                raise ValueError(
                    f"time: column {name!r} has {column.iloc[line]!r} in data line {line + 1}, "
                    "numbers or ISO 8601 timestamps wanted"
                )
            column = dates
        else:
            column = numbers
    if pd.api.types.is_datetime64_any_dtype(column):
        moment = column.dt.tz_localize("UTC") if column.dt.tz is None else column.dt.tz_convert("UTC")
        microseconds = moment.dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)
        return microseconds / (1e6 * seconds_in(time_unit or "D"))
    if time_unit is not None:
        raise ValueError(
            f"time_unit: {time_unit!r} given, but column {name!r} holds numbers; only timestamps have a unit to choose"
        )
    times = column.to_numpy(dtype=np.float64)
    if not np.isfinite(times).all():
        line = int((~np.isfinite(times)).argmax())
        raise ValueError(f"time: column {name!r} is {times[line]} in data line {line + 1}, a finite number wanted")
    return times


def _numbers(column: pd.Series, name: str, hint: str, missing_allowed: bool = True) -> np.ndarray:
    """A column as float64, NaN where missing."""
    numbers = pd.to_numeric(column, errors="coerce") if not pd.api.types.is_numeric_dtype(column) else column
    bad = (numbers.isna() & column.notna()).to_numpy()
    if bad.any() or pd.api.types.is_datetime64_any_dtype(column):
        line = int(bad.argmax())
        if missing_allowed and 0 < bad.sum() < column.notna().sum() / 2:  # a column of numbers with some other cells
            hint = "leave the cell empty if its value is missing"
        raise ValueError(
            f"column {name!r}: {column.iloc[line]!r} given in data line {line + 1}, a number wanted; {hint}"
        )
    out = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.isinf(out) if missing_allowed else ~np.isfinite(out)
    if wrong.any():
        line = int(wrong.argmax())
        raise ValueError(f"column {name!r}: {out[line]} given in data line {line + 1}, a finite number wanted")
    return out


def _spread(
    frame: pd.DataFrame,
    codes: np.ndarray,
    clock: np.ndarray,
    ids: Sequence[str],
    variable: str,
    value: str,
    wanted: Sequence[str] | None,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """A long frame's visits: the first line of each (sorted by series and time), values (visits, D), names."""
    kind, kinds = pd.factorize(frame[variable])
    if (kind < 0).any():
        raise ValueError(
            f"variable: column {variable!r} is empty in data line {int((kind < 0).argmax()) + 1}, a name wanted"
        )
    if isinstance(frame[variable].dtype, pd.CategoricalDtype):
        kind, kinds = frame[variable].cat.codes.to_numpy().astype(np.int64), frame[variable].cat.categories
    found = [str(name) for name in kinds]
    names = found if wanted is None else list(wanted)
    _known("values", names, found)
    place = np.full(len(found), -1)
    place[[found.index(name) for name in names]] = np.arange(len(names))
    numbers = _numbers(frame[value], value, "one number per line is needed")
    order = np.lexsort((kind, clock, codes))
    change = np.ones(len(order), dtype=bool)
    change[1:] = (np.diff(codes[order]) != 0) | (np.diff(clock[order]) != 0)
    visit = np.cumsum(change) - 1
    same = ~change & (np.diff(kind[order], prepend=-1) == 0)
    if same.any():
        line = order[same][0]
        raise ValueError(
            f"frame: two values of {found[kind[line]]!r} for {ids[codes[line]]!r} at time {clock[line]:g}, one wanted"
        )
    table = np.full((int(visit[-1]) + 1, len(names)), np.nan)
    column = place[kind[order]]
    table[visit[column >= 0], column[column >= 0]] = numbers[order][column >= 0]
    return order[change], table, names


def _constant(frame: pd.DataFrame, name: str, codes: np.ndarray, ids: Sequence[str], id: str) -> np.ndarray:
    """One number per series from a column that repeats it."""
    column = _numbers(frame[name], name, "turn categories into numbers first", missing_allowed=False)
    first = column[np.unique(codes, return_index=True)[1]]
    changed = column != first[codes]
    if changed.any():
        line = int(changed.argmax())
        raise ValueError(
            f"column {name!r}: {first[codes[line]]:g} and {column[line]:g} given for {id} {ids[codes[line]]!r}, "
            "one number per series wanted"
        )
    return first


def _labels(column: np.ndarray) -> torch.Tensor:
    """Whole numbers stay whole, so that classes can be classes."""
    whole = (column == np.round(column)).all()
    return torch.as_tensor(column.astype(np.int64) if whole else column)
