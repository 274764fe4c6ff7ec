"""mocap35 and time_imm: layouts, windows, broken files; the real files where NEURODYN_DATA holds them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
import torch

from neurodyn.datasets import histories, mocap35, sources, time_imm
from neurodyn.scaling import Scaling


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache and no user's folder."""
    monkeypatch.setattr(sources, "cache_folder", lambda: tmp_path)
    monkeypatch.delenv("NEURODYN_DATA", raising=False)
    for folder in ("mocap35", "time_imm"):
        (tmp_path / folder).mkdir()
    return tmp_path


def real(folder: str, file: str) -> pytest.MarkDecorator:
    root = os.environ.get("NEURODYN_DATA")
    there = bool(root) and (Path(root or "") / folder / file).is_file()
    return pytest.mark.skipif(not there, reason="NEURODYN_DATA does not hold it")


def mocap_file(path: Path, frames: int = 300) -> Path:
    arrays = {"Xtr": 16, "Xval": 3, "Xtest": 4}
    content = {name: np.random.default_rng(0).normal(size=(rows, frames, 50)) for name, rows in arrays.items()}
    scipy.io.savemat(path, content)
    return path


def test_mocap_setups_cut_training_rows_only(cache, monkeypatch) -> None:
    path = mocap_file(cache / "mocap35" / "mocap35.mat")
    monkeypatch.setattr(mocap35, "SHA256", sources.digest(path))
    for setup, frames, known in ((1, 300, 3), (2, 200, 100)):
        splits = mocap35.load(setup)
        assert [part.values.shape for part in splits[:3]] == [(16, frames, 50), (3, frames, 50), (4, 300, 50)]
        assert splits.train.mask.all()
        history, future = histories(splits.test, **splits.info["protocols"][f"setup{setup}"])
        assert (history.num_times, future.num_times) == (known, 300 - known)
        assert history.times[0, :3].tolist() == pytest.approx([0, 0.1, 0.2])
    assert torch.equal(splits.test.values[1, 7], torch.tensor(mocap35.read(path)[2][1, 7], dtype=torch.float32))


def test_broken_mocap_files_are_refused_in_one_line(cache) -> None:
    path = mocap_file(cache / "mocap35" / "mocap35.mat")
    with pytest.raises(ValueError, match=r"mocap35\.mat: altered or cut short \(sha256"):
        mocap35.load()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"mocap35\.mat: altered or cut short \(.*delete it and load again$"):
        mocap35.read(path)
    with pytest.raises(ValueError, match=r"shapes \[\(16, 9, 50\)"):
        mocap35.read(mocap_file(path, frames=9))
    with pytest.raises(ValueError, match="setup: 3 given, 1 or 2 wanted"):
        mocap35.load(3)


@real("mocap35", "mocap35.mat")
def test_the_real_mocap_file() -> None:
    splits = mocap35.load()
    assert splits.train.values.shape == (16, 300, 50)
    spread = splits.train.values.double().std((0, 1))
    assert {splits.train.variables[k] for k in (spread < 1e-6).nonzero()[:, 0].tolist()} == set(mocap35.CONSTANT)
    moving = [name for name in splits.train.variables if name not in splits.info["constant"]]
    Scaling.fit(splits.train.select(moving))


def county(path: Path, days: int, start: str, duplicate: bool = False) -> Path:
    """Hourly temperatures that count the hours, one other value a day, a variable that never changes."""
    clock = pd.date_range(start, periods=24 * days, freq="h")
    hours = np.arange(24 * days)
    frame = pd.DataFrame(
        {
            "date_time": clock,
            "record_id": "x",
            "temp": hours * 1.0,
            "pm": np.where(hours % 24 == 5, hours, np.nan),
            "flat": 2.0,
        }
    )
    frame.loc[frame.index % 7 == 3, ["temp", "pm", "flat"]] = np.nan
    if duplicate:
        frame = pd.concat([frame, frame.iloc[[1]].assign(temp=3.0)])
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def air(cache, monkeypatch):
    """A subset EPA-Air of two counties."""
    files = []
    for name, days, duplicate in (("North", 40, True), ("South", 60, False)):
        path = county(cache / "time_imm" / f"EPA-Air-{name}.csv", days, "2024-01-01", duplicate)
        files.append((f"data/EPA-Air/processed/{name}/time_series.csv", sources.digest(path)))
    monkeypatch.setattr(time_imm, "_files", lambda subset: files)
    monkeypatch.setattr(sources, "_told", set())
    return cache / "time_imm"


@pytest.mark.filterwarnings("ignore::neurodyn.datasets.sources.NoLicenceStated")
def test_windows_are_chronological_and_do_not_overlap(air) -> None:
    splits = time_imm.load("EPA-Air", history=5.0, horizon=2.0)
    assert splits.info["left_out"] == ("flat",)
    assert splits.train.variables == ("temp", "pm")
    ends = {}
    seen: set[tuple[str, float]] = set()
    for part, batch in zip(("train", "validation", "test"), splits[:3], strict=True):
        history, future = histories(batch, **splits.info["protocols"]["window"])
        assert history.num_rows == batch.num_rows  # every window has both sides
        assert 0 < history.first_time.min() <= history.last_time.max() <= 5 < future.first_time.min()
        assert future.last_time.max() <= 7
        for row, name in enumerate(future.ids):
            entity = name.split("@")[0]
            start = (pd.Timestamp(splits.info["starts"][name]) - pd.Timestamp("2024-01-01", tz="UTC")) / pd.Timedelta(
                days=1
            )
            present = future.mask[row, :, 0]
            absolute = future.times[row][present] + start
            # temperatures count hours, so that every value tells its own time
            assert torch.allclose(future.values[row, :, 0][present].double(), absolute * 24, atol=1e-3)
            for moment in absolute.tolist():
                assert (entity, round(moment, 6)) not in seen
                seen.add((entity, round(moment, 6)))
            ends.setdefault((entity, part), []).extend(absolute.tolist())
    for entity in ("North", "South"):
        assert max(ends[entity, "train"]) < min(ends[entity, "validation"])
        assert max(ends[entity, "validation"]) < min(ends[entity, "test"])


@pytest.mark.filterwarnings("ignore::neurodyn.datasets.sources.NoLicenceStated")
def test_values_of_one_time_are_averaged(air) -> None:
    frame = time_imm.table("EPA-Air")
    assert not frame.duplicated(["entity", "date_time"]).any()
    assert frame[frame["entity"] == "North"]["temp"].iloc[1] == 2.0  # of 1 and 3


def test_a_missing_licence_is_told_and_broken_files_are_refused(air) -> None:
    with pytest.warns(sources.NoLicenceStated, match="Time-IMM"):
        time_imm.load("EPA-Air", history=5.0, horizon=2.0)
    path = air / "EPA-Air-North.csv"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="altered or cut short"):
        time_imm.load("EPA-Air")
    path.write_text("date_time,record_id,temp\nnever,x,1\n")
    with pytest.raises(ValueError, match=r"EPA-Air-North\.csv: altered or cut short"):
        time_imm.parse(path, "North")
    (air / "EPA-Air.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"EPA-Air\.parquet: altered or cut short"):
        time_imm.load("EPA-Air")


@pytest.mark.filterwarnings("ignore::neurodyn.datasets.sources.NoLicenceStated")
def test_bad_options_are_named(air) -> None:
    with pytest.raises(ValueError, match="subset: 'EPA' given"):
        time_imm.load("EPA")
    with pytest.raises(ValueError, match="history, horizon, stride: 5.0, -1.0"):
        time_imm.load("EPA-Air", history=5.0, horizon=-1.0)
    with pytest.raises(ValueError, match="no training window"):
        time_imm.load("EPA-Air", history=90.0)


def test_checksums_cover_every_entity() -> None:
    assert {name: len(time_imm._files(name)) for name in time_imm.WINDOWS} == {
        "EPA-Air": 8,
        "ILINet": 1,
        "StudentLife": 20,
        "RepoHealth": 4,
    }
    assert all(len(checksum) == 64 for name in time_imm.WINDOWS for _, checksum in time_imm._files(name))


@real("time_imm", "ILINet.parquet")
@pytest.mark.filterwarnings("ignore::neurodyn.datasets.sources.NoLicenceStated")
def test_the_real_influenza_series() -> None:
    splits = time_imm.load("ILINet")
    assert splits.info["left_out"] == ("AGE 25-49", "AGE 50-64")  # reported in the last season only
    Scaling.fit(splits.train).apply(splits.test)
    assert all(part.num_rows >= 10 for part in splits[:3])
