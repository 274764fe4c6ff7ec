"""`ornstein_uhlenbeck`: independent Ornstein-Uhlenbeck processes, observed irregularly, with noise and gaps.

dz = rate (mean - z) dt + volatility dW per coordinate, stationary from the first visit on, y = z + N(0, noise^2): the
`linear_gaussian` system with a diagonal A. Source: simulated here, from the exact transitions. Licence: that of this
software.
"""

from __future__ import annotations

import torch

from neurodyn.datasets.linear_gaussian import splits_of, stationary_system
from neurodyn.datasets.splits import Splits


def load(
    dimension: int = 1,
    rate: float = 1.0,
    mean: float = 0.0,
    volatility: float = 1.0,
    noise: float = 0.2,
    rows: int = 256,
    held_out: int = 64,
    visits: int = 20,
    missing: float = 0.3,
    seed: int = 0,
) -> Splits:
    """`rows` training rows and `held_out` each for validation and test; `info["system"]` is the true `LinearSystem`.

    Args:
        dimension: number of processes, all with the same law.
        rate: per unit time. volatility: per square root of unit time. noise: standard deviation of the observations.
        visits, missing, seed: as in `linear_gaussian.load`.

    Raises:
        ValueError: numbers that are not positive where they must be.
    """
    if min(rate, volatility, noise) <= 0 or dimension < 1:
        given = f"{rate}, {volatility}, {noise}, {dimension}"
        raise ValueError(f"rate, volatility, noise, dimension: {given} given, positive numbers wanted")
    eye = torch.eye(dimension, dtype=torch.float64)
    system = stationary_system(-rate * eye, rate * mean * eye.diagonal(), volatility * eye, eye, noise**2 * eye)
    generator = torch.Generator().manual_seed(seed)
    return splits_of("ornstein_uhlenbeck", system, rows, held_out, visits, missing, seed, generator)
