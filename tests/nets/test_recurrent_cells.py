"""Time-aware cells: bounds, limits and flows that are known, and the encoder's invariances."""

import pytest
import torch
from torch import nn

from neurodyn.nets.cells import CfCCell, LTCCell, ODECell
from neurodyn.nets.recurrent import CELLS, RecurrentEncoder
from neurodyn.series import SeriesBatch
from neurodyn.solvers.ode import odeint

DOUBLE = torch.float64


def batch_of(rows=3, steps=6, channels=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    times = torch.cumsum(torch.rand(rows, steps, generator=g, dtype=DOUBLE) + 0.05, 1)
    values = torch.randn(rows, steps, channels, generator=g, dtype=DOUBLE)
    mask = torch.rand(rows, steps, channels, generator=g) >= 0.3
    mask[:, 0] = True
    for row in range(rows):
        mask[row, steps - row % 3 :] = False
    return SeriesBatch(times, values, mask)


@pytest.mark.parametrize("gap", [1e-3, 0.1, 1.0, 1e4])
def test_ltc_states_stay_between_zero_and_their_targets(gap):
    cell = LTCCell(3, 8).double()
    with torch.no_grad():
        cell.target.mul_(3)
        cell.recur.weight.mul_(20)
    low, high = cell.target.clamp_max(0), cell.target.clamp_min(0)
    state = torch.zeros(50, 8, dtype=DOUBLE)
    for _ in range(60):
        state = cell(10 * torch.randn(50, 3, dtype=DOUBLE), state, torch.full((50, 1), gap, dtype=DOUBLE))
        assert bool((state >= low - 1e-12).all()) and bool((state <= high + 1e-12).all())


def test_ltc_solves_its_equation():
    """Many short fused steps approach dh/dt = -(1/tau + f) h + f A under a constant input."""
    cell = LTCCell(2, 4, unfolds=4000).double().requires_grad_(False)
    cell.log_leak.mul_(0.2)
    cell.log_gain.mul_(0.2)
    x = torch.randn(3, 2, dtype=DOUBLE)
    start = torch.rand(3, 4, dtype=DOUBLE) * cell.target

    def field(t, h):
        gate = cell.log_gain.exp() * torch.sigmoid(cell.read(x) + cell.recur(h))
        return -(cell.log_leak.exp() + gate) * h + gate * cell.target

    end = 0.7 + float(cell.log_dwell.exp())
    exact = odeint(field, start, [0.0, end], dt=0.01)[:, -1]
    torch.testing.assert_close(cell(x, start, torch.full((3, 1), 0.7, dtype=DOUBLE)), exact, atol=1e-3, rtol=1e-3)


def test_cfc_goes_from_one_head_to_the_other_with_time():
    cell = CfCCell(2, 3).double().requires_grad_(False)
    heads = cell.heads
    heads.weight[6:] = 0
    heads.bias[6:9], heads.bias[9:] = 1.0, 0.0  # sigmoid(gap)
    x, h = torch.randn(4, 2, dtype=DOUBLE), torch.randn(4, 3, dtype=DOUBLE)
    shared = 1.7159 * torch.tanh(0.666 * cell.backbone(torch.cat((x, h), -1)))
    early, late = torch.tanh(heads(shared)[:, :6]).chunk(2, -1)

    def at(gap):
        return cell(x, h, torch.full((4, 1), gap, dtype=DOUBLE))

    torch.testing.assert_close(at(-50.0), early)
    torch.testing.assert_close(at(50.0), late)
    torch.testing.assert_close(at(0.0), 0.5 * (early + late))


def test_ode_rnn_flow_is_torchdiffeqs():
    cell = ODECell(2, 3, "mlp", unfolds=200).double().requires_grad_(False)
    start = torch.randn(4, 3, dtype=DOUBLE)
    gap = torch.tensor([[0.1], [0.5], [2.0], [0.0]], dtype=DOUBLE)
    times = torch.cat((torch.zeros_like(gap), gap), 1)
    exact = odeint(lambda t, h: torch.tanh(cell.field(h)), start, times, dt=0.01)[:, -1]
    torch.testing.assert_close(cell.between(start, gap), exact, atol=1e-5, rtol=1e-5)


def test_gru_ode_flow_solves_its_equation_and_stays_within_one():
    cell = ODECell(2, 3, "gru", unfolds=4000).double().requires_grad_(False)
    start = 2 * torch.rand(4, 3, dtype=DOUBLE) - 1

    def field(t, h):
        reset, update = torch.sigmoid(cell.gates(h)).chunk(2, -1)
        return (1 - update) * (torch.tanh(cell.candidate(reset * h)) - h)

    exact = odeint(field, start, [0.0, 1.5], dt=0.01)[:, -1]
    torch.testing.assert_close(cell.between(start, torch.full((4, 1), 1.5, dtype=DOUBLE)), exact, atol=1e-4, rtol=1e-3)
    coarse = ODECell(2, 3, "gru", unfolds=1).double()
    state = start
    for _ in range(30):
        state = coarse(5 * torch.randn(4, 2, dtype=DOUBLE), state, torch.full((4, 1), 100.0, dtype=DOUBLE))
        assert float(state.detach().abs().max()) <= 1.0


@pytest.mark.parametrize("cell", CELLS)
def test_rows_are_their_own_and_unobserved_visits_change_nothing(cell):
    batch = batch_of()
    encoder = RecurrentEncoder(2, 5, cell, 6).double()
    whole = encoder(batch)
    assert whole.features.shape == (3, 6, 5) and whole.summary.shape == (3, 5)
    order = [2, 0, 1]
    torch.testing.assert_close(encoder(batch.padded(9).rows(order)).summary, whole.summary[order])
    torch.testing.assert_close(encoder(batch.compact()).summary, whole.summary)
    holed = SeriesBatch(
        torch.cat((batch.times[:, :2], 0.5 * (batch.times[:, 1:2] + batch.times[:, 2:3]), batch.times[:, 2:]), 1),
        torch.cat((batch.values[:, :2], torch.full((3, 1, 2), 9.0, dtype=DOUBLE), batch.values[:, 2:]), 1),
        torch.cat((batch.mask[:, :2], torch.zeros(3, 1, 2, dtype=torch.bool), batch.mask[:, 2:]), 1),
    )
    torch.testing.assert_close(encoder(holed).summary, whole.summary)


@pytest.mark.parametrize("cell", CELLS)
def test_features_are_causal_and_feel_time(cell):
    batch = batch_of(rows=1)
    encoder = RecurrentEncoder(2, 5, cell, 6).double()
    whole = encoder(batch).features
    for count in range(1, int(batch.present.sum())):
        past = batch.history(count=count)
        torch.testing.assert_close(encoder(past).summary, whole[:, past.num_times - 1])
    slower = SeriesBatch(2 * batch.times, batch.values, batch.mask)
    assert not torch.allclose(encoder(slower).summary, encoder(batch).summary)


@pytest.mark.parametrize("cell", CELLS)
def test_the_first_visit_is_read(cell):
    batch = batch_of(rows=1)
    encoder = RecurrentEncoder(2, 5, cell, 6).double()
    first = batch.history(count=1)
    other = SeriesBatch(first.times, first.values + 1, first.mask)
    assert not torch.allclose(encoder(first).summary, encoder(other).summary)


def test_a_cell_of_ones_own():
    class Sum(nn.Module):
        hidden_size = 4

        def forward(self, x, state, gap):
            return state + x

    encoder = RecurrentEncoder(2, 4, Sum()).double()
    encoder.head = nn.Identity()
    batch = SeriesBatch(torch.tensor([[0.0, 1.0]]), torch.tensor([[[1.0, 2.0], [3.0, 4.0]]], dtype=DOUBLE))
    assert encoder(batch).summary.tolist() == [[4.0, 6.0, 2.0, 2.0]]


def test_bad_input_is_named():
    for make, message in [
        (lambda: RecurrentEncoder(2, 3, "lstm"), "cell: got 'lstm', want one of ltc, cfc, ode_rnn, gru_ode"),
        (lambda: LTCCell(2, 3, 0), "unfolds: got 0"),
        (lambda: ODECell(2, 3, "rk4"), "flow: got 'rk4'"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
