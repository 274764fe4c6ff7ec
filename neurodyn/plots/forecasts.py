"""Pictures of forecasts: fans, calibration, scores against lead time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from neurodyn import style
from neurodyn.forecast import Forecast
from neurodyn.metrics.scores import calibration_curve, pit_histogram
from neurodyn.series import SeriesBatch

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def forecast_fan(
    forecast: Forecast,
    rows: Sequence[int | str] = (0, 1, 2),
    variables: Sequence[int | str] | None = None,
    *,
    history: SeriesBatch | None = None,
    truth: SeriesBatch | None = None,
    units: Mapping[str, str] | None = None,
    time_label: str = "time",
    time_unit: str | None = None,
) -> Figure:
    """Fan charts: one column per row of the batch, one line of panels per variable, which share their y-axis.

    Args:
        forecast: median, 50 and 90 % intervals are drawn.
        rows, variables: by number or name; all variables when omitted.
        history, truth: known points and what then happened, with the forecast's rows in the same order and units.
        units: variable to its unit, for the labels. ``time_label``: name and unit of time.
        time_unit: show dates instead, reading times as numbers of this unit since 1970-01-01.
    """
    chosen_rows = [forecast.rows(r).ids[0] for r in rows]
    chosen = list(forecast.variables if variables is None else variables)
    if not chosen_rows or not chosen:
        raise ValueError(f"rows, variables: want at least one of each, got {len(chosen_rows)} and {len(chosen)}")
    names = [forecast.variables[v] if isinstance(v, int) else v for v in chosen]
    lines, columns = len(chosen), len(chosen_rows)
    figure, panels = style.grid_of_axes(
        lines, columns, width=max(5.0, 3.3 * columns), height=2.1 * lines + 0.7, sharex="col", sharey="row"
    )
    for i, variable in enumerate(names):
        for j, row in enumerate(rows):
            axes = panels[i, j]
            forecast.plot(row, variable, history=history, truth=truth, axes=axes, time_unit=time_unit)
            if i == 0:
                style.title(axes, chosen_rows[j])
            if i == lines - 1 and time_unit is None:
                axes.set_xlabel(time_label)
        panels[i, 0].set_ylabel(f"{variable} ({units[variable]})" if units and variable in units else variable)
    style.legend_above(figure, *panels[0, 0].get_legend_handles_labels())
    figure.align_ylabels(panels[:, 0])
    return figure


def calibration(pit: Tensor) -> Figure:
    """Left: how often central intervals hold the truth, against how often they say. Right: the PIT histogram.

    Grey: where 95 % of the curves (bars) of a calibrated forecast would lie, were the values independent.

    Args:
        pit: any shape, NaN where there is no truth.
    """
    known = pit[~pit.isnan()].double().cpu()
    if known.numel() == 0:
        raise ValueError("pit: no value that is not NaN")
    count = known.numel()
    figure, panels = style.grid_of_axes(1, 2, width=8.6, height=3.6)
    left, right = panels[0]
    levels = torch.linspace(0, 1, 41, dtype=torch.float64)
    band = 1.96 * (levels * (1 - levels) / count).sqrt()
    left.fill_between(levels, levels - band, levels + band, color="#d1d5db", linewidth=0)
    left.plot([0, 1], [0, 1], color=style.QUIET, linewidth=0.9)
    left.plot(levels, calibration_curve(known, levels), color=style.BLUE, linewidth=1.9)
    marked = torch.tensor([0.5, 0.9], dtype=torch.float64)
    found = calibration_curve(known, marked)
    left.plot(marked, found, linestyle="", marker="o", markersize=5, color=style.BLUE)
    says = [f"{style.percent(m)} interval: {style.percent(f)} inside" for m, f in zip(marked, found, strict=True)]
    # In the corner that the curve leaves free.
    narrow = float(found[0]) <= 0.5
    left.annotate(
        "\n".join(says),
        (0.04, 0.96) if narrow else (0.96, 0.04),
        xycoords="axes fraction",
        fontsize=8,
        color=style.INK,
        ha="left" if narrow else "right",
        va="top" if narrow else "bottom",
    )
    left.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="probability of the interval", ylabel="share inside")
    style.per_cent(left, "xy")
    style.title(left, "coverage: below the line is too narrow")
    bins = 10 if count < 2000 else 20
    density, edges = pit_histogram(known, bins)
    error = 1.96 * math.sqrt((bins - 1) / count)
    right.bar(
        edges[:-1].tolist(),
        density.tolist(),
        width=1 / bins,
        align="edge",
        color=style.SKY,
        edgecolor="white",
        linewidth=1,
    )
    right.axhspan(1 - error, 1 + error, color="#6b7280", alpha=0.22, linewidth=0)
    right.axhline(1, color=style.QUIET, linewidth=0.9)
    right.set(xlim=(0, 1), xlabel="place of the truth in its forecast (PIT)", ylabel="density")
    right.set_ylim(0, max(1.5, 1.08 * float(density.max())))
    style.title(right, "flat is calibrated; a U is too narrow")
    return figure


def by_horizon(
    tables: Mapping[str, pd.DataFrame],
    *,
    levels: Sequence[float] = (0.5, 0.9),
    time_label: str = "lead time",
    unit: str = "",
) -> Figure:
    """CRPS and coverage against lead time, one colour per model.

    Args:
        tables: model to its :meth:`neurodyn.metrics.forecasts.Scores.by_horizon`.
        levels: whose coverage is drawn; the tables hold them.
        time_label: name and unit of lead time. ``unit``: of the data.
    """
    if not 1 <= len(tables) <= len(style.CYCLE):
        raise ValueError(f"tables: want 1 to {len(style.CYCLE)} models, got {len(tables)}")
    figure, panels = style.grid_of_axes(1, 2, width=8.6, height=3.5)
    left, right = panels[0]
    dashes = ["-", (0, (4, 2)), (0, (1, 1.5))]
    for (name, table), colour in zip(tables.items(), style.CYCLE, strict=False):
        left.plot(table["lead"], table["crps"], color=colour, marker="o", markersize=4, linewidth=1.6, label=name)
        for level, dash in zip(sorted(levels, reverse=True), dashes, strict=False):
            right.plot(
                table["lead"],
                table[f"coverage_{100 * level:g}"],
                color=colour,
                marker="o",
                markersize=4,
                linewidth=1.6,
                linestyle=dash,
            )
    for level in levels:
        right.axhline(level, color=style.QUIET, linewidth=0.9)
        right.annotate(
            style.percent(level),
            (1.01, level),
            xycoords=("axes fraction", "data"),
            fontsize=8,
            color=style.QUIET,
            va="center",
        )
    left.set(xlabel=time_label, ylabel=f"CRPS ({unit})" if unit else "CRPS")
    left.set_ylim(bottom=0)
    right.set(xlabel=time_label, ylabel="share of the truth inside", ylim=(0, 1))
    style.per_cent(right, "y")
    style.title(left, "error of the forecast: lower is better")
    style.title(right, "coverage: on the grey line is right")
    if len(tables) > 1:
        style.legend_above(figure, *left.get_legend_handles_labels())
    return figure
