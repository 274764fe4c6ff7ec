"""A drift sees exactly the parents that its graph gives it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neurodyn.sde.graph import GraphLaw, Intervened

NETWORKS = ("embedding", "targets")


def law_of(network: str, diffusion: str = "constant", size: int = 4) -> GraphLaw:
    speed, scale = torch.linspace(0.5, 2, size), torch.linspace(0.2, 1, size)
    return GraphLaw(size, network, 16, diffusion=diffusion, speed=speed, scale=scale).double()


def jacobian(function, z: Tensor) -> Tensor:
    """d out_j / d z_i as [i, j]."""
    return torch.autograd.functional.jacobian(function, z).mT


def cyclic() -> Tensor:
    """x1 -> x2 -> x3 -> x1, x3 -> x4, self-loops at x1 and x4 only."""
    graph = torch.zeros(4, 4, dtype=torch.float64)
    for i, j in ((0, 1), (1, 2), (2, 0), (2, 3), (0, 0), (3, 3)):
        graph[i, j] = 1
    return graph


@pytest.mark.parametrize("network", NETWORKS)
def test_the_jacobian_is_zero_exactly_where_there_is_no_edge(network: str) -> None:
    law, graph, z = law_of(network), cyclic(), torch.randn(4, dtype=torch.float64)
    found = jacobian(lambda x: law.under(graph).drift(0.0, x), z)
    assert torch.equal(found != 0, graph > 0)
    assert (jacobian(lambda x: law.drift(0.0, x), z) != 0).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_the_diffusion_sees_its_parents_and_itself(network: str) -> None:
    law, graph, z = law_of(network, "network"), cyclic(), torch.randn(4, dtype=torch.float64)
    found = jacobian(lambda x: law.under(graph).diffusion(0.0, x), z)
    assert torch.equal(found != 0, (graph + torch.eye(4)) > 0)
    scale = law.log_scale.exp()
    values = law.under(graph).diffusion(0.0, 100 * torch.randn(50, 4, dtype=torch.float64))
    assert (values >= 0.05 * scale).all() and (values <= 2 * scale).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_a_coordinate_does_not_see_what_is_cut(network: str) -> None:
    """Not only to first order: any change of a variable without an arrow leaves the drift as it is, bit by bit."""
    law, graph, z = law_of(network), cyclic(), torch.randn(4, dtype=torch.float64)
    other = z.clone()
    other[1] = 50.0  # drives x3 alone
    same = law.under(graph).drift(0.0, z) == law.under(graph).drift(0.0, other)
    assert same.tolist() == [True, True, False, True]


@pytest.mark.parametrize("network", NETWORKS)
def test_many_graphs_at_once_are_each_by_itself(network: str) -> None:
    law = law_of(network)
    graphs = (torch.rand(3, 5, 4, 4, dtype=torch.float64) < 0.5).double()
    z = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    together = law.under(graphs).drift(0.0, z)
    assert together.shape == z.shape
    for b in range(3):
        for m in range(5):
            alone = law.under(graphs[b, m]).drift(0.0, z[:, b, m])
            assert torch.allclose(together[:, b, m], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_slope_is_the_jacobians_diagonal_and_differentiable(network: str) -> None:
    law, graph = law_of(network), cyclic()
    z = torch.randn(6, 4, dtype=torch.float64)
    value, slope = law.drift_slope(z, graph)
    for row in range(6):
        full = jacobian(lambda x: law.masked_drift(x, graph), z[row])
        assert torch.allclose(slope[row], full.diagonal(), rtol=1e-10, atol=1e-12)
    assert torch.equal(value, law.masked_drift(z, graph))
    soft = graph.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda g: law.drift_slope(z, g), (soft,))


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_reach_the_graph_of_a_fresh_law(network: str) -> None:
    law = law_of(network)
    graph = torch.full((4, 4), 0.5, dtype=torch.float64, requires_grad=True)
    law.under(graph).drift(0.0, torch.randn(8, 4, dtype=torch.float64)).square().sum().backward()
    assert graph.grad is not None and (graph.grad != 0).all()


def test_units_scale_drift_and_diffusion() -> None:
    torch.manual_seed(0)
    plain = GraphLaw(2, "targets", 8)
    torch.manual_seed(0)
    fast = GraphLaw(2, "targets", 8, speed=torch.tensor([10.0, 1.0]), scale=torch.tensor([0.5, 3.0]))
    z = torch.randn(5, 2)
    assert torch.allclose(fast.drift(0.0, z), plain.drift(0.0, z) * torch.tensor([10.0, 1.0]))
    assert torch.allclose(fast.diffusion(0.0, z), torch.tensor([0.5, 3.0]).expand(5, 2))


def test_an_intervention_holds_what_it_says_and_cuts_its_causes() -> None:
    law = law_of("embedding")
    held = torch.tensor([False, True, False, False])
    moved = Intervened(law.under(cyclic()), held)
    z = torch.randn(7, 4, dtype=torch.float64)
    assert (moved.drift(0.0, z)[:, 1] == 0).all() and (moved.diffusion(0.0, z)[:, 1] == 0).all()
    assert torch.equal(moved.drift(0.0, z)[:, ~held], law.under(cyclic()).drift(0.0, z)[:, ~held])
    with pytest.raises(ValueError, match=r"held: torch.bool \(3,\) given, bool \(4,\) wanted"):
        Intervened(law, torch.zeros(3, dtype=torch.bool))


def test_torchsde_simulates_it() -> None:
    import torchsde

    law = law_of("targets").under(cyclic())
    path = torchsde.sdeint(
        law, torch.zeros(3, 4, dtype=torch.float64), torch.tensor([0.0, 0.1]), dt=0.05, method="euler"
    )
    assert path.shape == (2, 3, 4) and path.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_size": 0}, "state_size: 0 given"),
        ({"network": "dense"}, "network: 'dense' given"),
        ({"diffusion": "none"}, "diffusion: 'none' given"),
        ({"speed": torch.zeros(3)}, r"speed: \[0.0, 0.0, 0.0\] given, 3 positive numbers"),
        ({"scale": torch.ones(2)}, "scale: "),
    ],
)
def test_bad_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GraphLaw(**({"state_size": 3} | options))


def test_a_graph_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"graph: shape \(3, 3\) given, \(..., 4, 4\) wanted"):
        law_of("targets").under(torch.ones(3, 3))
