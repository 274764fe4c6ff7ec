"""Pictures of classifications: which classes are taken for which, and whether probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
from torch import Tensor

from neurodyn import style
from neurodyn.metrics.classes import confusion, reliability

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def class_confusion(probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> Figure:
    """Counts of right classes (rows) by most probable ones (columns), shaded by the share of the row.

    Args:
        probabilities: (B, K). labels: (B,) class codes. classes: K names.
    """
    counts = confusion(probabilities, labels)
    size = len(counts)
    if len(classes) != size:
        raise ValueError(f"classes: got {len(classes)} names, want {size}")
    share = counts / counts.sum(1, keepdim=True).clamp_min(1)
    side = max(3.2, 0.45 * size + 1.6)
    figure, panels = style.grid_of_axes(1, 1, width=side + 0.6, height=side)
    axes = panels[0, 0]
    axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.grid(False)
    for i in range(size):
        for j in range(size):
            if counts[i, j]:
                colour = "white" if share[i, j] > 0.6 else style.INK
                axes.text(j, i, str(int(counts[i, j])), ha="center", va="center", fontsize=8, color=colour)
    turned = 90 if max(map(len, classes)) > 3 else 0
    axes.set_xticks(range(size), labels=list(classes), rotation=turned)
    axes.set_yticks(range(size), labels=list(classes))
    axes.set(xlabel="most probable class", ylabel="right class")
    return figure


def class_reliability(probabilities: Tensor, labels: Tensor) -> Figure:
    """How often the most probable class is right, against its probability. Below the line: too sure.

    Args:
        probabilities: (B, K). labels: (B,) class codes.
    """
    bins = reliability(probabilities, labels)
    full = bins.rows > 0
    sure, right = bins.confidence[full].numpy(), bins.share_right[full].numpy()
    figure, panels = style.grid_of_axes(1, 1, width=4.3, height=3.8)
    axes = panels[0, 0]
    axes.plot([0, 1], [0, 1], color=style.QUIET, linewidth=0.9)
    size = (20 + 180 * bins.rows[full] / bins.rows.max()).numpy()
    axes.plot(sure, right, color=style.BLUE, linewidth=1.6)
    axes.scatter(sure, right, s=size, color=style.BLUE, zorder=3)
    axes.set(xlim=(0, 1.03), ylim=(-0.03, 1.03), xlabel="probability of the most probable class", ylabel="share right")
    style.per_cent(axes, "xy")
    style.title(axes, "size: rows in the bin")
    return figure


def by_missing(tables: Mapping[str, pd.Series], *, score: str = "accuracy") -> Figure:
    """A score against the share of dropped observations, one colour per model.

    Args:
        tables: model to its scores, indexed by the share of dropped observations.
        score: its name.
    """
    if not 1 <= len(tables) <= len(style.CYCLE):
        raise ValueError(f"tables: got {len(tables)} models, want 1 to {len(style.CYCLE)}")
    figure, panels = style.grid_of_axes(1, 1, width=5.2, height=3.6)
    axes = panels[0, 0]
    for (name, table), colour in zip(tables.items(), style.CYCLE, strict=False):
        axes.plot(table.index, table.to_numpy(), color=colour, marker="o", markersize=4, linewidth=1.6, label=name)
    axes.set(xlabel="share of observations dropped", ylabel=score)
    style.per_cent(axes, "xy")
    style.legend_above(figure, *axes.get_legend_handles_labels())
    return figure
