"""What an edge's score is worth: two groups of scores, compared with those of edges that cannot be there.

Scores of a fit fall into two groups, edges that the law needs and others that only help to predict through a third
variable, which the data place by themselves: Efron's (2004) *empirical null*. On the logit scale the groups are normal
with the same width, and P(group) is averaged over their share, places and width under flat priors.

Two groups can be found in anything, so a second fit is made to series of unlinked variables: variable j of row r is
that of another row, r + s_j, at its own times. Every variable keeps its law, its times and its gaps, but two of them
with different shifts come from different rows, so neither drives the other. It tells how far up edges score for
nothing: by the networks' freedom, by chance, or because the training lags behind the price. The share of such edges
among all with a score is the local false discovery rate (Efron et al. 2001, *Empirical Bayes analysis of a microarray
experiment*),

    P(linked | score s) = 1 - pi0 f0(s) / f(s),

with f the density of all scores and f0 that of unlinked edges. Their ratio is a monotone regression of which of the two
an edge is from, by pooling adjacent violators (Ayer et al. 1955), with one unlinked edge more above all others, as in
knockoffs+ (Barber and Candes 2015). pi0, the share of edges that are not there, is Storey's (2002), from the scores
below the unlinked median, and one standard error up.

An edge's probability is the product of both. No graph is known in any of this. Rows must be alike: a cause that all
rows share makes links that shifts do not cut.
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
    """Probabilities (D, D) of edges from their scores (D, D) in [0, 1] and those of unlinked ones (N,).

    Self-loops are by themselves, and in one group: linked or not. Where `free` (D, D) is False an edge is known to be
    there or not, and keeps its score.
    """
    loops = np.eye(len(scores), dtype=bool)
    free, found = np.ones_like(loops) if free is None else free, scores.copy()
    for group in (free & loops, free & ~loops):
        if group.any():
            found[group] = linked(scores[group], null)
    between = free & ~loops
    if between.any():
        found[between] *= upper_group(scores[between])
    return found


def upper_group(scores: Array) -> Array:
    """P(the upper of two groups) for scores (n,) in [0, 1], in the mean over the groups' share, places and width."""
    share = np.clip(scores, 1e-3, 1 - 1e-3)
    place = np.log(share / (1 - share))
    place = (place - place.mean()) / max(float(place.std()), 1e-3)
    rho, low, gap, width = np.meshgrid(
        np.linspace(0.02, 0.98, 13), np.linspace(-3, 1, 17), np.linspace(0, 5, 17), np.linspace(0.2, 1.2, 8)
    )

    def ratio(x: float) -> Array:
        """log of upper to lower density, with their shares."""
        return np.log(rho / (1 - rho)) + (0.5 * ((x - low) ** 2 - (x - low - gap) ** 2)) / width**2

    likelihood = np.zeros(rho.shape)
    for x in place:
        below = np.log1p(-rho) - 0.5 * ((x - low) / width) ** 2 - np.log(width)
        likelihood += below + np.logaddexp(0, ratio(x))
    weight = np.exp(likelihood - likelihood.max())
    weight /= weight.sum()
    return np.array([(weight / (1 + np.exp(-np.clip(ratio(x), -500, 500)))).sum() for x in place])


def linked(scores: Array, null: Array) -> Array:
    """1 - pi0 f0 / f at each of the scores (n,), for unlinked scores (N,)."""
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
