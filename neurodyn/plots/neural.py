"""Pictures of a population: spikes beside rates, condition means, latents, decoded behaviour, the field that moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurodyn import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[Any]


def raster_and_rates(
    times: Array, counts: Array, rates: Array, *, bin_width: float, truth: Array | None = None, title: str = ""
) -> Figure:
    """One trial: spikes, inferred rates, and the true ones where they are known, neurons in the order of their peak.

    Args:
        times: (bins,), in s. counts, rates, truth: (bins, neurons), the last two in expected counts per bin.
        bin_width: in s; rates are shown in Hz.
    """
    order = np.argsort(rates.argmax(0), kind="stable")
    tables = [("rates (Hz)", rates[:, order] / bin_width)]
    if truth is not None:
        tables.append(("true rates (Hz)", truth[:, order] / bin_width))
    figure, panels = style.grid_of_axes(1, 1 + len(tables), width=3.3 * (1 + len(tables)), height=3.2, sharey=True)
    first = panels[0][0]
    bin_, unit = np.nonzero(counts[:, order] > 0)
    first.scatter(times[bin_], unit, s=4 * counts[:, order][bin_, unit], marker="|", color=style.INK, linewidths=0.7)
    first.set(xlabel="time (s)", ylabel="neuron, by peak")
    style.title(first, f"spikes {title}".strip())
    top = max(float(np.quantile(table, 0.995)) for _, table in tables)
    extent = (times[0], times[-1] + bin_width, -0.5, counts.shape[1] - 0.5)
    for axes, (name, table) in zip(panels[0][1:], tables, strict=True):
        image = axes.imshow(
            table.T,
            aspect="auto",
            origin="lower",
            extent=extent,
            cmap=style.blues(),
            vmin=0,
            vmax=top,
            interpolation="nearest",
        )
        axes.grid(False)
        axes.set(xlabel="time (s)")
        style.title(axes, name)
    bar = figure.colorbar(image, ax=panels[0][-1], pad=0.02, aspect=30)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    return figure


def latents(paths: Array, colours: Array, *, colour_label: str = "condition", max_trials: int = 80) -> Figure:
    """Mean latent paths on their first three principal axes, one line per trial.

    Args:
        paths: (trials, bins, n), positions. colours: (trials,), numbers: a condition or some behaviour.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    flat = paths.reshape(-1, paths.shape[-1])
    centre = flat.mean(0)
    axes_of = np.linalg.svd(flat - centre, full_matrices=False)[2][:3]
    seen = (paths - centre) @ axes_of.T
    seen = np.concatenate([seen, np.zeros((*seen.shape[:2], 3 - seen.shape[2]))], -1)
    figure = Figure(figsize=(5.2, 4.2), layout="constrained", facecolor="white")
    axes: Any = figure.add_subplot(projection="3d")
    norm = Normalize(float(np.min(colours)), float(np.max(colours)) or 1.0)
    import matplotlib

    table = matplotlib.colormaps["viridis"]
    for k in np.linspace(0, len(seen) - 1, min(max_trials, len(seen))).astype(int):
        axes.plot(*seen[k].T, color=table(norm(float(colours[k]))), linewidth=0.9, alpha=0.8)
        axes.scatter(*seen[k, :1].T, color=[table(norm(float(colours[k])))], s=6)
    axes.set(xlabel="axis 1", ylabel="axis 2", zlabel="axis 3")
    axes.tick_params(labelsize=6, pad=-2)
    bar = figure.colorbar(ScalarMappable(norm, table), ax=axes, shrink=0.6, pad=0.1)
    bar.set_label(colour_label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def psths(
    times: Array,
    counts: Array,
    rates: Array,
    labels: Array,
    *,
    bin_width: float,
    neurons: Sequence[int],
    smooth: float = 2.0,
) -> Figure:
    """Condition means of counts, smoothed, and of inferred rates, in Hz: a panel per neuron, a colour per condition.

    Args:
        counts, rates: (trials, bins, N). labels: (trials,). neurons: positions. smooth: of counts, in bins.
    """
    from scipy.ndimage import gaussian_filter1d

    kinds = np.unique(labels)[: len(style.CYCLE)]
    columns = min(4, len(neurons))
    lines = -(-len(neurons) // columns)
    figure, panels = style.grid_of_axes(lines, columns, width=2.5 * columns, height=2.0 * lines, sharex=True)
    for axes, unit in zip(panels.flat, neurons, strict=False):
        for kind, colour in zip(kinds, style.CYCLE, strict=False):
            same = labels == kind
            mean = np.nanmean(counts[same, :, unit], 0)
            axes.plot(times, gaussian_filter1d(np.nan_to_num(mean), smooth) / bin_width, color=colour, alpha=0.35)
            axes.plot(times, rates[same, :, unit].mean(0) / bin_width, color=colour, linewidth=1.6)
        style.title(axes, f"neuron {unit + 1}")
    for axes in panels.flat[len(neurons) :]:
        axes.set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel("time (s)")
    panels[0][0].set_ylabel("Hz")
    return figure


def decoded(times: Array, truth: Array, found: Array, names: Sequence[str], max_trials: int = 4) -> Figure:
    """True and decoded behaviour of a few trials, a line of panels per column.

    Args: truth, found: (trials, bins, columns). names: of columns.
    """
    shown = np.linspace(0, len(truth) - 1, min(max_trials, len(truth))).astype(int)
    size = (len(names), len(shown))
    figure, panels = style.grid_of_axes(*size, width=2.3 * size[1], height=1.8 * size[0], sharex=True, sharey="row")
    for line, name in enumerate(names):
        for column, trial in enumerate(shown):
            axes = panels[line][column]
            axes.plot(times, truth[trial, :, line], color=style.INK, linewidth=1.4, label="true")
            axes.plot(times, found[trial, :, line], color=style.VERMILLION, linewidth=1.4, label="decoded")
            if line == size[0] - 1:
                axes.set_xlabel("time (s)")
        panels[line][0].set_ylabel(name)
    panels[0][0].legend(fontsize=7, frameon=False)
    return figure


def flow_field(
    positions: Array,
    push: Callable[[Array], Array],
    energy: Callable[[Array], Array] | None = None,
    *,
    size: int = 21,
) -> Figure:
    """The acceleration of a latent at rest on the plane of the positions' first two principal axes.

    Args:
        positions: (m, n), where latents were. push: acceleration at (k, n), (k, n). energy: the potential at (k, n),
            (k,), in units of kT; drawn where there is one.
    """
    centre = positions.mean(0)
    plane = np.linalg.svd(positions - centre, full_matrices=False)[2][:2]
    seen = (positions - centre) @ plane.T
    if len(plane) < 2:
        plane, seen = np.concatenate([plane, 0 * plane]), np.concatenate([seen, 0 * seen], 1)
    reach = 1.15 * np.quantile(np.abs(seen), 0.995, axis=0).clip(1e-3)
    a, b = np.meshgrid(np.linspace(-reach[0], reach[0], size), np.linspace(-reach[1], reach[1], size))
    points = centre + np.stack([a.ravel(), b.ravel()], 1) @ plane
    field = push(points) @ plane.T
    figure, panels = style.grid_of_axes(1, 1, width=5.2, height=4.0)
    axes = panels[0][0]
    if energy is not None:
        level = energy(points).reshape(a.shape)
        drawn = axes.contourf(a, b, level - level.min(), 14, cmap=style.blues())
        figure.colorbar(drawn, ax=axes, pad=0.02).set_label("potential", fontsize=8)
    keep = np.linspace(0, len(seen) - 1, min(1500, len(seen))).astype(int)
    axes.scatter(*seen[keep].T, s=3, color=style.ORANGE, alpha=0.5, linewidths=0)
    axes.quiver(a, b, field[:, 0].reshape(a.shape), field[:, 1].reshape(a.shape), color=style.INK, width=0.003)
    axes.grid(False)
    axes.set(xlabel="axis 1", ylabel="axis 2")
    return figure
