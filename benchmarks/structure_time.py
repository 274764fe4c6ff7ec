"""How long SCOTCH takes by SDE Matching and simulated, on Lorenz-96, 0.3 apart: `python -m benchmarks.structure_time`.

The same network, ramp and learning rates; the AUROC of the edges' scores so far is looked at every few steps. A row's
time is that to the simulated one's best AUROC on the same data, or that of the whole run where it is not reached, which
the last column tells.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks.jobs import add_job_options, run_jobs
from benchmarks.records import RESULTS, Record, measured, publish
from neurodyn import datasets
from neurodyn.metrics.graphs import auroc
from neurodyn.models.structure import STRUCTURE_LEARNERS, fit_settings, seeded
from neurodyn.scaling import Scaling
from neurodyn.series import SeriesBatch
from neurodyn.training import fit

COMMAND = "python -m benchmarks.structure_time"
TABLE = "structure/time"
WAYS = ("scotch", "scotch_simulated")
RAMP = {"warmup_steps": 200, "ramp_steps": 600}
LOOK = 20


def measure(seed: int, **ramp: int) -> dict[str, list[tuple[float, float]]]:
    """For each way the seconds of training and the AUROC at every look, in one process one after the other."""
    series, graph, _ = datasets.load_structure("lorenz96", spacing=0.3, dropped=0.3, seed=seed)
    series = Scaling.fit(series).apply(series)
    return {way: watched(way, series, graph.numpy(), seed, **RAMP | ramp) for way in WAYS}


def watched(way: str, series: SeriesBatch, graph: Any, seed: int, **ramp: int) -> list[tuple[float, float]]:
    """Train one way; seconds without those of the looks, and AUROC."""
    model = seeded(series, seed, **(STRUCTURE_LEARNERS[way].settings or {}) | ramp)
    config = fit_settings(model, seed, "cpu", False)
    config.validate_every = LOOK
    seen: list[tuple[float, float]] = []
    looked, begun = 0.0, time.monotonic()

    def look(model: torch.nn.Module, _: SeriesBatch) -> float:
        nonlocal looked
        now = time.monotonic()
        if int(model.step) > ramp["warmup_steps"]:  # type: ignore[arg-type]
            seen.append((now - begun - looked, auroc(model.edge_scores(), graph)))  # type: ignore[operator]
        looked += time.monotonic() - now
        return -len(seen)  # the last weights are the ones to keep

    fit(model, series, series.rows([0]), config, validate=look)
    return seen


def records(results: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]) -> list[Record]:
    """Times to the simulated one's best AUROC and of the whole run, and the best AUROC of each way."""
    cells: dict[tuple[str, str], list[float]] = {}
    for seed in seeds:
        one = results[f"seed {seed}"]
        target = max(score for _, score in one["scotch_simulated"])
        there = {way: next((t for t, score in one[way] if score >= target), None) for way in WAYS}
        for way in WAYS:
            reached = there[way]
            cells.setdefault((way, "to the simulated one's best"), []).append(
                one[way][-1][0] if reached is None else reached
            )
            cells.setdefault((way, "whole run"), []).append(one[way][-1][0])
            cells.setdefault((way, "best AUROC"), []).append(max(score for _, score in one[way]))
            cells.setdefault((way, "reached it"), []).append(float(reached is not None))
    units = {"to the simulated one's best": "s", "whole run": "s"}
    better: dict[str, Any] = {"to the simulated one's best": "lower", "whole run": "lower", "best AUROC": "higher"}
    return [
        measured(
            TABLE,
            STRUCTURE_LEARNERS[way].label,
            column,
            values,
            seeds=seeds,
            command=COMMAND,
            unit=units.get(column, ""),
            better=better.get(column, ""),
        )
        for (way, column), values in cells.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write benchmarks/results/structure_time.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    add_job_options(parser, [11, 12])
    chosen = parser.parse_args(arguments)
    jobs = {f"seed {seed}": {"seed": seed} for seed in chosen.seeds}
    results = run_jobs("structure_time", measure, jobs, processes=chosen.processes, fresh=chosen.fresh)
    made = records(results, chosen.seeds)
    for record in made:
        print(f"{record.row:24s} {record.column:32s} {record.value:8.3f}")
    publish(RESULTS / "structure_time.json", made)


if __name__ == "__main__":
    main()
