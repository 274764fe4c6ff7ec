"""`lorenz96`: the stochastic Lorenz-96 system, each variable driven by three others and itself.

    dx_i = ((x_{i+1} - x_{i-2}) x_{i-1} - x_i + F) dt + noise dW_i,   indices modulo D,   x(0) ~ N(0, I),

by Euler-Maruyama steps of 0.005, observed on a grid without noise; whole time points are dropped at random.

Source: simulated here; the setting of Wang, Jennings and Gong, Neural structure learning with stochastic differential
    equations (SCOTCH), ICLR 2024, arXiv 2311.03309: D = 10, F = 10, noise 0.5, 10 series of 100 points, 1 apart. At
    that spacing neighbouring values are hardly correlated, so it asks for a one-step map; at 0.3 and below the motion
    is resolved.
Licence: that of this software.
Citation: E. N. Lorenz, Predictability: a problem partly solved, ECMWF seminar 1996.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neurodyn.datasets.structures import Array, Structure, check_sizes, observed, simulated

STEP = 0.005


def load(
    variables: int = 10,
    rows: int = 10,
    points: int = 100,
    spacing: float = 1.0,
    dropped: float = 0.3,
    missing: float = 0.0,
    shared: bool = True,
    forcing: float = 10.0,
    noise: float = 0.5,
    seed: int = 0,
) -> Structure:
    """`rows` series of `points` grid points, `spacing` apart, of which `dropped` are not observed.

    Args:
        variables: D, 4 or more.
        dropped, missing, shared: see `structures.observed`; as published, all rows lose the same time points.

    Raises:
        ValueError: sizes too small, probabilities outside [0, 1).
    """
    check_sizes(rows=rows, points=points, spacing=spacing)
    if variables < 4:
        raise ValueError(f"variables: {variables} given, 4 or more wanted")
    random = np.random.default_rng(seed)
    paths = simulate(rows, variables, points, spacing, forcing, noise, random)
    series = observed(paths, spacing, dropped=dropped, missing=missing, shared=shared, noise=0.0, random=random)
    return Structure(series, graph(variables), simulated("lorenz96", "Lorenz 1996; setting of arXiv 2311.03309", seed))


def graph(variables: int) -> Tensor:
    """(D, D): variable j is driven by j, j + 1, j - 1 and j - 2."""
    found = torch.zeros(variables, variables, dtype=torch.long)
    target = torch.arange(variables)
    for shift in (0, 1, -1, -2):
        found[(target + shift) % variables, target] = 1
    return found


def drift(x: Array, forcing: float) -> Array:
    """(..., D) in units per unit of time."""
    return (np.roll(x, -1, -1) - np.roll(x, 2, -1)) * np.roll(x, 1, -1) - x + forcing


def simulate(
    rows: int, variables: int, points: int, spacing: float, forcing: float, noise: float, random: np.random.Generator
) -> Array:
    """Paths (rows, points, D), at times 0, spacing, 2 spacing..."""
    steps = max(1, round(spacing / STEP))
    dt = spacing / steps
    x = random.normal(size=(rows, variables))
    path = [x]
    for _ in range(points - 1):
        kicks = noise * dt**0.5 * random.normal(size=(steps, rows, variables))
        for kick in kicks:
            x = x + drift(x, forcing) * dt + kick
        path.append(x)
    return np.stack(path, 1)
