"""The Gaussian initial law against torch.distributions and sample moments."""

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from neurodyn.sde.initial import GaussianInitial

DTYPE = torch.float64


def build(covariance):
    torch.manual_seed(0)
    law = GaussianInitial(3, covariance).double()
    with torch.no_grad():
        for parameter in law.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return law, MultivariateNormal(law.mean, scale_tril=law.scale_tril())


def random_tril(*shape):
    return torch.randn(*shape, 3, 3, dtype=DTYPE).tril(-1) + torch.diag_embed(torch.rand(*shape, 3, dtype=DTYPE) + 0.3)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_log_prob_and_kl_equal_torch_distributions(covariance):
    law, reference = build(covariance)
    z = torch.randn(4, 2, 3, dtype=DTYPE)
    torch.testing.assert_close(law.log_prob(z), reference.log_prob(z))
    mean, tril = torch.randn(4, 2, 3, dtype=DTYPE), random_tril(4, 2)
    torch.testing.assert_close(
        law.kl_from(mean, tril), kl_divergence(MultivariateNormal(mean, scale_tril=tril), reference)
    )
    sd = torch.rand(4, 2, 3, dtype=DTYPE) + 0.1
    torch.testing.assert_close(law.kl_from(mean, sd), law.kl_from(mean, torch.diag_embed(sd)))


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_kl_from_itself_is_zero(covariance):
    law, _ = build(covariance)
    zero = torch.zeros((), dtype=DTYPE)
    torch.testing.assert_close(law.kl_from(law.mean, law.scale_tril()), zero, atol=1e-14, rtol=0)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_samples_have_the_law_s_moments_and_follow_the_seed(covariance):
    law, reference = build(covariance)
    draw = law.sample((200, 500), generator=torch.Generator().manual_seed(3)).detach()
    assert torch.equal(draw, law.sample((200, 500), generator=torch.Generator().manual_seed(3)))
    flat = draw.reshape(-1, 3)
    torch.testing.assert_close(flat.mean(0), law.mean.detach(), atol=0.02, rtol=0)
    torch.testing.assert_close(torch.cov(flat.mT), reference.covariance_matrix.detach(), atol=0.03, rtol=0.02)


def test_gradients_reach_every_parameter():
    law, _ = build("full")
    (law.kl_from(torch.randn(3, dtype=DTYPE), random_tril()) + law.sample((2,)).square().sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in law.parameters())


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="^size"):
        GaussianInitial(0)
    with pytest.raises(ValueError, match="^covariance"):
        GaussianInitial(2, "banded")
    with pytest.raises(ValueError, match="^scale"):
        GaussianInitial(2, scale=0.0)
    with pytest.raises(ValueError, match="^scale: got shape"):
        GaussianInitial(2).kl_from(torch.zeros(4, 2), torch.zeros(4, 3))
