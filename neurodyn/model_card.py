"""The card of a run's model: `model_card.md`, which travels with the folder and says what the model is and is not for.

Source: Mitchell et al. (2019), "Model cards for model reporting", arXiv 1810.03993.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from neurodyn.checkpoints import read_json
from neurodyn.html_page import number
from neurodyn.runs import Run
from neurodyn.series import SeriesBatch

NAME = "model_card.md"
QUICK = "A quick run of a few training steps: its numbers mean nothing."

USE = (
    "For series of the variables, units and kind of subject that it was fitted to, and for the question above.",
    "It learned from what was observed and takes as given why values are missing and why series end.",
    "Further into the future than its data reach, or far from the values below, it extrapolates.",
    "Its probabilities are as good as their calibration in the scores; where it was not measured it is not known.",
    "It describes what goes with what. Without an experiment it does not say what an intervention would do.",
    "Not a medical device: nothing here was validated for decisions about people.",
)
"""Intended use and limits that all models of the package share."""


def write_model_card(
    run: Run,
    *,
    title: str,
    question: str,
    data: SeriesBatch | None = None,
    data_text: str = "",
    units: Mapping[str, str] | None = None,
    time_label: str = "time",
    model_text: str = "",
    model_facts: Mapping[str, Any] | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    best_step: int | None = None,
    scores: str = "",
    comparison: pd.DataFrame | None = None,
    comparison_text: str = "",
    limits: Sequence[str] = USE,
) -> Path:
    """Write ``model_card.md`` into a run's folder, whole or not at all, and return its path.

    Arguments are those of :func:`neurodyn.report.write_report`, and:

    Args:
        scores: who wins, in words.
        limits: intended use and limits, a sentence each.
    """
    info = run.info
    sections = {
        "What it is": [_text(model_text), _listed(model_facts or {})],
        "What was asked": [_text(question)],
        "Data": [_text(data_text), "" if data is None else _data(data, units or {}, time_label)],
        "Training": [QUICK if run.config.get("quick") else "", _training(info, history, best_step)],
        "Scores": [_text(scores), "" if comparison is None else _table(comparison), _text(comparison_text)],
        "Intended use and limits": ["\n".join(f"- {_line(limit)}" for limit in limits)],
        "How to load it": [_loading(run)],
    }
    head = (
        f"---\nlibrary_name: neurodyn\ntags: [stochastic-differential-equations, time-series]\n---\n\n# {_line(title)}"
    )
    parts = [head]
    for name, texts in sections.items():
        if any(texts):
            parts.append("\n\n".join([f"## {name}", *(text for text in texts if text)]))
    target = run.path(NAME)
    partial = target.with_name(NAME + ".part")
    partial.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    os.replace(partial, target)
    return target


def _text(text: str) -> str:
    """Paragraphs with nothing that Markdown would read as HTML."""
    return text.replace("<", "&lt;")


def _line(text: Any) -> str:
    """On one line, and with nothing that ends a cell of a table."""
    return _text(" ".join(str(text).split())).replace("|", "\\|")


def _listed(facts: Mapping[str, Any]) -> str:
    return "\n".join(f"- {_line(name)}: {_line(_fact(value))}" for name, value in facts.items())


def _fact(value: Any) -> str:
    """A setting or a measurement: numbers as in tables, the rest as it is."""
    return number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _table(table: pd.DataFrame) -> str:
    """A table in Markdown, the index in front."""
    rows = [[table.index.name or "model", *table.columns], ["---", *("---:" for _ in table.columns)]]
    rows += [
        [name, *(number(value) for value in values)]
        for name, values in zip(table.index, table.to_numpy().tolist(), strict=True)
    ]
    return "\n".join("| " + " | ".join(_line(cell) for cell in row) + " |" for row in rows)


def _data(data: SeriesBatch, units: Mapping[str, str], time_label: str) -> str:
    visits = data.present.sum(1)
    observed = data.mask.sum((0, 1))
    total = max(1, int(visits.sum()))
    span = (data.last_time - data.first_time).median()
    said = f"{data.num_rows:,} series with {int(visits.sum()):,} visits; from first to last visit "
    said += f"{number(float(span))} in the median, {_line(time_label)}."
    lines = {}
    for d, name in enumerate(data.variables):
        seen = data.values[..., d][data.mask[..., d]].double()
        low, high = (float(seen.min()), float(seen.max())) if len(seen) else (float("nan"),) * 2
        missing = f"{100 * (1 - int(observed[d]) / total):.0f} %"
        lines[name] = {
            "unit": units.get(name, ""),
            "values": len(seen),
            "missing": missing,
            "lowest": low,
            "highest": high,
        }
    table = pd.DataFrame.from_dict(lines, orient="index").rename_axis("variable")
    return f"{said}\n\n{_table(table)}"


def _training(info: Mapping[str, Any], history: Sequence[Mapping[str, Any]], best_step: int | None) -> str:
    ended = "" if info["status"] == "running" else f", {info['status']}"  # the card is written before the run ends
    facts: dict[str, Any] = {"run": f"{info['name']}{ended}", "started": info["started"]}
    if info["seed"] is not None:
        facts["seed"] = str(info["seed"])
    steps = [int(record["step"]) for record in history if "step" in record]
    if steps:
        facts["steps"] = max(steps)
    if best_step is not None:
        facts["weights from step"] = best_step
    looked = {record["step"]: record["validation"] for record in history if record.get("validation") is not None}
    if looked:
        facts["validation (lower is better)"] = looked.get(best_step, min(looked.values()))
    machine = info["hardware"]
    facts["machine"] = ", ".join([f"{machine['processor']}, {machine['cores']} cores", *machine["gpus"]])
    facts["versions"] = ", ".join(f"{name} {v}" for name, v in info["versions"].items())
    return _listed(facts) + "\n\nEvery setting is in `config.json`."


def _loading(run: Run) -> str:
    """Code that loads what the folder holds."""
    card = run.folder / "model" / "model.json"
    if not card.is_file():
        return "The folder holds no model of its own: `config.json` and the command in `run.json` make it again."
    name = read_json(card)["class"]
    lines = [f"from neurodyn.models import {name}"]
    body = [f'model = {name}.load("model")  # weights and JSON: nothing in the folder is executed']
    if (run.folder / "scaling.json").is_file():
        lines = ["import json", "", lines[0], "from neurodyn.scaling import Scaling"]
        body.append('with open("scaling.json") as file:\n    scaling = Scaling.from_dict(json.load(file))')
        body.append("# scaling.apply(series) gives what the model takes; forecast.undo(scaling) goes back")
    code = "\n".join([*lines, "", *body])
    return f"In this folder, with neurodyn installed:\n\n```python\n{code}\n```"
