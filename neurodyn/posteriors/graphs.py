"""A distribution over graphs, learned with everything else.

Edges are independent, q(G) = prod Bernoulli(G_ij; sigmoid(logit_ij)), against a prior in which every edge costs
`sparsity` nats: p(G) proportional to exp(-sparsity * number of edges), which is Bernoulli(sigmoid(-sparsity)) for each.
Edges that are known to be there, or not, have no say in either.

Gradients through samples come in two kinds. Straight through (Jang, Gu and Poole 2017, arXiv 1611.01144): a sample is a
graph of zeros and ones, differentiated as if it were the relaxed one; little noise, some bias. The score function
(Williams 1992) with the mean of the other samples taken off (Kool, van Hoof and Welling 2019): no bias, more noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus


class EdgePosterior(nn.Module):
    """q(G) over graphs of d nodes, [i, j] = 1 where i drives j, cycles and self-loops included.

    Args:
        size: d.
        fixed: (d, d), 1 for edges that are known to be there, 0 for forbidden ones, NaN for those to be learned; all of
            them if not given.
        start: probability of every edge at first.
        temperature: of the relaxed graphs that straight-through gradients use.
        pace: how many times faster than other parameters an optimiser like Adam moves the logits.

    Raises:
        ValueError: `fixed` of another shape, or with other entries; a temperature or pace that is not positive.
    """

    def __init__(
        self, size: int, fixed: Tensor | None = None, *, start: float = 0.5, temperature: float = 1.0, pace: float = 1.0
    ) -> None:
        table = torch.full((size, size), torch.nan) if fixed is None else torch.as_tensor(fixed, dtype=torch.float32)
        free = table.isnan()
        if table.shape != (size, size) or not bool((free | (table == 0) | (table == 1)).all()):
            raise ValueError(f"fixed: a table {tuple(table.shape)} given, ({size}, {size}) of 0, 1 and NaN wanted")
        if not (temperature > 0 and pace > 0):
            raise ValueError(f"temperature, pace: {temperature}, {pace} given, positive numbers wanted")
        super().__init__()
        self.size, self.temperature, self.pace = size, temperature, pace
        self.slow_logits = nn.Parameter(torch.full((size, size), math.log(start / (1 - start)) / pace))
        self.register_buffer("free", free)
        self.register_buffer("known", torch.where(free, 0.0, table))
        self.free: Tensor
        self.known: Tensor

    @property
    def logits(self) -> Tensor:
        """(d, d), of the edges that are learned."""
        return self.pace * self.slow_logits

    def probabilities(self) -> Tensor:
        """(d, d): that the edge is there; 1 and 0 for known and forbidden ones."""
        return torch.where(self.free, torch.sigmoid(self.logits), self.known)

    def sample(self, uniform: Tensor) -> Tensor:
        """Graphs of zeros and ones (..., d, d) from uniform noise of that shape, with straight-through gradients."""
        noisy = self.logits + torch.logit(uniform)
        soft = torch.sigmoid(noisy / self.temperature)
        hard = (noisy > 0).to(soft)
        return torch.where(self.free, hard + (soft - soft.detach()), self.known)

    def log_prob(self, graphs: Tensor) -> Tensor:
        """log q of the edges into each node, (..., d) nats for graphs (..., d, d); their sum is log q(G)."""
        each = graphs * self.logits - softplus(self.logits)
        return torch.where(self.free, each, 0.0).sum(-2)

    def entropy(self) -> Tensor:
        """Of q, in nats, exactly."""
        logits = self.logits
        each = softplus(logits) - logits * torch.sigmoid(logits)
        return torch.where(self.free, each, 0.0).sum()

    def kl(self, sparsity: float | Tensor) -> Tensor:
        """KL(q(G) || p(G)) in nats, exactly; `sparsity` is what an edge costs, in nats."""
        cost = sparsity if isinstance(sparsity, Tensor) else self.logits.new_tensor(sparsity)
        edges = torch.where(self.free, torch.sigmoid(self.logits), 0.0).sum()
        return cost * edges + softplus(-cost) * self.free.sum() - self.entropy()

    def score_surrogate(self, costs: Tensor, graphs: Tensor) -> Tensor:
        """A number whose gradient by the logits is an unbiased estimate of that of E_q[sum of costs].

        Args:
            costs: (S, ..., d) of S independent graphs; the cost of node j may depend on the edges into j alone, which
                is what keeps the noise of the other nodes out.
            graphs: (S, ..., d, d), the samples.

        Raises:
            ValueError: fewer than two samples, whose mean is the control variate.
        """
        if len(costs) < 2:
            raise ValueError(f"costs: {len(costs)} sample(s) given, 2 or more wanted")
        costs = costs.detach()
        above = (costs - costs.mean(0)) * (len(costs) / (len(costs) - 1))  # over the mean of the other samples
        return (above * self.log_prob(graphs.detach())).mean(0).sum()
