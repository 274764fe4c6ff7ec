"""Forecasts of irregular series, all models by one protocol: `python -m benchmarks.irregular_forecast`.

Four sets of Time-IMM (`datasets.time_imm`), entity by entity: each entity's span is cut in time; of a test window the
history is known and the horizon after it is forecast. And the hopper (`datasets.hopper`): of 50 time points 0, 30, 50
or 70 % are dropped, and the next 10 are forecast. Values are standardised by the training windows; 199 samples; means
over observed entries (table irregular_forecast/SET), and for Time-IMM the CRPS of each entity's windows
(irregular_forecast/SET-entities). The table irregular_forecast/hopper has the squared errors by share dropped, beside
published ones. All networks of a set have the same steps and batches. Intensive-care stays, by the same models:
`benchmarks.physionet2012`.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch

from benchmarks.jobs import add_job_options, run_jobs
from benchmarks.records import RESULTS, Record, measured, publish, summarise
from neurodyn.datasets import hopper, time_imm
from neurodyn.datasets.sources import NoLicenceStated
from neurodyn.datasets.splits import Splits, histories
from neurodyn.metrics.forecasts import score
from neurodyn.models.baselines.ridge import RidgeForecast
from neurodyn.models.forecasters import FORECASTERS, STABLE, Entry, Fitted, Training, fit_forecaster
from neurodyn.scaling import Scaling

COMMAND = "python -m benchmarks.irregular_forecast"
SEEDS = (0, 1, 2)
MISSING = (0, 30, 50, 70)
HOPPER = {f"hopper-{missing}": missing for missing in MISSING}
SUBSETS = (*HOPPER, *time_imm.WINDOWS)
ROWS = {"ridge": Entry("ridge", "Ridge regression on the history along straight lines.")} | FORECASTERS
MODELS = ("last_value", "regressed_last_value", "ridge", "linear_sde", "direct_gru", *STABLE, "latent_sde")
DEFAULT = tuple(name for name in MODELS if name not in ("linear_sde", "latent_sde"))
CHANCELESS = ("last_value", "regressed_last_value", "ridge", "linear_sde")
SCHEDULE = {"steps": 200, "batch_size": 64, "validate_every": 100}
COLUMNS: dict[str, tuple[str, str, Literal["lower", "higher", ""]]] = {  # score: column, unit, which way is good
    "crps": ("CRPS", "", "lower"),
    "mae": ("MAE", "", "lower"),
    "mse": ("MSE of the mean", "", "lower"),
    "coverage_90": ("90 % coverage", "", ""),
    "width_90": ("90 % width", "", ""),
    "seconds": ("fit", "s", ""),
}
PUBLISHED = {
    "neural CDE": (0.028, 0.027, 0.029, 0.031),
    "neural SDE": (0.028, 0.029, 0.029, 0.033),
    "neural LSDE": (0.013, 0.014, 0.014, 0.013),
    "neural LNSDE": (0.012, 0.014, 0.014, 0.014),
    "neural GSDE": (0.013, 0.013, 0.013, 0.014),
}
OF_THE_MEAN = 0.0626
STABLE_SDES = (
    "Oh, Lim and Kim, Stable Neural SDEs, ICLR 2024, quoted from memory, on 100 other series of this robot; divided "
    f"by {OF_THE_MEAN}, which the training mean's error is there, as one is here"
)


def load(subset: str, seed: int) -> Splits:
    """The splits of a set; the seed drops the hopper's time points."""
    warnings.simplefilter("ignore", NoLicenceStated)
    return hopper.load(HOPPER[subset] / 100, seed) if subset in HOPPER else time_imm.load(subset)


def measure(subset: str, name: str, seed: int, steps: int) -> dict[str, Any]:
    """Scores of one forecaster on one set, and the CRPS of each entity."""
    splits = load(subset, seed)
    scaling = Scaling.fit(splits.train)
    train, validation, test = (scaling.apply(part) for part in splits[:3])
    (cut,) = (protocol["until"] for protocol in splits.info["protocols"].values())
    until = scaling.apply_times(torch.tensor(cut))
    if name == "ridge":
        started = time.monotonic()
        ridge = RidgeForecast(float(until)).fit(train)
        fitted = Fitted(name, ridge, time.monotonic() - started)
    else:
        schedules = {name: SCHEDULE | {"steps": steps, "validate_every": max(1, min(100, steps // 2))}}
        training = Training(seed=seed, progress=False, device="cpu", schedules=schedules)
        fitted = fit_forecaster(name, train, validation, training)
    history, future = histories(test, until=until)
    scores = score(fitted.forecast(history, future.times, 199, seed=seed), future)
    found = {key: value for key, value in scores.overall().items() if key in COLUMNS}
    entries = scores.entries["crps"].nan_to_num()
    entities = [str(row).split("@")[0] for row in history.ids or ()]
    of = {}
    for entity in dict.fromkeys(entities if subset not in HOPPER else []):
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
            cells.setdefault(job["seed"], {})[ROWS[job["name"]].label] = row
        columns = {column: (unit, better) for column, unit, better in COLUMNS.values()}
        made += summarise(f"irregular_forecast/{subset}", cells, columns, command=COMMAND)
        for name in dict.fromkeys(job["name"] for job in own):
            of = {job["seed"]: job["result"]["entities"] for job in own if job["name"] == name}
            for entity in next(iter(of.values())):
                place = (f"irregular_forecast/{subset}-entities", ROWS[name].label, entity)
                values = [one[entity] for one in of.values()]
                made.append(measured(*place, values, seeds=list(of), command=COMMAND, better="lower"))
    return made + _dropped(jobs)


def _dropped(jobs: Sequence[dict[str, Any]]) -> list[Record]:
    """Squared errors of the hopper by share dropped, and published ones."""
    own = sorted((job for job in jobs if job["subset"] in HOPPER), key=lambda job: MODELS.index(job["name"]))
    if not own:
        return []
    cells: dict[int, dict[str, dict[str, float]]] = {}
    for job in own:
        row = cells.setdefault(job["seed"], {}).setdefault(ROWS[job["name"]].label, {})
        row[_column(HOPPER[job["subset"]])] = job["result"]["scores"]["mse"]
    columns: Any = {_column(share): ("", "lower") for share in MISSING}
    made = summarise("irregular_forecast/hopper", cells, columns, command=COMMAND)
    for row_, numbers in PUBLISHED.items():
        for share, value in zip(MISSING, numbers, strict=True):
            place = ("irregular_forecast/hopper", row_, _column(share), value / OF_THE_MEAN)
            made.append(Record(*place, better="lower", source=STABLE_SDES))
    return made


def _column(share: int) -> str:
    return f"MSE, {share} % dropped"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write benchmarks/results/irregular_forecast.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--subsets", nargs="+", choices=SUBSETS, default=SUBSETS)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=DEFAULT)
    parser.add_argument("--steps", type=int, default=SCHEDULE["steps"], help="of training of every network")
    add_job_options(parser, SEEDS)
    chosen = parser.parse_args(arguments)
    jobs = {
        f"{subset}, {name}, seed {seed}": {"subset": subset, "name": name, "seed": seed, "steps": chosen.steps}
        for name in reversed(chosen.models)  # the slow ones first
        for subset in chosen.subsets
        # a seed of the hopper is what is dropped, too
        for seed in (chosen.seeds[:1] if name in CHANCELESS and subset not in HOPPER else chosen.seeds)
    }
    results = run_jobs("irregular_forecast", measure, jobs, processes=chosen.processes, fresh=chosen.fresh)
    made = records([jobs[name] | {"result": result} for name, result in results.items()])
    for record in made:
        if record.column == "CRPS":
            print(f"{record.table:24s} {record.row:24s} {record.value:8.4f}")
    publish(RESULTS / "irregular_forecast.json", made)


if __name__ == "__main__":
    main()
