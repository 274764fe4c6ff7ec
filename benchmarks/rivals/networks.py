"""The problem's networks in torch, plain functions for any leading shape, and what the torch sides share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from benchmarks.rivals.problem import HIGH, LOW, Arrays, Problem
from benchmarks.rivals.step import Answer

Weights = dict[str, Tensor]


class TorchProblem:
    """A problem's arrays as tensors, those with gradients as leaves."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.weights = {name: _leaf(value) for name, value in problem.weights.items()}
        self.z0, self.contexts = _leaf(problem.inputs["z0"]), _leaf(problem.inputs["contexts"])
        self.targets = torch.from_numpy(problem.targets)
        self.visits = torch.from_numpy(problem.visits).to(self.z0.dtype)

    @property
    def leaves(self) -> dict[str, Tensor]:
        """Everything that gets a gradient."""
        return {**self.weights, "z0": self.z0, "contexts": self.contexts}

    def shifts(self) -> list[Tensor]:
        """What the context adds to the posterior drift's hidden layer, (B, 64) per gap: one product for all of them."""
        return list(self.stacked_shifts().unbind(0))

    def stacked_shifts(self) -> Tensor:
        """`shifts` in one tensor, (GAPS, B, 64)."""
        w = self.weights
        shifts = torch.addmm(w["post_bias"], self.contexts.flatten(0, 1), w["post_context"])
        return shifts.unflatten(0, self.contexts.shape[:2])

    def loss(self, states: Tensor, path_kl: Tensor) -> Tensor:
        """From states at the ends of the gaps (GAPS, B, d) and the KL (...) of each row, gaps in any axis."""
        misfit = 0.5 * (states - self.targets).square().sum()
        return (misfit + path_kl.sum()) / self.z0.shape[0]

    def clear(self) -> None:
        """Forget gradients, as before a training step."""
        for leaf in self.leaves.values():
            leaf.grad = None

    def answer(self, loss: Tensor) -> Answer:
        """The loss and the gradients that it has left."""
        loss.backward()
        gradients: Arrays = {}
        for name, leaf in self.leaves.items():
            assert leaf.grad is not None, name
            gradients[name] = leaf.grad.numpy()
        return Answer(loss.item(), gradients)


def post_drift(w: Weights, shift: Tensor, z: Tensor) -> Tensor:
    """f([z, context]) with the context's share of the hidden layer given, (..., d)."""
    hidden = softplus(torch.addmm(shift, z, w["post_state"]) if z.ndim == 2 else shift + z @ w["post_state"])
    return _linear(hidden, w["post_out"], w["post_out_bias"])


def prior_drift(w: Weights, z: Tensor) -> Tensor:
    """h(z), (..., d)."""
    hidden = softplus(_linear(z, w["prior_state"], w["prior_bias"]))
    return _linear(hidden, w["prior_out"], w["prior_out_bias"])


def diffusion(w: Weights, z: Tensor) -> Tensor:
    """g(z), every coordinate by its own network, all at once, (..., d)."""
    hidden = softplus(torch.addcmul(w["noise_bias"], z.unsqueeze(-1), w["noise_in"]))
    return LOW + (HIGH - LOW) * torch.sigmoid((hidden * w["noise_out"]).sum(-1) + w["noise_out_bias"])


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, x, weight) if x.ndim == 2 else x @ weight + bias


def _leaf(value: object) -> Tensor:
    return torch.tensor(value, requires_grad=True)
