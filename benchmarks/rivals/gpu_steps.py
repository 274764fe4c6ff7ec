"""The step on a GPU: torchsde's, and neurodyn's eager, recorded (CUDA graphs), fused and matched ways.

Noise is drawn on the device. torchsde gets its times on the host, where its loop looks at them: with times on the
device every step waits for it, which stands in a row of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.rivals.matching_steps import MatchedStep
from benchmarks.rivals.networks import TorchProblem, diffusion, post_drift, prior_drift
from benchmarks.rivals.problem import HIGH, LOW, STEP, Arrays, Problem
from benchmarks.rivals.step import Answer, Unavailable
from benchmarks.rivals.torchsde_steps import TorchsdeStep
from neurodyn.nets.context import Context
from neurodyn.noise import RowNoise
from neurodyn.solvers import GraphedStep, integrate, path_kl_rate, step_grid
from neurodyn.solvers.fused import CoordinateNets, FusedLaw, Net, integrate_fused


class DeviceProblem(TorchProblem):
    """A problem's tensors on a device."""

    def __init__(self, problem: Problem, device: str) -> None:
        super().__init__(problem)
        self.weights = {name: _leaf(value, device) for name, value in self.weights.items()}
        self.z0, self.contexts = _leaf(self.z0, device), _leaf(self.contexts, device)
        self.targets, self.visits = self.targets.to(device), self.visits.to(device)

    def all_shifts(self) -> Tensor:
        """What the context adds to the posterior drift's hidden layer, (GAPS, B, 64)."""
        w = self.weights
        flat = torch.addmm(w["post_bias"], self.contexts.flatten(0, 1), w["post_context"])
        return flat.unflatten(0, self.contexts.shape[:2])

    def answer(self, loss: Tensor) -> Answer:
        loss.backward()
        gradients: Arrays = {}
        for name, leaf in self.leaves.items():
            assert leaf.grad is not None, name
            gradients[name] = leaf.grad.cpu().numpy()
        return Answer(loss.item(), gradients)


class DeviceStep:
    """What the ways share: `train` draws noise, takes the loss and all gradients, and returns when the GPU is done."""

    leaves: list[Tensor]
    device: str

    def loss(self) -> Tensor:
        """With noise of its own."""
        raise NotImplementedError

    def take(self) -> object:
        """The step, without waiting for it."""
        for leaf in self.leaves:
            leaf.grad = None
        self.loss().backward()
        return None

    def record(self) -> None:
        """Let `take` replay a recording from now on."""
        if self.device != "cuda":
            raise Unavailable("there are no CUDA graphs without CUDA")
        self.take = GraphedStep(self.loss, self.leaves)  # type: ignore[method-assign]

    def train(self) -> None:
        self.take()
        wait(self.device)


class EagerStep(DeviceStep):
    """The native engine, backprop, with the prior and the KL after the loop, as `sdeint` takes them."""

    def __init__(self, problem: Problem, device: str) -> None:
        self.tensors, self.device = DeviceProblem(problem, device), device
        self.leaves = list(self.tensors.leaves.values())
        self.grid = step_grid(problem.visits, STEP)
        self.index = torch.tensor(self.grid.index[1:], device=device)

    def loss(self) -> Tensor:
        z0 = self.tensors.z0
        return self.loss_on(STEP**0.5 * torch.randn(self.grid.num_steps, *z0.shape, dtype=z0.dtype, device=z0.device))

    def loss_on(self, noise: Tensor) -> Tensor:
        """On given increments (N, B, d)."""
        w, shifts, gap_of = self.tensors.weights, self.tensors.all_shifts().unbind(0), self.grid.intervals
        path = integrate(
            lambda k, t, z: post_drift(w, shifts[gap_of[k]], z),
            lambda k, t, z: diffusion(w, z),
            self.tensors.z0,
            self.grid,
            noise,
        )
        excess = path.drift - prior_drift(w, path.points)
        rate = path_kl_rate(excess, path.diffusion, "diagonal") * STEP
        return self.tensors.loss(path.states.index_select(1, self.index).movedim(1, 0), rate)

    def answer(self, increments: NDArray[np.floating]) -> Answer:
        self.tensors.clear()
        noise = torch.from_numpy(increments).to(self.tensors.z0)
        return self.tensors.answer(self.loss_on(noise))


class FusedStep(EagerStep):
    """The fused engine, its noise drawn in the kernel."""

    def __init__(self, problem: Problem, device: str) -> None:
        super().__init__(problem, device)
        try:
            with torch.no_grad():
                self.loss()
        except (ValueError, ModuleNotFoundError) as error:
            raise Unavailable(str(error)) from None

    def loss(self) -> Tensor:
        rows = self.tensors.z0.shape[:1]
        return self.loss_on(torch.randint(2**62, rows, device=self.tensors.z0.device))

    def loss_on(self, noise: Tensor) -> Tensor:
        w = self.tensors.weights
        law = FusedLaw(
            Net(w["post_state"].T, self.tensors.all_shifts(), w["post_out"].T, w["post_out_bias"]),
            CoordinateNets(w["noise_in"], w["noise_bias"], w["noise_out"], w["noise_out_bias"], LOW, HIGH),
            Net(w["prior_state"].T, w["prior_bias"], w["prior_out"].T, w["prior_out_bias"]),
        )
        states, cost = integrate_fused(law, self.tensors.z0, self.grid, noise)
        assert cost is not None
        return self.tensors.loss(states[:, 1:].movedim(1, 0), cost)


class MatchingStep(DeviceStep):
    """SDE Matching with free contexts, 16 times per series."""

    def __init__(self, problem: Problem, device: str) -> None:
        made, self.device = MatchedStep(problem), device
        self.prior, self.posterior = made.prior.to(device), made.posterior.to(device)
        self.batch, self.targets = made.batch.to(device), made.targets.to(device)
        self.features = _leaf(made.features, device)
        self.noise = RowNoise(0, self.batch.ids or (), device)
        self.leaves = [*self.prior.parameters(), *self.posterior.parameters(), self.features]

    def loss(self) -> Tensor:
        self.noise.keys = torch.randint(2**62, self.noise.keys.shape, device=self.device)
        context = Context(self.batch, self.features, self.features[:, -1])
        paths = self.posterior(context, self.prior, self.noise)
        misfit = 0.5 * (paths.z[0] - self.targets).square().sum((1, 2))
        return (misfit + paths.path_kl + paths.initial_kl).mean()


class TorchsdeOnDevice(TorchsdeStep):
    """torchsde's ways.

    Args:
        times: device of the times, "cpu" or that of the states.
    """

    def __init__(self, problem: Problem, device: str, gradient: str, step: float = STEP, times: str = "cpu") -> None:
        super().__init__(problem, gradient, step=step)
        self.device = device
        self.tensors = DeviceProblem(problem, device)
        self.law.weights = self.tensors.weights
        self.visits = self.visits.to(times)

    def train(self) -> None:
        super().train()
        wait(self.device)


@dataclass(frozen=True)
class DeviceWay:
    """A row. make: takes a problem and a device. most_steps: beyond which it is not tried. exact: has an `answer`."""

    name: str
    make: Callable[[Problem, str], DeviceStep | TorchsdeOnDevice]
    swept: bool = True
    exact: bool = False
    most_steps: int = 100_000


def recorded(kind: Callable[[Problem, str], DeviceStep]) -> Callable[[Problem, str], DeviceStep]:
    """The same way, recorded."""

    def make(problem: Problem, device: str) -> DeviceStep:
        step = kind(problem, device)
        step.record()
        return step

    return make


def wait(device: str) -> None:
    """Until the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()


def _leaf(value: Tensor, device: str) -> Tensor:
    return value.detach().to(device).requires_grad_()


BASELINE = "torchsde, backprop"
# Recording an eager solve launches every kernel of it several times: for long ones that takes longer than it is worth.
WAYS = [
    DeviceWay(BASELINE, lambda p, d: TorchsdeOnDevice(p, d, "backprop"), exact=True),
    DeviceWay("torchsde, backprop, steps of 1/100", lambda p, d: TorchsdeOnDevice(p, d, "backprop", 0.01), swept=False),
    DeviceWay(
        "torchsde, backprop, times on the GPU",
        lambda p, d: TorchsdeOnDevice(p, d, "backprop", times=d),
        swept=False,
    ),
    DeviceWay("torchsde, adjoint", lambda p, d: TorchsdeOnDevice(p, d, "adjoint")),
    DeviceWay("torchsde, adjoint, steps of 1/100", lambda p, d: TorchsdeOnDevice(p, d, "adjoint", 0.01), swept=False),
    DeviceWay("neurodyn, eager", EagerStep, exact=True),
    DeviceWay("neurodyn, eager, recorded", recorded(EagerStep), most_steps=400),
    DeviceWay("neurodyn, fused", FusedStep, exact=True),
    DeviceWay("neurodyn, fused, recorded", recorded(FusedStep)),
    DeviceWay("neurodyn, SDE Matching", MatchingStep),
    DeviceWay("neurodyn, SDE Matching, recorded", recorded(MatchingStep)),
]
