"""Networks whose Lipschitz constant in the state is bounded by construction."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class SpectralBound(nn.Module):
    """A matrix scaled down until its largest singular value is at most `bound`; others are left as they are.

    Exact, by singular values, unlike power iterations. For `torch.nn.utils.parametrize`, whose `cached` makes the
    matrix once for a whole solve.
    """

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, weight: Tensor) -> Tensor:
        """The bounded matrix."""
        largest = torch.linalg.matrix_norm(weight, 2)
        return weight * (self.bound / largest.clamp_min(self.bound))


def bounded_linear(inputs: int, outputs: int, bound: float = 1.0, bias: bool = True) -> nn.Linear:
    """A linear layer with a Lipschitz constant of at most `bound` in Euclidean norms."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    parametrize.register_parametrization(layer, "weight", SpectralBound(bound))
    return layer


class LipschitzField(nn.Module):
    """out = W2 tanh(... tanh(W0 z + pull)), at most `bound`-Lipschitz in z whatever is learned.

    Every matrix that z passes has spectral norm at most one (the last at most `bound`), and tanh has slope at most one.
    The pull, made of everything else, is added inside and unbounded.

    Args:
        size: of z and of the output. hidden_size, hidden_layers: one layer or more.
        bound: the Lipschitz constant.
    """

    def __init__(self, size: int, hidden_size: int, hidden_layers: int = 1, bound: float = 1.0) -> None:
        if hidden_layers < 1 or not bound > 0:
            raise ValueError(
                f"hidden_layers, bound: got {hidden_layers} and {bound}, want 1 or more and a positive number"
            )
        super().__init__()
        self.bound = bound
        self.first = bounded_linear(size, hidden_size, bias=False)
        self.middle = nn.ModuleList(bounded_linear(hidden_size, hidden_size) for _ in range(hidden_layers - 1))
        self.last = bounded_linear(hidden_size, size, bound)

    def forward(self, z: Tensor, pull: Tensor) -> Tensor:
        """(..., d) for z (..., d) and pull (..., hidden_size)."""
        hidden = torch.tanh(self.first(z) + pull)
        for layer in self.middle:
            hidden = torch.tanh(layer(hidden))
        moved: Tensor = self.last(hidden)
        return moved
