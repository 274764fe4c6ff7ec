"""The pictures of benchmarks: lines with a legend, small enough for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def line_plot(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    path: Path,
    *,
    x: str,
    y: str,
    log_x: bool = False,
    log_y: bool = False,
) -> None:
    """Write an SVG of lines through points (x, y), which are sorted by x; the axes are labelled `x` and `y`.

    Lines named "NAME, seed S" share a colour and one entry of the legend.
    """
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8.0, 4.5), layout="constrained")
    styles = ("-", "--", ":", "-.")
    numbers: dict[str, int] = {}
    for name, points in lines.items():
        across, up = zip(*sorted(points), strict=True)
        kind = name.partition(", seed ")[0]
        label = None if kind in numbers else kind
        number = numbers.setdefault(kind, len(numbers))
        style = styles[number // 10 % len(styles)]
        axes.plot(across, up, style, marker="o", markersize=3, linewidth=1.2, color=f"C{number % 10}", label=label)
    axes.set(xlabel=x, ylabel=y)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    axes.grid(True, which="both", alpha=0.2)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context({"svg.hashsalt": path.stem}):  # the same lines give the same file
        figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
