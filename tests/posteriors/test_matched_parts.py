"""Networks of one input and their slopes, in parts: values, slopes and gradients."""

import pytest
import torch

from neurodyn.posteriors.matched import MatchedPosterior
from neurodyn.sde import coordinate_jet, neural
from neurodyn.sde.coordinate_jet import SoftplusJet
from neurodyn.sde.neural import CoordinatewiseNet


@pytest.mark.parametrize("part", [1, 50, 10**6])
def test_values_slopes_and_gradients_do_not_depend_on_the_parts(part, monkeypatch):
    monkeypatch.setattr(coordinate_jet, "PART", part)
    torch.manual_seed(0)
    z, *weights = (torch.randn(*shape, dtype=torch.float64) for shape in ((2, 7, 3), (3, 5), (3, 5), (3, 5)))
    a, b, c = weights
    inputs = [part.requires_grad_() for part in (z, a, b, c)]
    out, slope = SoftplusJet.apply(*inputs)
    plain = (torch.nn.functional.softplus(z[..., None] * a + b) * c).sum(-1)
    torch.testing.assert_close(out, plain, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(slope, torch.autograd.grad(plain.sum(), z)[0], rtol=1e-13, atol=1e-14)
    assert torch.autograd.gradcheck(SoftplusJet.apply, inputs)


def test_many_points_at_once_are_as_few_at_a_time():
    torch.manual_seed(1)
    net = CoordinatewiseNet(3, 8, low=0.1, high=2.0).double()
    z = torch.randn(neural.PART // 24 + 5, 3, dtype=torch.float64)
    found = []
    for pieces in (z.split(len(z)), z.split(1000)):
        value, slope = (torch.cat(parts) for parts in zip(*(net.value_and_slope(0.0, p) for p in pieces), strict=True))
        grads = torch.autograd.grad((value.sin() + slope.cos()).sum(), list(net.parameters()))
        found.append([value, slope, *grads])
    torch.testing.assert_close(found[0], found[1], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("inner", [0, 2])
def test_channels_at_knots_are_those_of_the_curve_there(inner):
    torch.manual_seed(2)
    posterior = MatchedPosterior(2, 3, inner_knots=inner).double()
    times = torch.tensor([[0.0, 0.5, 2.0, 2.0], [1.0, 1.2, 1.3, 4.0], [3.0] * 4], dtype=torch.float64)
    curve = posterior.head(torch.randn(3, 4, 3, dtype=torch.float64), times)
    torch.testing.assert_close(curve.at_knots(inner + 1), curve.at(times)[0], rtol=1e-12, atol=1e-13)
