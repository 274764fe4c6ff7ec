"""The report of a run: one HTML file that a scientist would send to a colleague."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from neurodyn import plots, style
from neurodyn.diagnostics import Diagnostic
from neurodyn.html_page import Page, Section, number
from neurodyn.model_card import QUICK, write_model_card
from neurodyn.runs import Run
from neurodyn.series import SeriesBatch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ERRORS = ("crps", "crps_fair", "mae", "mse", "rmse", "energy_score", "gaussian_nll", "nll", "log_score")
_LOWER = (*_ERRORS, "brier", "calibration_error", "tp correlation")
_HIGHER = (
    *("co-bps", "fp-bps", "decoding R2", "PSTH R2", "rate R2", "% of the oracle", "accuracy"),
    *("AUROC", "AUROC off the diagonal", "AUPRC"),
)
_COVERAGE = re.compile(r"coverage_(\d+(?:\.\d+)?)$")
_LEVEL = 0.01
"""Scores within one per cent of each other are called level."""


def write_report(
    run: Run,
    *,
    title: str,
    question: str,
    data: SeriesBatch | None = None,
    data_text: str = "",
    units: Mapping[str, str] | None = None,
    time_label: str = "time",
    time_unit: str | None = None,
    model_text: str = "",
    model_facts: Mapping[str, Any] | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    best_step: int | None = None,
    diagnostics: Sequence[Diagnostic] = (),
    pictures: Mapping[str, Sequence[tuple[Figure, str]]] | None = None,
    forecasts: Sequence[tuple[Figure, str]] = (),
    calibration: Sequence[tuple[Figure, str]] = (),
    comparison: pd.DataFrame | None = None,
    ours: str | None = None,
    comparison_text: str = "",
    reproduce: str = "",
) -> Path:
    """Write ``report.html`` into a run's folder, and return its path. What is left out leaves its section out.

    The same is written as ``model_card.md``, for readers of the model's folder (:mod:`neurodyn.model_card`).

    Args:
        run: whose command, versions and hardware are told at the end.
        title: of the page.
        question: what was asked, in a sentence or two. Blank lines part paragraphs, here and in every text.
        data: the series, in their own units; summarised with a table of variables and a picture of what is missing.
        data_text: source, licence, protocol. ``units``: variable to unit. ``time_label``: name and unit of time.
        time_unit: of times that are numbers of this unit since 1970-01-01, to show dates in the picture.
        model_text, model_facts: what was fitted, in words and as names with values.
        history: records of :func:`neurodyn.training.fit`. ``best_step``: where the weights were selected.
        diagnostics: from :mod:`neurodyn.diagnostics`.
        pictures: further sections by their headings, each pictures with their captions.
        forecasts, calibration: pictures with their captions, from :mod:`neurodyn.plots`.
        comparison: models (the index) by scores (the columns, named as in :func:`neurodyn.metrics.evaluate`). The best
            of each column is marked, and the first column decides who wins.
        ours: the model of this run among them.
        comparison_text: how the comparison was made.
        reproduce: the commands to repeat the run; its own command line when empty.

    Raises:
        ValueError: ``ours`` is no row of ``comparison``, or that table is empty.
    """
    info = run.info
    status = (
        "" if info["status"] in ("running", "finished") else f" This run was {info['status']}; its results are partial."
    )
    if run.config.get("quick"):
        status += f" {QUICK}"
    page = Page(
        title,
        f"neurodyn {info['versions']['neurodyn']}, started {info['started'].replace('T', ' ')[:16]} UTC.{status}",
        "Made by neurodyn. This page is one file: it loads nothing and runs nothing.",
    )
    lead = page.section("In short", lead=True)
    if comparison is not None:
        lead.text(who_wins(comparison, ours))
    if diagnostics:
        lead.text(_health(diagnostics))
    page.section("Question").text(question)
    if data is not None or data_text:
        section = page.section("Data").text(data_text)
        if data is not None:
            _data(section, data, units or {}, time_label, time_unit)
    section = page.section("Model").text(model_text)
    if model_facts:
        section.facts(model_facts)
    if history:
        caption = "Training: parts of the loss, averaged over the steps between two records."
        caption += " Validation is lower for better models." if any("validation" in r for r in history) else ""
        page.section("Training").figure(plots.loss_curves(history, best_step=best_step), caption)
    if diagnostics:
        section = page.section("Diagnostics")
        section.verdicts([(d.verdict, d.name, f"{number(d.value)} ({d.unit})", d.sentence) for d in diagnostics])
        if any(d.parts for d in diagnostics):
            caption = "Each diagnostic by coordinate, span of time or level. The line is where the bars belong."
            section.figure(plots.diagnostic_bars(diagnostics), caption)
    for name, drawn in (*(pictures or {}).items(), ("Forecasts", forecasts), ("Calibration", calibration)):
        section = page.section(name)
        for figure, caption in drawn:
            section.figure(figure, caption)
    if comparison is not None:
        section = page.section("Comparison").text(who_wins(comparison, ours)).text(comparison_text)
        _comparison(section, comparison, ours)
    _reproduce(page.section("How to reproduce"), run, reproduce)
    write_model_card(
        run,
        title=title,
        question=question,
        data=data,
        data_text=data_text,
        units=units,
        time_label=time_label,
        model_text=model_text,
        model_facts=model_facts,
        history=history,
        best_step=best_step,
        scores="" if comparison is None else who_wins(comparison, ours),
        comparison=comparison,
        comparison_text=comparison_text,
    )
    return page.save(run.path("report.html"))


def best_of_columns(table: pd.DataFrame) -> dict[str, list[bool]]:
    """Which rows are best in each column that has a better end: the smallest error, the coverage nearest its level.

    Rows that round to the same three digits share the mark. Widths have no best: narrow is good only once covered.
    """
    found = {}
    for column in table.columns:
        ranked = badness(str(column), table[column])
        if ranked is not None and ranked.notna().any():
            shown = [number(v) if v == v else None for v in ranked]
            winner = number(ranked.min())
            found[str(column)] = [s == winner for s in shown]
    return found


def who_wins(table: pd.DataFrame, ours: str | None = None) -> str:
    """One or two plain sentences on the first column of a table of models by scores.

    Raises:
        ValueError: an empty table, a first column without a better end, ``ours`` not a row of the table.
    """
    if table.empty:
        raise ValueError("comparison: the table is empty, at least one model and one score wanted")
    column = str(table.columns[0])
    ranked = badness(column, table.iloc[:, 0])
    if ranked is None:
        raise ValueError(
            f"comparison: first column {column!r} given, one of {', '.join(_LOWER + _HIGHER)} wanted, which decides"
        )
    if ours is not None and ours not in table.index:
        raise ValueError(f"ours: {ours!r} given, one of the models {', '.join(map(str, table.index))} wanted")
    order = ranked.sort_values(kind="stable").dropna()
    if order.empty:
        return f"No model has {_one(column)}."
    winner, lowest = str(order.index[0]), float(order.iloc[0])
    sign = -1.0 if column in _HIGHER else 1.0
    best = number(sign * lowest)
    if len(order) == 1:
        return f"{winner} has {_one(column)} of {best}; there is nothing to compare it with."
    level = [str(m) for m, v in order.iloc[1:].items() if v - lowest <= _LEVEL * abs(lowest)]
    mark = ", the model of this run," if ours == winner else ""
    says = f"The winner is {winner}{mark} with {_one(column)} of {best}; "
    says += (
        f"level with it, within 1 %: {', '.join(level)}."
        if level
        else f"next comes {order.index[1]} with {number(sign * float(order.iloc[1]))}."
    )
    if ours is None or ours == winner:
        return says
    if ours not in order.index:
        return f"{says} The model of this run, {ours}, has no score."
    place, mine = list(order.index).index(ours) + 1, float(order[ours])
    side = "below" if column in _HIGHER else "above"
    gap = f", {style.percent((mine - lowest) / abs(lowest), 1)} {side} the winner" if lowest else ""
    with_ = f"with {number(sign * mine)}{gap}"
    return f"{says} The model of this run, {ours}, comes {_ordinal(place)} of {len(order)} {with_}."


def badness(column: str, values: pd.Series) -> pd.Series | None:
    """A column's values turned so that smaller is better; None where neither end of the column is."""
    if column in _HIGHER:
        return -values
    coverage = _COVERAGE.match(column)
    if coverage:
        return (values - float(coverage[1]) / 100).abs()
    return values if column in _LOWER else None


def _health(diagnostics: Sequence[Diagnostic]) -> str:
    bad = [d.name for d in diagnostics if d.verdict == "bad"]
    look = [d.name for d in diagnostics if d.verdict == "look"]
    if not bad and not look:
        return f"All {len(diagnostics)} diagnostics are good."
    parts = [f"{', '.join(bad)}: bad" if bad else "", f"{', '.join(look)}: worth a look" if look else ""]
    return (
        f"Of {len(diagnostics)} diagnostics, {'; '.join(p for p in parts if p)}. The others are good."
        if len(bad) + len(look) < len(diagnostics)
        else f"Diagnostics: {'; '.join(p for p in parts if p)}."
    )


def _data(
    section: Section, data: SeriesBatch, units: Mapping[str, str], time_label: str, time_unit: str | None
) -> None:
    visits = data.present.sum(1)
    span = (data.last_time - data.first_time).cpu()
    entries = int(data.mask.sum())
    section.facts(
        {
            "series": f"{data.num_rows:,}",
            "visits": f"{int(visits.sum()):,}; per series {_range(visits.double())}",
            "first to last visit": f"{_range(span)} {_unit(time_label)}",
            "values": f"{entries:,}, {style.percent(entries / (int(visits.sum()) * data.num_variables))} of the table",
        }
    )
    lines = []
    for d in range(data.num_variables):
        seen = data.values[..., d][data.mask[..., d]].double().cpu()
        quantiles = (
            torch.quantile(seen, torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64))
            if len(seen)
            else [float("nan")] * 3
        )
        low, middle, high = (float(q) for q in quantiles)
        unit = units.get(data.variables[d], "")
        lines.append({"unit": unit, "values": len(seen), "5 %": low, "median": middle, "95 %": high})
    table = pd.DataFrame(lines, index=pd.Index(data.variables, name="variable"))
    section.table(table, "The variables: observed values and their quantiles.")
    section.figure(
        plots.missingness(data, time_label=time_label, time_unit=time_unit),
        "What was observed: a dot is a visit, darker where more variables were observed. Right: how often each was.",
    )


def _comparison(section: Section, table: pd.DataFrame, ours: str | None) -> None:
    def show(column: str, value: Any) -> str:
        return style.percent(value, 1) if _COVERAGE.match(column) and value == value else number(value)

    renamed = {c: _name(str(c)) for c in table.columns}
    best = {renamed[c]: flags for c, flags in best_of_columns(table).items()}
    back = {new: str(old) for old, new in renamed.items()}
    shown = table.rename(columns=renamed).rename_axis(index=table.index.name or "model")
    higher_first = table.columns[0] in _HIGHER
    caption = (
        "Bold: the best of a column, ties at three digits included."
        if higher_first
        else "Bold: the best of a column (coverage: the nearest to its level), ties at three digits included. Errors "
        "are lower for better forecasts; a narrow width is good only where the coverage is right."
    )
    section.table(shown, caption, best=best, show=lambda c, v: show(back[c], v), marked_row=ours)


def _reproduce(section: Section, run: Run, reproduce: str) -> None:
    info = run.info
    command = reproduce or info["command"]
    if command:
        section.code(command)
    machine = info["hardware"]
    section.facts(
        {
            "seed": "none" if info["seed"] is None else info["seed"],
            "machine": f"{machine['processor']}, {machine['cores']} cores, {machine['system']}"
            + "".join(f", {name}" for name in machine["gpus"]),
            "versions": ", ".join(f"{name} {v}" for name, v in info["versions"].items()),
            "files": "config.json holds every setting; model_card.md, tables and plots lie beside this page",
        }
    )


def _name(column: str) -> str:
    """A column's name for a reader."""
    names = {"crps_fair": "fair CRPS", "gaussian_nll": "Gaussian NLL", "energy_score": "energy score"}
    names |= {"brier": "Brier score", "calibration_error": "calibration error"}
    if column in names:
        return names[column]
    kind, _, level = column.partition("_")
    if kind in ("coverage", "width") and level:
        return f"{level} % {kind}"
    return column.upper() if column in _LOWER and column != "log_score" else column.replace("_", " ")


def _one(column: str) -> str:
    """A column's name with its article."""
    name = _name(column)
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _unit(label: str) -> str:
    """ "years" of "time (years)"; the label itself if it names no unit."""
    found = re.search(r"\(([^()]+)\)\s*$", label)
    return found[1] if found else f"({label})"


def _range(values: torch.Tensor) -> str:
    low, middle, high = (number(float(f)) for f in (values.min(), values.median(), values.max()))
    return low if low == high else f"{low} to {high}, median {middle}"


def _ordinal(place: int) -> str:
    ending = "th" if 10 <= place % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"
