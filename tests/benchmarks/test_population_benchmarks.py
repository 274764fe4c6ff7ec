"""Benchmarks of populations: their jobs give what their tables hold."""

import pytest

from benchmarks import langevin_quirks, langevin_steps, langevin_time, lorenz_spikes, recordings
from neurodyn.models.populations import POPULATION_MODELS


def test_a_table_per_split_and_a_row_per_model_over_the_seeds_that_it_has() -> None:
    results = {
        f"{name}, {split}, seed {seed}": {
            "share": 50.0 + seed,
            "bits": 0.5,
            "r2": 0.1,
            "median_r2": 0.2,
            "seconds": 1.0,
        }
        for name, seeds in (("smoothing", (0,)), ("gru", (0, 1)))
        for split in lorenz_spikes.SPLITS
        for seed in seeds
    }
    made = lorenz_spikes.records(results, ["smoothing", "gru"], [0, 1])
    cells = {(r.table, r.row, r.column): r for r in made}
    assert len(cells) == len(made) == 2 * 2 * 5
    gru = cells["lorenz_spikes/conditions", POPULATION_MODELS["gru"].label, "of the oracle"]
    assert gru.value == 50.5 and gru.seeds == (0, 1) and (gru.low, gru.high) == (50.0, 51.0)
    assert cells["lorenz_spikes/file", POPULATION_MODELS["smoothing"].label, "of the oracle"].seeds == (0,)


def test_recordings_without_behaviour_have_no_decoding_column() -> None:
    results = {
        f"gru, {name}, fold 0": {"co-bps": 0.1, "fp-bps": 0.0, "fit": 1.0} | more
        for name, more in (("miller_m1", {"decoding R2": 0.5}), ("reach_spikes", {}))
    }
    made = recordings.records(results, ["miller_m1", "reach_spikes"], ["gru"], [0])
    columns = {table: {r.column for r in made if r.table == f"recordings/{table}"} for table in recordings.NAMES[1:]}
    assert "decoding R2" in columns["miller_m1"] and "decoding R2" not in columns["reach_spikes"]


def test_every_quirk_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(langevin_quirks, "STEPS", 2)
    scores = langevin_quirks.measure("zero_kernel", seed=0)
    assert set(scores) == set(langevin_quirks.COLUMNS)
    rows = (langevin_quirks.AS_RELEASED, *langevin_quirks.QUIRKS, langevin_quirks.NONE)
    made = langevin_quirks.records({f"{right}, seed 0": scores for right in rows}, [0])
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
