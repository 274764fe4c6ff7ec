"""hopper: windows, parts and dropped time points on made-up series; the official layout; the real file."""

import sys

import numpy as np
import pytest
import torch

from neurodyn.datasets import histories, hopper, load, sources


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(hopper, "cache_folder", lambda: tmp_path)
    monkeypatch.delenv("NEURODYN_DATA", raising=False)
    (tmp_path / "hopper").mkdir()
    return tmp_path / "hopper"


def counted(series: int = hopper.SERIES) -> np.ndarray:
    """Each value says its series and its step."""
    rows, steps = np.arange(series)[:, None, None], np.arange(hopper.STEPS)[:, None]
    return np.broadcast_to(rows + steps / 1000, (series, hopper.STEPS, hopper.SIZE))


@pytest.mark.parametrize("windows", [1, 3])
def test_windows_parts_and_dropped_time_points(monkeypatch, windows):
    monkeypatch.setattr(hopper, "read", lambda: counted().astype(np.float32))
    splits = load("hopper", missing=0.7, split=2, windows=windows)
    assert [len(part) for part in splits[:3]] == [700 * windows, 150 * windows, 150 * windows]
    series = [set(part.values[:, -1, 0].floor().long().tolist()) for part in splits[:3]]
    assert not series[0] & series[1] and not (series[0] | series[1]) & series[2]
    history, future = histories(splits.test, **splits.info["protocols"]["window"])
    assert history.mask.sum((1, 2)).unique().tolist() == [15 * hopper.SIZE]  # of 50, all variables together
    assert future.num_times == 10 and bool(future.mask.all()) and future.times[0, 0] == 50
    start = splits.test.values[:, 59, 0] - splits.test.values[:, 59, 0].floor() - 0.059
    assert len((1000 * start).round().unique()) == windows
    again, other = load("hopper", missing=0.7, split=2), load("hopper", missing=0.7, split=3)
    assert torch.equal(again.train.mask, load("hopper", missing=0.7, split=2).train.mask)
    assert not torch.equal(again.train.mask, other.train.mask)


def test_without_a_file_it_is_simulated_once(cache, monkeypatch):
    made = []
    monkeypatch.setattr(hopper, "simulate", lambda rows: made.append(rows) or counted(rows).astype(np.float32))
    assert np.array_equal(hopper.read(), counted().astype(np.float32))
    assert np.array_equal(hopper.read(), counted().astype(np.float32)) and made == [1000]


def test_bad_input_is_named(cache, monkeypatch):
    with pytest.raises(ValueError, match="missing: 1.0 given"):
        hopper.load(1.0)
    with pytest.raises(ValueError, match="windows: 0 given"):
        hopper.load(windows=0)
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(FileNotFoundError, match="dm_control, to simulate it, is not installed: pip install 'neurodyn"):
        hopper.load()
    np.savez(cache / "simulated.npz", x=np.zeros((3, 200, 14)))
    with pytest.raises(ValueError, match=r"simulated.npz: altered .* shape \(3, 200, 14\)"):
        hopper.read()
    np.savez(cache / "hopper_1000x200.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="hopper_1000x200.npz: altered or cut short"):
        hopper.read()


def test_the_recipe_makes_the_real_file(data_folder):
    pytest.importorskip("dm_control")
    np.testing.assert_allclose(hopper.simulate(3), hopper.read()[:3], atol=1e-4)


def test_the_real_file(data_folder):
    splits = hopper.load()
    assert splits.train.values.shape == (700, 60, 14) and bool(splits.train.mask.all())
    # a step of 5 ms moves a position by its velocity, about
    moved = splits.test.values[:, 1:, :7] - splits.test.values[:, :-1, :7]
    speed = splits.test.values[:, 1:, 7:]
    assert torch.corrcoef(torch.stack((moved.flatten(), speed.flatten())))[0, 1] > 0.9
