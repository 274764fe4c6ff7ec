"""Girsanov's price of a drift: the KL divergence between two laws of paths with one diffusion."""

from __future__ import annotations

import torch
from torch import Tensor

from neurodyn.sde.base import SDE, NoiseType
from neurodyn.solvers.brownian import align_rows
from neurodyn.solvers.grid import Grid
from neurodyn.solvers.native import Path


def path_kl_rate(excess: Tensor, diffusion: Tensor, noise_type: NoiseType) -> Tensor:
    """1/2 |u|^2 with g u = excess, in nats per unit of time, (...).

    Args:
        excess: posterior drift - prior drift, (..., d).
        diffusion: g, (..., d) for diagonal noise, else (..., d, m), of full rank. Where g has fewer columns than rows
            the excess must lie in their span, or the true KL is infinite; u is the least-squares solution. Where it
            has more, u is the shortest solution.
        noise_type: as in `SDE`.

    Source: Li et al. (2020), arXiv 2001.01328, eq. 10.
    """
    if noise_type == "diagonal":
        return 0.5 * (excess / diffusion).square().sum(-1)
    size, noise_size = diffusion.shape[-2:]
    column = excess.unsqueeze(-1)
    if noise_size == 1:
        return 0.5 * ((diffusion * column).sum((-2, -1)) / diffusion.square().sum((-2, -1))).square()
    if noise_size > size:
        weighted = torch.linalg.solve(diffusion @ diffusion.mT, column)
        return 0.5 * (weighted * column).sum((-2, -1))
    if noise_size < size:
        control = torch.linalg.solve(diffusion.mT @ diffusion, diffusion.mT @ column)
    else:
        control = torch.linalg.solve(diffusion, column)
    return 0.5 * control.square().sum((-2, -1))


def path_kl(law: SDE, path: Path, grid: Grid) -> Tensor:
    """KL of the law's paths against those with drift `law.h`, gap by gap, (..., T - 1) nats, in one call of h.

    One sample of it per path, unbiased as the steps go to zero: sum over steps of `path_kl_rate` where a step starts,
    times its length.
    """
    # Steps in front: whatever the law holds per row still broadcasts.
    ndim = path.points.ndim - 2
    points, drift = path.points.movedim(-2, 0), path.drift.movedim(-2, 0)
    times = align_rows(grid.times[..., :-1], ndim).squeeze(-1).to(points)
    axis = -2 if law.noise_type == "diagonal" else -3
    diffusion = path.diffusion.movedim(axis, 0)
    rate = path_kl_rate(drift - law.h(times, points), diffusion, law.noise_type)
    paid = rate * align_rows(grid.steps, ndim).squeeze(-1).to(rate)
    gaps = len(grid.index) - 1
    gap_of = torch.tensor(grid.intervals, device=paid.device)
    return paid.new_zeros(gaps, *paid.shape[1:]).index_add(0, gap_of, paid).movedim(0, -1)
