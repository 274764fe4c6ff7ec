"""`LangevinFlow`: latents of a neural population that move by an underdamped law, read out as firing rates.

    spikes in bins -> encoder -> posterior of (q, v) under dq = v dt, dv = a(q, v) dt + g dW -> rates -> counts

After Song, Keller, Yue, Perona and Welling (2025), "Langevin Flows for Modeling Neural Latent Dynamics", arXiv
2507.11531, with a loss that is a true evidence bound: the posterior has a drift of its own and pays for it. It is
"simulation_free" (`UnderdampedPosterior`) or "simulated" (`SimulatedPosterior`, in symplectic Euler steps). The paper's
released recurrences are in `neurodyn.models.released_flow`.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from neurodyn.checkpoints import load_model, save_model
from neurodyn.forecast import Forecast, check_forecast_times
from neurodyn.likelihoods import make_likelihood
from neurodyn.loss import Loss
from neurodyn.models.langevin_parts import TEMPERATURE, LangevinFlowConfig, make_law
from neurodyn.models.population import PopulationModel, Reading, one_length
from neurodyn.models.refinement import refined
from neurodyn.nets.binned import BinnedEncoder
from neurodyn.nets.context import Context
from neurodyn.nets.readout import Readout
from neurodyn.noise import RowNoise
from neurodyn.posteriors.base import PathDetail, PosteriorPaths
from neurodyn.posteriors.simulated import SimulatedPosterior
from neurodyn.posteriors.underdamped import UnderdampedPosterior
from neurodyn.sde.base import SDE
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.langevin import UnderdampedLangevin
from neurodyn.sde.prior import Prior
from neurodyn.sde.second_order import SecondOrderLaw, SymplecticSteps
from neurodyn.series import SeriesBatch
from neurodyn.solvers.rollout import rollout

BIN_TIME = 0.1
"""Latent time of one bin, so that rates of order one fit what happens over tens of bins."""
_REFINING_SAMPLES, _REFINING_RATE = 1, 0.03
_FORECAST_STEPS = 8
"""Per bin, of forecasts by a law that was priced in continuous time."""


class LangevinFlow(PopulationModel):
    """Posterior dynamics of a population: rates, latents, inferred inputs and forecasts from binned spikes.

    All bins up to a row's last observed one have latents. See `PopulationModel` for batches, `LangevinFlowConfig` for
    settings; make models with `build`.
    """

    settings: LangevinFlowConfig

    def __init__(self, config: LangevinFlowConfig) -> None:
        super().__init__(config)
        self.config = asdict(config)
        self.size, self.bin_width = config.latent_size, config.bin_width
        d, hidden = 2 * self.size, config.hidden_size
        self.prior = Prior(make_law(config.drift, self.size, hidden), GaussianInitial(d))
        self.encoder = BinnedEncoder(
            len(self.held_in), hidden, hidden, kind=config.encoder, stride=config.bins_per_knot
        )
        self.posterior: UnderdampedPosterior | SimulatedPosterior
        if config.mode == "simulation_free":
            self.posterior = UnderdampedPosterior(
                d,
                hidden,
                family=config.family,
                scale=config.scale,
                noise_scale=math.sqrt(2 * TEMPERATURE),
                hidden_size=hidden,
            )
        else:
            # a bin's counts say little, where a real value may pin a latent down
            coupling: Literal["full", "none"] = "full" if config.likelihood == "gaussian" else "none"
            self.posterior = SimulatedPosterior(
                d, self.size, hidden, longest_step=self._step, coupling=coupling, hidden_size=hidden
            )
        readout = Readout(config.readout, d, config.num_neurons, hidden)
        options: dict[str, Any] = {} if config.likelihood == "gaussian" else {"exposure": config.bin_width}
        self.likelihood = make_likelihood(config.likelihood, d, config.num_neurons, decoder=readout, **options)

    @classmethod
    def build(cls, train: SeriesBatch | None = None, **config: Any) -> LangevinFlow:
        """A model from `LangevinFlowConfig`; with training trials, its read-out starts at every neuron's mean rate.

        Raises:
            ValueError: a setting that does not exist (naming the nearest), choices that do not go together, counts that
                the likelihood cannot have produced.
        """
        if train is not None:
            config = {"num_neurons": train.num_variables} | config
        model = cls(LangevinFlowConfig.of(**config))
        if train is not None:
            if model.settings.readout == "transformer":
                one_length(train, "readout 'transformer'")
            model.start_at(train)
        return model

    def save(self, path: Path | str) -> Path:
        """Write a folder of weights (safetensors) and configuration (JSON)."""
        return save_model(self, path)

    @classmethod
    def load(cls, path: Path | str) -> LangevinFlow:
        """Read what `save` wrote. Nothing in the folder is executed. Raises as `load_model`."""
        return load_model(cls, path)

    @torch.no_grad()
    def begin_from(self, other: LangevinFlow) -> LangevinFlow:
        """Take the law of motion, the encoder and the read-out of a fitted model, for instance of the other mode.

        The posterior is this model's own, and the same as before.

        Raises:
            ValueError: a model with other sizes or parts.
        """
        for name in ("prior", "encoder", "likelihood"):
            try:
                getattr(self, name).load_state_dict(getattr(other, name).state_dict())
            except RuntimeError as error:
                raise ValueError(f"other: its {name} does not fit, one of the same settings but mode wanted") from error
        return self

    def loss(self, batch: SeriesBatch, *, generator: torch.Generator | None = None) -> Loss:
        """Parts of the negative ELBO, (B,) each, nats per trial; in training mode with coordinated dropout.

        Raises:
            ValueError: another number of neurons; trials of several lengths for a read-out over all bins.
        """
        batch = self.home(batch)
        noise = RowNoise.of(batch, generator)
        if self.settings.readout == "transformer":
            batch = one_length(batch, "readout 'transformer'")
        reading = self.read(batch, noise if self.training else None)
        paths = self._paths(batch, reading, noise, self.settings.num_samples)
        log_prob, path_kl = self.score(batch, paths.z, reading.scored), paths.path_kl.to(batch.dtype)
        return Loss(log_prob, paths.initial_kl.to(batch.dtype), path_kl, torch.zeros_like(path_kl))

    @torch.no_grad()
    def rates(self, batch: SeriesBatch, bins: int | None = None, num_samples: int = 32, *, seed: int = 0) -> Tensor:
        """See `PopulationModel`."""
        return self.likelihood.mean(self.latents(batch, bins, num_samples, seed=seed)).mean(0)

    @torch.no_grad()
    def latents(self, batch: SeriesBatch, bins: int | None = None, num_samples: int = 32, *, seed: int = 0) -> Tensor:
        """Posterior samples of (q, v), (S, B, bins, 2 n); arguments as in `rates`."""
        batch, bins = self.asked(batch, bins)
        reading = self.read(batch).longer(bins)
        features = self._refined(batch, reading)
        return self._paths(batch, reading, self._noise(batch, seed), num_samples, features).z

    @torch.no_grad()
    def inferred_inputs(self, batch: SeriesBatch, num_samples: int = 32, *, seed: int = 0) -> PathDetail:
        """Paths with their control: what pushes them beside the autonomous law, in units of its noise."""
        batch, bins = self.asked(batch)
        reading = self.read(batch).longer(bins)
        context = self._context(batch, reading, self._refined(batch, reading))
        return self.posterior.detail(context, self._priced, self._noise(batch, seed), bins, num_samples)

    @torch.no_grad()
    def forecast(
        self, history: SeriesBatch, times: Tensor, num_samples: int = 200, *, generator: torch.Generator | None = None
    ) -> Forecast:
        """Roll the autonomous law on from the posterior at the end of `history`: (S, B, H, N) samples of counts.

        Whole bins are rolled out whatever the times, and latents of a time between two bins lie on the line between
        theirs, so the law of what is forecast for a time does not depend on the others.

        Args:
            history: B rows. times: (B, H), starts of bins, in s, each row's not before its last observed bin and not
                decreasing.

        Raises:
            ValueError: times before the history; bins of another width; a model whose read-out is "transformer",
                which gives a bin's rates with all bins of a trial only (`rates` has later ones).
        """
        if self.settings.readout == "transformer":
            raise ValueError("readout: 'transformer' given, which reads whole trials; 'linear' or 'mlp' wanted here")
        asked_from, (history, _) = history.device, self.asked(history)
        times = check_forecast_times(history, times)
        noise, reading = RowNoise.of(history, generator), self.read(history)
        paths = self._paths(history, reading, noise, num_samples, self._refined(history, reading))
        z = _at(paths.z, reading.end[:, None])
        ahead = (times - history.last_time[:, None]) / self.bin_width
        before = (ahead + 1e-6).floor()
        later = torch.arange(1, int(before.max()) + 2, device=times.device)
        # a row stands still after the last bin that it needs
        later = torch.minimum(later, before.amax(1, keepdim=True) + 1)
        start = BIN_TIME * reading.end.double()
        moved = rollout(self._rolled, z[:, :, 0], start, start[:, None] + BIN_TIME * later, noise, self._step)
        path, share = torch.cat((z, moved), 2), (ahead - before).clamp(min=0).to(z)[..., None]
        latent = torch.lerp(_at(path, before.long()), _at(path, before.long() + 1), share)
        return Forecast.of(history, times, self.likelihood.sample(latent.to(history.dtype), noise)).to(asked_from)

    def _noise(self, batch: SeriesBatch, seed: int) -> RowNoise:
        return RowNoise.of(batch, torch.Generator().manual_seed(seed))

    def _refined(self, batch: SeriesBatch, reading: Reading) -> Tensor | None:
        """Features that are fitted to what is read of the rows; nothing where the encoder's are good enough."""
        if not self.settings.refinement:
            return None
        generator, readable = torch.Generator().manual_seed(0), self.readable(batch)

        def bound(features: Tensor) -> Tensor:
            paths = self._paths(batch, reading, RowNoise.of(batch, generator), _REFINING_SAMPLES, features)
            log_prob = self.score(batch, paths.z[:, :, : batch.num_times], [(1.0, readable)])
            return log_prob - (paths.path_kl + paths.initial_kl).to(log_prob)

        features = self.encoder(reading.counts, reading.seen, reading.end)
        return refined(features, bound, self.settings.refinement, _REFINING_RATE)

    def _paths(
        self,
        batch: SeriesBatch,
        reading: Reading,
        noise: RowNoise,
        num_samples: int,
        features: Tensor | None = None,
    ) -> PosteriorPaths:
        context = self._context(batch, reading, features)
        if isinstance(self.posterior, SimulatedPosterior):
            return self.posterior(context, self._priced, noise, num_samples)
        clock = _clock(reading.end, torch.arange(reading.counts.shape[1], device=batch.device))
        return self.posterior.along(self.posterior.curve(context), clock, self.prior, noise, num_samples)

    @property
    def _rolled(self) -> SDE:
        """The law as forecasts step it: symplectic, but for one whose Ornstein-Uhlenbeck part is known."""
        if self.settings.mode == "simulation_free" and isinstance(self.prior.sde, UnderdampedLangevin):
            return self.prior.sde
        return self._stepped

    @property
    def _priced(self) -> Prior:
        """The prior as the posterior prices it: in steps where paths are simulated."""
        if self.settings.mode == "simulation_free":
            return self.prior
        return Prior(self._stepped, self.prior.initial)

    @property
    def _stepped(self) -> SymplecticSteps:
        law = self.prior.sde
        assert isinstance(law, SecondOrderLaw)
        return SymplecticSteps(law, self._step)

    @property
    def _step(self) -> float:
        """Of simulated paths, in units of latent time."""
        per_bin = self.settings.steps_per_bin if self.settings.mode == "simulated" else _FORECAST_STEPS
        return BIN_TIME / per_bin

    def _context(self, batch: SeriesBatch, reading: Reading, features: Tensor | None = None) -> Context:
        """Features at the knots, or at all bins for a simulated posterior; the encoder's if none are given."""
        end = reading.end
        if features is None:
            features = self.encoder(reading.counts, reading.seen, end)
        stride = self.encoder.stride
        places = torch.arange(features.shape[1], device=end.device) * stride
        if isinstance(self.posterior, SimulatedPosterior):
            places = torch.arange(reading.counts.shape[1], device=end.device)
            before = places // stride
            share = (places - before * stride).to(features.dtype)[:, None] / stride
            features = torch.lerp(
                features[:, before], features[:, (before + 1).clamp(max=features.shape[1] - 1)], share
            )
        return Context(batch._with(times=_clock(end, places)), features, features[:, -1])


def _at(path: Tensor, bins: Tensor) -> Tensor:
    """(S, B, H, d) of a path (S, B, T, d) at bins (B, H)."""
    return path.gather(2, bins[None, :, :, None].expand(path.shape[0], -1, -1, path.shape[-1]))


def _clock(end: Tensor, places: Tensor) -> Tensor:
    """Latent times (B, len(places)) of bins; a row's time stands still after its last bin `end` (B,)."""
    return BIN_TIME * torch.minimum(places, end[:, None]).double()
