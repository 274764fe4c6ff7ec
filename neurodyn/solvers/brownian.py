"""Brownian increments over the steps of a grid: drawn, drawn again, seeded row by row, refined and coarsened."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neurodyn.noise import RowNoise
from neurodyn.solvers.grid import Grid

# Steps per draw. A solve that keeps nothing (reversible Heun) draws the blocks again on its way back.
BLOCK = 64


class Brownian:
    """A Brownian path on a grid, in blocks of steps that can be drawn any number of times.

    Args:
        grid: N steps.
        shape: leading shape of the state. The grid's rows are broadcast against it.
        noise_size: m.
        generator: source of the blocks' seeds; torch's global one if not given.
        seeds: one integer per row, for the last axis of `shape`, or a `RowNoise` of that many rows. A row's increments
            then depend on its seed and its own steps only: not on the batch, its order, its padding, or the device.
        dtype, device: of the increments.

    Raises:
        ValueError: a number of seeds that is not the number of rows, or a shape that the grid's rows do not fit.
    """

    def __init__(
        self,
        grid: Grid,
        shape: Sequence[int],
        noise_size: int,
        *,
        generator: torch.Generator | None = None,
        seeds: Sequence[int] | Tensor | RowNoise | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        self.shape = torch.Size(shape)
        self.num_steps, self.noise_size, self.dtype = grid.num_steps, noise_size, dtype
        self.device = torch.device(device) if device is not None else grid.times.device
        self._scale = step_scale(grid, self.shape).to(device=self.device, dtype=dtype)
        self._values: Tensor | None = None
        self._block_seeds: list[int] = []
        if seeds is not None:
            rows = seeds if isinstance(seeds, RowNoise) else RowNoise(0, [str(int(s)) for s in seeds], self.device)
            self._values = self._scale * _row_normals(grid, self.shape, noise_size, rows).to(self._scale)
        elif grid.num_steps:
            where = generator.device if generator is not None else "cpu"
            drawn = torch.randint(2**62, (self.num_blocks,), generator=generator, device=where)
            self._block_seeds = drawn.tolist()

    @property
    def num_blocks(self) -> int:
        """How many blocks hold the N steps."""
        return -(-self.num_steps // BLOCK)

    def block(self, number: int) -> Tensor:
        """Increments of the steps from ``BLOCK * number`` on, (at most BLOCK, *shape, m), in square roots of time."""
        part = slice(BLOCK * number, BLOCK * (number + 1))
        if self._values is not None:
            return self._values[part]
        scale = self._scale[part]
        source = torch.Generator(self.device).manual_seed(self._block_seeds[number])
        size = (scale.shape[0], *self.shape, self.noise_size)
        return torch.randn(size, generator=source, dtype=self.dtype, device=self.device).mul_(scale)

    def increments(self) -> Tensor:
        """All of them, (N, *shape, m)."""
        if self._values is not None:
            return self._values
        blocks = [self.block(number) for number in range(self.num_blocks)]
        empty = torch.zeros(0, *self.shape, self.noise_size, dtype=self.dtype, device=self.device)
        return blocks[0] if len(blocks) == 1 else torch.cat([empty, *blocks])


def brownian_increments(
    grid: Grid,
    shape: Sequence[int],
    noise_size: int,
    *,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | Tensor | RowNoise | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Increments dW ~ N(0, length of the step) of every step, (N, *shape, m). Arguments as in `Brownian`."""
    path = Brownian(grid, shape, noise_size, generator=generator, seeds=seeds, dtype=dtype, device=device)
    return path.increments()


def coarsen(increments: Tensor, factor: int) -> Tensor:
    """Increments of the same path over steps `factor` times as long: (N, ...) to (N / factor, ...)."""
    if factor < 1 or increments.shape[0] % factor:
        raise ValueError(f"factor: got {factor}, want a divisor of the {increments.shape[0]} steps")
    return increments.unflatten(0, (-1, factor)).sum(1)


def refine(increments: Tensor, grid: Grid, factor: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Query a path again between the times where it is known: increments on ``grid.refined(factor)``.

    Drawn from the law of the finer increments given the coarse ones (a Brownian bridge inside every step), so that
    `coarsen` gives back `increments` up to rounding.

    Args:
        increments: (N, *shape, m) on `grid`.
        grid: their N steps.
        factor: how many finer steps take the place of one.
    """
    if increments.shape[0] != grid.num_steps or increments.ndim < 2:
        raise ValueError(f"increments: got shape {tuple(increments.shape)}, want ({grid.num_steps}, ..., m)")
    fine = grid.refined(factor)
    shape, noise_size = increments.shape[1:-1], increments.shape[-1]
    dtype, device = increments.dtype, increments.device
    free = brownian_increments(fine, shape, noise_size, generator=generator, dtype=dtype, device=device)
    # Independent increments less their mean are a bridge; equal shares of the known increment put it in place.
    excess = coarsen(free, factor) - increments
    return free - (excess / factor).repeat_interleave(factor, 0)


def step_scale(grid: Grid, shape: Sequence[int]) -> Tensor:
    """Standard deviation of the increments, float64, (N, ..., 1): broadcasts against (N, *shape, m)."""
    spread = align_rows(grid.steps, len(shape)).sqrt()
    try:
        fits = torch.broadcast_shapes(spread.shape[1:-1], tuple(shape)) == torch.Size(shape)
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"shape: got {tuple(shape)}, want one that ends with the rows of the times {tuple(grid.rows)}")
    return spread


def align_rows(values: Tensor, ndim: int) -> Tensor:
    """(..., N) values per row and step to (N, ..., 1), with axes added in front of the rows to make `ndim` of them."""
    stepped = values.movedim(-1, 0)
    missing = ndim - (stepped.ndim - 1)
    return stepped.reshape(stepped.shape[0], *(1,) * missing, *stepped.shape[1:], 1)


def _row_normals(grid: Grid, shape: torch.Size, noise_size: int, rows: RowNoise) -> Tensor:
    """Standard normals (N, *shape, m) whose number k in a row belongs to the row's k-th step that moves."""
    if not shape or rows.keys.shape[0] != shape[-1]:
        raise ValueError(f"seeds: got {len(rows.keys)}, want one for each row of the last axis of {tuple(shape)}")
    samples = shape[:-1].numel()
    # (samples, rows, N, m): hashed by the row's seed and these indices
    drawn = rows.samples("brownian", samples, grid.num_steps, noise_size)
    drawn = drawn.reshape(*shape, grid.num_steps, noise_size)
    if grid.idle:
        own = ((grid.steps > 0).cumsum(-1) - 1).clamp_min(0).to(drawn.device)
        drawn = drawn.gather(-2, own.unsqueeze(-1).expand(drawn.shape))
    return drawn.movedim(-2, 0)
