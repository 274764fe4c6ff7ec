"""The run's folder: made at once, reopened for the same configuration only, and readable after any kill."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from neurodyn import style
from neurodyn.compare import learning_curves
from neurodyn.runs import Run, hardware, resolved, versions


class Kind(Enum):
    MATCHED = "matched"


@dataclass
class Inner:
    rate: float = 0.1
    sizes: tuple[int, ...] = (4, 8)


@dataclass
class Config:
    data: Path = Path("a/b.csv")
    kind: Kind = Kind.MATCHED
    inner: Inner = field(default_factory=Inner)
    note: str | None = None


PLAIN = {"data": "a/b.csv", "kind": "matched", "inner": {"rate": 0.1, "sizes": [4, 8]}, "note": None}


def test_a_new_run_holds_its_configuration_and_what_it_ran_on(tmp_path):
    run = Run.open(Config(), name="demo", folder=tmp_path / "deep" / "run", seed=3)
    assert not run.resumed and run.config == PLAIN == resolved(Config())
    info = run.info
    assert (info["name"], info["seed"], info["status"]) == ("demo", 3, "running")
    assert (
        info["versions"]["torch"] == torch.__version__.split("+")[0] or info["versions"]["torch"] == torch.__version__
    )
    assert info["hardware"]["cores"] >= 1 and info["hardware"] == json.loads(json.dumps(hardware()))
    assert set(versions()) >= {"python", "neurodyn", "numpy"}
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["run"]  # nothing temporary stays


def test_the_default_place_carries_name_and_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run.open({}, name="pbc")
    assert run.folder.parent == Path("runs") and run.folder.name.startswith("pbc-2")


def test_the_same_configuration_continues_and_another_is_refused(tmp_path):
    first = Run.open(Config(), folder=tmp_path / "run")
    first.log({"step": 1})
    again = Run.open(Config(), folder=tmp_path / "run")
    assert again.resumed and again.read_log() == [{"step": 1}] and len(again.info["resumed"]) == 1
    other = Config(inner=Inner(rate=0.2), note="x")
    with pytest.raises(ValueError, match=r"^folder: .*inner\.rate was 0\.1, is 0\.2; note was None, is 'x'.*overwrite"):
        Run.open(other, folder=tmp_path / "run")
    fresh = Run.open(other, folder=tmp_path / "run", overwrite=True)
    assert not fresh.resumed and fresh.read_log() == [] and fresh.config["note"] == "x"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_is_no_run_is_never_touched(tmp_path):
    (tmp_path / "precious.txt").write_text("data")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="^folder: .* no run"):
            Run.open({}, folder=tmp_path, overwrite=overwrite)
    with pytest.raises(ValueError, match="^folder: .* is a file"):
        Run.open({}, folder=tmp_path / "precious.txt")
    assert (tmp_path / "precious.txt").read_text() == "data"
    (tmp_path / "empty").mkdir()
    assert Run.open({}, folder=tmp_path / "empty").config == {}


def test_no_folder_appears_for_a_configuration_that_json_cannot_hold(tmp_path):
    for bad, place in (({"a": {"b": [1, object()]}}, r"config\.a\.b\[1\]"), ({"x": float("nan")}, r"config\.x")):
        with pytest.raises(ValueError, match=f"^{place}: "):
            Run.open(bad, folder=tmp_path / "run")
    with pytest.raises(ValueError, match="^config: want a dataclass or a mapping"):
        Run.open([1], folder=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_logs_survive_numbers_that_json_lacks_and_a_line_cut_short(tmp_path):
    run = Run.open({}, folder=tmp_path / "run")
    run.log({"step": np.int64(1), "crps": np.float32(0.5), "nll": float("inf"), "t": torch.tensor(2.0)})
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "cr')
    assert len(run.read_log()) == 1
    run.log({"step": 3})
    assert run.read_log() == [{"step": 1, "crps": 0.5, "nll": None, "t": 2.0}, {"step": 3}]
    assert run.read_log("scores") == []


def test_the_end_is_recorded_however_it_comes(tmp_path):
    with Run.open({}, folder=tmp_path / "a") as run:
        pass
    assert run.info["status"] == "finished" and run.info["ended"] >= run.info["started"]
    for error, status in ((KeyboardInterrupt, "interrupted"), (RuntimeError, "failed")):
        with pytest.raises(error), Run.open({}, folder=tmp_path / status) as run:
            raise error
        assert run.info["status"] == status


def test_pictures_and_tables_are_files_of_the_run(tmp_path):
    run = Run.open({}, folder=tmp_path / "run")
    figure, _ = style.grid_of_axes(1, 1, width=1, height=1)
    assert run.save_figure("fan", figure, dpi=40).read_bytes().startswith(b"\x89PNG")
    table = pd.DataFrame({"crps": [0.25]}, index=pd.Index(["SDE"], name="model"))
    path = run.save_table("scores", table)
    assert path == run.folder / "tables" / "scores.csv"
    pd.testing.assert_frame_equal(pd.read_csv(path, index_col="model"), table)
    for bad in (("..", "x"), ("/tmp/x",), ("",)):
        with pytest.raises(ValueError, match="^parts: "):
            run.path(*bad)


def test_a_killed_run_can_be_reopened(tmp_path):
    code = (
        "import os, sys; from neurodyn.runs import Run;"
        "run = Run.open({'a': 1}, folder=sys.argv[1]); run.log({'step': 1}); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")]).returncode == 9
    run = Run.open({"a": 1}, folder=tmp_path / "run")
    assert run.resumed and run.read_log() == [{"step": 1}]


def test_learning_curves_are_found_however_deep_a_recipe_puts_its_trainings(tmp_path):
    runs = {}
    for name in ("one", "two"):
        runs[name] = Run.open({"a": name}, folder=tmp_path / name)
        for place in ("latent_sde", "0.5/lnsde"):
            path = runs[name].path("models", *place.split("/"), "metrics.jsonl")
            path.write_text('{"step": 1, "validation": 2.0}\n{"step": 2, "validation": 1.0}\n')
    curves = learning_curves(runs)
    assert sorted(curves) == ["0.5/lnsde", "latent_sde"]
    assert [len(figure.axes[0].lines) for figure in curves.values()] == [2, 2]
