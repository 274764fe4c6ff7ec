"""GRU-D against a loop written from the paper's equations, its decays in closed form, and what must change nothing."""

import math

import numpy as np
import pytest
import torch

from neurodyn.nets.context import visit_inputs
from neurodyn.nets.gru_d import GRUD
from neurodyn.series import SeriesBatch

DOUBLE = torch.float64


def ragged(lengths: tuple[int, ...] = (7, 4, 1), variables: int = 3, seed: int = 0) -> SeriesBatch:
    """Rows with times and gaps of their own; something is observed at every visit."""
    generator = torch.Generator().manual_seed(seed)
    rows, longest = len(lengths), max(lengths)
    times = (torch.rand(rows, longest, generator=generator, dtype=DOUBLE) + 0.1).cumsum(1)
    values = torch.randn(rows, longest, variables, generator=generator, dtype=DOUBLE)
    mask = torch.rand(values.shape, generator=generator) < 0.5
    mask[..., 0] |= ~mask.any(-1)
    mask &= torch.arange(longest)[:, None] < torch.tensor(lengths)[:, None, None]
    return SeriesBatch(times, values, mask, ids=tuple(str(k) for k in range(rows)))


def layer(variables: int = 3, size: int = 5, mean: torch.Tensor | None = None, **extra: int) -> GRUD:
    torch.manual_seed(1)
    net = GRUD(variables, size, mean=mean, **extra).double()
    with torch.no_grad():  # decays of both signs before the rectifier, biases included
        for parameter in (net.input_decay, net.input_decay_bias, *net.state_decay.parameters()):
            parameter.normal_()
    return net


def by_hand(net: GRUD, times: np.ndarray, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """States (T, H) of one row without unobserved visits, one number after the other, as the paper writes them."""
    p = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    size, variables = net.hidden_size, net.num_variables
    inputs, bias, hidden = p["input_map.weight"], p["input_map.bias"], p["gate_map.weight"]
    w_x, w_m = inputs[:, :variables], inputs[:, variables:]
    state, delta, last, states = np.zeros(size), np.zeros(variables), p["mean"].copy(), []
    for t in range(len(times)):
        if t:
            step = times[t] - times[t - 1]
            delta = np.where(mask[t - 1], step, step + delta)
        gamma_x = np.exp(-np.maximum(0, p["input_decay"] * delta + p["input_decay_bias"]))
        gamma_h = np.exp(-np.maximum(0, p["state_decay.weight"] @ delta + p["state_decay.bias"]))
        x = np.where(mask[t], values[t], gamma_x * last + (1 - gamma_x) * p["mean"])
        state = gamma_h * state

        def gate(rows: slice, x: np.ndarray = x, t: int = t) -> np.ndarray:
            return w_x[rows] @ x + w_m[rows] @ mask[t] + bias[rows]

        update = 1 / (1 + np.exp(-(gate(slice(0, size)) + hidden[:size] @ state)))
        reset = 1 / (1 + np.exp(-(gate(slice(size, 2 * size)) + hidden[size:] @ state)))
        candidate = np.tanh(gate(slice(2 * size, None)) + p["candidate_map.weight"] @ (reset * state))
        state = (1 - update) * state + update * candidate
        states.append(state)
        last = np.where(mask[t], values[t], last)
    return np.stack(states)


def test_states_are_those_of_the_papers_recursion() -> None:
    batch = ragged()
    net = layer(mean=torch.tensor([0.3, -0.2, 1.0]))
    context = net(batch)
    for row, length in enumerate((7, 4, 1)):
        alone = [part[row, :length].numpy() for part in (batch.times, batch.values, batch.mask)]
        wanted = by_hand(net, *alone)
        np.testing.assert_allclose(context.features[row, :length].detach(), wanted, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(context.summary[row].detach(), wanted[-1], rtol=1e-12, atol=1e-12)


def test_a_missing_value_decays_to_the_mean_at_its_own_rate_and_never_grows() -> None:
    net = layer(2, 4, mean=torch.tensor([1.0, -2.0]))
    with torch.no_grad():
        net.input_decay.copy_(torch.tensor([0.4, -0.7], dtype=DOUBLE))
        net.input_decay_bias.copy_(torch.tensor([0.1, 0.2], dtype=DOUBLE))
        net.input_map.weight.zero_()
        net.input_map.weight[:2, :2] = torch.eye(2)  # reads the two inputs off
        net.input_map.bias.zero_()
    times = torch.tensor([[0.0, 1.5, 4.0]], dtype=DOUBLE)
    values = torch.tensor([[[3.0, 5.0], [0.0, 0.0], [0.0, 0.0]]], dtype=DOUBLE)
    mask = torch.tensor([[[True, True], [False, False], [False, False]]])
    visits = SeriesBatch(times, values, mask)._with(times=times)  # asked about, though nothing is observed there
    drive, _ = net._read(visit_inputs(visits, 2, 0, 0))
    for visit, gap in ((1, 1.5), (2, 4.0)):
        slow = math.exp(-(0.4 * gap + 0.1))
        fast = math.exp(-max(0.0, -0.7 * gap + 0.2))  # the rectifier: a negative rate keeps the value
        found = drive[0, visit, :2].tolist()
        assert found == pytest.approx([1.0 + slow * 2.0, -2.0 + fast * 7.0], rel=1e-12)


def test_the_state_decays_by_the_exponential_of_its_rectified_rate() -> None:
    net = layer(1, 2)
    with torch.no_grad():
        net.state_decay.weight.copy_(torch.tensor([[0.5], [-3.0]]))
        net.state_decay.bias.copy_(torch.tensor([0.25, 1.0]))
    batch = SeriesBatch(torch.zeros(1, 1), torch.ones(1, 1, 1, dtype=DOUBLE)).padded(2)
    later = batch._with(times=torch.tensor([[0.0, 2.0]], dtype=DOUBLE))  # the second visit is not observed
    context = net(later)
    factor = torch.tensor([math.exp(-1.25), math.exp(0.0)], dtype=DOUBLE)
    torch.testing.assert_close(context.features[0, 1], factor * context.features[0, 0])
    torch.testing.assert_close(context.summary[0], context.features[0, 0])


def test_order_of_rows_padding_and_unobserved_visits_change_nothing() -> None:
    batch, net = ragged(), layer()
    context = net(batch)
    order = torch.tensor([2, 0, 1])
    other = net(batch.rows(order).padded(11))
    torch.testing.assert_close(other.summary, context.summary[order])
    torch.testing.assert_close(
        other.features[:, :7][batch.rows(order).present], context.features[order][batch.present[order]]
    )
    # an unobserved visit in the middle of the longest row
    row = batch.rows(0)
    middle = row.times[:, 2:3] * 0.5 + row.times[:, 3:4] * 0.5
    wider = SeriesBatch(
        torch.cat((row.times[:, :3], middle, row.times[:, 3:]), 1),
        torch.cat((row.values[:, :3], torch.full((1, 1, 3), 9.0, dtype=DOUBLE), row.values[:, 3:]), 1),
        torch.cat((row.mask[:, :3], torch.zeros(1, 1, 3, dtype=torch.bool), row.mask[:, 3:]), 1),
    )
    features = net(wider).features
    torch.testing.assert_close(torch.cat((features[:, :3], features[:, 4:]), 1), context.features[:1])


def test_the_future_does_not_reach_back() -> None:
    batch, net = ragged(), layer()
    changed = batch._with(
        values=torch.where(torch.arange(7)[:, None] > 3, 5.0 - batch.values, batch.values) * batch.mask
    )
    one, two = net(batch).features, net(changed).features
    torch.testing.assert_close(one[:, :4], two[:, :4])
    assert (one[0, 4:] - two[0, 4:]).abs().max() > 1e-3


def test_covariates_and_static_features_are_read() -> None:
    batch = ragged()
    generator = torch.Generator().manual_seed(5)
    covariates = torch.randn(3, 7, 2, generator=generator, dtype=DOUBLE)
    static = torch.randn(3, 1, generator=generator, dtype=DOUBLE)
    full = SeriesBatch(batch.times, batch.values, batch.mask, covariates=covariates, static=static)
    net = layer(num_covariates=2, num_static=1)
    plain = net(full).summary
    assert (net(full._with(covariates=covariates + 1)).summary - plain).abs().max() > 1e-3
    assert (net(full._with(static=static + 1)).summary - plain).abs().min() > 1e-6


def test_it_learns_how_fast_a_missing_input_loses_its_worth() -> None:
    """E[x(t) | x(0)] of an Ornstein-Uhlenbeck process decays at its rate, which is not given."""
    rate, rows = 0.8, 512
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(rows, generator=generator)
    gap = 3 * torch.rand(rows, generator=generator)
    times = torch.stack((torch.zeros(rows), gap), 1).double()
    values = torch.stack((torch.stack((first, torch.zeros(rows)), -1), torch.zeros(rows, 2)), 1)
    mask = torch.tensor([[True, False], [False, True]]).expand(rows, -1, -1)  # at the second visit only the other
    batch = SeriesBatch(times, values, mask)
    torch.manual_seed(0)
    net, head = GRUD(2, 16), torch.nn.Linear(16, 1)
    optimiser = torch.optim.Adam([*net.parameters(), *head.parameters()], 0.02)
    target = first * torch.exp(-rate * gap)
    for _ in range(200):
        optimiser.zero_grad()
        loss = (head(net(batch).summary)[:, 0] - target).square().mean()
        loss.backward()
        optimiser.step()
    assert loss < 0.01 < 0.1 < target.var()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_variables": 0}, "num_variables: got 0"),
        ({"hidden_size": 0}, "hidden_size: got 0"),
        ({"mean": torch.zeros(3)}, r"mean: got shape \(3,\), want \(2,\)"),
    ],
)
def test_bad_sizes_are_named(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GRUD(**{"num_variables": 2, **options})
    with pytest.raises(ValueError, match="batch: got 3 variables, want 2"):
        GRUD(2)(ragged().to(dtype=torch.float32))
