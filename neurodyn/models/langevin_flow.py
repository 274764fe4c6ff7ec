"""`LangevinFlow`: latents of a neural population that move by an underdamped law, read out as firing rates.

    spikes in bins -> encoder -> posterior of (q, v) under dq = v dt, dv = a(q, v) dt + g dW -> rates -> counts

After Song, Keller, Yue, Perona and Welling (2025), "Langevin Flows for Modeling Neural Latent Dynamics", arXiv
2507.11531, with a loss that is a true evidence bound: the posterior has a drift of its own and pays for it. It is
"simulation_free" (`UnderdampedPosterior`) or "simulated" (`SimulatedPosterior`, one symplectic Euler step per bin). The
paper's released recurrences are in `neurodyn.models.released_flow`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from neurodyn.checkpoints import load_model, save_model
from neurodyn.forecast import Forecast, check_forecast_times
from neurodyn.likelihoods import make_likelihood
from neurodyn.loss import Loss
from neurodyn.models.population import PopulationConfig, PopulationModel, Reading
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
from neurodyn.sde.potentials import make_potential
from neurodyn.sde.prior import Prior
from neurodyn.sde.second_order import SecondOrderLaw, SecondOrderMLP, SymplecticSteps
from neurodyn.series import SeriesBatch
from neurodyn.solvers.rollout import rollout
from neurodyn.spelling import check_options

BIN_TIME = 0.1
"""Latent time of one bin, so that rates of order one fit what happens over tens of bins."""
_STIFFNESS, _TEMPERATURE = 4.0, 4.0
_REFINING_SAMPLES, _REFINING_RATE = 1, 0.03


@dataclass
class LangevinFlowConfig(PopulationConfig):
    """The parts of a `LangevinFlow`, by name.

    Raises:
        ValueError: on construction, for choices that do not go together.
    """

    mode: Literal["simulation_free", "simulated"] = "simulation_free"
    """How the posterior is priced: by its marginals, or along simulated paths."""
    latent_size: int = 6
    """n, positions; the latent (q, v) has twice as many."""
    drift: Literal["mlp", "oscillators", "quadratic", "double_well", "potential", "convex"] = "mlp"
    """Any acceleration, or that of a potential with friction ("potential" is a network's)."""
    encoder: Literal["gru", "attention"] = "gru"
    """Recurrent, or parallel."""
    bins_per_knot: int = 2
    """One feature vector, and one spline knot, every so many bins."""
    readout: Literal["linear", "mlp", "transformer"] = "linear"
    """From (q, v) to log-rates: bin by bin, or one Transformer layer over all bins."""
    likelihood: Literal["poisson", "negative_binomial", "gaussian"] = "poisson"
    """Law of the counts; "gaussian" is for real values, such as calcium traces."""
    family: Literal["diagonal", "full"] = "diagonal"
    """Marginals of the simulation-free posterior."""
    num_samples: int = 2
    """Posterior samples per trial and step."""
    hidden_size: int = 64
    """Of all networks."""
    scale: float = 0.3
    """Standard deviation of the positions of a fresh simulation-free posterior."""
    refinement: int = 0
    """Steps that fit the posterior to the trials at hand when rates, latents or forecasts are asked for; 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_samples < 1:
            raise ValueError(f"num_samples: {self.num_samples} given, 1 or more wanted")
        if self.refinement < 0:
            raise ValueError(f"refinement: {self.refinement} given, 0 or more steps wanted")
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                raise ValueError(f"{name}: {getattr(self, name)!r} given, one of {', '.join(get_args(hint))} wanted")

    @classmethod
    def of(cls, **settings: Any) -> LangevinFlowConfig:
        """The same as the constructor, but a name that does not exist, or a missing one, is a one-line ValueError."""
        needed = ["num_neurons", "bin_width"]
        check_options("LangevinFlow", settings, [field.name for field in fields(cls)], needed=needed)
        return cls(**settings)


def make_law(drift: str, size: int, hidden_size: int) -> SecondOrderLaw:
    """The prior's law of motion by the name in `LangevinFlowConfig.drift`."""
    if drift == "mlp":
        noise = math.sqrt(2 * _TEMPERATURE)
        return SecondOrderMLP(size, hidden_size, stiffness=_STIFFNESS, friction=1.0, noise=noise)
    name = "mlp" if drift == "potential" else drift
    options: dict[str, Any] = {} if name == "double_well" else {"stiffness": _STIFFNESS}
    if name == "oscillators":
        options["groups"] = next(k for k in (4, 3, 2, 1) if size % k == 0)
    friction = torch.ones(size)
    return UnderdampedLangevin(make_potential(name, size, **options), friction=friction, temperature=_TEMPERATURE)


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
                noise_scale=math.sqrt(2 * _TEMPERATURE),
                hidden_size=hidden,
            )
        else:
            # a bin's counts say little, where a real value may pin a latent down
            coupling: Literal["full", "none"] = "full" if config.likelihood == "gaussian" else "none"
            self.posterior = SimulatedPosterior(
                d, self.size, hidden, longest_step=BIN_TIME, coupling=coupling, hidden_size=hidden
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
        """Parts of the negative ELBO, (B,) each, nats per trial; in training mode with coordinated dropout."""
        batch = self.home(batch)
        noise = RowNoise.of(batch, generator)
        reading = self.read(batch, noise if self.training else None)
        end = (batch.present * torch.arange(batch.num_times, device=batch.device)).amax(1)
        paths = self._paths(batch, reading, end, noise, self.settings.num_samples)
        log_prob, path_kl = self.score(batch, paths.z, reading.scored), paths.path_kl.to(batch.dtype)
        return Loss(log_prob, paths.initial_kl.to(batch.dtype), path_kl, torch.zeros_like(path_kl))

    @torch.no_grad()
    def rates(self, batch: SeriesBatch, bins: int | None = None, num_samples: int = 32, *, seed: int = 0) -> Tensor:
        """See `PopulationModel`."""
        return self.likelihood.mean(self.latents(batch, bins, num_samples, seed=seed)).mean(0)

    @torch.no_grad()
    def latents(self, batch: SeriesBatch, bins: int | None = None, num_samples: int = 32, *, seed: int = 0) -> Tensor:
        """Posterior samples of (q, v), (S, B, bins, 2 n); arguments as in `rates`."""
        batch, reading, end = self._whole(batch, bins)
        features = self._refined(batch, reading, end)
        return self._paths(batch, reading, end, self._noise(batch, seed), num_samples, features).z

    @torch.no_grad()
    def inferred_inputs(self, batch: SeriesBatch, num_samples: int = 32, *, seed: int = 0) -> PathDetail:
        """Paths with their control: what pushes them beside the autonomous law, in units of its noise."""
        batch, reading, end = self._whole(batch, None)
        context = self._context(batch, reading, end, self._refined(batch, reading, end))
        return self.posterior.detail(context, self._priced, self._noise(batch, seed), batch.num_times, num_samples)

    @torch.no_grad()
    def forecast(
        self, history: SeriesBatch, times: Tensor, num_samples: int = 200, *, generator: torch.Generator | None = None
    ) -> Forecast:
        """Roll the autonomous law on from the posterior at the end of `history`: (S, B, H, N) samples of counts.

        Args:
            history: B rows. times: (B, H), in s, each row's not before its last observed bin and not decreasing.

        Raises:
            ValueError: times before the history.
        """
        asked_from, history = history.device, self.home(history)
        times = check_forecast_times(history, times)
        noise = RowNoise.of(history, generator)
        last = (history.present * torch.arange(history.num_times, device=history.device)).amax(1)
        reading = self.read(history)
        paths = self._paths(history, reading, last, noise, num_samples, self._refined(history, reading, last))
        z = paths.z.gather(2, last[None, :, None, None].expand(num_samples, -1, 1, paths.z.shape[-1]))[:, :, 0]
        clock = (times - history.times[:, :1]) * (BIN_TIME / self.bin_width)
        start = BIN_TIME * last.double()
        latent = rollout(self._rolled, z, start, torch.maximum(clock, start[:, None]), noise, BIN_TIME)
        return Forecast.of(history, times, self.likelihood.sample(latent.to(history.dtype), noise)).to(asked_from)

    def _noise(self, batch: SeriesBatch, seed: int) -> RowNoise:
        return RowNoise.of(batch, torch.Generator().manual_seed(seed))

    def _whole(self, batch: SeriesBatch, bins: int | None) -> tuple[SeriesBatch, Reading, Tensor]:
        """A batch to infer, what is read of it, and the last bin of its rows: the same for all."""
        batch = self.home(batch)
        bins = batch.num_times if bins is None else bins
        if bins < batch.num_times:
            raise ValueError(f"bins: {bins} given, {batch.num_times} or more wanted, those of the batch")
        end = torch.full((batch.num_rows,), bins - 1, device=batch.device)
        return batch, self.read(batch).longer(bins), end

    def _refined(self, batch: SeriesBatch, reading: Reading, end: Tensor) -> Tensor | None:
        """Features that are fitted to what is read of the rows; nothing where the encoder's are good enough."""
        if not self.settings.refinement:
            return None
        generator, readable = torch.Generator().manual_seed(0), self.readable(batch)

        def bound(features: Tensor) -> Tensor:
            paths = self._paths(batch, reading, end, RowNoise.of(batch, generator), _REFINING_SAMPLES, features)
            log_prob = self.score(batch, paths.z[:, :, : batch.num_times], [(1.0, readable)])
            return log_prob - (paths.path_kl + paths.initial_kl).to(log_prob)

        return refined(self.encoder(reading.counts, reading.seen), bound, self.settings.refinement, _REFINING_RATE)

    def _paths(
        self,
        batch: SeriesBatch,
        reading: Reading,
        end: Tensor,
        noise: RowNoise,
        num_samples: int,
        features: Tensor | None = None,
    ) -> PosteriorPaths:
        context = self._context(batch, reading, end, features)
        if isinstance(self.posterior, SimulatedPosterior):
            return self.posterior(context, self._priced, noise, num_samples)
        clock = _clock(end, torch.arange(reading.counts.shape[1], device=end.device))
        return self.posterior.along(self.posterior.curve(context), clock, self.prior, noise, num_samples)

    @property
    def _rolled(self) -> SDE:
        """The law as forecasts step it: symplectic, but for one whose Ornstein-Uhlenbeck part is known."""
        if self.settings.mode == "simulation_free" and isinstance(self.prior.sde, UnderdampedLangevin):
            return self.prior.sde
        return self._stepped

    @property
    def _priced(self) -> Prior:
        """The prior as the posterior prices it: in steps of one bin where paths are simulated."""
        if self.settings.mode == "simulation_free":
            return self.prior
        return Prior(self._stepped, self.prior.initial)

    @property
    def _stepped(self) -> SymplecticSteps:
        law = self.prior.sde
        assert isinstance(law, SecondOrderLaw)
        return SymplecticSteps(law, BIN_TIME)

    def _context(self, batch: SeriesBatch, reading: Reading, end: Tensor, features: Tensor | None = None) -> Context:
        """Features at the knots, or at all bins for a simulated posterior; the encoder's if none are given."""
        if features is None:
            features = self.encoder(reading.counts, reading.seen)
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


def _clock(end: Tensor, places: Tensor) -> Tensor:
    """Latent times (B, len(places)) of bins; a row's time stands still after its last bin `end` (B,)."""
    return BIN_TIME * torch.minimum(places, end[:, None]).double()
