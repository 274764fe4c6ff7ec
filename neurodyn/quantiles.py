"""Quantiles of samples whose intervals have their nominal coverage."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sample_quantiles(samples: Tensor, probabilities: Sequence[float]) -> Tensor:
    """Quantiles over the first axis: samples (S, ...) and Q probabilities give (Q, ...).

    The q-quantile stands at rank ``q (S + 1)`` of the sorted samples, linear between ranks, the extreme sample beyond
    them: definition 6 of Hyndman and Fan (1996), numpy's "weibull". With it an interval of S exchangeable samples
    covers the next one with exactly its nominal probability where both ranks are whole numbers (S = 19 or 199 for the
    90 % interval). Between ranks the coverage depends on the law a little, less as S grows: for normal samples it is
    0.508 instead of 0.5 at S = 10. The usual default (definition 7) covers about ``level (S - 1) / (S + 1)``, too
    little for the small S of an ensemble.
    """
    if samples.dim() == 0 or samples.shape[0] == 0:
        raise ValueError(f"samples: want (S, ...) with at least one sample, got shape {tuple(samples.shape)}")
    for q in probabilities:
        if not 0 <= q <= 1:
            raise ValueError(f"probabilities: want numbers in [0, 1], got {q}")
    count = samples.shape[0]
    ordered = samples.sort(dim=0).values
    found = []
    for q in probabilities:
        # Rounding away the last bits keeps q (S + 1) on the whole ranks that it is meant to hit.
        rank = min(max(round(q * (count + 1), 9), 1.0), float(count))
        low = min(int(rank), count - 1) if count > 1 else 1
        weight = rank - low
        upper = min(low, count - 1)
        found.append(ordered[low - 1] if weight == 0 else torch.lerp(ordered[low - 1], ordered[upper], weight))
    return torch.stack(found)
