"""The distribution over graphs, against sums over all graphs of two nodes."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from neurodyn.posteriors.graphs import EdgePosterior


def all_graphs(size: int = 2) -> Tensor:
    """(2^(d d), d, d)."""
    rows = list(itertools.product((0.0, 1.0), repeat=size * size))
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, size, size)


def posterior(pace: float = 1.0, fixed: Tensor | None = None, temperature: float = 1.0) -> EdgePosterior:
    made = EdgePosterior(2, fixed, pace=pace, temperature=temperature).double()
    with torch.no_grad():
        made.slow_logits.copy_(torch.tensor([[0.4, -1.2], [0.9, 0.1]]) / pace)
    return made


def cost(graphs: Tensor) -> Tensor:
    """(..., 2): any function of the edges into each node."""
    one = 1.5 * graphs[..., 0, 0] - graphs[..., 1, 0] + 2.0 * graphs[..., 0, 0] * graphs[..., 1, 0] + 3.0
    two = (graphs[..., 0, 1] - 2 * graphs[..., 1, 1]).square()
    return torch.stack((one, two), -1)


def uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64)


def test_entropy_kl_and_log_prob_are_those_of_the_sum_over_graphs() -> None:
    q, graphs = posterior().requires_grad_(False), all_graphs()
    log_q = q.log_prob(graphs).sum(-1)
    assert float(log_q.exp().sum()) == pytest.approx(1)
    assert float(q.entropy()) == pytest.approx(float(-(log_q.exp() * log_q).sum()))
    for sparsity in (0.0, 0.7, 30.0):
        log_p = -sparsity * graphs.sum((-1, -2))
        log_p = log_p - log_p.logsumexp(0)
        exact = (log_q.exp() * (log_q - log_p)).sum()
        assert float(q.kl(sparsity)) == pytest.approx(float(exact), abs=1e-12)


def test_the_kl_is_zero_at_the_prior() -> None:
    q = EdgePosterior(3).double()
    with torch.no_grad():
        q.slow_logits.fill_(-2.0)
    assert float(q.kl(2.0).detach()) == pytest.approx(0, abs=1e-12)


def test_samples_have_the_probabilities() -> None:
    q = posterior()
    graphs = q.sample(uniform(40000, 2, 2))
    assert ((graphs == 0) | (graphs == 1)).all()
    wanted = q.probabilities()
    error = (wanted * (1 - wanted) / 40000).sqrt()
    assert ((graphs.mean(0) - wanted).abs() < 4 * error).all()


def exact_gradient(q: EdgePosterior) -> Tensor:
    graphs = all_graphs()
    value = (q.log_prob(graphs).sum(-1).exp() * cost(graphs).sum(-1)).sum()
    return torch.autograd.grad(value, q.slow_logits)[0]


@pytest.mark.parametrize("pace", [1.0, 5.0])
@pytest.mark.parametrize("samples", [2, 5])
def test_the_score_function_gradient_is_unbiased(pace: float, samples: int) -> None:
    q = posterior(pace)
    wanted, runs = exact_gradient(q), 4000
    graphs = q.sample(uniform(samples, runs, 2, 2)).detach()
    found = []
    for run in range(runs):
        one = graphs[:, run]
        found.append(torch.autograd.grad(q.score_surrogate(cost(one), one), q.slow_logits)[0])
    estimates = torch.stack(found)
    error = estimates.std(0) / runs**0.5
    assert ((estimates.mean(0) - wanted).abs() < 4 * error).all()
    assert (error < 0.2 * pace).all()


def test_the_control_variate_takes_a_constant_off() -> None:
    """Costs that do not depend on the graph, however large, give no gradient at all."""
    q = posterior()
    graphs = q.sample(uniform(6, 2, 2))
    gradient = torch.autograd.grad(q.score_surrogate(torch.full((6, 2), 1e6).double(), graphs), q.slow_logits)[0]
    assert (gradient.abs() < 1e-6).all()


def test_straight_through_gradients_tend_to_the_exact_ones_of_a_linear_cost() -> None:
    """d/dlogit E[G_ij] is p (1 - p); at a low temperature the relaxed gradient has that mean."""
    q = posterior(temperature=0.05)
    total = q.sample(uniform(200000, 2, 2)).mean(0)
    weight = torch.tensor([[1.0, -2.0], [0.5, 3.0]]).double()
    found = torch.autograd.grad((weight * total).sum(), q.slow_logits)[0]
    p = torch.sigmoid(q.logits)
    assert torch.allclose(found, weight * p * (1 - p), rtol=0.05)


def test_known_and_forbidden_edges_stay(generator: torch.Generator) -> None:
    fixed = torch.tensor([[torch.nan, 1.0], [0.0, torch.nan]])
    q = posterior(fixed=fixed)
    graphs = q.sample(torch.rand(50, 2, 2, generator=generator, dtype=torch.float64))
    assert (graphs[:, 0, 1] == 1).all() and (graphs[:, 1, 0] == 0).all()
    assert q.probabilities()[0, 1] == 1 and q.probabilities()[1, 0] == 0
    loss = graphs.square().sum() + q.kl(3.0) + q.score_surrogate(cost(graphs), graphs)
    gradient = torch.autograd.grad(loss, q.slow_logits)[0]
    assert gradient[0, 1] == 0 and gradient[1, 0] == 0 and gradient[0, 0] != 0
    free = all_graphs()[(all_graphs()[:, 0, 1] == 1) & (all_graphs()[:, 1, 0] == 0)]
    assert float(q.log_prob(free).sum(-1).exp().sum().detach()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": torch.zeros(3, 3)}, r"fixed: a table \(3, 3\) given"),
        ({"fixed": torch.full((2, 2), 0.5)}, "of 0, 1 and NaN wanted"),
        ({"temperature": 0.0}, "temperature, pace: 0.0, 1.0 given"),
    ],
)
def test_bad_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EdgePosterior(2, **options)


def test_one_sample_has_no_control_variate() -> None:
    with pytest.raises(ValueError, match="costs: 1 sample"):
        posterior().score_surrogate(torch.zeros(1, 2), torch.zeros(1, 2, 2))
