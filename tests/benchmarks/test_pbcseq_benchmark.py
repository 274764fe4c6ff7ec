"""The pbcseq benchmark on its cheapest model, and its tables from given results."""

import pytest

from benchmarks.pbcseq import COLUMNS, measure, records


def test_one_job_scores_both_protocols():
    found = measure("last_value", 0)
    assert set(found) == {"half", "two-years"}
    for scores in found.values():
        assert set(scores) == set(COLUMNS)
        # what holding the last value is known to score here, in standardised units
        assert 0.35 < scores["crps"] < 0.5
        assert 0.8 < scores["coverage_90"] < 0.97


def test_tables_hold_means_over_splits_and_the_crps_of_every_split():
    def scores(crps):
        return {table: {key: crps for key in COLUMNS} for table in ("half", "two-years")}

    results = {
        "last_value, split 0": scores(0.4),
        "last_value, split 1": scores(0.6),
        "ou_process, split 0": scores(0.3),
    }
    made = {(r.table, r.row, r.column): r for r in records(results, [0, 1])}
    mean = made["pbcseq/half", "last value", "CRPS"]
    assert mean.value == pytest.approx(0.5)
    assert (mean.low, mean.high, mean.seeds) == (0.4, 0.6, (0, 1))
    assert made["pbcseq/half", "OU process", "CRPS"].seeds == (0,)
    assert made["pbcseq/splits-two-years", "last value", "split 1"].value == 0.6
    assert ("pbcseq/splits-half", "OU process", "split 1") not in made
    assert made["pbcseq/half", "last value", "fit"].unit == "s"
