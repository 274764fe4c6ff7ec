"""Recorded steps. What a GPU is needed for is in tests/test_cuda.py; here they are called, and lengths are rounded."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neurodyn.sde.neural import MLPSDE
from neurodyn.solvers import GraphedStep, length_bucket, sdeint


def test_a_step_gives_the_loss_and_fresh_gradients():
    layer = torch.nn.Linear(3, 1)
    step = GraphedStep(lambda x: layer(x).square().mean(), layer.parameters())
    x = torch.randn(5, 3)
    wanted = torch.autograd.grad(layer(x).square().mean(), list(layer.parameters()))
    for _ in range(2):  # not added up
        loss = step(x)
        assert not loss.requires_grad and loss == layer(x).square().mean()
        assert all(torch.equal(p.grad, grad) for p, grad in zip(layer.parameters(), wanted, strict=True))


def test_a_solve_has_no_gradients():
    law = MLPSDE(2)
    solve = GraphedStep(lambda z0, noise: sdeint(law, z0, [0.0, 1.0], dt=0.25, noise=noise))
    z0, noise = torch.randn(3, 2), 0.5 * torch.randn(4, 3, 2)
    states = solve(z0, noise)
    assert not states.requires_grad
    assert torch.equal(states, sdeint(law, z0, [0.0, 1.0], dt=0.25, noise=noise))


def test_bad_input_is_told():
    with pytest.raises(ValueError, match="^inputs: got float, want tensors"):
        GraphedStep(lambda x: x)(1.0)
    with pytest.raises(ValueError, match="^inputs: got cpu, int, want tensors"):
        GraphedStep(lambda x, y: x)(torch.zeros(1), 3)
    with pytest.raises(ValueError, match="^function: returned no scalar"):
        GraphedStep(lambda x: x, [torch.zeros(1, requires_grad=True)])(torch.zeros(2))
    for wrong in ({"length": 0}, {"length": 3, "shortest": 0}, {"length": 3, "ratio": 1.0}):
        with pytest.raises(ValueError, match="^length, shortest, ratio: got"):
            length_bucket(**wrong)


@given(st.integers(8, 5000), st.sampled_from([1.1, 1.25, 2.0]))
def test_buckets_waste_little_and_are_few(length, ratio):
    bucket = length_bucket(length, ratio=ratio)
    assert length <= bucket <= ratio * length + 1
    assert length_bucket(bucket, ratio=ratio) == bucket
    assert len({length_bucket(n, ratio=2.0) for n in range(1, 1025)}) == 8
