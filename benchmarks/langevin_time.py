"""What LangevinFlow has learned after some time, by its posterior and the length of trials: `python -m
benchmarks.langevin_time`.

Simulated populations with known rates (30 neurons, 6 of them held out). Three ways: simulation-free; simulated; and
simulated from the law, encoder and read-out of a simulation-free model that had half of the time. Each has a budget of
seconds of one core, which its whole schedule is fitted to by its seconds per step. Columns: bits per spike on held-out
neurons of the test trials as a share of the true rates', the ELBO per bin of the test trials, and its KL of the start
and of the path, in nats per trial.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any, Literal

import torch

from benchmarks.jobs import add_job_options, finished, run_jobs
from benchmarks.records import RESULTS, Record, publish, summarise
from neurodyn import datasets
from neurodyn.datasets.spikes import counts_of
from neurodyn.metrics.neural import bits_per_spike
from neurodyn.models.langevin_flow import LangevinFlow
from neurodyn.models.populations import POPULATION_MODELS
from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig, fit

COMMAND = "python -m benchmarks.langevin_time"
BINS = (100, 400, 1600)
BUDGETS = (15, 45)
SEEDS = (0, 1, 2)
WAYS = {
    "simulation_free": "simulation-free",
    "simulated": "simulated",
    "tuned": "simulated from simulation-free",
}
ROWS = 16
COLUMNS: dict[str, tuple[str, Literal["lower", "higher", ""]]] = {
    "of the oracle": ("%", "higher"),
    "ELBO per bin": ("nats", "higher"),
    "KL of the start": ("nats", ""),
    "KL of the path": ("nats", ""),
    "steps": ("", ""),
}


def train(model: LangevinFlow, mode: str, batch: SeriesBatch, seconds: float, seed: int) -> int:
    """Fit for about `seconds` with the mode's learning rate; how many steps that were."""
    entry = POPULATION_MODELS[mode].schedule
    shared: dict[str, Any] = {"batch_size": ROWS, "seed": seed, "device": "cpu", "progress": False}
    started = time.process_time()
    for _ in range(3):
        model.zero_grad()
        model.loss(batch.rows(slice(0, ROWS))).objective().backward()
    steps = max(10, round(3 * seconds / (time.process_time() - started)))
    config = FitConfig(
        steps=steps,
        learning_rate=entry["learning_rate"],
        warmup_steps=min(20, steps // 2),
        kl_weight=entry["kl_weight"],
        kl_warmup_steps=entry.get("kl_warmup_steps", int(0.3 * steps)),
        **shared,
    )
    fit(model, batch, None, config)
    return steps


def measure(way: str, bins: int, seconds: int, seed: int) -> dict[str, float]:
    """Scores after `seconds` of training."""
    torch.set_num_threads(1)
    parts = datasets.load("population_dynamics", conditions=8, bins=bins, seed=seed)
    batch, info = SeriesBatch.concat([parts.train, parts.validation]), parts.info
    options: dict[str, Any] = {"bin_width": info["bin_width"], "held_out": info["held_out"], "num_samples": 1}
    torch.manual_seed(seed)
    mode = "simulation_free" if way == "simulation_free" else "simulated"
    model = LangevinFlow.build(batch, mode=mode, **options)
    spent = float(seconds)
    if way == "tuned":
        spent /= 2
        free = LangevinFlow.build(batch, mode="simulation_free", **options)
        train(free, "simulation_free", batch, spent, seed)
        model.begin_from(free)
    steps = train(model.train(), mode, batch, spent, seed)
    model.eval()
    outside, counts, truth = list(info["held_out"]), counts_of(parts.test), info["rates"]["test"].numpy()
    rates = model.rates(parts.test).double().numpy()
    bits, oracle = (bits_per_spike(table[..., outside], counts[..., outside]) for table in (rates, truth))
    with torch.no_grad():
        loss = model.loss(parts.test, generator=torch.Generator().manual_seed(0))
    return {
        "of the oracle": 100 * bits / oracle,
        "ELBO per bin": float(loss.elbo.mean()) / bins,
        "KL of the start": float(loss.initial_kl.mean()),
        "KL of the path": float(loss.path_kl.mean()),
        "steps": float(steps),
    }


def records(results: dict[str, Any], jobs: dict[str, dict[str, Any]]) -> list[Record]:
    """A table per length of trials, from the results of those jobs that have one."""
    made: list[Record] = []
    for bins in dict.fromkeys(job["bins"] for job in jobs.values()):
        cells: dict[int, dict[str, dict[str, float]]] = {}
        for name, job in jobs.items():
            if job["bins"] == bins and name in results:
                row = f"{WAYS[job['way']]}, {job['seconds']} s"
                cells.setdefault(job["seed"], {})[row] = results[name]
        made += summarise(f"langevin_time/{bins}", cells, COLUMNS, command=COMMAND)
    return made


def grid(
    ways: Sequence[str], bins: Sequence[int], seconds: Sequence[int], seeds: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Jobs by name."""
    return {
        f"{way}, {length} bins, {budget} s, seed {seed}": {
            "way": way,
            "bins": length,
            "seconds": budget,
            "seed": seed,
        }
        for seed in seeds
        for length in bins
        for way in ways
        for budget in seconds
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing of what is chosen, and write all that is there to benchmarks/results/langevin_time.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="LangevinFlow's likelihood against time")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=tuple(WAYS))
    parser.add_argument("--bins", nargs="+", type=int, default=list(BINS))
    parser.add_argument("--seconds", nargs="+", type=int, default=list(BUDGETS))
    add_job_options(parser, SEEDS)
    chosen = parser.parse_args(arguments)
    jobs = grid(chosen.ways, chosen.bins, chosen.seconds, chosen.seeds)
    run_jobs("langevin_time", measure, jobs, processes=chosen.processes, fresh=chosen.fresh)
    jobs = grid(tuple(WAYS), BINS, BUDGETS, SEEDS) | jobs
    path = RESULTS / "langevin_time.json"
    made = records(finished("langevin_time", jobs), jobs)
    for record in made:
        print(f"{record.table:22s} {record.row:40s} {record.column:16s} {record.value:.3f}")
    publish(path, made)


if __name__ == "__main__":
    main()
