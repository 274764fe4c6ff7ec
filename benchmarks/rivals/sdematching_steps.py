"""The step by the PyPI package `sdematching`: its own objective, given our prior and a map from time to marginals.

Its objective takes one time and one observation per series, and a diffusion as a matrix. The map that it asks for is
left to the user; this one interpolates the contexts linearly and puts a network of one hidden layer on top, which is
less than its own transformer does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from SDEmatching import SDEproblem
from SDEmatching.ConditionalDistributions.Flows import AffineFlow
from SDEmatching.core.Diffusions import Diffusion
from SDEmatching.distributions.Prior import GaussianPrior
from torch import Tensor, nn

from benchmarks.rivals.networks import TorchProblem, diffusion, prior_drift
from benchmarks.rivals.problem import CONTEXT, GAPS, HIDDEN, Problem
from benchmarks.rivals.step import Answer, Unavailable, Way


class _Drift(nn.Module):
    def __init__(self, tensors: TorchProblem) -> None:
        super().__init__()
        self.tensors = tensors

    def forward(self, state: Tensor, t: Tensor) -> Tensor:
        return prior_drift(self.tensors.weights, state)


class _Diffusion(Diffusion):  # type: ignore[misc]
    def __init__(self, tensors: TorchProblem) -> None:
        super().__init__()
        self.tensors, self.diffusiontype = tensors, "matrix"

    def forward(self, state: Tensor, t: Tensor) -> Tensor:
        return torch.diag_embed(diffusion(self.tensors.weights, state))


class _Map(nn.Module):
    """Contexts, interpolated in time, to the marginals' mean and log standard deviation."""

    def __init__(self, features: Tensor, end: float, latent: int) -> None:
        super().__init__()
        self.features, self.end = features, end
        self.net = nn.Sequential(nn.Linear(CONTEXT, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2 * latent))

    def forward(self, t: Tensor, data: Tensor, mask: Tensor) -> Tensor:
        place = (t / self.end).clamp(0, 1) * GAPS
        gap = place.detach().long().clamp(max=GAPS - 1)
        weight = (place - gap).unsqueeze(-1)
        rows = torch.arange(len(t))
        between = torch.lerp(self.features[rows, gap], self.features[rows, gap + 1], weight)
        found: Tensor = self.net(between)
        return found


class _Emission(nn.Module):
    def log_prob(self, sample: Tensor, state: Tensor) -> Tensor:
        return -0.5 * (sample - state).square().sum(-1)


class PackageStep:
    """One step of the package's `ELBO`."""

    def __init__(self, problem: Problem) -> None:
        torch.manual_seed(0)
        self.tensors = TorchProblem(problem)
        sizes, end = problem.sizes, float(problem.visits[-1])
        self.features = torch.randn(sizes.batch, GAPS + 1, CONTEXT, requires_grad=True)
        self.map = _Map(self.features, end, sizes.latent)
        options: dict[str, Any] = {"t_start": 0.0, "t_end": end, "device": "cpu"}
        self.problem = SDEproblem(
            _Drift(self.tensors),
            _Diffusion(self.tensors),
            GaussianPrior(torch.zeros(sizes.latent), torch.zeros(()), trainable=True),
            AffineFlow(sizes.latent),
            self.map,
            _Emission(),
            torch.distributions.Uniform(0.0, end),
            **options,
        )
        # rows of (time, values), as the package reads them; its mask is True where there is nothing
        times = torch.from_numpy(problem.visits).float().expand(sizes.batch, -1)
        self.data = torch.cat((times.unsqueeze(-1), torch.randn(sizes.batch, GAPS + 1, sizes.latent)), -1)
        self.mask = torch.zeros(sizes.batch, GAPS + 1, dtype=torch.bool)

    def train(self) -> None:
        self.tensors.clear()
        self.features.grad = None
        self.problem.zero_grad()
        parts = self.problem.ELBO(self.data, self.mask)
        sum(part.mean() for part in parts).backward()

    def sample(self) -> None:
        raise Unavailable("sdematching samples through torchsde, which is timed by itself")

    def answer(self, increments: NDArray[np.floating]) -> Answer:
        raise Unavailable("sdematching has no Brownian increments")


WAYS = [Way("sdematching, one time per series", PackageStep, swept=True)]
