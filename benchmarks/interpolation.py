"""Hidden values of irregular series filled in, all models by one protocol: `python -m benchmarks.interpolation`.

Windows of the hopper (`datasets.hopper`) and of four sets of Time-IMM (`datasets.time_imm`), with the splits of
`benchmarks.irregular_forecast`. Of the test windows' values 30, 50 or 70 % are hidden at random and filled in from the
rest; one fitted model per seed answers all shares. Values are standardised by the training windows; 100 samples; means
over hidden entries. Table interpolation/SET: CRPS and squared error of the mean by share hidden, seconds of fitting.
All networks of a set have the same steps and batches. Intensive-care stays: `benchmarks.physionet2012`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.irregular_forecast import load
from benchmarks.jobs import add_job_options, run_jobs
from benchmarks.records import RESULTS, Record, publish, summarise
from neurodyn.datasets import time_imm
from neurodyn.metrics.scores import crps, squared_error
from neurodyn.models.baselines.ridge import RidgeInterpolation
from neurodyn.models.forecasters import Entry, Training
from neurodyn.models.interpolators import INTERPOLATORS, FittedInterpolator, fit_interpolator
from neurodyn.scaling import Scaling

COMMAND = "python -m benchmarks.interpolation"
SEEDS = (0, 1, 2)
HIDDEN = (30, 50, 70)
SUBSETS = ("hopper", *time_imm.WINDOWS)
ROWS = {"ridge": Entry("ridge", "Ridge regression on the rest along straight lines.")} | INTERPOLATORS
MODELS = ("last_value", "line", "ridge", "linear_sde", "neural_cde", "stable_lsde", "stable_lnsde", "stable_gsde")
DEFAULT = tuple(name for name in MODELS if name != "linear_sde")
CHANCELESS = ("last_value", "line", "ridge", "linear_sde")
STEPS, SAMPLES = 200, 100


def measure(subset: str, name: str, seed: int, steps: int) -> dict[str, Any]:
    """CRPS and squared error of one model at every share hidden."""
    splits = load("hopper-0" if subset == "hopper" else subset, seed)
    scaling = Scaling.fit(splits.train)
    train, validation, test = (scaling.apply(part) for part in splits[:3])
    if name == "ridge":
        started = time.monotonic()
        ridge = RidgeInterpolation().fit(train)
        fitted = FittedInterpolator(name, ridge, time.monotonic() - started)
    else:
        schedule = {"steps": steps, "batch_size": 64, "validate_every": max(1, min(100, steps // 2))}
        training = Training(seed=seed, progress=False, device="cpu", schedules={name: schedule})
        fitted = fit_interpolator(name, train, validation, training)
    found: dict[str, Any] = {"seconds": fitted.seconds}
    for share in HIDDEN:
        known, hidden = test.drop_observed(share / 100, torch.Generator().manual_seed(seed))
        drawn = fitted.sample(known, hidden.times, SAMPLES, seed=seed).samples
        there = hidden.mask
        found[str(share)] = {
            "crps": float(crps(drawn, hidden.values, there)[there].double().mean()),
            "mse": float(squared_error(drawn, hidden.values, there)[there].double().mean()),
        }
    return found


def records(jobs: Sequence[dict[str, Any]]) -> list[Record]:
    """The tables, from jobs that hold their arguments and their result."""
    made: list[Record] = []
    columns: dict[str, Any] = {
        f"{label}, {share} % hidden": ("", "lower") for label in ("CRPS", "MSE") for share in HIDDEN
    }
    for subset in dict.fromkeys(job["subset"] for job in jobs):
        own = sorted((job for job in jobs if job["subset"] == subset), key=lambda job: MODELS.index(job["name"]))
        cells: dict[int, dict[str, dict[str, float]]] = {}
        for job in own:
            result = job["result"]
            row = {
                f"{label}, {share} % hidden": result[str(share)][label.lower()]
                for label in ("CRPS", "MSE")
                for share in HIDDEN
            }
            cells.setdefault(job["seed"], {})[ROWS[job["name"]].label] = row | {"fit": result["seconds"]}
        made += summarise(f"interpolation/{subset}", cells, columns | {"fit": ("s", "")}, command=COMMAND)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write benchmarks/results/interpolation.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--subsets", nargs="+", choices=SUBSETS, default=SUBSETS)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=DEFAULT)
    parser.add_argument("--steps", type=int, default=STEPS, help="of training of every network")
    add_job_options(parser, SEEDS)
    chosen = parser.parse_args(arguments)
    jobs = {
        f"{subset}, {name}, seed {seed}": {"subset": subset, "name": name, "seed": seed, "steps": chosen.steps}
        for name in reversed(chosen.models)  # the slow ones first
        for subset in chosen.subsets
        for seed in chosen.seeds  # of what is hidden, too
    }
    results = run_jobs("interpolation", measure, jobs, processes=chosen.processes, fresh=chosen.fresh)
    made = records([jobs[name] | {"result": result} for name, result in results.items()])
    for record in made:
        if record.column == "CRPS, 50 % hidden":
            print(f"{record.table:24s} {record.row:24s} {record.value:8.4f}")
    publish(RESULTS / "interpolation.json", made)


if __name__ == "__main__":
    main()
