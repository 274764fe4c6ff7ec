"""A posterior with a drift of its own: its functions by hand, and its price through `sdeint`."""

import pytest
import torch

from neurodyn.sde import MLPSDE, ContextDrift, ContextSDE
from neurodyn.solvers import brownian_increments, sdeint, step_grid

DOUBLE = torch.float64
TIMES = torch.tensor([[0.0, 0.4, 1.0], [0.5, 0.7, 0.9]], dtype=DOUBLE)


@pytest.fixture
def parts():
    prior, network = MLPSDE(2, 5, diffusion_bounds=(0.1, 1.0)).double(), ContextDrift(2, 3, 6).double()
    return prior, network, torch.randn(2, 2, 3, dtype=DOUBLE, requires_grad=True)


def by_hand(network, z, context):
    hidden = z @ network.state_layer.weight.T + context @ network.context_layer.weight.T + network.context_layer.bias
    out = network.output_layer
    return torch.nn.functional.softplus(hidden) @ out.weight.T + out.bias


@pytest.mark.parametrize(
    ("t", "gaps"), [(0.55, (1, 0)), (torch.tensor([0.39, 0.7], dtype=DOUBLE), (0, 1)), (9.0, (1, 1))]
)
def test_the_drift_is_the_network_of_the_state_and_the_gaps_context(parts, t, gaps):
    prior, network, contexts = parts
    law = ContextSDE(prior, network, TIMES, contexts)
    z = torch.randn(4, 2, 2, dtype=DOUBLE)
    wanted = by_hand(network, z, torch.stack([contexts[row, gap] for row, gap in enumerate(gaps)]))
    assert torch.allclose(law.drift(t, z), wanted, rtol=1e-12)
    assert torch.equal(law.h(t, z), prior.drift(t, z)) and torch.equal(law.diffusion(t, z), prior.diffusion(t, z))


def test_the_price_is_girsanovs_and_contexts_get_gradients(parts):
    prior, network, contexts = parts
    law = ContextSDE(prior, network, TIMES, contexts)
    z0 = torch.randn(2, 2, dtype=DOUBLE)
    grid = step_grid(TIMES, 0.1)
    noise = brownian_increments(grid, (2,), 2, dtype=DOUBLE)
    states, paid = sdeint(law, z0, TIMES, dt=0.1, noise=noise, logqp=True)
    z, by_gap = z0, torch.zeros(2, 2, dtype=DOUBLE)
    for k, gap in enumerate(grid.intervals):
        f, h, g = by_hand(network, z, contexts[:, gap]), prior.drift(0.0, z), prior.diffusion(0.0, z)
        length = grid.steps[:, k, None]
        by_gap[:, gap] += 0.5 * (((f - h) / g) ** 2).sum(-1) * length[:, 0]
        z = z + f * length + g * noise[k]
    assert torch.allclose(states[:, -1], z, rtol=1e-10) and torch.allclose(paid, by_gap, rtol=1e-10)
    (mine,) = torch.autograd.grad(paid.sum(), contexts, retain_graph=True)
    (wanted,) = torch.autograd.grad(by_gap.sum(), contexts)
    assert torch.allclose(mine, wanted, rtol=1e-8) and mine.abs().min() > 0


def test_contexts_that_are_not_one_per_gap_are_refused(parts):
    prior, network, contexts = parts
    with pytest.raises(ValueError, match=r"^contexts: got shape \(2, 2, 3\), want \(..., 1, C\): one per gap"):
        ContextSDE(prior, network, TIMES[:, :2], contexts)
    with pytest.raises(ValueError, match="^activation: got 'relu'"):
        ContextDrift(2, 3, activation="relu")
