"""`LatentSDE`: a prior law of motion, a posterior over its paths, a likelihood, and a start for forecasts."""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neurodyn.checkpoints import load_model, save_model
from neurodyn.forecast import Forecast, check_forecast_times
from neurodyn.likelihoods import Likelihood
from neurodyn.loss import Loss
from neurodyn.models.assembly import LatentSDEConfig, Parts, assemble
from neurodyn.models.hiding import ask_at, hide_visits
from neurodyn.models.home import at_home
from neurodyn.models.linear_sde import LinearSDE
from neurodyn.noise import RowNoise
from neurodyn.posteriors.base import PathDetail, Posterior, check_context_size, check_paths
from neurodyn.posteriors.start import Start
from neurodyn.sde.linear_gaussian import TrendOU
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
        hide_visits: largest share of a row's visits that the posterior's encoder is not shown in training, though they
            are explained all the same: it then learns to interpolate.

    `loss` and `forecast` depend on what is observed and on the rows' ids, not on padding, row order or batch splits
    (with gradient="adjoint" the loss depends on order and splits: torchsde has one Brownian path for the batch).
    Batches may be on any device and of any dtype: the model takes them to its own. Losses stay there, forecasts come
    back to the history's device. Both have the dtype of the networks' parameters, float32 unless the model was moved
    to another; a linear core computes in float64 inside, whatever the networks do.

    Raises:
        ValueError: encoder and posterior state a different `context_size`.
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
        hide_visits: float = 0.0,
    ) -> None:
        super().__init__()
        check_context_size(encoder, posterior, getattr(posterior, "context_size", None))
        self.prior, self.encoder, self.posterior = prior, encoder, posterior
        self.likelihood, self.start = likelihood, start
        self.num_samples, self.longest_step, self.hide_visits = num_samples, longest_step, hide_visits
        self.config: dict[str, Any] | None = None  # known for models made from names

    @classmethod
    def build(cls, **config: Any) -> LatentSDE:
        """A model from named parts, see `LatentSDEConfig`; such a model can be saved.

        Raises:
            ValueError: a setting that does not exist (naming the nearest), or choices that do not go together.
        """
        settings = LatentSDEConfig.of(**config)
        return cls._of(settings, assemble(settings))

    @classmethod
    def on(cls, linear: LinearSDE, **config: Any) -> LatentSDE:
        """A model around a fitted `LinearSDE`: its linear part, a bounded neural residual, exact smoother and filter.

        A fresh one has the linear model's evidence and forecasts; training goes on from there. The core is copied.

        Args:
            linear: fitted, with its own `TrendOU` core.
            config: other settings of `LatentSDEConfig`; the posterior is "smoother" if not given.

        Raises:
            ValueError: another kind of core, a setting that does not exist or that is the linear model's own.
        """
        core = copy.deepcopy(linear.core)
        if not isinstance(core, TrendOU):
            raise ValueError(f"linear: one with a core of type {type(core).__name__} given, a TrendOU core wanted")
        named = {"components": list(core.components), "joint": core.joint}
        own = {"num_variables": linear.num_variables, "core": named}
        for name in own:
            if name in config:
                raise ValueError(f"{name}: {config[name]!r} given, but it is the linear model's; leave it out")
        settings = LatentSDEConfig.of(**{"posterior": "smoother"} | own | config)
        return cls._of(settings, assemble(settings, core))

    @classmethod
    def _of(cls, settings: LatentSDEConfig, parts: Parts) -> LatentSDE:
        own = {name: getattr(settings, name) for name in ("num_samples", "longest_step", "hide_visits")}
        model = cls(*parts, **own)
        model.config = asdict(settings)
        return model

    def save(self, path: Path | str) -> Path:
        """Write a folder of weights (safetensors) and configuration (JSON); for models from `build` or `on`."""
        return save_model(self, path)

    @classmethod
    def load(cls, path: Path | str) -> LatentSDE:
        """Read what `save` wrote. Nothing in the folder is executed. Raises as `load_model`."""
        return load_model(cls, path)

    def loss(self, batch: SeriesBatch, *, generator: torch.Generator | None = None) -> Loss:
        """Parts of the negative ELBO, (B,) each, nats per series; the filter loss trains the start alone."""
        batch = at_home(batch, self.encoder).compact()
        noise = RowNoise.of(batch, generator)
        hidden = self.training and self.hide_visits > 0
        context = self.encoder(hide_visits(batch, noise, self.hide_visits) if hidden else batch)
        # Mixed precision ends here: path KLs and covariances need the digits.
        with torch.autocast(context.features.device.type, enabled=False):
            whole = {"features": context.features.to(batch.dtype), "summary": context.summary.to(batch.dtype)}
            context = context._replace(**whole)
            paths = self.posterior(context, self.prior, noise, self.num_samples)
            check_paths(self.posterior, paths, batch)
            log_prob = self.likelihood.log_prob(batch.values, paths.z, batch.mask).sum(-1).mean(0)
            start = self.start.loss(batch, paths.z, noise)
        parts = (log_prob, paths.initial_kl, paths.path_kl, start)
        return Loss(*(part.to(batch.dtype) for part in parts))

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
        asked_from, history = history.device, at_home(history, self.encoder)
        noise = RowNoise.of(history, generator)
        times = check_forecast_times(history, times)
        samples = self.sample_forecast(history.compact(), times, num_samples, noise)
        return Forecast.of(history, times, samples).to(asked_from)

    @torch.no_grad()
    def sample_forecast(
        self, history: SeriesBatch, times: Tensor, num_samples: int, noise: RowNoise, *, num_steps: int | None = None
    ) -> Tensor:
        """The samples (S, B, H, D) of `forecast`, of a compact history on the model's device, at checked times (B, H).

        Args:
            num_steps: as in `rollout`, for exported programs.
        """
        latent = self._rolled_out(history, times, num_samples, noise, num_steps)
        return self.likelihood.sample(latent.to(history.dtype), noise)

    @torch.no_grad()
    def forecast_mean(
        self, history: SeriesBatch, times: Tensor, num_samples: int = 200, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The mean of the values over the same latent paths as `forecast`'s, (B, H, D), without drawing their noise.

        Cheaper and, for the same number of samples, closer to the exact mean than that of the samples. It may hold
        numbers that are not finite, if a path explodes.
        """
        asked_from, history = history.device, at_home(history, self.encoder)
        noise = RowNoise.of(history, generator)
        times = check_forecast_times(history, times)
        latent = self._rolled_out(history.compact(), times, num_samples, noise)
        return self.likelihood.mean(latent.to(history.dtype)).mean(0).to(asked_from)

    @torch.no_grad()
    def interpolate(
        self, batch: SeriesBatch, times: Tensor, num_samples: int = 100, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """What the values are at `times`, given the whole row: likelihood means (S, B, H, D) at posterior latents.

        Their mean over S is the interpolation, their spread how unsure the latent is; noise of the values is not drawn.

        Args:
            batch: B rows without covariates.
            times: (B, H) or (H,), in any order, inside the rows' spans as a rule.

        Raises:
            ValueError: times that are not finite or of another shape, covariates.
        """
        asked_from, batch = batch.device, at_home(batch, self.encoder).compact()
        noise = RowNoise.of(batch, generator)
        asked, places = ask_at(batch, times)
        latent = self.posterior(self.encoder(asked), self.prior, noise, num_samples).z
        latent = latent.gather(2, places[None, ..., None].expand(num_samples, -1, -1, latent.shape[-1]))
        return self.likelihood.mean(latent.to(batch.dtype)).to(asked_from)

    def _rolled_out(
        self, history: SeriesBatch, times: Tensor, num_samples: int, noise: RowNoise, num_steps: int | None = None
    ) -> Tensor:
        """Latents (S, B, H, d) of a forecast."""
        mean, root = self.start.at_end(history)
        draws = noise.samples("start", num_samples, mean.shape[-1], dtype=mean.dtype)
        z = mean + (root @ draws[..., None])[..., 0]
        law, begin = self.prior.sde, history.last_time
        return rollout(law, z, begin, times, noise, self.longest_step, num_steps=num_steps)

    @torch.no_grad()
    def detail(
        self, batch: SeriesBatch, *, generator: torch.Generator | None = None, num_times: int = 64
    ) -> PathDetail:
        """Posterior paths and control on a grid of times, for diagnostics."""
        batch = at_home(batch, self.encoder).compact()
        noise = RowNoise.of(batch, generator)
        return self.posterior.detail(self.encoder(batch), self.prior, noise, num_times)
