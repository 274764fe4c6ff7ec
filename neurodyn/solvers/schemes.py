"""One step of each native method, as a function of the state, on a fixed grid.

Times are Python floats where all rows share them, so that nothing is allocated or synchronised for them; else tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from neurodyn.sde.base import NOISE_TYPES, SDE_TYPES, NoiseType, SDEType, Time, directional_slope, entrywise_slope
from neurodyn.solvers.brownian import align_rows
from neurodyn.solvers.grid import Grid, rows_by_step

# (k, t, z) -> drift or diffusion at time t, in the step number k
StepFunction = Callable[[int, Time, Tensor], Tensor]
# (k, t, z) -> the diffusion and its derivative along itself, as a Milstein step needs them
SlopeFunction = Callable[[int, Time, Tensor], tuple[Tensor, Tensor]]
State = tuple[Tensor, ...]

METHODS = ("euler", "milstein", "heun", "reversible_heun")


class Left(NamedTuple):
    """What a method evaluated where its step starts: the point (..., d), and drift and diffusion there."""

    point: Tensor
    drift: Tensor
    diffusion: Tensor


class Problem(NamedTuple):
    """A law of motion as the stepping methods see it.

    Attributes:
        drift, diffusion: called with the number of the step, the time and the state. At the end of step k, methods that
            look there pass k + 1 (k at the very end) if they use the value again in the next step, else k.
        noise_type, sde_type: as in `SDE`.
        slope: diffusion g and sum_jk g_jk dg_i./dz_j; made by autograd if not given.
    """

    drift: StepFunction
    diffusion: StepFunction
    noise_type: NoiseType
    sde_type: SDEType
    slope: SlopeFunction | None = None


class Scheme:
    """A stepping method bound to a problem and a grid. The first entry of its state is the solution z, (..., d).

    Args:
        problem: the law of motion.
        grid: N steps.
        like: a state (..., d), for its dtype, device and number of axes.
    """

    charges_ends = False  # whether a cost is taken as the mean of both ends of a step, instead of its start's

    def __init__(self, problem: Problem, grid: Grid, like: Tensor) -> None:
        self.problem, self.grid = problem, grid
        self.drift, self.diffusion = problem.drift, problem.diffusion
        self.diagonal = problem.noise_type == "diagonal"
        self.times, self.steps = _host_or_rows(grid, like)
        self.visits, self.gap_of = grid.visitors, grid.intervals

    def start(self, z: Tensor) -> State:
        """State of the method before the first step."""
        return (z,)

    def step(self, k: int, state: State, dw: Tensor) -> tuple[State, Left]:
        """Step number k, with the Brownian increment dw (..., m)."""
        raise NotImplementedError

    def product(self, diffusion: Tensor, dw: Tensor) -> Tensor:
        """diffusion dW, (..., d)."""
        return diffusion * dw if self.diagonal else (diffusion @ dw.unsqueeze(-1)).squeeze(-1)

    def advance(self, z: Tensor, drift: Tensor, diffusion: Tensor, dt: Time, dw: Tensor) -> Tensor:
        """z + drift dt + diffusion dW, in as few kernels as there are."""
        moved = torch.addcmul(z, drift, dt) if isinstance(dt, Tensor) else torch.add(z, drift, alpha=dt)
        return torch.addcmul(moved, diffusion, dw) if self.diagonal else moved + self.product(diffusion, dw)


class Euler(Scheme):
    """Euler-Maruyama: z' = z + f dt + g dW. Ito. Strong order 1/2 (1 for additive noise), weak order 1.

    Source: Kloeden and Platen (1992), section 10.2.
    """

    def step(self, k: int, state: State, dw: Tensor) -> tuple[State, Left]:
        """One step."""
        (z,) = state
        left = Left(z, self.drift(k, self.times[k], z), self.diffusion(k, self.times[k], z))
        return (self.advance(z, left.drift, left.diffusion, self.steps[k], dw),), left


class Milstein(Scheme):
    """z' = z + f dt + g dW + 1/2 (g dg) (dW^2 - dt), without the dt for Stratonovich. Strong and weak order 1.

    For coordinate-wise diagonal noise and for scalar noise, whose iterated integrals are functions of dW. Additive
    noise has no such term: there it is Euler-Maruyama. Source: Kloeden and Platen (1992), section 10.3.
    """

    def step(self, k: int, state: State, dw: Tensor) -> tuple[State, Left]:
        """One step."""
        (z,) = state
        t, dt = self.times[k], self.steps[k]
        drift = self.drift(k, t, z)
        if self.problem.noise_type == "additive":
            left = Left(z, drift, self.diffusion(k, t, z))
            return (self.advance(z, drift, left.diffusion, dt, dw),), left
        value, slope = self._slope(k, t, z)
        area = 0.5 * (dw.square() - dt) if self.problem.sde_type == "ito" else 0.5 * dw.square()
        moved = self.advance(z, drift, value, dt, dw)
        return (torch.addcmul(moved, slope if self.diagonal else slope.squeeze(-1), area),), Left(z, drift, value)

    def _slope(self, k: int, t: Time, z: Tensor) -> tuple[Tensor, Tensor]:
        if self.problem.slope is not None:
            return self.problem.slope(k, t, z)
        if self.diagonal:
            value, slope = entrywise_slope(lambda state: self.diffusion(k, t, state), z)
            return value, value * slope
        return directional_slope(lambda state: self.diffusion(k, t, state), z, lambda value: value.squeeze(-1))


class Heun(Scheme):
    """The trapezoidal rule with an Euler predictor. Stratonovich. Strong order 1 for commutative noise, else 1/2.

    Source: Kloeden and Platen (1992), section 11.1 and 15.5; Burrage, Burrage and Tian (2004).
    """

    def step(self, k: int, state: State, dw: Tensor) -> tuple[State, Left]:
        """One step."""
        (z,) = state
        dt = self.steps[k]
        left = Left(z, self.drift(k, self.times[k], z), self.diffusion(k, self.times[k], z))
        ahead = self.advance(z, left.drift, left.diffusion, dt, dw)
        drift = left.drift + self.drift(k, self.times[k + 1], ahead)
        diffusion = left.diffusion + self.diffusion(k, self.times[k + 1], ahead)
        return (self.advance(z, drift, diffusion, 0.5 * dt, 0.5 * dw),), left


class ReversibleHeun(Scheme):
    """Heun's method with a companion state p: invertible, at one evaluation per step. Stratonovich.

        p' = 2 z - p + f(p) dt + g(p) dW
        z' = z + 1/2 (f(p) + f(p')) dt + 1/2 (g(p) + g(p')) dW

    Strong order 1/2, and 1 for additive noise. The state is (z, p, f(p), g(p)). At a rest of the grid the companion
    starts anew from z: nothing damps its distance from z, which a strong pull multiplies. Source: Kidger, Foster, Li
    and Lyons (2021), arXiv 2105.13493, section 3.
    """

    charges_ends = True

    def __init__(self, problem: Problem, grid: Grid, like: Tensor) -> None:
        super().__init__(problem, grid, like)
        # p' = 2 z - p is no rest: where a row stands still, its companion has to be held.
        self.moving = self._masks(grid.steps > 0, like) if grid.idle else None
        self.resting: dict[int, Tensor] = {}  # the rows (R,) that start anew in a step
        self.anew: list[Tensor] = []
        if grid.rests is not None:
            row, step = grid.rests.nonzero(as_tuple=True)
            self.resting = rows_by_step(step, row)
            self.anew = self._masks(grid.rests, like)

    def evaluate(self, k: int, p: Tensor) -> tuple[Tensor, Tensor]:
        """Drift and diffusion at the start of step k; k = N is the end of the last step."""
        step = min(k, self.grid.num_steps - 1)
        return self.drift(step, self.times[k], p), self.diffusion(step, self.times[k], p)

    def start(self, z: Tensor) -> State:
        """(z, z, f, g)."""
        return (z, z, *self.evaluate(0, z)) if self.grid.num_steps else (z,)

    def step(self, k: int, state: State, dw: Tensor) -> tuple[State, Left]:
        """One step."""
        z, p, f, g = state
        dt = self.steps[k]
        ahead = self.hold(k, self.advance(2 * z - p, f, g, dt, dw), p, z)
        f_ahead, g_ahead = self.evaluate(k + 1, ahead)
        z = self.advance(z, f + f_ahead, g + g_ahead, 0.5 * dt, 0.5 * dw)
        return (z, ahead, f_ahead, g_ahead), Left(p, f, g)

    def hold(self, k: int, moved: Tensor, held: Tensor, anew: Tensor | None = None) -> Tensor:
        """`moved`, but `held` in the rows that stand still in step k, and `anew` in those that rest."""
        if self.moving is not None:
            moved = torch.where(self.moving[k], moved, held)
        return moved if anew is None or k not in self.resting else torch.where(self.anew[k], anew, moved)

    @staticmethod
    def _masks(which: Tensor, like: Tensor) -> list[Tensor]:
        return list(align_rows(which, like.ndim - 1).to(like.device).unbind(0))


_SCHEMES: dict[str, type[Scheme]] = {
    "euler": Euler,
    "milstein": Milstein,
    "heun": Heun,
    "reversible_heun": ReversibleHeun,
}


def make_scheme(method: str, problem: Problem, grid: Grid, like: Tensor, *, state_independent: bool = False) -> Scheme:
    """The method by its name, after checking that it fits the noise.

    Raises:
        ValueError: an unknown name, or a method for the other calculus or for other noise.
    """
    noise, kind = problem.noise_type, problem.sde_type
    if method not in METHODS:
        raise ValueError(f"method: got {method!r}, want one of {', '.join(METHODS)}")
    if noise not in NOISE_TYPES:
        raise ValueError(f"noise_type: got {noise!r}, want one of {', '.join(NOISE_TYPES)}")
    if kind not in SDE_TYPES:
        raise ValueError(f"sde_type: got {kind!r}, want one of {', '.join(SDE_TYPES)}")
    # Where the diffusion does not depend on the state the two integrals agree, and every method solves both.
    both = state_independent or noise == "additive"
    wanted = {"euler": "ito", "heun": "stratonovich", "reversible_heun": "stratonovich"}.get(method, kind)
    if kind != wanted and not both:
        raise ValueError(f"method: got {method!r} for a law in the {kind} sense, want a {wanted} law (see `convert`)")
    if method == "milstein" and noise == "general":
        raise ValueError("method: got 'milstein' for general noise, want diagonal, scalar or additive noise")
    return _SCHEMES[method](problem, grid, like)


def _host_or_rows(grid: Grid, like: Tensor) -> tuple[list[Time], list[Time]]:
    """Times (N + 1) and steps (N): floats if shared, else tensors (...) and (..., 1) that broadcast against states."""
    if grid.shared:
        return list(grid.times.tolist()), list(grid.steps.tolist())
    ndim = like.ndim - 1
    times = align_rows(grid.times, ndim).squeeze(-1).to(dtype=like.dtype, device=like.device)
    steps = align_rows(grid.steps, ndim).to(dtype=like.dtype, device=like.device)
    return list(times.unbind(0)), list(steps.unbind(0))
