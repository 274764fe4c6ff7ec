"""`LatentSDE`: a prior law of motion, a posterior over its paths, a likelihood, and a start for forecasts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurodyn.forecast import Forecast, check_forecast_times
from neurodyn.likelihoods import Likelihood
from neurodyn.loss import Loss
from neurodyn.noise import RowNoise
from neurodyn.posteriors.base import PathDetail, Posterior
from neurodyn.posteriors.start import Start
from neurodyn.sde.prior import Prior
from neurodyn.series import SeriesBatch
from neurodyn.solvers.rollout import rollout


class LatentSDE(nn.Module):
    """Any prior, encoder, posterior, likelihood and start that fit together.

    Args:
        prior: law of motion and initial law, d latents.
        encoder: from a `SeriesBatch` to a `Context` for the posterior; it may look at the whole row.
        posterior: law of paths given the context.
        likelihood: of D variables given the latent.
        start: law of the latent at the end of a history, for forecasts.
        num_samples: posterior samples per row and step.
        longest_step: of prior rollouts, in units of time.

    `loss` and `forecast` depend on what is observed and on the rows' ids, not on padding, row order or batch splits.
    """

    def __init__(
        self,
        prior: Prior,
        encoder: nn.Module,
        posterior: Posterior,
        likelihood: Likelihood,
        start: Start,
        *,
        num_samples: int = 1,
        longest_step: float = 0.1,
    ) -> None:
        super().__init__()
        self.prior, self.encoder, self.posterior = prior, encoder, posterior
        self.likelihood, self.start = likelihood, start
        self.num_samples, self.longest_step = num_samples, longest_step

    def loss(self, batch: SeriesBatch, *, generator: torch.Generator | None = None) -> Loss:
        """Parts of the negative ELBO, (B,) each, nats per series; the filter loss trains the start alone."""
        noise = RowNoise.draw(batch.ids, batch.device, generator)
        batch = batch.compact()
        paths = self.posterior(self.encoder(batch), self.prior, noise, self.num_samples)
        log_prob = self.likelihood.log_prob(batch.values, paths.z, batch.mask).sum(-1).mean(0)
        return Loss(log_prob, paths.initial_kl, paths.path_kl, self.start.loss(batch, paths.z))

    @torch.no_grad()
    def forecast(
        self, history: SeriesBatch, times: Tensor, num_samples: int = 200, *, generator: torch.Generator | None = None
    ) -> Forecast:
        """Roll the prior forward from the start's law at the end of `history`: (S, B, H, D) samples of future values.

        Args:
            history: B rows. times: (B, H), each row's not before its last observed time and not decreasing.

        Raises:
            ValueError: times before the history.
        """
        times = check_forecast_times(history, times)
        noise = RowNoise.draw(history.ids, history.device, generator)
        mean, root = self.start.at_end(history.compact())
        draws = noise.samples("start", num_samples, mean.shape[-1], dtype=mean.dtype)
        z = mean + (root @ draws[..., None])[..., 0]
        latent = rollout(self.prior.sde, z, history.last_time, times, noise, self.longest_step)
        return Forecast.of(history, times, self.likelihood.sample(latent.to(history.dtype), noise))

    @torch.no_grad()
    def detail(self, batch: SeriesBatch, *, generator: torch.Generator | None = None, num_times: int = 64) -> PathDetail:
        """Posterior paths and control on a grid of times, for diagnostics."""
        noise = RowNoise.draw(batch.ids, batch.device, generator)
        return self.posterior.detail(self.encoder(batch.compact()), self.prior, noise, num_times)
