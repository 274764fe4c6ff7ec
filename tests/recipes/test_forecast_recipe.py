"""The forecast recipe from a file to a report, killed and resumed, and what bad input gets."""

import json
import re
import signal
from dataclasses import replace

import pandas as pd
import pytest
import torch
import tyro

from neurodyn.cli import main as command
from neurodyn.frames import timestamps
from neurodyn.models import forecasters
from neurodyn.recipes import forecast as recipe
from neurodyn.recipes.config_files import read_config
from neurodyn.recipes.forecast import BASELINES, Config, load, run
from neurodyn.recipes.own_series import OwnSeries

CHEAP = ("last_value", "ou_process")


@pytest.fixture(scope="module")
def table():
    """Thirty people with two variables, one of them positive and skewed, some of it missing."""
    generator = torch.Generator().manual_seed(0)
    lines = []
    for person in range(30):
        level = torch.randn((), generator=generator)
        for visit in range(6):
            noise = torch.randn(2, generator=generator)
            lines.append(
                {
                    "person": f"p{person}",
                    "month": visit + 0.5 * float(torch.rand((), generator=generator)),
                    "weight": 70 + 5 * float(level + 0.2 * noise[0]),
                    "crp": float(torch.exp(level + noise[1])) if visit % 3 else None,
                }
            )
    return pd.DataFrame(lines)


@pytest.fixture
def config(table, tmp_path):
    table.to_csv(tmp_path / "visits.csv", index=False)
    return Config(
        data=tmp_path / "visits.csv",
        id="person",
        time="month",
        values=("weight", "crp"),
        log=("crp",),
        baselines=CHEAP,
        num_samples=30,
        hidden_size=16,
        quick=True,
        device="cpu",
        folder=tmp_path / "run",
    )


def test_a_file_becomes_a_table_and_a_report_in_its_own_units(config, capsys):
    folder = run(config)
    comparison = pd.read_csv(folder / "tables" / "comparison.csv", index_col=0)
    assert set(comparison.index) == {"latent SDE", "last value", "OU process"}
    assert comparison["crps"].is_monotonic_increasing
    assert bool((comparison["crps"] > 0).all()) and bool(comparison["coverage_90"].between(0, 1).all())
    shown = capsys.readouterr().out
    assert all(label in shown for label in comparison.index)
    assert "The winner is" in shown and "report.html" in shown
    page = (folder / "report.html").read_text()
    assert "Forecasts of visits.csv" in page and "weight" in page and "data:image" in page
    frame = pd.read_csv(folder / "tables" / "forecast.csv")
    assert frame["weight"].between(40, 100).all() and bool((frame["crp"] > 0).all())
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert (folder / "model" / "weights.safetensors").is_file() and (folder / "scaling.json").is_file()
    assert sorted(p.name for p in (folder / "plots").iterdir()) == [
        "calibration-1.png",
        "calibration-2.png",
        "forecasts-1.png",
    ]


def test_a_second_start_of_a_run_goes_on_from_its_fits(config, monkeypatch):
    before = pd.read_csv(run(config) / "tables" / "comparison.csv").drop(columns="fit seconds")
    trained = []
    loss = forecasters.LatentSDE.loss

    def watched(model, *arguments, **options):
        trained.append(model.training)
        return loss(model, *arguments, **options)

    monkeypatch.setattr(forecasters.LatentSDE, "loss", watched)
    monkeypatch.setattr(forecasters.LinearSDE, "fit", lambda *_, **__: pytest.fail("fitted again"))
    after = pd.read_csv(run(config) / "tables" / "comparison.csv").drop(columns="fit seconds")
    assert not any(trained)
    pd.testing.assert_frame_equal(before, after)


def test_other_settings_in_the_same_folder_are_refused(config):
    run(config)
    config.seed = 5
    with pytest.raises(ValueError, match="another configuration"):
        run(config)
    config.overwrite = True
    assert json.loads((run(config) / "config.json").read_text())["seed"] == 5


def test_ctrl_c_writes_a_report_of_what_is_there_and_the_next_start_finishes(config, monkeypatch):
    loss, calls = forecasters.LatentSDE.loss, []

    def interrupting(model, *arguments, **options):
        calls.append(model.training)
        if calls == [True] * 3:
            signal.raise_signal(signal.SIGINT)
        return loss(model, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(forecasters.LatentSDE, "loss", interrupting)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    folder = config.folder
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    assert "interrupted" in (folder / "report.html").read_text()
    assert "latent SDE" in (folder / "tables" / "comparison.csv").read_text()
    assert sum(calls) == 3
    run(config)
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    steps = [json.loads(line)["step"] for line in (folder / "models" / "latent_sde" / "metrics.jsonl").open()]
    assert max(steps) == forecasters._QUICK_STEPS


def test_an_interrupt_before_the_latent_sde_still_leaves_a_report(config, monkeypatch):
    def stop(name, *arguments, **options):
        if name == "ou_process":
            raise KeyboardInterrupt
        return forecasters.fit_forecaster(name, *arguments, **options)

    monkeypatch.setattr(recipe, "fit_forecaster", stop)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    comparison = pd.read_csv(config.folder / "tables" / "comparison.csv", index_col=0)
    assert list(comparison.index) == ["last value"]
    assert "interrupted" in (config.folder / "report.html").read_text()


def test_a_baseline_that_cannot_be_fitted_is_named_and_left_out(config, table, capsys):
    once = table.copy()
    once.loc[once.groupby("person").cumcount() > 0, "crp"] = None
    once.loc[once.groupby("person").cumcount() == 0, "crp"] = range(1, 31)
    once.to_csv(config.data, index=False)
    folder = run(config)
    comparison = pd.read_csv(folder / "tables" / "comparison.csv", index_col=0)
    assert "last value" not in comparison.index and "latent SDE" in comparison.index
    assert "last value is left out: train: variable 'crp' has no two observations" in capsys.readouterr().out


@pytest.mark.parametrize("posterior", ["matched", "simulated"])
def test_posteriors_encoders_and_likelihoods_go_by_name(config, posterior):
    config.posterior, config.encoder, config.likelihood, config.latent_size = posterior, "attention", "student_t", 3
    config.baselines = ("last_value",)
    folder = run(config)
    model = json.loads((folder / "model" / "model.json").read_text())["config"]
    assert (model["posterior"], model["encoder"], model["likelihood"], model["latent_size"]) == (
        posterior,
        "attention",
        "student_t",
        3,
    )


def test_counts_are_not_scaled(config, table):
    counts = table.assign(weight=(table["weight"] % 7).round(), crp=table["month"].round())
    counts.to_csv(config.data, index=False)
    config.likelihood, config.posterior, config.log, config.baselines = "poisson", "matched", (), ("last_value",)
    frame = pd.read_csv(run(config) / "tables" / "forecast.csv")
    assert bool((frame["weight"] >= 0).all())
    scaling = json.loads((config.folder / "scaling.json").read_text())
    assert scaling["mean"] == [0, 0] and scaling["sd"] == [1, 1]


def test_a_single_long_series_is_split_by_time(config, table):
    one = table.iloc[:120].assign(person="only", month=range(120))
    one.to_csv(config.data, index=False)
    config.history_fraction = 0.8
    task = load(config)
    assert len(task.history) == 1
    assert int(task.history.present.sum()) == 96
    assert float(task.train.last_time) < float(task.history.last_time) < float(task.future.first_time)
    assert pd.read_csv(run(config) / "tables" / "comparison.csv")["crps"].notna().all()


def test_protocols_cut_where_they_say(config):
    config.history_fraction = 0.3
    assert int(load(config).history.present.sum(1).max()) == 1
    config.history_fraction, config.history_until = None, 2.0
    task = load(config)
    assert float(task.history.last_time.max()) <= 2.0 < float(task.future.first_time.min())
    config.history_fraction = 0.5
    with pytest.raises(ValueError, match="history_fraction, history_until: both given"):
        load(config)


def test_a_cut_of_dates_is_a_date_and_one_of_numbers_a_number(config, table, tmp_path):
    config.history_until = "2021-03-01"
    with pytest.raises(ValueError, match="history_until: '2021-03-01' given, a number wanted"):
        load(config)
    months = pd.to_datetime("2021-01-01") + pd.to_timedelta(30.5 * table["month"], "D")
    table.assign(month=months.dt.strftime("%Y-%m-%d %H:%M")).to_csv(config.data, index=False)
    dated = replace(config)  # a fresh look at the file
    task, cut = load(dated), pd.Timestamp("2021-03-01", tz="UTC").timestamp() / 86400
    assert float(task.history.last_time.max()) <= cut < float(task.future.first_time.min())
    assert "the visits up to 2021-03-01, all later" in task.protocol
    for wrong in (18687.0, "some day"):
        with pytest.raises(ValueError, match=r"history_until: .* given, a date such as 2021-03-01 wanted as in column"):
            load(replace(dated, history_until=wrong))
    settings = tmp_path / "settings.yaml"
    settings.write_text("history_until: 2021-03-01\n")
    assert read_config(settings, Config).history_until == "2021-03-01"


def test_pbcseq_is_the_default_with_its_own_protocol_and_logarithms():
    task = load(Config())
    assert task.info["name"] == "pbcseq" and "50 %" in task.protocol
    assert load(Config(split=1)).train.ids != task.train.ids
    assert Config().baselines == BASELINES


def test_options_become_the_configuration():
    words = "--data a.csv --id who --values x y --log x --posterior matched --baselines last_value --history-until 2"
    config = tyro.cli(Config, args=words.split())
    assert (config.values, config.log, config.posterior) == (("x", "y"), ("x",), "matched")
    assert (config.baselines, config.history_until) == (("last_value",), 2.0)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--id", "nobody"], r"no column 'nobody'"),
        (["--log", "weigth"], r"log: \['weigth'\] given"),
        (["--history-until", "-1"], r"until=-1.0: none of \d+ rows has visits on both sides"),
        (["--data", "missing.csv"], r"missing.csv"),
    ],
)
def test_bad_input_gets_one_line(config, capsys, words, message):
    given = ["--data", str(config.data), "--id", "person", "--time", "month", "--folder", str(config.folder), *words]
    assert command(["forecast", *given]) == 2
    said = capsys.readouterr().err.strip()
    assert re.search(message, said) and "\n" not in said
    assert not config.folder.exists()


def test_timestamps_are_counted_in_a_unit_that_labels_name(tmp_path):
    lines = [f"s{k},2024-01-{day:02d} 06:00,{day},{day + k}" for k in range(2) for day in (1, 3)]
    (tmp_path / "dates.csv").write_text("who,when,day,y\n" + "\n".join(lines) + "\n")
    by_date = OwnSeries(data=tmp_path / "dates.csv", id="who", time="when", values=("y",))
    assert (by_date.stamp_unit, by_date.clock) == ("D", "days")
    assert OwnSeries(data=by_date.data, time="when", time_unit="h").clock == "h"
    by_number = OwnSeries(data=by_date.data, id="who", time="day", values=("y",))
    assert (by_number.stamp_unit, by_number.clock) == (None, "day")
    series = by_date.read()
    again = timestamps(series.times[0].numpy(), by_date.stamp_unit or "")
    assert [str(moment) for moment in again] == ["2024-01-01 06:00:00+00:00", "2024-01-03 06:00:00+00:00"]
