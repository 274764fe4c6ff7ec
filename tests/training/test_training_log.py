"""Logs beside metrics.jsonl hold the same records, after a resume too."""

import csv
import json
import sys

import pytest

from neurodyn.training import FitConfig, fit
from neurodyn.training_log import TrainingLog


def settings(**changes) -> FitConfig:
    plain = {"steps": 40, "batch_size": 0, "device": "cpu", "validate_every": 20, "checkpoint_every": 20}
    return FitConfig(**(plain | changes))


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_csv_has_the_records_of_the_jsonl(mean_model, series, tmp_path):
    result = fit(mean_model(), series, series, settings(logs=("csv",)), folder=tmp_path)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        read = [{name: float(cell) for name, cell in line.items() if cell} for line in csv.DictReader(file)]
    assert read == records(tmp_path) == result.history and len(read) == 6


def test_events_for_tensorboard_hold_the_same_and_only_once_after_a_resume(mean_model, series, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    wanted = settings(logs=("csv", "tensorboard"))
    fit(mean_model(), series, series, wanted, folder=tmp_path)
    fit(mean_model(), series, series, wanted, folder=tmp_path)  # reads the finished run, and writes its records anew
    found = EventAccumulator(str(tmp_path)).Reload()
    for name in ("objective", "validation", "learning_rate"):
        drawn = [(event.step, event.value) for event in found.Scalars(name)]
        logged = [(record["step"], record[name]) for record in records(tmp_path) if name in record]
        assert [step for step, _ in drawn] == [step for step, _ in logged] and len(drawn) > 1
        assert [value for _, value in drawn] == pytest.approx([value for _, value in logged], rel=1e-6)
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 1 + len(records(tmp_path))


def test_a_number_that_is_not_finite_is_an_empty_cell(tmp_path):
    log = TrainingLog(tmp_path, ("csv",), [{"step": 1, "validation": None}])
    log.write({"step": 2, "validation": 0.5})
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1:] == ["1,,,,,,,,,", "2,,,,,,,,,0.5"]


def test_a_missing_package_is_named_before_training(mean_model, series, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'neurodyn\[tensorboard\]'"):
        fit(mean_model(), series, None, settings(logs=("tensorboard",)), folder=tmp_path)


def test_an_unknown_log_is_refused():
    with pytest.raises(ValueError, match="logs: 'wandb' was given, and one of csv, tensorboard is wanted"):
        settings(logs=("wandb",))
