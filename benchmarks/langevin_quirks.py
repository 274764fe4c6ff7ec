"""What each quirk of the released LangevinFlow costs or brings: `python -m benchmarks.langevin_quirks`.

A simulated population with known rates (`population_dynamics`, 30 neurons, 6 of them held out, 40 bins read and 10
predicted); the released recurrences with all quirks, with each of them alone put right, and with none. Test trials, one
schedule for all. Without `mean_likelihood` the weight of the KL is that of the summed likelihood.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal

import torch

from benchmarks.jobs import add_job_options, finished, run_jobs
from benchmarks.records import RESULTS, Record, publish, summarise
from neurodyn import datasets
from neurodyn.datasets.spikes import counts_of
from neurodyn.metrics.neural import population_scores
from neurodyn.models.released_flow import Quirks, ReleasedFlow
from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig, fit

COMMAND = "python -m benchmarks.langevin_quirks"
QUIRKS = tuple(field.name for field in fields(Quirks))
AS_RELEASED, NONE = "as released", "no quirk"
ROWS = (AS_RELEASED, *QUIRKS, NONE)
SEEDS = (0, 1, 2)
OBSERVED, STEPS = 40, 200
COLUMNS: dict[str, tuple[str, Literal["lower", "higher", ""]]] = {
    "co-bps": ("", "higher"),
    "fp-bps": ("", "higher"),
    "rate R2": ("", "higher"),
}


def measure(right: str, seed: int) -> dict[str, float]:
    """Scores with one quirk put right (or none, or all)."""
    parts = datasets.load("population_dynamics", seed=seed)
    train, info = SeriesBatch.concat([parts.train, parts.validation]), parts.info
    off = {name: False for name in QUIRKS if right in (name, NONE)}
    reads: dict[str, Any] = {"held_out": info["held_out"], "num_observed": OBSERVED, "bin_width": info["bin_width"]}
    torch.manual_seed(seed)
    model = ReleasedFlow.build(train, hidden_size=32, coordinated_dropout=0.3, quirks=off, **reads)
    schedule: dict[str, Any] = {"steps": STEPS, "learning_rate": 3e-3, "kl_weight": 0.1, "seed": seed}
    schedule |= {"kl_warmup_steps": int(0.3 * STEPS), "device": "cpu", "progress": False}
    fit(model, train, None, FitConfig(**schedule))
    rates = model.eval().rates(parts.test.history(count=OBSERVED), train.num_times).numpy()
    truth = info["rates"]["test"].numpy()
    return population_scores(rates, counts_of(parts.test), info["held_out"], OBSERVED, truth=truth)


def label(right: str) -> str:
    """Of a row."""
    return right if right in (AS_RELEASED, NONE) else f"without {right}"


def grid(rights: Sequence[str], seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Jobs by name."""
    return {f"{right}, seed {seed}": {"right": right, "seed": seed} for seed in seeds for right in rights}


def records(results: dict[str, Any], jobs: dict[str, dict[str, Any]]) -> list[Record]:
    """The table, from the results of those jobs that have one."""
    cells: dict[int, dict[str, dict[str, float]]] = {}
    for job, given in jobs.items():
        if job in results:
            cells.setdefault(given["seed"], {})[label(given["right"])] = results[job]
    return summarise("langevin_quirks", cells, COLUMNS, command=COMMAND)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing of what is chosen, and write all that is there to benchmarks/results/langevin_quirks.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    add_job_options(parser, SEEDS)
    chosen = parser.parse_args(arguments)
    run_jobs("langevin_quirks", measure, grid(ROWS, chosen.seeds), processes=chosen.processes, fresh=chosen.fresh)
    jobs = grid(ROWS, sorted({*SEEDS, *chosen.seeds}))
    path = RESULTS / "langevin_quirks.json"
    made = records(finished("langevin_quirks", jobs), jobs)
    for record in made:
        print(f"{record.row:40s} {record.column:12s} {record.value:.3f}")
    publish(path, made)


if __name__ == "__main__":
    main()
