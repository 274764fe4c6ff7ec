"""PathModel: neighbours by hand, fresh models, recovery of what is known to be recoverable, and invariances."""

import numpy as np
import pytest
import torch

from neurodyn.models.path_model import PathModel, neighbours
from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig, fit

DOUBLE = torch.float64


def waves(rows=200, visits=14, seed=0):
    """Two variables a quarter of a period apart, at shared irregular visits, either missing at random: where one is
    known, it says a lot about the other; straight lines do not."""
    g = torch.Generator().manual_seed(seed)
    times = torch.sort(torch.rand(rows, visits, generator=g, dtype=DOUBLE), 1).values
    phase = 2 * np.pi * torch.rand(rows, 1, generator=g, dtype=DOUBLE)
    angle = 2 * np.pi * 2 * times + phase
    values = torch.stack((angle.sin(), angle.cos()), -1).float()
    mask = torch.rand(rows, visits, 2, generator=g) > 0.3
    mask[:, 0] = True
    return SeriesBatch(times, values, mask, ids=tuple(map(str, range(rows))))


def held_out(batch, fraction=0.4):
    return batch.drop_observed(fraction, torch.Generator().manual_seed(5))


def score(forecast, truth):
    error = (forecast.samples.mean(0) - truth.values)[truth.mask]
    inside = torch.quantile(forecast.samples, torch.tensor([0.05, 0.95]), 0)
    covered = (truth.values >= inside[0]) & (truth.values <= inside[1])
    return float(error.square().mean()), float(covered[truth.mask].double().mean())


def test_neighbours_by_hand():
    known = SeriesBatch(
        torch.tensor([[0.0, 1.0, 3.0]]),
        torch.tensor([[[2.0, 0.0], [4.0, 5.0], [0.0, 9.0]]], dtype=DOUBLE),
        torch.tensor([[[True, False], [True, True], [False, True]]]),
    )
    found = neighbours(known, torch.tensor([[-1.0, 0.0, 0.5, 1.0, 2.0, 4.0]], dtype=DOUBLE))
    assert found.line[0].tolist() == [[2, 5], [2, 5], [3, 5], [4, 5], [4, 7], [4, 9]]
    e = np.exp
    np.testing.assert_allclose(found.fresh[0, :, 0], [0, 1, e(-0.5), 1, e(-1), e(-3)])
    np.testing.assert_allclose(found.soon[0, :, 0], [e(-1), e(-1), e(-0.5), 0, 0, 0])
    np.testing.assert_allclose(found.fresh[0, :, 1], [0, 0, 0, 1, e(-1), e(-1)])
    np.testing.assert_allclose(found.soon[0, :, 1], [e(-2), e(-1), e(-0.5), e(-2), e(-1), 0])
    nothing = neighbours(known.select(["y2"]).history(count=1), torch.tensor([[0.0]], dtype=DOUBLE))
    assert nothing.line.tolist() == [[[5.0]]] and nothing.fresh.tolist() == [[[0.0]]]


@pytest.mark.parametrize("reader", ["lsde", "lnsde", "gsde", "neural_cde"])
def test_interpolates_better_than_straight_lines(reader):
    train, validation, test = waves(300), waves(60, seed=1), waves(100, seed=2)
    torch.manual_seed(0)
    model = PathModel.build(num_variables=2, reader=reader, hidden_size=32)
    config = FitConfig(steps=250, learning_rate=1e-2, validate_every=50, device="cpu", progress=False)
    fit(model, train, validation, config)
    known, hidden = held_out(test)
    line = neighbours(known, test.times).line
    lines = float((line - hidden.values)[hidden.mask].square().mean())
    found, covered = score(model.sample(known, test.times, 100, generator=torch.Generator().manual_seed(0)), hidden)
    assert found < 0.6 * lines and 0.8 < covered < 0.97, (found, lines, covered)


def test_forecasts_go_on_beyond_the_history():
    train, validation, test = waves(300), waves(60, seed=1), waves(100, seed=2)
    torch.manual_seed(0)
    model = PathModel.build(num_variables=2, task="forecast", reader="lsde", hidden_size=32)
    config = FitConfig(steps=250, learning_rate=1e-2, validate_every=50, device="cpu", progress=False)
    fit(model, train, validation, config)
    history, future = test.history(fraction=0.7), test.after(fraction=0.7)
    forecast = model.forecast(history, future.times, 100, generator=torch.Generator().manual_seed(0))
    found, covered = score(forecast, future)
    last = neighbours(history.compact(), future.times).line
    hold = float((last - future.values)[future.mask].square().mean())
    assert found < 0.6 * hold and 0.8 < covered < 0.97, (found, hold, covered)
    with pytest.raises(ValueError, match="comes before the row's last observed time"):
        model.forecast(history, history.times, 2)


def test_a_fresh_model_is_the_line_drawn_a_little_to_the_mean():
    batch = waves(5)
    model = PathModel.build(num_variables=2)
    known, _ = held_out(batch)
    seed = [torch.Generator().manual_seed(0) for _ in range(2)]
    found = model.interpolate(known, batch.times, 3, generator=seed[0])
    line = neighbours(known.compact(), batch.times).line * torch.sigmoid(torch.tensor(2.0))
    torch.testing.assert_close(found, line.expand(3, -1, -1, -1))
    drawn = model.sample(known, batch.times, 2000, generator=seed[1]).samples.median(0).values
    torch.testing.assert_close(drawn, line, atol=0.1, rtol=0)


@pytest.mark.parametrize("task", ["interpolate", "forecast"])
@pytest.mark.parametrize("reader", ["gsde", "neural_cde"])
def test_rows_are_their_own(task, reader):
    batch = waves(6)
    model = PathModel.build(num_variables=2, reader=reader, task=task, hidden_size=8)

    def loss(rows):
        return model.loss(rows, generator=torch.Generator().manual_seed(0)).log_likelihood

    whole = loss(batch)
    order = [4, 1, 0, 5, 2, 3]
    torch.testing.assert_close(loss(batch.padded(20).rows(order)), whole[order], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loss(batch.rows(3)), whole[3:4], rtol=1e-4, atol=1e-4)
    known, _ = held_out(batch)
    seed = [torch.Generator().manual_seed(1) for _ in range(2)]
    together = model.sample(known, batch.times, 3, generator=seed[0]).samples
    alone = model.sample(known.rows([2]), batch.times[2:3], 3, generator=seed[1]).samples
    torch.testing.assert_close(alone, together[:, 2:3], rtol=1e-4, atol=1e-4)


def test_saves_and_loads(tmp_path):
    batch = waves(3)
    model = PathModel.build(num_variables=2, reader="gsde", form="released", hidden_size=8)
    model.save(tmp_path / "model")
    again = PathModel.load(tmp_path / "model")
    found = [m.sample(batch, batch.times, 2, generator=torch.Generator().manual_seed(0)) for m in (model, again)]
    torch.testing.assert_close(found[0].samples, found[1].samples)


def test_bad_input_is_named():
    for options, message in [
        ({"reader": "cfc"}, "reader: got 'cfc'"),
        ({"task": "classify"}, "task: got 'classify'"),
        ({"hidden_size": 0}, "num_variables, hidden_size: got 2 and 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            PathModel.build(**({"num_variables": 2} | options))
    batch = waves(3)
    with pytest.raises(ValueError, match="times: shape"):
        PathModel.build(num_variables=2).interpolate(batch, batch.times.flip(1), 2)
