"""Forecast irregular, partly observed series: fit a latent SDE and baselines, compare their forecasts, write a report.

    python recipes/forecast.py                                    the embedded patients of pbcseq
    python recipes/forecast.py --data my.csv --id patient --time day --values bili albumin --log bili

Rows are split at random into 60 % training, 20 % validation and 20 % test (a data set keeps its own split), and all
later visits of the test rows are forecast from the first part of their visits. Fewer than five rows are split by time
instead: the known part of each row trains and validates. Scores are in standardised units, plots in the data's own.

A run that was killed goes on when it is started again with the same --folder. Ctrl-C ends a run with a report of what
is there; started again, it goes on from there too.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
import torch
from matplotlib.figure import Figure

from neurodyn import datasets, plots, style
from neurodyn.checkpoints import write_json
from neurodyn.datasets.splits import Splits, histories
from neurodyn.metrics.forecasts import Scores, score
from neurodyn.models.forecasters import BASELINES, FORECASTERS, Fitted, Training, fit_forecaster, fit_scaling
from neurodyn.models.latent_sde import LatentSDE
from neurodyn.models.linear_sde import LinearSDE
from neurodyn.models.readings import read_latent_sde
from neurodyn.recipes.command import Execution, program, settings_of
from neurodyn.recipes.own_series import OwnSeries
from neurodyn.report import who_wins, write_report
from neurodyn.runs import Run
from neurodyn.scaling import Scaling
from neurodyn.series import SeriesBatch
from neurodyn.training import DivergedError

BaselineName = Literal[
    "last_value",
    "regressed_last_value",
    "mixed_model",
    "ou_process",
    "linear_sde",
    "direct_gru",
    "latent_ode",
    "stable_lsde",
    "stable_lnsde",
    "stable_gsde",
]
COLUMNS = ("crps", "mae", "mse", "energy_score", "coverage_90", "width_90")
FEW_ROWS = 5
SHOWN_ROWS, SHOWN_VARIABLES, SHOWN_MODELS = 3, 4, 5
FAN_SAMPLES = 1000  # quantiles of 200 paths draw ragged edges
OURS = FORECASTERS["latent_sde"].label

log = logging.getLogger("neurodyn.recipes.forecast")


@dataclass
class Config(Execution, OwnSeries):
    """Fit a latent SDE and baselines to irregular series, and compare their forecasts."""

    dataset: str = "pbcseq"
    """A data set by name (`neurodyn datasets list`); not used with --data."""
    split: int = 0
    """Seed of the random split of rows."""
    history_fraction: float | None = None
    """Known of a test row: this fraction of its visits (0.5 if neither the data set nor you say otherwise)."""
    history_until: float | str | None = None
    """Known of a test row: its visits up to this time, in the data's unit; a date where times are dates."""
    posterior: Literal["smoother", "matched", "simulated"] = "smoother"
    """The latent SDE's training: around a fitted LinearSDE, by SDE Matching, or through the solver."""
    encoder: Literal["gru", "attention"] = "gru"
    """What reads the series for the posterior."""
    likelihood: Literal["gaussian", "student_t", "laplace", "poisson", "negative_binomial", "bernoulli"] = "gaussian"
    """Law of the values given the latent; the last three leave the values unscaled."""
    latent_size: int = 8
    """Latent dimensions; with the smoother posterior they are those of the LinearSDE instead."""
    hidden_size: int = 64
    """Width of the latent SDE's networks."""
    steps: int | None = None
    """Training steps of the latent SDE; its own schedule if not given."""
    seed: int = 0
    """Of weights, order of rows and noise."""
    baselines: tuple[BaselineName, ...] = BASELINES  # type: ignore[assignment]
    """What to compare with; the stable SDEs are fitted if named here."""
    num_samples: int = 200
    """Sample paths per forecast."""
    quick: bool = False
    """A few training steps only, to see that everything runs: the numbers then mean nothing."""


class Task(NamedTuple):
    """What a run forecasts, in the data's own units: `future` of the test rows from their `history`."""

    train: SeriesBatch
    validation: SeriesBatch
    history: SeriesBatch
    future: SeriesBatch
    info: dict[str, Any]
    protocol: str


class Outcome(NamedTuple):
    """A fitted forecaster and its scores on the test rows, in standardised units."""

    fitted: Fitted
    scores: Scores


def load(config: Config) -> Task:
    """Read the data, split it, cut the test rows.

    Raises ValueError for options that do not fit together or to the data, OSError for a file that cannot be read.
    """
    if config.history_fraction is not None and config.history_until is not None:
        raise ValueError("history_fraction, history_until: both given, one of them wanted")
    for option, least in (("latent_size", 1), ("hidden_size", 1), ("num_samples", 2), ("steps", 1)):
        given = getattr(config, option)
        if given is not None and given < least:
            raise ValueError(f"{option}: {given} given, {least} or more wanted")
    cut: dict[str, Any] = {"fraction": 0.5}
    if config.data is None:
        seeded = config.dataset in ("pbcseq", "physionet2012", "time_imm")
        splits = datasets.load(config.dataset, **({"split": config.split} if seeded else {}))
        cut = next(iter(splits.info["protocols"].values()), cut)
        series = None
    else:
        series = config.read()
        splits = None
    if config.history_fraction is not None:
        cut = {"fraction": config.history_fraction}
    if config.history_until is not None:
        cut = {"until": config.moment("history_until", config.history_until)}
    if "until" in cut:
        known = (
            f"the visits up to {config.history_until}"
            if config.stamp_unit
            else f"the visits up to time {cut['until']:g}"
        )
    else:
        known = f"the first {style.percent(cut['fraction'])} of the visits"
    if splits is None:
        assert series is not None and config.data is not None
        info = {"name": config.data.name, "time_unit": config.clock, "log": ()}
        if len(series) < FEW_ROWS:
            history, future = histories(series, **cut)
            protocol = f"Few rows, so they are split by time: {known} train and validate, later visits are forecast."
            train = history.history(fraction=0.75)
            if int(train.present.sum(1).max()) < 2:
                most = int(history.present.sum(1).max())
                raise ValueError(
                    f"data: {config.data} has {len(series)} row(s) with at most {most} known visits ({known}); "
                    f"{FEW_ROWS} rows, or 3 known visits in one of them, wanted"
                )
            return Task(train, history, history, future, info, protocol)
        train, validation, test = series.split_rows((0.6, 0.2, 0.2), config.split)
        splits = Splits(train, validation, test, info)
    history, future = histories(splits.test, **cut)
    rows = f"{len(splits.train)} training, {len(splits.validation)} validation and {len(splits.test)} test rows"
    protocol = f"{rows}. From {known}, all later visits of {len(history)} test rows are forecast."
    return Task(splits.train, splits.validation, history, future, splits.info, protocol)


def run(config: Config) -> Path:
    """Fit, forecast, compare, report; returns the run's folder.

    Raises:
        ValueError: bad options or data.
        KeyboardInterrupt: after Ctrl-C, when the report of what is there is written.
    """
    task = load(config)
    scaling = fit_scaling(task.train, config.log or task.info["log"], config.likelihood)
    with Run.open(
        settings_of(config), name="forecast", folder=config.folder, seed=config.seed, overwrite=config.overwrite
    ) as run_:
        log.info("%s: %s\nresults go to %s", task.info["name"], task.protocol, run_.folder)
        write_json(run_.path("scaling.json"), scaling.to_dict())
        outcomes, notes, interrupted = _fit_all(config, task, scaling, run_)
        if interrupted:
            run_.finish("interrupted")
        table = _comparison(outcomes)
        report = _report(config, task, scaling, run_, outcomes, table, notes)
        if not table.empty:
            print(f"\n{table.round(3).to_string()}\n\n{who_wins(table, OURS if OURS in table.index else None)}")
        for label, why in notes.items():
            print(f"{label} is left out: {why}")
        print(f"report: {report}")
        if interrupted:
            raise KeyboardInterrupt
    return run_.folder


def _fit_all(
    config: Config, task: Task, scaling: Scaling, run_: Run
) -> tuple[dict[str, Outcome], dict[str, str], bool]:
    """Outcomes by name; why forecasters were left out, by label; whether Ctrl-C ended it."""
    latent: dict[str, Any] = {"posterior": config.posterior, "encoder": config.encoder, "likelihood": config.likelihood}
    latent |= {"hidden_size": config.hidden_size}
    if config.posterior != "smoother":
        latent |= {"latent_size": config.latent_size}
    schedules = {} if config.steps is None else {"latent_sde": {"steps": config.steps}}
    training = Training(config.seed, config.device, config.quick, True, schedules, latent, config.logs)
    train, validation, history, future = (scaling.apply(part) for part in task[:4])
    outcomes: dict[str, Outcome] = {}
    notes: dict[str, str] = {}
    linear: LinearSDE | None = None
    try:
        for name, entry in FORECASTERS.items():
            if name not in (*config.baselines, "latent_sde"):
                continue
            log.info("fitting %s", entry.label)
            try:
                folder = run_.path("models", name)
                fitted = fit_forecaster(name, train, validation, training, folder=folder, linear=linear)
                if name == "linear_sde" and isinstance(fitted.model, LinearSDE):
                    linear = fitted.model
                forecast = fitted.forecast(history, future.times, config.num_samples, seed=config.seed)
                outcomes[name] = Outcome(fitted, score(forecast, future))
            except (DivergedError, ValueError) as error:
                if name == "latent_sde":
                    raise
                notes[entry.label] = str(error)
                continue
            if fitted.interrupted:
                return outcomes, notes, True
    except KeyboardInterrupt:
        return outcomes, notes, True
    return outcomes, notes, False


def _comparison(outcomes: dict[str, Outcome]) -> pd.DataFrame:
    """One line per forecaster, the best first."""
    lines = []
    for name, outcome in outcomes.items():
        found = outcome.scores.overall()
        line: dict[str, Any] = {"model": FORECASTERS[name].label} | {column: found[column] for column in COLUMNS}
        lines.append(line | {"fit seconds": round(outcome.fitted.seconds, 1)})
    table = pd.DataFrame(lines, columns=["model", *COLUMNS, "fit seconds"])
    return table.set_index("model").sort_values("crps", kind="stable")


def _report(
    config: Config,
    task: Task,
    scaling: Scaling,
    run_: Run,
    outcomes: dict[str, Outcome],
    table: pd.DataFrame,
    notes: dict[str, str],
) -> Path:
    """Tables, pictures, the model itself and the report."""
    if not table.empty:
        run_.save_table("comparison", table)
    ours = outcomes.get("latent_sde")
    pictures: dict[str, list[tuple[Figure, str]]] = {"forecasts": [], "calibration": []}
    more: dict[str, Any] = {}
    time_unit = task.info["time_unit"]
    if ours is not None:
        assert isinstance(ours.fitted.model, LatentSDE) and ours.fitted.result is not None
        ours.fitted.model.save(run_.path("model"))
        run_.save_table("by_variable", ours.scores.by_variable())
        run_.save_table("by_horizon", ours.scores.by_horizon())
        forecast = ours.fitted.forecast(
            scaling.apply(task.history), scaling.apply(task.future).times, config.num_samples, seed=config.seed
        )
        run_.save_table("forecast", forecast.undo(scaling).to_frame(time_unit=config.stamp_unit))
        result = ours.fitted.result
        more = {
            "history": result.history,
            "best_step": result.best_step,
            "model_facts": _facts(config, ours.fitted),
            "diagnostics": read_latent_sde(ours.fitted.model, scaling.apply(task.validation), ours.scores.pit),
        }
        fan = _fan(task, scaling, ours.fitted, config)
        pictures["forecasts"].append(
            (fan, f"The {OURS} on the test rows with the most to forecast, in the data's own units.")
        )
        pictures["calibration"].append((plots.calibration(ours.scores.pit), f"The {OURS} on all test rows."))
    if outcomes:
        pictures["calibration"].append((_by_horizon(outcomes, table, scaling, time_unit), "Scores by lead time."))
    for kind, drawn in pictures.items():
        for number, (figure, _) in enumerate(drawn, 1):
            run_.save_figure(f"{kind}-{number}", figure)
    about = "\n\n".join(f"{FORECASTERS[name].label}: {FORECASTERS[name].about}" for name in outcomes)
    left_out = "".join(f"\n\n{label} is left out: {why}" for label, why in notes.items())
    return write_report(
        run_,
        title=f"Forecasts of {task.info['name']}",
        question=f"How well can the later visits of unseen series be forecast, and how sure is it? {task.protocol}",
        data=SeriesBatch.concat([task.train, task.validation]) if task.train is not task.validation else task.train,
        data_text=_source(task),
        units=task.info.get("units", {}),
        time_label=f"time ({time_unit})",
        time_unit=config.stamp_unit,
        model_text=f"A latent SDE, posterior {config.posterior}, likelihood {config.likelihood}.",
        forecasts=pictures["forecasts"],
        calibration=pictures["calibration"],
        comparison=None if table.empty else table,
        ours=OURS if ours is not None else None,
        comparison_text=f"{task.protocol} Scores are in standardised units.\n\n{about}{left_out}",
        **more,
    )


def _facts(config: Config, fitted: Fitted) -> dict[str, Any]:
    assert isinstance(fitted.model, LatentSDE) and fitted.result is not None
    facts: dict[str, Any] = {"posterior": config.posterior, "encoder": config.encoder, "likelihood": config.likelihood}
    facts["parameters"] = f"{sum(p.numel() for p in fitted.model.parameters()):,}"
    ending = {"steps": "all steps made", "patience": "no more improvement", "interrupted": "Ctrl-C"}
    facts["training"] = f"{fitted.seconds:.0f} s, ended by: {ending[fitted.result.stopped]}"
    facts["weights from step"] = fitted.result.best_step
    return facts


def _source(task: Task) -> str:
    told = [f"{key}: {task.info[key]}" for key in ("source", "licence", "citation") if task.info.get(key)]
    return ". ".join([task.info["name"], *told]) + ".\n\nThe test rows are not in this section."


def _fan(task: Task, scaling: Scaling, fitted: Fitted, config: Config) -> Figure:
    """Forecasts on a fine grid of times for the test rows with the most visits to forecast."""
    chosen = task.future.present.sum(1).argsort(descending=True, stable=True)[:SHOWN_ROWS]
    history, future = task.history.rows(chosen), task.future.rows(chosen)
    known = scaling.apply(history)
    span = (scaling.apply_times(future.last_time) - known.last_time)[:, None]
    times = known.last_time[:, None] + span * torch.linspace(0, 1, 50, dtype=torch.float64)
    forecast = fitted.forecast(known, times, FAN_SAMPLES, seed=config.seed).undo(scaling)
    often = future.mask.sum((0, 1)).argsort(descending=True, stable=True)[:SHOWN_VARIABLES].sort().values.tolist()
    return plots.forecast_fan(
        forecast,
        range(len(chosen)),
        often,
        history=history,
        truth=future,
        units=task.info.get("units"),
        time_label=task.info["time_unit"],
        time_unit=config.stamp_unit,
    )


def _by_horizon(outcomes: dict[str, Outcome], table: pd.DataFrame, scaling: Scaling, time_unit: str) -> Figure:
    """Ours and the best of the others."""
    labels = {FORECASTERS[name].label: outcome for name, outcome in outcomes.items()}
    others = [str(label) for label in table.index if label != OURS]
    shown = ([OURS] if OURS in labels else []) + others[: SHOWN_MODELS - 1]
    tables = {}
    for label in shown:
        found = labels[label].scores.by_horizon()
        found["lead"] = found["lead"] * scaling.time_scale
        tables[label] = found
    return plots.by_horizon(tables, levels=(0.9,), time_label=f"lead time ({time_unit.split(' since ')[0]})")


def main() -> int:
    """The command line of this file: its exit code, see `neurodyn.recipes.command.exit_code`."""
    return program(Config, run, "forecast", __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
