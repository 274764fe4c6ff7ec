"""Rates of held-out neurons of `lorenz_spikes` by every model: `python -m benchmarks.lorenz_spikes`.

Models read 45 neurons and are scored on 15 others, and by the R2 of all neurons' rates to the true ones. Table
lorenz_spikes/file: the file's own test trials, whose initial conditions are in training too; lorenz_spikes/conditions:
four initial conditions that no training trial has; lorenz_spikes/folds: the same for a fifth of all conditions in turn,
where the seed of a fit is its fold. All training trials train, for a fixed number of steps. What networks are trained
with is chosen on validation trials by `benchmarks.lorenz_choice`; the released recurrences keep a schedule of their
own. A fit that diverges is made again with half its learning rate.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from benchmarks.jobs import add_job_options, finished, run_jobs
from benchmarks.lorenz_choice import SPLITS, choice, chosen
from benchmarks.records import RESULTS, Record, publish, summarise
from neurodyn.datasets import lorenz_spikes
from neurodyn.datasets.spikes import counts_of
from neurodyn.datasets.splits import Splits
from neurodyn.metrics.neural import bits_per_spike, rate_r2
from neurodyn.models.populations import POPULATION_MODELS, FittedPopulation, fit_population
from neurodyn.series import SeriesBatch
from neurodyn.training import DivergedError

COMMAND = "python -m benchmarks.lorenz_spikes"
TABLES = ("file", "conditions", "folds")
SEEDS = (0, 1, 2, 3, 4)
STEPS, ROWS = {"simulation_free": 1200, "simulated": 800, "gru": 1200, "transformer": 1200}, 32
"""Of the networks that are chosen, by model."""
TRIES = 3
"""A fit that diverges is made again with half its learning rate."""
EARLY = 20
"""Bins after a trial's start, where unseen conditions are least like those of training."""
COLUMNS: dict[str, tuple[str, str, Literal["lower", "higher", ""]]] = {
    "share": ("of the oracle", "%", "higher"),
    "early": ("first 20 bins", "%", "higher"),
    "bits": ("bits per spike", "", "higher"),
    "r2": ("rate R2, mean", "", "higher"),
    "median_r2": ("rate R2, median", "", "higher"),
    "seconds": ("fit", "s", ""),
}


def fitted_to(parts: Splits, name: str, seed: int, row: str | None = None) -> FittedPopulation:
    """A model fitted to all training trials, with half the learning rate if it diverges, and half of that again."""
    settings: dict[str, Any] = {}
    schedule: dict[str, Any] = {"learning_rate": POPULATION_MODELS[name].schedule.get("learning_rate", 0.0)}
    if row is not None:
        model, settings, chosen_schedule = choice(row)
        schedule |= {"steps": STEPS[model], "batch_size": ROWS} | chosen_schedule
        if POPULATION_MODELS[name].schedule.get("kl_weight") == 1:  # trained by its ELBO
            schedule["kl_weight"] = 1.0
    train, info = SeriesBatch.concat([parts.train, parts.validation]), parts.info
    options: dict[str, Any] = {"bin_width": info["bin_width"], "held_out": info["held_out"], "settings": settings}
    options |= {"seed": seed, "device": "cpu", "progress": False}
    for _ in range(TRIES - 1):
        try:
            return fit_population(name, train, schedule=schedule, **options)
        except DivergedError:
            schedule["learning_rate"] /= 2
    return fit_population(name, train, schedule=schedule, **options)


def measure(name: str, split: str, seed: int, row: str | None = None) -> dict[str, float]:
    """Scores of one model on the test trials of one split; `row` of `lorenz_choice` is what it has."""
    parts = lorenz_spikes.load(**SPLITS[split])
    held_out, fitted = parts.info["held_out"], fitted_to(parts, name, seed, row)
    rates, truth = fitted.rates(parts.test).numpy(), parts.info["rates"]["test"].numpy()
    outside, counts = list(held_out), counts_of(parts.test)
    (bits, oracle), (early, early_oracle) = (
        [bits_per_spike(table[:, bins][..., outside], counts[:, bins][..., outside]) for table in (rates, truth)]
        for bins in (slice(None), slice(EARLY))
    )
    r2 = rate_r2(rates, truth)
    scores = {"share": 100 * bits / oracle, "early": 100 * early / early_oracle, "bits": bits}
    r2s = {"r2": float(np.nanmean(r2)), "median_r2": float(np.nanmedian(r2))}
    return scores | r2s | {"seconds": fitted.seconds}


def grid(models: Sequence[str], tables: Sequence[str], seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Jobs by name; models without randomness have the first seed only, but for folds."""
    jobs: dict[str, dict[str, Any]] = {}
    for table in tables:
        for seed in seeds:
            split = f"fold {seed}" if table == "folds" else table
            for name in models:
                entry = POPULATION_MODELS[name]
                if entry.schedule or seed == SEEDS[0] or table == "folds":
                    job = jobs[f"{name}, {split}, seed {seed}"] = {"name": name, "split": split, "seed": seed}
                    if row := chosen(split, entry.settings.get("mode", name)):
                        job["row"] = row
    return jobs


def records(results: dict[str, Any], jobs: dict[str, dict[str, Any]]) -> list[Record]:
    """The tables, from the results of those jobs that have one."""
    made: list[Record] = []
    columns = {column: (unit, better) for column, unit, better in COLUMNS.values()}
    for table in TABLES:
        cells: dict[int, dict[str, dict[str, float]]] = {}
        for name in POPULATION_MODELS:
            for job, given in jobs.items():
                if job in results and given["name"] == name and given["split"].startswith(table.removesuffix("s")):
                    found = {COLUMNS[key][0]: value for key, value in results[job].items()}
                    cells.setdefault(given["seed"], {})[POPULATION_MODELS[name].label] = found
        made += summarise(f"lorenz_spikes/{table}", cells, columns, command=COMMAND)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing of what is chosen, and write all that is there to benchmarks/results/lorenz_spikes.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=tuple(POPULATION_MODELS), default=tuple(POPULATION_MODELS))
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    add_job_options(parser, SEEDS)
    chosen = parser.parse_args(arguments)
    jobs = grid(chosen.models, chosen.tables, chosen.seeds)
    run_jobs("lorenz_spikes", measure, jobs, processes=chosen.processes, fresh=chosen.fresh)
    jobs = grid(tuple(POPULATION_MODELS), TABLES, sorted({*SEEDS, *chosen.seeds}))
    path = RESULTS / "lorenz_spikes.json"
    made = records(finished("lorenz_spikes", jobs), jobs)
    for record in made:
        if record.column in ("of the oracle", "rate R2, mean"):
            print(f"{record.table:26s} {record.row:38s} {record.column:16s} {record.value:.3f}")
    publish(path, made)


if __name__ == "__main__":
    main()
