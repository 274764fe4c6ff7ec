"""Records of benchmarks: what goes in comes out, merges by place, and carries nothing that names the machine."""

import json
import socket

import pytest

from benchmarks.records import (
    Record,
    hardware,
    measured,
    merge_records,
    read_records,
    summarise,
    versions,
    write_records,
)


def record(row="model", column="CRPS", value=0.4, **other):
    return Record("table", row, column, value, command="python -m benchmarks.x", **other)


def test_records_survive_the_file(tmp_path):
    path = tmp_path / "results" / "x.json"
    records = [record(seeds=(0, 1), low=0.3, high=0.5, versions={"torch": "2"}), record(column="MAE", better="lower")]
    write_records(path, records)
    assert read_records(path) == records
    assert not list(path.parent.glob("*.part"))


def test_a_later_record_replaces_the_one_in_its_place(tmp_path):
    path = tmp_path / "x.json"
    merge_records(path, [record("a"), record("b")])
    merged = merge_records(path, [record("c"), record("a", value=0.2), record("b", source="Some paper")])
    assert [(r.row, r.value, r.source) for r in merged] == [
        ("a", 0.2, ""),
        ("b", 0.4, ""),
        ("c", 0.4, ""),
        ("b", 0.4, "Some paper"),
    ]
    assert read_records(path) == merged


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    write_records(path, [record()])
    before = path.read_text()
    with pytest.raises(TypeError):
        write_records(path, [record(), record(versions={"torch": object()})])
    assert path.read_text() == before


def test_measured_takes_mean_and_range_over_seeds():
    found = measured("t", "r", "c", [1.0, 2.0, 6.0], seeds=[3, 4, 5], command="python -m benchmarks.x", better="lower")
    assert (found.value, found.low, found.high, found.seeds) == (3.0, 1.0, 6.0, (3, 4, 5))
    single = measured("t", "r", "c", [1.5], seeds=[0], command="python -m benchmarks.x")
    assert (single.value, single.low, single.high) == (1.5, None, None)
    with pytest.raises(ValueError, match="values: 1 given for 2 seeds"):
        measured("t", "r", "c", [1.0], seeds=[0, 1], command="x")


def test_a_table_is_summarised_over_the_seeds_that_have_a_cell():
    results = {0: {"a": {"CRPS": 1.0}, "b": {"CRPS": 3.0}}, 1: {"a": {"CRPS": 2.0}}}
    found = summarise("t", results, {"CRPS": ("", "lower"), "MAE": ("", "lower")}, command="x")
    assert [(r.row, r.value, r.seeds) for r in found] == [("a", 1.5, (0, 1)), ("b", 3.0, (0,))]


def test_what_made_a_number_is_known_and_the_machines_name_is_not():
    assert socket.gethostname() not in hardware()
    assert "core" in hardware()
    assert {"python", "torch"} <= versions().keys()
    assert versions(["no-such-package"]).keys() == {"python"}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"value": float("nan")}, "value: nan given for model, CRPS"),
        ({"row": ""}, "row: an empty name"),
        ({"command": ""}, "source, command: neither given"),
    ],
)
def test_records_without_sense_are_refused(change, message):
    whole = {"table": "t", "row": "model", "column": "CRPS", "value": 0.4, "command": "x"}
    with pytest.raises(ValueError, match=message):
        Record(**(whole | change))


@pytest.mark.parametrize(
    "text, message",
    [("[1, 2", "is not JSON"), ("{}", "holds a dict"), (json.dumps([{"table": "t", "colour": 1}]), "is not a record")],
)
def test_damaged_files_are_named(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"x.json.*{message}"):
        read_records(path)
