"""The plain multilayer perceptron that the other layers are made of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


def mlp(sizes: Sequence[int], activation: str = "silu", zero_last: bool = False) -> nn.Sequential:
    """Linear layers of the given sizes with an activation between them (none after the last).

    Args:
        sizes: input, hidden and output sizes, two or more; ``[3, 5]`` is one linear layer.
        activation: "elu", "gelu", "relu", "silu", "softplus" or "tanh".
        zero_last: start the last layer at zero, so that the network begins as the zero function. This is how a
            neural residual starts at the model that it corrects; gradients reach the last layer first.

    Raises:
        ValueError: fewer than two sizes, a size below one, or an unknown activation.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes: got {list(sizes)}, want two or more positive layer sizes")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation: got {activation!r}, want one of {', '.join(_ACTIVATIONS)}")
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), _ACTIVATIONS[activation]()]
    layers.pop()
    if zero_last:
        last = layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*layers)
