"""Forecasts as samples of the future: one container for every model, with frames, intervals and a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neurodyn import style
from neurodyn.quantiles import sample_quantiles

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes

    from neurodyn.scaling import Scaling
    from neurodyn.series import SeriesBatch


def check_forecast_times(history: SeriesBatch, times: Tensor) -> Tensor:
    """Times that a forecast of ``history`` is asked for, as (B, H) float64 on its device.

    Args:
        history: B rows.
        times: (B, H) per row, or (H,) for all rows; nondecreasing, none before the row's last observed time. A row that
            needs fewer than H repeats its last one.

    Raises:
        ValueError: another shape, times that are not finite, fall, or come before the end of the history.
    """
    rows = history.num_rows
    given = torch.as_tensor(times).to(device=history.device, dtype=torch.float64)
    if given.dim() not in (1, 2) or given.numel() == 0 or (given.dim() == 2 and given.shape[0] != rows):
        raise ValueError(f"times: shape {tuple(given.shape)} given, ({rows}, H) or (H,) with H >= 1 wanted")
    given = given.expand(rows, -1)
    names = history.ids or tuple(str(k) for k in range(rows))
    faults = (
        (~given.isfinite(), "is not finite"),
        (given < history.last_time[:, None], "comes before the row's last observed time"),
        (given.diff(dim=1, prepend=given[:, :1]) < 0, "comes before the time asked for just before it"),
    )
    for fault, text in faults:
        where = fault.nonzero()[:1].tolist()
        if where:
            row, k = where[0]
            raise ValueError(
                f"times: {float(given[row, k]):.9g} (row {names[row]!r}, place {k}) {text}; nondecreasing times from "
                f"{float(history.last_time[row]):.9g} on wanted"
            )
    return given


@dataclass(frozen=True, eq=False, repr=False)
class Forecast:
    """Sample paths of D variables at H future times of B rows.

    Samples with the same index belong to one simulated future of the row, over all its times and variables, so that
    any function of a path (its maximum, the time it crosses a threshold) can be forecast by applying it to samples.

    Attributes:
        samples: (S, B, H, D), in the units of the series the model was given (standardised, as a rule: ``undo``).
        times: (B, H) float64, nondecreasing along each row; padding repeats the last time.
        ids: B names of rows.
        variables: D names.
        present: (B, H) bool, False where a row asked for fewer times than the longest; all True when omitted.
        origin: (B,) float64 or None: the time up to which each row's history was known. Lead times count from it.

    Raises:
        ValueError: shapes that do not fit together, times that fall or are not finite, samples that are not finite
            where ``present`` is True (a rollout that diverged).
    """

    samples: Tensor
    times: Tensor
    ids: tuple[str, ...]
    variables: tuple[str, ...]
    present: Tensor = None  # type: ignore[assignment]  # always filled by construction
    origin: Tensor | None = None

    def __post_init__(self) -> None:
        if self.samples.dim() != 4 or self.samples.shape[0] < 1:
            raise ValueError(f"samples: want (S, B, H, D) with S >= 1, got shape {tuple(self.samples.shape)}")
        _, rows, horizon, size = self.samples.shape
        if self.times.shape != (rows, horizon):
            raise ValueError(f"times: want shape {(rows, horizon)} to go with samples, got {tuple(self.times.shape)}")
        object.__setattr__(self, "times", self.times.to(torch.float64).contiguous())
        object.__setattr__(self, "ids", tuple(str(i) for i in self.ids))
        object.__setattr__(self, "variables", tuple(self.variables))
        if len(self.ids) != rows:
            raise ValueError(f"ids: want {rows} names, one per row, got {len(self.ids)}")
        if len(self.variables) != size:
            raise ValueError(f"variables: want {size} names, one per variable, got {len(self.variables)}")
        if self.present is None:
            object.__setattr__(self, "present", torch.ones_like(self.times, dtype=torch.bool))
        if self.present.shape != (rows, horizon) or self.present.dtype != torch.bool:
            raise ValueError(
                f"present: want a bool tensor of shape {(rows, horizon)}, "
                f"got {self.present.dtype} of shape {tuple(self.present.shape)}"
            )
        if self.origin is not None:
            if self.origin.shape != (rows,):
                raise ValueError(f"origin: want one time per row, shape {(rows,)}, got {tuple(self.origin.shape)}")
            object.__setattr__(self, "origin", self.origin.to(torch.float64))
        if not bool(self.times.isfinite().all()):
            raise ValueError("times: not all finite; padding repeats a row's last time")
        if bool((self.times.diff(dim=1) < 0).any()):
            raise ValueError("times: want nondecreasing times along each row; padding repeats a row's last time")
        broken = ~self.samples.isfinite() & self.present[..., None]
        if bool(broken.any()):
            share = int(broken.sum()) / broken.numel()
            row = self.ids[int(broken.any(0).flatten(1).any(1).nonzero()[0])]
            raise ValueError(f"samples: {share:.2g} of them are not finite (row {row!r} first): the rollout diverged")

    def __repr__(self) -> str:
        return (
            f"Forecast({self.num_samples} samples of {', '.join(self.variables)} at up to {self.horizon} times of "
            f"{self.num_rows} rows; {self.samples.dtype}, {self.samples.device})"
        )

    @staticmethod
    def of(history: SeriesBatch, times: Tensor, samples: Tensor) -> Forecast:
        """The forecast of a history's rows: takes ids, variables and origins from it.

        A time that repeats the one before it is padding: ``present`` is False there.

        Args:
            history: B rows, what the forecast was made from.
            times: (B, H), from :func:`check_forecast_times`.
            samples: (S, B, H, D).
        """
        fresh = torch.ones_like(times, dtype=torch.bool)
        fresh[:, 1:] = times.diff(dim=1) > 0
        ids = history.ids or tuple(str(k) for k in range(history.num_rows))
        return Forecast(samples, times, ids, history.variables, present=fresh, origin=history.last_time)

    @property
    def num_samples(self) -> int:
        """S."""
        return self.samples.shape[0]

    @property
    def num_rows(self) -> int:
        """B."""
        return self.samples.shape[1]

    @property
    def horizon(self) -> int:
        """H, the most times that any row asked for."""
        return self.samples.shape[2]

    @property
    def mean(self) -> Tensor:
        """(B, H, D)."""
        return self.samples.mean(0)

    @property
    def median(self) -> Tensor:
        """(B, H, D)."""
        return self.quantile(0.5)

    @property
    def sd(self) -> Tensor:
        """(B, H, D), with the divisor S - 1; at least two samples."""
        if self.num_samples < 2:
            raise ValueError("samples: a standard deviation needs at least 2, got 1")
        return self.samples.std(0)

    def quantile(self, q: float) -> Tensor:
        """(B, H, D): the q-quantile by :func:`sample_quantiles`."""
        return sample_quantiles(self.samples, [q])[0]

    def interval(self, level: float) -> tuple[Tensor, Tensor]:
        """Low and high ends, each (B, H, D), of the central interval that holds ``level`` of the probability."""
        if not 0 < level < 1:
            raise ValueError(f"level: want a probability inside (0, 1), got {level}")
        low, high = sample_quantiles(self.samples, [(1 - level) / 2, (1 + level) / 2])
        return low, high

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Forecast:
        """Moved to a device; ``dtype`` is that of the samples, times stay float64."""
        return replace(
            self,
            samples=self.samples.to(device=device, dtype=dtype),
            times=self.times.to(device=device),
            present=self.present.to(device=device),
            origin=None if self.origin is None else self.origin.to(device=device),
        )

    def rows(self, index: Any) -> Forecast:
        """The forecast of some rows: a number or an id, a list of either, a slice, or a bool mask (B,)."""
        if isinstance(index, (int, str)):
            index = [index]
        if isinstance(index, (list, tuple)):
            if not index:
                raise ValueError(f"index: no row chosen, at least one of {self.num_rows} wanted")
            if not isinstance(index[0], bool):
                index = [self._row(one) for one in index]
        chosen = torch.arange(self.num_rows)[torch.as_tensor(index) if not isinstance(index, slice) else index]
        on_device = chosen.to(self.samples.device)
        return replace(
            self,
            samples=self.samples[:, on_device],
            times=self.times[on_device],
            ids=tuple(self.ids[i] for i in chosen.tolist()),
            present=self.present[on_device],
            origin=None if self.origin is None else self.origin[on_device],
        )

    def undo(self, scaling: Scaling) -> Forecast:
        """The same forecast in the data's own units of value and time."""
        return replace(
            self,
            samples=scaling.undo_values(self.samples),
            times=scaling.undo_times(self.times),
            origin=None if self.origin is None else scaling.undo_times(self.origin),
        )

    def to_frame(
        self, levels: Sequence[int | float] = (80, 90), *, model: str | None = None, time_unit: str | None = None
    ) -> pd.DataFrame:
        """One line per row and time, in neuralforecast's column layout.

        Columns ``unique_id``, ``ds``, and for each variable NAME: ``NAME`` (mean), ``NAME-median``, and per level in
        per cent ``NAME-lo-90``, ``NAME-hi-90``.

        Args:
            levels: of the intervals.
            model: name of the model. The frame is then one that tools around neuralforecast read: the columns are
                MODEL, MODEL-median, MODEL-lo-90, MODEL-hi-90, ..., and every variable is a series of its own, whose
                ``unique_id`` is ROW/VARIABLE (ROW where there is one variable).
            time_unit: write ``ds`` as UTC timestamps, reading times as numbers of this unit since 1970-01-01.
        """
        from neurodyn.forecast_tables import model_frame, wide_frame

        return wide_frame(self, levels, time_unit) if model is None else model_frame(self, levels, model, time_unit)

    def to_long_frame(self, levels: Sequence[int | float] = (80, 90)) -> pd.DataFrame:
        """One line per row, time and variable.

        Columns ``unique_id``, ``ds``, ``variable``, ``y`` (mean), ``y-median``, ``y-lo-90``, ``y-hi-90``, ...
        """
        from neurodyn.forecast_tables import long_frame

        return long_frame(self, levels)

    def to_parquet(
        self,
        path: str | os.PathLike[str],
        levels: Sequence[int | float] = (50, 80, 90),
        *,
        model: str | None = None,
        time_unit: str | None = None,
    ) -> Path:
        """``to_frame`` written to a parquet file, whole or not at all. Returns the path."""
        target = Path(path)
        partial = target.with_name(target.name + ".partial")
        self.to_frame(levels, model=model, time_unit=time_unit).to_parquet(partial, index=False)
        os.replace(partial, target)
        return target

    def to_xarray(self) -> xr.Dataset:
        """The samples as an xarray dataset, one data variable (sample, unique_id, step) per variable.

        Coordinates: ``unique_id``; ``ds`` (unique_id, step), the times; ``origin`` (unique_id) where it is known.
        Samples are NaN at steps that a row did not ask for. `from_xarray` reads it back.

        Raises:
            ImportError: xarray is not installed; the message names the extra.
            ValueError: a variable with the name of a dimension or coordinate.
        """
        from neurodyn.forecast_tables import to_dataset

        return to_dataset(self)

    @staticmethod
    def from_xarray(dataset: xr.Dataset) -> Forecast:
        """The forecast that `to_xarray` made the dataset of.

        Raises:
            ValueError: a dataset of another shape.
        """
        from neurodyn.forecast_tables import from_dataset

        return from_dataset(dataset)

    def plot(
        self,
        row: int | str = 0,
        variable: int | str = 0,
        history: SeriesBatch | None = None,
        truth: SeriesBatch | None = None,
        *,
        axes: Axes | None = None,
        time_unit: str | None = None,
    ) -> Axes:
        """Fan chart of one row and variable: median, 50 and 90 % intervals, known points and what then happened.

        ``history`` and ``truth`` have the forecast's rows in the same order and its units. Draws into ``axes``, or into
        a new figure (``.figure`` of the result) outside of pyplot. :func:`neurodyn.plots.forecast_fan` draws many.
        With ``time_unit`` times are numbers of this unit since 1970-01-01, as `from_frame` makes them of timestamps,
        and the axis shows dates.
        """
        r, d = self._row(row), self._variable(variable)
        if axes is None:
            _, array = style.grid_of_axes(1, 1, width=6.4, height=3.6)
            axes = array[0, 0]
        clock = 1.0
        if time_unit is not None:
            from neurodyn.frames import seconds_in

            clock = seconds_in(time_unit) / seconds_in("D")
            style.date_axis(axes)
        single = self.rows([r]).to(device="cpu")
        here = single.present[0]
        t = clock * single.times[0, here].numpy()
        levels = [(1 + p) / 2 for p in (-0.9, -0.5, 0.0, 0.5, 0.9)]
        low, lower, middle, upper, high = sample_quantiles(single.samples[:, 0, here, d], levels).double().numpy()
        if len(t) > 1:
            axes.fill_between(t, low, high, color=style.BLUE, alpha=0.16, linewidth=0, label="90 % interval")
            axes.fill_between(t, lower, upper, color=style.BLUE, alpha=0.32, linewidth=0, label="50 % interval")
        else:
            axes.vlines(t, low, high, color=style.BLUE, alpha=0.25, linewidth=9, label="90 % interval")
            axes.vlines(t, lower, upper, color=style.BLUE, alpha=0.45, linewidth=9, label="50 % interval")
        few = len(t) <= 30
        axes.plot(t, middle, color=style.BLUE, linewidth=1.6, marker="o" if few else "", markersize=3, label="median")
        start = self.origin
        if history is not None:
            known = history.mask[r, :, d].cpu()
            axes.plot(
                clock * history.times[r].cpu()[known],
                history.values[r, :, d].cpu()[known],
                color=style.QUIET,
                linewidth=0.8,
                marker="o",
                markersize=4,
                markerfacecolor=style.INK,
                markeredgewidth=0,
                label="known",
            )
            start = history.last_time if start is None else start
        if truth is not None:
            seen = truth.mask[r, :, d].cpu()
            axes.plot(
                clock * truth.times[r].cpu()[seen],
                truth.values[r, :, d].cpu()[seen],
                linestyle="",
                marker="D",
                markersize=4.5,
                markerfacecolor="white",
                markeredgecolor=style.VERMILLION,
                markeredgewidth=1.4,
                label="what happened",
            )
        if start is not None:
            axes.axvline(clock * float(start[r]), color=style.QUIET, linewidth=0.8, linestyle=(0, (3, 3)))
        return axes

    def _row(self, row: int | str) -> int:
        if isinstance(row, str):
            if row not in self.ids:
                raise ValueError(f"row: no row {row!r}; there are {self.num_rows}, the first is {self.ids[0]!r}")
            return self.ids.index(row)
        if not -self.num_rows <= row < self.num_rows:
            raise ValueError(f"row: want a number below {self.num_rows}, got {row}")
        return row % self.num_rows

    def _variable(self, variable: int | str) -> int:
        if isinstance(variable, str):
            if variable not in self.variables:
                raise ValueError(f"variable: no variable {variable!r}; want one of {', '.join(self.variables)}")
            return self.variables.index(variable)
        if not -len(self.variables) <= variable < len(self.variables):
            raise ValueError(f"variable: want a number below {len(self.variables)}, got {variable}")
        return variable % len(self.variables)
