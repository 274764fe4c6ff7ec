"""torchsde behind `sdeint`: adaptive steps, the stochastic adjoint and its other methods, with times per row.

Time is changed to s, the number of the step on the grid, so that every row and gap runs at the same pace: with
tau(s) piecewise linear, tau' its slope per row and gap,

    dz = f(tau(s), z) tau' ds + g(tau(s), z) sqrt(tau') dW(s).

torchsde then takes steps of exactly 1 and every gap is a solve of its own, so that the kinks of tau fall on its ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchsde import BaseBrownian, BrownianInterval, sdeint_adjoint
from torchsde import sdeint as torchsde_sdeint

from neurodyn.sde.base import SDE
from neurodyn.solvers.brownian import align_rows
from neurodyn.solvers.grid import Grid
from neurodyn.solvers.loop import check_noise
from neurodyn.solvers.native import Visits
from neurodyn.solvers.path_kl import path_kl_rate


class Adaptive(NamedTuple):
    """Step-size control: relative and absolute tolerance, and the shortest step as a fraction of the first one."""

    rtol: float = 1e-5
    atol: float = 1e-4
    shortest: float = 1e-3


def solve_torchsde(
    law: SDE,
    z0: Tensor,
    grid: Grid,
    method: str | None,
    noise: Tensor | None,
    generator: torch.Generator | None,
    logqp: bool,
    adaptive: Adaptive | None,
    adjoint_params: Sequence[Tensor] | None,
) -> Any:
    """States (..., T, d) at the visits of the grid, and with `logqp` the path KL (..., T - 1) too.

    Args:
        law: the law. z0: (..., d), with the full leading shape.
        grid: whose visits, numbers of steps per gap, and rows are used.
        method: a name of torchsde's, or None for its default.
        noise: increments (N, ..., m) on the grid, of which no row may stand still; drawn if not given.
        adaptive: None for fixed steps.
        adjoint_params: None to differentiate through the steps; else what the adjoint gives gradients to.
    """
    lead, size = z0.shape[:-1], z0.shape[-1]
    rows = lead.numel()
    y = z0.reshape(rows, size)
    if logqp:
        y = torch.cat((y, y.new_zeros(rows, 1)), -1)
    spare = int(logqp and law.noise_type == "diagonal")
    if noise is None:
        path: BaseBrownian = _interval(grid, (rows, law.noise_size + spare), y, generator, method, law)
    else:
        path = GridBrownian(_in_steps(noise, grid, z0, spare), y)
    options: dict[str, Any] = {"method": method, "dt": 1.0, "bm": path}
    if method == "milstein" and law.noise_type == "scalar":
        # torchsde 0.2.6 differentiates |g|^2 where it should differentiate g along g; by differences it gets it right.
        options["options"] = {"grad_free": True}
    if adaptive is not None:
        options |= {"adaptive": True, "rtol": adaptive.rtol, "atol": adaptive.atol, "dt_min": adaptive.shortest}
    solve: Any = torchsde_sdeint
    if adjoint_params is not None:
        solve = sdeint_adjoint
        options["adjoint_params"] = tuple(parameter for parameter in adjoint_params if parameter.requires_grad)
        if adaptive is not None:
            options |= {"adjoint_adaptive": True, "adjoint_rtol": adaptive.rtol, "adjoint_atol": adaptive.atol}
    states = [y]
    for gap, (start, end) in enumerate(zip(grid.index[:-1], grid.index[1:], strict=True)):
        if end > start:
            ends = torch.tensor([start, end], dtype=y.dtype, device=y.device)
            y = solve(_Gap(law, grid, gap, z0, logqp), y, ends, **options)[-1]
        states.append(y)
    stacked = torch.stack(states, -2).reshape(*lead, len(states), -1)
    return Visits(stacked[..., :-1], stacked[..., -1].diff(dim=-1)) if logqp else stacked


class _Gap:
    """A law on one gap between visits, in the form and the time that torchsde sees: y (rows, d), s in steps."""

    def __init__(self, law: SDE, grid: Grid, gap: int, z0: Tensor, logqp: bool) -> None:
        self.noise_type, self.sde_type = law.noise_type, law.sde_type
        self.law, self.logqp, self.lead, self.size = law, logqp, z0.shape[:-1], z0.shape[-1]
        start, end = grid.index[gap], grid.index[gap + 1]
        self.start = start
        begins, ends = grid.times[..., start], grid.times[..., end]
        self.begins = begins.to(z0)
        self.pace = ((ends - begins) / (end - start)).to(z0)
        self.row_pace = self.pace.expand(self.lead).reshape(-1, 1)

    def f(self, s: Tensor, y: Tensor) -> Tensor:
        """Drift per step, with the cost of the path below the state if asked for."""
        t, z = self._look(s, y)
        drift = self.law.drift(t, z)
        if not self.logqp:
            return drift.reshape(y.shape) * self.row_pace
        rate = path_kl_rate(drift - self.law.h(t, z), self.law.diffusion(t, z), self.law.noise_type)
        return torch.cat((drift.reshape(-1, self.size), rate.reshape(-1, 1)), -1) * self.row_pace

    def g(self, s: Tensor, y: Tensor) -> Tensor:
        """Diffusion per square root of a step; the cost has none."""
        t, z = self._look(s, y)
        diffusion = self.law.diffusion(t, z)
        root = self.row_pace.sqrt()
        if self.noise_type == "diagonal":
            spread = diffusion.reshape(-1, self.size) * root
            return torch.nn.functional.pad(spread, (0, 1)) if self.logqp else spread
        spread = diffusion.reshape(-1, *diffusion.shape[-2:]) * root.unsqueeze(-1)
        return torch.nn.functional.pad(spread, (0, 0, 0, 1)) if self.logqp else spread

    def _look(self, s: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z = y[:, : self.size].reshape(*self.lead, self.size)
        return self.begins + (s - self.start) * self.pace, z


class GridBrownian(BaseBrownian):
    """A path known at whole numbers of steps only, as torchsde asks for one.

    Args:
        increments: (N, rows, m), each of variance 1.
        like: for dtype and device.
    """

    levy_area_approximation = "none"

    def __init__(self, increments: Tensor, like: Tensor) -> None:
        self._increments = increments.to(like)

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Tensor:  # noqa: N803
        """W(tb) - W(ta), (rows, m)."""
        if return_U or return_A or tb is None:
            raise ValueError("noise: known by its increments alone, want a method without Levy areas")
        start, end = round(float(ta)), round(float(tb))
        if max(abs(start - float(ta)), abs(end - float(tb))) > 1e-3:
            raise ValueError(f"noise: asked between {float(ta)} and {float(tb)} steps, want fixed whole steps")
        return self._increments[start] if end == start + 1 else self._increments[start:end].sum(0)

    def __repr__(self) -> str:
        return f"GridBrownian({tuple(self._increments.shape)})"

    @property
    def dtype(self) -> torch.dtype:
        """Of the increments."""
        return self._increments.dtype

    @property
    def device(self) -> torch.device:
        """Of the increments."""
        return self._increments.device

    @property
    def shape(self) -> torch.Size:
        """(rows, m)."""
        return self._increments.shape[1:]


def _interval(
    grid: Grid, size: tuple[int, int], y: Tensor, generator: torch.Generator | None, method: str | None, law: SDE
) -> BrownianInterval:
    """torchsde's own path over all steps, seeded by one draw from the generator."""
    where = generator.device if generator is not None else "cpu"
    entropy = int(torch.randint(2**31, (), generator=generator, device=where))
    by_default = law.sde_type == "ito" and law.noise_type != "general"
    area = "space-time" if method == "srk" or (method is None and by_default) else "none"
    if method == "log_ode":
        area = "foster"
    return BrownianInterval(
        t0=0.0,
        t1=float(max(grid.num_steps, 1)),
        size=size,
        dtype=y.dtype,
        device=y.device,
        entropy=entropy,
        levy_area_approximation=area,
    )


def _in_steps(noise: Tensor, grid: Grid, z0: Tensor, spare: int) -> Tensor:
    """Increments (N, ..., m) of W in time as increments (N, rows, m) of unit variance, with spare zero columns."""
    check_noise(noise, grid, z0)
    if grid.idle:
        raise ValueError(
            "noise: given for rows with unlike numbers of steps, which torchsde does not have; leave it out"
        )
    unit = noise / align_rows(grid.steps, z0.ndim - 1).sqrt().to(noise)
    return torch.nn.functional.pad(unit.reshape(noise.shape[0], -1, noise.shape[-1]), (0, spare))
