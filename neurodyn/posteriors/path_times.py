"""Times, and their weights, at which simulation-free posteriors take the rate of the path KL."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from neurodyn.noise import RowNoise

NODES = 4  # of the quadrature between two knots


def path_times(knots: Tensor, noise: RowNoise, num_times: int | Literal["each"] | None) -> tuple[Tensor, Tensor]:
    """Times and their weights in an integral over each row's span, both (B, M).

    Args:
        knots: (B, K), not decreasing; padding repeats the last one.
        noise: of the B rows, for the places of random times.
        num_times: how many random times, stratified over the row's knots: each interval between two of them gets an
            equal share however short it is, since short ones follow visits closely, and there the KL rate is high.
            "each": one random time in every interval. None: Gauss-Legendre nodes in every interval, not random.
    """
    gaps = knots[:, 1:] - knots[:, :-1]
    if knots.shape[1] == 1:
        return knots, torch.zeros_like(knots)
    if num_times is None:
        node, weight = (torch.from_numpy(part).to(knots) for part in np.polynomial.legendre.leggauss(NODES))
        points = knots[:, :-1, None] + gaps[..., None] * (node + 1) / 2
        return points.flatten(1), (gaps[..., None] * weight / 2).flatten(1)
    if num_times == "each":
        return knots[:, :-1] + gaps * noise.uniform("points", gaps.shape[1], dtype=knots.dtype), gaps
    count = (gaps > 0).sum(1, keepdim=True)  # intervals in use; padding stands behind them
    steps = torch.arange(num_times, device=knots.device, dtype=knots.dtype)
    place = (steps + noise.uniform("points", num_times, dtype=knots.dtype)) / num_times * count
    which = place.long().clamp(max=gaps.shape[1] - 1)
    length = gaps.gather(1, which)
    return knots.gather(1, which) + (place - which) * length, length * count / num_times
