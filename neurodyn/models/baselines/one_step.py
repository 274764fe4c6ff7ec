"""Who drives whom, from pairs of neighbouring visits: the baselines of structure learning.

Each takes standardised series and returns scores (D, D), [i, j] for how much variable i at one visit tells about
variable j at the next, given the others (but for the lagged correlation). All rows are pooled. They need the extra
`structure` (scikit-learn), the least-squares ones and the perceptron aside.

Sources: Granger (1969) and Sims (1980) for vector autoregressions; Friedman (2001) for boosted trees, used so by
dynGENIE3 (Huynh-Thu and Geurts 2018); Tank et al. (2018), *Neural Granger causality*, arXiv 1802.05842, for the cMLP.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neurodyn.sde.graph import TargetNets
from neurodyn.series import SeriesBatch

Array = NDArray[np.float64]
SAME = 1.25  # gaps up to this many times the usual one count as one step


def one_step_pairs(batch: SeriesBatch) -> tuple[Array, Array]:
    """Values at visits and at the next ones, (N, D) each, standardised, over all rows.

    Gaps of single variables are filled by lines between their neighbours. One step is the most frequent gap between
    visits where it repeats, as on a grid with dropped times; where no gap does, all gaps up to the median.

    Raises:
        ValueError: fewer than 10 pairs.
    """
    batch = batch.to("cpu", torch.float64).compact()
    before, after, gaps = [], [], []
    for row in range(batch.num_rows):
        count = int(batch.present[row].sum())
        times, values = batch.times[row, :count].numpy(), batch.values[row, :count].numpy().copy()
        mask = batch.mask[row, :count].numpy()
        for k in range(batch.num_variables):
            seen = mask[:, k]
            values[:, k] = np.interp(times, times[seen], values[seen, k]) if seen.any() else 0.0
        before.append(values[:-1])
        after.append(values[1:])
        gaps.append(np.diff(times))
    gap = np.concatenate(gaps)
    near = gap <= SAME * one_step(gap)
    x, y = np.concatenate(before)[near], np.concatenate(after)[near]
    if len(x) < 10:
        raise ValueError(f"batch: {len(x)} pairs of visits one step apart given, 10 or more wanted")
    mean, sd = x.mean(0), np.maximum(x.std(0), 1e-12)
    return (x - mean) / sd, (y - mean) / sd


def one_step(gap: Array) -> float:
    """The length of one step: the most frequent gap if a fifth of them share it, else the median."""
    rounded = np.round(gap / np.median(gap), 6)
    lengths, counts = np.unique(rounded, return_counts=True)
    if counts.max() >= len(gap) / 5:
        return float(lengths[counts.argmax()] * np.median(gap))
    return float(np.median(gap))


def lagged_correlation(batch: SeriesBatch, seed: int = 0) -> Array:
    """|correlation| of a variable with another one step later."""
    x, y = one_step_pairs(batch)
    size = x.shape[1]
    return np.abs(np.corrcoef(x, y, rowvar=False)[:size, size:])


def vector_autoregression(batch: SeriesBatch, seed: int = 0) -> Array:
    """|t| of the coefficients of a first-order vector autoregression, by least squares: Granger's test."""
    x, y = one_step_pairs(batch)
    design = np.column_stack((np.ones(len(x)), x))
    inverse = np.linalg.pinv(design.T @ design)
    found = inverse @ design.T @ y
    freedom = max(1, len(x) - design.shape[1])
    noise = ((y - design @ found) ** 2).sum(0) / freedom
    error = np.sqrt(np.diag(inverse)[:, None] * noise)
    return (np.abs(found) / np.maximum(error, 1e-300))[1:]


def ridge(batch: SeriesBatch, seed: int = 0) -> Array:
    """|coefficient| of a ridge regression whose penalty leave-one-out errors choose, for each variable."""
    x, y = one_step_pairs(batch)
    return np.abs(_ridge(x, y))


def quadratic_ridge(batch: SeriesBatch, seed: int = 0) -> Array:
    """Root of the sum of squared ridge coefficients of all terms with the variable, up to products of two."""
    x, y = one_step_pairs(batch)
    size = x.shape[1]
    first, second = np.triu_indices(size)
    terms = np.column_stack((x, x[:, first] * x[:, second]))
    terms = (terms - terms.mean(0)) / np.maximum(terms.std(0), 1e-12)
    found = _ridge(terms, y) ** 2
    scores = found[:size].copy()
    for term, (a, b) in enumerate(zip(first, second, strict=True), size):
        for i in {int(a), int(b)}:
            scores[i] += found[term]
    return np.sqrt(scores)


def boosted_trees(batch: SeriesBatch, seed: int = 0) -> Array:
    """Importance (share of the error that splits on the variable take away) in 200 boosted trees of depth 3.

    A split looks at ten of the variables, where there are more, as in GENIE3.
    """
    x, y = one_step_pairs(batch)
    ensemble = _sklearn("ensemble")
    columns = []
    for k in range(x.shape[1]):
        trees = ensemble.GradientBoostingRegressor(
            n_estimators=200,
            max_depth=3,
            learning_rate=0.05,
            subsample=0.7,
            max_features=min(10, x.shape[1]),
            random_state=seed,
        )
        columns.append(trees.fit(x, y[:, k]).feature_importances_)
    return np.stack(columns, 1)


def componentwise_mlp(batch: SeriesBatch, seed: int = 0, *, steps: int = 1500, strongest: float = 300.0) -> Array:
    """A perceptron per variable with a group penalty on each input's first weights (cMLP), by proximal Adam steps.

    The penalty rises geometrically to `strongest`; the score is the share of the way that the input's weights are not
    zero, refined by their final size.
    """
    x, y = (torch.as_tensor(part, dtype=torch.float32) for part in one_step_pairs(batch))
    size, rate = x.shape[1], 3e-3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = TargetNets(size, 32)
    optimiser = torch.optim.Adam(net.parameters(), lr=rate)
    every, alive = torch.ones(size, size), torch.zeros(size, size)
    for step in range(steps):
        penalty = 0.1 * (strongest / 0.1) ** (step / steps)
        optimiser.zero_grad()
        (net(x, every) - y).square().mean(0).sum().backward()
        optimiser.step()
        with torch.no_grad():  # weights are (target, source, hidden)
            norm = net.weight_in.norm(dim=-1, keepdim=True)
            net.weight_in.mul_((1 - rate * penalty * math.sqrt(size) / norm.clamp(min=1e-12)).clamp(min=0))
            alive += (net.weight_in.norm(dim=-1) > 0).float().mT
    final = net.weight_in.detach().norm(dim=-1).mT
    return (alive / steps + 1e-3 * final / final.max().clamp(min=1e-12)).double().numpy()


def _ridge(x: Array, y: Array) -> Array:
    """Coefficients (terms, D) of ridge regressions, each with its own penalty."""
    linear = _sklearn("linear_model")
    chosen = linear.RidgeCV(np.logspace(-2, 4, 13), alpha_per_target=True)
    return np.asarray(chosen.fit(x, y).coef_.T)


def _sklearn(part: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"sklearn.{part}")
    except ImportError as error:
        raise ImportError("scikit-learn is needed for this: pip install 'neurodyn[structure]'") from error
