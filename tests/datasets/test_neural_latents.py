"""The benchmark's sets on files in its layout, against tensors cut from the whole binned session in whole ms."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from nwb_files import HELD_OUT, SECONDS, TRIALS, UNITS, events, spikes, write_nwb

from neurodyn.datasets.neural_latents import (
    BENCHMARK_SETS,
    condition_means,
    condition_trials,
    read_benchmark_set,
    suffixed,
)
from neurodyn.datasets.spike_files import read_nlb
from neurodyn.datasets.spikes import counts_of
from neurodyn.metrics.neural import population_scores
from neurodyn.recipes.neural_population import score
from neurodyn.recipes.population_task import Config, load

SETS = [
    ("mc_maze", 0.02, 35, -250),
    ("mc_maze", 0.005, 140, -250),
    ("mc_rtt", 0.02, 30, 0),
    ("mc_rtt", 0.005, 120, 0),
    ("area2_bump", 0.02, 30, -100),
    ("dmfc_rsg", 0.02, 75, -1500),
    ("dmfc_rsg", 0.005, 300, -1500),
    ("mc_maze_small", 0.02, 35, -250),
]
# what the benchmark's own code draws for these trials with its seed 0, in bins
LATE = {"train": [8, 11, 9, 8, 6, 10, 7, 13, 14, 6, 12, 8], "val": [8, 11, 9, 8, 6, 10]}


def tenths(times: np.ndarray) -> np.ndarray:
    """Tenths of ms, exactly."""
    return np.round(times * 1e4).astype(int)


def session(bin_ms: int, fine: np.ndarray | None = None) -> np.ndarray:
    """Counts of the whole session (bins, units), from bins of 1 ms."""
    if fine is None:
        fine = np.stack([np.bincount(np.round(t * 1000, 6).astype(int), minlength=1000 * SECONDS) for t in spikes()], 1)
    return fine.reshape(-1, bin_ms, UNITS).sum(1)


def first_bins(name: str, rows: np.ndarray, bin_ms: int, late: np.ndarray) -> np.ndarray:
    """The first bins at or after begin of the windows, by whole numbers."""
    table = events().iloc[rows]
    start = next(begin for known, _, _, begin in SETS if known == name)
    at = tenths(table[BENCHMARK_SETS[name].align].to_numpy()) + 10 * (start + late * bin_ms)
    return -(-at // (10 * bin_ms))


def rows_of(*parts: str) -> np.ndarray:
    return np.flatnonzero(events()["split"].isin(parts))


@pytest.mark.parametrize(("name", "width", "bins", "start"), SETS)
def test_windows_bins_and_splits(name: str, width: float, bins: int, start: int, tmp_path: Path) -> None:
    write_nwb(tmp_path / "a.nwb", name)
    bin_ms, table = round(1000 * width), events()
    whole = session(bin_ms)
    for parts in (("train",), ("val",), ("train", "val"), ("test",)):
        rows = rows_of(*parts)
        found = read_benchmark_set(tmp_path / "a.nwb", name, bin_width=width, part=parts)
        assert found.observed == bins and found.batch.num_times == bins + 200 // bin_ms
        assert found.held_out == HELD_OUT and found.trials.index.tolist() == rows.tolist()
        latest = np.floor((1500 - table["tp"].to_numpy()[rows]).clip(0, 300) / bin_ms)
        assert (found.jitter >= 0).all() and (found.jitter <= latest).all()
        assert found.jitter.any() == (name == "dmfc_rsg" and parts != ("test",))
        first = first_bins(name, rows, bin_ms, found.jitter)
        expected = whole[first[:, None] + np.arange(bins + 200 // bin_ms)].astype(float)
        if name == "dmfc_rsg" and "train" not in parts:  # held-out units are scored from set to go
            at = 10 * bin_ms * (first[:, None] + np.arange(bins))
            begin, end = (tenths(table[column].to_numpy()[rows])[:, None] for column in ("set_time", "go_time"))
            scored = (at >= begin) & (at < end)
            assert (scored.sum(1) >= 640 // bin_ms).all()
            for unit in HELD_OUT:
                expected[:, :bins, unit][~scored] = np.nan
        assert np.array_equal(counts_of(found.batch), expected, equal_nan=True)


def test_jitter_is_the_benchmarks(tmp_path: Path) -> None:
    write_nwb(tmp_path / "a.nwb", "dmfc_rsg")
    for part, wanted in LATE.items():
        assert read_benchmark_set(tmp_path / "a.nwb", "dmfc_rsg", part=part).jitter.tolist() == wanted
    other = read_benchmark_set(tmp_path / "a.nwb", "dmfc_rsg", seed=1)
    assert other.jitter.tolist() != LATE["train"]


@pytest.mark.parametrize(
    ("name", "lag"), [("mc_maze", 100), ("mc_rtt", 140), ("area2_bump", -20), ("mc_maze_large", 120)]
)
def test_behaviour_follows_by_its_lag(name: str, lag: int, tmp_path: Path) -> None:
    write_nwb(tmp_path / "a.nwb", name)
    found = read_benchmark_set(tmp_path / "a.nwb", name)
    start = "mc_maze" if name == "mc_maze_large" else name
    first = first_bins(start, rows_of("train"), 20, 0)
    t = 0.02 * (first[:, None] + np.arange(found.observed)) + lag / 1000
    assert found.behaviour is not None
    wanted = np.stack([np.sin(9 * t), np.cos(5 * t) + 0.1 * t], -1)
    np.testing.assert_allclose(found.behaviour[1:-1], wanted[1:-1], atol=2e-3)  # slow moves pass the filter
    fast = read_benchmark_set(tmp_path / "a.nwb", name, bin_width=0.001)
    at = -(-tenths(events()[BENCHMARK_SETS[name].align].to_numpy()[:1]) // 10)
    t = 0.001 * (at + lag + round(1000 * BENCHMARK_SETS[name].start))
    assert fast.behaviour is not None and abs(fast.behaviour[0, 0, 0] - np.sin(9 * t[0])) < 0.01  # not filtered


def test_groups_and_timing(tmp_path: Path) -> None:
    write_nwb(tmp_path / "a.nwb", "area2_bump")
    found = read_benchmark_set(tmp_path / "a.nwb", "area2_bump", part="val")
    assert found.groups is not None and found.groups[:, 1].tolist() == [False, True] * 3
    assert (found.groups.sum(1) == 1).all()
    write_nwb(tmp_path / "b.nwb", "dmfc_rsg")
    found = read_benchmark_set(tmp_path / "b.nwb", "dmfc_rsg", part="val")
    rows, table = rows_of("val"), events()
    wanted = table[["is_eye", "theta", "is_short", "tp"]].to_numpy()[rows]
    wanted[rows == 6] = np.nan  # the outlier
    assert found.timing is not None and np.array_equal(found.timing, wanted, equal_nan=True)
    assert found.behaviour is None


@pytest.mark.parametrize("name", ["mc_maze", "area2_bump"])
def test_psths_are_means_of_the_smoothed_session(name: str, tmp_path: Path) -> None:
    write_nwb(tmp_path / "a.nwb", name)
    chosen, bins = BENCHMARK_SETS[name], read_benchmark_set(tmp_path / "a.nwb", name).observed
    sd = round(1000 * chosen.smooth)
    place = np.arange(6 * sd) - (6 * sd - 1) / 2
    kernel = np.exp(-0.5 * (place / sd) ** 2)
    fine = session(1)
    smoothed = session(
        20, np.stack([np.convolve(fine[:, k], kernel / kernel.sum(), mode="same") for k in range(UNITS)], 1)
    )
    rows = rows_of("train", "val")
    first = first_bins(name, rows, 20, 0)
    means = condition_means(tmp_path / "a.nwb", name)
    assert means is not None
    groups = condition_trials(events().iloc[rows], chosen.conditions)
    assert len(groups) == len(means.psth) == 6
    for psth, trials, group in zip(means.psth, means.trials, groups, strict=True):
        wanted = smoothed[first[group][:, None] + np.arange(bins)].mean(0)
        np.testing.assert_allclose(psth, wanted, atol=1e-10)
        assert np.array_equal(rows_of("val")[trials], np.intersect1d(rows[group], rows_of("val")))


def test_psths_from_set_to_go_are_as_long_as_their_shortest_trial(tmp_path: Path) -> None:
    write_nwb(tmp_path / "a.nwb", "dmfc_rsg")
    means = condition_means(tmp_path / "a.nwb", "dmfc_rsg")
    table, rows = events(), rows_of("train", "val")
    rows = rows[rows != 6]
    groups = condition_trials(table.iloc[rows], BENCHMARK_SETS["dmfc_rsg"].conditions)
    assert means is not None and means.psth.shape == (len(groups), 75, UNITS)
    ends = {column: -(-tenths(table[column].to_numpy()[rows]) // 200) for column in ("set_time", "go_time")}
    length = ends["go_time"] - ends["set_time"]
    some_left_out = False
    for psth, group in zip(means.psth, groups, strict=True):
        kept = length[group] >= 0.8 * length[group].mean()
        some_left_out |= not kept.all()
        assert (~np.isnan(psth[:, 0])).sum() == length[group][kept].min()
        assert np.isfinite(psth[-1]).all()
    assert some_left_out


def test_bins_that_were_not_recorded_are_unobserved(tmp_path: Path) -> None:
    rows = rows_of("val")
    at = events()["move_onset_time"][rows[1]]
    write_nwb(tmp_path / "a.nwb", intervals={4: [[0.0, at - 0.1], [at + 0.1, float(SECONDS)]]})
    found = counts_of(read_benchmark_set(tmp_path / "a.nwb", "mc_maze", part="val").batch)
    missing = np.isnan(found)
    assert missing[1, :, 4].sum() in (10, 11) and missing.sum() == missing[1, :, 4].sum()
    write_nwb(tmp_path / "b.nwb", intervals={4: [[0.0, 10.0]]})
    with pytest.raises(ValueError, match="units: unit4 was not recorded in all bins of trial-4 in b.nwb"):
        read_benchmark_set(tmp_path / "b.nwb", "mc_maze")
    lost = read_benchmark_set(tmp_path / "b.nwb", "mc_maze", part="test").batch.mask[..., 4]
    assert lost[0].all() and not lost[1:].any()


def test_the_benchmarks_own_tensors_are_the_same(tmp_path: Path) -> None:
    write_nwb(tmp_path / "a.nwb")
    train, val = (read_benchmark_set(tmp_path / "a.nwb", "mc_maze", part=part) for part in ("train", "val"))
    order, bins = [0, 1, 3, 4, 2, 5], slice(0, 35)  # held-in units first
    whole = session(20)
    tensors = {
        part: whole[first_bins("mc_maze", rows_of(part), 20, 0)[:, None] + np.arange(45)][..., order].astype(float)
        for part in ("train", "val")
    }
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for part, name in (("train", "train"), ("val", "eval")):
            table = tensors[part]
            file[f"{name}_spikes_heldin"], file[f"{name}_spikes_heldout"] = table[:, bins, :4], table[:, bins, 4:]
            file[f"{name}_spikes_heldin_forward"] = table[:, 35:, :4]
            file[f"{name}_spikes_heldout_forward"] = table[:, 35:, 4:]
    parts = read_nlb(tmp_path / "a.h5", 0.02)
    assert torch.equal(parts.train.values, train.batch.values[..., order])
    assert torch.equal(parts.evaluation.values, val.batch.values[..., order])
    assert parts.held_out == (4, 5) and parts.observed == 35


def test_one_command_has_every_score_of_a_set(tmp_path: Path) -> None:
    expected = {
        "mc_maze": {"co-bps", "fp-bps", "decoding R2", "PSTH R2"},
        "mc_rtt": {"co-bps", "fp-bps", "decoding R2"},
        "area2_bump": {"co-bps", "fp-bps", "decoding R2", "PSTH R2"},
        "dmfc_rsg": {"co-bps", "fp-bps", "PSTH R2", "tp correlation"},
    }
    for name, columns in expected.items():
        write_nwb(tmp_path / "a.nwb", name)
        task = load(Config(data=tmp_path / "a.nwb", set=name))
        random = np.random.default_rng(0)
        rates = [random.uniform(0.1, 0.3, (len(part), part.num_times, UNITS)) for part in (task.train, task.test)]
        found = score(task, *rates)
        assert set(found) == columns and all(np.isfinite(value) for value in found.values())
    psth, trials = task.further["psth"]
    perfect = np.zeros_like(rates[1])
    # rates that are the PSTHs, moved back by the jitter, score one
    for mean, chosen in zip(psth, trials, strict=True):
        for k in chosen:
            late = int(task.further["jitter"][k])
            perfect[k, : 75 - late] = np.nan_to_num(mean)[late:]
    assert population_scores(
        perfect, counts_of(task.test), task.held_out, 75, psth=(psth, trials), jitter=task.further["jitter"]
    )["PSTH R2"] == pytest.approx(1.0)


def test_bad_input_is_named(tmp_path: Path) -> None:
    write_nwb(tmp_path / "a.nwb")
    with pytest.raises(ValueError, match="name: 'mc_mase' given"):
        read_benchmark_set(tmp_path / "a.nwb", "mc_mase")
    with pytest.raises(ValueError, match="bin_width: 0.0025 s given, a whole number of ms"):
        read_benchmark_set(tmp_path / "a.nwb", "mc_maze", bin_width=0.0025)
    with pytest.raises(ValueError, match="no column 'go_time' in a.nwb"):
        read_benchmark_set(tmp_path / "a.nwb", "dmfc_rsg")
    assert (suffixed("mc_maze", 0.005), suffixed("mc_maze", 0.02)) == ("mc_maze", "mc_maze_20")
    assert len(events()) == TRIALS
