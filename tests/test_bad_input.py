"""Bad input as a user meets it: one line on stderr with what was given and what is wanted, exit code 2, no traceback.

Checks of single functions are in their own rooms; here each case goes through the command and the recipe's own file,
and through every model.
"""

import json
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pooch
import pytest
import torch
from torch import nn

import neurodyn.recipes.forecast as recipe
from neurodyn.cli import main as command
from neurodyn.datasets import sources
from neurodyn.frames import read_series
from neurodyn.models.baselines import DirectGRU, LastValue, LatentODE, RegressedLastValue
from neurodyn.models.latent_sde import LatentSDE
from neurodyn.models.linear_sde import LinearSDE
from neurodyn.scaling import Scaling
from neurodyn.series import SeriesBatch

ROOT = Path(__file__).parents[1]
QUICK = "--quick --device cpu --baselines last_value linear_sde --num-samples 10 --hidden-size 8".split()


def visits() -> pd.DataFrame:
    """Twelve people with two variables at five visits each."""
    chance = np.random.default_rng(0)
    times = np.sort(chance.random((12, 5)) * 4).ravel()
    return pd.DataFrame(
        {
            "unique_id": np.repeat([f"p{k}" for k in range(12)], 5),
            "ds": times,
            "weight": 70 + 5 * chance.normal(size=60),
            "pulse": 60 + 9 * chance.normal(size=60),
        }
    )


def with_cell(line: int, column: str, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame[column] = frame[column].astype(object)
        frame.loc[line, column] = value
        return frame

    return change


def unobserved(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[frame["unique_id"] == "p3", ["weight", "pulse"]] = None
    return frame


BAD_TABLES: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "duplicate times": (
        lambda f: with_cell(1, "ds", f.loc[0, "ds"])(f),
        r"v\.csv: frame: two lines for unique_id 'p0' at ds .*, one wanted",
    ),
    "NaN time": (with_cell(3, "ds", None), r"v\.csv: time: column 'ds' is NaN or empty in data line 4, a time wanted"),
    "infinite time": (with_cell(3, "ds", "inf"), r"time: column 'ds' is inf in data line 4, a finite number wanted"),
    "text time": (with_cell(3, "ds", "soon"), r"time: column 'ds' has 'soon' in data line 4, numbers or .* wanted"),
    "infinite value": (with_cell(7, "pulse", "inf"), r"column 'pulse': inf given in data line 8, a finite number"),
    "text value": (with_cell(7, "pulse", "high"), r"column 'pulse': 'high' given in data line 8, a number wanted"),
    "row without observation": (unobserved, r"unique_id 'p3' has no observed value of .*, at least one wanted"),
    "constant variable": (lambda f: f.assign(pulse=60.0), r"train: \['pulse'\] constant in 7 rows; leave"),
    "variable never observed": (lambda f: f.assign(pulse=None), r"train: \['pulse'\] never observed in 7 rows; leave"),
    "no line": (lambda f: f.iloc[:0], r"v\.csv: frame: no line given, at least one wanted"),
    "one visit": (lambda f: f.iloc[:1], r"fraction=0\.5: none of 1 rows has visits on both sides of the cut"),
    "one visit each": (lambda f: f.iloc[::5], r"fraction=0\.5: none of 2 rows has visits on both sides of the cut"),
    "one short row": (lambda f: f.iloc[:5], r"v\.csv has 1 row\(s\) with at most 2 known visits .* wanted"),
}  # fmt: skip
BAD_FILES: dict[str, tuple[bytes | None, str]] = {
    "empty": (b"", r"v\.csv: empty file, a header and at least one line wanted"),
    "cut short": (b'unique_id,ds,y\na,0,1\na,"1,2,3,4\n', r"v\.csv: a table with the same columns in every line"),
    "binary": (bytes(range(256)) * 8, r"v\.csv: "),
    "no file": (None, r"v\.csv given, an existing file wanted"),
}  # fmt: skip
BAD_OPTIONS: dict[str, str] = {
    "--values wieght": r"values: no column 'wieght' \(did you mean 'weight'\?\), one of .* wanted",
    "--id patient": r"id: no column 'patient', one of .* wanted",
    "--time day": r"time: no column 'day'.*, one of .* wanted",
    "--log wieght": r"log: \['wieght'\] given, a list with some of \['weight', 'pulse'\] wanted",
    "--time-unit D": r"time_unit: 'D' given, but column 'ds' holds numbers",
    "--history-until -1": r"until=-1\.0: none of \d rows has visits on both sides of the cut, at least one wanted",
    "--history-until 99": r"until=99\.0: none of \d rows has visits on both sides of the cut, at least one wanted",
    "--history-fraction 2": r"fraction: 2\.0 given, a number between 0 and 1 wanted",
    "--history-fraction nan": r"fraction: nan given, a number between 0 and 1 wanted",
    "--num-samples 0": r"num_samples: 0 given, 2 or more wanted",
    "--steps 0": r"steps: 0 given, 1 or more wanted",
    "--hidden-size 0": r"hidden_size: 0 given, 1 or more wanted",
}


@pytest.fixture(params=["command", "script"])
def forecast(request, tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """`neurodyn forecast` or `python recipes/forecast.py` in an empty folder: exit code and what stands on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)

    def call(*words: str) -> tuple[int, str]:
        options = [*QUICK, "--folder", "run", *words]
        if request.param == "command":
            code = command(["forecast", *options])
        else:
            monkeypatch.setattr(sys, "argv", ["forecast.py", *options])
            code = recipe.main()
        return code, capsys.readouterr().err.strip()

    return call


def assert_one_line(outcome: tuple[int, str], message: str, wanted: int = 2) -> None:
    code, said = outcome
    assert code == wanted
    assert re.match(r"(neurodyn|forecast): ", said) and "\n" not in said, said
    assert re.search(message, said), said


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_bad_table_is_one_line_and_nothing_is_begun(forecast, case):
    change, message = BAD_TABLES[case]
    change(visits()).to_csv("v.csv", index=False)
    assert_one_line(forecast("--data", "v.csv"), message)
    assert not Path("run").exists()


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_line_and_nothing_is_begun(forecast, case):
    content, message = BAD_FILES[case]
    if content is not None:
        Path("v.csv").write_bytes(content)
    assert_one_line(forecast("--data", "v.csv"), message)
    assert not Path("run").exists()


@pytest.mark.parametrize("words", BAD_OPTIONS)
def test_a_bad_option_is_one_line_and_nothing_is_begun(forecast, words):
    visits().to_csv("v.csv", index=False)
    assert_one_line(forecast("--data", "v.csv", *words.split()), BAD_OPTIONS[words])
    assert not Path("run").exists()


def test_lines_in_any_order_and_empty_cells_are_legal(tmp_path):
    frame = visits()
    frame.loc[[2, 9, 30], "pulse"] = None
    frame.to_csv(tmp_path / "sorted.csv", index=False)
    frame.sample(frac=1, random_state=0).to_csv(tmp_path / "shuffled.csv", index=False)
    one, two = (read_series(tmp_path / f"{name}.csv") for name in ("sorted", "shuffled"))
    same = two.rows([two.ids.index(name) for name in one.ids])
    assert torch.equal(one.times, same.times) and torch.equal(one.mask, same.mask)
    assert torch.equal(one.values, same.values) and int(one.mask.sum()) == 117


@pytest.mark.parametrize("words", [["-m", "neurodyn.cli", "forecast"], [str(ROOT / "recipes" / "forecast.py")]])
def test_a_real_process_ends_with_2_and_one_line(tmp_path, words):
    (tmp_path / "v.csv").write_text("")
    given = [sys.executable, *words, "--data", "v.csv"]
    done = subprocess.run(given, cwd=tmp_path, env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(r"(neurodyn|forecast): v\.csv: empty file, a header .* wanted\n", done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["v.csv"]


def test_a_cut_an_altered_and_a_missing_download(forecast, tmp_path, monkeypatch):
    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("Name or service\nnot known")

    monkeypatch.setattr(sources, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setenv("NEURODYN_DATA", str(tmp_path / "mine"))
    monkeypatch.setattr(pooch, "retrieve", offline)
    assert_one_line(
        forecast("--dataset", "mocap35"), "mocap35.mat: not here and https.* cannot be reached .* put it at"
    )
    place = tmp_path / "mine" / "mocap35" / "mocap35.mat"
    place.parent.mkdir(parents=True)
    for content in (b"", b"half of it", b"MATLAB 5.0 MAT-file" + bytes(1000)):
        place.write_bytes(content)
        assert_one_line(
            forecast("--dataset", "mocap35"), "mocap35.mat: altered or cut short .* delete it and load again"
        )
    assert_one_line(forecast("--dataset", "mocap53"), r"'mocap53' given \(did you mean 'mocap35'\?\)")


def test_a_diverging_loss(forecast, monkeypatch):
    visits().to_csv("v.csv", index=False)
    loss = LatentSDE.loss

    def exploding(model: LatentSDE, *arguments: Any, **options: Any) -> Any:
        found = loss(model, *arguments, **options)
        return found._replace(log_likelihood=found.log_likelihood * torch.nan)

    monkeypatch.setattr(LatentSDE, "loss", exploding)
    message = "training diverged: a loss or a gradient that is not finite, at step 1; .* try a lower learning_rate"
    assert_one_line(forecast("--data", "v.csv"), message, wanted=1)
    assert json.loads(Path("run/run.json").read_text())["status"] == "failed"


# A run's folder that somebody else wrote.


class Evil:
    """Its unpickling creates a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("evil"),)


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None takes a key out."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


CHECKPOINT = Path("run/models/latent_sde/checkpoint")


def tensors() -> Path:
    return next(CHECKPOINT.glob("*.safetensors"))


DAMAGES: dict[str, tuple[Callable[[], Any], str]] = {
    "pickle": (lambda: tensors().write_bytes(pickle.dumps(Evil())), "is a pickle .*: refused, .* give weights in saf"),
    "cut": (lambda: tensors().write_bytes(tensors().read_bytes()[:999]), "is not a safetensors file, or was cut short"),
    "gone": (lambda: tensors().unlink(), "there is no weights file run/models/latent_sde/checkpoint/state"),
    "cut card": (lambda: (CHECKPOINT / "checkpoint.json").write_text('{"step": 2'), "is not JSON, or was cut short"),
    "other model": (
        lambda: edit(CHECKPOINT / "checkpoint.json", model="LinearSDE"),
        "is the checkpoint of a LinearSDE, and a LatentSDE is to be trained",
    ),
    "other format": (
        lambda: edit(CHECKPOINT / "checkpoint.json", format=9),
        r"has format 9 \(written by neurodyn .*\); this neurodyn .* reads format 1; update neurodyn",
    ),
    "no model": (
        lambda: edit(CHECKPOINT / "checkpoint.json", model=None),
        "was altered, 'model' is not as `fit` wrote",
    ),
    "no config": (lambda: edit(CHECKPOINT / "checkpoint.json", config=None), "was altered, 'config' is not as `fit`"),
    "no tensors": (lambda: edit(CHECKPOINT / "checkpoint.json", tensors=None), "was altered: it names no tensors file"),
    "cut record": (lambda: Path("run/run.json").write_text("{"), "run/run.json is not JSON, or was cut short"),
    "cut configuration": (lambda: Path("run/config.json").write_text("{"), "run/config.json is not JSON, or was cut"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    visits().to_csv(folder / "v.csv", index=False)
    words = ["--data", str(folder / "v.csv"), *QUICK, "--folder", str(folder / "run")]
    assert command(["forecast", *words]) == 0
    return folder


def test_a_damaged_or_malicious_run_is_one_line_and_runs_nothing(forecast, finished):
    for change, message in DAMAGES.values():
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree(finished / "run", "run")
        change()
        assert_one_line(forecast("--data", str(finished / "v.csv")), message)
    assert not Path("evil").exists()
    pickle.loads(pickle.dumps(Evil()))
    assert Path("evil").exists(), "the file really was malicious"


# Every model.


def batch(rows: int = 3, visits: int = 4, variables: int = 2) -> SeriesBatch:
    generator = torch.Generator().manual_seed(0)
    times = (torch.rand(rows, visits, generator=generator, dtype=torch.float64) + 0.1).cumsum(1)
    values = torch.randn(rows, visits, variables, generator=generator)
    return SeriesBatch(times, values, ids=tuple(f"row {k}" for k in range(rows)))


MODELS: dict[str, Callable[[], Any]] = {
    "last_value": lambda: LastValue().fit(batch()),
    "regressed_last_value": lambda: RegressedLastValue().fit(batch()),
    "linear_sde": lambda: LinearSDE(2),
    "latent_sde": lambda: LatentSDE.build(num_variables=2, hidden_size=8, context_size=6),
    "latent_sde_simulated": lambda: LatentSDE.build(num_variables=2, posterior="simulated", hidden_size=8),
    "latent_sde_attention": lambda: LatentSDE.build(num_variables=2, encoder="attention", hidden_size=8),
    "latent_sde_on_linear": lambda: LatentSDE.on(LinearSDE(2), hidden_size=8, context_size=6),
    "direct_gru": lambda: DirectGRU(2, 6, 8),
    "latent_ode": lambda: LatentODE(2, 3, 6, 8),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_refuses_times_that_cannot_be_and_other_variables(name):
    model, history = MODELS[name](), batch()
    end = history.last_time[:, None]
    requests = {
        r"times: .* \(row 'row 1', place 0\) comes before the row's last observed time; .* from .* on wanted": end
        - torch.tensor([[0.0], [0.5], [0.0]]),
        r"times: nan \(row 'row 0', place 1\) is not finite": end + torch.tensor([0.1, torch.nan]),
        r"times: .* \(row 'row 0', place 1\) comes before the time asked for just before it": end
        + torch.tensor([0.5, 0.2]),
        r"times: shape \(2, 1\) given, \(3, H\) or \(H,\) with H >= 1 wanted": end[:2],
    }
    for message, times in requests.items():
        with pytest.raises(ValueError, match=message) as caught:
            model.forecast(history, times, 2)
        assert "\n" not in str(caught.value)
    for variables in (1, 3):
        with pytest.raises(ValueError, match="variables") as caught:
            model.forecast(batch(variables=variables), end + 0.5, 2)
        assert "\n" not in str(caught.value)
        if isinstance(model, nn.Module):
            with pytest.raises(ValueError, match="variables"):
                model.loss(batch(variables=variables))


@pytest.mark.parametrize("kind", ["line", "one level each", "twice the same", "walk", "noise", "outliers", "one row"])
def test_values_without_noise_or_structure_are_fitted_all_the_same(kind):
    """Their evidence would grow without bound, or a covariance have no inverse, if variances had no smallest value."""
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        times = (torch.rand(12, 5, generator=generator, dtype=torch.float64) + 0.01).cumsum(1)
        noise = torch.randn(12, 5, 2, generator=generator, dtype=torch.float64)
        values = {
            "line": times[..., None].expand_as(noise),
            "one level each": noise[:, :1].expand_as(noise),
            "twice the same": noise[..., :1].expand_as(noise),
            "walk": noise.cumsum(1),
            "outliers": torch.where(noise > 2.2, 1e4, noise),
        }.get(kind, noise)
        series = SeriesBatch(times, values)
        series = series.rows(0) if kind == "one row" else series
        series = Scaling.fit(series).apply(series)
        model = LatentSDE.on(LinearSDE(2).fit(series), hidden_size=8, context_size=6)
        with torch.no_grad():
            model.posterior.net[-1].bias.normal_(0, 0.1)
        loss = model.loss(series)
        loss.objective().backward()
        assert all(bool(part.isfinite().all()) for part in loss)
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
        assert bool(model.forecast(series, series.last_time[:, None] + 0.5, 5).samples.isfinite().all())


def test_an_evidence_that_cannot_be_computed():
    series = batch()
    far = SeriesBatch(series.times * 1e14, series.values)
    with pytest.raises(ValueError, match=r"train: the exact evidence of 3 rows cannot be computed .*scaled .* wanted"):
        LinearSDE(2).fit(far)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("visits", [1, 4])
def test_every_model_takes_a_batch_of_one_and_a_single_visit(name, visits):
    model, one = MODELS[name](), batch(rows=1, visits=visits)
    samples = model.forecast(one, one.last_time[:, None] + torch.tensor([0.0, 0.5]), 3).samples
    assert samples.shape == (3, 1, 2, 2)
    assert bool(samples.isfinite().all())
    if isinstance(model, nn.Module):
        loss = model.loss(one)
        loss.objective().backward()
        assert all(part.shape == (1,) and bool(part.isfinite().all()) for part in loss)
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


SAVED = ("linear_sde", "latent_sde", "direct_gru", "latent_ode")
IMPOSSIBLE = {"num_variables": -1, "hidden_size": "wide", "latent_size": None, "unheard_of": 1}


@pytest.mark.parametrize("name", SAVED)
def test_every_model_refuses_the_folder_of_another_and_sizes_that_cannot_be(name, tmp_path):
    model = MODELS[name]()
    folder = model.save(tmp_path / name)
    for other in SAVED:
        if other != name:
            kind = type(MODELS[other]())
            message = f"holds a {type(model).__name__}, and a {kind.__name__} was to be loaded"
            with pytest.raises(ValueError, match=message):
                kind.load(folder)
    card = json.loads((folder / "model.json").read_text())
    for key, value in IMPOSSIBLE.items():
        if key in card["config"] or key == "unheard_of":
            edit(folder / "model.json", config=card["config"] | {key: value})
            with pytest.raises(ValueError) as caught:
                type(model).load(folder)
            assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    edit(folder / "model.json", config=card["config"])
    (folder / "weights.safetensors").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="is a pickle"):
        type(model).load(folder)
