"""The command line: what it prints, where, and with which exit code."""

import subprocess
import sys
import types
from dataclasses import dataclass, field

import pandas as pd
import pytest

import neurodyn.datasets
from neurodyn import __version__
from neurodyn.cli import main
from neurodyn.runs import Run
from neurodyn.training import DivergedError, FitConfig


@dataclass
class Config:
    """Forecast."""

    dataset: str = "pbcseq"
    fit: FitConfig = field(default_factory=FitConfig)


@pytest.fixture
def recipe(monkeypatch):
    """A stand-in for the recipe; its `run` is set by each test."""
    module = types.ModuleType("neurodyn.recipes.forecast")
    module.Config, module.run = Config, None
    monkeypatch.setitem(sys.modules, "neurodyn.recipes.forecast", module)
    return module


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"neurodyn {__version__}\n"


def test_help_goes_to_stdout_and_a_bare_command_is_an_error(capsys):
    assert main(["--help"]) == 0
    assert "neurodyn COMMAND" in capsys.readouterr().out
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "neurodyn COMMAND" in captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["forcast"], "neurodyn: no command 'forcast': did you mean forecast?\n"),
        (["zzz"], "neurodyn: no command 'zzz': there are forecast, interpolate, classify, neural, structure, report, compare, datasets\n"),
        (["datasets", "lst"], "neurodyn: no datasets command 'lst': did you mean list?\n"),
        (["datasets"], "neurodyn: no datasets command '': there are list, info, get\n"),
        (["datasets", "info", "pbcsec"], "neurodyn: no data set 'pbcsec': did you mean pbcseq?\n"),
    ],
)
def test_a_wrong_word_gets_the_nearest_right_one(capsys, words, message):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", message)


def test_options_reach_the_recipe(recipe):
    seen = []
    recipe.run = seen.append
    assert main(["forecast", "--dataset", "mocap35", "--fit.steps", "7", "--fit.no-progress"]) == 0
    assert seen == [Config("mocap35", FitConfig(steps=7, progress=False))]


def test_an_unknown_option_exits_with_2(recipe, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["forecast", "--fit.stepz", "7"])
    assert caught.value.code == 2 and "--fit.stepz" in capsys.readouterr().err


def test_a_setting_out_of_range_exits_with_2_and_is_named(recipe, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["forecast", "--fit.ema", "2"])
    assert caught.value.code == 2 and "ema" in capsys.readouterr().err


def test_the_settings_explain_themselves(recipe, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["forecast", "--help"])
    shown = capsys.readouterr().out
    assert caught.value.code == 0 and "usage: neurodyn forecast" in shown and "Peak learning rate" in shown


@pytest.mark.parametrize(
    "error",
    [ValueError("times: 3 rows\nunsorted"), FileNotFoundError("no file x.csv"), DivergedError("training diverged")],
)
def test_bad_input_is_one_line_and_exit_code_2(recipe, capsys, error):
    def run(config):
        raise error

    recipe.run = run
    assert main(["forecast"]) == 2
    captured = capsys.readouterr()
    assert captured.err == f"neurodyn: {' '.join(str(error).split())}\n" and captured.out == ""


def test_ctrl_c_is_130(recipe, capsys):
    def run(config):
        raise KeyboardInterrupt

    recipe.run = run
    assert main(["forecast"]) == 130
    assert capsys.readouterr().err == "neurodyn: interrupted\n"


@pytest.mark.parametrize("error", [RuntimeError("a defect"), TypeError("a defect")])
def test_a_defect_is_traced(recipe, error):
    def run(config):
        raise error

    recipe.run = run
    with pytest.raises(type(error), match="a defect"):
        main(["forecast"])


def test_datasets_are_listed_and_described(capsys):
    assert main(["datasets", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines]
    known = sorted((*neurodyn.datasets.names(), *neurodyn.datasets.structure_names()))
    assert names == known and all(len(line.split()) > 4 for line in lines)
    assert main(["datasets", "info", "pbcseq"]) == 0
    shown = capsys.readouterr().out
    assert "Licence: LGPL" in shown and "neurodyn.datasets.pbcseq.load(" in shown


def test_a_data_set_is_loaded(capsys):
    assert main(["datasets", "get", "pbcseq"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("pbcseq: ") and "7 variables" in shown
    assert main(["datasets", "get"]) == 2
    assert "0 names given" in capsys.readouterr().err


def test_a_run_is_reported_and_two_are_compared(capsys, tmp_path):
    for name, steps, crps in (("one", 5, 0.5), ("two", 7, 0.25)):
        with Run.open({"data": "x", "fit": {"steps": steps}}, name="forecast", folder=tmp_path / name) as run:
            table = pd.DataFrame(
                {"crps": [crps, 0.4], "mae": [1.0, 2.0]}, index=pd.Index(["ours", "last"], name="model")
            )
            run.save_table("comparison", table)
            run.log({"step": 1, "objective": 3.0})
    assert main(["report", str(tmp_path / "two")]) == 0
    shown = capsys.readouterr().out
    assert "forecast, finished" in shown and "0.25" in shown and "no report was written" in shown
    assert main(["compare", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "page.html")]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[2].split() == ["two:", "ours", "0.25", "1.0"]
    page = (tmp_path / "page.html").read_text()
    assert "fit.steps" in page and "<td>x</td>" not in page and "Learning curves" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report"], "0 folders given"),
        (["report", "nowhere"], "run: nowhere given, the folder of a run"),
        (["compare", "nowhere"], "runs: 1 given, two or more wanted"),
        (["compare", "a", "b", "--outt", "c"], "no option '--outt'"),
    ],
)
def test_reports_and_comparisons_of_nothing_are_refused(capsys, words, message):
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_the_installed_command_answers_without_loading_torch():
    code = "import sys, neurodyn.cli; neurodyn.cli.main(['datasets', 'list']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "pbcseq" in done.stdout, done.stderr
    done = subprocess.run([sys.executable, "-m", "neurodyn.cli", "nothing"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        2,
        "neurodyn: no command 'nothing': there are forecast, interpolate, classify, neural, structure, report, compare, datasets\n",
    )
