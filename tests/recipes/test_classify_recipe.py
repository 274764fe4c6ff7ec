"""The classify recipe from a file to a report, resumed, over several shares of dropped observations, and bad input."""

import json

import numpy as np
import pandas as pd
import pytest

from neurodyn.cli import main as command
from neurodyn.recipes import classify as recipe
from neurodyn.recipes.classify import Config, run


@pytest.fixture(scope="module")
def table():
    """Forty series of two kinds, slow and quick waves at irregular times, classes in words."""
    rng = np.random.default_rng(0)
    lines = []
    for k in range(40):
        kind = ("slow", "quick")[k % 2]
        phase = rng.uniform(0, 6)
        for hour in np.sort(rng.uniform(0, 10, 14)):
            wave = np.sin((0.6 if kind == "slow" else 2.5) * hour + phase)
            second = np.cos(hour) if rng.random() < 0.6 else None
            lines.append({"who": f"s{k}", "hour": hour, "wave": wave, "other": second, "kind": kind})
    return pd.DataFrame(lines)


@pytest.fixture
def config(table, tmp_path):
    table.to_csv(tmp_path / "waves.csv", index=False)
    return Config(
        data=tmp_path / "waves.csv",
        id="who",
        time="hour",
        label="kind",
        model="gsde",
        baselines=("cfc", "most_frequent"),
        hidden_size=8,
        num_samples=4,
        quick=True,
        device="cpu",
        folder=tmp_path / "run",
    )


def test_a_file_becomes_a_table_and_a_report(config, capsys):
    folder = run(config)
    comparison = pd.read_csv(folder / "tables" / "comparison.csv", index_col=0)
    assert set(comparison.index) == {"neural GSDE", "CfC", "most frequent class"}
    assert bool(comparison["accuracy"].between(0, 1).all()) and comparison["accuracy"].is_monotonic_decreasing
    assert comparison.loc["most frequent class", "log_score"] == pytest.approx(np.log(2))
    says = pd.read_csv(folder / "tables" / "probabilities.csv")
    np.testing.assert_allclose(says[["quick", "slow"]].sum(axis=1), 1, atol=1e-5)
    assert set(says["right"]) == {"quick", "slow"} and len(says) == 8
    page = (folder / "report.html").read_text()
    assert "Classes of waves.csv" in page and "Confusion" in page and "Probabilities" in page
    assert sorted(p.name for p in (folder / "plots").iterdir()) == ["confusion.png", "probabilities.png"]
    assert (folder / "model" / "weights.safetensors").is_file()
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert "report.html" in capsys.readouterr().out


def test_several_shares_make_a_table_of_robustness_and_a_second_start_fits_nothing(config, monkeypatch, capsys):
    config.missing = (0.0, 0.5)
    folder = run(config)
    robust = pd.read_csv(folder / "tables" / "by_missing.csv", index_col=0)
    assert robust.shape == (3, 2) and bool(robust.notna().all(axis=None))
    assert (folder / "plots" / "fewer-observations.png").is_file()
    dropped = recipe.load(config, 0.5)
    assert 0.4 < dropped.train.mask.sum() / recipe.load(config, 0.0).train.mask.sum() < 0.6
    monkeypatch.setattr("neurodyn.training._Run._backward", lambda self: pytest.fail("fitted again"))
    run(config)
    assert "accuracy by share of observations dropped" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--label", "sort"], "label: no column 'sort'"),
        (["--missing", "1.5"], "missing: (1.5,) given"),
        (["--hidden-size", "0"], "hidden_size: 0 given"),
    ],
)
def test_bad_input_is_one_line(config, words, message, capsys):
    given = ["--data", str(config.data), "--id", "who", "--time", "hour", "--label", "kind"]
    assert command(["classify", *given, *words]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


def test_a_class_with_too_few_series_is_named(config, table, tmp_path):
    rare = table[(table["kind"] == "slow") | (table["who"].isin(["s1", "s3"]))]
    rare.to_csv(tmp_path / "rare.csv", index=False)
    config.data = tmp_path / "rare.csv"
    with pytest.raises(ValueError, match="labels: 2 rows of class 0 given, 3 or more wanted"):
        run(config)
