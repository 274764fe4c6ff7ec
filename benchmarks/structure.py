"""Who drives whom in systems with a known graph: `python -m benchmarks.structure`.

Lorenz-96 (10 variables) and yeast glycolysis (7), 10 series of 100 grid points each, of which a share is dropped; each
seed has its own data and weights. The AUROC counts all edges (table structure/auroc) or leaves self-loops out
(structure/auroc-off). Every learner has one setting for all tables, fixed on other seeds than those shown; none sees
the graph. structure/edges holds what the probabilities are worth: their calibration error and edges above 1/2.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks.jobs import run_jobs
from benchmarks.records import RESULTS, Record, measured, merge_records
from neurodyn import datasets
from neurodyn.metrics.graphs import graph_scores
from neurodyn.models.structure import STRUCTURE_LEARNERS, learn_structure
from neurodyn.scaling import Scaling

COMMAND = "python -m benchmarks.structure"
SEEDS = (11, 12, 13)
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "Lorenz-96, 0.3 apart, 30 % dropped": ("lorenz96", {"spacing": 0.3, "dropped": 0.3}),
    "Lorenz-96, 0.5 apart, 30 % dropped": ("lorenz96", {"spacing": 0.5, "dropped": 0.3}),
    "Lorenz-96, 1 apart, 30 % dropped": ("lorenz96", {"spacing": 1.0, "dropped": 0.3}),
    "Lorenz-96, 1 apart, 60 % dropped": ("lorenz96", {"spacing": 1.0, "dropped": 0.6}),
    "glycolysis, 0.1 apart": ("glycolysis", {"spacing": 0.1}),
    "glycolysis, 1 apart": ("glycolysis", {"spacing": 1.0}),
}
TABLES = {"auroc": "structure/auroc", "auroc_off": "structure/auroc-off"}
EDGES = {
    "ece": ("calibration error", "lower"),
    "f1": ("F1", "higher"),
    "tpr": ("found", "higher"),
    "fdr": ("false", "lower"),
}
OURS = ("scotch", "scotch_step")
REMEMBERED = {
    "Lorenz-96, 1 apart, 30 % dropped": 0.728,
    "Lorenz-96, 1 apart, 60 % dropped": 0.645,
    "glycolysis, 1 apart": 0.711,
}
"""AUROC that the paper's authors report, from memory: not read from the paper, and of their own simulated data."""


def measure(learner: str, setting: str, seed: int) -> dict[str, float]:
    """Scores of one learner on the data of one seed."""
    name, options = SETTINGS[setting]
    series, graph, _ = datasets.load_structure(name, **options, seed=seed)
    learned = learn_structure(learner, Scaling.fit(series).apply(series), seed=seed)
    table = learned.scores if learner in OURS else learned.scores / learned.scores.max()
    return graph_scores(table, graph.numpy()) | {"seconds": learned.seconds}


def records(results: dict[str, dict[str, Any]]) -> list[Record]:
    """The tables, from the results of all jobs with their arguments."""
    made: list[Record] = []
    for learner, entry in STRUCTURE_LEARNERS.items():
        seconds: dict[int, list[float]] = {}  # by seed
        for setting in SETTINGS:
            of = {
                job["seed"]: job["result"]
                for job in results.values()
                if (job["learner"], job["setting"]) == (learner, setting)
            }
            if not of:
                continue
            for seed, one in of.items():
                seconds.setdefault(seed, []).append(one["seconds"])
            for key, table in TABLES.items():
                values = [one[key] for one in of.values()]
                made.append(
                    measured(table, entry.label, setting, values, seeds=list(of), command=COMMAND, better="higher")
                )
            if learner in OURS:
                for key, (column, better) in EDGES.items():
                    values = [one[key] for one in of.values()]
                    row = f"{entry.label}: {setting}"
                    made.append(
                        measured("structure/edges", row, column, values, seeds=list(of), command=COMMAND, better=better)  # type: ignore[arg-type]
                    )
        if seconds:
            means = [sum(each) / len(each) for each in seconds.values()]
            made.append(
                measured(TABLES["auroc"], entry.label, "fit", means, seeds=list(seconds), command=COMMAND, unit="s")
            )
    for setting, value in REMEMBERED.items():
        made.append(
            Record(TABLES["auroc"], "SCOTCH, its authors", setting, value, source="from memory of arXiv 2311.03309")
        )
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write benchmarks/results/structure.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--learners", nargs="+", choices=tuple(STRUCTURE_LEARNERS), default=tuple(STRUCTURE_LEARNERS))
    parser.add_argument("--settings", nargs="+", choices=tuple(SETTINGS), default=tuple(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--processes", type=int, help="at a time, one thread each; all cores if not given")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results of the same code")
    chosen = parser.parse_args(arguments)
    jobs = {
        f"{learner}, {setting}, seed {seed}": {"learner": learner, "setting": setting, "seed": seed}
        for seed in chosen.seeds
        for setting in chosen.settings
        for learner in chosen.learners
    }
    results = run_jobs("structure", measure, jobs, processes=chosen.processes, fresh=chosen.fresh)
    made = records({name: jobs[name] | {"result": result} for name, result in results.items()})
    for record in made:
        print(f"{record.table:22s} {record.row:52s} {record.column:36s} {record.value:8.3f}")
    merge_records(RESULTS / "structure.json", made)
    print("written to benchmarks/results/structure.json; python -m benchmarks.render puts it into the docs")


if __name__ == "__main__":
    main()
