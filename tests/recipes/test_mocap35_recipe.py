"""The recipe mocap35 on a written file: what is scaled, cut and scored, and that a short run goes through."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.io
import torch

from neurodyn.datasets import mocap35, sources
from neurodyn.recipes.mocap35 import Config, build, errors, prepare, run, split, train

QUICK = Config(steps=12, num_samples=20, progress=False)


@pytest.fixture(autouse=True)
def walks_on_disk(tmp_path, monkeypatch):
    """Walks that turn, of the file's shape, four dimensions of which never change."""
    generator = np.random.default_rng(0)
    waves, tilt = generator.normal(size=(3, 50)), generator.normal(size=(3, 50))
    for name in mocap35.CONSTANT:
        waves[:, int(name[1:]) - 1] = tilt[:, int(name[1:]) - 1] = 0.0

    def walks(rows: int) -> np.ndarray:
        angle = 0.046 * np.arange(300) + 6 * generator.random((rows, 1))
        parts = np.stack((np.cos(angle), np.sin(angle), np.cos(2 * angle)), -1)
        return 5.0 * (parts @ waves) + np.sin(angle)[..., None] * tilt[0]

    path = tmp_path / "mocap35" / "mocap35.mat"
    path.parent.mkdir()
    scipy.io.savemat(path, {"Xtr": walks(16), "Xval": walks(3), "Xtest": walks(4)})
    monkeypatch.setenv("NEURODYN_DATA", str(tmp_path))
    monkeypatch.setattr(mocap35, "SHA256", sources.digest(path))


def test_walks_are_centred_by_what_the_setup_allows_and_divided_by_one_number() -> None:
    for setup, frames in ((1, 300), (2, 200)):
        raw = mocap35.load(setup)  # type: ignore[arg-type]
        walks = prepare(setup)
        assert walks.train.values.shape == (16, frames, 46) and walks.share == 46 / 50
        assert set(mocap35.CONSTANT).isdisjoint(walks.train.variables)
        assert walks.train.values.mean((0, 1)).abs().max() < 1e-5
        back = (
            walks.test.values[2, 250] * walks.scale
            + raw.train.values.mean((0, 1))[[raw.train.variables.index(name) for name in walks.train.variables]]
        )
        wanted = raw.test.values[2, 250][[raw.test.variables.index(name) for name in walks.test.variables]]
        torch.testing.assert_close(back, wanted, rtol=1e-4, atol=1e-4)


def test_errors_are_those_of_all_fifty_dimensions_in_the_datas_units() -> None:
    class Mean:
        """Forecasts the training mean, but misses the second walk."""

        def forecast_mean(self, history, times, num_samples, *, generator):
            known[:] = [history, times]
            table = torch.zeros(history.num_rows, times.shape[1], history.num_variables)
            table[1] = torch.nan
            return table

    known: list = []
    for setup, count, horizon in ((1, 3, 297), (2, 100, 200)):
        raw, walks = mocap35.load(setup), prepare(setup)  # type: ignore[arg-type]
        found = errors(Mean(), walks.test, setup, walks)  # type: ignore[arg-type]
        wanted = (raw.test.values[:, count:] - raw.train.values.mean((0, 1))).square().mean((1, 2))
        torch.testing.assert_close(found[[0, 2, 3]], wanted[[0, 2, 3]], rtol=1e-4, atol=1e-4)
        assert found[1] == 1e3  # a forecast that exploded
        history, times = known
        assert (history.num_times, times.shape[1]) == (count, horizon)
        assert times[0, 0].item() == pytest.approx(0.1 * count)


def test_a_later_start_is_a_walk_that_begins_there() -> None:
    rows = prepare(2).validation
    known, future = split(rows, 2, first=30)
    assert (known.num_times, future.num_times) == (100, 70)
    assert known.times[0, 0] == 0 and torch.equal(known.values, rows.values[:, 30:130])
    assert future.times[0, 0].item() == pytest.approx(10.0) and torch.equal(future.values, rows.values[:, 130:])


def test_training_takes_the_weights_that_forecast_best_and_follows_its_seed() -> None:
    walks, watched = prepare(2), []
    model, result, looks = train(QUICK, walks, lambda module: watched.append(module.training))
    assert len(looks) == len(watched) == 12 and not any(watched)
    later = [look.score for look in looks[6:]]  # after steps 7 to 12
    assert result.best_value == min(later) and result.best_step == 7 + later.index(min(later))
    assert looks[0].score == pytest.approx(float(np.exp(np.mean(np.log(looks[0].by_start)))), rel=1e-5)
    again, *_ = train(QUICK, walks)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("changes", [{}, {"setup": 1, "pace": 0.1, "slopes": False, "noise": "shared"}])
def test_a_short_run_prints_the_error_of_each_walk(changes, capsys) -> None:
    found = run(replace(QUICK, **changes))
    assert found["errors"].isfinite().all() and (found["errors"] > 0).all()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["test-0", "test-1", "test-2", "test-3", "mean"]
    assert float(lines[-1].split()[1]) == pytest.approx(float(found["errors"].mean()), abs=1e-3)


def test_the_simulated_model_trains_on_stretches() -> None:
    config = replace(QUICK, posterior="simulated", stretch=20, steps=2)
    model, result, _ = train(config, prepare(2))
    assert result.stopped == "steps" and all(p.isfinite().all() for p in model.parameters())
    assert build(config, 46).encoder.every == 1
