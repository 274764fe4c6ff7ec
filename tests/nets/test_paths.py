"""Control paths against scipy's splines, numpy's lines, closed forms, and torchcde where it is installed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicHermiteSpline, CubicSpline

from neurodyn.nets.paths import PATH_KINDS, control_path, interpolate, natural_slopes
from neurodyn.series import SeriesBatch

DOUBLE = torch.float64


def ragged(rows=4, steps=7, channels=3, seed=0, missing=0.4, dtype=DOUBLE):
    """Rows of their own times and lengths, with values missing per channel and NaN under the mask."""
    g = torch.Generator().manual_seed(seed)
    times = torch.cumsum(torch.rand(rows, steps, generator=g, dtype=DOUBLE) + 0.05, 1)
    values = torch.randn(rows, steps, channels, generator=g, dtype=DOUBLE).to(dtype)
    mask = torch.rand(rows, steps, channels, generator=g) >= missing
    mask[:, 0, 0] = True
    for row in range(rows):
        mask[row, steps - row % 3 :] = False
    return SeriesBatch(times, torch.where(mask, values, torch.nan), mask)


def observations(batch, row, channel):
    """Times and values of one channel as arrays, its ends filled as the module says."""
    present = batch.present[row].numpy()
    seen = batch.mask[row, :, channel].numpy()
    t, v = batch.times[row].numpy()[seen], batch.values[row, :, channel].numpy()[seen]
    if not len(t):
        return None
    first, last = batch.times[row].numpy()[present][[0, -1]]
    if t[0] > first:
        t, v = np.r_[first, t], np.r_[v[0], v]
    if t[-1] < last:
        t, v = np.r_[t, last], np.r_[v, v[-1]]
    return t, v


def inside(batch, count=23, seed=1):
    u = torch.rand(len(batch), count, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
    first, last = batch.first_time[:, None], batch.last_time[:, None]
    return torch.cat((first + u * (last - first), batch.times), 1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), missing=st.floats(0.0, 0.8))
def test_natural_cubic_is_scipys_channel_by_channel(seed, missing):
    batch = ragged(seed=seed, missing=missing)
    query = inside(batch)
    value, slope = control_path(batch, "cubic", time=False)(query)
    for row in range(len(batch)):
        for channel in range(3):
            known = observations(batch, row, channel)
            if known is None:
                assert not value[row, :, channel].any() and not slope[row, :, channel].any()
            elif len(known[0]) == 1:
                assert torch.allclose(value[row, :, channel], torch.tensor(known[1][0]))
            else:
                curve = CubicSpline(*known, bc_type="natural")
                np.testing.assert_allclose(value[row, :, channel], curve(query[row]), atol=1e-9, rtol=1e-8)
                np.testing.assert_allclose(slope[row, :, channel], curve(query[row], 1), atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("kind", ["linear", "hermite"])
def test_lines_and_hermite_curves_are_numpys_and_scipys(kind):
    batch = ragged(seed=3)
    query = inside(batch)
    value, slope = control_path(batch, kind, time=False)(query)
    for row in range(len(batch)):
        visits = batch.times[row][batch.present[row]].numpy()
        for channel in range(3):
            known = observations(batch, row, channel)
            if known is None:
                continue
            filled = np.interp(visits, *known)
            chord = np.diff(filled) / np.diff(visits)
            if kind == "linear":
                np.testing.assert_allclose(value[row, :, channel], np.interp(query[row], visits, filled), atol=1e-12)
                gap = np.searchsorted(visits, query[row, :23].numpy(), side="right") - 1
                np.testing.assert_allclose(slope[row, :23, channel], chord[gap], atol=1e-9)
            else:
                curve = CubicHermiteSpline(visits, filled, np.r_[chord[0], chord])
                np.testing.assert_allclose(value[row, :, channel], curve(query[row]), atol=1e-10)
                np.testing.assert_allclose(slope[row, :, channel], curve(query[row], 1), atol=1e-8)


def test_hermite_has_the_coefficients_of_its_paper():
    times = torch.tensor([[0.0, 0.5, 2.0, 2.75]], dtype=DOUBLE)
    values = torch.tensor([[[1.0], [-0.5], [2.0], [0.25]]], dtype=DOUBLE)
    path = interpolate(times, values)
    t, x = times[0].tolist(), values[0, :, 0].tolist()
    for i in (1, 2):
        step, previous = t[i + 1] - t[i], t[i] - t[i - 1]
        d_next, d_previous = (x[i + 1] - x[i]) / step, (x[i] - x[i - 1]) / previous
        b = d_previous
        two_c = 2 * (3 * (d_next - b) - d_next + d_previous) / step
        three_d = (d_next - b) / step**2 - two_c / step
        s = torch.linspace(0.01, 0.99, 9, dtype=DOUBLE) * step
        wanted = x[i] + b * s + two_c * s**2 / 2 + three_d * s**3 / 3
        found, slope = path(t[i] + s[None])
        torch.testing.assert_close(found[0, :, 0], wanted)
        torch.testing.assert_close(slope[0, :, 0], b + two_c * s + three_d * s**2)


def test_rectilinear_moves_time_first_and_then_values():
    nan = float("nan")
    batch = SeriesBatch(
        torch.tensor([[1.0, 2.0, 4.0], [3.0, 5.0, 5.0]]),
        torch.tensor([[[nan, 5.0], [7.0, nan], [8.0, 6.0]], [[1.0, 2.0], [3.0, nan], [nan, nan]]], dtype=DOUBLE),
        torch.tensor([[[False, True], [True, False], [True, True]], [[True, True], [True, False], [False, False]]]),
    )
    path = control_path(batch, "rectilinear")
    wanted = [[0, 0, 5], [1, 0, 5], [1, 7, 5], [3, 7, 5], [3, 8, 6]]
    clock = torch.arange(5.0, dtype=DOUBLE).expand(2, -1)
    torch.testing.assert_close(path.value(clock)[0], torch.tensor(wanted, dtype=DOUBLE))
    shorter = [[0, 1, 2], [2, 1, 2], [2, 3, 2], [2, 3, 2], [2, 3, 2]]
    torch.testing.assert_close(path.value(clock)[1], torch.tensor(shorter, dtype=DOUBLE))
    # halfway through a move
    torch.testing.assert_close(path.value(torch.tensor([[2.5], [1.5]], dtype=DOUBLE))[0, 0].tolist(), [2.0, 7.0, 5.0])
    read = path.clock(torch.tensor([[0.0, 1.0, 1.5, 2.0, 3.0, 4.0, 9.0], [3.0, 4.0, 5.0, 6.0, 3.0, 3.0, 3.0]]))
    torch.testing.assert_close(read[0], torch.tensor([0.0, 0.0, 0.5, 2.0, 2.5, 4.0, 4.0], dtype=DOUBLE))
    torch.testing.assert_close(read[1], torch.tensor([0.0, 0.5, 2.0, 2.0, 0.0, 0.0, 0.0], dtype=DOUBLE))


@pytest.mark.parametrize("kind", ["rectilinear", "hermite"])
def test_what_comes_later_changes_no_earlier_value(kind):
    """Rectilinear: nowhere. Hermite with all channels observed: nowhere before the last visit in hand."""
    batch = ragged(missing=0.4 if kind == "rectilinear" else 0.0, rows=1, seed=5)
    for count in range(2, 7):
        past = batch.history(count=count)
        now = past.last_time
        query = now[:, None] * torch.linspace(0.3, 1.0, 40, dtype=DOUBLE)
        if kind == "rectilinear":
            query = query[query < now][None]
        short, whole = control_path(past, kind, intensity=True), control_path(batch, kind, intensity=True)
        torch.testing.assert_close(short.value(short.clock(query)), whole.value(whole.clock(query)))


def test_counts_and_time_are_channels():
    batch = ragged(seed=8)
    path = control_path(batch, "linear", intensity=True)
    assert path.num_channels == 1 + 2 * 3
    compact = batch.compact()
    at_visits = path.value(compact.times)
    torch.testing.assert_close(at_visits[..., 0], compact.times - batch.first_time[:, None])
    last = compact.present.sum(1) - 1
    rows = torch.arange(len(batch))
    torch.testing.assert_close(at_visits[rows, last, 4:], batch.mask.sum(1).to(DOUBLE))


@pytest.mark.parametrize("kind", PATH_KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_derivative_is_that_of_the_value(kind, dtype):
    batch = ragged(seed=2, dtype=dtype)
    path = control_path(batch, kind)
    inner = path.knots[:, :1] + (path.knots[:, -1:] - path.knots[:, :1]) * torch.linspace(0.013, 0.977, 17).double()
    step = 1e-5 if dtype == DOUBLE else 1e-3
    near = (path.knots.unsqueeze(1) - inner.unsqueeze(2)).abs().amin(2) < 2 * step  # kinks
    value, slope = path(inner)
    assert value.dtype == slope.dtype == dtype
    ratio = (path.value(inner + step) - path.value(inner - step)) / (2 * step)
    tolerance = 1e-4 if dtype == DOUBLE else 0.05
    torch.testing.assert_close(ratio[~near], slope[~near], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kind", PATH_KINDS)
def test_padding_order_and_unobserved_visits_change_nothing(kind):
    batch = ragged(seed=4)
    query = batch.first_time[:, None] + torch.rand(len(batch), 9, dtype=DOUBLE) * 4
    path = control_path(batch, kind, intensity=True)
    wanted = path.value(path.clock(query))
    order = [2, 0, 3, 1]
    padded = batch.padded(11).rows(order)
    again = control_path(padded, kind, intensity=True)
    torch.testing.assert_close(again.value(again.clock(query[order])), wanted[order])
    for row in range(len(batch)):
        alone = control_path(batch.rows(row).compact(), kind, intensity=True)
        torch.testing.assert_close(alone.value(alone.clock(query[row : row + 1])), wanted[row : row + 1])


@pytest.mark.parametrize("kind", PATH_KINDS)
def test_single_visits_are_constant_paths(kind):
    batch = SeriesBatch(torch.tensor([[2.0], [3.0]]), torch.tensor([[[1.0]], [[4.0]]]))
    path = control_path(batch, kind)
    value, slope = path(torch.tensor([[0.0, 2.0, 5.0]] * 2, dtype=DOUBLE))
    assert value[:, :, 1].tolist() == [[1.0] * 3, [4.0] * 3] and not slope.any()
    assert path.at(2.0).tolist() == [[0.0, 1.0], [0.0, 4.0]]


@pytest.mark.parametrize("kind", PATH_KINDS)
def test_gradients_reach_the_values(kind):
    times = torch.tensor([[0.0, 0.4, 1.0, 1.0]], dtype=DOUBLE)
    mask = torch.tensor([[[True, True], [False, True], [True, True], [False, False]]])
    query = torch.tensor([[0.1, 0.3, 0.8]], dtype=DOUBLE)

    def read(values):
        value, slope = interpolate(times, values, mask, kind)(query)
        return torch.cat((value, slope), -1)

    values = torch.randn(1, 4, 2, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(read, (values,))


def test_natural_slopes_of_a_straight_line_are_its_slope():
    knots = torch.tensor([[0.0, 0.3, 1.0, 4.0, 4.0]], dtype=DOUBLE)
    torch.testing.assert_close(natural_slopes(knots, 2 * knots)[:, :4], torch.full((1, 4), 2.0, dtype=DOUBLE))


def test_bad_input_is_named():
    times, values = torch.zeros(1, 3), torch.zeros(1, 3, 2)
    with pytest.raises(ValueError, match="kind: got 'spline', want one of linear, hermite, cubic, rectilinear"):
        interpolate(times, values, kind="spline")
    with pytest.raises(ValueError, match="times, values: got shapes"):
        interpolate(times[:, :2], values)
    with pytest.raises(ValueError, match="mask: got shape"):
        interpolate(times, values, torch.ones(1, 3, dtype=torch.bool))


def test_agrees_with_torchcde_where_it_is_installed():
    torchcde = pytest.importorskip("torchcde")
    g = torch.Generator().manual_seed(0)
    times = torch.cumsum(torch.rand(8, generator=g, dtype=DOUBLE) + 0.05, 0)
    values = torch.randn(3, 8, 2, generator=g, dtype=DOUBLE)
    mask = torch.rand(3, 8, 2, generator=g) > 0.3
    mask[:, 0] = mask[:, -1] = True
    holed = torch.where(mask, values, torch.nan)
    query = torch.linspace(float(times[0]) + 0.01, float(times[-1]) - 0.01, 31, dtype=DOUBLE)
    shared = times.expand(3, -1)
    peers = {
        "cubic": torchcde.CubicSpline(torchcde.natural_cubic_coeffs(holed, times), times),
        "hermite": torchcde.CubicSpline(
            torchcde.hermite_cubic_coefficients_with_backward_differences(holed, times), times
        ),
        "linear": torchcde.LinearInterpolation(torchcde.linear_interpolation_coeffs(holed, times), times),
    }
    for kind, peer in peers.items():
        value, slope = interpolate(shared, values, mask, kind)(query.expand(3, -1))
        wanted = torch.stack([peer.evaluate(t) for t in query], 1)
        torch.testing.assert_close(value, wanted, msg=kind)
        torch.testing.assert_close(slope, torch.stack([peer.derivative(t) for t in query], 1), msg=kind)
