"""The look of every picture and of the report: colours that colour-blind readers can tell apart, and quiet axes.

The colours are the eight of Okabe and Ito (2008). matplotlib is imported inside the functions, so that a run without
pictures never pays for it, and figures are made without pyplot: nothing here touches a global state or a window.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2933"
QUIET = "#6b7280"
GRID = "#e5e7eb"
BLUE = "#0072B2"
SKY = "#56B4E9"
ORANGE = "#E69F00"
GREEN = "#009E73"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
BLACK = "#000000"

CYCLE = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, INK)
"""Colours of lines, in the order they are taken."""

VERDICT = {"good": GREEN, "look": ORANGE, "bad": VERMILLION}


def grid_of_axes(
    rows: int, columns: int, *, width: float, height: float, sharex: Any = False, sharey: Any = False
) -> tuple[Figure, Any]:
    """A figure of ``width`` x ``height`` inches and its (rows, columns) array of tidy axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    for one in axes.flat:
        tidy(one)
    return figure, axes


def tidy(axes: Axes) -> None:
    """Two spines, a faint grid behind the data, small grey ticks."""
    axes.set_facecolor("white")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9ca3af")
    axes.grid(True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color="#9ca3af", labelcolor=QUIET, length=3)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)


def title(axes: Axes, text: str) -> None:
    """A small left-aligned title."""
    axes.set_title(text, fontsize=9.5, color=INK, loc="left")


def date_axis(axes: Axes) -> None:
    """Dates on an x-axis that counts days since 1970-01-01 (UTC)."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=7)  # the fewest that it finds steps for at any span
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.xaxis.offsetText.set(fontsize=8, color=QUIET)


def per_cent(axes: Axes, which: str) -> None:
    """Ticks of shares as per cent on the axes named in ``which``, "x", "y" or "xy"."""
    from matplotlib.ticker import PercentFormatter

    for letter in which:
        axis = axes.xaxis if letter == "x" else axes.yaxis
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def blues() -> Any:
    """A colour map from pale to the blue of the lines, dark enough at its start to be seen on white."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("neurodyn_blues", ["#c9dff0", SKY, BLUE, "#003f66"])


def percent(share: float, digits: int = 0) -> str:
    """A share as text: 0.9 is "90 %"."""
    return f"{100 * share:.{digits}f} %"


def legend_above(figure: Figure, handles: list[Any], labels: list[str]) -> None:
    """One legend for all panels, above them, in as many columns as the width allows."""
    if handles:
        columns = max(1, min(len(labels), int(figure.get_figwidth() / 1.35)))
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, frameon=False, fontsize=8.5)


def png(figure: Figure, dpi: int = 144) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    # An empty Software entry: the same figure then gives the same bytes whichever matplotlib drew it.
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=figure.get_facecolor(), metadata={"Software": None})
    return buffer.getvalue()
