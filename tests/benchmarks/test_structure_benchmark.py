"""The structure benchmarks: which jobs there are, and what their tables hold."""

import pytest

from benchmarks import structure, structure_time
from neurodyn.models.structure import STRUCTURE_LEARNERS

SCORES = {"auroc": 0.8, "auroc_off": 0.7, "seconds": 2.0, "kept": 0.1, "share": 0.2}
EDGES = {"ece": 0.1, "f1": 0.5, "tpr": 0.6, "fdr": 0.2}


def test_learners_without_chance_are_measured_once_on_fixed_data() -> None:
    jobs = structure.plan(["dream3", "noise", "coupled"], ["ridge", "scotch", "componentwise_mlp"], [1, 2], False)
    count = {(part, learner): 0 for part in structure.PARTS for learner in STRUCTURE_LEARNERS}
    for job in jobs.values():
        count[job["part"], job["learner"]] += 1
    assert count["dream3", "ridge"] == 5 and count["dream3", "scotch"] == 10 and count["coupled", "ridge"] == 8
    assert count["dream3", "componentwise_mlp"] == 0  # too slow there
    assert count["noise", "scotch"] == 4 and count["noise", "ridge"] == 0  # no probabilities to look at


def test_every_part_has_its_tables() -> None:
    jobs = structure.plan(list(structure.PARTS), ["ridge", "scotch"], [1, 2], False)
    results = {name: SCORES | EDGES | {"auroc_off": 0.7 + 0.1 * job["seed"]} for name, job in jobs.items()}
    made = structure.records(results, jobs)
    cells = {(r.table, r.row, r.column): r for r in made}
    assert len(cells) == len(made)
    label = STRUCTURE_LEARNERS["scotch"].label
    mean = cells["structure/dream3", label, "mean"]
    assert mean.seeds == (1, 2) and (mean.value, mean.low, mean.high) == pytest.approx((0.85, 0.8, 0.9))
    assert cells["structure/dream3", STRUCTURE_LEARNERS["ridge"].label, "mean"].seeds == (1,)
    assert ("structure/netsim", label, "20 % missing") in cells and ("structure/netsim-off", label, "fit") not in cells
    assert cells["structure/edges", f"{label}: NetSim, all values", "calibration error"].value == 0.1
    assert cells["structure/noise", f"{label}: 5 variables", "edges above 1/2"].value == 0.1
    assert not any(r.row.startswith("ridge:") for r in made)


def test_the_time_is_that_to_the_simulated_ones_best() -> None:
    results = {
        "seed 1": {"scotch": [(1.0, 0.6), (2.0, 0.9)], "scotch_simulated": [(10.0, 0.5), (20.0, 0.8), (30.0, 0.7)]},
        "seed 2": {"scotch": [(1.0, 0.6), (2.0, 0.7)], "scotch_simulated": [(10.0, 0.5), (20.0, 0.8), (30.0, 0.7)]},
    }
    cells = {(r.row, r.column): r.value for r in structure_time.records(results, [1, 2])}
    ours, theirs = (STRUCTURE_LEARNERS[way].label for way in structure_time.WAYS)
    column = "to the simulated one's best"
    assert cells[ours, column] == 2.0 and cells[theirs, column] == 20.0 and cells[ours, "reached it"] == 0.5
    assert cells[ours, "best AUROC"] == 0.8 and cells[theirs, "whole run"] == 30.0


def test_both_ways_are_watched() -> None:
    found = structure_time.measure(1, warmup_steps=2, ramp_steps=20)
    assert set(found) == set(structure_time.WAYS)
    assert all(0 <= score <= 1 and seconds > 0 for seen in found.values() for seconds, score in seen)
    assert all(seen for seen in found.values())
