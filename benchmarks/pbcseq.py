"""Forecasts of held-out pbcseq patients by every model: `python -m benchmarks.pbcseq`.

Four random splits of patients, 60/20/20; all later visits of the test patients are forecast from the first half of
their visits (table pbcseq/half) or from those of their first two years (pbcseq/two-years). Values are standardised by
training patients, logarithms of skewed ones; 200 samples; means over observed entries. The tables pbcseq/splits-...
hold the CRPS of every split.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Literal

from benchmarks.jobs import add_job_options, run_jobs
from benchmarks.records import RESULTS, Record, measured, publish, summarise
from neurodyn.datasets import pbcseq
from neurodyn.metrics.forecasts import evaluate
from neurodyn.models.forecasters import FORECASTERS, Training, fit_forecaster
from neurodyn.scaling import Scaling

COMMAND = "python -m benchmarks.pbcseq"
SPLITS = (0, 1, 2, 3)
PROTOCOLS = {"half": "half", "two-years": "two_years"}  # table: protocol
COLUMNS: dict[str, tuple[str, str, Literal["lower", "higher", ""]]] = {  # score: column, unit, which way is good
    "crps": ("CRPS", "", "lower"),
    "mae": ("MAE", "", "lower"),
    "mse": ("MSE of the mean", "", "lower"),
    "energy_score": ("energy score", "", "lower"),
    "coverage_90": ("90 % coverage", "", ""),
    "width_90": ("90 % width", "", ""),
    "seconds": ("fit", "s", ""),
}


def measure(name: str, split: int) -> dict[str, dict[str, float]]:
    """Scores by protocol of one forecaster fitted on one split, with the seconds that the fit took."""
    parts = pbcseq.load(split=split)
    scaling = Scaling.fit(parts.train, log=parts.info["log"])
    fitted = fit_forecaster(
        name, scaling.apply(parts.train), scaling.apply(parts.validation), Training(seed=split, progress=False)
    )
    found = {}
    for table, protocol in PROTOCOLS.items():
        history, future = (scaling.apply(part) for part in pbcseq.histories(parts.test, protocol))
        scores = evaluate(fitted.forecast(history, future.times, 200, seed=split), future)
        found[table] = {key: scores[key] for key in COLUMNS if key in scores} | {"seconds": fitted.seconds}
    return found


def records(results: dict[str, Any], splits: Sequence[int]) -> list[Record]:
    """The tables, from the results of all jobs."""
    made: list[Record] = []
    for table in PROTOCOLS:
        cells = {
            split: {
                entry.label: {COLUMNS[key][0]: value for key, value in results[f"{name}, split {split}"][table].items()}
                for name, entry in FORECASTERS.items()
                if f"{name}, split {split}" in results
            }
            for split in splits
        }
        columns = {column: (unit, better) for column, unit, better in COLUMNS.values()}
        made += summarise(f"pbcseq/{table}", cells, columns, command=COMMAND)
        for split, rows in cells.items():
            for row, values in rows.items():
                where = (f"pbcseq/splits-{table}", row, f"split {split}")
                made.append(measured(*where, [values["CRPS"]], seeds=[split], command=COMMAND, better="lower"))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write benchmarks/results/pbcseq.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=tuple(FORECASTERS), default=tuple(FORECASTERS))
    parser.add_argument("--splits", nargs="+", type=int, default=list(SPLITS), help="seeds of the split of patients")
    add_job_options(parser)
    chosen = parser.parse_args(arguments)
    # the slow ones first, so that no core waits at the end
    slow_first = [name for name in reversed(FORECASTERS) if name in chosen.models]
    slow_first.sort(key=lambda name: name != "latent_sde")
    jobs = {f"{name}, split {split}": {"name": name, "split": split} for name in slow_first for split in chosen.splits}
    results = run_jobs("pbcseq", measure, jobs, processes=chosen.processes, fresh=chosen.fresh)
    path = RESULTS / "pbcseq.json"
    for table in PROTOCOLS:
        print(f"{table}: mean CRPS over splits")
        for record in records(results, chosen.splits):
            if record.table == f"pbcseq/{table}" and record.column == "CRPS":
                print(f"  {record.row:24s} {record.value:.4f}")
    publish(path, records(results, chosen.splits))


if __name__ == "__main__":
    main()
