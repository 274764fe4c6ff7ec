"""Every way to fill in values by name: what a comparison fits, in one place for the recipe."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from neurodyn.forecast import Forecast
from neurodyn.metrics.scores import crps_fair
from neurodyn.models.forecasters import PATH_SCHEDULE, Entry, Training
from neurodyn.models.linear_sde import LinearSDE
from neurodyn.models.path_model import PathModel, neighbours
from neurodyn.noise import RowNoise
from neurodyn.series import SeriesBatch
from neurodyn.training import FitResult, fit

INTERPOLATORS: dict[str, Entry] = {
    "last_value": Entry("last value", "The variable's last value, or its first before that, with the errors' spread."),
    "line": Entry("straight line", "The line between the variable's values around a time, with the errors' spread."),
    "linear_sde": Entry("LinearSDE", "The exact smoother of level, slope and Ornstein-Uhlenbeck parts."),
    "neural_cde": Entry("neural CDE", "A state that integrates the path of what is known (Kidger et al. 2020)."),
    "stable_lsde": Entry("stable LSDE", "A state along the path, in a potential (Langevin type)."),
    "stable_lnsde": Entry("stable LNSDE", "The same, contracting, with noise in proportion to the state."),
    "stable_gsde": Entry("stable GSDE", "The same, positive, contracting in the logarithm."),
}
"""By name, in the order in which a recipe fits them."""

HIDDEN = 0.5
"""Share of the values that are hidden where errors are looked at in training and validation."""


class Interpolator(Protocol):
    """Anything that fills in values."""

    def sample(
        self, batch: SeriesBatch, times: Tensor, num_samples: int = 200, *, generator: torch.Generator | None = None
    ) -> Forecast:
        """Sample values of the rows of `batch` at `times` (B, Q), given all that the batch holds."""


class Neighbour:
    """A variable's own neighbours, and normal errors of one size per variable: that of hidden training values.

    Args:
        straight: the line between the two, or else the one before.
    """

    def __init__(self, straight: bool) -> None:
        self.straight = straight

    def _point(self, known: SeriesBatch, times: Tensor) -> Tensor:
        found = neighbours(known, times)
        return found.line if self.straight else found.last

    def fit(self, train: SeriesBatch) -> Self:
        """Measure the errors."""
        known, hidden = train.drop_observed(HIDDEN, torch.Generator().manual_seed(0))
        error = self._point(known.compact(), hidden.times) - hidden.values
        count = hidden.mask.sum((0, 1)).clamp_min(1)
        self.spread = (torch.where(hidden.mask, error, 0.0).square().sum((0, 1)) / count).sqrt().clamp_min(1e-6)
        return self

    def sample(
        self, batch: SeriesBatch, times: Tensor, num_samples: int = 200, *, generator: torch.Generator | None = None
    ) -> Forecast:
        """See `Interpolator`."""
        point, noise = self._point(batch.compact(), times), RowNoise.of(batch, generator)
        error = noise.samples("error", num_samples, *point.shape[1:], dtype=point.dtype)
        return Forecast.of(batch, times, point + self.spread * error)


class LinearSmoother:
    """The exact smoother of a fitted `LinearSDE`: each value's own law given the row, independent draws."""

    def __init__(self, linear: LinearSDE) -> None:
        self.linear = linear

    @torch.no_grad()
    def sample(
        self, batch: SeriesBatch, times: Tensor, num_samples: int = 200, *, generator: torch.Generator | None = None
    ) -> Forecast:
        """See `Interpolator`. Before a row's first visit the law is that at the visit."""
        noise = RowNoise.of(batch, generator)
        mean, variance = self.linear.smooth(batch, times)
        sd = (variance + self.linear.core.observation().variance.to(variance.device)).sqrt()
        error = noise.samples("error", num_samples, *mean.shape[1:], dtype=sd.dtype)
        return Forecast.of(batch, times, (mean + sd * error).to(batch.dtype))


@dataclass(frozen=True)
class FittedInterpolator:
    """A fitted way to fill in values.

    Args:
        name: in `INTERPOLATORS`. model: fitted. seconds: that fitting took, over all parts of a resumed fit.
        result: of `fit`, for networks.
    """

    name: str
    model: Interpolator
    seconds: float
    result: FitResult | None = None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the training."""
        return self.result is not None and self.result.stopped == "interrupted"

    def sample(self, batch: SeriesBatch, times: Tensor, num_samples: int = 200, *, seed: int = 0) -> Forecast:
        """Values on the CPU."""
        return self.model.sample(batch, times, num_samples, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def hidden_crps(model: nn.Module, batch: SeriesBatch, num_samples: int = 40) -> float:
    """Mean fair CRPS of values that are hidden at random from the rest, by the same numbers at every call."""
    known, hidden = batch.drop_observed(HIDDEN, torch.Generator(batch.device).manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    drawn = model.sample(known, hidden.times, num_samples, generator=generator)  # type: ignore[operator]
    scores = crps_fair(drawn.samples, hidden.values, hidden.mask)
    return float(scores[hidden.mask].double().mean())


def fit_interpolator(
    name: str,
    train: SeriesBatch,
    validation: SeriesBatch,
    training: Training | None = None,
    *,
    folder: Path | None = None,
    **settings: Any,
) -> FittedInterpolator:
    """Fit one; networks keep the weights that did best on hidden values of the validation rows.

    Args:
        name: in `INTERPOLATORS`.
        train, validation: standardised, on the CPU.
        training: settings that all share.
        folder: of this model alone; a fit that was killed goes on from there.
        settings: of `PathModelConfig`, for networks.

    Raises:
        ValueError: an unknown name or setting, and what `fit` raises.
    """
    if name not in INTERPOLATORS:
        raise ValueError(f"name: {name!r} given, one of {', '.join(INTERPOLATORS)} wanted")
    training = training or Training()
    started = time.monotonic()
    if name in ("last_value", "line"):
        return FittedInterpolator(name, Neighbour(name == "line").fit(train), time.monotonic() - started)
    if name == "linear_sde":
        linear = LinearSDE(train.num_variables).fit(train, max_iterations=3 if training.quick else 150)
        return FittedInterpolator(name, LinearSmoother(linear), time.monotonic() - started)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        reader = name.removeprefix("stable_")
        model = PathModel.build(num_variables=train.num_variables, reader=reader, **settings)
    result = fit(model, train, validation, training.config(name, PATH_SCHEDULE), folder=folder, validate=hidden_crps)
    return FittedInterpolator(name, model, result.seconds, result)
