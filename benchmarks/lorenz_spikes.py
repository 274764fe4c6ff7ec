"""Rates of held-out neurons of `lorenz_spikes` by every model: `python -m benchmarks.lorenz_spikes`.

Models read 45 neurons and are scored on 15 others, and by the R2 of all neurons' rates to the true ones. Table
lorenz_spikes/file: the file's own test trials, whose initial conditions are in training too; lorenz_spikes/conditions:
four initial conditions that no training trial has. All training trials train, for a fixed number of steps. The schedule
of LangevinFlow was chosen on validation conditions that training lacked; other networks keep theirs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from benchmarks.jobs import run_jobs
from benchmarks.records import RESULTS, Record, merge_records, summarise
from neurodyn.datasets import lorenz_spikes
from neurodyn.datasets.spikes import counts_of
from neurodyn.metrics.neural import bits_per_spike, rate_r2
from neurodyn.models.langevin_flow import LangevinFlow
from neurodyn.models.populations import POPULATION_MODELS, fit_population
from neurodyn.series import SeriesBatch

COMMAND = "python -m benchmarks.lorenz_spikes"
SPLITS = ("file", "conditions")
SEEDS = (0, 1, 2, 3, 4)
SCHEDULE: dict[str, Any] = {"steps": 700, "batch_size": 32}
KL_WEIGHT = 0.1
"""Both of LangevinFlow; the weight where it is not trained by its ELBO."""
COLUMNS: dict[str, tuple[str, str, Literal["lower", "higher", ""]]] = {
    "share": ("of the oracle", "%", "higher"),
    "bits": ("bits per spike", "", "higher"),
    "r2": ("rate R2, mean", "", "higher"),
    "median_r2": ("rate R2, median", "", "higher"),
    "seconds": ("fit", "s", ""),
}


def measure(name: str, split: Literal["file", "conditions"], seed: int) -> dict[str, float]:
    """Scores of one model on the test trials of one split."""
    parts = lorenz_spikes.load(split)
    train = SeriesBatch.concat([parts.train, parts.validation])
    held_out = parts.info["held_out"]
    entry, settings, schedule = POPULATION_MODELS[name], {}, {}
    if entry.make is LangevinFlow:
        settings, schedule = {"num_samples": 1}, SCHEDULE
        schedule = schedule if entry.schedule["kl_weight"] == 1 else schedule | {"kl_weight": KL_WEIGHT}
    fitted = fit_population(
        name,
        train,
        bin_width=parts.info["bin_width"],
        held_out=held_out,
        seed=seed,
        device="cpu",
        progress=False,
        settings=settings,
        schedule=schedule,
    )
    rates, truth = fitted.rates(parts.test).numpy(), parts.info["rates"]["test"].numpy()
    outside, counts = list(held_out), counts_of(parts.test)
    bits, oracle = (bits_per_spike(table[..., outside], counts[..., outside]) for table in (rates, truth))
    r2 = rate_r2(rates, truth)
    scores = {"share": 100 * bits / oracle, "bits": bits, "seconds": fitted.seconds}
    return scores | {"r2": float(np.nanmean(r2)), "median_r2": float(np.nanmedian(r2))}


def records(results: dict[str, Any], models: Sequence[str], seeds: Sequence[int]) -> list[Record]:
    """The tables, from the results of all jobs; models without randomness have the first seed only."""
    made: list[Record] = []
    columns = {column: (unit, better) for column, unit, better in COLUMNS.values()}
    for split in SPLITS:
        cells = {
            seed: {
                POPULATION_MODELS[name].label: {
                    COLUMNS[key][0]: value for key, value in results[_job(name, split, seed)].items()
                }
                for name in models
                if _job(name, split, seed) in results
            }
            for seed in seeds
        }
        made += summarise(f"lorenz_spikes/{split}", cells, columns, command=COMMAND)
    return made


def _job(name: str, split: str, seed: int) -> str:
    return f"{name}, {split}, seed {seed}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write benchmarks/results/lorenz_spikes.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=tuple(POPULATION_MODELS), default=tuple(POPULATION_MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--processes", type=int, help="at a time, one thread each; all cores if not given")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results of the same code")
    chosen = parser.parse_args(arguments)
    jobs = {}
    for seed in chosen.seeds:
        for name in chosen.models:
            if POPULATION_MODELS[name].schedule or seed == chosen.seeds[0]:
                for split in SPLITS:
                    jobs[_job(name, split, seed)] = {"name": name, "split": split, "seed": seed}
    results = run_jobs("lorenz_spikes", measure, jobs, processes=chosen.processes, fresh=chosen.fresh)
    path = RESULTS / "lorenz_spikes.json"
    made = records(results, chosen.models, chosen.seeds)
    merge_records(path, made)
    for record in made:
        if record.column in ("of the oracle", "rate R2, mean"):
            print(f"{record.table:26s} {record.row:38s} {record.column:16s} {record.value:.3f}")
    print(f"written to {path.relative_to(RESULTS.parent.parent)}; python -m benchmarks.render puts it into the docs")


if __name__ == "__main__":
    main()
