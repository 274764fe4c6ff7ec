"""The step by SDE Matching, which simulates nothing: neurodyn's, with the encoder left out and included.

The same prior and the same visits as the simulated steps; the posterior is a curve through the visits, made from the
context at each. Encoder left out: the contexts are free numbers with gradients, as on the simulated sides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.rivals.problem import CONTEXT, GAPS, HIDDEN, HIGH, LOW, Problem
from benchmarks.rivals.step import Answer, Unavailable, Way
from neurodyn.nets.context import Context
from neurodyn.nets.encoders import make_encoder
from neurodyn.noise import RowNoise
from neurodyn.posteriors.matched import MatchedPosterior
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.neural import MLPSDE
from neurodyn.sde.prior import Prior
from neurodyn.series import SeriesBatch

VARIABLES = 3


class MatchedStep:
    """SDE Matching on the problem's prior and visits.

    Args:
        problem: for its sizes, weights, contexts and targets.
        num_times: at which the KL rate is evaluated per row. neurodyn's default is 16; the paper takes 1.
        encoder: "" for free contexts, else the encoder's name: it reads VARIABLES values at each visit.
        observations: visits of a row, GAPS + 1 if not given; only with an encoder.
        encoder_options: of `make_encoder`.
    """

    def __init__(
        self,
        problem: Problem,
        num_times: int = 16,
        encoder: str = "",
        observations: int = GAPS + 1,
        **encoder_options: Any,
    ) -> None:
        torch.manual_seed(0)
        sizes = problem.sizes
        bounds = (LOW, HIGH)
        law = MLPSDE(sizes.latent, HIDDEN, 1, diffusion_bounds=bounds)
        _fill(law, problem)
        self.prior = Prior(law, GaussianInitial(sizes.latent))
        self.posterior = MatchedPosterior(sizes.latent, CONTEXT, num_times=num_times, hidden_size=HIDDEN)
        times = torch.linspace(0, float(problem.visits[-1]), observations, dtype=torch.float64)
        values = torch.randn(sizes.batch, observations, VARIABLES)
        self.batch = SeriesBatch(
            times.expand(sizes.batch, -1).contiguous(), values, ids=tuple(str(k) for k in range(sizes.batch))
        )
        self.encoder: Any = None
        if encoder:
            self.encoder = make_encoder(encoder, VARIABLES, CONTEXT, hidden_size=HIDDEN, **encoder_options)
        self.features = torch.randn(sizes.batch, observations, CONTEXT, requires_grad=True)
        self.targets = torch.randn(sizes.batch, observations, sizes.latent)
        modules = [self.prior, self.posterior, *([self.encoder] if encoder else [])]
        self.leaves = [parameter for module in modules for parameter in module.parameters()] + [self.features]
        self.steps = 0

    def train(self) -> None:
        for leaf in self.leaves:
            leaf.grad = None
        self.steps += 1
        context = self._context()
        paths = self.posterior(context, self.prior, RowNoise(self.steps, self.batch.ids or ()))
        misfit = 0.5 * (paths.z[0] - self.targets).square().sum((1, 2))
        (misfit + paths.path_kl + paths.initial_kl).mean().backward()

    def encode(self) -> None:
        """The encoder's share of a step: forward and backward of it alone."""
        context = self._context()
        context.features.sum().backward()

    def sample(self) -> None:
        raise Unavailable("SDE Matching has no sampling of its own: the prior is simulated")

    def answer(self, increments: NDArray[np.floating]) -> Answer:
        raise Unavailable("SDE Matching has no Brownian increments")

    def _context(self) -> Context:
        if self.encoder is not None:
            context: Context = self.encoder(self.batch)
            return context
        return Context(self.batch, self.features, self.features[:, -1])


def _fill(law: MLPSDE, problem: Problem) -> None:
    """The problem's prior as the law's weights."""
    w = {name: torch.from_numpy(value) for name, value in problem.weights.items()}
    first, last = law.residual[0], law.residual[-1]
    with torch.no_grad():
        for parameter, value in (
            (first.weight, w["prior_state"].T),
            (first.bias, w["prior_bias"]),
            (last.weight, w["prior_out"].T),
            (last.bias, w["prior_out_bias"]),
            (law.net.weight_in, w["noise_in"]),
            (law.net.bias_in, w["noise_bias"]),
            (law.net.weight_out, w["noise_out"]),
            (law.net.bias_out, w["noise_out_bias"]),
        ):
            parameter.copy_(value)


WAYS = [
    Way("neurodyn, SDE Matching", MatchedStep, swept=True),
    Way("neurodyn, SDE Matching, one time per series", lambda p: MatchedStep(p, num_times=1), swept=True),
    Way("neurodyn, SDE Matching with GRU encoder", lambda p: MatchedStep(p, encoder="gru")),
    Way("neurodyn, SDE Matching with attention encoder", lambda p: MatchedStep(p, encoder="attention")),
    Way("neurodyn, SDE Matching with window encoder", lambda p: MatchedStep(p, encoder="window")),
]
