"""Spikes from arrays, tables and files: known counts, one tensor by every route, and bad input by name."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from nwb_files import SECONDS, TRIALS, UNITS, events, spikes, write_nwb

from neurodyn import datasets
from neurodyn.datasets.nwb import read_nwb
from neurodyn.datasets.pynapple_objects import read_pynapple
from neurodyn.datasets.spike_files import read_lfads, read_nlb, write_submission
from neurodyn.datasets.spikes import Window, bin_spikes, counts_of, read_spike_table, sample_behaviour, spike_batch


def test_spikes_on_edges_belong_to_the_bin_that_begins_there() -> None:
    times = np.array([0.0, 0.1, 0.3, 0.2999, 0.7, -0.0001, 0.5999, 0.6])
    found = bin_spikes(times, np.zeros(8, int), [0.0], Window(0.0, 0.6, 0.1), num_units=2)
    assert found[0, :, 0].tolist() == [1, 1, 1, 1, 0, 1] and found[0, :, 1].sum() == 0
    # the same a long way into a session, where sums round
    later = bin_spikes(times + 4397.0, np.zeros(8, int), [4397.0], Window(0.0, 0.6, 0.1), num_units=2)
    assert np.array_equal(found, later)


def test_binning_is_that_of_numpy_histograms() -> None:
    random = np.random.default_rng(0)
    times, units, zero = random.uniform(0, 50, 3000), random.integers(0, 4, 3000), random.uniform(5, 45, 9)
    window = Window(-0.3, 0.5, 0.05)
    found = bin_spikes(times, units, zero, window, num_units=4)
    for row, at in enumerate(zero):
        for unit in range(4):
            expected = np.histogram(times[units == unit] - at, window.edges)[0]
            assert np.array_equal(found[row, :, unit], expected)


def test_behaviour_is_averaged_over_bins_with_its_lag() -> None:
    t = np.arange(0, 10, 0.001)
    found = sample_behaviour(t, np.stack([t, 2 * t], 1), [3.0], Window(-0.1, 0.1, 0.02), lag=0.5)
    middles = 3.5 + np.arange(-0.09, 0.1, 0.02)
    np.testing.assert_allclose(found[0], np.stack([middles, 2 * middles], 1), atol=1e-3)
    coarse = np.arange(0, 10, 0.05)  # samples rarer than bins are interpolated
    rare = sample_behaviour(coarse, coarse, [3.01], Window(0, 0.12, 0.04))[0, :, 0]
    np.testing.assert_allclose(rare, 3.01 + np.array([0.02, 0.06, 0.1]), atol=0.03)
    gap = sample_behaviour(t[:3000], t[:3000], [2.95], Window(0, 0.2, 0.02))[0, :, 0]
    assert np.isfinite(gap[:2]).all() and np.isnan(gap[-3:]).all()


def by_hand(starts: np.ndarray, window: Window) -> np.ndarray:
    """Counts (trials, bins, units) by numpy's histograms of times that are whole numbers of ns."""
    edges = np.round(window.edges * 1e9).astype(int)
    ends = np.append(edges[:-1], edges[-1] - 1)  # numpy's last bin is closed
    whole = [np.round(times * 1e9).astype(int) for times in spikes()]
    return np.stack([np.stack([np.histogram(t - round(at * 1e9), ends)[0] for t in whole], 1) for at in starts]).astype(
        float
    )


def test_nwb_tables_and_pynapple_give_the_same_tensors(tmp_path: Path) -> None:
    window, table = Window(-0.25, 0.65, 0.02), events()
    starts = table["move_onset_time"].to_numpy()
    expected = by_hand(starts, window)
    write_nwb(tmp_path / "a.nwb")
    recording = read_nwb(tmp_path / "a.nwb", window, align="move_onset_time", behaviour="hand_vel", lag=0.1)
    assert np.array_equal(counts_of(recording.batch), expected)
    assert recording.observed == 45 and recording.held_out == (2, 5)
    middles = starts[:, None] - 0.25 + 0.1 + 0.02 * np.arange(45) + 0.0095
    assert recording.behaviour is not None
    np.testing.assert_allclose(recording.behaviour[..., 0], np.sin(9 * middles), atol=0.01)
    some = read_nwb(tmp_path / "a.nwb", window, align="move_onset_time", split=("val", "test"))
    assert np.array_equal(counts_of(some.batch), expected[np.arange(TRIALS) % 4 > 1])

    fired = pd.DataFrame(
        {"time": np.concatenate(spikes()), "unit": np.repeat(np.arange(UNITS), list(map(len, spikes())))}
    )
    trials = pd.DataFrame({"start": starts, "kind": ["b", "a"] * 12}, index=range(TRIALS))
    fired.sample(frac=1, random_state=0).to_parquet(tmp_path / "s.parquet")
    trials.to_csv(tmp_path / "t.csv", index=False)
    batch = read_spike_table(tmp_path / "s.parquet", tmp_path / "t.csv", window, label="kind")
    assert np.array_equal(counts_of(batch), expected)
    assert batch.labels is not None and batch.labels.tolist() == [1, 0] * 12

    units = {k + 3: SimpleNamespace(t=times) for k, times in enumerate(spikes())}
    batch = read_pynapple(
        units, napped(table, kind=["b", "a"] * 12), window, align=SimpleNamespace(t=starts), label="kind"
    )
    assert np.array_equal(counts_of(batch), expected) and batch.variables[0] == "unit3"
    assert batch.labels is not None and batch.labels.tolist() == [1, 0] * 12


def napped(table: pd.DataFrame, **columns: list[str]) -> Any:
    """What is read of an `IntervalSet`."""

    class Trials(dict[str, np.ndarray]):
        start, end = table["start_time"].to_numpy(), table["stop_time"].to_numpy()

    return Trials({name: np.array(column) for name, column in columns.items()})


def test_objects_of_pynapple_itself() -> None:
    nap = pytest.importorskip("pynapple")
    table, window = events(), Window(0.0, 0.5, 0.02)
    units = nap.TsGroup({k: nap.Ts(t=times) for k, times in enumerate(spikes())})
    trials = nap.IntervalSet(start=table["start_time"], end=table["stop_time"])
    t = np.arange(0, SECONDS, 0.001)
    moves = nap.TsdFrame(t=t, d=np.stack([np.sin(t), t], 1))
    batch = read_pynapple(units, trials, window, behaviour=moves)
    assert np.array_equal(counts_of(batch), by_hand(table["start_time"].to_numpy(), window))
    assert batch.covariates is not None
    middles = table["start_time"].to_numpy()[:, None] + 0.02 * np.arange(25) + 0.0095
    np.testing.assert_allclose(batch.covariates[..., 1].numpy(), middles, atol=1e-3)


def test_pynapple_behaviour_and_bad_objects() -> None:
    table, window = events(), Window(0.0, 0.5, 0.02)
    units = {k: SimpleNamespace(t=times) for k, times in enumerate(spikes())}
    t = np.arange(0, SECONDS, 0.001)
    batch = read_pynapple(units, napped(table), window, behaviour=SimpleNamespace(t=t, values=t), lag=0.2)
    assert batch.covariates is not None
    middles = table["start_time"].to_numpy()[:, None] + 0.2 + 0.02 * np.arange(25) + 0.0095
    np.testing.assert_allclose(batch.covariates[..., 0].numpy(), middles, atol=1e-3)
    with pytest.raises(ValueError, match="units: a list without 'keys' given, a TsGroup wanted"):
        read_pynapple([1.0], napped(table), window)
    with pytest.raises(ValueError, match="trials: a DataFrame without 'start' given, an IntervalSet wanted"):
        read_pynapple(units, pd.DataFrame({"begin": [0.0]}), window)
    with pytest.raises(ValueError, match="align: 2 times given, 24 wanted"):
        read_pynapple(units, napped(table), window, align=SimpleNamespace(t=[0.0, 1.0]))
    with pytest.raises(ValueError, match="trials: trial-0 covers 0 to 2.3 s"):
        read_pynapple(units, napped(table), Window(0.0, 2.4, 0.02))


def test_lfads_files_in_both_layouts(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    counts, truth = random.poisson(1.0, (8, 6, 5)).astype("float32"), random.uniform(1, 9, (8, 6, 5))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train_data"], file["valid_data"] = counts[:5], counts[5:]
        file["train_truth"], file["valid_truth"] = truth[:5], truth[5:]
    found = read_lfads(tmp_path / "a.h5", 0.01)
    assert np.array_equal(counts_of(found.train), counts[:5]) and found.held_out == () and found.observed == 6
    np.testing.assert_allclose(found.truth["valid"], truth[5:] * 0.01)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        for part, rows in (("train", slice(0, 5)), ("valid", slice(5, 8))):
            file[f"{part}_encod_data"], file[f"{part}_recon_data"] = counts[rows, :4, :3], counts[rows]
    found = read_lfads(tmp_path / "b.h5", 0.01)
    assert found.held_out == (3, 4) and found.observed == 4 and found.train.num_times == 6


def test_submission_has_the_benchmarks_tables(tmp_path: Path) -> None:
    rates = np.random.default_rng(0).uniform(size=(3, 12, 5))
    path = write_submission(tmp_path / "s.h5", "mc_maze_20", {"train": rates, "eval": rates[:2]}, (1, 4), 10)
    with h5py.File(path) as file:
        group = file["mc_maze_20"]
        np.testing.assert_allclose(group["train_rates_heldout"][()], rates[:, :10][..., [1, 4]], rtol=1e-6)
        np.testing.assert_allclose(group["eval_rates_heldin_forward"][()], rates[:2, 10:][..., [0, 2, 3]], rtol=1e-6)


@pytest.mark.parametrize("system", ["lorenz", "chaotic_rnn"])
def test_simulated_populations_have_the_rates_they_state(system: str) -> None:
    options = {"system": system, "conditions": 2, "trials": 400, "neurons": 8, "bins": 10}
    parts = datasets.load("population_dynamics", **options)
    counts, expected = counts_of(parts.train), parts.info["rates"]["train"].numpy()
    for kind in (0, 1):
        same = (parts.train.labels == kind).numpy()
        mean, wanted = counts[same].mean(0), expected[same][0]
        assert (np.abs(mean - wanted) < 5 * np.sqrt(wanted / same.sum()) + 1e-9).all()
    assert expected.mean() == pytest.approx(0.16, rel=0.05)  # 8 Hz in bins of 20 ms
    again = datasets.load("population_dynamics", **options)
    assert torch.equal(again.test.values, parts.test.values)


def test_lorenz_spikes(data_folder: Path) -> None:
    with pytest.warns(UserWarning, match="states no licence"):
        from neurodyn.datasets import sources

        sources._told.discard("lorenz_spikes")
        parts = datasets.load("lorenz_spikes")
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (512, 128, 160)
    kinds = {name: set(part.labels.tolist()) for name, part in (("train", parts.train), ("test", parts.test))}
    assert kinds["train"] == kinds["test"] == set(range(20))
    for name, part in (("train", parts.train), ("test", parts.test)):
        rates = parts.info["rates"][name]
        first = (part.labels == 4).nonzero()[:, 0]
        assert (rates[first] == rates[first[0]]).all()  # a condition is its initial state
        total = counts_of(part).sum((0, 1))
        assert np.abs(total - rates.double().sum((0, 1)).numpy()).max() < 6 * total.max() ** 0.5
    other = datasets.load("lorenz_spikes", split="conditions")
    assert (len(other.train), len(other.validation), len(other.test)) == (480, 160, 160)
    assert not set(other.train.labels.tolist()) & set(other.test.labels.tolist())
    folds = [datasets.load("lorenz_spikes", split="conditions", fold=k) for k in range(5)]
    assert sorted(c for fold in folds for c in set(fold.test.labels.tolist())) == list(range(20))
    assert set(folds[4].test.labels.tolist()) == {4, 9, 14, 19} and len(folds[4].train) == 480
    assert set(folds[4].validation.labels.tolist()) == {0, 5, 10, 15}
    for split, fold in (("file", 0), ("conditions", 5), ("conditions", -1)):
        with pytest.raises(ValueError, match=f"fold: {fold} given for split '{split}', 0 to 4 for 'conditions' wanted"):
            datasets.load("lorenz_spikes", split=split, fold=fold)


def test_bad_input_is_named(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(1.0, (3, 4, 2)).astype(float)

    def changed(where: tuple[object, ...], value: float) -> np.ndarray:
        table = counts.copy()
        table[where] = value
        return table

    with pytest.raises(ValueError, match="0.5 given for neuron n2 in bin 3 of trial-1"):
        spike_batch(changed((1, 3, 1), 0.5), 0.01)
    with pytest.raises(ValueError, match="-1 given for neuron n1 in bin 0 of a"):
        spike_batch(changed((0, 0, 0), -1), 0.01, ids=["a", "b", "c"])
    with pytest.raises(ValueError, match="neuron n2 is silent"):
        spike_batch(changed((..., 1), 0), 0.01)
    with pytest.raises(ValueError, match="neuron n1 has no observed bin in trial-2"):
        spike_batch(changed((2, slice(None), 0), np.nan), 0.01)
    with pytest.raises(ValueError, match="NaN in column 0 at bin 2 of trial-1"):
        spike_batch(counts, 0.01, behaviour=np.where(np.arange(12).reshape(3, 4, 1) == 6, np.nan, 1.0))
    with pytest.raises(ValueError, match="which make 17.5 bins"):
        _ = Window(-0.25, 0.1, 0.02).bins
    with pytest.raises(ValueError, match="trials: trial-1 covers 0 to 0.3 s of its alignment, the window 0 to 0.5"):
        bin_spikes([0.1], [0], [0.0, 2.0], Window(0, 0.5, 0.1), spans=[[0, 1], [2, 2.3]])
    with pytest.raises(ValueError, match="spikes: no column 'cell'"):
        read_spike_table(pd.DataFrame({"time": [1.0]}), pd.DataFrame({"start": [0.0]}), Window(0, 1, 0.1), unit="cell")
    write_nwb(tmp_path / "none.nwb", units=False)
    with pytest.raises(ValueError, match="none.nwb: no units with spike_times"):
        read_nwb(tmp_path / "none.nwb", Window(0, 0.5, 0.02))
    write_nwb(tmp_path / "cut.nwb", intervals={3: [[0.0, 12.0]]})
    with pytest.raises(ValueError, match="units: unit3 was not recorded in trial-4"):
        read_nwb(tmp_path / "cut.nwb", Window(0, 0.5, 0.02), align="move_onset_time")
    write_nwb(tmp_path / "a.nwb")
    with pytest.raises(ValueError, match="no column 'go_cue'"):
        read_nwb(tmp_path / "a.nwb", Window(0, 0.5, 0.02), align="go_cue")
    with pytest.raises(ValueError, match=r"no column 'move_onset' in a.nwb \(did you mean 'move_onset_time'\?\)"):
        read_nwb(tmp_path / "a.nwb", Window(0, 0.5, 0.02), align="move_onset")
    with pytest.raises(ValueError, match="no series 'hand_ve' in a.nwb.*hand_vel"):
        read_nwb(tmp_path / "a.nwb", Window(0, 0.5, 0.02), behaviour="hand_ve")
    with pytest.raises(ValueError, match="behaviour: hand_vel is NaN at bin 0 of trial-23"):
        read_nwb(tmp_path / "a.nwb", Window(0, 0.5, 0.02), align="move_onset_time", behaviour="hand_vel", lag=6.0)
    write_nwb(tmp_path / "late.nwb", intervals={3: [[0.0, events()["start_time"][TRIALS - 1] + 0.6]]})
    with pytest.raises(ValueError, match="units: unit3 was not recorded in trial-23"):
        read_nwb(tmp_path / "late.nwb", Window(0, 0.5, 0.02), forward=0.2)
    assert read_nwb(tmp_path / "late.nwb", Window(0, 0.5, 0.02)).batch.num_rows == TRIALS
    with pytest.raises(ValueError, match="trials: trial-0 covers"):
        read_nwb(tmp_path / "a.nwb", Window(0, 2.5, 0.02), align="move_onset_time")
    beyond = read_nwb(tmp_path / "a.nwb", Window(0, 2.5, 0.02), align="move_onset_time", inside=False)
    assert beyond.batch.num_times == 125
    (tmp_path / "not.h5").write_bytes(b"no")
    with pytest.raises(ValueError, match="not.h5: altered or cut short .*a whole HDF5 file wanted$"):
        read_lfads(tmp_path / "not.h5", 0.01)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = counts
    with pytest.raises(ValueError, match="train_data and valid_data wanted"):
        read_lfads(tmp_path / "other.h5", 0.01)
    with pytest.raises(ValueError, match="no table train_spikes_heldin"):
        read_nlb(tmp_path / "other.h5", 0.02)
    full, quiet = counts + 1, counts + 1
    quiet[..., 1] = 0
    with h5py.File(tmp_path / "quiet.h5", "w") as file:
        file["train_data"], file["valid_data"] = full, quiet
    heard = read_lfads(tmp_path / "quiet.h5", 0.01)  # only training trials need a spike of every neuron
    assert counts_of(heard.evaluation)[..., 1].sum() == 0
    with h5py.File(tmp_path / "negative.h5", "w") as file:
        file["train_spikes_heldin"] = file["train_spikes_heldout"] = full
        file["eval_spikes_heldin"] = -full
    with pytest.raises(ValueError, match="given for neuron n1 in bin 0 of eval-0, whole numbers from 0 wanted"):
        read_nlb(tmp_path / "negative.h5", 0.02)


@pytest.mark.parametrize(
    ("name", "trials", "units", "bins"),
    [
        ("hippocampus", 118, 28, 40),
        ("reach_spikes", 112, 61, 50),
        ("rat_motor_cortex", 1266, 30, 50),
        ("miller_m1", 95, 151, 6),
    ],
)
@pytest.mark.filterwarnings("ignore:recordings")
def test_recordings(name: str, trials: int, units: int, bins: int, data_folder: Path) -> None:
    folds = [datasets.load("recordings", recording=name, fold=k) for k in range(5)]
    parts = folds[0]
    assert sum(len(part) for part in parts[:3]) == trials
    assert parts.train.num_variables == units and parts.train.num_times == bins
    ids = [name for fold in folds for name in fold.test.ids or ()]
    assert len(set(ids)) == len(ids) == trials  # every trial is tested once
    assert len(parts.info["held_out"]) == units // 5 and parts.info["num_observed"] == bins - bins // 5
    if parts.info["behaviour"]:
        assert parts.train.covariates is not None
        assert parts.train.covariates.shape[-1] == 2 and float(parts.train.covariates.std()) > 1
