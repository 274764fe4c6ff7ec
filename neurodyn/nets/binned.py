"""Encoders of counts in regular bins: one feature vector per knot, a knot every few bins."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class BinnedEncoder(nn.Module):
    """Reads counts (B, T, N) and gives features (B, G, C) at every `stride`-th bin, G = ceil((T - 1) / stride) + 1.

    A convolution over 2 stride - 1 bins is read either by a recurrence in both directions or, in parallel, by attention
    over all knots with the positions' sines and cosines added.

    Args:
        num_variables: N. context_size: C. hidden_size: of each direction; of attention's width twice that.
        kind: "gru" or "attention". stride: bins per knot. dropout: of features on their way in.

    Raises:
        ValueError: an unknown kind, a size below 1.
    """

    def __init__(
        self,
        num_variables: int,
        context_size: int,
        hidden_size: int = 64,
        *,
        kind: str = "gru",
        stride: int = 2,
        dropout: float = 0.0,
    ) -> None:
        if kind not in ("gru", "attention"):
            raise ValueError(f"kind: {kind!r} given, 'gru' or 'attention' wanted")
        for name, given in (("num_variables", num_variables), ("stride", stride), ("hidden_size", hidden_size)):
            if given < 1:
                raise ValueError(f"{name}: {given} given, 1 or more wanted")
        super().__init__()
        self.stride, self.context_size, self.kind = stride, context_size, kind
        width = 2 * hidden_size
        # one input more than neurons: whether the bin was recorded at all
        self.read = nn.Conv1d(num_variables + 1, width, 2 * stride - 1, stride, stride - 1)
        self.dropout = nn.Dropout(dropout)
        self.rnn: nn.Module
        if kind == "gru":
            self.rnn = nn.GRU(width, hidden_size, batch_first=True, bidirectional=True)
        else:
            heads = 4 if width % 4 == 0 else 1
            layer = nn.TransformerEncoderLayer(
                width, heads, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
            )
            self.rnn = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, context_size)

    def forward(self, counts: Tensor, present: Tensor) -> Tensor:
        """Features (B, G, C) of counts (B, T, N), zero where unobserved, with `present` (B, T) bool."""
        steps = counts.shape[1]
        knots = -(-(steps - 1) // self.stride) + 1
        inputs = torch.cat((counts, present[..., None].to(counts.dtype)), -1)
        short = (knots - 1) * self.stride + 1 - steps  # bins that the last knot lies beyond the last bin
        hidden = self.read(nn.functional.pad(inputs, (0, 0, 0, short)).mT).mT
        hidden = self.dropout(torch.nn.functional.silu(hidden))
        if self.kind == "gru":
            return self.head(self.rnn(hidden)[0])
        return self.head(self.rnn(hidden + position_code(knots, hidden)))


def position_code(steps: int, like: Tensor) -> Tensor:
    """Sines and cosines of places 0 to steps - 1, (steps, C), as Vaswani et al. (2017) have them."""
    size = like.shape[-1]
    place = torch.arange(steps, device=like.device, dtype=like.dtype)[:, None]
    rate = torch.exp(-math.log(1e4) * torch.arange(0, size, 2, device=like.device, dtype=like.dtype) / size)
    return torch.cat(((place * rate).sin(), (place * rate).cos()), -1)[:, :size]
