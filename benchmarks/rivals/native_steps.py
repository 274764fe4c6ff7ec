"""The step by neurodyn's own simulated ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.rivals.networks import TorchProblem, diffusion, post_drift, prior_drift
from benchmarks.rivals.problem import GAPS, HIGH, LOW, STEP, Problem
from benchmarks.rivals.step import Answer, Unavailable, Way
from neurodyn.sde.base import Time
from neurodyn.solvers.brownian import Brownian
from neurodyn.solvers.fused import CoordinateNets, FusedLaw, Net, integrate_fused
from neurodyn.solvers.fused_cpu import NoKernel
from neurodyn.solvers.grid import step_grid
from neurodyn.solvers.native import integrate, integrate_visits
from neurodyn.solvers.path_kl import path_kl_rate
from neurodyn.solvers.schemes import Left


class NativeStep:
    """One way of the native engine.

    Args:
        problem: the problem.
        gradient: as in `integrate_visits`.

    Raises:
        Unavailable: a gradient that this version does not have.
    """

    def __init__(self, problem: Problem, gradient: str) -> None:
        self.tensors = TorchProblem(problem)
        self.gradient = gradient
        self.grid = step_grid(problem.visits, STEP)
        self.options: dict[str, Any] = {"method": "euler", "gradient": gradient}
        if gradient == "reversible":
            self.options |= {"method": "reversible_heun", "sde_type": "stratonovich"}
        self.gap_of = self.grid.intervals
        try:
            with torch.no_grad():
                self._visits(self._noise())
        except ValueError as error:
            raise Unavailable(str(error)) from None

    def train(self) -> None:
        self.tensors.clear()
        self._loss(self._noise()).backward()

    def sample(self) -> None:
        w = self.tensors.weights
        with torch.no_grad():
            integrate_visits(
                lambda k, t, z: prior_drift(w, z),
                lambda k, t, z: diffusion(w, z),
                self.tensors.z0,
                self.grid,
                self._noise(),
            )

    def answer(self, increments: NDArray[np.floating]) -> Answer:
        self.tensors.clear()
        return self.tensors.answer(self._loss(torch.from_numpy(increments)))

    def _noise(self) -> Brownian:
        z0 = self.tensors.z0
        return Brownian(self.grid, z0.shape[:-1], z0.shape[-1], dtype=z0.dtype)

    def _loss(self, noise: Tensor | Brownian) -> Tensor:
        states, cost = self._visits(noise)
        return self.tensors.loss(states[:, 1:].movedim(1, 0), cost)

    def _visits(self, noise: Tensor | Brownian) -> tuple[Tensor, Tensor]:
        tensors = self.tensors
        w, shifts, gap_of = tensors.weights, tensors.shifts(), self.gap_of

        def drift(k: int, t: Time, z: Tensor) -> Tensor:
            return post_drift(w, shifts[gap_of[k]], z)

        def noise_scale(k: int, t: Time, z: Tensor) -> Tensor:
            return diffusion(w, z)

        def cost(k: int, t: Time, left: Left) -> Tensor:
            return path_kl_rate(left.drift - prior_drift(w, left.point), left.diffusion, "diagonal")

        params = [*w.values(), *shifts]
        visits = integrate_visits(
            drift, noise_scale, tensors.z0, self.grid, noise, cost=cost, params=params, **self.options
        )
        assert visits.cost is not None
        return visits.states, visits.cost


class LaterKLStep(NativeStep):
    """Backprop with the whole path kept: prior and KL are evaluated after the loop, on all steps at once."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem, "backprop")

    def _visits(self, noise: Tensor | Brownian) -> tuple[Tensor, Tensor]:
        tensors = self.tensors
        w, shifts, gap_of = tensors.weights, tensors.shifts(), self.gap_of
        path = integrate(
            lambda k, t, z: post_drift(w, shifts[gap_of[k]], z),
            lambda k, t, z: diffusion(w, z),
            tensors.z0,
            self.grid,
            noise,
        )
        excess = path.drift - prior_drift(w, path.points)
        rate = path_kl_rate(excess, path.diffusion, "diagonal") * STEP
        return path.states[:, list(self.grid.index)], rate.unflatten(-1, (GAPS, -1)).sum(-1)


class FusedStep(NativeStep):
    """All steps in one kernel, compiled for the law."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem, "backprop")
        try:
            self.sample()
        except NoKernel as error:
            raise Unavailable(str(error)) from None

    def sample(self) -> None:
        w = self.tensors.weights
        with torch.no_grad():
            law = FusedLaw(
                Net(w["prior_state"].T, w["prior_bias"], w["prior_out"].T, w["prior_out_bias"]), self._noises()
            )
            integrate_fused(law, self.tensors.z0, self.grid, self._noise().increments())

    def _visits(self, noise: Tensor | Brownian) -> tuple[Tensor, Tensor]:
        w = self.tensors.weights
        net = Net(w["post_state"].T, self.tensors.stacked_shifts(), w["post_out"].T, w["post_out_bias"])
        prior = Net(w["prior_state"].T, w["prior_bias"], w["prior_out"].T, w["prior_out_bias"])
        increments = noise if isinstance(noise, Tensor) else noise.increments()
        law = FusedLaw(net, self._noises(), prior)
        states, cost = integrate_fused(law, self.tensors.z0, self.grid, increments)
        assert cost is not None
        return states, cost

    def _noises(self) -> CoordinateNets:
        w = self.tensors.weights
        return CoordinateNets(w["noise_in"], w["noise_bias"], w["noise_out"], w["noise_out_bias"], LOW, HIGH)


WAYS = [
    Way("neurodyn, fused", FusedStep, samples=True, swept=True, exact=True, ours=True),
    Way("neurodyn, backprop", lambda p: NativeStep(p, "backprop"), samples=True, swept=True, exact=True, ours=True),
    Way("neurodyn, backprop, KL after the loop", LaterKLStep, exact=True, ours=True),
    Way("neurodyn, checkpoint", lambda p: NativeStep(p, "checkpoint"), swept=True, exact=True, ours=True),
    Way("neurodyn, reversible Heun", lambda p: NativeStep(p, "reversible"), swept=True, ours=True),
]
