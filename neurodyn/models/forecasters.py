"""Every forecaster by name: what a comparison fits, in one place for the recipe and the benchmarks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from neurodyn.checkpoints import read_json, write_json
from neurodyn.forecast import Forecast
from neurodyn.models.baselines.direct_gru import DirectGRU
from neurodyn.models.baselines.latent_ode import LatentODE
from neurodyn.models.baselines.persistence import LastValue, RegressedLastValue
from neurodyn.models.baselines.validation import forecast_crps
from neurodyn.models.latent_sde import LatentSDE
from neurodyn.models.linear_sde import LinearSDE
from neurodyn.models.path_model import PathModel
from neurodyn.scaling import Scaling
from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig, FitResult, fit
from neurodyn.training_log import LogKind


class Forecaster(Protocol):
    """Anything that forecasts: all models here."""

    def forecast(
        self, history: SeriesBatch, times: Tensor, num_samples: int = 200, *, generator: torch.Generator | None = None
    ) -> Forecast:
        """Sample values of the rows of `history` at `times` (B, H)."""


class Entry(NamedTuple):
    """A forecaster in a table: its label, and what it is in one sentence."""

    label: str
    about: str


FORECASTERS: dict[str, Entry] = {
    "last_value": Entry("last value", "Stays at the last value; errors drawn from the training set's at that horizon."),
    "regressed_last_value": Entry(
        "regressed last value", "The last value, drawn towards the mean by horizon; errors drawn in the same way."
    ),
    "mixed_model": Entry(
        "linear mixed model", "A random level and slope per series, jointly over variables, and noise."
    ),
    "ou_process": Entry("OU process", "One Ornstein-Uhlenbeck Gaussian process per variable, and noise."),
    "linear_sde": Entry("LinearSDE", "Level, slope and Ornstein-Uhlenbeck parts, jointly, fitted by exact evidence."),
    "latent_sde": Entry("latent SDE", "A latent neural SDE."),
    "direct_gru": Entry("direct GRU", "Three networks from history and horizon straight to a Student-t, no dynamics."),
    "latent_ode": Entry("Latent ODE", "A random first state that moves by a neural ODE (Rubanova et al. 2019)."),
    "stable_lsde": Entry(
        "stable LSDE", "A state along the path of the history, and on, in a potential (Langevin type)."
    ),
    "stable_lnsde": Entry("stable LNSDE", "The same, contracting, with noise in proportion to the state."),
    "stable_gsde": Entry("stable GSDE", "The same, positive, contracting in the logarithm."),
}
"""By name, in the order in which a recipe fits them."""

STABLE = ("stable_lsde", "stable_lnsde", "stable_gsde")
"""Fitted where they are asked for."""

BASELINES = tuple(name for name in FORECASTERS if name not in ("latent_sde", *STABLE))

LATENT_SCHEDULE: dict[str, Any] = {
    "steps": 200,
    "batch_size": 64,
    "learning_rate": 2e-3,
    "optimizer": "adamw",
    "weight_decay": 1e-2,
    "warmup_steps": 20,
    "ema": 0.98,
    "validate_every": 25,
}
"""Settings of `FitConfig` for a latent SDE on a few hundred short series."""

PATH_SCHEDULE: dict[str, Any] = {
    "steps": 300,
    "batch_size": 64,
    "learning_rate": 1e-2,
    "optimizer": "adamw",
    "weight_decay": 1e-2,
    "warmup_steps": 20,
    "validate_every": 25,
    "patience": 6,
}
"""The same for the stable SDEs."""

_LINEAR: dict[str, dict[str, Any]] = {
    "mixed_model": {"components": ("level", "slope")},
    "ou_process": {"components": ("ou",), "joint": False},
    "linear_sde": {},
}
_QUICK_STEPS = 20
_UNSCALED = ("poisson", "negative_binomial", "bernoulli")  # likelihoods of values that are what they are


@dataclass(frozen=True)
class Training:
    """How all forecasters of a comparison are fitted.

    Args:
        seed: of weights, order of rows and noise.
        device: of the networks; the linear models and persistence stay on the CPU.
        quick: only a few steps each, to see that everything runs.
        progress: bars with the time left.
        schedules: settings of `FitConfig` by forecaster, instead of its own.
        latent: settings of `LatentSDEConfig` for the latent SDE. Its posterior is "smoother" if not given, which puts
            it on a fitted `LinearSDE`.
        logs: of networks, see `FitConfig`.
    """

    seed: int = 0
    device: str = "auto"
    quick: bool = False
    progress: bool = True
    schedules: Mapping[str, Mapping[str, Any]] | None = None
    latent: Mapping[str, Any] | None = None
    logs: tuple[LogKind, ...] = ()

    def config(self, name: str, schedule: Mapping[str, Any]) -> FitConfig:
        """The settings of one network's training."""
        settings = dict(schedule) | dict((self.schedules or {}).get(name, {}))
        if self.quick:
            settings |= {"steps": _QUICK_STEPS, "validate_every": _QUICK_STEPS // 2, "warmup_steps": 5}
        own: dict[str, Any] = {"seed": self.seed, "device": self.device, "progress": self.progress, "logs": self.logs}
        return FitConfig(**settings, **own)


@dataclass(frozen=True)
class Fitted:
    """A fitted forecaster.

    Args:
        name: in `FORECASTERS`. model: fitted. seconds: that fitting took, over all parts of a resumed fit.
        result: of `fit`, for networks.
    """

    name: str
    model: Forecaster
    seconds: float
    result: FitResult | None = None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the training."""
        return self.result is not None and self.result.stopped == "interrupted"

    def forecast(self, history: SeriesBatch, times: Tensor, num_samples: int = 200, *, seed: int = 0) -> Forecast:
        """Sample paths, made on the model's device and brought back to the CPU."""
        device = next(self.model.parameters()).device if isinstance(self.model, nn.Module) else torch.device("cpu")
        generator = torch.Generator().manual_seed(seed)
        found = self.model.forecast(history.to(device), times.to(device), num_samples, generator=generator)
        return found.to("cpu")


def fit_forecaster(
    name: str,
    train: SeriesBatch,
    validation: SeriesBatch,
    training: Training | None = None,
    *,
    folder: Path | None = None,
    linear: LinearSDE | None = None,
) -> Fitted:
    """Fit one forecaster.

    Args:
        name: in `FORECASTERS`.
        train, validation: standardised, on the CPU. The linear models and persistence leave the validation rows alone.
        training: settings that all share.
        folder: of this forecaster alone; a fit that was killed goes on from there, and a finished one is read.
        linear: a fitted `LinearSDE` for a latent SDE to stand on; fitted here where one is needed and not given.

    Raises:
        ValueError: an unknown name, and what the model's own `fit` raises.
        DivergedError: see `neurodyn.training.fit`.
    """
    if name not in FORECASTERS:
        raise ValueError(f"name: {name!r} given, one of {', '.join(FORECASTERS)} wanted")
    training = training or Training()
    started = time.monotonic()
    size = train.num_variables
    if name in ("last_value", "regressed_last_value"):
        persistence = (LastValue() if name == "last_value" else RegressedLastValue()).fit(train)
        return Fitted(name, persistence, time.monotonic() - started)
    if name in _LINEAR:
        return _fit_linear(name, train, training, folder)
    if name == "latent_sde":
        return _fit_latent(train, validation, training, folder, linear)
    if name in STABLE:
        return _fit_stable(name, train, validation, training, folder)
    network = _seeded(training.seed, DirectGRU if name == "direct_gru" else LatentODE, size)
    network.fit(train, validation, training.config(name, network.schedule), folder=folder)
    assert network.result is not None
    return Fitted(name, network, network.result.seconds, network.result)


def _seeded(seed: int, make: Any, *arguments: Any, **options: Any) -> Any:
    """A network whose first weights come from `seed`, with torch's own generator left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(*arguments, **options)


def _fit_linear(name: str, train: SeriesBatch, training: Training, folder: Path | None) -> Fitted:
    """Read from the folder if it was fitted there before: the fit has no checkpoints, but takes seconds."""
    if folder is not None and (folder / "fit.json").is_file():
        return Fitted(name, LinearSDE.load(folder / "model"), float(read_json(folder / "fit.json").get("seconds", 0.0)))
    started = time.monotonic()
    model = LinearSDE(train.num_variables, **_LINEAR[name])
    model.fit(train, max_iterations=3 if training.quick else 150)
    seconds = time.monotonic() - started
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        model.save(folder / "model")
        write_json(folder / "fit.json", {"seconds": seconds})
    return Fitted(name, model, seconds)


def _fit_stable(
    name: str, train: SeriesBatch, validation: SeriesBatch, training: Training, folder: Path | None
) -> Fitted:
    reader = name.removeprefix("stable_")
    model = _seeded(training.seed, PathModel.build, num_variables=train.num_variables, task="forecast", reader=reader)
    config = training.config(name, PATH_SCHEDULE)
    result = fit(model, train, validation, config, folder=folder, validate=forecast_crps)
    return Fitted(name, model, result.seconds, result)


def _fit_latent(
    train: SeriesBatch, validation: SeriesBatch, training: Training, folder: Path | None, linear: LinearSDE | None
) -> Fitted:
    settings = {"posterior": "smoother"} | dict(training.latent or {})
    seconds = 0.0
    if settings["posterior"] == "smoother":
        if linear is None:
            fitted = _fit_linear("linear_sde", train, training, None if folder is None else folder / "linear")
            assert isinstance(fitted.model, LinearSDE)
            linear, seconds = fitted.model, fitted.seconds
        model = _seeded(training.seed, LatentSDE.on, linear, **settings)
    else:
        model = _seeded(training.seed, LatentSDE.build, num_variables=train.num_variables, **settings)
    model.likelihood.check(train.values, train.mask)
    config = training.config("latent_sde", LATENT_SCHEDULE)
    result = fit(model, train, validation, config, folder=folder, validate=forecast_crps)
    return Fitted("latent_sde", model, seconds + result.seconds, result)


def fit_scaling(train: SeriesBatch, log: Sequence[str] = (), likelihood: str = "gaussian") -> Scaling:
    """The scaling of training rows: of times alone for a likelihood of counts or of zeros and ones.

    Raises:
        ValueError: see `Scaling.fit`.
    """
    scaling = Scaling.fit(train, log=list(log))
    if likelihood not in _UNSCALED:
        return scaling
    plain = torch.zeros(train.num_variables, dtype=torch.float64)
    return replace(scaling, mean=plain, sd=plain + 1, log=plain.bool())
