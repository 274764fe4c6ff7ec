"""Frames and files to SeriesBatch and back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodyn.frames import SECONDS, from_frame, read_series, timestamps, to_frame
from neurodyn.series import SeriesBatch


@st.composite
def batches(draw) -> SeriesBatch:
    rows, visits, size = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    g = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    mask = torch.rand(rows, visits, size, generator=g) < 0.6
    mask[:, 0, 0] = True
    times = torch.rand(rows, visits, generator=g, dtype=torch.float64).add(1e-3).cumsum(1)
    ids = tuple(draw(st.lists(st.text(min_size=1, max_size=4), min_size=rows, max_size=rows, unique=True)))
    values = torch.randn(rows, visits, size, generator=g, dtype=torch.float64)
    return SeriesBatch(times, values, mask, ids=ids).compact()


def assert_same(got: SeriesBatch, want: SeriesBatch) -> None:
    assert got.ids == want.ids
    assert got.variables == want.variables
    assert torch.equal(got.times, want.times)
    assert torch.equal(got.mask, want.mask)
    assert torch.equal(got.values, want.values)


@settings(max_examples=40, deadline=None)
@given(batches(), st.sampled_from(["wide", "long"]))
def test_frame_round_trip_is_exact(batch, layout) -> None:
    assert_same(from_frame(batch.to_frame(layout), dtype=torch.float64), batch)


@settings(max_examples=25, deadline=None)
@given(batches(), st.sampled_from(["wide", "long"]), st.integers(0, 1000))
def test_the_order_of_lines_does_not_matter(batch, layout, seed) -> None:
    frame = batch.to_frame(layout)
    got = from_frame(frame.sample(frac=1, random_state=seed), dtype=torch.float64)
    assert_same(got.rows([got.ids.index(name) for name in batch.ids]), batch)


def test_wide_frame_by_column_names() -> None:
    frame = pd.DataFrame(
        {
            "who": ["b", "a", "b"],
            "when": [2.0, 0.0, 1.0],
            "x": [1.0, np.nan, 3.0],
            "y": [np.nan, 5.0, 6.0],
            "dose": [1.0, 2.0, 3.0],
            "age": [40, 50, 40],
            "dead": [1, 0, 1],
        }
    )
    batch = from_frame(
        frame, id="who", time="when", values=["y", "x"], covariates=["dose"], static=["age"], label="dead"
    )
    assert batch.ids == ("b", "a")
    assert batch.variables == ("y", "x")
    assert batch.times.tolist() == [[1, 2], [0, 0]]
    assert batch.values.tolist() == [[[6, 3], [0, 1]], [[5, 0], [0, 0]]]
    assert batch.mask.tolist() == [[[True, True], [False, True]], [[True, False], [False, False]]]
    assert batch.covariates[..., 0].tolist() == [[3, 1], [2, 0]]
    assert batch.static.tolist() == [[40], [50]]
    assert batch.labels.tolist() == [1, 0]
    assert batch.labels.dtype == torch.int64
    assert from_frame(frame.drop(columns="dead"), id="who", time="when", static=["age"]).variables == ("x", "y", "dose")


def test_long_frame_takes_and_orders_the_wanted_variables() -> None:
    frame = pd.DataFrame(
        {
            "unique_id": [1, 1, 1, 2],
            "ds": [0, 0, 1, 3],
            "variable": ["hr", "bp", "hr", "bp"],
            "value": [60.0, 80.0, np.nan, 90.0],
        }
    )
    batch = from_frame(frame)
    assert batch.variables == ("hr", "bp")
    assert batch.values.tolist() == [[[60, 80]], [[0, 90]]]  # the visit with a NaN only is gone
    other = from_frame(
        frame.rename(columns={"variable": "param", "value": "v"}), variable="param", value="v", values=["bp"]
    )
    assert other.variables == ("bp",)
    assert other.values.tolist() == [[[80]], [[90]]]
    assert other.ids == ("1", "2")


@pytest.mark.parametrize("unit", list(SECONDS))
def test_timestamps_become_numbers_and_come_back(unit) -> None:
    dates = pd.to_datetime(["2024-01-01T00:00:00.00Z", "2024-01-01T06:30:00.25Z"])
    frame = pd.DataFrame({"unique_id": ["a", "a"], "ds": dates, "y": [1.0, 2.0]})
    batch = from_frame(frame, time_unit=unit)
    seconds = (dates - pd.Timestamp("1970-01-01", tz="UTC")).total_seconds().to_numpy()
    assert batch.times[0].numpy() == pytest.approx(seconds / SECONDS[unit], rel=1e-14)
    back = to_frame(batch, time_unit=unit)
    assert abs(back["ds"] - frame["ds"]).max() <= pd.Timedelta("2us")
    assert abs(timestamps(batch.times[0], unit) - dates).max() <= pd.Timedelta("2us")


def test_text_timestamps_with_and_without_zone_mean_utc() -> None:
    head = {"unique_id": ["a"], "y": [1.0]}
    days = [
        from_frame(pd.DataFrame(head | {"ds": [text]})).times.item()
        for text in ("2024-01-02", "2024-01-02T02:00:00+02:00")
    ]
    naive = from_frame(pd.DataFrame(head | {"ds": [pd.Timestamp("2024-01-02")]})).times.item()
    assert days == [19724.0, 19724.0]
    assert naive == 19724.0


@pytest.mark.parametrize("name", ["s.csv", "s.csv.gz", "s.tsv", "s.parquet"])
def test_files_by_ending(tmp_path, name) -> None:
    frame = pd.DataFrame(
        {"unique_id": ["a", "a", "b"], "ds": [0.5, 1.5, 0.0], "y1": [1.0, 2.0, np.nan], "y2": [np.nan, 1.0, 2.5]}
    )
    path = tmp_path / name
    if name.endswith("parquet"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if "tsv" in name else ",")
    assert_same(read_series(path), from_frame(frame))


GOOD = {"unique_id": ["ann", "ann", "bob"], "ds": [0.0, 1.0, 0.0], "bili": [1.0, 2.0, 3.0], "sex": [1.0, 1.0, 0.0]}
LONG = {"unique_id": ["a", "a"], "ds": [0.0, 0.0], "variable": ["x", "x"], "value": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({}, {"values": ["bilii"]}, ["values", "'bilii'", "did you mean 'bili'", "'sex'"]),
        ({}, {"id": "patient"}, ["id", "'patient'", "unique_id"]),
        ({}, {"time": "day"}, ["time", "'day'", "'ds'"]),
        ({}, {"static": ["sexx"]}, ["static", "did you mean 'sex'"]),
        ({}, {"label": "dead"}, ["label", "'dead'"]),
        ({}, {"covariates": ["dose"]}, ["covariates", "'dose'"]),
        ({}, {"values": "bili"}, ["values", "list"]),
        ({}, {"values": []}, ["values", "at least one"]),
        ({}, {"variable": "sex"}, ["variable, value", "both"]),
        ({}, {"time_unit": "D"}, ["time_unit", "numbers"]),
        (
            {"ds": pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-01"])},
            {"time_unit": "days"},
            ["time_unit", "'days'"],
        ),
        ({"ds": [0.0, 0.0, 0.0]}, {}, ["two lines", "'ann'", "0.0"]),
        ({"ds": [0.0, np.nan, 0.0]}, {}, ["time", "'ds'", "data line 2"]),
        ({"ds": [0.0, np.inf, 0.0]}, {}, ["time", "inf", "data line 2"]),
        ({"ds": ["2024-01-01", "soon", "2024-01-01"]}, {}, ["time", "'soon'", "data line 2", "timestamps"]),
        ({"unique_id": ["ann", None, "bob"]}, {}, ["id", "data line 2"]),
        ({"bili": [1.0, np.inf, 2.0]}, {}, ["'bili'", "inf", "data line 2"]),
        ({"bili": ["1.5", "high", "2"]}, {}, ["'bili'", "'high'", "data line 2", "number", "leave the cell empty if"]),
        ({"sex": ["f", "f", "m"]}, {}, ["'sex'", "'f'", "data line 1", "name the wanted columns in values"]),
        ({"bili": pd.to_datetime(["2024-01-01"] * 3)}, {}, ["'bili'", "number"]),
        ({"bili": [1.0, 2.0, np.nan]}, {"values": ["bili"]}, ["'bob'", "no observed value"]),
        ({"sex": [1.0, 0.0, 0.0]}, {"static": ["sex"]}, ["'sex'", "1 and 0", "'ann'"]),
        ({"sex": [1.0, 1.0, np.nan]}, {"static": ["sex"]}, ["'sex'", "nan", "data line 3"]),
        ({"sex": ["f", "f", "m"]}, {"static": ["sex"]}, ["'sex'", "'f'", "categories"]),
        ({"sex": [1.0, np.nan, 0.0]}, {"covariates": ["sex"]}, ["'sex'", "nan", "data line 2"]),
    ],
)
def test_bad_wide_frames_are_named_in_one_line(changes, options, words) -> None:
    with pytest.raises(ValueError) as caught:
        from_frame(pd.DataFrame(GOOD | changes), **options)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({}, {}, ["two values of 'x'", "'a'", "time 0"]),
        ({"variable": ["x", None]}, {}, ["variable", "data line 2"]),
        ({"variable": ["x", "y"], "value": [1.0, "?"]}, {}, ["'value'", "'?'", "data line 2"]),
        ({"variable": ["x", "y"]}, {"values": ["z"]}, ["values", "'z'", "['x', 'y']"]),
        ({"variable": ["x", "y"]}, {"covariates": ["value"]}, ["covariates", "wide"]),
    ],
)
def test_bad_long_frames_are_named_in_one_line(changes, options, words) -> None:
    with pytest.raises(ValueError) as caught:
        from_frame(pd.DataFrame(LONG | changes), **options)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_bad_files_are_named_in_one_line(tmp_path) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("unique_id,ds,y\n")
    (tmp_path / "torn.csv").write_text('unique_id,ds,y\na,0,1\na,"1,2,3,4\n')
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and then nothing of the kind")
    (tmp_path / "data.xlsx").write_bytes(b"x")
    for name, word in (
        ("empty.csv", "empty file"),
        ("header.csv", "at least one"),
        ("torn.csv", "same columns in every line"),
        ("torn.parquet", "torn.parquet"),
        ("data.xlsx", ".parquet wanted"),
    ):
        with pytest.raises(ValueError) as caught:
            read_series(tmp_path / name)
        message = str(caught.value)
        assert "\n" not in message
        assert name in message
        assert word in message
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        read_series(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match="no line given"):
        from_frame(pd.DataFrame({"unique_id": [], "ds": [], "y": []}))


def test_to_frame_refuses_what_it_cannot_tell_apart() -> None:
    batch = SeriesBatch(torch.zeros(2, 1), torch.ones(2, 1, 1), ids=("a", "a"))
    with pytest.raises(ValueError, match="'a'"):
        batch.to_frame()
    with pytest.raises(ValueError, match="layout"):
        batch.to_frame("tall")
    assert SeriesBatch(torch.zeros(2, 1), torch.ones(2, 1, 1)).to_frame()["unique_id"].tolist() == ["0", "1"]
