"""Try many settings and seeds of a recipe, and choose by validation.

    neurodyn sweep plan.yaml                every combination of the plan's lists
    neurodyn sweep plan.yaml --trials 20    20 settings that Optuna's TPE sampler proposes one after the other

A plan is a YAML file:

    recipe: forecast                        # or interpolate, classify, neural, structure
    settings: {dataset: pbcseq, steps: 200} # the same in all runs; what is not named has its default
    vary:
      posterior: [matched, simulated]       # one of these
      latent_size: {low: 2, high: 16}       # a number between; with `log: true` on a logarithmic scale
    seeds: [0, 1]                           # each setting is run with each of them; [0] if not given
    score: validation                       # or a column of the recipe's scores, which are of the test rows

Baselines are left out. A setting's value is the mean over seeds of the best validation during training, so test scores
decide nothing; they stand beside it in the table. A recipe without validation rows (neural, structure) needs a `score`,
and the test scores of the setting that is chosen by it are then too good.

A sweep that was stopped goes on when it is started again with the same plan and --folder: finished runs are read, one
that was cut short resumes from its checkpoint, and the sampler, which is seeded, proposes the same settings again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
import tyro

from neurodyn.compare import compare_runs
from neurodyn.recipes.command import program, silence
from neurodyn.recipes.config_files import to_yaml
from neurodyn.recipes.sweep_plan import Plan, read_plan
from neurodyn.report import badness
from neurodyn.runs import Run, resolved
from neurodyn.training import DivergedError

COMPARED = 8  # settings whose learning curves are drawn, the best first

log = logging.getLogger("neurodyn.recipes.sweep")


@dataclass
class Config:
    """Try many settings and seeds of a recipe, and choose by validation."""

    plan: Annotated[Path, tyro.conf.Positional]
    """A YAML file with the recipe, and what varies."""
    trials: int | None = None
    """Settings to try, proposed by Optuna (`neurodyn[sweep]`); every combination of the plan's lists if not given."""
    seed: int = 0
    """Of the proposals."""
    folder: Path | None = None
    """Where results go; runs/sweep-PLAN if not given."""
    overwrite: bool = False
    """Replace another sweep in the folder."""


class Tried(NamedTuple):
    """A setting, the folders of its runs, and its value: the mean over seeds."""

    chosen: dict[str, Any]
    folders: list[Path]
    value: float


def run(config: Config) -> Path:
    """Run the settings that are not done yet, and say which is best; returns the sweep's folder.

    Raises:
        ValueError: a plan that is wrong, and what the recipe raises for bad settings or data.
        ImportError: Optuna is wanted and not installed.
        DivergedError: no setting could be trained.
        KeyboardInterrupt: after Ctrl-C, when the table of what is there is written.
    """
    if config.trials is not None and config.trials < 1:
        raise ValueError(f"trials: {config.trials} given, 1 or more wanted")
    plan = read_plan(config.plan)
    points = plan.every() if config.trials is None else []
    study = None if config.trials is None else _study(config.seed, _sign(plan))
    folder = config.folder or Path("runs") / f"sweep-{config.plan.stem}"
    kept = resolved(plan) | {"seed": config.seed}
    with Run.open(kept, name="sweep", folder=folder, seed=config.seed, overwrite=config.overwrite) as run_:
        log.info(
            "%d settings, %d seeds each; results go to %s", config.trials or len(points), len(plan.seeds), run_.folder
        )
        tried: dict[str, Tried] = {}
        try:
            if study is None:
                for chosen in points:
                    _try(plan, chosen, run_, tried)
            else:
                objective = lambda trial: _try(plan, plan.proposed(trial), run_, tried)  # noqa: E731
                study.optimize(objective, n_trials=config.trials)
        except KeyboardInterrupt:
            run_.finish("interrupted")
            _write(plan, tried, run_)
            raise
        _write(plan, tried, run_)
        if not tried:
            raise DivergedError("every setting of the sweep diverged; try lower learning rates or other settings")
    return run_.folder


def _study(seed: int, sign: float) -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError("optuna is needed for proposed settings: pip install 'neurodyn[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed)
    return optuna.create_study(sampler=sampler, direction="minimize" if sign > 0 else "maximize")


def _sign(plan: Plan) -> float:
    """1 if a lower score is better, -1 if a higher one is."""
    turned = pd.Series([1.0]) if plan.score == "validation" else badness(plan.score, pd.Series([1.0]))
    if turned is None:
        raise ValueError(f"score: {plan.score!r} given, validation or a score of which one end is better wanted")
    return 1.0 if turned[0] >= 0 else -1.0


def _try(plan: Plan, chosen: dict[str, Any], run_: Run, tried: dict[str, Tried]) -> float:
    """Run one setting with all seeds, and keep what came out; NaN, and nothing kept, if one of them diverged."""
    name = label(chosen)
    try:
        folders = [one_run(plan, chosen, seed, run_) for seed in plan.seeds]
    except DivergedError as error:
        log.info("%s: %s", name, error)
        return math.nan
    value = sum(_score(plan, folder) for folder in folders) / len(folders)
    tried[name] = Tried(chosen, folders, value)
    log.info("%s: %s %.4g", name, plan.score, value)
    return value


def one_run(plan: Plan, chosen: dict[str, Any], seed: int, run_: Run) -> Path:
    """Run one setting with one seed in a folder of its own, or find it finished there; returns the folder."""
    name = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:10]
    folder = run_.path("runs", f"{name}-seed-{seed}")
    if not (folder / "run.json").is_file() or Run(folder).info["status"] != "finished":
        with silence(logs=False):
            plan.module.run(replace(plan.config(chosen, seed), folder=folder))
    return folder


def _score(plan: Plan, folder: Path) -> float:
    if plan.score == "validation":
        return best_validation(folder)
    scores = _test_scores(folder)
    if plan.score not in scores:
        raise ValueError(f"score: {plan.score!r} given, validation or one of {', '.join(scores)} wanted")
    return float(scores[plan.score])


def best_validation(folder: Path) -> float:
    """The best validation during training, lower is better; the mean over the run's trainings if there are several.

    Raises:
        ValueError: no training of the run looked at validation rows.
    """
    best = []
    for path in sorted((folder / "models").rglob("metrics.jsonl")):
        seen = [record["validation"] for record in Run(path.parent).read_log() if "validation" in record]
        if seen:
            best.append(min((value for value in seen if value is not None), default=math.inf))
    if not best:
        raise ValueError("score: validation given, but this recipe has no validation rows; name one of its scores")
    return sum(best) / len(best)


def _test_scores(folder: Path) -> dict[str, float]:
    """Scores of the model itself, which is alone in its table."""
    path = folder / "tables" / "comparison.csv"
    if not path.is_file():
        return {}
    return {str(name): float(value) for name, value in pd.read_csv(path, index_col=0).iloc[0].items()}


def label(chosen: dict[str, Any]) -> str:
    """A setting in words."""
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in chosen.items())


def _write(plan: Plan, tried: dict[str, Tried], run_: Run) -> None:
    """The table of settings, the best of them as YAML, and a page that compares the first few."""
    if not tried:
        return
    order = sorted(tried.items(), key=lambda one: _sign(plan) * one[1].value)
    lines = {}
    for name, one in order:
        spread = pd.Series([_score(plan, folder) for folder in one.folders]).std(ddof=0)
        tests = pd.DataFrame([_test_scores(folder) for folder in one.folders]).mean()
        lines[name] = {plan.score: one.value, "sd over seeds": spread}
        lines[name] |= {f"test {score}": mean for score, mean in tests.items() if score != plan.score}
    table = pd.DataFrame.from_dict(lines, orient="index").rename_axis("setting")
    run_.save_table("comparison", table)
    best = {**plan.settings, **order[0][1].chosen, "seed": plan.seeds[0]}
    path = run_.path("best.yaml")
    path.write_text(to_yaml(best), encoding="utf-8")
    print(f"\n{table.round(4).to_string()}\n\nbest: {table.index[0]}")
    print(f"neurodyn {plan.recipe} --config {path} runs it again, with its baselines")
    if len(order) > 1:
        folders = [one.folders[0] for _, one in order[:COMPARED]]
        print(f"report: {compare_runs(folders, run_.path('report.html'))[1]}")


def main() -> int:
    """The command line of this file: its exit code, see `neurodyn.recipes.command.exit_code`."""
    return program(Config, run, "sweep", __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
