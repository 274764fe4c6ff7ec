"""uea_ucr: the official .ts layout, the split, dropping; the sets where NEURODYN_DATA holds them."""

import zipfile

import numpy as np
import pytest
import torch

from neurodyn.datasets import load, sources, stratified, uea_ucr

TS = """# a comment
@problemName Toy
@timestamps false
@univariate false
@classLabel true walk run
@data
1.0,2.0,?:4,5,6:walk
7,8,9:1,2,3:run
0.5,0.25:1,1:run
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(uea_ucr, "cache_folder", lambda: tmp_path)
    monkeypatch.delenv("NEURODYN_DATA", raising=False)
    (tmp_path / "uea_ucr").mkdir()
    return tmp_path


def test_ts_files_are_read():
    values, names = uea_ucr.read_ts(TS)
    assert values.shape == (3, 3, 2) and names.tolist() == ["walk", "run", "run"]
    np.testing.assert_array_equal(values[0], [[1, 4], [2, 5], [np.nan, 6]])
    np.testing.assert_array_equal(values[2], [[0.5, 1], [0.25, 1], [np.nan, np.nan]])
    for broken, message in [
        (TS.replace("@timestamps false", "@timestamps true"), "timestamps"),
        (TS.split("1.0")[0], "no series"),
        (TS + "1,2:walk\n", "other than 2 variables"),
    ]:
        with pytest.raises(ValueError, match=message):
            uea_ucr.read_ts(broken)


def test_an_archive_becomes_splits_with_dropped_observations(cache):
    rng = np.random.default_rng(0)
    lines = [f"{','.join(map(str, rng.normal(size=12).round(3)))}:{k % 2}" for k in range(40)]
    with zipfile.ZipFile(cache / "uea_ucr" / "Toy.zip", "w") as content:
        for part, own in (("TRAIN", lines[:25]), ("TEST", lines[25:])):
            content.writestr(f"Toy_{part}.ts", "@data\n" + "\n".join(own))
    with pytest.warns(sources.NoLicenceStated, match="uea_ucr Toy"):
        splits = load("uea_ucr", subset="Toy", split=1, missing=0.5)
    assert [len(part) for part in splits[:3]] == [28, 6, 6] and splits.info["classes"] == ("0", "1")
    for part in splits[:3]:
        assert bool((part.labels.bincount() * 2 == len(part)).all())
        assert 0.35 < part.mask.double().mean() < 0.65 and bool(part.present.any(1).all())
        assert part.times.min() >= 0 and part.times.max() <= 1
    again, other = (uea_ucr.load("Toy", split, 0.5) for split in (1, 2))
    assert torch.equal(again.train.values, splits.train.values) and again.train.ids != other.train.ids
    assert uea_ucr.load("Toy", 1).train.ids == splits.train.ids  # the same rows, whatever is dropped
    assert (cache / "uea_ucr" / "Toy.npz").is_file()


def test_long_series_become_means_over_blocks():
    values = np.arange(10.0, dtype=np.float32).reshape(1, 10, 1)
    values[0, 4] = values[0, 6:9] = np.nan
    thinned = uea_ucr.block_means(values, 3)
    np.testing.assert_array_equal(thinned[0, :, 0], [1, 4, np.nan, 9])  # 3 and 5; none; the last block has one value
    assert uea_ucr.block_means(values, 1) is values


def test_bad_input_is_named(cache):
    with pytest.raises(ValueError, match="missing: 1.0 given"):
        uea_ucr.load("Toy", missing=1.0)
    with pytest.raises(ValueError, match="longest: 0 given"):
        uea_ucr.load("Toy", longest=0)
    (cache / "uea_ucr" / "Toy.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="Toy.npz: altered or cut short"):
        uea_ucr.pooled("Toy")


def test_stratified_gives_every_part_every_class():
    labels = torch.tensor([0] * 3 + [1] * 50 + [2] * 7)
    parts = stratified(labels, (0.7, 0.15, 0.15), seed=3)
    assert sorted(torch.cat(parts).tolist()) == list(range(60))
    assert all(labels[part].unique().tolist() == [0, 1, 2] for part in parts)
    with pytest.raises(ValueError, match="labels: 2 rows of class 1 given, 3 or more wanted"):
        stratified(torch.tensor([0, 0, 0, 1, 1]), (0.7, 0.15, 0.15), 0)
    with pytest.raises(ValueError, match="labels: none given"):
        stratified(None, (0.5, 0.5), 0)


@pytest.mark.filterwarnings("ignore::neurodyn.datasets.sources.NoLicenceStated")
@pytest.mark.parametrize(
    ("name", "rows", "size", "classes"),
    [
        ("JapaneseVowels", 640, 12, 9),
        ("ItalyPowerDemand", 1096, 1, 2),
        ("BasicMotions", 80, 6, 4),
        ("PLAID", 1074, 1, 11),
    ],
)
def test_real_sets(data_folder, name, rows, size, classes):
    splits = uea_ucr.load(name)
    assert sum(len(part) for part in splits[:3]) == rows and splits.train.num_variables == size
    assert len(splits.info["classes"]) == classes == int(splits.train.labels.max()) + 1
    assert max(float(part.times.max()) for part in splits[:3]) == pytest.approx(1.0)
    short = uea_ucr.load(name, longest=50)
    assert max(part.num_times for part in short[:3]) <= 50 and short.train.ids == splits.train.ids
    assert max(float(part.times.max()) for part in short[:3]) == pytest.approx(1.0)
