"""`glycolysis`: oscillating yeast glycolysis, seven concentrations with a small noise and a known graph.

Seven equations of Ruoff et al. (2003) as used by SCOTCH, with additive noise 0.01 dW on each, by Euler-Maruyama steps
of 0.01; starts are uniform in the published ranges; whole time points are dropped at random.

Source: simulated here; the setting of Wang, Jennings and Gong (SCOTCH), ICLR 2024, arXiv 2311.03309: 10 series of 100
    points, 1 apart.
Licence: that of this software.
Citation: P. Ruoff, M. K. Christensen, J. Wolf, R. Heinrich, Temperature dependency and temperature compensation in a
    model of yeast glycolytic oscillations, Biophysical Chemistry 106 (2003) 179-192.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neurodyn.datasets.structures import Array, Structure, check_sizes, observed, simulated

STEP = 0.01
NOISE = 0.01
J0, K_1, K1, K2, K3, K4, K5, K6, K, KAPPA, PHI, Q, A, N = (
    2.5, 0.52, 100.0, 6.0, 16.0, 100.0, 1.28, 12.0, 1.8, 13.0, 0.1, 4.0, 4.0, 1.0
)  # fmt: skip
LOW = (0.15, 0.19, 0.04, 0.10, 0.08, 0.14, 0.05)
HIGH = (1.60, 2.16, 0.20, 0.35, 0.30, 2.67, 0.10)
GRAPH = ("1100010", "0110100", "0011010", "0001101", "0111100", "1111010", "0001001")
"""A row per driver: which of the seven it drives."""


def load(
    rows: int = 10,
    points: int = 100,
    spacing: float = 1.0,
    dropped: float = 0.0,
    missing: float = 0.0,
    shared: bool = True,
    seed: int = 0,
) -> Structure:
    """`rows` series of `points` grid points, `spacing` apart, of which `dropped` are not observed.

    Args:
        dropped, missing, shared: see `structures.observed`.

    Raises:
        ValueError: sizes too small, probabilities outside [0, 1).
    """
    check_sizes(rows=rows, points=points, spacing=spacing)
    random = np.random.default_rng(seed)
    paths = simulate(rows, points, spacing, random)
    series = observed(paths, spacing, dropped=dropped, missing=missing, shared=shared, noise=0.0, random=random)
    return Structure(series, graph(), simulated("glycolysis", "Ruoff et al. 2003; setting of arXiv 2311.03309", seed))


def graph() -> Tensor:
    """(7, 7), from the non-zero entries of the drift's Jacobian."""
    return torch.tensor([[int(letter) for letter in row] for row in GRAPH])


def drift(x: Array) -> Array:
    """(..., 7) concentrations per unit of time."""
    x0, x1, x2, x3, x4, x5, x6 = np.moveaxis(x, -1, 0)
    v = K1 * x0 * x5 / (1 + (x5 / K_1) ** Q)
    reduced, oxidised = K2 * x1 * (N - x4), K3 * x2 * (A - x5)
    used = K4 * x3 * x4
    leak = KAPPA * (x3 - x6)
    return np.stack(
        [
            J0 - v,
            2 * v - reduced - K6 * x1 * x4,
            reduced - oxidised,
            oxidised - used - leak,
            reduced - used - K6 * x1 * x4,
            -2 * v + 2 * oxidised - K5 * x5,
            PHI * leak - K * x6,
        ],
        -1,
    )


def simulate(rows: int, points: int, spacing: float, random: np.random.Generator) -> Array:
    """Paths (rows, points, 7), at times 0, spacing, 2 spacing..."""
    steps = max(1, round(spacing / STEP))
    dt = spacing / steps
    x = random.uniform(LOW, HIGH, size=(rows, 7))
    path = [x]
    for _ in range(points - 1):
        kicks = NOISE * dt**0.5 * random.normal(size=(steps, rows, 7))
        for kick in kicks:
            x = x + drift(x) * dt + kick
        path.append(x)
    return np.stack(path, 1)
