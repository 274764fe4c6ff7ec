"""The command line: what it prints, where, and with which exit code."""

import json
import logging
import shutil
import subprocess
import sys
import types
from dataclasses import dataclass, field

import pandas as pd
import pytest

import neurodyn.datasets
from neurodyn import __version__
from neurodyn.cli import COMMANDS, main
from neurodyn.runs import Run
from neurodyn.training import DivergedError, FitConfig


@dataclass
class Config:
    """Forecast."""

    dataset: str = "pbcseq"
    fit: FitConfig = field(default_factory=FitConfig)
    values: tuple[str, ...] = ()


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
        (["zzz"], f"neurodyn: no command 'zzz': there are {', '.join(COMMANDS)}\n"),
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
    shown = capsys.readouterr().err
    assert caught.value.code == 2 and "--fit.stepz" in shown
    assert "Perhaps you meant" in shown and "--fit.steps INT" in shown  # the nearest option


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
    ("error", "code"),
    [
        (ValueError("times: 3 rows\nunsorted"), 2),
        (FileNotFoundError("no file x.csv"), 2),
        (DivergedError("training diverged"), 1),
        (ImportError("pynwb is needed: pip install 'neurodyn[neural]'"), 1),
    ],
)
def test_bad_input_is_2_and_a_failure_1_with_one_line(recipe, capsys, error, code):
    def run(config):
        raise error

    recipe.run = run
    assert main(["forecast"]) == code
    captured = capsys.readouterr()
    assert captured.err == f"neurodyn: {' '.join(str(error).split())}\n" and captured.out == ""


def test_ctrl_c_is_130(recipe, capsys):
    def run(config):
        raise KeyboardInterrupt

    recipe.run = run
    assert main(["forecast"]) == 130
    assert capsys.readouterr().err == "neurodyn: interrupted\n"


@pytest.mark.parametrize("error", [RuntimeError("a defect"), TypeError("a defect"), ImportError("a defect")])
def test_a_defect_is_traced(recipe, error):
    def run(config):
        raise error

    recipe.run = run
    with pytest.raises(type(error), match="a defect"):
        main(["forecast"])


def finished(folder):
    """What a recipe leaves behind, having printed something."""
    with Run.open({"dataset": "pbcseq"}, name="forecast", folder=folder, seed=0) as run:
        table = pd.DataFrame({"crps": [0.5, float("nan")]}, index=pd.Index(["ours", "last"], name="model"))
        run.save_table("comparison", table)
        print("table")
        logging.getLogger("neurodyn").warning("look")
    return run.folder


def test_json_is_all_that_stdout_holds(recipe, capsys, caplog, tmp_path):
    recipe.run = lambda config: finished(tmp_path / "run")
    assert main(["forecast", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["scores"] == [{"model": "ours", "crps": 0.5}, {"model": "last", "crps": None}]
    assert found["status"] == "finished" and found["run"] == str(tmp_path / "run") and found["report"] is None
    assert len(found["tables"]) == 1 and caplog.messages == ["look"]
    assert main(["report", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found


def test_quiet_prints_nothing_but_errors(recipe, capsys, caplog, tmp_path):
    recipe.run = lambda config: finished(tmp_path / "run")
    assert main(["forecast", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "") and caplog.messages == []
    logging.getLogger("neurodyn").warning("look again")
    assert caplog.messages == ["look again"]  # nothing stays silent afterwards

    def fail(config):
        raise ValueError("times: unsorted")

    recipe.run = fail
    assert main(["forecast", "--quiet"]) == 2
    assert capsys.readouterr() == ("", "neurodyn: times: unsorted\n")


def test_settings_go_out_as_yaml_and_come_in_again(recipe, capsys, tmp_path):
    seen = []
    recipe.run = seen.append
    given = ["--dataset", "mocap35", "--fit.steps", "7", "--values", "a", "b c"]
    assert main(["forecast", *given, "--print-config"]) == 0 and seen == []
    path = tmp_path / "settings.yaml"
    path.write_text(capsys.readouterr().out)
    assert main(["forecast", "--config", str(path), "--fit.seed", "3"]) == 0
    assert seen == [Config("mocap35", FitConfig(steps=7, seed=3), ("a", "b c"))]
    path.write_text("fit: {stepz: 3}")
    assert main(["forecast", "--config", str(path)]) == 2
    assert "did you mean 'steps'" in capsys.readouterr().err and len(seen) == 1


def test_the_folder_of_a_run_gives_its_settings(recipe, tmp_path):
    Run.open(Config("lorenz", FitConfig(steps=9), ("x",)), folder=tmp_path / "run").finish()
    seen = []
    recipe.run = seen.append
    assert main(["forecast", "--config", str(tmp_path / "run")]) == 0
    assert seen == [Config("lorenz", FitConfig(steps=9), ("x",))]


def test_a_closed_pipe_is_no_traceback():
    code = "import sys, neurodyn.cli; sys.exit(neurodyn.cli.main(['datasets', 'list']))"
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None and run.stderr is not None
    run.stdout.close()
    assert run.stderr.read() == "" and run.wait() == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_know_commands_and_options(shell, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--completion", shell])
    script = capsys.readouterr().out
    assert caught.value.code in (0, None)
    for word in (*COMMANDS, "posterior", "print-config", "json", "bin-width"):
        assert word.removeprefix("--") in script or word == "--completion"
    assert main(["--completion", "bsh"]) == 2 and "did you mean bash" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_by_the_script(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["--completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    for typed, wanted in (
        ("fore", "forecast"),
        ("forecast --post", "--posterior"),
        ("neural --prin", "--print-config"),
    ):
        words = ["neurodyn", *typed.split()]
        code = f"source ./script; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _tyro_neurodyn"
        done = subprocess.run(
            ["bash", "-c", f"{code}; echo ${{COMPREPLY[@]}}"], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert wanted in done.stdout.split(), done.stderr


def test_benchmarks_are_listed_and_run(capfd, monkeypatch):
    assert main(["benchmark"]) == 0
    listed = capfd.readouterr().out
    assert "pbcseq               Forecasts of held-out pbcseq patients" in listed and "render" not in listed
    assert main(["benchmark", "pbcsec"]) == 2
    assert capfd.readouterr().err == "neurodyn: no benchmark 'pbcsec': did you mean pbcseq?\n"
    called = []
    for code, wanted in ((0, 0), (1, 1), (2, 2), (130, 130), (-2, 130)):
        monkeypatch.setattr(subprocess, "call", lambda words, cwd, code=code: called.append((words, cwd)) or code)
        assert main(["benchmark", "pbcseq", "--splits", "0"]) == wanted
    words, top = called[0]
    assert words == [sys.executable, "-m", "benchmarks.pbcseq", "--splits", "0"] and (top / "pyproject.toml").is_file()


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
    assert main(["datasets", "get", "coupled_sdes"]) == 0
    assert " variables, " in (shown := capsys.readouterr().out) and shown.endswith(" edges\n")
    assert main(["datasets", "list", "--json"]) == 0
    assert {"pbcseq", "lorenz96"} <= {entry["name"] for entry in json.loads(capsys.readouterr().out)}
    assert main(["datasets", "list", "pbcseq"]) == 2


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
    assert main(["compare", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "p"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"][0]["crps"] == 0.25
    assert "fit.steps" in page and "<td>x</td>" not in page and "Learning curves" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report"], "0 folders given"),
        (["report", "nowhere"], "run: nowhere given, the folder of a run"),
        (["compare", "nowhere"], "runs: 1 given, two or more wanted"),
        (["compare", "a", "b", "--outt", "c"], "no option '--outt' (did you mean '--out'?)"),
    ],
)
def test_reports_and_comparisons_of_nothing_are_refused(capsys, words, message):
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_the_installed_command_answers_without_loading_torch():
    code = "import sys, neurodyn.cli; neurodyn.cli.main(['datasets', 'list']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "pbcseq" in done.stdout, done.stderr
    done = subprocess.run([sys.executable, "-m", "neurodyn", "nothing"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        2,
        f"neurodyn: no command 'nothing': there are {', '.join(COMMANDS)}\n",
    )
