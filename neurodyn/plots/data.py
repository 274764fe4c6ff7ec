"""Pictures of data: what was observed, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from neurodyn import style
from neurodyn.frames import seconds_in
from neurodyn.series import SeriesBatch

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def missingness(
    batch: SeriesBatch, *, time_label: str = "time", time_unit: str | None = None, max_rows: int = 60
) -> Figure:
    """What was observed, and when. Left: each row's visits. Right: how often each variable was observed at a visit.

    Args:
        batch: the data.
        time_label: name and unit of time.
        time_unit: show dates instead, reading times as numbers of this unit since 1970-01-01.
        max_rows: rows drawn, evenly chosen from all of them in the order of their last visit.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    height = max(3.0, 0.24 * batch.num_variables + 1.2)
    figure, panels = style.grid_of_axes(1, 2, width=8.6, height=min(height, 9))
    left, right = panels[0]
    present = batch.present.cpu()
    order = batch.last_time.cpu().argsort(stable=True)
    shown = order[torch.linspace(0, len(order) - 1, min(max_rows, len(order))).round().long()]
    share = batch.mask.double().mean(-1).cpu()
    where = present[shown].nonzero()
    colours, norm = style.blues(), Normalize(0, 1)
    times = batch.times.cpu()[shown]
    if time_unit is not None:
        times = times * (seconds_in(time_unit) / seconds_in("D"))
        style.date_axis(left)
    for k in range(len(shown)):
        seen = times[k][present[shown[k]]]
        left.plot([seen[0], seen[-1]], [k, k], color=style.GRID, linewidth=1, zorder=1)
    left.scatter(
        times[where[:, 0], where[:, 1]],
        where[:, 0],
        c=share[shown][where[:, 0], where[:, 1]],
        cmap=colours,
        norm=norm,
        s=max(5, min(26, 900 / len(shown))),
        linewidths=0,
        zorder=2,
    )
    left.set(xlabel=time_label if time_unit is None else "", yticks=[], ylim=(-1, len(shown)))
    left.set_ylabel(
        f"{len(shown)} of {batch.num_rows} series" if len(shown) < batch.num_rows else f"{batch.num_rows} series"
    )
    left.grid(False, axis="y")
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=left, pad=0.02, aspect=30)
    bar.set_label("share of variables observed", fontsize=8, color=style.INK)
    bar.ax.tick_params(labelsize=7, labelcolor=style.QUIET, length=2)
    bar.outline.set_visible(False)
    style.title(left, f"{int(present.sum())} visits")
    often = batch.mask.double().sum((0, 1)).cpu() / present.sum()
    places = range(batch.num_variables)
    right.barh(places, often.tolist(), color=style.BLUE, height=0.72)
    for k in places:
        inside = float(often[k]) > 0.85
        right.annotate(
            style.percent(float(often[k])),
            (float(often[k]), k),
            xytext=(-4 if inside else 4, 0),
            fontsize=8,
            textcoords="offset points",
            va="center",
            ha="right" if inside else "left",
            color="white" if inside else style.INK,
        )
    right.set_yticks(places, batch.variables)
    right.tick_params(axis="y", labelcolor=style.INK, length=0)
    right.set(xlim=(0, 1), xlabel="observed at share of visits")
    right.invert_yaxis()
    right.grid(False, axis="y")
    style.per_cent(right, "x")
    style.title(right, f"{style.percent(float(often.mean()))} of the table is filled")
    return figure
