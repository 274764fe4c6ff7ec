"""Closed forms of the marginal families against autograd and finite differences."""

import pytest
import torch
from torch import Tensor

from neurodyn.posteriors.families import FAMILIES

DOUBLE = torch.float64


def channels_at(name: str, size: int, t: float | Tensor, seed: int = 0) -> Tensor:
    """Channels (1, 1, C) that move smoothly in time."""
    generator = torch.Generator().manual_seed(seed)
    family = FAMILIES[name](size)
    a, b, c = torch.randn(3, family.num_channels, generator=generator, dtype=DOUBLE) * 0.4
    return (a + b * t + c * torch.sin(torch.as_tensor(3.0 * t, dtype=DOUBLE)))[None, None]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_velocity_score_density_and_inverse(name: str, size: int) -> None:
    family = FAMILIES[name](size)
    t, h = 0.4, 1e-5
    rates = (channels_at(name, size, t + h) - channels_at(name, size, t - h)) / (2 * h)
    eps = torch.randn(7, 1, 1, size, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    channels = channels_at(name, size, t)
    found = family.sample(channels, rates, eps)

    ahead = family.sample(channels_at(name, size, t + h), rates, eps).z
    behind = family.sample(channels_at(name, size, t - h), rates, eps).z
    torch.testing.assert_close(found.velocity, (ahead - behind) / (2 * h), atol=1e-8, rtol=1e-6)

    torch.testing.assert_close(family.inverse(channels, found.z), eps, atol=1e-9, rtol=1e-8)

    # log q(z) by the change of variables with an autograd Jacobian
    def forward(e: Tensor) -> Tensor:
        return family.sample(channels, rates, e[None, None, None]).z[0, 0, 0]

    normal = torch.distributions.Normal(0.0, 1.0)
    for k in range(len(eps)):
        jacobian = torch.autograd.functional.jacobian(forward, eps[k, 0, 0])
        expected = normal.log_prob(eps[k, 0, 0]).sum() - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(found.log_prob[k, 0, 0], expected, atol=1e-9, rtol=1e-8)

    z = found.z.detach().requires_grad_()
    log_prob = family.sample(channels, rates, family.inverse(channels, z)).log_prob
    (score,) = torch.autograd.grad(log_prob.sum(), z)
    torch.testing.assert_close(found.score, score, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_fresh_marginals_are_the_isotropic_gaussian_asked_for(name: str) -> None:
    family = FAMILIES[name](2)
    channels = family.start(0.3).to(DOUBLE)[None, None]
    eps = torch.randn(5, 1, 1, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        family.sample(channels, torch.zeros_like(channels), eps).z, 0.3 * eps, atol=1e-7, rtol=1e-6
    )
