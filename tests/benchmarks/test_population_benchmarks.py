"""Benchmarks of populations: their jobs give what their tables hold."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import (
    langevin_gap,
    langevin_quirks,
    langevin_steps,
    langevin_time,
    lorenz_choice,
    lorenz_conditions,
    lorenz_spikes,
    recordings,
)
from benchmarks.records import merge_records
from neurodyn import datasets
from neurodyn.models.populations import POPULATION_MODELS, fit_population
from neurodyn.series import SeriesBatch
from neurodyn.training import DivergedError


def test_a_table_per_split_and_a_row_per_model_over_the_seeds_that_it_has() -> None:
    jobs = lorenz_spikes.grid(("smoothing", "gru", "simulated"), lorenz_spikes.TABLES, (0, 1))
    assert "smoothing, file, seed 1" not in jobs and "smoothing, fold 1, seed 1" in jobs
    assert "gru, fold 0, seed 1" not in jobs
    results = {
        job: {"share": 50.0 + given["seed"], "bits": 0.5, "r2": 0.1, "median_r2": 0.2, "seconds": 1.0}
        for job, given in jobs.items()
        if given["name"] != "simulated"
    }
    made = lorenz_spikes.records(results, jobs)
    cells = {(r.table, r.row, r.column): r for r in made}
    assert len(cells) == len(made) == 3 * 2 * 5
    gru = cells["lorenz_spikes/conditions", POPULATION_MODELS["gru"].label, "of the oracle"]
    assert gru.value == 50.5 and gru.seeds == (0, 1) and (gru.low, gru.high) == (50.0, 51.0)
    assert cells["lorenz_spikes/file", POPULATION_MODELS["smoothing"].label, "of the oracle"].seeds == (0,)
    assert cells["lorenz_spikes/folds", POPULATION_MODELS["smoothing"].label, "of the oracle"].seeds == (0, 1)


def test_what_is_best_on_validation_trials_is_tested(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lorenz_choice, "RESULTS", tmp_path)
    first, second = list(lorenz_choice.CHOICES)[:2]
    assert lorenz_choice.chosen("file", "simulation_free") == first  # nothing is known yet
    jobs = lorenz_choice.grid(("conditions",), (0, 1))
    best = list(lorenz_choice.variants(second))[1]
    paths = "simulated, weight 0.1, from 15 bins"
    results = {
        job: {row: 70.0 if row in (best, paths) else 50.0 for row in lorenz_choice.variants(given["label"])}
        for job, given in jobs.items()
    }
    merge_records(tmp_path / "lorenz_choice.json", lorenz_choice.records(results, jobs))
    assert lorenz_choice.chosen("conditions", "simulation_free") == best
    assert lorenz_choice.chosen("file", "simulation_free") == first
    assert lorenz_choice.chosen("conditions", "simulated") == paths
    assert lorenz_choice.choice(best).settings == {"num_samples": 1, "refinement": lorenz_choice.REFINEMENT}
    assert lorenz_choice.choice(best).schedule == lorenz_choice.CHOICES[second].schedule
    tested = lorenz_spikes.grid(("simulation_free", "simulated", "gru"), ("conditions",), (0,))
    assert [job.get("row") for job in tested.values()] == [best, paths, "GRU, whole trials"]


def test_a_choice_that_diverges_has_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*arguments: object, **options: object) -> None:
        raise DivergedError("the loss is NaN")

    parts = datasets.load("population_dynamics", conditions=2, trials=5, neurons=5, bins=6)
    monkeypatch.setattr(lorenz_choice.lorenz_spikes, "load", lambda **options: parts)
    monkeypatch.setattr(lorenz_choice, "fit_population", diverge)
    label = "GRU, whole trials"
    jobs = lorenz_choice.grid(("file", "conditions"), (0,), (label,))
    results = {job: lorenz_choice.measure(**given) for job, given in jobs.items()}
    results[f"{label}, file, seed 0"] = {label: 50.0}
    assert [(r.column, r.value) for r in lorenz_choice.records(results, jobs)] == [("file", 50.0)]


def test_a_fit_that_diverges_is_made_again_with_a_lower_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []

    def fit_once(name: str, train: SeriesBatch, **options: Any) -> object:
        rates.append(options["schedule"]["learning_rate"])
        if len(rates) < tries:
            raise DivergedError("the loss is NaN")
        return fit_population("smoothing", train, bin_width=0.02, held_out=parts.info["held_out"])

    parts = datasets.load("population_dynamics", conditions=2, trials=5, neurons=10, bins=30)
    monkeypatch.setattr(lorenz_spikes.lorenz_spikes, "load", lambda **options: parts)
    monkeypatch.setattr(lorenz_spikes, "fit_population", fit_once)
    tries = 2
    assert lorenz_spikes.measure("gru", "file", 0)["bits"] > -5 and rates == [1e-2, 5e-3]
    tries = 9
    with pytest.raises(DivergedError):
        lorenz_spikes.measure("gru", "file", 0)


def test_conditions_have_what_both_modes_gain_of_what_there_is() -> None:
    jobs = lorenz_conditions.grid(lorenz_conditions.MODELS, (0, 1))
    results = {
        job: {"condition 2": {"of what there is to gain": 75.0, POPULATION_MODELS[given["name"]].label: 50.0}}
        for job, given in jobs.items()
    }
    made = lorenz_conditions.records(results, jobs)
    assert {(r.row, r.column): r.value for r in made} == {
        ("condition 2", column): 75.0 if "gain" in column else 50.0 for column in lorenz_conditions.COLUMNS
    }


def test_recordings_without_behaviour_have_no_decoding_column() -> None:
    results = {
        f"gru, {name}, fold 0": {"co-bps": 0.1, "fp-bps": 0.0, "fit": 1.0} | more
        for name, more in (("miller_m1", {"decoding R2": 0.5}), ("reach_spikes", {}))
    }
    made = recordings.records(results, recordings.grid(recordings.NAMES, ["gru", "factors"], [0]))
    columns = {table: {r.column for r in made if r.table == f"recordings/{table}"} for table in recordings.NAMES[1:]}
    assert "decoding R2" in columns["miller_m1"] and "decoding R2" not in columns["reach_spikes"]


def test_every_quirk_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(langevin_quirks, "STEPS", 2)
    scores = langevin_quirks.measure("zero_kernel", seed=0)
    assert set(scores) == set(langevin_quirks.COLUMNS)
    jobs = langevin_quirks.grid(langevin_quirks.ROWS, [0])
    made = langevin_quirks.records(dict.fromkeys(jobs, scores), jobs)
    assert len({r.row for r in made}) == 12


def test_both_ways_are_timed() -> None:
    found = langevin_steps.step_seconds(12)
    assert set(found) == set(langevin_steps.WAYS) and min(found.values()) > 0


def test_every_way_is_scored_after_its_time() -> None:
    jobs = {
        f"{way}, 12 bins": {"way": way, "bins": 12, "seconds": 0, "seed": 0} for way in ("simulation_free", "tuned")
    }
    results = {name: langevin_time.measure(**job) for name, job in jobs.items()}
    made = langevin_time.records(results, jobs)
    assert {r.row for r in made} == {"simulation-free, 0 s", "simulated from simulation-free, 0 s"}
    assert {r.table for r in made} == {"langevin_time/12"} and len(made) == 2 * len(langevin_time.COLUMNS)
    assert all(scores["steps"] == 10 and scores["KL of the path"] > 0 for scores in results.values())


def test_families_are_compared_under_one_law(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(langevin_gap, "STEPS", 2)
    monkeypatch.setattr(langevin_gap, "SAMPLES", 2)
    found = langevin_gap.measure("simulation_free", seed=0)
    assert set(found) == {way.label for way in langevin_gap.WAYS}
    for parts in found.values():
        assert parts["ELBO"] == parts["log-likelihood"] - parts["KL of the start"] - parts["KL of the path"]
    jobs = langevin_gap.grid(langevin_gap.LAWS, [0])
    made = langevin_gap.records({"under the law of simulation_free, seed 0": found}, jobs)
    assert {r.table for r in made} == {"langevin_gap/simulation_free"}
    assert len(made) == len(langevin_gap.WAYS) * len(langevin_gap.COLUMNS)
