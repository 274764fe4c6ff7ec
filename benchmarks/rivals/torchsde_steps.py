"""The step by torchsde: through the solver, by its stochastic adjoint, and by its reversible Heun.

`Careful` is written to be fast under torchsde: the diffusion's networks are grouped and the context's product is taken
once, as on the other sides. `AsInExample` is written as torchsde's Lorenz example is: [z, context] concatenated, the
context looked up by time in one tensor, a list of small networks.

Steps of 2^-8, exact in float32, are torchsde's best case. With steps of 1/100, as in its example, times round, and one
interval of a rounding's length makes its Brownian motion split [0, T] into tens of thousands of pieces (seen in 0.2.6).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torchsde
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus

from benchmarks.rivals.networks import TorchProblem, diffusion, post_drift, prior_drift
from benchmarks.rivals.problem import GAPS, HIGH, LOW, STEP, Problem
from benchmarks.rivals.step import Answer, Way
from neurodyn.solvers.torchsde_engine import GridBrownian


class Careful(nn.Module):
    """f, g, h with everything taken out of the loop that torchsde lets one take out. step: the solver's."""

    noise_type = "diagonal"

    def __init__(self, tensors: TorchProblem, sde_type: str, step: float = STEP) -> None:
        super().__init__()
        self.sde_type = sde_type
        self.weights = tensors.weights
        self.shifts: list[Tensor] = []
        self.gap = tensors.problem.per_gap * step

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return post_drift(self.weights, self.shifts[self.gap_at(t)], y)

    def h(self, t: Tensor, y: Tensor) -> Tensor:
        return prior_drift(self.weights, y)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return diffusion(self.weights, y)

    def gap_at(self, t: Tensor) -> int:
        return min(int(float(t) / self.gap + 1e-4), GAPS - 1)


class AsInExample(Careful):
    """The same functions in the form of torchsde's example."""

    contexts: Tensor
    visits: Tensor

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        w = self.weights
        gap = min(int(torch.searchsorted(self.visits, t, right=True)) - 1, GAPS - 1)
        inputs = torch.cat((y, self.contexts[gap]), 1)
        hidden = softplus(inputs @ torch.cat((w["post_state"], w["post_context"])) + w["post_bias"])
        return hidden @ w["post_out"] + w["post_out_bias"]

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        w, columns = self.weights, []
        for i, column in enumerate(y.split(1, 1)):
            hidden = softplus(column * w["noise_in"][i] + w["noise_bias"][i])
            columns.append(torch.sigmoid(hidden @ w["noise_out"][i].unsqueeze(-1) + w["noise_out_bias"][i]))
        return LOW + (HIGH - LOW) * torch.cat(columns, 1)


class TorchsdeStep:
    """One way of torchsde's.

    Args:
        problem: the problem.
        gradient: "backprop", "adjoint" (its default backward method, Milstein), "euler adjoint" or "reversible".
        example: written as in its example.
        step: length of the steps, as many as on the other sides.
    """

    def __init__(self, problem: Problem, gradient: str, example: bool = False, step: float = STEP) -> None:
        self.tensors = TorchProblem(problem)
        self.visits = torch.linspace(0, problem.sizes.steps * step, GAPS + 1).to(self.tensors.z0.dtype)
        self.gradient = gradient
        kind = AsInExample if example else Careful
        self.law: Any = kind(self.tensors, "stratonovich" if gradient == "reversible" else "ito", step)
        self.options: dict[str, Any] = {"dt": step, "method": "euler"}
        if gradient == "reversible":
            self.options |= {"method": "reversible_heun", "adjoint_method": "adjoint_reversible_heun"}
        elif gradient == "euler adjoint":
            self.options |= {"adjoint_method": "euler"}

    def train(self) -> None:
        self.tensors.clear()
        self._loss(None).backward()

    def sample(self) -> None:
        names = {"drift": "h", "diffusion": "g"}
        with torch.no_grad():
            torchsde.sdeint(self.law, self.tensors.z0, self.visits, dt=self.options["dt"], method="euler", names=names)

    def answer(self, increments: NDArray[np.floating]) -> Answer:
        self.tensors.clear()
        unit = torch.from_numpy(increments)
        # the KL is one more coordinate, whose noise has no effect; times are asked for in units of steps
        path = _InTime(torch.nn.functional.pad(unit, (0, 1)), self.tensors.z0)
        return self.tensors.answer(self._loss(path))

    def _loss(self, brownian: Any) -> Tensor:
        tensors, law = self.tensors, self.law
        if isinstance(law, AsInExample):
            law.contexts, law.visits = tensors.contexts, self.visits
            used = [tensors.contexts]
        else:
            law.shifts = used = tensors.shifts()
        options = dict(self.options)
        solve = torchsde.sdeint
        if self.gradient != "backprop":
            solve = torchsde.sdeint_adjoint
            direct = [
                value
                for name, value in tensors.weights.items()
                if isinstance(law, AsInExample) or name not in ("post_context", "post_bias")
            ]
            options["adjoint_params"] = (*direct, *used)
        states, path_kl = solve(law, tensors.z0, self.visits, bm=brownian, logqp=True, **options)
        return tensors.loss(states[1:], path_kl)


class _InTime(GridBrownian):
    """Increments on the grid, asked for by times instead of numbers of steps."""

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Tensor:  # noqa: N803
        return super().__call__(float(ta) / STEP, float(tb) / STEP, return_U, return_A)


WAYS = [
    Way("torchsde, backprop", lambda p: TorchsdeStep(p, "backprop"), samples=True, swept=True, exact=True),
    Way("torchsde, backprop, as in its example", lambda p: TorchsdeStep(p, "backprop", example=True), exact=True),
    Way("torchsde, backprop, steps of 1/100", lambda p: TorchsdeStep(p, "backprop", step=0.01), samples=True),
    Way("torchsde, adjoint", lambda p: TorchsdeStep(p, "adjoint"), swept=True),
    Way("torchsde, adjoint by Euler", lambda p: TorchsdeStep(p, "euler adjoint")),
    Way("torchsde, adjoint, as in its example", lambda p: TorchsdeStep(p, "adjoint", example=True)),
    Way("torchsde, adjoint, steps of 1/100", lambda p: TorchsdeStep(p, "adjoint", step=0.01)),
    Way("torchsde, reversible Heun", lambda p: TorchsdeStep(p, "reversible"), swept=True),
]
