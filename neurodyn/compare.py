"""Runs side by side: settings where they differ, scores and learning curves, on one page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from neurodyn import plots
from neurodyn.html_page import Page, number
from neurodyn.report import badness, best_of_columns
from neurodyn.runs import Run, flat, open_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORES = 4  # of each table's columns, from the first on, which decides


def compare_runs(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> tuple[pd.DataFrame, Path]:
    """Write a page that compares runs, and return the scores and its path.

    Args:
        folders: of two runs or more; their names stand for them.
        out: file of the page.

    Raises:
        ValueError: fewer than two runs, one given twice, a folder without a run, runs without a score in common.
    """
    if len(folders) < 2:
        raise ValueError(f"runs: {len(folders)} given, two or more wanted")
    runs: dict[str, Run] = {}
    for folder in folders:
        run = open_run(folder)
        name = run.folder.resolve().name
        if name in runs:
            name = str(folder)
        if name in runs:
            raise ValueError(f"runs: {folder} given twice")
        runs[name] = run
    table = scores(runs)
    page = Page("Runs compared", ", ".join(runs), "Made by neurodyn. This page is one file: it loads nothing.")
    page.section("In short", lead=True).text(f"The best {table.columns[0]} is that of {table.index[0]}.")
    section = page.section("Settings")
    differing = differing_settings(runs)
    if differing.empty:
        section.text("The runs have the same settings.")
    else:
        section.table(differing, "What differs; all other settings are the same.")
    caption = "Bold: the best of a column. Runs on other data or other rows are not to be compared by their scores."
    page.section("Scores").table(table, caption, best=best_of_columns(table), show=lambda _, value: number(value))
    curves = learning_curves(runs)
    if curves:
        section = page.section("Learning curves")
        for model, figure in curves.items():
            section.figure(figure, f"{model}: validation where it was looked at, lower is better; else the objective.")
    return table, page.save(out)


def differing_settings(runs: Mapping[str, Run]) -> pd.DataFrame:
    """Settings (the index) that are not the same in all runs (the columns); "not there" where a run has none."""
    settings = [flat(run.config) for run in runs.values()]
    keys = dict.fromkeys(key for own in settings for key in own)
    rows = {key: [str(own.get(key, "not there")) for own in settings] for key in keys}
    unlike = {key: row for key, row in rows.items() if len(set(row)) > 1}
    return pd.DataFrame.from_dict(unlike, orient="index", columns=list(runs)).rename_axis("setting")


def scores(runs: Mapping[str, Run]) -> pd.DataFrame:
    """Models of all runs (the index, "RUN: MODEL") by the first scores that all runs have (the columns), best first.

    Raises:
        ValueError: a run without a table of scores, or no score that is in all of them.
    """
    tables = {}
    for name, run in runs.items():
        path = run.folder / "tables" / "comparison.csv"
        if not path.is_file():
            raise ValueError(f"run: {run.folder} has no scores (tables/comparison.csv), a finished run wanted")
        tables[name] = pd.read_csv(path, index_col=0)
    shared = [c for c in next(iter(tables.values())).columns if all(c in table for table in tables.values())][:SCORES]
    if not shared:
        raise ValueError("runs: no score is in all of them, runs of one recipe wanted")
    parts = [table[shared].rename(index=lambda model, run=name: f"{run}: {model}") for name, table in tables.items()]
    whole = pd.concat(parts).rename_axis("run and model")
    rank = badness(shared[0], whole[shared[0]])
    return whole if rank is None else whole.loc[rank.sort_values(kind="stable").index]


def learning_curves(runs: Mapping[str, Run]) -> dict[str, Figure]:
    """By model, one picture with a curve of each run."""
    logs: dict[str, dict[str, list]] = {}
    for name, run in runs.items():
        for path in sorted(run.folder.glob("models/**/metrics.jsonl")) + sorted(run.folder.glob("metrics.jsonl")):
            inside = path.parent.relative_to(run.folder).parts[1:]  # models/latent_sde, models/0.5/lnsde
            model = "/".join(inside) or "the model"
            logs.setdefault(model, {})[name] = Run(path.parent).read_log()
    return {model: plots.curves_of_runs(of_runs) for model, of_runs in logs.items() if any(of_runs.values())}
