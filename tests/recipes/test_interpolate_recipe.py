"""The interpolate recipe from a file to a report, and bad input."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.dates import ConciseDateFormatter, date2num

from neurodyn import plots
from neurodyn.cli import main as command
from neurodyn.recipes.interpolate import Config, run
from neurodyn.runs import Run


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    lines = []
    for k in range(30):
        phase = rng.uniform(0, 6)
        for hour in np.sort(rng.uniform(0, 10, 12)):
            second = np.exp(np.cos(hour + phase)) if rng.random() < 0.7 else None
            lines.append({"who": f"s{k}", "hour": hour, "wave": 50 + np.sin(hour + phase), "other": second})
    pd.DataFrame(lines).to_csv(tmp_path / "waves.csv", index=False)
    return Config(
        data=tmp_path / "waves.csv",
        id="who",
        time="hour",
        log=("other",),
        hidden=(0.3, 0.6),
        model="stable_gsde",
        baselines=("last_value", "line", "linear_sde"),
        hidden_size=8,
        num_samples=20,
        quick=True,
        device="cpu",
        folder=tmp_path / "run",
    )


def test_a_file_becomes_a_table_and_a_report(config, capsys, monkeypatch):
    folder = run(config)
    comparison = pd.read_csv(folder / "tables" / "comparison.csv", index_col=0)
    assert set(comparison.index) == {"stable GSDE", "last value", "straight line", "LinearSDE"}
    assert comparison["crps"].is_monotonic_increasing and bool(comparison["coverage_90"].between(0, 1).all())
    shares = pd.read_csv(folder / "tables" / "by_share.csv", index_col=0)
    assert shares.shape == (4, 2) and bool((shares["0.6"] > shares["0.3"])["straight line"])
    page = (folder / "report.html").read_text()
    assert "Values of waves.csv, filled in" in page and "straight line" in page
    given, filled = pd.read_csv(config.data), pd.read_csv(folder / "tables" / "filled.csv")
    gaps = given[given["other"].isna()].sort_values(["who", "hour"]).reset_index(drop=True)
    filled = filled.sort_values(["unique_id", "ds"]).reset_index(drop=True)
    assert (filled["variable"] == "other").all() and (filled["unique_id"] == gaps["who"]).all()
    np.testing.assert_allclose(filled["ds"], gaps["hour"], rtol=1e-9)
    assert (filled["y-lo-90"] < filled["y-median"]).all() and (filled["y-median"] < filled["y-hi-90"]).all()
    assert sorted(p.name for p in (folder / "plots").iterdir()) == ["calibration.png", "values.png"]
    assert (folder / "model" / "weights.safetensors").is_file()
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert "CRPS by share of values hidden" in capsys.readouterr().out
    monkeypatch.setattr("neurodyn.training._Run._backward", lambda self: pytest.fail("fitted again"))
    run(config)


def test_dates_of_a_file_are_dates_in_its_pictures(config, monkeypatch):
    table = pd.read_csv(config.data)
    table["day"] = pd.Timestamp("2024-03-01") + pd.to_timedelta(table["hour"].rank(method="first"), unit="D")
    table.drop(columns="hour").to_csv(config.data, index=False)
    axes = {}
    monkeypatch.setattr(Run, "save_figure", lambda self, name, figure: axes.update({name: figure.axes[0]}))
    missingness = plots.missingness
    monkeypatch.setattr(
        plots, "missingness", lambda *given, **told: axes.setdefault("data", told) and missingness(*given, **told)
    )
    config = replace(config, time="day", model="line", baselines=(), hidden=(0.3,))
    page = (run(config) / "report.html").read_text()
    assert axes["data"]["time_unit"] == "D"
    known = next(line for line in axes["values"].lines if line.get_label() == "known")
    assert set(known.get_xdata().tolist()) <= set(date2num(table["day"]).tolist())
    assert isinstance(axes["values"].xaxis.get_major_formatter(), ConciseDateFormatter)
    assert re.search(r"first to last visit.{1,40}days", page, re.DOTALL) and "1970" not in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--hidden", "0"], "hidden: (0.0,) given"),
        (["--num-samples", "1"], "num_samples: 1 given"),
        (["--values", "weight"], "values: no column 'weight'"),
    ],
)
def test_bad_input_is_one_line(config, words, message, capsys):
    given = ["--data", str(config.data), "--id", "who", "--time", "hour"]
    assert command(["interpolate", *given, *words]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
