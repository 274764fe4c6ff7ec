"""A parallel encoder for irregular, partly observed series: attention over the observed visits, in continuous time."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodyn.nets.context import Context, visit_inputs
from neurodyn.nets.mlp import mlp
from neurodyn.series import SeriesBatch


class TimeEmbedding(nn.Module):
    """Sines and cosines of a time at learned frequencies, log-spaced over [0.01, 10] radians per unit at the start.

    Source: the continuous-time embedding of Xu et al. (2019), "Self-attention with functional time representation
    learning", eq. 9, with the starting frequencies of Vaswani et al. (2017).
    """

    def __init__(self, num_frequencies: int):
        super().__init__()
        self.log_frequency = nn.Parameter(torch.linspace(math.log(0.01), math.log(10.0), num_frequencies))

    def forward(self, times: Tensor) -> Tensor:
        """(...) times to (..., 2 * num_frequencies)."""
        phase = times.unsqueeze(-1) * self.log_frequency.exp()
        return torch.cat([phase.sin(), phase.cos()], -1)


class AttentionEncoder(nn.Module):
    """Pre-norm attention blocks whose keys are the observed visits.

    A visit's token holds its values, its mask, covariates, static features, and an embedding of the time since the
    row's first observed visit. Attention scores fall linearly in the time between the two visits, at a learned rate per
    head (log-spaced over [0.01, 10] per unit of time at the start; the linear bias of Press et al. 2022, "Train short,
    test long", in continuous time). Visits with nothing observed are never keys, so they influence no other visit, but
    they are queries and get features. One learned key that belongs to no visit is open to every query, so a query
    without any key (the causal reading, before the first observation) is well defined.

    Args:
        num_variables: D.
        context_size: C, the size of the features and of the summary.
        hidden_size: width of the blocks; a multiple of ``num_heads``.
        causal: features at a visit depend on that visit and on earlier ones only.
        num_heads, num_layers: of attention.
        num_covariates, num_static: how many columns of each the batches bring; 0 leaves them unread.

    ``forward(batch)`` returns a `Context`: features (B, T, C), and a summary (B, C) that pools the observed visits by
    attention with learned queries, half of them placed at the row's last observed visit and half at its first (all of
    them at the last if there is one head).

    Raises:
        ValueError: sizes below one or that do not divide; a batch of other sizes than the encoder's.
    """

    def __init__(
        self,
        num_variables: int,
        context_size: int,
        hidden_size: int = 64,
        causal: bool = False,
        num_heads: int = 4,
        num_layers: int = 2,
        num_covariates: int = 0,
        num_static: int = 0,
    ):
        super().__init__()
        for name, size in (
            ("num_variables", num_variables),
            ("context_size", context_size),
            ("hidden_size", hidden_size),
            ("num_heads", num_heads),
            ("num_layers", num_layers),
        ):
            if size < 1:
                raise ValueError(f"{name}: got {size}, want 1 or more")
        if hidden_size % num_heads:
            raise ValueError(f"hidden_size: got {hidden_size}, want a multiple of num_heads ({num_heads})")
        self.num_variables, self.context_size, self.hidden_size = num_variables, context_size, hidden_size
        self.num_covariates, self.num_static = num_covariates, num_static
        self.causal, self.num_heads = causal, num_heads

        num_frequencies = 16
        self.time_embedding = TimeEmbedding(num_frequencies)
        self.token = nn.Linear(2 * num_variables + num_covariates + num_static + 2 * num_frequencies, hidden_size)
        self.log_rate = nn.Parameter(torch.linspace(math.log(0.01), math.log(10.0), num_heads))
        self.blocks = nn.ModuleList(_Block(hidden_size, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(hidden_size)
        self.feature_head = nn.Linear(hidden_size, context_size)
        self.pool_query = nn.Parameter(torch.randn(num_heads, 1, hidden_size // num_heads))
        self.pool_key_value = nn.Linear(hidden_size, 2 * hidden_size)
        self.summary_head = nn.Linear(hidden_size, context_size)

    def forward(self, batch: SeriesBatch) -> Context:
        """Encode a batch; see the class."""
        visits = visit_inputs(batch, self.num_variables, self.num_covariates, self.num_static)
        dtype, present = visits.values.dtype, visits.present
        # A causal feature must not know when the row's first observation will come.
        elapsed = (visits.times.clamp_min(0.0) if self.causal else visits.times).to(dtype)
        columns = [visits.values, visits.mask.to(dtype), visits.extra, self.time_embedding(elapsed)]
        tokens = self.token(torch.cat(columns, -1))

        distance = (visits.times.unsqueeze(2) - visits.times.unsqueeze(1)).abs().to(dtype)
        allowed = present.unsqueeze(1)
        if self.causal:
            steps = torch.arange(present.shape[1], device=present.device)
            allowed = allowed & (steps.unsqueeze(1) >= steps)
        bias = self._bias(distance.unsqueeze(1), allowed.unsqueeze(1))
        bias = F.pad(bias, (1, 0))  # the key that belongs to no visit comes first
        for block in self.blocks:
            tokens = block(tokens, bias)
        tokens = self.norm(tokens)
        return Context(batch, self.feature_head(tokens), self._summarise(tokens, visits.times, present))

    def _bias(self, distance: Tensor, allowed: Tensor) -> Tensor:
        """Scores added to each query and key: (B, heads, Q, K), -inf where the key is not to be seen."""
        bias = -self.log_rate.exp()[:, None, None] * distance
        return bias.masked_fill(~allowed, -torch.inf)

    def _summarise(self, tokens: Tensor, times: Tensor, present: Tensor) -> Tensor:
        # times are relative to the first observed visit, so that one sits at zero.
        last = torch.where(present, times, torch.zeros_like(times)).amax(1, keepdim=True)
        from_first = torch.arange(self.num_heads, device=times.device) % 2 == 1
        anchor = torch.where(from_first, torch.zeros_like(last), last)  # (B, heads)
        distance = (times.unsqueeze(1) - anchor.unsqueeze(-1)).abs().to(tokens.dtype).unsqueeze(2)
        # In a row without any observation every visit is allowed: an average instead of NaN.
        allowed = present | ~present.any(1, keepdim=True)
        bias = self._bias(distance, allowed[:, None, None])
        keys, values = (_split_heads(x, self.num_heads) for x in self.pool_key_value(tokens).chunk(2, -1))
        query = self.pool_query.to(keys.dtype).expand(tokens.shape[0], -1, -1, -1)
        pooled = F.scaled_dot_product_attention(query, keys, values, attn_mask=bias.to(keys.dtype))
        return self.summary_head(_join_heads(pooled).squeeze(1))


class _Block(nn.Module):
    """One pre-norm block: attention, then a perceptron, each added to its input."""

    def __init__(self, size: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(size)
        self.query_key_value = nn.Linear(size, 3 * size)
        self.spare_key_value = nn.Parameter(torch.randn(2, num_heads, 1, size // num_heads))
        self.attention_out = nn.Linear(size, size)
        self.perceptron_norm = nn.LayerNorm(size)
        self.perceptron = mlp([size, 2 * size, size])

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        parts = self.query_key_value(self.attention_norm(tokens)).chunk(3, -1)
        query, keys, values = (_split_heads(x, self.num_heads) for x in parts)
        spare = self.spare_key_value.to(keys.dtype).unsqueeze(1).expand(-1, tokens.shape[0], -1, -1, -1)
        keys, values = torch.cat([spare[0], keys], 2), torch.cat([spare[1], values], 2)
        read = F.scaled_dot_product_attention(query, keys, values, attn_mask=bias.to(query.dtype))
        tokens = tokens + self.attention_out(_join_heads(read))
        return tokens + self.perceptron(self.perceptron_norm(tokens))


def _split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, heads * size) to (B, heads, T, size)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _join_heads(x: Tensor) -> Tensor:
    """(B, heads, T, size) to (B, T, heads * size)."""
    return x.transpose(1, 2).flatten(2)
