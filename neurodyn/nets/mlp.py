"""The plain multilayer perceptron that the other layers are made of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

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


class LinearAndMLP(nn.Module):
    """A linear map of the input plus an MLP of it, (..., in) -> (..., out).

    For outputs that are nearly linear in the input and wanted precisely, as the states of a smoother are in the
    observations: the MLP then only has to learn the rest.

    Args:
        sizes: of the MLP, as `mlp` takes them.
        scale: if given, the weights of the linear map and of the MLP's last layer start at random with this standard
            deviation over the square root of their number of inputs, and the biases at zero.

    Raises ValueError as `mlp`.
    """

    def __init__(self, sizes: Sequence[int], scale: float | None = None) -> None:
        super().__init__()
        self.net, self.linear = mlp(sizes), nn.Linear(sizes[0], sizes[-1], bias=False)
        if scale is not None:
            last = self.net[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.bias)
            for layer in (last, self.linear):
                nn.init.normal_(layer.weight, std=scale * layer.in_features**-0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.net(inputs) + self.linear(inputs)
        return out
