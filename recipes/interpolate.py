"""Fill in values of irregular, partly observed series: hide some, fit models, compare what they say, write a report.

    python recipes/interpolate.py --dataset pbcseq --hidden 0.3 0.5
    python recipes/interpolate.py --data my.csv --id patient --time day --values bili albumin --log bili

Rows are split at random into 60 % training, 20 % validation and 20 % test (a data set keeps its own split). Of the test
rows a share of the observed values is hidden at random and filled in from the rest. Scores are in standardised units.

With --data, tables/filled.csv in the run's folder has what is missing in the file itself: the mean, the median and a
90 % interval for each empty cell of a visit, given all that is observed.

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

from neurodyn import datasets, plots, style
from neurodyn.checkpoints import write_json
from neurodyn.frames import timestamps
from neurodyn.metrics.forecasts import Scores, score
from neurodyn.models.forecasters import Training
from neurodyn.models.interpolators import INTERPOLATORS, FittedInterpolator, fit_interpolator
from neurodyn.models.path_model import PathModel
from neurodyn.quantiles import sample_quantiles
from neurodyn.recipes.command import Execution, program, settings_of
from neurodyn.recipes.own_series import OwnSeries
from neurodyn.report import who_wins, write_report
from neurodyn.runs import Run
from neurodyn.scaling import Scaling
from neurodyn.series import SeriesBatch
from neurodyn.training import DivergedError

ModelName = Literal["last_value", "line", "linear_sde", "neural_cde", "stable_lsde", "stable_lnsde", "stable_gsde"]
COLUMNS = ("crps", "mae", "mse", "coverage_90", "width_90")
SHOWN_ROWS, SHOWN_VARIABLES, FAN_SAMPLES = 3, 4, 500

log = logging.getLogger("neurodyn.recipes.interpolate")


@dataclass
class Config(Execution, OwnSeries):
    """Hide values of series, and compare models that fill them in."""

    dataset: str = "pbcseq"
    """A data set by name (`neurodyn datasets list`); not used with --data."""
    hidden: tuple[float, ...] = (0.5,)
    """Shares of the test rows' values to hide, between 0 and 1; the same fitted models answer all."""
    model: ModelName = "stable_lnsde"
    """The model that the report is about."""
    baselines: tuple[ModelName, ...] = ("last_value", "line", "linear_sde", "stable_lsde", "stable_gsde")
    """What to compare with."""
    hidden_size: int = 32
    """Width of the networks and of their states."""
    steps: int | None = None
    """Training steps of every network; their own schedule if not given."""
    num_samples: int = 200
    """Samples per hidden value."""
    split: int = 0
    """Seed of the random split of rows and of what is hidden."""
    seed: int = 0
    """Of weights, order of rows and noise."""
    quick: bool = False
    """A few training steps only, to see that everything runs: the numbers then mean nothing."""


class Task(NamedTuple):
    """Rows in three parts, in the data's own units."""

    train: SeriesBatch
    validation: SeriesBatch
    test: SeriesBatch
    info: dict[str, Any]


@dataclass
class Results:
    """Fitted models by name; their scores by share hidden and name; why models were left out, by label."""

    fitted: dict[str, FittedInterpolator] = field(default_factory=dict)
    scores: dict[float, dict[str, Scores]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


def load(config: Config) -> Task:
    """Read the data and split it.

    Raises ValueError for options that do not fit together or to the data, OSError for a file that cannot be read.
    """
    if config.data is None:
        seeded = config.dataset in ("pbcseq", "physionet2012", "time_imm")
        splits = datasets.load(config.dataset, **({"split": config.split} if seeded else {}))
        return Task(splits.train, splits.validation, splits.test, splits.info)
    train, validation, test = config.read().split_rows((0.6, 0.2, 0.2), config.split)
    info = {"name": config.data.name, "time_unit": config.clock, "log": ()}
    return Task(train, validation, test, info)


def run(config: Config) -> Path:
    """Fit, fill in, compare, report; returns the run's folder.

    Raises:
        ValueError: bad options or data.
        KeyboardInterrupt: after Ctrl-C, when the report of what is there is written.
    """
    if not config.hidden or min(config.hidden) <= 0 or max(config.hidden) >= 1:
        raise ValueError(f"hidden: {config.hidden} given, shares between 0 and 1 wanted")
    for option, least in (("hidden_size", 1), ("num_samples", 2), ("steps", 1)):
        given = getattr(config, option)
        if given is not None and given < least:
            raise ValueError(f"{option}: {given} given, {least} or more wanted")
    task = load(config)
    scaling = Scaling.fit(task.train, log=list(config.log or task.info["log"]))
    with Run.open(
        settings_of(config), name="interpolate", folder=config.folder, seed=config.seed, overwrite=config.overwrite
    ) as run_:
        log.info("%s: %s\nresults go to %s", task.info["name"], _protocol(config, task), run_.folder)
        write_json(run_.path("scaling.json"), scaling.to_dict())
        results = _fit_all(config, task, scaling, run_)
        if results.interrupted:
            run_.finish("interrupted")
        table = _comparison(results, config.hidden[0])
        report = _report(config, task, scaling, run_, results, table)
        ours = INTERPOLATORS[config.model].label
        if not table.empty:
            print(f"\n{table.round(3).to_string()}\n\n{who_wins(table, ours if ours in table.index else None)}")
        if len(config.hidden) > 1:
            print(f"\nCRPS by share of values hidden\n{_by_share(results).round(3).to_string()}")
        for label, why in results.notes.items():
            print(f"{label} is left out: {why}")
        print(f"report: {report}")
        if results.interrupted:
            raise KeyboardInterrupt
    return run_.folder


def _hide(config: Config, test: SeriesBatch, share: float) -> tuple[SeriesBatch, SeriesBatch]:
    return test.drop_observed(share, torch.Generator().manual_seed(config.split))


def _fit_all(config: Config, task: Task, scaling: Scaling, run_: Run) -> Results:
    results = Results()
    chosen: list[str] = [name for name in INTERPOLATORS if name in (config.model, *config.baselines)]
    schedules = {name: {"steps": config.steps} for name in chosen if config.steps is not None}
    training = Training(config.seed, config.device, config.quick, True, schedules, logs=config.logs)
    train, validation, test = (scaling.apply(part) for part in task[:3])
    for name in chosen:
        label = INTERPOLATORS[name].label
        network = name not in ("last_value", "line", "linear_sde")
        settings: dict[str, Any] = {"hidden_size": config.hidden_size} if network else {}
        log.info("fitting %s", label)
        try:
            folder = run_.path("models", name)
            fitted = fit_interpolator(name, train, validation, training, folder=folder, **settings)
            results.fitted[name] = fitted
            for share in config.hidden:
                known, hidden = _hide(config, test, share)
                drawn = fitted.sample(known, hidden.times, config.num_samples, seed=config.seed)
                results.scores.setdefault(share, {})[name] = score(drawn, hidden)
        except DivergedError as error:
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
    shares = ", ".join(style.percent(share) for share in config.hidden)
    return f"{rows}; {shares} of the test rows' values are hidden at random and filled in from the rest."


def _comparison(results: Results, share: float) -> pd.DataFrame:
    """One line per model, the best first."""
    lines = []
    for name, scores in results.scores.get(share, {}).items():
        found = scores.overall()
        line: dict[str, Any] = {"model": INTERPOLATORS[name].label} | {column: found[column] for column in COLUMNS}
        lines.append(line | {"fit seconds": round(results.fitted[name].seconds, 1)})
    table = pd.DataFrame(lines, columns=["model", *COLUMNS, "fit seconds"])
    return table.set_index("model").sort_values("crps", kind="stable")


def _by_share(results: Results) -> pd.DataFrame:
    """CRPS: one line per model, one column per share hidden."""
    columns = {
        share: {INTERPOLATORS[name].label: one.overall()["crps"] for name, one in found.items()}
        for share, found in results.scores.items()
    }
    return pd.DataFrame(columns).rename_axis(index="model")


def _report(config: Config, task: Task, scaling: Scaling, run_: Run, results: Results, table: pd.DataFrame) -> Path:
    """Tables, pictures, the model itself and the report."""
    share = config.hidden[0]
    label = INTERPOLATORS[config.model].label
    ours = results.scores.get(share, {}).get(config.model)
    pictures: list[tuple[Figure, str]] = []
    calibration: list[tuple[Figure, str]] = []
    more: dict[str, Any] = {}
    if not table.empty:
        run_.save_table("comparison", table)
    if len(config.hidden) > 1 and results.scores:
        run_.save_table("by_share", _by_share(results))
    if ours is not None:
        fitted = results.fitted[config.model]
        run_.save_table("by_variable", ours.by_variable())
        if config.data is not None:
            run_.save_table("filled", _filled(config, task, scaling, fitted))
        pictures.append((_fan(config, task, scaling, fitted), f"The {label} between the values that it was shown."))
        calibration.append((plots.calibration(ours.pit), f"The {label} on all hidden values."))
        if isinstance(fitted.model, PathModel):
            fitted.model.save(run_.path("model"))
            more["model_facts"] = {"parameters": f"{sum(p.numel() for p in fitted.model.parameters()):,}"}
        if fitted.result is not None:
            more |= {"history": fitted.result.history, "best_step": fitted.result.best_step}
    for kind, drawn in (("values", pictures), ("calibration", calibration)):
        for figure, _ in drawn:
            run_.save_figure(kind, figure)
    about = "\n\n".join(f"{INTERPOLATORS[name].label}: {INTERPOLATORS[name].about}" for name in results.fitted)
    left_out = "".join(f"\n\n{name} is left out: {why}" for name, why in results.notes.items())
    told = [f"{key}: {task.info[key]}" for key in ("source", "licence", "citation") if task.info.get(key)]
    return write_report(
        run_,
        title=f"Values of {task.info['name']}, filled in",
        question=f"How well can values be filled in from the rest of their series, and how surely? "
        f"{_protocol(config, task)}",
        data=SeriesBatch.concat([task.train, task.validation]),
        data_text=". ".join([task.info["name"], *told]) + ".\n\nThe test rows are not in this section.",
        units=task.info.get("units", {}),
        time_label=f"time ({task.info['time_unit']})",
        time_unit=config.stamp_unit,
        model_text=INTERPOLATORS[config.model].about,
        pictures={"Values": pictures} if pictures else {},
        calibration=calibration,
        comparison=None if table.empty else table,
        ours=label if ours is not None else None,
        comparison_text=f"{_protocol(config, task)} Scores are in standardised units.\n\n{about}{left_out}",
        **more,
    )


def _filled(config: Config, task: Task, scaling: Scaling, fitted: FittedInterpolator) -> pd.DataFrame:
    """The missing values of all rows at their visits, given all that is observed: one line per value."""
    parts = []
    for part in (task.train, task.validation, task.test):
        for start in range(0, len(part), 64):  # so that the samples of a long file fit into memory
            batch = part.rows(range(start, min(start + 64, len(part))))
            scaled = scaling.apply(batch)
            drawn = fitted.sample(scaled, scaled.times, config.num_samples, seed=config.seed).undo(scaling)
            lacks = batch.present[..., None] & ~batch.mask
            row, visit, variable = lacks.nonzero(as_tuple=True)
            low, median, high = sample_quantiles(drawn.samples, (0.05, 0.5, 0.95))[:, lacks].numpy()
            when: Any = batch.times[row, visit].numpy()
            columns = {
                "unique_id": [drawn.ids[k] for k in row.tolist()],
                "ds": when if config.stamp_unit is None else timestamps(when, config.stamp_unit),
                "variable": [batch.variables[k] for k in variable.tolist()],
                "y": drawn.samples.mean(0)[lacks].numpy(),
                "y-median": median,
                "y-lo-90": low,
                "y-hi-90": high,
            }
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True).set_index("unique_id")


def _fan(config: Config, task: Task, scaling: Scaling, fitted: FittedInterpolator) -> Figure:
    """What is said on a fine grid of times for the test rows with the most hidden values."""
    known, hidden = _hide(config, task.test, config.hidden[0])
    chosen = hidden.mask.sum((1, 2)).argsort(descending=True, stable=True)[:SHOWN_ROWS]
    shown, truth = known.rows(chosen), hidden.rows(chosen)
    scaled = scaling.apply(shown)
    span = (scaled.last_time - scaled.first_time)[:, None]
    times = scaled.first_time[:, None] + span * torch.linspace(0, 1, 80, dtype=torch.float64)
    drawn = fitted.sample(scaled, times, FAN_SAMPLES, seed=config.seed).undo(scaling)
    often = truth.mask.sum((0, 1)).argsort(descending=True, stable=True)[:SHOWN_VARIABLES].sort().values.tolist()
    return plots.forecast_fan(
        drawn,
        range(len(chosen)),
        often,
        history=shown,
        truth=truth,
        units=task.info.get("units"),
        time_label=task.info["time_unit"],
        time_unit=config.stamp_unit,
    )


def main() -> int:
    """The command line of this file: its exit code, see `neurodyn.recipes.command.exit_code`."""
    return program(Config, run, "interpolate", __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
