"""What loaders of systems with a known graph return, and how simulated paths of one are observed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.series import SeriesBatch

Array = NDArray[np.float64]


class Structure(NamedTuple):
    """Series of one system and its graph: ``graph[i, j] = 1`` (int64, (D, D)) where variable i drives variable j.

    `info` holds at least `name`, `source`, `licence`, `citation` and `time_unit`.
    """

    series: SeriesBatch
    graph: Tensor
    info: dict[str, Any]


def observed(
    paths: Array,
    spacing: float,
    *,
    dropped: float,
    missing: float,
    shared: bool,
    noise: float,
    random: np.random.Generator,
) -> SeriesBatch:
    """Series of paths (rows, T, D) on a grid of times k spacing, some of them not observed.

    Args:
        spacing: between two points of the grid.
        dropped: probability that a time point is not observed at all; the first one is always.
        missing: probability that a single value is missing at an observed time; not at the first.
        shared: whether all rows lose the same time points, or each its own.
        noise: standard deviation of the values' measurement noise.

    Raises:
        ValueError: a probability outside [0, 1); a spacing that is not positive.
    """
    for name, share in (("dropped", dropped), ("missing", missing)):
        if not 0 <= share < 1:
            raise ValueError(f"{name}: {share} given, a number from 0 up to 1 wanted")
    rows, count, size = paths.shape
    seen = random.random((1 if shared else rows, count)) >= dropped
    seen[:, 0] = True
    mask = np.broadcast_to(seen, (rows, count))[..., None] & (random.random(paths.shape) >= missing)
    mask[:, 0] = True
    values = paths + noise * random.normal(size=paths.shape)
    kept = mask.any((0, 2))
    times = torch.as_tensor(np.arange(count)[kept] * spacing, dtype=torch.float64)
    return SeriesBatch(
        times.expand(rows, -1).clone(),
        torch.as_tensor(values[:, kept], dtype=torch.get_default_dtype()),
        torch.as_tensor(mask[:, kept]),
        ids=tuple(f"series-{k}" for k in range(rows)),
        variables=tuple(f"x{k + 1}" for k in range(size)),
    )


def check_sizes(**sizes: float) -> None:
    """ValueError for a size that is not positive, or a count of rows, points or variables below what is needed."""
    least = {"rows": 1, "points": 3}
    for name, given in sizes.items():
        if name in least and given < least[name]:
            raise ValueError(f"{name}: {given} given, {least[name]} or more wanted")
        if not given > 0:
            raise ValueError(f"{name}: {given} given, a positive number wanted")


def simulated(name: str, citation: str, seed: int) -> dict[str, Any]:
    """The `info` of a system that is simulated here."""
    return {
        "name": name,
        "source": f"simulated, seed {seed}",
        "licence": "that of this software",
        "citation": citation,
        "time_unit": "time of the system",
    }
