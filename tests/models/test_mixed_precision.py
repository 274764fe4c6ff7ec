"""bfloat16 autocast reaches the encoder and not the path KL: losses stay close to float32's, for every posterior."""

import pytest
import torch

from neurodyn import LatentSDE, LinearSDE, SeriesBatch


@pytest.mark.parametrize("posterior", ["matched", "simulated", "smoother"])
def test_the_elbo_under_autocast_is_close_to_that_in_float32(posterior):
    torch.manual_seed(0)
    batch = SeriesBatch(torch.rand(6, 8).double().cumsum(1), torch.randn(6, 8, 2))
    if posterior == "smoother":
        model = LatentSDE.on(LinearSDE(num_variables=2))
    else:
        model = LatentSDE.build(num_variables=2, posterior=posterior, longest_step=0.2)
    with torch.no_grad():
        for parameter in model.posterior.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # so that features matter
    found = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = model.loss(batch, generator=torch.Generator().manual_seed(1))
        loss.objective().backward()
        assert loss.elbo.dtype == torch.float32
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        found.append(loss.elbo.detach())
    assert not torch.equal(*found)
    assert torch.allclose(*found, rtol=0.02)
