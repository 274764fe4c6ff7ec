"""`coupled_sdes`: systems coupled along a known graph, with lagged effects, hidden confounders, or equal variances.

    dx_k = (-x_k + sum over parents p of w_pk tanh(2 x_p(t - lag_pk))) dt + noise dW_k,

with weights of random sign and size 1 to 2, by Euler-Maruyama steps of 0.01 from the law at rest, observed on a grid.
The graph is a chain, or grows node by node with redirection (Krapivsky and Redner 2001), which gives few hubs, or has
no edge between two variables. The cases follow the coupled tier of CausalDynamics; the equations are of this package.

Source: simulated here. Licence: that of this software.
Citation: B. Herdeanu et al., CausalDynamics, NeurIPS 2025 Datasets and Benchmarks, arXiv 2505.16620.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.datasets.structures import Array, Structure, check_sizes, observed, simulated

LAYOUTS = ("chain", "random", "none")
STEP = 0.01
WARM_UP = 10.0
"""Time that the system runs before the first observation."""
REDIRECTED = 0.5
"""Probability that a new node hangs itself on its chosen node's parent instead."""


def load(
    layout: Literal["chain", "random", "none"] = "chain",
    variables: int = 5,
    rows: int = 10,
    points: int = 100,
    spacing: float = 0.2,
    dropped: float = 0.0,
    missing: float = 0.0,
    shared: bool = True,
    lag: float = 0.0,
    confounders: int = 0,
    standardised: bool = False,
    noise: float = 0.5,
    seed: int = 0,
) -> Structure:
    """`rows` series of `points` grid points, `spacing` apart. Every variable drives itself (it decays).

    Args:
        layout: "chain": x1 drives x2 drives x3...; "random": a growing tree; "none": each by itself.
        lag: time by which every effect comes late; 0 for none.
        confounders: hidden variables, each of which drives two of the observed; they are not in the graph.
        standardised: bring every variable to mean 0 and standard deviation 1, so that variances, which grow along the
            arrows, tell nothing.
        dropped, missing, shared: see `structures.observed`.

    `info["weights"]` is (D, D), w_pk.

    Raises:
        ValueError: unknown layout, sizes too small, a negative lag, probabilities outside [0, 1).
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout: {layout!r} given, one of {', '.join(LAYOUTS)} wanted")
    check_sizes(rows=rows, points=points, spacing=spacing, noise=noise)
    if variables < 2 or confounders < 0 or lag < 0:
        raise ValueError(
            f"variables, confounders, lag: {variables}, {confounders}, {lag} given, at least 2, 0 and 0 wanted"
        )
    random = np.random.default_rng(seed)
    trees = {"chain": np.eye(variables, k=1, dtype=int), "none": np.zeros((variables, variables), dtype=int)}
    tree = trees[layout] if layout in trees else growing_tree(variables, random)
    total = variables + confounders
    links = np.zeros((total, total), dtype=int)
    links[:variables, :variables] = tree
    for hidden in range(variables, total):
        links[hidden, random.choice(variables, 2, replace=False)] = 1
    weights = links * random.uniform(1, 2, links.shape) * random.choice([-1.0, 1.0], links.shape)
    paths = simulate(weights, rows, points, spacing, lag, noise, random)[..., :variables]
    if standardised:
        paths = (paths - paths.mean((0, 1))) / paths.std((0, 1))
    series = observed(paths, spacing, dropped=dropped, missing=missing, shared=shared, noise=0.0, random=random)
    info = simulated("coupled_sdes", "after CausalDynamics, arXiv 2505.16620", seed)
    own = torch.as_tensor(weights[:variables, :variables])
    return Structure(series, graph_of(own), info | {"weights": own, "confounders": confounders, "lag": lag})


def graph_of(weights: Tensor) -> Tensor:
    """(D, D) with the weights' non-zero entries and the self-loops."""
    return ((weights != 0) | torch.eye(len(weights), dtype=torch.bool)).long()


def growing_tree(variables: int, random: np.random.Generator) -> NDArray[np.int_]:
    """(D, D): each new node is driven by an older one, or, with probability one half, by that one's parent."""
    tree = np.zeros((variables, variables), dtype=int)
    parent = np.zeros(variables, dtype=int)
    for node in range(1, variables):
        chosen = int(random.integers(node))
        if random.random() < REDIRECTED:
            chosen = int(parent[chosen])
        parent[node] = chosen
        tree[chosen, node] = 1
    return tree


def simulate(
    weights: Array, rows: int, points: int, spacing: float, lag: float, noise: float, random: np.random.Generator
) -> Array:
    """Paths (rows, points, D), observed after the warm-up."""
    steps = max(1, round(spacing / STEP))
    dt = spacing / steps
    late, before = round(lag / dt), round(WARM_UP / dt)
    x = random.normal(size=(rows, len(weights))) * noise / 2**0.5
    recent = [x] * (late + 1)  # the oldest first
    path = []
    for step in range(before + steps * (points - 1) + 1):
        if step >= before and (step - before) % steps == 0:
            path.append(x)
        kick = noise * dt**0.5 * random.normal(size=x.shape)
        x = x + (np.tanh(2 * recent[0]) @ weights - x) * dt + kick
        recent = [*recent[1:], x]
    return np.stack(path, 1)
