"""Layers that run a differential equation along the control path of each series: SDEs that it steers, and CDEs."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from neurodyn.nets.context import Context
from neurodyn.nets.mlp import mlp
from neurodyn.nets.paths import PATH_KINDS, PathKind, control_path
from neurodyn.noise import RowNoise
from neurodyn.sde.base import Time
from neurodyn.sde.controlled import ControlledLaw
from neurodyn.series import SeriesBatch
from neurodyn.solvers.brownian import Brownian
from neurodyn.solvers.grid import Grid, packed_grid
from neurodyn.solvers.native import integrate_visits
from neurodyn.solvers.tanh_steps import tanh_states


def num_channels(num_variables: int, intensity: bool = False) -> int:
    """Channels of a control path with time: what a law's `control_size` has to be."""
    return 1 + num_variables * (1 + intensity)


class ControlledSDE(nn.Module):
    """Sample paths of a law along the control path of each series, from a start that is linear in the path's.

        z(t0) = A X(t0) + b,    dz = f(t - t0, z, X(t)) dt + g(t - t0, z) dW,    by Euler-Maruyama

    Args:
        law: any `ControlledLaw` with ``control_size = num_channels(D, intensity)``, such as `NeuralLNSDE`.
        path, intensity: see `control_path`.
        longest_step: in units of time. Steps end at the visits; longer gaps are cut.

    Raises:
        ValueError: an unknown kind of path, or a step that is not positive.
    """

    def __init__(
        self, law: ControlledLaw, *, path: PathKind = "hermite", intensity: bool = False, longest_step: float = 0.1
    ) -> None:
        _check(path, longest_step)
        super().__init__()
        self.law, self.path, self.intensity, self.longest_step = law, path, intensity, longest_step
        self.start = nn.Linear(law.control_size, law.state_size)

    def forward(
        self,
        batch: SeriesBatch,
        num_samples: int = 1,
        *,
        at: Tensor | None = None,
        mean: bool = False,
        noise: RowNoise | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """States after the last visit, (S, B, d), or at given times, (S, B, Q, d).

        Args:
            num_samples: S, how many paths of each series.
            at: (B, Q), not decreasing along a row, instead of after the last visit. The state starts at a row's first
                visit; after its last one the path stands still, and the state goes on.
            mean: whether the mean over the time from the first visit to the last stands behind the state after it:
                (S, B, 2 d). A law that forgets fast has in it what happened early. Not with `at`.
            noise: random numbers of the rows; drawn from `generator` if not given.

        Raises:
            ValueError: a batch with another number of variables than the law was made for; a mean with `at`.
        """
        if mean and at is not None:
            raise ValueError("mean: got True with times in `at`, want one of them")
        batch = batch.compact()
        path = control_path(batch, self.path, intensity=self.intensity)
        _check_channels(path.num_channels, self.law.control_size)
        noise = RowNoise.of(batch, generator) if noise is None else noise
        grid, place = _grid(batch.times, at, self.longest_step)
        # everything that time and control do, for all steps at once; matrices that are bounded are made once
        with parametrize.cached():
            begin = self.start(path.start)
            z0 = begin.expand(num_samples, *begin.shape)
            where = grid.times[:, :-1]
            elapsed = (where - grid.times[:, :1]).to(z0)
            pull, level = self.law.prepare(elapsed, path.value(path.clock(where)))
            source = Brownian(grid, z0.shape[:-1], self.law.state_size, seeds=noise, dtype=z0.dtype, device=z0.device)
            form = self.law.tanh_form(pull, level)
            if form is not None:
                states = tanh_states(form, z0, grid.steps, source.increments()).movedim(0, -2)
            else:
                kept = _at_every_step(grid) if mean or place is not None else grid
                states = self._loop(z0, pull, level, kept, source)
        if not mean:
            return self.law.outer(states[..., -1, :] if place is None else _at(states, place))
        states = self.law.outer(states)
        return torch.cat((states[..., -1, :], time_mean(states, grid.steps)), -1)

    def _loop(self, z0: Tensor, pull: Tensor, level: Tensor, grid: Grid, source: Brownian) -> Tensor:
        """(S, B, T, d) at the grid's visits, for any law."""
        pulls, levels = pull.unbind(1), level.unbind(1)

        def drift(k: int, t: Time, u: Tensor) -> Tensor:
            return self.law.velocity(u, pulls[k])

        def diffusion(k: int, t: Time, u: Tensor) -> Tensor:
            return self.law.spread(u, levels[k]).expand_as(u)

        return integrate_visits(drift, diffusion, z0, grid, source).states


class NeuralCDE(nn.Module):
    """z(t0) = A X(t0) + b,  dz = f(z) dX,  with f a network to matrices (H, C), bounded by a last tanh: an encoder.

    Solved as what it is, an integral against the path: by Heun's method on the path's increments, of second order in
    the step, with steps that end at the visits.

    Args:
        num_variables: D. context_size: C, the size of the features and of the summary.
        hidden_size: H, of the state. width, hidden_layers: of the network f.
        path, intensity: see `control_path`. On a "rectilinear" path features depend on nothing later; on a "hermite"
            path neither, at visits.
        longest_step: in units of the path's clock; longer gaps are cut.

    ``forward(batch)`` returns a `Context`: features (B, T, C) at all visits and the summary (B, C) after the last.
    Visits with nothing observed have the features of the one before. ``forward(batch, at=times)`` has the features at
    times (B, Q) instead.

    Source: Kidger et al. (2020), arXiv 2005.08926, eq. 4.
    """

    def __init__(
        self,
        num_variables: int,
        context_size: int,
        hidden_size: int = 32,
        *,
        width: int = 64,
        hidden_layers: int = 1,
        path: PathKind = "hermite",
        intensity: bool = False,
        longest_step: float = math.inf,
    ) -> None:
        _check(path, longest_step)
        super().__init__()
        self.num_variables, self.context_size, self.hidden_size = num_variables, context_size, hidden_size
        self.path, self.intensity, self.longest_step = path, intensity, longest_step
        self.channels = num_channels(num_variables, intensity)
        self.start = nn.Linear(self.channels, hidden_size)
        self.field = mlp([hidden_size, *[width] * hidden_layers, hidden_size * self.channels])
        self.head = nn.Linear(hidden_size, context_size)

    def forward(self, batch: SeriesBatch, at: Tensor | None = None) -> Context:
        """Encode a batch; see the class."""
        path = control_path(batch, self.path, intensity=self.intensity)
        _check_channels(path.num_channels, self.channels)
        asked = path.visits if at is None else path.clock(at)
        longest = min(self.longest_step, 1.0) if self.path == "rectilinear" else self.longest_step
        grid, place = _grid(path.visits, asked, longest)
        increments = path.value(grid.times).diff(dim=1).movedim(1, 0)  # (N, B, C)
        z0 = self.start(path.start)

        def still(k: int, t: Time, z: Tensor) -> Tensor:
            return torch.zeros_like(z)

        def field(k: int, t: Time, z: Tensor) -> Tensor:
            return torch.tanh(self.field(z)).unflatten(-1, (self.hidden_size, self.channels))

        kind = {"method": "heun", "noise_type": "general", "sde_type": "stratonovich"}
        states = integrate_visits(still, field, z0, _at_every_step(grid), increments, **kind).states  # type: ignore[arg-type]
        assert place is not None
        if at is None:  # a visit with nothing observed has the features of the one before
            place = place.gather(1, (batch.present.cumsum(1) - 1).clamp_min(0))
        return Context(batch, self.head(_at(states, place)), self.head(states[:, -1]))


def _grid(visits: Tensor, at: Tensor | None, longest: float) -> tuple[Grid, Tensor | None]:
    """A grid from start to end that steps on all visits and times asked for, and at which steps those asked for are."""
    times = visits
    if at is not None:
        if at.ndim != 2 or at.shape[0] != visits.shape[0]:
            raise ValueError(f"at: got shape {tuple(at.shape)}, want ({visits.shape[0]}, Q)")
        # the state is not there before the first visit
        times = torch.cat((visits, at.to(visits).maximum(visits[:, :1])), 1)
    times, order = torch.sort(times, dim=1, stable=True)
    span = float((times[:, -1] - times[:, 0]).amax()) if math.isinf(longest) else 0.0
    packed = packed_grid(times, longest if math.isfinite(longest) else max(span, 1.0))
    assert packed.places is not None
    if packed.num_steps:
        grid = Grid(packed.times, packed.steps, (0, packed.num_steps), packed.idle)
    else:  # single visits: one step of no length, so that a solution has a shape
        grid = Grid(packed.times.expand(-1, 2), torch.zeros_like(packed.times), (0, 1), True)
    if at is None:
        return grid, None
    # where each time went when they were sorted
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return grid, packed.places.gather(1, rank[:, visits.shape[1] :])


def time_mean(states: Tensor, steps: Tensor) -> Tensor:
    """(..., B, d), the means over time of states (..., B, N + 1, d), each held over the step (B, N) that it starts.

    Of a row that takes no time, its first state.
    """
    span = steps.sum(1, keepdim=True)
    first = torch.zeros_like(steps)
    first[:, 0] = 1.0
    share = torch.where(span > 0, steps / torch.where(span > 0, span, 1.0), first).to(states)
    return (share.unsqueeze(-2) @ states[..., :-1, :]).squeeze(-2)


def _at_every_step(grid: Grid) -> Grid:
    return dataclasses.replace(grid, index=tuple(range(grid.num_steps + 1)))


def _at(states: Tensor, place: Tensor) -> Tensor:
    """Of states (..., B, N + 1, d) those of numbers (B, T): (..., B, T, d)."""
    index = place.unsqueeze(-1).expand(*place.shape, states.shape[-1])
    return states.gather(-2, index.expand(*states.shape[:-3], *index.shape))


def _check(path: str, longest_step: float) -> None:
    if path not in PATH_KINDS:
        raise ValueError(f"path: got {path!r}, want one of {', '.join(PATH_KINDS)}")
    if not longest_step > 0:
        raise ValueError(f"longest_step: got {longest_step}, want a positive length of time")


def _check_channels(given: int, wanted: int) -> None:
    if given != wanted:
        raise ValueError(f"batch: got a control path of {given} channels, want {wanted} as the layer was made for")
