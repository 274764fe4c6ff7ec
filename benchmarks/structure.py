"""Who drives whom in systems with a known graph: `python -m benchmarks.structure [--tables systems dream3 ...]`.

systems  Lorenz-96 (10 variables) and yeast glycolysis (7), 10 series of 100 grid points each, of which a share is
         dropped; each seed has its own data.
netsim   NetSim's third simulation, five subjects of 15 regions, with none, 10 % and 20 % of the values missing.
dream3   DREAM3, five networks of 100 genes, without self-loops.
coupled  ten variables on a growing tree, plain and in the cases that are hard: each variable standardised, effects that
         come late, hidden common causes.
noise    variables that do not drive one another: how many edges are left.

Every learner has one setting for all tables, fixed on other seeds than those shown; none sees the graph. The AUROC
counts all edges (tables NAME/auroc) or leaves self-loops out (auroc-off). structure/edges holds what the probabilities
are worth: their calibration error and the edges above 1/2.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import numpy as np

from benchmarks.jobs import add_job_options, run_jobs
from benchmarks.records import RESULTS, Record, measured, publish
from neurodyn import datasets
from neurodyn.metrics.graphs import auroc, calibration_error, threshold_scores
from neurodyn.models.structure import STRUCTURE_LEARNERS, learn_structure
from neurodyn.scaling import Scaling

COMMAND = "python -m benchmarks.structure"
Better = Literal["lower", "higher", ""]
SEEDS = (11, 12, 13)
TREE = {"layout": "random", "variables": 10, "dropped": 0.2}


class Part(NamedTuple):
    """A group of tables: systems with their options, by column."""

    settings: dict[str, tuple[str, dict[str, Any]]]
    tables: dict[str, str]
    """The table of each score; none for a part without edges."""
    title: str = ""
    """What stands before a system's name where parts share a table."""
    loops: bool = True
    """Whether self-loops count in what probabilities are worth."""
    drawn: bool = True
    """Whether a seed draws data as well as weights."""
    mean: bool = False
    """Whether there is a column of means over the systems."""
    calibrated: bool = True
    """Whether the edges of SCOTCH by SDE Matching get probabilities, which takes a second fit."""


PARTS = {
    "systems": Part(
        {
            "Lorenz-96, 0.3 apart, 30 % dropped": ("lorenz96", {"spacing": 0.3, "dropped": 0.3}),
            "Lorenz-96, 0.5 apart, 30 % dropped": ("lorenz96", {"spacing": 0.5, "dropped": 0.3}),
            "Lorenz-96, 1 apart, 30 % dropped": ("lorenz96", {"spacing": 1.0, "dropped": 0.3}),
            "Lorenz-96, 1 apart, 60 % dropped": ("lorenz96", {"spacing": 1.0, "dropped": 0.6}),
            "glycolysis, 0.1 apart": ("glycolysis", {"spacing": 0.1}),
            "glycolysis, 1 apart": ("glycolysis", {"spacing": 1.0}),
        },
        {"auroc": "structure/auroc", "auroc_off": "structure/auroc-off"},
    ),
    "netsim": Part(
        {
            "all values": ("netsim", {}),
            "10 % missing": ("netsim", {"missing": 0.1}),
            "20 % missing": ("netsim", {"missing": 0.2}),
        },
        {"auroc": "structure/netsim", "auroc_off": "structure/netsim-off"},
        title="NetSim, ",
    ),
    "dream3": Part(
        {name: ("dream3", {"network": name}) for name in ("Ecoli1", "Ecoli2", "Yeast1", "Yeast2", "Yeast3")},
        {"auroc_off": "structure/dream3"},
        title="DREAM3, ",
        loops=False,
        drawn=False,
        mean=True,
        calibrated=False,
    ),
    "coupled": Part(
        {
            "plain": ("coupled_sdes", TREE),
            "standardised": ("coupled_sdes", TREE | {"standardised": True}),
            "effects 0.6 late": ("coupled_sdes", TREE | {"lag": 0.6}),
            "three hidden causes": ("coupled_sdes", TREE | {"confounders": 3}),
        },
        {"auroc_off": "structure/coupled"},
        title="tree, ",
        loops=False,
    ),
    "noise": Part(
        {f"{size} variables": ("coupled_sdes", {"layout": "none", "variables": size}) for size in (5, 10)}, {}
    ),
}
EDGES: dict[str, tuple[str, Better]] = {
    "ece": ("calibration error", "lower"),
    "f1": ("F1", "higher"),
    "tpr": ("found", "higher"),
    "fdr": ("false", "lower"),
}
NOISE: dict[str, tuple[str, Better]] = {
    "kept": ("edges above 1/2", ""),
    "share": ("mean probability", ""),
}
USUAL = [name for name in STRUCTURE_LEARNERS if name != "scotch_simulated"]
"""What the tables hold unless others are asked for: a simulated fit takes many minutes."""
NEEDS = {"pcmci_plus": "tigramite"}
WITHOUT_CHANCE = ("lagged_correlation", "vector_autoregression", "ridge", "quadratic_ridge", "pcmci_plus")
"""Learners without weights to draw: where the data are fixed they are measured once."""
TOO_SLOW = ("componentwise_mlp", "pcmci_plus", "scotch_simulated")
"""Left out where there are a hundred variables: they would take hours."""
NETWORKS = ("Ecoli1", "Ecoli2", "Yeast1", "Yeast2", "Yeast3", "mean")
REMEMBERED: dict[str, dict[str, dict[str, float]]] = {
    "systems": {
        "SCOTCH, its authors": {
            "Lorenz-96, 1 apart, 30 % dropped": 0.728,
            "Lorenz-96, 1 apart, 60 % dropped": 0.645,
            "glycolysis, 1 apart": 0.711,
        }
    },
    "dream3": {
        "SCOTCH, its authors": dict(zip(NETWORKS, (0.752, 0.705, 0.712, 0.622, 0.594, 0.677), strict=True)),
        "Rhino": dict(zip(NETWORKS, (0.685, 0.680, 0.664, 0.585, 0.567, 0.636), strict=True)),
        "cMLP": dict(zip(NETWORKS, (0.644, 0.568, 0.585, 0.506, 0.528), strict=False)),
        "PCMCI+": dict(zip(NETWORKS, (0.530, 0.519, 0.530, 0.510, 0.512, 0.520), strict=True)),
    },
}
"""AUROC that the paper reports, from memory: not read from it. Those of systems are of data that its authors drew."""


def measure(learner: str, part: str, setting: str, seed: int, quick: bool = False) -> dict[str, Any]:
    """Scores of one learner on one system: the AUROC of its scores, the rest of its probabilities, if it has any."""
    (name, options), loops = PARTS[part].settings[setting], PARTS[part].loops
    if PARTS[part].drawn:
        options = options | {"seed": seed}
    series, graph, _ = datasets.load_structure(name, **options)
    series = Scaling.fit(series).apply(series)
    learned = learn_structure(learner, series, seed=seed, quick=quick, calibrate=_calibrated(part, learner))
    truth = graph.numpy()
    found: dict[str, Any] = {
        "seconds": learned.seconds if learned.result is None else learned.result.seconds
    }  # one fit's
    off = ~np.eye(len(truth), dtype=bool)
    if truth[off].any():
        found["auroc_off"] = auroc(learned.scores, truth, diagonal=False)
        if loops:
            found["auroc"] = auroc(learned.scores, truth)
    if learned.probabilities is not None and learned.unlinked is not None:
        found["scores"], found["unlinked"] = learned.scores.round(4), learned.unlinked.round(4)  # kept with the job
        found["kept"] = float((learned.probabilities[off] > 0.5).mean())
        found["share"] = float(learned.probabilities[off].mean())
        if truth[off].any():
            found |= threshold_scores(learned.probabilities, truth, diagonal=loops)
            found["ece"] = calibration_error(learned.probabilities, truth, diagonal=loops)
    return found


def records(results: Mapping[str, Mapping[str, Any]], jobs: Mapping[str, Mapping[str, Any]]) -> list[Record]:
    """The tables, from the results of all jobs and their arguments."""
    cells: dict[tuple[str, str], dict[str, dict[int, Mapping[str, float]]]] = {}  # part, learner: setting: seed
    for name, result in results.items():
        job = jobs[name]
        of_learner = cells.setdefault((job["part"], job["learner"]), {})
        of_learner.setdefault(job["setting"], {})[job["seed"]] = result
    made: list[Record] = []

    def add(
        table: str, row: str, column: str, values: Mapping[int, float], better: Better = "", unit: str = ""
    ) -> None:
        numbers, seeds = list(values.values()), list(values)
        made.append(measured(table, row, column, numbers, seeds=seeds, command=COMMAND, better=better, unit=unit))

    for (part, learner), of_learner in sorted(cells.items(), key=lambda cell: _place(*cell[0])):
        label, about = STRUCTURE_LEARNERS[learner].label, PARTS[part]
        for key, table in about.tables.items():
            for setting, of in of_learner.items():
                add(table, label, setting, {seed: one[key] for seed, one in of.items()}, "higher")
            if about.mean and len(of_learner) == len(about.settings):
                add(table, label, "mean", _means(of_learner, key), "higher")
        for setting, of in of_learner.items():
            if _calibrated(part, learner):
                columns = EDGES if about.tables else NOISE
                row = f"{label}: {about.title}{setting}"
                for key, (column, better) in columns.items():
                    table = "structure/edges" if about.tables else "structure/noise"
                    add(table, row, column, {seed: one[key] for seed, one in of.items()}, better)
        if about.tables:
            add(next(iter(about.tables.values())), label, "fit", _means(of_learner, "seconds"), unit="s")
    return made + [record for part in PARTS if (part, "scotch") in cells for record in remembered(part)]


def remembered(part: str) -> list[Record]:
    """What others report, in the part's first table."""
    table = next(iter(PARTS[part].tables.values()), "")
    return [
        Record(table, row, column, value, source="from memory of arXiv 2311.03309")
        for row, columns in REMEMBERED.get(part, {}).items()
        for column, value in columns.items()
    ]


def _calibrated(part: str, learner: str) -> bool:
    return learner == "scotch" and PARTS[part].calibrated


def _place(part: str, learner: str) -> tuple[int, int]:
    return list(PARTS).index(part), list(STRUCTURE_LEARNERS).index(learner)


def _means(of_learner: Mapping[str, Mapping[int, Mapping[str, float]]], key: str) -> dict[int, float]:
    """Over the settings, for each seed that all of them have; for the first ones' seeds where none has all."""
    seeds = [seed for seed in next(iter(of_learner.values())) if all(seed in of for of in of_learner.values())]
    return {seed: sum(of[seed][key] for of in of_learner.values()) / len(of_learner) for seed in seeds}


def plan(parts: Sequence[str], learners: Sequence[str], seeds: Sequence[int], quick: bool) -> dict[str, Any]:
    """The jobs by name; where the data are fixed, learners without chance are measured once."""
    return {
        f"{learner}, {part}, {setting}, seed {seed}": {
            "learner": learner, "part": part, "setting": setting, "seed": seed, "quick": quick
        }
        for seed in seeds
        for part in parts
        for setting in PARTS[part].settings
        for learner in learners
        if PARTS[part].drawn or learner not in WITHOUT_CHANCE or seed == seeds[0]
        if PARTS[part].tables or _calibrated(part, learner)
        if part != "dream3" or learner not in TOO_SLOW
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write benchmarks/results/structure.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=tuple(PARTS), default=["systems"])
    parser.add_argument("--learners", nargs="+", choices=tuple(STRUCTURE_LEARNERS), default=USUAL)
    parser.add_argument("--settings", nargs="+", help="only these columns; all if not given")
    parser.add_argument("--name", default="structure", help="of the results' file, for runs side by side")
    add_job_options(parser, SEEDS)
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs; nothing is written")
    chosen = parser.parse_args(arguments)
    learners = [name for name in chosen.learners if name not in NEEDS or find_spec(NEEDS[name]) is not None]
    for name in set(chosen.learners) - set(learners):
        print(f"{name} is left out: {NEEDS[name]} is not installed")
    jobs = plan(chosen.tables, learners, chosen.seeds, chosen.quick)
    if chosen.settings:
        jobs = {name: job for name, job in jobs.items() if job["setting"] in chosen.settings}
    results = run_jobs(chosen.name, measure, jobs, processes=chosen.processes, fresh=chosen.fresh)
    made = records(results, jobs)
    for record in made:
        print(f"{record.table:22s} {record.row:60s} {record.column:36s} {record.value:8.3f}")
    if chosen.quick:
        return
    publish(RESULTS / f"{chosen.name}.json", made)


if __name__ == "__main__":
    main()
