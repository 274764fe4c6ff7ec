"""Latent ODE: a history is read backwards into a law of the first state, and each sample of it moves by one ODE."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from neurodyn.checkpoints import load_model, save_model
from neurodyn.forecast import Forecast, check_forecast_times
from neurodyn.likelihoods.real import GaussianLikelihood
from neurodyn.models.baselines.validation import forecast_crps
from neurodyn.models.hiding import hide_visits
from neurodyn.models.home import at_home
from neurodyn.nets.gru_decay import GRUDecayEncoder
from neurodyn.nets.mlp import mlp
from neurodyn.noise import RowNoise
from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig, FitResult, Loss, fit


class LatentODE(nn.Module):
    """Latent ODE after Rubanova, Chen and Duvenaud (2019), "Latent ODEs for irregularly-sampled time series".

    q(z0 | history) is Gaussian, read by a GRU that runs backwards over the history to the row's first visit; dz/dt is
    an MLP of z; values are an MLP of z plus Gaussian noise of one learned size per variable; p(z0) is standard normal.
    As in their extrapolation task, the encoder sees the visits up to a cut (here a random one) and all visits are
    decoded; with `hide_visits`, as in their interpolation task, it sees all but a random share of the visits. Unlike
    theirs, the encoder's state decays between visits instead of following a second ODE.

    Args:
        num_variables: D.
        latent_size: d.
        context_size, hidden_size: of the encoder's output; of its state and of the MLPs' layers.
        step: of the fourth-order Runge-Kutta solver (torchdiffeq), in (scaled) time.
        hide_visits: largest share of a row's visits hidden from the encoder in training; 0 trains for forecasts.

    Expects standardised values and times (`Scaling`). `loss` and `forecast` depend on observed entries and ids only.
    After `fit`, `result` tells how it went.
    """

    schedule: ClassVar[dict[str, Any]] = {
        "steps": 500,
        "batch_size": 256,
        "learning_rate": 5e-3,
        "validate_every": 20,
        "patience": 8,
        "kl_warmup_steps": 100,
    }
    """Settings of `FitConfig` for a few hundred short series."""
    result: FitResult | None = None

    def __init__(
        self,
        num_variables: int,
        latent_size: int = 8,
        context_size: int = 32,
        hidden_size: int = 64,
        step: float = 0.2,
        hide_visits: float = 0.0,
    ) -> None:
        super().__init__()
        self.config = {
            "num_variables": num_variables,
            "latent_size": latent_size,
            "context_size": context_size,
            "hidden_size": hidden_size,
            "step": step,
            "hide_visits": hide_visits,
        }
        self.latent_size, self.step, self.hide_visits = latent_size, step, hide_visits
        self.encoder = GRUDecayEncoder(num_variables, context_size, hidden_size, direction="backward")
        self.head = nn.Linear(context_size, 2 * latent_size)
        self.drift = mlp([latent_size, hidden_size, hidden_size, latent_size], activation="tanh", zero_last=True)
        self.likelihood = GaussianLikelihood("mlp", num_variables, latent_size=latent_size, hidden_size=hidden_size)

    def first_state(self, history: SeriesBatch) -> tuple[Tensor, Tensor]:
        """Mean and sd, (B, d) each, of q(z0 | history) at the row's first observed visit."""
        mean, spread = self.head(self.encoder(history).summary).chunk(2, -1)
        return mean, nn.functional.softplus(spread) + 1e-3

    def trajectory(self, z0: Tensor, elapsed: Tensor) -> Tensor:
        """States (..., B, T, d) at times (B, T) >= 0 after the first visit, from z0 (..., B, d).

        All rows are solved on one grid of whole steps, and read off at their own times by cubic Hermite interpolation,
        whose error is of the solver's order. So neither the number of visits nor the other rows of a batch matter.
        """
        import torchdiffeq  # here, as in `neurodyn.solvers.ode`: it is slow to import

        step = self.step
        count = int(torch.ceil(elapsed.max() / step).clamp(min=1))
        grid = step * torch.arange(count + 1, dtype=elapsed.dtype, device=elapsed.device)
        states = torchdiffeq.odeint(lambda t, z: self.drift(z), z0, grid.to(z0.dtype), method="rk4").movedim(0, -2)
        slopes = self.drift(states) * step
        index = (elapsed / step).long().clamp(max=count - 1)
        s = (elapsed / step - index)[..., None].to(z0.dtype)

        def at(table: Tensor, where: Tensor) -> Tensor:
            wide = where[..., None].expand(*states.shape[:-2], -1, states.shape[-1])
            return table.gather(-2, wide)

        left, right = at(states, index), at(states, index + 1)
        # the Hermite polynomial, as a step from the left in the difference and the two slopes
        rise = s * s * (3 - 2 * s) * (right - left)
        return left + rise + s * (1 - s) * ((1 - s) * at(slopes, index) - s * at(slopes, index + 1))

    def loss(self, batch: SeriesBatch, *, generator: torch.Generator | None = None) -> Loss:
        """Parts of the negative ELBO of all visits given a history up to a random cut, (B,) each, nats per series."""
        batch = at_home(batch, self).compact()
        noise = RowNoise.of(batch, generator)
        if self.hide_visits:
            known = hide_visits(batch, noise, self.hide_visits) if self.training else batch
        else:
            # a cut after any visit, the last included: that is the plain reconstruction
            known = batch.history(count=(noise.uniform("cut") * batch.present.sum(1)).long() + 1)
        mean, sd = self.first_state(known)
        z0 = mean + sd * noise.normal("first state", self.latent_size, dtype=mean.dtype)
        latent = self.trajectory(z0, (batch.times - known.first_time[:, None]).clamp(min=0))
        log_prob = self.likelihood.log_prob(batch.values, latent, batch.mask).sum(-1)
        kl = (0.5 * (mean.square() + sd.square() - 1) - sd.log()).sum(-1)
        return Loss(log_prob, kl, torch.zeros_like(kl), torch.zeros_like(kl))

    def fit(
        self,
        train: SeriesBatch,
        validation: SeriesBatch | None = None,
        config: FitConfig | None = None,
        *,
        folder: Path | str | None = None,
    ) -> Self:
        """Train, and keep the weights that did best on the validation rows by `forecast_crps`.

        Args:
            config: left out, `schedule`, made for a few hundred short series.
            folder: for checkpoints, from which a killed run goes on.
        """
        validate = None if validation is None else forecast_crps
        config = config or FitConfig(**self.schedule)
        self.result = fit(self, train, validation, config, folder=folder, validate=validate)
        return self

    @torch.no_grad()
    def forecast(
        self, history: SeriesBatch, times: Tensor, num_samples: int = 200, *, generator: torch.Generator | None = None
    ) -> Forecast:
        """Sample trajectories from q(z0 | history) at `times`, (B, H) or (H,), not before a row's last visit."""
        asked_from, history = history.device, at_home(history, self)
        times = check_forecast_times(history, times)
        noise = RowNoise.of(history, generator)
        history = history.compact()
        mean, sd = self.first_state(history)
        z0 = mean + sd * noise.samples("first state", num_samples, self.latent_size, dtype=mean.dtype)
        latent = self.trajectory(z0, times - history.first_time[:, None])
        return Forecast.of(history, times, self.likelihood.sample(latent, noise)).to(asked_from)

    @torch.no_grad()
    def interpolate(
        self, batch: SeriesBatch, times: Tensor, num_samples: int = 100, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Means of the values (S, B, H, D) at `times` (B, H), not before a row's first visit, along draws of q(z0)."""
        asked_from, batch = batch.device, at_home(batch, self)
        noise = RowNoise.of(batch, generator)
        batch = batch.compact()
        mean, sd = self.first_state(batch)
        z0 = mean + sd * noise.samples("first state", num_samples, self.latent_size, dtype=mean.dtype)
        elapsed = torch.as_tensor(times).to(batch.times).expand(batch.num_rows, -1) - batch.first_time[:, None]
        return self.likelihood.mean(self.trajectory(z0, elapsed.clamp(min=0))).to(asked_from)

    def save(self, path: Path | str) -> Path:
        """Write a folder with the weights and the sizes; returns it."""
        return save_model(self, path)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """What `save` wrote."""
        return load_model(cls, path)
