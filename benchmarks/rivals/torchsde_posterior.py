"""A posterior as in torchsde's latent SDE example, solved by torchsde with its stochastic adjoint.

    dz = f([z, context(t)]) dt + g(z) dW,    z0 ~ N(mean, diag) from the first visit's context

After Li et al. (2020), arXiv 2001.01328. One call of the solver for the whole row; all rows share their times.
"""

from __future__ import annotations

from typing import Any

import torch
import torchsde
from torch import Tensor, nn

from neurodyn.nets.context import Context
from neurodyn.nets.mlp import mlp
from neurodyn.noise import RowNoise
from neurodyn.posteriors.base import Posterior, PosteriorPaths
from neurodyn.sde.prior import Prior


class TorchsdePosterior(Posterior):
    """Li et al.'s posterior for diagonal noise.

    Args:
        latent_size: d. context_size: of the encoder's features. step: of the solver, in units of time.
        gradient: "adjoint" or "backprop".
    """

    def __init__(
        self, latent_size: int, context_size: int, step: float, *, hidden_size: int = 100, gradient: str = "adjoint"
    ) -> None:
        super().__init__()
        self.latent_size, self.step, self.gradient = latent_size, step, gradient
        self.start_net = nn.Linear(context_size, 2 * latent_size)
        self.drift_net = mlp([latent_size + context_size, hidden_size, latent_size])

    def forward(self, context: Context, prior: Prior, noise: RowNoise, num_samples: int = 1) -> PosteriorPaths:
        """See `Posterior`; torchsde draws its own noise, from torch's global generator."""
        times = context.batch.times
        if bool((times != times[0]).any()):
            raise ValueError("context: rows with different times given, shared ones wanted: torchsde has no others")
        mean, log_sd = self.start_net(context.features[:, 0]).chunk(2, -1)
        eps = noise.samples("start", num_samples, self.latent_size, dtype=mean.dtype)
        z0 = (mean + log_sd.exp() * eps).flatten(0, 1)
        features = context.features.repeat(num_samples, 1, 1)
        law = _Law(self, prior, features, times[0].to(mean.dtype))
        options: dict[str, Any] = {"method": "euler", "dt": self.step, "logqp": True}
        solve = torchsde.sdeint
        if self.gradient == "adjoint" and torch.is_grad_enabled():
            solve = torchsde.sdeint_adjoint
            options["adjoint_params"] = (*self.drift_net.parameters(), *prior.sde.parameters(), features)
        states, paid = solve(law, z0, law.times, **options)
        z = states.movedim(0, 1).unflatten(0, (num_samples, -1))
        path_kl = paid.sum(0).unflatten(0, (num_samples, -1)).mean(0)
        return PosteriorPaths(z, path_kl, prior.initial.kl_from(mean, torch.diag_embed(log_sd.exp())))


class _Law:
    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, posterior: TorchsdePosterior, prior: Prior, features: Tensor, times: Tensor) -> None:
        self.posterior, self.prior, self.features, self.times = posterior, prior.sde, features, times

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        ahead = min(int(torch.searchsorted(self.times, t, right=True)), len(self.times) - 1)
        moved: Tensor = self.posterior.drift_net(torch.cat((y, self.features[:, ahead]), 1))
        return moved

    def h(self, t: Tensor, y: Tensor) -> Tensor:
        return self.prior.drift(t, y)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return self.prior.diffusion(t, y)
