"""Encoders of counts in regular bins: one feature vector per knot, a knot every few bins."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class BinnedEncoder(nn.Module):
    """Reads counts (B, T, N) and gives features (B, G, C) at every `stride`-th bin, G = ceil((T - 1) / stride) + 1.

    A convolution over 2 stride - 1 bins is read either by recurrences in both directions or, in parallel, by attention
    over all knots with the positions' sines and cosines added. A row's features do not depend on its company: what lies
    beyond its end is not read, and has the features of its last knot.

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
        if kind == "gru":
            self.forward_rnn = nn.GRU(width, hidden_size, batch_first=True)
            self.backward_rnn = nn.GRU(width, hidden_size, batch_first=True)
        else:
            heads = 4 if width % 4 == 0 else 1
            layer = nn.TransformerEncoderLayer(
                width, heads, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
            )
            self.attention = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, context_size)

    def forward(self, counts: Tensor, present: Tensor, end: Tensor) -> Tensor:
        """Features (B, G, C) of counts (B, T, N).

        Args:
            counts: zero where unobserved. present: (B, T) bool, whether anything of a bin is observed.
            end: (B,) int64, the last bin of every row. Nothing is present after it.
        """
        steps = counts.shape[1]
        knots = -(-(steps - 1) // self.stride) + 1
        inputs = torch.cat((counts, present[..., None].to(counts.dtype)), -1)
        short = (knots - 1) * self.stride + 1 - steps  # bins that the last knot lies beyond the last bin
        hidden = self.read(nn.functional.pad(inputs, (0, 0, 0, short)).mT).mT
        hidden = self.dropout(torch.nn.functional.silu(hidden))
        place, last = torch.arange(knots, device=end.device), -(-end // self.stride)[:, None]
        if self.kind == "gru":
            # each row's own knots from its last one back, and put back in order
            turned = (last - place).clamp(min=0)
            back = _at(self.backward_rnn(_at(hidden, turned))[0], turned)
            hidden = torch.cat((self.forward_rnn(hidden)[0], back), -1)
        else:
            hidden = self.attention(hidden + position_code(knots, hidden), src_key_padding_mask=place > last)
        return self.head(_at(hidden, torch.minimum(place, last)))


def _at(table: Tensor, place: Tensor) -> Tensor:
    """Entries (B, K, C) of a table (B, G, C) at places (B, K)."""
    return table.gather(1, place[..., None].expand(-1, -1, table.shape[-1]))


def position_code(steps: int, like: Tensor) -> Tensor:
    """Sines and cosines of places 0 to steps - 1, (steps, C), as Vaswani et al. (2017) have them."""
    size = like.shape[-1]
    place = torch.arange(steps, device=like.device, dtype=like.dtype)[:, None]
    rate = torch.exp(-math.log(1e4) * torch.arange(0, size, 2, device=like.device, dtype=like.dtype) / size)
    return torch.cat(((place * rate).sin(), (place * rate).cos()), -1)[:, :size]
