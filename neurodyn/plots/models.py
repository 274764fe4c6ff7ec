"""Pictures of a model: how it trained, what its latents do, and its diagnostics."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neurodyn import style
from neurodyn.diagnostics import Diagnostic
from neurodyn.quantiles import sample_quantiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {
    "objective": "objective",
    "log_likelihood": "log-likelihood",
    "initial_kl": "initial KL",
    "path_kl": "path KL",
    "filter_loss": "filter loss",
}
_PANELS = (("objective",), ("log_likelihood",), ("initial_kl", "path_kl", "filter_loss"))


def loss_curves(history: Sequence[Mapping[str, Any]], *, best_step: int | None = None) -> Figure:
    """The loss and its parts against steps, from the records of :func:`neurodyn.training.fit`; validation last.

    The frame fits what comes after the first tenth of the steps, so that the fall from the start, which may leave it,
    does not flatten the rest.

    Args:
        history: records with "step" and any of objective, log_likelihood, initial_kl, path_kl, filter_loss (nats per
            series) and validation.
        best_step: where the weights were selected; marked.
    """
    # a part that a model does not have is logged as zeros: no curve
    groups = [[key for key in group if any(_series(history, key)[1])] for group in _PANELS]
    if _series(history, "validation")[1]:
        groups.append(["validation"])
    groups = [group for group in groups if group]
    if not groups:
        raise ValueError("history: no record with a step and a part of the loss")
    columns = min(2, len(groups))
    lines = math.ceil(len(groups) / columns)
    figure, panels = style.grid_of_axes(lines, columns, width=4.3 * columns, height=2.5 * lines)
    for axes, group in zip(panels.flat, groups, strict=False):
        late: list[float] = []
        last = 1.0
        for key, colour in zip(group, style.CYCLE, strict=False):
            steps, values = _series(history, key)
            mark = "o" if len(steps) <= 40 else ""
            axes.plot(steps, values, color=colour, linewidth=1.5, marker=mark, markersize=3, label=_NAMES.get(key, key))
            last = max(last, steps[-1])
            late += [v for s, v in zip(steps, values, strict=True) if s >= 0.1 * steps[-1]]
        low, high = min(late), max(late)
        room = 0.08 * (high - low) or 1.0
        axes.set_ylim(low - room, high + room)
        axes.set_xlim(0, last * 1.02)
        if best_step is not None:
            axes.axvline(best_step, color=style.QUIET, linewidth=0.9, linestyle=(0, (3, 3)))
        style.title(axes, ", ".join(_NAMES.get(key, key) for key in group))
        axes.set_ylabel("score" if group == ["validation"] else "nats per series")
        if len(group) > 1:
            axes.legend(frameon=False, fontsize=8)
    for axes in panels.flat[len(groups) :]:
        axes.set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel("step")
    if best_step is not None:
        panels.flat[len(groups) - 1].annotate(
            "selected",
            (best_step, 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=8,
            color=style.QUIET,
            va="top",
        )
    return figure


def curves_of_runs(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """One model's learning curves in several runs: validation against steps if any run has it, else the objective.

    Args:
        logs: records as in `loss_curves`, by the run's name.
    """
    key = "validation" if any(_series(log, "validation")[1] for log in logs.values()) else "objective"
    figure, panels = style.grid_of_axes(1, 1, width=6.5, height=3.2)
    axes = panels.flat[0]
    late: list[float] = []
    for (name, log), colour in zip(logs.items(), itertools.cycle(style.CYCLE), strict=False):
        steps, values = _series(log, key)
        if not steps:
            continue
        axes.plot(
            steps, values, color=colour, linewidth=1.5, marker="o" if len(steps) <= 40 else "", markersize=3, label=name
        )
        late += [v for s, v in zip(steps, values, strict=True) if s >= 0.1 * steps[-1]]
    if late:
        room = 0.08 * (max(late) - min(late)) or 1.0
        axes.set_ylim(min(late) - room, max(late) + room)
    axes.set_xlabel("step")
    axes.set_ylabel("validation score" if key == "validation" else "objective (nats per series)")
    axes.legend(frameon=False, fontsize=8)
    return figure


def latents(
    path: Tensor,
    times: Tensor,
    rows: Sequence[int] = (0, 1, 2),
    *,
    names: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    num_paths: int = 4,
    time_label: str = "time",
) -> Figure:
    """Latent coordinates over time: median, 90 % band and a few sample paths, one column per row of the batch.

    Args:
        path: (S, B, N, d), samples on a grid. times: (B, N); repeats at the end are padding.
        rows: of the batch. names: of the d coordinates. ids: of the B rows.
        num_paths: sample paths drawn.
        time_label: name and unit of time.
    """
    if path.dim() != 4 or times.shape != path.shape[1:3]:
        raise ValueError(
            f"path: want (S, B, N, d) with times (B, N), got {tuple(path.shape)} with {tuple(times.shape)}"
        )
    size = path.shape[-1]
    labels = tuple(names) if names is not None else tuple(f"z{k + 1}" for k in range(size))
    figure, panels = style.grid_of_axes(
        size, len(rows), width=max(5.0, 3.2 * len(rows)), height=1.5 * size + 0.8, sharey="row"
    )
    for j, row in enumerate(rows):
        fresh = torch.ones_like(times[row], dtype=torch.bool)
        fresh[1:] = times[row].diff() > 0
        t = times[row][fresh].cpu()
        here = path[:, row, fresh].cpu()
        low, middle, high = sample_quantiles(here, [0.05, 0.5, 0.95])
        for k in range(size):
            axes = panels[k, j]
            axes.fill_between(
                t, low[:, k], high[:, k], color=style.BLUE, alpha=0.18, linewidth=0, label="90 % of paths"
            )
            for s in range(min(num_paths, len(here))):
                axes.plot(
                    t,
                    here[s, :, k],
                    color=style.SKY,
                    linewidth=0.8,
                    alpha=0.9,
                    label="sample paths" if s == 0 else None,
                )
            axes.plot(t, middle[:, k], color=style.BLUE, linewidth=1.7, label="median")
            if k == 0:
                style.title(axes, f"row {row}" if ids is None else ids[row])
            if k == size - 1:
                axes.set_xlabel(time_label)
            if j == 0:
                axes.set_ylabel(labels[k])
    style.legend_above(figure, *panels[0, 0].get_legend_handles_labels())
    figure.align_ylabels(panels[:, 0])
    return figure


def diagnostic_bars(diagnostics: Sequence[Diagnostic]) -> Figure:
    """One panel per diagnostic with parts: a bar for each part, and where it would lie if all were well."""
    drawn = [d for d in diagnostics if d.parts]
    if not drawn:
        raise ValueError("diagnostics: want at least one with parts")
    columns = min(2, len(drawn))
    lines = math.ceil(len(drawn) / columns)
    longest = max(len(d.parts) for d in drawn)
    figure, panels = style.grid_of_axes(
        lines, columns, width=4.3 * columns, height=lines * min(0.24 * longest + 1.1, 5.5)
    )
    for axes, one in zip(panels.flat, drawn, strict=False):
        values = list(one.parts.values())
        bars = axes.barh(range(len(values)), values, color=style.VERDICT[one.verdict], height=0.7)
        axes.bar_label(bars, fmt="%.2g", padding=3, fontsize=7.5, color=style.INK)
        axes.set_yticks(range(len(values)), list(one.parts))
        axes.tick_params(axis="y", labelcolor=style.INK, length=0, labelsize=7.5 if len(values) > 8 else 8)
        axes.set_ylim(max(len(values), min(longest, 7)) - 0.4, -0.6)  # few bars stay slim, at the top
        axes.grid(False, axis="y")
        low, high = one.part_range
        axes.set_xlim(min(low, 1.2 * min(values)), max(high, 1.2 * max(values)))
        axes.locator_params(axis="x", nbins=5)
        if one.reference is not None:
            axes.axvline(one.reference, color=style.INK, linewidth=1)
        axes.set_xlabel(one.part_unit)
        style.title(axes, f"{one.name}: {one.verdict}")
    for axes in panels.flat[len(drawn) :]:
        axes.set_visible(False)
    return figure


def _series(history: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Steps and finite values of one key."""
    pairs = [
        (float(r["step"]), float(r[key]))
        for r in history
        if r.get("step") is not None and r.get(key) is not None and math.isfinite(r[key])
    ]
    return [s for s, _ in pairs], [v for _, v in pairs]
