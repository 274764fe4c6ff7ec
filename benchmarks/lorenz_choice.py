"""Which settings of networks do best on validation trials of `lorenz_spikes`: `python -m benchmarks.lorenz_choice`.

Validation trials lie inside the training trials: a random fifth of them for the split "file", four whole conditions for
"conditions" and for each of five folds. `benchmarks.lorenz_spikes` takes what is best here for each split and model;
its test trials are not used. LangevinFlow has fewer steps than there. Share of what the true rates score on held-out
neurons, in %.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.jobs import add_job_options, finished, run_jobs
from benchmarks.records import RESULTS, Record, publish, read_records, summarise
from neurodyn.datasets import lorenz_spikes
from neurodyn.datasets.spikes import counts_of
from neurodyn.metrics.neural import bits_per_spike
from neurodyn.models.populations import fit_population
from neurodyn.training import DivergedError

COMMAND = "python -m benchmarks.lorenz_choice"
TABLE = "lorenz_choice"
SPLITS: dict[str, dict[str, Any]] = {"file": {"split": "file"}, "conditions": {"split": "conditions"}} | {
    f"fold {k}": {"split": "conditions", "fold": k} for k in range(lorenz_spikes.FOLDS)
}
"""Arguments of the loader by name."""
SEEDS = (0,)
STEPS, ROWS, REFINEMENT = {"simulation_free": 700, "simulated": 400, "gru": 1200, "transformer": 1200}, 32, 50


class Choice(NamedTuple):
    """The name of a model, its settings and those of its schedule."""

    model: str
    settings: dict[str, Any]
    schedule: dict[str, Any]


FREE, PATHS = "simulation_free", "simulated"
OWN: dict[str, dict[str, Any]] = {FREE: {"num_samples": 1}, PATHS: {"num_samples": 1}}
"""Settings of all choices of a model."""
CHOICES = {
    "weight 0.1, from 40 bins": Choice(FREE, {}, {"kl_weight": 0.1, "shortest": 0.4}),
    "weight 0.3, whole trials": Choice(FREE, {}, {"kl_weight": 0.3, "shortest": 1.0}),
    "weight 0.03, from 40 bins": Choice(FREE, {}, {"kl_weight": 0.03, "shortest": 0.4}),
    "weight 0.1, from 15 bins": Choice(FREE, {}, {"kl_weight": 0.1, "shortest": 0.15}),
    "weight 0.03, from 15 bins": Choice(FREE, {}, {"kl_weight": 0.03, "shortest": 0.15}),
    "weight 0.1, from 40 bins, n = 12": Choice(FREE, {"latent_size": 12}, {"kl_weight": 0.1, "shortest": 0.4}),
    "simulated, weight 0.3, whole trials": Choice(PATHS, {}, {"kl_weight": 0.3, "shortest": 1.0}),
    "simulated, weight 0.1, whole trials": Choice(PATHS, {}, {"kl_weight": 0.1, "shortest": 1.0}),
    "simulated, weight 0.1, from 40 bins": Choice(PATHS, {}, {"kl_weight": 0.1, "shortest": 0.4}),
    "simulated, weight 0.1, from 15 bins": Choice(PATHS, {}, {"kl_weight": 0.1, "shortest": 0.15}),
    "simulated, weight 0.03, from 15 bins": Choice(PATHS, {}, {"kl_weight": 0.03, "shortest": 0.15}),
    "GRU, whole trials": Choice("gru", {}, {"kl_weight": 0.3}),
    "GRU, from 15 bins": Choice("gru", {}, {"kl_weight": 0.3, "shortest": 0.15}),
    "GRU, weight 0.1, whole trials": Choice("gru", {}, {"kl_weight": 0.1}),
    "GRU, weight 0.1, from 15 bins": Choice("gru", {}, {"kl_weight": 0.1, "shortest": 0.15}),
    "GRU, weight 0.03, whole trials": Choice("gru", {}, {"kl_weight": 0.03}),
    "GRU, weight 0.03, from 15 bins": Choice("gru", {}, {"kl_weight": 0.03, "shortest": 0.15}),
    "Transformer, whole trials": Choice("transformer", {}, {}),
    "Transformer, from 15 bins": Choice("transformer", {}, {"shortest": 0.15}),
    "Transformer, dropout 0.3, whole trials": Choice("transformer", {"dropout": 0.3}, {}),
    "Transformer, dropout 0.3, from 15 bins": Choice("transformer", {"dropout": 0.3}, {"shortest": 0.15}),
    "Transformer, half hidden, whole trials": Choice("transformer", {"coordinated_dropout": 0.5}, {}),
    "Transformer, half hidden, from 15 bins": Choice("transformer", {"coordinated_dropout": 0.5}, {"shortest": 0.15}),
}
"""Weights of the KL and lengths of the stretches; n = 6 positions where nothing is said."""


def variants(label: str) -> dict[str, dict[str, Any]]:
    """Rows of one choice and their settings: the posterior of the encoder, or fitted to the trials at hand."""
    refined = {f"{label}, refined": {"refinement": REFINEMENT}} if CHOICES[label].model == FREE else {}
    return {label: {}} | refined


def measure(label: str, split: str, seed: int) -> dict[str, float]:
    """Score of one choice on validation trials, in its variants; of none if its training diverges."""
    parts, (model, settings, schedule) = lorenz_spikes.load(**SPLITS[split]), CHOICES[label]
    held_out = parts.info["held_out"]
    try:
        fitted = fit_population(
            model,
            parts.train,
            bin_width=parts.info["bin_width"],
            held_out=held_out,
            seed=seed,
            device="cpu",
            progress=False,
            settings=OWN.get(model, {}) | settings,
            schedule={"steps": STEPS[model], "batch_size": ROWS} | schedule,
        )
    except DivergedError:
        return {}
    outside, counts = list(held_out), counts_of(parts.validation)[..., list(held_out)]
    oracle = bits_per_spike(parts.info["rates"]["validation"].numpy()[..., outside], counts)
    found = {}
    for row, more in variants(label).items():
        for name, value in more.items():
            setattr(fitted.model.settings, name, value)  # type: ignore[attr-defined]
        found[row] = 100 * bits_per_spike(fitted.rates(parts.validation).numpy()[..., outside], counts) / oracle
    return found


def chosen(split: str, model: str) -> str | None:
    """The row of a model that is best on a split; its first one as long as nothing was measured, none without rows."""
    path = RESULTS / f"{TABLE}.json"
    rows = [row for label in CHOICES if CHOICES[label].model == model for row in variants(label)]
    if not rows:
        return None
    known = [one for one in read_records(path) if one.column == split and one.row in rows] if path.exists() else []
    return max(known, key=lambda record: record.value).row if known else rows[0]


def choice(row: str) -> Choice:
    """Model, settings and schedule of a row."""
    for label, (model, settings, schedule) in CHOICES.items():
        if row in (found := variants(label)):
            return Choice(model, OWN.get(model, {}) | settings | found[row], schedule)
    raise ValueError(f"row: {row!r} given, one of {', '.join(CHOICES)}, or a variant, wanted")


def grid(
    splits: Sequence[str], seeds: Sequence[int], labels: Sequence[str] = tuple(CHOICES)
) -> dict[str, dict[str, Any]]:
    """Jobs by name."""
    return {
        f"{label}, {split}, seed {seed}": {"label": label, "split": split, "seed": seed}
        for seed in seeds
        for split in splits
        for label in labels
    }


def records(results: dict[str, Any], jobs: dict[str, dict[str, Any]]) -> list[Record]:
    """The table, a column per split, from the results of those jobs that have one."""
    cells: dict[int, dict[str, dict[str, float]]] = {}
    for job, given in jobs.items():
        for row, share in results.get(job, {}).items():
            cells.setdefault(given["seed"], {}).setdefault(row, {})[given["split"]] = share
    return summarise(TABLE, cells, {split: ("%", "higher") for split in SPLITS}, command=COMMAND)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing of what is chosen, and write all that is there to benchmarks/results/lorenz_choice.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Settings of networks on validation trials")
    parser.add_argument("--choices", nargs="+", choices=tuple(CHOICES), default=tuple(CHOICES))
    parser.add_argument("--splits", nargs="+", choices=tuple(SPLITS), default=tuple(SPLITS))
    add_job_options(parser, SEEDS)
    given = parser.parse_args(arguments)
    wanted = grid(given.splits, given.seeds, given.choices)
    run_jobs(TABLE, measure, wanted, processes=given.processes, fresh=given.fresh)
    jobs = grid(tuple(SPLITS), sorted({*SEEDS, *given.seeds}))
    path = RESULTS / f"{TABLE}.json"
    made = records(finished(TABLE, jobs), jobs)
    for record in made:
        print(f"{record.row:44s} {record.column:12s} {record.value:.1f}")
    publish(path, made)


if __name__ == "__main__":
    main()
