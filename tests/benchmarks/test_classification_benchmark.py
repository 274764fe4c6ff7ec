"""The classification benchmark on its cheapest row, and its tables from given results."""

import sys

import pytest

from benchmarks.classification import MISSING, installed, main, measure, records, rows


def test_one_job_scores_a_real_set(data_folder):
    found = measure("most_frequent", "theory", "ItalyPowerDemand", 50, 0, 10)
    assert found["accuracy"] == pytest.approx(0.5, abs=0.02) and found["log_score"] == pytest.approx(0.693, abs=0.01)
    assert "shift" not in found
    shift = measure("most_frequent", "theory", "ItalyPowerDemand", 0, 0, 10)["shift"]
    assert list(shift) == ["0", "30", "50", "70"] and len(set(shift.values())) == 1


def test_rows_are_models_and_forms():
    assert rows(["lsde", "cfc"], ["theory", "released"]) == {
        "neural LSDE": ("lsde", "theory"),
        "CfC": ("cfc", "theory"),
        "neural LSDE, as released": ("lsde", "released"),
    }
    assert list(rows(["lsde", "cfc"], ["theory"])) == ["neural LSDE", "CfC"]


def test_tables_hold_means_over_sets_and_seeds():
    def cell(accuracy):
        shift = {"0": accuracy, "30": accuracy - 0.1, "50": accuracy - 0.2, "70": accuracy - 0.3}
        return {"accuracy": accuracy, "log_score": 1.0, "calibration_error": 0.1, "seconds": 2.0, "shift": shift}

    results = {
        f"CfC, {subset}, {share} %, seed {seed}": cell(0.9 - share / 100 / (2 if subset == "A" else 4) + 0.02 * seed)
        for subset in ("A", "B")
        for share in MISSING
        for seed in (0, 1)
    }
    made = {(r.table, r.row, r.column): r for r in records(results, ["CfC"], ["A", "B"], [0, 1])}
    assert made["classification/0", "CfC", "A"].value == pytest.approx(0.91)
    assert made["classification/70", "CfC", "B"].value == pytest.approx(0.91 - 0.175)
    mean = made["classification/missing", "CfC", "70 %"]
    assert mean.value == pytest.approx(0.91 - 0.2625) and mean.seeds == (0, 1)
    assert made["classification/missing", "CfC", "lost from 0 to 70 %"].value == pytest.approx(0.2625)
    assert made["classification/shift", "CfC", "50 %"].value == pytest.approx(0.71)
    assert made["classification/shift", "CfC", "lost from 0 to 70 %"].value == pytest.approx(0.3)
    assert made["classification/scores", "CfC", "fit"].unit == "s"


def test_a_row_whose_package_is_missing_is_left_out_with_a_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sktime", None)
    monkeypatch.setitem(sys.modules, "numba", None)
    assert installed(["cfc", "minirocket", "logsignature"]) == ["cfc", "logsignature"]
    printed = capsys.readouterr().out
    assert printed == "MiniRocket + ridge is left out: sktime and numba not installed, see the extra minirocket\n"
    with pytest.raises(SystemExit):
        main(["--models", "minirocket"])
    assert "models: minirocket given" in capsys.readouterr().err
