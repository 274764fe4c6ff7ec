"""Sweeps: what is run, what is chosen, and that a stopped one goes on as if nothing had happened."""

import json
import types
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml

from neurodyn.cli import main as command
from neurodyn.recipes import sweep
from neurodyn.recipes.command import Execution, settings_of
from neurodyn.recipes.sweep_plan import Plan, read_plan
from neurodyn.runs import Run
from neurodyn.training import DivergedError

RUNS: list[tuple[float, int]] = []
STOP_AFTER: list[int] = []


@dataclass
class Toy(Execution):
    """A recipe whose validation is (x - 3)^2 + seed / 10 and whose test score prefers another x."""

    x: float = 0.0
    kind: str = "plain"
    parts: tuple[int, ...] = ()
    seed: int = 0
    baselines: tuple[str, ...] = ("last",)


def toy_run(config: Toy) -> Path:
    if STOP_AFTER and len(RUNS) >= STOP_AFTER[0]:
        raise KeyboardInterrupt
    RUNS.append((config.x, config.seed))
    with Run.open(settings_of(config), name="toy", folder=config.folder, seed=config.seed) as run_:
        if config.kind == "bad":
            raise DivergedError("training diverged")
        path = run_.path("models", "net", "metrics.jsonl")
        value = (config.x - 3) ** 2 + config.seed / 10
        lines = [
            {"step": 1, "validation": value + 5},
            {"step": 2, "validation": value},
            {"step": 3, "validation": None},
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        index = pd.Index(["net", *config.baselines], name="model")
        run_.save_table("comparison", pd.DataFrame({"crps": [abs(config.x)] * len(index)}, index=index))
        print("noise")
    return run_.folder


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    RUNS.clear()
    STOP_AFTER.clear()
    module = types.SimpleNamespace(Config=Toy, run=toy_run)
    monkeypatch.setattr(Plan, "module", property(lambda self: module))


def write(folder: Path, **content) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({"recipe": "forecast", **content}, sort_keys=False))
    return path


def test_every_combination_is_run_with_every_seed_and_validation_decides(tmp_path, capsys):
    plan = write(tmp_path, vary={"x": [0.0, 2.0, 4.5], "parts": [[1], [1, 2]]}, seeds=[0, 1])
    folder = sweep.run(sweep.Config(plan, folder=tmp_path / "out"))
    assert len(RUNS) == 12 and sorted(set(RUNS)) == [(x, s) for x in (0.0, 2.0, 4.5) for s in (0, 1)]
    table = pd.read_csv(folder / "tables" / "comparison.csv", index_col=0)
    assert table.index[0].startswith("x 2, parts") and table["validation"].iloc[0] == pytest.approx(1.05)
    assert table["sd over seeds"].to_list() == pytest.approx([0.05] * 6) and table["test crps"].iloc[0] == 2.0
    assert yaml.safe_load((folder / "best.yaml").read_text()) == {"x": 2.0, "parts": [1], "seed": 0}
    shown = capsys.readouterr().out
    assert "noise" not in shown and "best: x 2" in shown and (folder / "report.html").is_file()


def test_a_score_of_the_test_rows_can_decide(tmp_path):
    plan = write(tmp_path, vary={"x": [2.0, 0.5, 4.5]}, score="crps")
    folder = sweep.run(sweep.Config(plan, folder=tmp_path / "out"))
    assert yaml.safe_load((folder / "best.yaml").read_text())["x"] == 0.5


def test_a_stopped_sweep_goes_on_with_the_settings_it_would_have_tried(tmp_path):
    pytest.importorskip("optuna")
    plan = write(tmp_path, vary={"x": {"low": 0.0, "high": 6.0}, "kind": ["plain", "other"]})
    straight = sweep.run(sweep.Config(plan, trials=14, folder=tmp_path / "straight"))
    tried = RUNS.copy()
    RUNS.clear()
    STOP_AFTER.append(5)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(sweep.Config(plan, trials=14, folder=tmp_path / "stopped"))
    assert Run(tmp_path / "stopped").info["status"] == "interrupted" and len(RUNS) == 5
    STOP_AFTER.clear()
    stopped = sweep.run(sweep.Config(plan, trials=14, folder=tmp_path / "stopped"))
    assert RUNS == tried and len(tried) == 14
    for name in ("tables/comparison.csv", "best.yaml"):
        assert (stopped / name).read_bytes() == (straight / name).read_bytes()
    assert abs(yaml.safe_load((straight / "best.yaml").read_text())["x"] - 3) < 1
    more = sweep.run(sweep.Config(plan, trials=16, folder=tmp_path / "stopped"))
    assert len(RUNS) == 16 and Run(more).info["status"] == "finished"


def test_nothing_in_a_sweeps_folder_is_a_pickle(tmp_path):
    pytest.importorskip("optuna")
    plan = write(tmp_path, vary={"x": {"low": 0.0, "high": 6.0}})
    folder = sweep.run(sweep.Config(plan, trials=2, folder=tmp_path / "out"))
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kinds == {".json", ".jsonl", ".csv", ".yaml", ".html"}


def test_settings_that_diverge_are_left_out(tmp_path, capsys):
    plan = write(tmp_path, vary={"kind": ["bad", "plain"]})
    folder = sweep.run(sweep.Config(plan, folder=tmp_path / "out"))
    assert pd.read_csv(folder / "tables" / "comparison.csv", index_col=0).index.to_list() == ["kind plain"]
    plan = write(tmp_path, vary={"kind": ["bad"]})
    assert command(["sweep", str(plan), "--folder", str(tmp_path / "none"), "--quiet"]) == 1
    assert "every setting of the sweep diverged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"recipe": "forcast", "vary": {"x": [1.0]}}, "recipe: 'forcast' given .did you mean 'forecast'"),
        ({}, "plan: 'vary' not given, wanted"),
        ({"vary": {}}, "vary: nothing given"),
        ({"vary": {"y": [1.0]}}, "settings: 'y' given"),
        ({"vary": {"x": ["a"]}}, "x: 'a' given, a number wanted"),
        ({"vary": {"x": 1.0}}, "vary: x: 1.0 given, a list or"),
        ({"vary": {"x": {"low": 2, "high": 1}}}, "numbers with low below high wanted"),
        ({"vary": {"x": {"low": 2, "hihg": 1}}}, "'hihg' given .did you mean 'high'"),
        ({"vary": {"seed": [1]}}, "vary: 'seed' given"),
        ({"vary": {"x": [1.0]}, "settings": {"x": 2.0}}, "vary: 'x' given, a setting that is not set otherwise wanted"),
        ({"vary": {"x": [1.0]}, "seeds": []}, r"seeds: \[\] given"),
        ({"vary": {"x": [1.0]}, "seed": 3}, "'seed' given .did you mean 'seeds'"),
    ],
)
def test_a_wrong_plan_is_refused_in_one_line(content, message, tmp_path):
    plan = write(tmp_path, **content)
    with pytest.raises(ValueError, match=message) as caught:
        read_plan(plan)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(plan))


def test_ranges_need_a_number_of_trials(tmp_path):
    plan = write(tmp_path, vary={"x": {"low": 1.0, "high": 2.0}})
    with pytest.raises(ValueError, match="trials: not given, wanted, as x varies over a range"):
        sweep.run(sweep.Config(plan, folder=tmp_path / "out"))
    with pytest.raises(ValueError, match="trials: 0 given"):
        sweep.run(sweep.Config(plan, trials=0, folder=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
