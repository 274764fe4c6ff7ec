"""physionet2012: the parser of the official archives, and what is made of the records."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pandas as pd
import pytest
import torch

from neurodyn.datasets import physionet2012, sources
from neurodyn.series import SeriesBatch

STAYS = {
    k: f"Time,Parameter,Value\n00:00,RecordID,{k}\n00:00,Age,{40 + k}\n00:00,Gender,{k % 2 if k > 1 else -1}\n"
    f"00:00,Height,-1\n00:00,ICUType,{k % 4 + 1}\n00:00,Weight,{70 + k}\n00:07,HR,{60 + k}\n00:07,Weight,99\n"
    f"01:30,Urine,100\n01:30,Urine,300\n01:30,Temp,-17.8\n01:45,,7\n47:15,HR,{90 + k}\n47:15,MechVent,1\n"
    for k in range(1, 11)
}
STAYS[11] = "Time,Parameter,Value\n00:00,RecordID,11\n00:00,Age,50\n00:00,ICUType,2\n00:00,Weight,-1\n03:00,Weight,80\n"


def archive(path: Path, stays: dict[int, str]) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for number, text in stays.items():
            member = tarfile.TarInfo(f"set-a/{number:06d}.txt")
            member.size = len(text)
            file.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A set a of eleven stays in an otherwise empty cache."""
    monkeypatch.setattr(sources, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(physionet2012, "cache_folder", lambda: tmp_path)
    monkeypatch.delenv("NEURODYN_DATA", raising=False)
    monkeypatch.setattr(physionet2012, "STAYS", len(STAYS))
    folder = tmp_path / "physionet2012"
    folder.mkdir()
    made = archive(folder / "set-a.tar.gz", STAYS)
    deaths = "".join(f"{k},6,1,5,-1,{int(k > 8)}\n" for k in STAYS)
    (folder / "Outcomes-a.txt").write_text(f"RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death\n{deaths}")
    checksums = {"set-a.tar.gz": sources.digest(made), "Outcomes-a.txt": sources.digest(folder / "Outcomes-a.txt")}
    monkeypatch.setattr(physionet2012, "SHA256", checksums)
    return folder


def test_records_are_parsed_as_written(tmp_path) -> None:
    frame = physionet2012.parse(archive(tmp_path / "a.tar.gz", {132539: STAYS[2]}), 1)
    assert list(frame.columns) == ["RecordID", "minute", "param", "value"]
    assert set(frame["RecordID"]) == {132539}
    assert len(frame) == 14 - 1  # the line without a parameter's name is left out
    rates = frame[frame["param"] == "HR"]
    assert rates["minute"].tolist() == [7, 47 * 60 + 15]
    assert rates["value"].tolist() == [62.0, 92.0]


def test_stays_become_rows_with_averaged_minutes_descriptors_and_outcomes(tiny) -> None:
    splits = physionet2012.load()
    assert splits.info["left_out"] == 1  # stay 11 has a weight only
    assert (splits.train.num_rows, splits.validation.num_rows, splits.test.num_rows) == (6, 2, 2)
    names = splits.info["static_names"]
    train = splits.train
    hr, urine, temp = (train.variables.index(name) for name in ("HR", "Urine", "Temp"))
    known = [int(name) for name in train.ids if int(name) > 1]
    for part in splits[:3]:
        for row, name in enumerate(part.ids):
            k = int(name)
            assert part.times[row].tolist() == pytest.approx([7 / 60, 1.5, 47.25])
            assert part.values[row, [0, 2], hr].tolist() == [60 + k, 90 + k]
            assert part.values[row, 1, urine].item() == 200
            assert not part.mask[row, :, temp].any()
            assert int(part.mask[row].sum()) == 3
            static = dict(zip(names, part.static[row].tolist(), strict=True))
            assert (static["Age"], static["Weight"]) == (40 + k, 70 + k)
            assert (static["Height"], static["Height_missing"]) == (0, 1)
            assert static["Gender_missing"] == (k == 1)
            mean = sum(j % 2 for j in known) / len(known)
            assert static["Gender"] == pytest.approx(mean if k == 1 else k % 2)
            assert [static[f"ICUType_{j}"] for j in (1, 2, 3, 4)] == [float(k % 4 + 1 == j) for j in (1, 2, 3, 4)]
            assert part.labels[row].item() == (k > 8)


def test_the_archive_is_parsed_once(tiny) -> None:
    first = physionet2012.load()
    assert (tiny / "set_a.parquet").is_file()
    (tiny / "set-a.tar.gz").unlink()
    assert torch.equal(physionet2012.load().train.values, first.train.values)
    few = physionet2012.load(max_rows=5)
    assert sum(part.num_rows for part in few[:3]) == 5


def test_the_interpolation_benchmark_has_descriptors_among_its_values_and_the_largest_as_units(tiny) -> None:
    splits = physionet2012.interpolation("a")
    assert (splits.train.num_rows, splits.validation.num_rows, splits.test.num_rows) == (7, 2, 2)
    assert len(set(splits.train.variables)) == 41
    place = {name: k for k, name in enumerate(splits.train.variables)}
    unit = dict(zip(splits.train.variables, splits.info["unit"].tolist(), strict=True))
    assert (unit["Age"], unit["HR"], unit["Urine"], unit["Weight"], unit["pH"]) == (50, 100, 200, 99, 1)
    for part in splits[:3]:
        for row, name in enumerate(part.ids):
            if name == "11":
                assert part.times[row, :2].tolist() == [0, 3] and part.values[row, 1, place["Weight"]] == 80
                continue
            assert part.times[row].tolist() == pytest.approx([0, 7 / 60, 1.5, 47.25])
            assert part.values[row, 0, place["Age"]] == 40 + int(name)
            assert not part.mask[row, 0, place["Height"]]  # -1
            assert part.values[row, 3, place["MechVent"]] == 1
    with pytest.raises(ValueError, match="sets: 'c' given"):
        physionet2012.interpolation("c")


@pytest.mark.parametrize("shown", [0.5, 0.9])
def test_a_share_of_the_visits_is_shown_and_at_least_one(shown: float) -> None:
    mask = torch.ones(3, 40, 2, dtype=torch.bool)
    mask[1, 10:] = mask[2, 1:] = False
    mask[0, ::3, 0] = False
    batch = SeriesBatch(torch.arange(40.0).expand(3, -1), torch.randn(3, 40, 2), mask)
    held = physionet2012.hidden(batch, shown, 0)
    assert (held & ~batch.present).sum() == 0
    assert (batch.present & ~held).sum(1).tolist() == [40 * shown, 10 * shown, 1]
    assert torch.equal(held, physionet2012.hidden(batch, shown, 0))
    assert not torch.equal(held, physionet2012.hidden(batch, shown, 1))


def one_line(error: pytest.ExceptionInfo, *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_broken_files_say_what_to_delete(tiny, tmp_path) -> None:
    whole = (tiny / "set-a.tar.gz").read_bytes()
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError) as caught:
        physionet2012.parse(cut, len(STAYS))
    one_line(caught, "cut.tar.gz", "delete it")
    with pytest.raises(ValueError) as caught:
        physionet2012.parse(tiny / "set-a.tar.gz", 4000)
    one_line(caught, "11 stays", "4000")
    for text in ("Time,Value\n", STAYS[1].replace("00:07", "0007"), STAYS[1].replace("61", "sixty")):
        with pytest.raises(ValueError) as caught:
            physionet2012.parse(archive(tmp_path / "odd.tar.gz", {1: text}), 1)
        one_line(caught, "odd.tar.gz", "delete it")
    (tiny / "set-a.tar.gz").write_bytes(whole[:-5])
    with pytest.raises(ValueError) as caught:
        physionet2012.load()
    one_line(caught, "set-a.tar.gz", "altered or cut short", "delete it")
    (tiny / "set_a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError) as caught:
        physionet2012.load()
    one_line(caught, "set_a.parquet", "delete it")
    pd.DataFrame({"RecordID": [1], "minute": [0], "param": ["HR"], "value": [1.0]}).to_parquet(tiny / "set_a.parquet")
    with pytest.raises(ValueError) as caught:
        physionet2012.load()
    one_line(caught, "set_a.parquet", "1 stays", "11 wanted")


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="sets: 'c' given"):
        physionet2012.load("c")
    with pytest.raises(ValueError, match="max_rows: 3 given"):
        physionet2012.load(max_rows=3)


HERE = Path(os.environ.get("NEURODYN_DATA", "")) / "physionet2012" / "set_a.parquet"


@pytest.mark.skipif(not os.environ.get("NEURODYN_DATA") or not HERE.is_file(), reason="NEURODYN_DATA does not hold it")
def test_the_real_set_has_the_published_counts() -> None:
    splits = physionet2012.load(max_rows=300)
    assert sum(part.num_rows for part in splits[:3]) + splits.info["left_out"] == 300
    assert max(float(part.last_time.max()) for part in splits[:3]) <= 48
    assert physionet2012.outcomes("a").sum() == 554  # in-hospital deaths of set a
