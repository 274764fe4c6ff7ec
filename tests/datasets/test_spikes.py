"""Spikes from arrays, tables and files: known counts, one tensor by every route, and bad input by name."""

from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pynwb
import pytest
import torch

from neurodyn import datasets
from neurodyn.datasets.nwb import BENCHMARK_SETS, condition_trials, read_benchmark_set, read_nwb
from neurodyn.datasets.spike_files import read_lfads, read_nlb, write_submission
from neurodyn.datasets.spikes import Window, bin_spikes, counts_of, read_spike_table, sample_behaviour, spike_batch

TRIALS, UNITS = 12, 6


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


def spikes_and_trials() -> tuple[list[np.ndarray], np.ndarray]:
    random = np.random.default_rng(1)
    starts = 1.0 + 2.0 * np.arange(TRIALS)
    return [np.sort(random.uniform(0, 2 * TRIALS + 2, 300 + 40 * k)) for k in range(UNITS)], starts


def write_nwb(path: Path, *, units: bool = True, recorded_until: float | None = None, name: str = "mc_maze") -> None:
    """A file as those of the benchmark: units with heldout, trials with split, hand velocity at 1 kHz."""
    spikes, starts = spikes_and_trials()
    file = pynwb.NWBFile("a session", "id", datetime(2020, 1, 1, tzinfo=UTC))
    chosen = BENCHMARK_SETS[name]
    if units:
        file.add_unit_column("heldout", "not to be read")
        for k, times in enumerate(spikes):
            end = 1000.0 if recorded_until is None or k != 3 else recorded_until
            file.add_unit(spike_times=times, heldout=bool(k % 3 == 2), obs_intervals=[[-10.0, end]])
    columns = {"split", chosen.align, *chosen.conditions, *chosen.trial_columns} - {"start_time"}
    if chosen.scored_from:
        columns |= {chosen.scored_from}
    for column in sorted(columns):
        file.add_trial_column(column, column)
    for k, start in enumerate(starts):
        values = {column: float(k % 2) for column in columns}
        values["split"] = ("train", "train", "val", "test")[k % 4]
        if chosen.align != "start_time":
            values[chosen.align] = float(start)
        if chosen.scored_from:
            values[chosen.scored_from] = float(start) - 0.6 - 0.02 * (k % 3)
        file.add_trial(
            start_time=start if chosen.align == "start_time" else start - 0.9, stop_time=start + 0.9, **values
        )
    t = np.arange(0, 2 * TRIALS + 3, 0.001)
    series = pynwb.TimeSeries(
        name=chosen.behaviour or "eye", data=np.stack([np.sin(t), t], 1), unit="m/s", starting_time=0.0, rate=1000.0
    )
    file.create_processing_module("behavior", "moves").add(series)
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(file)


def by_hand(window: Window) -> np.ndarray:
    spikes, starts = spikes_and_trials()
    return np.stack(
        [np.stack([np.histogram(times - at, window.edges)[0] for times in spikes], 1) for at in starts]
    ).astype(float)


def test_nwb_and_h5_and_tables_give_the_same_tensors(tmp_path: Path) -> None:
    write_nwb(tmp_path / "a.nwb")
    recording = read_benchmark_set(tmp_path / "a.nwb", "mc_maze", part="train")
    expected = by_hand(Window(-0.25, 0.65, 0.02))  # 35 bins and 10 to predict
    chosen = np.arange(TRIALS) % 4 < 2
    assert np.array_equal(counts_of(recording.batch), expected[chosen])
    assert recording.observed == 35 and recording.batch.num_times == 45 and recording.held_out == (2, 5)
    assert recording.behaviour is not None
    middles = spikes_and_trials()[1][chosen][:, None] - 0.25 + 0.1 + 0.02 * np.arange(45) + 0.0095
    np.testing.assert_allclose(recording.behaviour[..., 0], np.sin(middles), atol=1e-4)

    # the benchmark's own tensors of the same trials: held-in neurons first
    order, window = [0, 1, 3, 4, 2, 5], slice(0, 35)
    held = expected[..., order]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train_spikes_heldin"], file["train_spikes_heldout"] = held[chosen, window, :4], held[chosen, window, 4:]
        file["train_spikes_heldin_forward"] = held[chosen, 35:, :4]
        file["train_spikes_heldout_forward"] = held[chosen, 35:, 4:]
        file["eval_spikes_heldin"] = held[~chosen, window, :4]
    parts = read_nlb(tmp_path / "a.h5", 0.02)
    assert torch.equal(parts.train.values, recording.batch.values[..., order])
    assert parts.held_out == (4, 5) and parts.observed == 35
    assert not parts.evaluation.mask[..., 4:].any() and not parts.evaluation.mask[:, 35:].any()
    assert np.array_equal(counts_of(parts.evaluation)[:, window, :4], held[~chosen, window, :4])

    spikes, starts = spikes_and_trials()
    table = pd.DataFrame(
        {"time": np.concatenate(spikes), "unit": np.repeat(np.arange(UNITS), [len(s) for s in spikes])}
    )
    trials = pd.DataFrame({"start": starts, "kind": ["b", "a"] * 6}, index=range(TRIALS))
    table.sample(frac=1, random_state=0).to_parquet(tmp_path / "s.parquet")
    trials.to_csv(tmp_path / "t.csv", index=False)
    batch = read_spike_table(tmp_path / "s.parquet", tmp_path / "t.csv", Window(-0.25, 0.65, 0.02), label="kind")
    assert np.array_equal(counts_of(batch), expected)
    assert batch.labels is not None and batch.labels.tolist() == [1, 0] * 6


@pytest.mark.parametrize(
    ("name", "bins", "width"),
    [
        ("mc_maze", 35, 0.02),
        ("mc_maze", 140, 0.005),
        ("mc_rtt", 30, 0.02),
        ("mc_rtt", 120, 0.005),
        ("area2_bump", 30, 0.02),
        ("dmfc_rsg", 75, 0.02),
        ("mc_maze_small", 35, 0.02),
    ],
)
def test_windows_and_splits_of_the_benchmark_sets(name: str, bins: int, width: float, tmp_path: Path) -> None:
    write_nwb(tmp_path / "a.nwb", name=name)
    for part, count in (("train", 6), ("val", 3), (("train", "val"), 9), ("test", 3)):
        found = read_benchmark_set(tmp_path / "a.nwb", name, bin_width=width, part=part)
        assert found.batch.num_rows == count and found.observed == bins
        assert found.batch.num_times == bins + round(0.2 / width)
        chosen = BENCHMARK_SETS[name]
        window = Window(chosen.start, chosen.stop + 0.2, width)
        rows = found.trials.index.to_numpy()
        counts, expected = counts_of(found.batch), by_hand(window)[rows]
        if name == "dmfc_rsg" and part in (
            "val",
            "test",
        ):  # scored from set to go, three-fifths of a second and more before go
            first = ((1.5 - 0.6 - 0.02 * (rows % 3)) / width).round().astype(int)
            for row, bin_ in enumerate(first):
                assert np.isnan(counts[row, :bin_]).all() and np.array_equal(counts[row, bin_:], expected[row, bin_:])
        else:
            assert np.array_equal(counts, expected)
        trials = condition_trials(found.trials, chosen.conditions)
        assert sum(map(len, trials)) == (count if chosen.conditions else 0)


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
    assert (len(other.train), len(other.validation), len(other.test)) == (520, 120, 160)
    assert not set(other.train.labels.tolist()) & set(other.test.labels.tolist())


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
    write_nwb(tmp_path / "cut.nwb", recorded_until=12.0)
    with pytest.raises(ValueError, match="units: unit3 was not recorded in trial-6"):
        read_nwb(tmp_path / "cut.nwb", Window(0, 0.5, 0.02), align="move_onset_time")
    write_nwb(tmp_path / "a.nwb")
    with pytest.raises(ValueError, match="no column 'go_cue'"):
        read_nwb(tmp_path / "a.nwb", Window(0, 0.5, 0.02), align="go_cue")
    with pytest.raises(ValueError, match="no series 'hand_ve' in a.nwb.*hand_vel"):
        read_nwb(tmp_path / "a.nwb", Window(0, 0.5, 0.02), behaviour="hand_ve")
    with pytest.raises(ValueError, match="behaviour: hand_vel is NaN at bin 0 of trial-11"):
        read_nwb(tmp_path / "a.nwb", Window(0, 0.5, 0.02), align="move_onset_time", behaviour="hand_vel", lag=5.0)
    with pytest.raises(ValueError, match="trials: trial-0 covers"):
        read_nwb(tmp_path / "a.nwb", Window(0, 2.5, 0.02), align="move_onset_time", inside=True)
    with pytest.raises(ValueError, match="name: 'mc_mase' given"):
        read_benchmark_set(tmp_path / "a.nwb", "mc_mase")
    (tmp_path / "not.h5").write_bytes(b"no")
    with pytest.raises(ValueError, match="not.h5: altered or cut short"):
        read_lfads(tmp_path / "not.h5", 0.01)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = counts
    with pytest.raises(ValueError, match="train_data and valid_data wanted"):
        read_lfads(tmp_path / "other.h5", 0.01)
    with pytest.raises(ValueError, match="no table train_spikes_heldin"):
        read_nlb(tmp_path / "other.h5", 0.02)


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
