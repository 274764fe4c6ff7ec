"""How far apart two laws are, from samples of each."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor


def neighbour_kl(samples: Tensor, reference: Tensor, neighbours: int = 1) -> float:
    """Estimate of KL(P || Q) in nats from draws of P and of Q, by distances to nearest neighbours.

    With rho_i the distance from the i-th draw of P to its k-th nearest other draw of P, and nu_i to its k-th nearest
    draw of Q, the estimate is D/N sum_i log(nu_i / rho_i) + log(M / (N - 1)). It is consistent for densities and needs
    no bandwidth; it may be a little below zero. For a few dimensions, thousands of draws and divergences up to a few
    nats: a large one is underestimated, since Q's draws do not reach where P's are.

    Args:
        samples: (N, D), independent draws of P. reference: (M, D), of Q.
        neighbours: k; more for less variance and more bias.

    Raises:
        ValueError: shapes that do not go together, too few draws, draws that are not finite or that coincide.

    Source: Wang, Kulkarni and Verdu (2009), *Divergence estimation for multidimensional densities via k-nearest-
    neighbor distances*, eq. 5 with the same k for both.
    """
    from scipy.spatial import cKDTree

    if samples.ndim != 2 or reference.ndim != 2 or samples.shape[1] != reference.shape[1]:
        shapes = f"{tuple(samples.shape)} and {tuple(reference.shape)}"
        raise ValueError(f"samples, reference: shapes {shapes} given, (N, D) and (M, D) wanted")
    size = samples.shape[1]
    if not 1 <= neighbours < len(samples) or neighbours > len(reference):
        raise ValueError(
            f"neighbours: {neighbours} given for {len(samples)} and {len(reference)} draws; at least 1, and more draws"
        )
    first, second = (table.detach().double().cpu().numpy() for table in (samples, reference))
    for name, table in (("samples", first), ("reference", second)):
        if not np.isfinite(table).all():
            raise ValueError(f"{name}: draws that are not finite given, finite ones wanted")
    # a draw is its own nearest neighbour, so among its own kind the k-th other one is number k + 1
    own = cKDTree(first).query(first, [neighbours + 1])[0][:, 0]
    other = cKDTree(second).query(first, [neighbours])[0][:, 0]
    if not (own.min() > 0 and other.min() > 0):
        raise ValueError("samples: draws that coincide given, distinct draws of a density wanted")
    return float(size * np.mean(np.log(other / own)) + math.log(len(second) / (len(first) - 1)))
