"""The second derivative of the Hermite curves: finite differences of the first, exact on cubics, nothing outside."""

import torch

from neurodyn.nets.spline import hermite, hermite_jet

DOUBLE = torch.float64


def test_second_derivative_is_the_slope_of_the_first_and_exact_on_cubics() -> None:
    knots = torch.tensor([[0.0, 0.7, 1.9, 2.0], [-1.0, 0.5, 0.5, 0.5]], dtype=DOUBLE)  # a padded row
    values, left, right = torch.randn(3, 2, 4, 3, dtype=DOUBLE)
    query, h = torch.tensor([[0.1, 0.9, 1.7, 1.95], [-0.9, 0.0, 0.3, 0.4]], dtype=DOUBLE), 1e-6
    value, rate, bend = hermite_jet(knots, values, left, right, query)
    for found, wanted in zip((value, rate), hermite(knots, values, left, right, query), strict=True):
        assert torch.equal(found, wanted)
    ahead, behind = (hermite(knots, values, left, right, query + step)[1] for step in (h, -h))
    torch.testing.assert_close(bend, (ahead - behind) / (2 * h), atol=1e-6, rtol=1e-6)

    t = knots[:1, :, None]
    cubic = (t**3 - 2 * t, 3 * t**2 - 2)
    bend = hermite_jet(knots[:1], cubic[0], cubic[1], cubic[1], query[:1])[2]
    torch.testing.assert_close(bend[..., 0], 6 * query[:1])


def test_constant_outside_and_finite_gradients_without_an_interval() -> None:
    knots = torch.full((1, 3), 0.5, dtype=DOUBLE)
    values = torch.randn(1, 3, 2, dtype=DOUBLE, requires_grad=True)
    query = torch.tensor([[0.0, 0.5, 3.0]], dtype=DOUBLE)
    _, _, bend = hermite_jet(knots, values, values, values, query)
    assert not bend.any()
    (grad,) = torch.autograd.grad(sum(part.sum() for part in hermite_jet(knots, values, values, values, query)), values)
    assert torch.isfinite(grad).all()
