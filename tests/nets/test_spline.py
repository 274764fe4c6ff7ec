"""Per-row cubic Hermite curves against exact cubics, finite differences and scipy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicHermiteSpline

from neurodyn.nets.spline import hermite, natural_slopes, refine_knots

DTYPES = [torch.float32, torch.float64]


def random_knots(rows, knots, channels, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    times = torch.cumsum(torch.rand(rows, knots, generator=g, dtype=torch.float64) + 0.05, 1)
    tables = [torch.randn(rows, knots, channels, generator=g, dtype=torch.float64).to(dtype) for _ in range(3)]
    return times, *tables


def queries_inside(times, count, seed=1):
    g = torch.Generator().manual_seed(seed)
    u = torch.rand(times.shape[0], count, generator=g, dtype=torch.float64)
    return times[:, :1] + u * (times[:, -1:] - times[:, :1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_reproduces_cubics_exactly(dtype):
    g = torch.Generator().manual_seed(3)
    coefficients = torch.randn(5, 1, 3, 4, generator=g, dtype=torch.float64)
    times = torch.cumsum(torch.rand(5, 6, generator=g, dtype=torch.float64) + 0.1, 1)
    query = torch.cat([queries_inside(times, 40), times], 1)

    def cubic(t):
        t = t.unsqueeze(-1)
        a, b, c, d = coefficients.unbind(-1)
        return a + t * (b + t * (c + t * d)), b + t * (2 * c + 3 * t * d)

    value, slope = (x.to(dtype) for x in cubic(times))
    got_value, got_slope = hermite(times, value, slope, slope, query)
    want_value, want_slope = cubic(query)
    assert got_value.dtype == got_slope.dtype == dtype
    tolerance = 2e-4 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(got_value.double(), want_value, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(got_slope.double(), want_slope, rtol=tolerance, atol=10 * tolerance)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 4),
    knots=st.integers(2, 7),
    channels=st.integers(1, 3),
    seed=st.integers(0, 10_000),
)
def test_agrees_with_scipy_row_by_row_when_smooth(rows, knots, channels, seed):
    times, values, slope, _ = random_knots(rows, knots, channels, seed)
    query = queries_inside(times, 11, seed + 1)
    value, derivative = hermite(times, values, slope, slope, query)
    for b in range(rows):
        peer = CubicHermiteSpline(times[b].numpy(), values[b].numpy(), slope[b].numpy())
        np.testing.assert_allclose(value[b].numpy(), peer(query[b].numpy()), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(derivative[b].numpy(), peer(query[b].numpy(), 1), rtol=1e-8, atol=1e-8)


def test_derivative_equals_finite_differences():
    times, values, left, right = random_knots(3, 5, 2, seed=4)
    query = queries_inside(times, 30, seed=5)
    step = 1e-6
    gap = (query[..., None] - times[:, None]).abs().amin(-1)
    query = torch.where(gap < 3 * step, query + 10 * step, query)
    ahead = hermite(times, values, left, right, query + step)[0]
    behind = hermite(times, values, left, right, query - step)[0]
    derivative = hermite(times, values, left, right, query)[1]
    torch.testing.assert_close(derivative, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-6)


def test_kinks_take_the_slope_of_their_side():
    times, values, left, right = random_knots(2, 5, 3, seed=6)
    value, derivative = hermite(times, values, left, right, times)
    torch.testing.assert_close(value, values, rtol=0, atol=1e-14)
    torch.testing.assert_close(derivative[:, :-1], right[:, :-1])
    torch.testing.assert_close(derivative[:, -1], left[:, -1])
    before = hermite(times, values, left, right, times[:, 1:] - 1e-9)
    torch.testing.assert_close(before[1], left[:, 1:], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(before[0], values[:, 1:], rtol=1e-6, atol=1e-6)


def test_constant_outside_the_knots():
    times, values, left, right = random_knots(2, 4, 2, seed=7)
    query = torch.stack(
        [
            times[:, 0] - 100.0,
            times[:, 0] - 1e-9,
            times[:, -1] + 1e-9,
            times[:, -1] + 100.0,
        ],
        1,
    )
    value, derivative = hermite(times, values, left, right, query)
    torch.testing.assert_close(value, values[:, [0, 0, -1, -1]], rtol=0, atol=1e-14)
    assert (derivative == 0).all()


@settings(max_examples=20, deadline=None)
@given(extra=st.integers(1, 4), knots=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_padding_changes_neither_the_curve_nor_its_gradients(extra, knots, seed):
    times, values, left, right = random_knots(2, knots, 2, seed)
    query = torch.cat(
        [
            queries_inside(times, 9, seed),
            times,
            times[:, -1:] + 1.0,
            times[:, :1] - 1.0,
        ],
        1,
    )
    padded_times = torch.cat([times, times[:, -1:].expand(-1, extra)], 1)

    def run(knot_times, *tables):
        leaves = [t.clone().requires_grad_() for t in (knot_times, *tables)]
        ask = query.clone().requires_grad_()
        value, derivative = hermite(*leaves, ask)
        (value.square().sum() + derivative.square().sum()).backward()
        return (
            value.detach(),
            derivative.detach(),
            [leaf.grad for leaf in leaves[1:]],
            leaves[0].grad,
            ask.grad,
        )

    def pad(table):
        return torch.cat([table, torch.full((2, extra, 2), 1e3, dtype=table.dtype)], 1)

    plain = run(times, values, left, right)
    padded = run(padded_times, pad(values), pad(left), pad(right))
    torch.testing.assert_close(plain[0], padded[0], rtol=0, atol=0)
    torch.testing.assert_close(plain[1], padded[1], rtol=0, atol=0)
    for a, b in zip(plain[2], padded[2], strict=True):
        torch.testing.assert_close(a, b[:, :knots])
        assert (b[:, knots:] == 0).all()
    assert torch.isfinite(padded[3]).all() and torch.isfinite(padded[4]).all()


def test_row_of_coinciding_knots_is_constant_at_its_first_value():
    times = torch.full((1, 3), 2.0, dtype=torch.float64)
    values = torch.tensor([[[1.0], [5.0], [7.0]]])
    slope = torch.ones(1, 3, 1)
    value, derivative = hermite(
        times,
        values,
        slope,
        slope,
        torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64),
    )
    assert (value == 1.0).all() and (derivative == 0.0).all()


def test_gradcheck_in_every_argument():
    times, values, left, right = random_knots(2, 4, 2, seed=8)
    query = queries_inside(times, 5, seed=9)
    leaves = [x.clone().requires_grad_() for x in (times, values, left, right, query)]
    assert torch.autograd.gradcheck(hermite, leaves)


def test_float32_values_keep_float64_times():
    # A day in seconds since 1970: float32 times would be 128 s apart.
    origin = 1.7e9
    times = origin + torch.tensor([[0.0, 10.0, 20.0]], dtype=torch.float64)
    values = torch.tensor([[[0.0], [10.0], [20.0]]])
    slope = torch.ones(1, 3, 1)
    value, derivative = hermite(times, values, slope, slope, times[:, :2] + 3.25)
    torch.testing.assert_close(value, torch.tensor([[[3.25], [13.25]]]))
    torch.testing.assert_close(derivative, torch.ones(1, 2, 1))


@pytest.mark.parametrize("inner", [0, 1, 3])
def test_refined_knots_are_equally_spaced_and_contain_the_originals(inner):
    times = torch.tensor([[0.0, 0.7, 2.9, 2.9], [1.1, 1.3, 4.7, 10.1]], dtype=torch.float64)
    knots, index = refine_knots(times, inner)
    assert knots.shape == (2, 3 * (inner + 1) + 1)
    assert torch.equal(knots[:, index], times)
    for b in range(2):
        pieces = [np.linspace(times[b, k].item(), times[b, k + 1].item(), inner + 2)[:-1] for k in range(3)]
        want = np.append(np.concatenate(pieces), times[b, -1])
        np.testing.assert_allclose(knots[b].numpy(), want, rtol=1e-14)
    assert (knots.diff(dim=1) >= 0).all()


def test_refining_a_curve_leaves_it_unchanged():
    times, values, left, right = random_knots(2, 4, 2, seed=10)
    knots, index = refine_knots(times, 2)
    v, slope = hermite(times, values, left, right, knots)
    fine_left, fine_right = slope.clone(), slope.clone()
    fine_left[:, index], fine_right[:, index] = left, right
    query = queries_inside(times, 25)
    for a, b in zip(
        hermite(times, values, left, right, query),
        hermite(knots, v, fine_left, fine_right, query),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_shape_errors_name_the_argument():
    times, values, left, right = random_knots(2, 4, 2)
    with pytest.raises(ValueError, match="knot_times"):
        hermite(times[0], values, left, right, times)
    with pytest.raises(ValueError, match="slope_left"):
        hermite(times, values, left[:, 1:], right, times)
    with pytest.raises(ValueError, match="query"):
        hermite(times, values, left, right, times[:1])
    with pytest.raises(ValueError, match="inner"):
        refine_knots(times, -1)
    with pytest.raises(ValueError, match="times"):
        refine_knots(times[0], 1)


def test_natural_slopes_are_scipys() -> None:
    from scipy.interpolate import CubicSpline

    generator = torch.Generator().manual_seed(0)
    knots = torch.rand(3, 9, generator=generator, dtype=torch.float64).cumsum(1)
    values = torch.randn(3, 9, 2, generator=generator, dtype=torch.float64)
    found = natural_slopes(knots, values)
    for row in range(3):
        spline = CubicSpline(knots[row], values[row], bc_type="natural")
        assert torch.allclose(found[row], torch.as_tensor(spline(knots[row], 1)), rtol=1e-9)
    # padding changes nothing, whatever it holds, and two knots make a line
    padded = torch.cat((knots, knots[:, -1:].expand(-1, 3)), 1)
    more = torch.cat((values, torch.randn(3, 3, 2, generator=generator, dtype=torch.float64)), 1)
    assert torch.allclose(natural_slopes(padded, more)[:, :9], found, rtol=1e-12)
    line = natural_slopes(knots[:, :2], values[:, :2])
    chord = (values[:, 1] - values[:, 0]) / (knots[:, 1] - knots[:, 0])[:, None]
    assert torch.allclose(line, chord[:, None].expand(-1, 2, -1), rtol=1e-12)
