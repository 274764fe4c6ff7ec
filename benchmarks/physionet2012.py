"""Intensive-care stays: hidden visits filled in, and the second day forecast: `python -m benchmarks.physionet2012`.

Interpolation (table physionet2012/interpolation): both sets, 41 variables, 50 to 90 % of a test stay's visits shown.
Errors are squared, in units of each variable's largest value, of the entries held out. The table
physionet2012/interpolation-all counts the shown entries too, as the benchmark's authors do in their code: published
numbers are of that kind. One model per seed answers all five shares.

Extrapolation (physionet2012/extrapolation): set a, 35 variables, standardised by the training stays; all values of the
second day are forecast from the first, 99 samples. The networks share one batch size and one number of steps, and
choose their weights by the first 200 validation stays.
"""

from __future__ import annotations

import argparse
import functools
import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.jobs import add_job_options, run_jobs
from benchmarks.per_variable import PerVariable
from benchmarks.records import RESULTS, Record, measured, publish
from neurodyn.datasets.physionet2012 import hidden
from neurodyn.models.baselines import DirectGRU, LastValue, LatentODE, TrainingValues
from neurodyn.models.baselines.ridge import RidgeForecast, RidgeInterpolation
from neurodyn.models.path_model import PathModel
from neurodyn.recipes.physionet2012 import (
    CUT,
    SHOWN,
    Config,
    Stays,
    forecast_scores,
    interpolation_errors,
    prepare,
    train,
    validation_of,
)
from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig, fit

COMMAND = "python -m benchmarks.physionet2012"
SEEDS = (0, 1)
OURS = "latent SDE"
STEPS = {"interpolation": 600, "extrapolation": 800}
ALONE = "LinearSDE, one per variable"
PATHS = {"stable LSDE": "lsde", "stable LNSDE": "lnsde", "stable GSDE": "gsde"}  # row: what runs along the path
ROWS = {
    "interpolation": ("training mean", "line between values", "ridge", "Latent ODE", *PATHS, ALONE, OURS),
    "extrapolation": ("training mean", "last value", "ridge", "GRU-D", "direct GRU", "Latent ODE", *PATHS, ALONE, OURS),
}
CHANCELESS = ("training mean", "line between values", "last value", "ridge", ALONE)
RIDGE_STAYS, RIDGE_SHOWN = 600, 0.7
STABLE = "Oh, Lim and Kim, Stable Neural SDEs, ICLR 2024, quoted from memory, over all entries, in thousandths there"
# row: errors in thousandths at 50, 60, 70, 80 and 90 % shown
PUBLISHED = {
    "Latent ODE (ODE encoder)": (6.721, 6.816, 6.798, 6.850, 7.142),
    "mTAND-Full": (4.139, 4.018, 4.157, 4.410, 4.798),
    "Neural LSDE": (3.799, 3.584, 3.457, 3.262, 3.111),
    "Neural LNSDE": (3.808, 3.617, 3.405, 3.269, 3.154),
    "Neural GSDE": (3.824, 3.667, 3.493, 3.287, 3.118),
}


class Mean:
    """Every value is the training stays' mean: zero, in standardised units."""

    def interpolate(
        self, batch: SeriesBatch, times: Tensor, num_samples: int, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Zeros (1, B, H, D)."""
        return batch.values.new_zeros(1, *times.shape, batch.num_variables)


class Line:
    """Between two values of a variable the line that joins them, before the first and after the last that value."""

    def interpolate(
        self, batch: SeriesBatch, times: Tensor, num_samples: int, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """(1, B, H, D); the training mean where the row has no value of a variable."""
        filled = np.zeros((len(batch), times.shape[1], batch.num_variables), dtype=np.float32)
        known, when, values, asked = (part.numpy() for part in (batch.mask, batch.times, batch.values, times))
        for row, k in zip(*known.any(1).nonzero(), strict=True):
            there = known[row, :, k]
            filled[row, :, k] = np.interp(asked[row], when[row, there], values[row, there, k])
        return torch.from_numpy(filled)[None]


class Ridge:
    """Ridge regression on what is shown along straight lines, fitted to the hidden visits of some training stays."""

    def __init__(self, train: SeriesBatch) -> None:
        some = train.rows(slice(0, RIDGE_STAYS)).trim()
        away = hidden(some, RIDGE_SHOWN, seed=0)[..., None] & some.mask
        known, held = (
            SeriesBatch(some.times, some.values, mask, ids=some.ids, variables=some.variables)
            for mask in (some.mask & ~away, away)
        )
        self.model = RidgeInterpolation().learn(known, held)

    def interpolate(
        self, batch: SeriesBatch, times: Tensor, num_samples: int, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """(1, B, H, D), without noise."""
        return self.model.point(batch, times).to(batch.dtype)[None]


def fitted(task: str, row: str, stays: Stays, seed: int, steps: int, device: str) -> Any:
    """A model of a row, fitted."""
    size = stays.train.num_variables
    if row == OURS:
        config = Config(task=task, steps=steps, seed=seed, device=device, progress=False)  # type: ignore[arg-type]
        return train(config, stays)[0]
    if row == ALONE:
        return PerVariable().fit(stays.train)
    if row == "ridge":
        return Ridge(stays.train) if task == "interpolation" else RidgeForecast(CUT).fit(stays.train)
    if row in CHANCELESS:
        if task == "interpolation":
            return Line() if row == "line between values" else Mean()
        return TrainingValues().fit(stays.train) if row == "training mean" else LastValue().fit(stays.train)
    make: dict[str, Callable[[], nn.Module]] = {
        "GRU-D": lambda: DirectGRU(size, num_networks=1, encoder="gru_d"),
        "direct GRU": lambda: DirectGRU(size, num_networks=1),
        "Latent ODE": lambda: LatentODE(
            size, latent_size=24, context_size=64, step=0.1, hide_visits=0.5 if task == "interpolation" else 0.0
        ),
    }
    kind = "interpolate" if task == "interpolation" else "forecast"
    for name, reader in PATHS.items():
        make[name] = functools.partial(PathModel.build, num_variables=size, task=kind, reader=reader)
    torch.manual_seed(seed)
    model = make[row]()
    config = FitConfig(
        steps=steps,
        batch_size=64,
        clip_norm=1000.0,
        validate_every=max(1, steps // 8),
        kl_warmup_steps=100 if row == "Latent ODE" else 0,
        seed=seed,
        device=device,
        progress=False,
    )
    fit(model, stays.train, stays.validation, config, validate=validation_of(task, stays))
    return model


def measure(
    task: str, row: str, seed: int, steps: int, max_rows: int | None = None, device: str = "cpu"
) -> dict[str, Any]:
    """Fit one model and score it on the test stays."""
    stays = prepare(task, max_rows)
    started = time.monotonic()
    model = fitted(task, row, stays, seed, steps, device)
    found: dict[str, Any] = {"training": time.monotonic() - started}
    if task == "interpolation":
        found["errors"] = [interpolation_errors(model, stays.test, shown, stays.unit) for shown in SHOWN]
    else:
        found["scores"] = forecast_scores(model, stays.test)
    return found | {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def records(jobs: Sequence[dict[str, Any]]) -> list[Record]:
    """The tables, from jobs that hold their arguments and their result."""
    made: list[Record] = []
    for task, rows in ROWS.items():
        for row in rows:
            found = {job["seed"]: job["result"] for job in jobs if (job["task"], job["row"]) == (task, row)}
            if not found:
                continue
            seeds, results = list(found), list(found.values())

            def put(table: str, column: str, values: list[float], unit: str = "", better: Any = "") -> None:
                made.append(
                    measured(table, row, column, values, seeds=seeds, command=COMMAND, unit=unit, better=better)  # noqa: B023
                )

            table = f"physionet2012/{task}"
            if task == "interpolation":
                for own, kind in ((table, "hidden"), (f"{table}-all", "all")):
                    for k, shown in enumerate(SHOWN):
                        put(own, _column(shown), [1e3 * one["errors"][k][kind] for one in results], "1e-3", "lower")
            else:
                for column in results[0]["scores"]:
                    values = [one["scores"][column] for one in results]
                    put(table, column, values, better="" if "coverage" in column else "lower")
            put(table, "training", [one["training"] for one in results], "s")
            put(table, "memory", [one["memory"] for one in results], "MB")
    for row, numbers in PUBLISHED.items():
        for shown, value in zip(SHOWN, numbers, strict=True):
            place = ("physionet2012/interpolation-all", row, _column(shown), value)
            made.append(Record(*place, unit="1e-3", source=STABLE))
    return made


def _column(shown: float) -> str:
    return f"{100 * shown:.0f} % shown"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write benchmarks/results/physionet2012.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=tuple(ROWS), default=tuple(ROWS))
    parser.add_argument("--rows", nargs="+", choices=sorted({row for rows in ROWS.values() for row in rows}))
    parser.add_argument("--steps", type=int, help="of training, fewer for a smoke run, whose numbers mean nothing")
    parser.add_argument("--max-rows", type=int, help="only the first stays, for a smoke run")
    parser.add_argument("--device", default="cpu", help="where networks are trained: cpu or cuda")
    add_job_options(parser, SEEDS)
    chosen = parser.parse_args(arguments)
    jobs = {
        f"{task}, {row}, seed {seed}": {
            "task": task,
            "row": row,
            "seed": seed,
            "steps": chosen.steps or STEPS[task],
            "max_rows": chosen.max_rows,
            "device": chosen.device,
        }
        for task in chosen.tasks
        for row in reversed(ROWS[task])  # the slow ones first
        if chosen.rows is None or row in chosen.rows
        for seed in (chosen.seeds[:1] if row in CHANCELESS else chosen.seeds)
    }
    results = run_jobs("physionet2012", measure, jobs, processes=chosen.processes, fresh=chosen.fresh)
    made = records([jobs[name] | {"result": result} for name, result in results.items()])
    for record in made:
        print(f"{record.table:32s} {record.row:26s} {record.column:18s} {record.value:10.4f}")
    if chosen.steps or chosen.max_rows:
        return
    publish(RESULTS / "physionet2012.json", made)


if __name__ == "__main__":
    main()
