"""The perceptron's layers, against the matrix products they stand for."""

import pytest
import torch

from neurodyn.nets.mlp import LinearAndMLP, mlp


def test_is_linear_layers_with_activations_between():
    net = mlp([3, 7, 5, 2], activation="tanh").double()
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, second, third = net[0], net[2], net[4]
    want = ((x @ first.weight.T + first.bias).tanh() @ second.weight.T + second.bias).tanh() @ third.weight.T
    torch.testing.assert_close(net(x), want + third.bias)
    assert len(net) == 5


def test_zero_last_starts_as_the_zero_function_and_still_learns():
    net = mlp([3, 8, 2], zero_last=True)
    out = net(torch.randn(10, 3, generator=torch.Generator().manual_seed(0)))
    assert (out == 0).all()
    (out - 1.0).square().sum().backward()
    assert net[-1].weight.grad.abs().sum() > 0


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="sizes"):
        mlp([3])
    with pytest.raises(ValueError, match="sizes"):
        mlp([3, 0, 2])
    with pytest.raises(ValueError, match="activation"):
        mlp([3, 2], activation="sine")


def test_a_linear_map_stands_beside_the_mlp():
    net = LinearAndMLP([4, 32, 2]).double()
    inputs = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(inputs), net.net(inputs) + inputs @ net.linear.weight.T)
    torch.nn.init.zeros_(net.net[-1].weight)
    torch.testing.assert_close(net(2 * inputs) - net(inputs), inputs @ net.linear.weight.T)


def test_a_scale_makes_both_parts_small():
    net = LinearAndMLP([50, 40, 6], scale=0.1)
    assert net(torch.randn(9, 50)).abs().max() < 0.1 * 10 and net(torch.zeros(1, 50)).abs().max() < 0.1
    assert net.net[-1].bias.abs().max() == 0
