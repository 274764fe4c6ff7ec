"""Prior rollouts for forecasts: each row from its own start to its own times, with row noise."""

from __future__ import annotations

import torch
from torch import Tensor

from neurodyn.noise import RowNoise
from neurodyn.sde.base import SDE
from neurodyn.sde.residual import ResidualLaw
from neurodyn.solvers.rows import RowGrid, row_grid


def rollout(sde: SDE, z: Tensor, start: Tensor, times: Tensor, noise: RowNoise, longest_step: float) -> Tensor:
    """Simulate `sde` (Ito) from z (S, B, d) at `start` (B,) to `times` (B, H): (S, B, H, d).

    Euler-Maruyama in steps of at most `longest_step`; a `ResidualLaw` moves its linear part exactly instead (exponential Euler),
    so with a zero residual the result is exact in law for any step.
    """
    grid = row_grid(start, times, longest_step)
    states = _exponential(sde, z, grid, noise) if isinstance(sde, ResidualLaw) else _euler(sde, z, grid, noise)
    index = grid.index[None, :, :, None].expand(len(z), -1, -1, z.shape[-1])
    return states.gather(2, index)


def _euler(sde: SDE, z: Tensor, grid: RowGrid, noise: RowNoise) -> Tensor:
    steps = grid.steps.to(z.dtype)
    draws = noise.samples("rollout", len(z), steps.shape[1], sde.noise_size, dtype=z.dtype)
    moves = (draws * steps.sqrt()[..., None]).unbind(2)
    states = [z]
    for move, step, time in zip(moves, steps.unbind(1), grid.starts.unbind(1), strict=True):
        diffusion = sde.diffusion(time, z)
        kick = diffusion * move if sde.noise_type == "diagonal" else (diffusion @ move[..., None])[..., 0]
        z = z + sde.drift(time, z) * step[:, None] + kick
        states.append(z)
    return torch.stack(states, 2)


def _exponential(sde: ResidualLaw, z: Tensor, grid: RowGrid, noise: RowNoise) -> Tensor:
    """z' = Phi z + offset + Phi(step / 2) G r(z) step + N(0, Q): exact in the linear part, first order in r."""
    transition = sde.linear.transition(grid.steps)
    push = sde.linear.transition(0.5 * grid.steps).matrix @ sde.linear.noise() * grid.steps[..., None, None]
    value, vector = torch.linalg.eigh(transition.covariance)
    root = vector * value.clamp(min=0).sqrt()[..., None, :]
    draws = noise.samples("rollout", len(z), grid.steps.shape[1], z.shape[-1], dtype=z.dtype)
    moves = (root @ draws[..., None])[..., 0].unbind(2)
    parts = (part.unbind(1) for part in (transition.matrix, transition.offset, push, grid.starts))
    states = [z]
    for move, phi, offset, force, time in zip(moves, *parts, strict=True):
        pushed = phi @ z[..., None] + force @ sde.residual(time, z)[..., None]
        z = pushed[..., 0] + offset + move
        states.append(z)
    return torch.stack(states, 2)
