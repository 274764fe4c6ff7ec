"""Read-outs from latents at all bins to one number per variable."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from neurodyn.nets.binned import position_code
from neurodyn.nets.mlp import mlp

READOUTS = ("linear", "mlp", "transformer")


class Readout(nn.Module):
    """(..., T, d) to (..., T, N): bin by bin, or through one Transformer layer that sees all bins of a path.

    Args:
        kind: "linear", "mlp" (one hidden layer) or "transformer" (post-norm, 2 heads, as LangevinFlow has it).
        latent_size: d. num_variables: N. hidden_size: of the hidden layer, or of the Transformer's width.

    Attributes:
        bias: (N,), of the last layer.

    Raises:
        ValueError: an unknown kind.
    """

    def __init__(
        self, kind: Literal["linear", "mlp", "transformer"], latent_size: int, num_variables: int, hidden_size: int = 64
    ) -> None:
        if kind not in READOUTS:
            raise ValueError(f"readout: {kind!r} given, one of {', '.join(READOUTS)} wanted")
        super().__init__()
        self.kind = kind
        if kind == "linear":
            self.first: nn.Module = nn.Identity()
        elif kind == "mlp":
            self.first = nn.Sequential(mlp([latent_size, hidden_size]), nn.SiLU())
        else:
            self.first = nn.Linear(latent_size, hidden_size)
            self.layer = nn.TransformerEncoderLayer(hidden_size, 2, 2 * hidden_size, dropout=0.05, batch_first=True)
        self.last = nn.Linear(latent_size if kind == "linear" else hidden_size, num_variables)

    @property
    def bias(self) -> Tensor:
        """(N,)."""
        return self.last.bias

    def forward(self, z: Tensor) -> Tensor:
        """See the class."""
        hidden = self.first(z)
        if self.kind == "transformer":
            path = hidden.reshape(-1, *hidden.shape[-2:])
            hidden = self.layer(path + position_code(path.shape[1], path)).reshape(hidden.shape)
        found: Tensor = self.last(hidden)
        return found
