"""What an edge's score is worth: compared with scores of edges that cannot be there.

Series of unlinked variables are made of the data: variable j of row r is that of another row, r + s_j, at its own
times. Every variable keeps its law, its times and its gaps, but two of them with different shifts come from different
rows, so neither drives the other. A fit to them tells how far up edges score for nothing: by the networks' freedom, by
chance, or because the training lags behind the price. The share of such edges among all with a score is the local false
discovery rate (Efron et al. 2001, *Empirical Bayes analysis of a microarray experiment*),

    P(edge | score s) = 1 - pi0 f0(s) / f(s),

with f the density of all scores and f0 that of unlinked edges. Their ratio is a monotone regression of which of the two
an edge is from, by pooling adjacent violators (Ayer et al. 1955), with one unlinked edge more above all others, as in
knockoffs+ (Barber and Candes 2015). pi0, the share of edges that are not there, is Storey's (2002), from the scores
below the unlinked median, and one standard error up. No graph is known in any of this. Rows must be alike: a cause that
all rows share makes links that shifts do not cut.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from neurodyn.series import SeriesBatch

Array = NDArray[np.float64]


def unlinked(series: SeriesBatch, seed: int) -> tuple[SeriesBatch, NDArray[np.bool_]]:
    """Series whose variables come from different rows, and which pairs (D, D) are so unlinked.

    Raises:
        ValueError: a single series.
    """
    rows, size = series.num_rows, series.num_variables
    if rows < 2:
        raise ValueError(f"series: {rows} given, 2 or more wanted")
    series = series.to("cpu").compact()
    random = np.random.default_rng([seed, 0])
    shift = random.permutation(np.arange(size) % rows)  # as even as can be
    times, values, masks = [], [], []
    for row in range(rows):
        own, place = [], (row + shift) % rows
        for k in range(size):
            seen = series.mask[place[k], :, k]
            # since the row's own first visit, so that rows of different years meet
            own.append((series.times[place[k], seen] - series.times[place[k], 0], series.values[place[k], seen, k]))
        every = torch.unique(torch.cat([t for t, _ in own]))
        value, mask = torch.zeros(len(every), size, dtype=series.dtype), torch.zeros(len(every), size, dtype=torch.bool)
        for k, (t, x) in enumerate(own):
            index = torch.searchsorted(every, t)
            value[index, k], mask[index, k] = x, True
        times.append(every)
        values.append(value)
        masks.append(mask)
    longest = max(map(len, times))

    def padded(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([torch.cat((p, p[-1:].expand(longest - len(p), *p.shape[1:]))) for p in parts])

    seen = padded(masks)
    seen &= (torch.arange(longest) < torch.tensor([len(t) for t in times])[:, None])[..., None]
    batch = SeriesBatch(padded(times), padded(values), seen, ids=series.ids, variables=series.variables)
    return batch, shift[:, None] != shift


def edge_probabilities(scores: Array, null: Array, free: NDArray[np.bool_] | None = None) -> Array:
    """Probabilities (D, D) of edges from their scores (D, D) and those of unlinked ones (N,).

    Self-loops are a group of their own, compared with the same unlinked edges. Where `free` (D, D) is False an edge is
    known to be there or not, and keeps its score.
    """
    loops = np.eye(len(scores), dtype=bool)
    free, found = np.ones_like(loops) if free is None else free, scores.copy()
    for group in (free & loops, free & ~loops):
        if group.any():
            found[group] = _true_shares(scores[group], null)
    return found


def _true_shares(scores: Array, null: Array) -> Array:
    """1 - pi0 f0 / f at each of the scores (n,)."""
    middle = np.median(null)
    absent = min(1.0, (scores <= middle).mean() / (null <= middle).mean() + len(scores) ** -0.5)
    place = np.concatenate((scores, null, [np.inf]))
    real = np.concatenate((np.ones(len(scores)), np.zeros(len(null) + 1)))
    order = np.lexsort((real, place))
    share = np.empty(len(place))
    share[order] = _rising(real[order])
    share = share[: len(scores)]  # of real ones among all with about this score: above 0 at a real one
    ratio = (1 - share) / share * len(scores) / (len(null) + 1)
    return np.clip(1 - absent * ratio, 0, 1)


def _rising(values: Array) -> Array:
    """The rising sequence nearest to the values in the sum of squares."""
    level: list[float] = []
    count: list[int] = []
    for value in values:
        level.append(float(value))
        count.append(1)
        while len(level) > 1 and level[-2] >= level[-1]:
            last, many = level.pop(), count.pop()
            level[-1] = (level[-1] * count[-1] + last * many) / (count[-1] + many)
            count[-1] += many
    return np.repeat(level, count)
