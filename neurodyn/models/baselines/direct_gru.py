"""A direct forecaster: a GRU reads the history, an MLP maps it and a horizon to a Student-t per variable."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

from neurodyn.checkpoints import load_model, save_model
from neurodyn.forecast import Forecast, check_forecast_times
from neurodyn.models.baselines.pairs import LastSeen, last_seen
from neurodyn.models.baselines.validation import forecast_crps
from neurodyn.models.home import at_home
from neurodyn.nets.gru_d import GRUD
from neurodyn.nets.gru_decay import GRUDecayEncoder
from neurodyn.nets.mlp import mlp
from neurodyn.noise import RowNoise
from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig, FitResult, Loss, fit

EncoderName = Literal["gru_decay", "gru_d"]


class Predicted(NamedTuple):
    """Student-t per variable: location (..., D), scale (..., D) > 0, degrees of freedom (D,) > 2."""

    location: Tensor
    scale: Tensor
    df: Tensor

    def log_prob(self, values: Tensor) -> Tensor:
        """Log-density of each value (..., D), nats."""
        df = self.df
        constant = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * (df * math.pi).log()
        return (
            constant - self.scale.log() - (df + 1) / 2 * (((values - self.location) / self.scale).square() / df).log1p()
        )


class DirectNetwork(nn.Module):
    """One network of a `DirectGRU`, which explains the sizes."""

    def __init__(
        self, num_variables: int, context_size: int, hidden_size: int, dropout: float, encoder: EncoderName
    ) -> None:
        super().__init__()
        self.encoder: GRUD | GRUDecayEncoder
        if encoder == "gru_d":
            self.encoder = GRUD(num_variables, hidden_size)
        else:
            self.encoder = GRUDecayEncoder(num_variables, context_size, hidden_size, direction="forward")
        self.dropout = nn.Dropout(dropout)
        sizes = [self.encoder.context_size + 3 * num_variables + 3, hidden_size, hidden_size, 3 * num_variables]
        self.decoder = mlp(sizes, zero_last=True)
        self.raw_df = nn.Parameter(torch.full((num_variables,), 1.5))

    def forward(self, state: Tensor, last: Tensor, seen: Tensor, horizon: Tensor, age: Tensor) -> Predicted:
        """What follows a history, at `horizon` (...) after its last visit.

        Args:
            state: (..., C), the encoder's features at the history's last visit.
            last, seen, age: (..., D), last values, whether there are any, and the time since each of them.
        """
        h = horizon.to(state.dtype)[..., None]
        known = (state, last, seen.to(state.dtype), h, h.log1p(), torch.exp(-h), age.to(state.dtype).log1p())
        shift, gate, scale = self.decoder(self.dropout(torch.cat(known, -1))).chunk(3, -1)
        # at the start of training: last values that lose a little, with the spread of standardised values
        location = last * torch.sigmoid(gate + 1.0) + shift
        return Predicted(
            location, nn.functional.softplus(scale - 0.5) + 1e-3, 2.0 + nn.functional.softplus(self.raw_df)
        )


class DirectGRU(nn.Module):
    """An ensemble of networks that go from a history straight to each later visit, with no dynamics in between.

    A forward GRU with decay reads the history; an MLP on its state, the last values and the horizon gives a Student-t
    per variable. Trained by log-likelihood on all visits after random cuts of each series; forecasts mix the networks
    equally. Draws at different times of a row are independent, and so are the variables, given the history.

    Args:
        num_variables: D.
        context_size, hidden_size: of the GRU's output, of its state and the MLP's layers.
        dropout: rate on the MLP's input.
        num_networks: how many to mix, started from different weights and trained on different cuts.
        num_cuts: cuts per series and training step.
        encoder: "gru_decay", the forward GRU with decay (`GRUDecayEncoder`), or "gru_d" (`GRUD`; it has no
            context_size): with a single network, the GRU-D of Che et al. (2018) as a forecaster.

    Expects standardised values and times (`Scaling`). `loss` and `forecast` depend on observed entries and ids only,
    but for dropout in training, which is drawn by place.
    After `fit`, `result` tells how it went.
    """

    schedule: ClassVar[dict[str, Any]] = {
        "steps": 250,
        "batch_size": 256,
        "learning_rate": 3e-3,
        "clip_norm": 50.0,
        "validate_every": 10,
        "patience": 6,
    }
    """Settings of `FitConfig` for a few hundred short series."""
    result: FitResult | None = None

    def __init__(
        self,
        num_variables: int,
        context_size: int = 32,
        hidden_size: int = 64,
        dropout: float = 0.2,
        num_networks: int = 3,
        num_cuts: int = 2,
        encoder: EncoderName = "gru_decay",
    ) -> None:
        if encoder not in get_args(EncoderName):
            raise ValueError(f"encoder: {encoder!r} given, one of {', '.join(get_args(EncoderName))} wanted")
        if num_networks < 1 or num_cuts < 1:
            raise ValueError(f"num_networks, num_cuts: {num_networks}, {num_cuts} given, 1 or more wanted")
        super().__init__()
        self.config = {
            "num_variables": num_variables,
            "context_size": context_size,
            "hidden_size": hidden_size,
            "dropout": dropout,
            "num_networks": num_networks,
            "num_cuts": num_cuts,
            "encoder": encoder,
        }
        self.num_cuts = num_cuts
        self.networks = nn.ModuleList(
            DirectNetwork(num_variables, context_size, hidden_size, dropout, encoder) for _ in range(num_networks)
        )

    def _log_prob(
        self, network: nn.Module, batch: SeriesBatch, features: Tensor, known: LastSeen, cut: Tensor
    ) -> Tensor:
        """Log-density (B, T, D) of each value after the visit `cut` (B,) given what was known there, 0 elsewhere."""
        rows = torch.arange(batch.num_rows, device=batch.device)
        horizon = batch.times - batch.times[rows, cut][:, None]
        age = batch.times[..., None] - known.time[rows, cut][:, None]
        wide = (-1, batch.num_times, -1)
        state, last, seen = (part[rows, cut][:, None].expand(wide) for part in (features, known.value, known.seen))
        predicted = network(state, last, seen, horizon.clamp(min=0), age.clamp(min=0))
        later = batch.mask & (horizon > 0)[..., None]
        return torch.where(later, predicted.log_prob(batch.values), 0.0)

    def loss(self, batch: SeriesBatch, *, generator: torch.Generator | None = None) -> Loss:
        """Log-likelihood of all values after a cut, (B,), nats, averaged over networks and random cuts.

        It is 0 for a row with a single visit, which nothing follows.
        """
        batch = at_home(batch, self).compact()
        noise = RowNoise.of(batch, generator)
        last_cut = (batch.present.sum(1) - 1).clamp(min=1)[:, None, None]
        draws = noise.uniform("cut", len(self.networks), self.num_cuts)
        cuts = (draws * last_cut).long()
        known = last_seen(batch)
        parts = []
        for n, network in enumerate(self.networks):
            features = network.encoder(batch).features  # type: ignore[operator]
            parts += [self._log_prob(network, batch, features, known, cut) for cut in cuts[:, n].unbind(1)]
        total = torch.stack(parts).mean(0).sum((1, 2))
        zero = torch.zeros_like(total)
        return Loss(total, zero, zero, zero)

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
            config: left out, `schedule`, made for a few hundred short series. Without validation rows nothing stops
                these networks from learning the rows by heart: give fewer steps then.
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
        """Sample values at `times`, (B, H) or (H,), not before a row's last observed visit: the networks take turns."""
        asked_from, history = history.device, at_home(history, self)
        times = check_forecast_times(history, times)
        noise = RowNoise.of(history, generator)
        history = history.compact()
        rows = torch.arange(history.num_rows, device=history.device)
        end = history.present.sum(1) - 1
        last, when, seen = (part[rows, end][:, None] for part in last_seen(history))
        horizon = times - history.last_time[:, None]
        wide = (-1, times.shape[1], -1)
        predictions = []
        for network in self.networks:
            state = network.encoder(history).features[rows, end][:, None]  # type: ignore[operator]
            parts = (part.expand(wide) for part in (state, last, seen))
            predictions.append(network(*parts, horizon, times[..., None] - when))
        turn = torch.arange(num_samples, device=history.device) % len(predictions)
        location, scale, df = (torch.stack(part)[turn] for part in zip(*predictions, strict=True))
        # Bailey (1994), "Polar generation of random variates with the t-distribution": exact for any df
        shape, df = location.shape[2:], df[:, None, None]
        radius, angle = (
            noise.uniform(purpose, num_samples, *shape, dtype=torch.float64).transpose(0, 1)
            for purpose in ("radius", "angle")
        )
        draw = (df * torch.expm1(-2 / df * radius.log())).sqrt() * torch.cos(2 * math.pi * angle)
        return Forecast.of(history, times, location + scale * draw.to(location.dtype)).to(asked_from)

    def save(self, path: Path | str) -> Path:
        """Write a folder with the weights and the sizes; returns it."""
        return save_model(self, path)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """What `save` wrote."""
        return load_model(cls, path)
