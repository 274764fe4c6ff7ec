"""Classify irregular, partly observed series: fit a stable neural SDE and others, compare them, write a report.

    python recipes/classify.py --subset ItalyPowerDemand --missing 0 0.3 0.5 0.7
    python recipes/classify.py --data my.csv --id patient --time day --label diagnosis

Rows are split at random, class by class, into 70 % training, 15 % validation and 15 % test (60/20/20 for your own
data). Probabilities of classes are means over sample paths. With several --missing, everything is fitted again on the
same rows with that share of their observations dropped, in all three parts, which shows how robust each model is.

A run that was killed goes on when it is started again with the same --folder.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from neurodyn import style
from neurodyn.checkpoints import write_json
from neurodyn.datasets import stratified, uea_ucr
from neurodyn.frames import coded_classes, from_frame, read_table
from neurodyn.metrics.classes import ClassScores, score_classes
from neurodyn.models.classifier import SeriesClassifier
from neurodyn.models.classifiers import CLASSIFIERS, FittedClassifier, fit_classifier
from neurodyn.models.forecasters import Training
from neurodyn.nets.paths import PathKind
from neurodyn.plots.classes import by_missing, class_confusion, class_reliability
from neurodyn.recipes.command import Execution, program, settings_of
from neurodyn.recipes.own_series import OwnSeries
from neurodyn.report import who_wins, write_report
from neurodyn.runs import Run
from neurodyn.scaling import Scaling
from neurodyn.series import SeriesBatch
from neurodyn.training import DivergedError

ModelName = Literal[
    "lsde",
    "lnsde",
    "gsde",
    "controlled_sde",
    "neural_sde",
    "neural_cde",
    "gru_d",
    "gru_decay",
    "ode_rnn",
    "gru_ode",
    "ltc",
    "cfc",
    "logsignature",
    "minirocket",
    "most_frequent",
]
OWN_PARTS = (0.6, 0.2, 0.2)

log = logging.getLogger("neurodyn.recipes.classify")


@dataclass
class Config(Execution, OwnSeries):
    """Fit classifiers to irregular series with labels, and compare them."""

    subset: str = "ItalyPowerDemand"
    """A set of the UEA and UCR archives by name; not used with --data."""
    label: str = "label"
    """With --data: the column with the series' class, in words or numbers, the same in all its lines."""
    missing: tuple[float, ...] = (0.0,)
    """Shares of the observations to drop, from 0 to below 1, one comparison for each."""
    model: ModelName = "lnsde"
    """The model that the report is about."""
    baselines: tuple[ModelName, ...] = ("lsde", "gsde", "neural_cde", "gru_d", "cfc", "most_frequent")
    """What to compare with; "logsignature" needs scikit-learn, "minirocket" the extra of that name."""
    form: Literal["theory", "released"] = "theory"
    """Of the stable SDEs: as their theory asks, or as the authors' code computes them."""
    path: PathKind = "hermite"
    """Control path of the SDEs and the CDE; "rectilinear" is online."""
    intensity: bool = False
    """Whether these also see how often each variable was observed."""
    hidden_size: int = 32
    """Width of the networks and of their states."""
    steps: int | None = None
    """Training steps of every network; their own schedule if not given."""
    num_samples: int = 32
    """Sample paths per series."""
    split: int = 0
    """Seed of the random split of rows and of what is dropped."""
    seed: int = 0
    """Of weights, order of rows and noise."""
    quick: bool = False
    """A few training steps only, to see that everything runs: the numbers then mean nothing."""


class Task(NamedTuple):
    """Labelled rows in three parts, in the data's own units."""

    train: SeriesBatch
    validation: SeriesBatch
    test: SeriesBatch
    classes: tuple[str, ...]
    name: str
    time_unit: str
    source: str


class Outcome(NamedTuple):
    """A fitted classifier, what it says of the test rows, and how good that is."""

    fitted: FittedClassifier
    probabilities: Tensor
    scores: ClassScores


@dataclass
class Results:
    """Outcomes by share dropped and name; why models were left out, by label."""

    outcomes: dict[float, dict[str, Outcome]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


def load(config: Config, missing: float) -> Task:
    """Read the data, drop a share of the observations, split it.

    Raises ValueError for options that do not fit together or to the data, OSError for a file that cannot be read.
    """
    if config.data is None:
        splits = uea_ucr.load(config.subset, config.split, missing)
        info = splits.info
        told = ". ".join(f"{key}: {info[key]}" for key in ("source", "licence", "citation"))
        parts = splits[:3]
        return Task(*parts, info["classes"], info["name"], info["time_unit"], told)
    frame, classes = coded_classes(read_table(config.data), config.label)
    whole = from_frame(frame, label=config.label, **config.columns)
    if missing:
        whole, _ = whole.drop_observed(missing, torch.Generator().manual_seed(config.split))
    train, validation, test = (whole.rows(i).trim() for i in stratified(whole.labels, OWN_PARTS, config.split))
    name = config.data.name
    return Task(train, validation, test, classes, name, config.clock, name)


def run(config: Config) -> Path:
    """Fit, score, compare, report; returns the run's folder.

    Raises:
        ValueError: bad options or data.
        KeyboardInterrupt: after Ctrl-C, when the report of what is there is written.
    """
    if not config.missing or min(config.missing) < 0 or max(config.missing) >= 1:
        raise ValueError(f"missing: {config.missing} given, shares from 0 to below 1 wanted")
    for option in ("hidden_size", "num_samples", *(["steps"] if config.steps is not None else [])):
        if getattr(config, option) < 1:
            raise ValueError(f"{option}: {getattr(config, option)} given, 1 or more wanted")
    tasks = {missing: load(config, missing) for missing in config.missing}
    with Run.open(
        settings_of(config), name="classify", folder=config.folder, seed=config.seed, overwrite=config.overwrite
    ) as run_:
        task = tasks[config.missing[0]]
        log.info("%s: %s\nresults go to %s", task.name, _protocol(config, task), run_.folder)
        results = _fit_all(config, tasks, run_)
        if results.interrupted:
            run_.finish("interrupted")
        table = _comparison(results.outcomes.get(config.missing[0], {}))
        report = _report(config, tasks, run_, results, table)
        if not table.empty:
            ours = CLASSIFIERS[config.model].label
            print(f"\n{table.round(3).to_string()}\n\n{who_wins(table, ours if ours in table.index else None)}")
        if len(config.missing) > 1:
            print(f"\naccuracy by share of observations dropped\n{_robustness(results).round(3).to_string()}")
        for label, why in results.notes.items():
            print(f"{label} is left out: {why}")
        print(f"report: {report}")
        if results.interrupted:
            raise KeyboardInterrupt
    return run_.folder


def _fit_all(config: Config, tasks: dict[float, Task], run_: Run) -> Results:
    results = Results()
    chosen: list[str] = [name for name in CLASSIFIERS if name in (config.model, *config.baselines)]
    schedules = {name: {"steps": config.steps} for name in chosen if config.steps is not None}
    training = Training(config.seed, config.device, config.quick, True, schedules, logs=config.logs)
    settings = {name: getattr(config, name) for name in ("form", "path", "intensity", "hidden_size")}
    for missing, task in tasks.items():
        found = results.outcomes.setdefault(missing, {})
        scaling = Scaling.fit(task.train, log=list(config.log))
        train, validation, test = (scaling.apply(part) for part in task[:3])
        write_json(run_.path("models", f"{missing:g}", "scaling.json"), scaling.to_dict())
        for name in chosen:
            label = CLASSIFIERS[name].label
            log.info("fitting %s, %s of the observations dropped", label, style.percent(missing))
            try:
                folder = run_.path("models", f"{missing:g}", name)
                fitted = fit_classifier(name, train, validation, len(task.classes), training, folder=folder, **settings)
                says = fitted.probabilities(test, config.num_samples, seed=config.seed)
                assert test.labels is not None
                found[name] = Outcome(fitted, says, score_classes(says, test.labels))
            except (DivergedError, ImportError) as error:
                if name == config.model:
                    raise
                results.notes[label] = str(error)
                continue
            except KeyboardInterrupt:
                results.interrupted = True
                return results
            if fitted.interrupted:
                results.interrupted = True
                return results
    return results


def _protocol(config: Config, task: Task) -> str:
    rows = f"{len(task.train)} training, {len(task.validation)} validation and {len(task.test)} test rows"
    dropped = ", ".join(style.percent(share) for share in config.missing)
    return f"{len(task.classes)} classes; {rows}; {dropped} of the observations dropped."


def _comparison(outcomes: dict[str, Outcome]) -> pd.DataFrame:
    """One line per classifier, the best first."""
    lines = [
        {"model": CLASSIFIERS[name].label, **one.scores._asdict(), "fit seconds": round(one.fitted.seconds, 1)}
        for name, one in outcomes.items()
    ]
    table = pd.DataFrame(lines, columns=["model", *ClassScores._fields, "fit seconds"])
    return table.set_index("model").sort_values("accuracy", ascending=False, kind="stable")


def _robustness(results: Results) -> pd.DataFrame:
    """Accuracy: one line per classifier, one column per share dropped."""
    columns = {
        share: {CLASSIFIERS[name].label: one.scores.accuracy for name, one in found.items()}
        for share, found in results.outcomes.items()
    }
    return pd.DataFrame(columns).rename_axis(index="model")


def _report(config: Config, tasks: dict[float, Task], run_: Run, results: Results, table: pd.DataFrame) -> Path:
    """Tables, pictures, the model itself and the report."""
    first = config.missing[0]
    task, outcomes = tasks[first], results.outcomes.get(first, {})
    label = CLASSIFIERS[config.model].label
    pictures: dict[str, list[tuple[Figure, str]]] = {}
    more: dict[str, Any] = {}
    ours = outcomes.get(config.model)
    if not table.empty:
        run_.save_table("comparison", table)
    if ours is not None:
        assert task.test.labels is not None
        says = pd.DataFrame(ours.probabilities.numpy(), columns=list(task.classes))
        says.insert(0, "right", [task.classes[k] for k in task.test.labels.tolist()])
        says.insert(0, "unique_id", list(task.test.ids or range(len(says))))
        run_.save_table("probabilities", says.set_index("unique_id"))
        confused = class_confusion(ours.probabilities, task.test.labels, task.classes)
        pictures["Confusion"] = [(confused, f"The {label} on the test rows.")]
        reliable = class_reliability(ours.probabilities, task.test.labels)
        pictures["Probabilities"] = [(reliable, f"The {label} on the test rows.")]
        if isinstance(ours.fitted.model, SeriesClassifier):
            ours.fitted.model.save(run_.path("model"))
            more["model_facts"] = {
                "form": config.form,
                "path": config.path,
                "parameters": f"{sum(p.numel() for p in ours.fitted.model.parameters()):,}",
                "sample paths": config.num_samples,
            }
        if ours.fitted.result is not None:
            more |= {"history": ours.fitted.result.history, "best_step": ours.fitted.result.best_step}
    if len(config.missing) > 1:
        robust = _robustness(results)
        run_.save_table("by_missing", robust)
        shown = [label, *[str(name) for name in robust.index if name != label]][: len(style.CYCLE)]
        lines = {name: robust.loc[name].dropna() for name in shown if name in robust.index}
        if lines:
            caption = "Accuracy on the test rows; every point is fitted anew on what is left of the same rows."
            pictures["Fewer observations"] = [(by_missing(lines), caption)]
    for heading, drawn in pictures.items():
        run_.save_figure(heading.lower().replace(" ", "-"), drawn[0][0])
    about = "\n\n".join(f"{CLASSIFIERS[name].label}: {CLASSIFIERS[name].about}" for name in outcomes)
    left_out = "".join(f"\n\n{name} is left out: {why}" for name, why in results.notes.items())
    protocol = _protocol(config, task)
    return write_report(
        run_,
        title=f"Classes of {task.name}",
        question=f"Which class is an unseen series of, and how sure is that? {protocol}",
        data=SeriesBatch.concat([task.train, task.validation]),
        data_text=f"{task.source}.\n\nThe test rows are not in this section.",
        time_label=f"time ({task.time_unit})",
        time_unit=config.stamp_unit,
        model_text=f"{CLASSIFIERS[config.model].about} Probabilities are means over sample paths.",
        pictures=pictures,
        comparison=None if table.empty else table,
        ours=label if ours is not None else None,
        comparison_text=f"{protocol}\n\n{about}{left_out}",
        **more,
    )


def main() -> int:
    """The command line of this file: its exit code, see `neurodyn.recipes.command.exit_code`."""
    return program(Config, run, "classify", __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
