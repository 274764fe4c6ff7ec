"""Rates of held-out neurons and later bins of real recordings by every model: `python -m benchmarks.recordings`.

Table recordings/NAME for each: co-bps on a fifth of the units, never read, fp-bps on the last fifth of the bins, and
the R2 of behaviour decoded from the rates, where there is one. Folds of trials as in `neurodyn.datasets.recordings`;
the seed of a fit is its fold. All trials but the fold's train, for a fixed number of steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Literal

from benchmarks.jobs import add_job_options, finished, run_jobs
from benchmarks.records import RESULTS, Record, publish, summarise
from neurodyn.datasets import recordings
from neurodyn.datasets.spikes import counts_of
from neurodyn.metrics.neural import population_scores
from neurodyn.models.populations import POPULATION_MODELS, fit_population
from neurodyn.series import SeriesBatch

COMMAND = "python -m benchmarks.recordings"
NAMES = ("hippocampus", "reach_spikes", "miller_m1")
MODELS = ("smoothing", "factors", "gru", "transformer", "simulated", "simulation_free")
FOLDS = (0, 1, 2, 3, 4)
STEPS = 300
COLUMNS: dict[str, tuple[str, Literal["lower", "higher", ""]]] = {
    "co-bps": ("", "higher"),
    "fp-bps": ("", "higher"),
    "decoding R2": ("", "higher"),
    "fit": ("s", ""),
}


def measure(name: str, recording: str, fold: int) -> dict[str, float]:
    """Scores of one model on one fold of one recording."""
    parts = recordings.load(recording, fold)
    train, info = SeriesBatch.concat([parts.train, parts.validation]), parts.info
    held_out, observed, bins = info["held_out"], info["num_observed"], train.num_times
    fitted = fit_population(
        name,
        train,
        bin_width=info["bin_width"],
        held_out=held_out,
        num_observed=observed,
        steps=STEPS,
        seed=fold,
        device="cpu",
        progress=False,
    )
    train_rates, rates = (fitted.rates(part.history(count=observed), bins).numpy() for part in (train, parts.test))
    moves = None
    if train.covariates is not None and parts.test.covariates is not None:
        moves = (train.covariates.numpy(), parts.test.covariates.numpy())
    scores = population_scores(rates, counts_of(parts.test), held_out, observed, train_rates=train_rates, moves=moves)
    return scores | {"fit": fitted.seconds}


def grid(names: Sequence[str], models: Sequence[str], folds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Jobs by name."""
    return {
        f"{name}, {recording}, fold {fold}": {"name": name, "recording": recording, "fold": fold}
        for fold in folds
        for recording in names
        for name in models
    }


def records(results: dict[str, Any], jobs: dict[str, dict[str, Any]]) -> list[Record]:
    """The tables, from the results of those jobs that have one."""
    made: list[Record] = []
    for recording in dict.fromkeys(given["recording"] for given in jobs.values()):
        cells: dict[int, dict[str, dict[str, float]]] = {}
        for job, given in jobs.items():
            if job in results and given["recording"] == recording:
                cells.setdefault(given["fold"], {})[POPULATION_MODELS[given["name"]].label] = results[job]
        made += summarise(f"recordings/{recording}", cells, COLUMNS, command=COMMAND)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing of what is chosen, and write all that is there to benchmarks/results/recordings.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recordings", nargs="+", choices=tuple(recordings.SOURCES), default=list(NAMES))
    parser.add_argument("--models", nargs="+", choices=tuple(POPULATION_MODELS), default=list(MODELS))
    parser.add_argument("--folds", nargs="+", type=int, default=list(FOLDS))
    add_job_options(parser)
    chosen = parser.parse_args(arguments)
    jobs = grid(chosen.recordings, chosen.models, chosen.folds)
    run_jobs("recordings", measure, jobs, processes=chosen.processes, fresh=chosen.fresh)
    jobs = grid(tuple(recordings.SOURCES), MODELS, FOLDS)
    path = RESULTS / "recordings.json"
    made = records(finished("recordings", jobs), jobs)
    for record in made:
        print(f"{record.table:28s} {record.row:32s} {record.column:12s} {record.value:.3f}")
    publish(path, made)


if __name__ == "__main__":
    main()
