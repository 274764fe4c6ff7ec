"""Forecasts of real irregular series, entity by entity: `python -m benchmarks.time_imm`.

Four sets of Time-IMM (`datasets.time_imm`). Each entity's span is cut in time; of a test window the history is known
and the horizon after it is forecast, for the lengths of `datasets.time_imm.WINDOWS`. Values are standardised by the
training windows; 199 samples; means over observed entries (table time_imm/SET), and the CRPS of each entity's windows
(time_imm/SET-entities). Models are those of the forecast recipe, with its settings.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Literal

import torch

from benchmarks.jobs import run_jobs
from benchmarks.records import RESULTS, Record, measured, merge_records, summarise
from neurodyn.datasets import time_imm
from neurodyn.datasets.splits import histories
from neurodyn.metrics.forecasts import score
from neurodyn.models.forecasters import FORECASTERS, Training, fit_forecaster
from neurodyn.scaling import Scaling

COMMAND = "python -m benchmarks.time_imm"
SEEDS = (0, 1)
MODELS = ("last_value", "regressed_last_value", "linear_sde", "direct_gru", "latent_sde")
CHANCELESS = ("last_value", "regressed_last_value", "linear_sde")
COLUMNS: dict[str, tuple[str, str, Literal["lower", "higher", ""]]] = {  # score: column, unit, which way is good
    "crps": ("CRPS", "", "lower"),
    "mae": ("MAE", "", "lower"),
    "mse": ("MSE of the mean", "", "lower"),
    "coverage_90": ("90 % coverage", "", ""),
    "width_90": ("90 % width", "", ""),
    "seconds": ("fit", "s", ""),
}


def measure(subset: str, name: str, seed: int) -> dict[str, Any]:
    """Scores of one forecaster on one set, and the CRPS of each entity."""
    splits = time_imm.load(subset)
    scaling = Scaling.fit(splits.train)
    train, validation, test = (scaling.apply(part) for part in splits[:3])
    fitted = fit_forecaster(name, train, validation, Training(seed=seed, progress=False, device="cpu"))
    (cut,) = (protocol["until"] for protocol in splits.info["protocols"].values())
    history, future = histories(test, until=scaling.apply_times(torch.tensor(cut)))
    scores = score(fitted.forecast(history, future.times, 199, seed=seed), future)
    found = {key: value for key, value in scores.overall().items() if key in COLUMNS}
    entries = scores.entries["crps"].nan_to_num()
    entities = [str(row).split("@")[0] for row in history.ids or ()]
    of = {}
    for entity in dict.fromkeys(entities):
        rows = [k for k, own in enumerate(entities) if own == entity]
        of[entity] = float(entries[rows].sum() / scores.mask[rows].sum())
    return {"scores": found | {"seconds": fitted.seconds}, "entities": of, "rows": len(history)}


def records(jobs: Sequence[dict[str, Any]]) -> list[Record]:
    """The tables, from jobs that hold their arguments and their result."""
    made: list[Record] = []
    for subset in dict.fromkeys(job["subset"] for job in jobs):
        own = sorted((job for job in jobs if job["subset"] == subset), key=lambda job: MODELS.index(job["name"]))
        cells: dict[int, dict[str, dict[str, float]]] = {}
        for job in own:
            row = {COLUMNS[key][0]: value for key, value in job["result"]["scores"].items()}
            cells.setdefault(job["seed"], {})[FORECASTERS[job["name"]].label] = row
        columns = {column: (unit, better) for column, unit, better in COLUMNS.values()}
        made += summarise(f"time_imm/{subset}", cells, columns, command=COMMAND)
        for name in dict.fromkeys(job["name"] for job in own):
            of = {job["seed"]: job["result"]["entities"] for job in own if job["name"] == name}
            for entity in next(iter(of.values())):
                place = (f"time_imm/{subset}-entities", FORECASTERS[name].label, entity)
                values = [one[entity] for one in of.values()]
                made.append(measured(*place, values, seeds=list(of), command=COMMAND, better="lower"))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write benchmarks/results/time_imm.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--subsets", nargs="+", choices=tuple(time_imm.WINDOWS), default=tuple(time_imm.WINDOWS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--processes", type=int, help="at a time, one thread each; all cores if not given")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results of the same code")
    chosen = parser.parse_args(arguments)
    jobs = {
        f"{subset}, {name}, seed {seed}": {"subset": subset, "name": name, "seed": seed}
        for name in reversed(chosen.models)  # the slow ones first
        for subset in chosen.subsets
        for seed in (chosen.seeds[:1] if name in CHANCELESS else chosen.seeds)
    }
    results = run_jobs("time_imm", measure, jobs, processes=chosen.processes, fresh=chosen.fresh)
    made = records([jobs[name] | {"result": result} for name, result in results.items()])
    merge_records(RESULTS / "time_imm.json", made)
    for record in made:
        if record.column == "CRPS":
            print(f"{record.table:24s} {record.row:24s} {record.value:8.4f}")
    print("written to benchmarks/results/time_imm.json; python -m benchmarks.render puts it into the docs")


if __name__ == "__main__":
    main()
