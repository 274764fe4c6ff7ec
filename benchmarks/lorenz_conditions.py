"""Which of the four fixed unseen conditions of `lorenz_spikes` is missed: `python -m benchmarks.lorenz_conditions`.

Gains on held-out neurons over their means, as in bits per spike, summed over the trials of a condition: what the true
rates gain, as a share of their gain on all four conditions, and by model the share of that which it gains. Settings and
steps are those of `benchmarks.lorenz_spikes`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from benchmarks.jobs import add_job_options, finished, run_jobs
from benchmarks.lorenz_choice import SPLITS, chosen
from benchmarks.lorenz_spikes import fitted_to
from benchmarks.records import RESULTS, Record, publish, summarise
from neurodyn.datasets import lorenz_spikes
from neurodyn.datasets.spikes import counts_of
from neurodyn.metrics.neural import poisson_nll
from neurodyn.models.populations import POPULATION_MODELS

COMMAND = "python -m benchmarks.lorenz_conditions"
TABLE, MODELS, SEEDS = "lorenz_conditions", ("simulated", "simulation_free"), (0, 1, 2)
COLUMNS: dict[str, tuple[str, Literal["lower", "higher", ""]]] = {
    "of what there is to gain": ("%", ""),
    **{POPULATION_MODELS[name].label: ("%", "higher") for name in MODELS},
}


def measure(name: str, seed: int) -> dict[str, dict[str, float]]:
    """By condition what there is to gain, and the share of it that a model gains."""
    parts = lorenz_spikes.load(**SPLITS["conditions"])
    fitted = fitted_to(parts, name, seed, chosen("conditions", name))
    outside, labels = list(parts.info["held_out"]), parts.test.labels
    assert labels is not None
    counts, condition = counts_of(parts.test)[..., outside], labels.numpy()
    truth = parts.info["rates"]["test"].numpy()[..., outside]
    rates = fitted.rates(parts.test).numpy()[..., outside]
    null = np.broadcast_to(counts.mean((0, 1)), counts.shape)

    def gain(table: np.ndarray, rows: np.ndarray) -> float:
        return poisson_nll(null[rows], counts[rows]) - poisson_nll(table[rows], counts[rows])

    found, everything = {}, gain(truth, np.ones(len(counts), dtype=bool))
    for kind in np.unique(condition).tolist():
        rows = condition == kind
        best = gain(truth, rows)
        shares = {
            "of what there is to gain": 100 * best / everything,
            POPULATION_MODELS[name].label: 100 * gain(rates, rows) / best,
        }
        found[f"condition {kind}"] = shares
    return found


def grid(models: Sequence[str], seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Jobs by name."""
    return {f"{name}, seed {seed}": {"name": name, "seed": seed} for seed in seeds for name in models}


def records(results: dict[str, Any], jobs: dict[str, dict[str, Any]]) -> list[Record]:
    """The table, from the results of those jobs that have one."""
    cells: dict[int, dict[str, dict[str, float]]] = {}
    for job, given in jobs.items():
        for row, shares in results.get(job, {}).items():
            cells.setdefault(given["seed"], {}).setdefault(row, {}).update(shares)
    return summarise(TABLE, cells, COLUMNS, command=COMMAND)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and write all that is there to benchmarks/results/lorenz_conditions.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    add_job_options(parser, SEEDS)
    given = parser.parse_args(arguments)
    jobs = grid(given.models, given.seeds)
    run_jobs(TABLE, measure, jobs, processes=given.processes, fresh=given.fresh)
    jobs = grid(MODELS, sorted({*SEEDS, *given.seeds}))
    made = records(finished(TABLE, jobs), jobs)
    for record in made:
        print(f"{record.row:16s} {record.column:32s} {record.value:.1f}")
    publish(RESULTS / f"{TABLE}.json", made)


if __name__ == "__main__":
    main()
