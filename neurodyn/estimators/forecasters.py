"""Forecasters as scikit-learn estimators: `LatentSDEForecaster` and `LinearSDEForecaster`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from neurodyn.datasets.splits import histories
from neurodyn.estimators.base import Estimator, seed_of
from neurodyn.estimators.inputs import Columns
from neurodyn.forecast import Forecast
from neurodyn.metrics.forecasts import evaluate
from neurodyn.models.forecasters import Fitted, Training, fit_forecaster, fit_scaling
from neurodyn.models.latent_sde import LatentSDE
from neurodyn.models.linear_sde import LinearSDE
from neurodyn.scaling import Scaling
from neurodyn.sde.linear_gaussian import COMPONENTS
from neurodyn.series import SeriesBatch

FEW_ROWS = 5
"""Fewer series than these are split by time, and not by rows, for validation."""


class SeriesForecaster(Estimator):
    """What forecasters share: reading, scaling, `predict`, `sample`, `score`, saving. See the subclasses.

    `fit`, `predict`, `sample` and `score` take X as

    - a frame with one line per visit: a column for which series, one for when, one per variable, empty cells where
      nothing was measured; or with one line per observation, in columns `variable` and `value` (see `from_frame`),
    - a `SeriesBatch`,
    - an array (n, T, D) or (n, T) of n series at the times 0, 1, ..., NaN where missing.

    Attributes, after `fit`:
        fitted_: the model with its training, see `neurodyn.models.Fitted`. scaling_: from the data's units to the
        model's. variables_: names. seed_: of weights, order and noise. dates_: whether times were dates, which they
        then have to be, or numbers; None for a `SeriesBatch`, which does not say.
    """

    _model_class: ClassVar[Any]
    _name: ClassVar[str]
    id: str
    time: str
    values: Sequence[str] | None
    time_unit: str | None
    num_samples: int
    history_fraction: float
    random_state: Any

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Fit to series.

        Args:
            X: see the class. y: not used.

        Raises:
            ValueError: bad arguments or data, in one line.
            DivergedError: see `neurodyn.training.fit`.
        """
        if not 0 < self.history_fraction < 1:
            raise ValueError(f"history_fraction: {self.history_fraction} given, a number between 0 and 1 wanted")
        if self.num_samples < 2:
            raise ValueError(f"num_samples: {self.num_samples} given, 2 or more wanted")
        series = self._series(X)
        self.seed_ = seed_of(self.random_state)
        self.variables_, self.dates_ = list(series.variables), self._columns().given_dates(X)
        self.fitted_, self.scaling_ = self._fit(series)
        return self

    def predict(self, X: Any, times: Any = None, *, levels: Sequence[int | float] = (80, 90)) -> pd.DataFrame:  # noqa: N803
        """Forecasts as a frame: mean, median and central intervals, in the data's units.

        Args:
            X: what is known, see the class. In a frame, a line without any value after the last visit of its series
                asks for a forecast there.
            times: what to forecast, instead of such lines: times (H,) for all series, numbers (B, H) for each, or a
                frame with the columns of ids and times, whose series alone are forecast. In the data's unit;
                timestamps where X has them.
            levels: of the intervals, per cent.

        Returns:
            One line per series and time: the columns of ids and times as in X (`unique_id` and `ds` where X is no
            frame), and for each variable NAME, `NAME-median`, `NAME-lo-90`, `NAME-hi-90`, ...

        Raises:
            ValueError: nothing asked for, times before the end of a series, other variables than in `fit`, dates where
                it was fitted to numbers or numbers where to dates.
        """
        table = self.sample(X, times).to_frame(levels)
        return self._columns().restore(table, X if isinstance(X, pd.DataFrame) else None)

    def sample(self, X: Any, times: Any = None, num_samples: int | None = None) -> Forecast:  # noqa: N803
        """Sample paths of the future, in the data's units.

        The same calls give the same paths, whichever series are asked about together.

        Args:
            X, times: as in `predict`.
            num_samples: the estimator's own if not given.
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        known = self._series(X, self.variables_)
        columns, frame = self._columns(fitted=True), X if isinstance(X, pd.DataFrame) else None
        if times is not None:
            known, asked = columns.times(times, frame, known)
        elif frame is not None:
            known, asked = columns.questions(frame, known)
        else:
            raise ValueError("times: not given, wanted where X is no frame")
        scaled, when = self.scaling_.apply(known), self.scaling_.apply_times(asked)
        count = self.num_samples if num_samples is None else num_samples
        when = when.expand(len(known), -1)
        return self.fitted_.forecast(scaled, when, count, seed=self.seed_).undo(self.scaling_)

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """How well later visits are forecast from the first `history_fraction` of each series: larger is better.

        Minus the mean CRPS over the values, in standardised units (of the training series). For cross-validation split
        by series: `GroupKFold`, with the column of ids as groups.

        Args:
            X: whole series, see the class. y: not used.
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        series = self.scaling_.apply(self._series(X, self.variables_))
        history, future = histories(series, fraction=self.history_fraction)
        forecast = self.fitted_.forecast(history, future.times, self.num_samples, seed=self.seed_)
        return -evaluate(forecast, future)["crps"]

    def _fit(self, series: SeriesBatch) -> tuple[Fitted, Scaling]:
        raise NotImplementedError

    def _columns(self, *, fitted: bool = False) -> Columns:
        return Columns(self.id, self.time, self.values, self.time_unit, self.dates_ if fitted else None)

    def _series(self, X: Any, variables: Sequence[str] | None = None) -> SeriesBatch:  # noqa: N803
        if isinstance(X, SeriesBatch):
            return X if variables is None else X.select(list(variables))
        columns = self._columns(fitted=variables is not None)
        if isinstance(X, pd.DataFrame):
            return columns.read(X, variables)
        values = np.asarray(X, dtype=np.float64)
        if values.ndim not in (2, 3):
            raise ValueError(f"X: an array of shape {values.shape} given, a frame, or (n, T) or (n, T, D) wanted")
        table = values if values.ndim == 3 else values[..., None]
        return columns.read_array(table, variables, alike=False)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.three_d_array = True
        tags.target_tags.required = False
        return tags

    def _write(self, path: Path) -> dict[str, Any]:
        self.fitted_.model.save(path / "model")  # type: ignore[attr-defined]
        fitted = {"scaling": self.scaling_.to_dict(), "seed": self.seed_, "seconds": self.fitted_.seconds}
        return fitted | {"dates": self.dates_}

    def _read(self, path: Path, fitted: dict[str, Any]) -> None:
        self.scaling_ = Scaling.from_dict(fitted["scaling"])
        self.variables_, self.seed_ = list(self.scaling_.variables), fitted["seed"]
        self.dates_ = fitted.get("dates")
        self.fitted_ = Fitted(self._name, self._model_class.load(path / "model"), fitted["seconds"])


class LatentSDEForecaster(SeriesForecaster):
    """A `LatentSDE` as a scikit-learn estimator.

    Some series, or with fewer than five the ends of all, are held out, and the weights that forecast them best are
    kept. With the posterior "smoother" the model stands on an exactly fitted `LinearSDE`.

    Args:
        posterior: "smoother", "matched" or "simulated". encoder: "gru", "attention" or "window". likelihood: see
            `LatentSDEConfig`.
        latent_size: not with "smoother", whose latents are those of the `LinearSDE`.
        hidden_size: of the networks.
        options: further settings of `LatentSDEConfig`.
        steps: of training; its own schedule if not given.
        validation_fraction: of the series that is held out to choose the weights by.
        log: variables to take logarithms of.
        num_samples: sample paths of a forecast.
        history_fraction: of the visits of a series that `score` forecasts the others from.
        id, time, values, time_unit: columns of frames, see `from_frame`.
        random_state: of weights, order of series and noise.
        device: "auto", "cpu" or "cuda". progress: a bar with the time left.

    What X may be, and the attributes after `fit`, are told in `SeriesForecaster`.
    """

    _model_class = LatentSDE
    _name = "latent_sde"

    def __init__(
        self,
        *,
        posterior: str = "smoother",
        encoder: str = "gru",
        likelihood: str = "gaussian",
        latent_size: int = 8,
        hidden_size: int = 64,
        options: dict[str, Any] | None = None,
        steps: int | None = None,
        validation_fraction: float = 0.2,
        log: Sequence[str] = (),
        num_samples: int = 200,
        history_fraction: float = 0.5,
        id: str = "unique_id",
        time: str = "ds",
        values: Sequence[str] | None = None,
        time_unit: str | None = None,
        random_state: Any = 0,
        device: str = "auto",
        progress: bool = False,
    ) -> None:
        self.posterior = posterior
        self.encoder = encoder
        self.likelihood = likelihood
        self.latent_size = latent_size
        self.hidden_size = hidden_size
        self.options = options
        self.steps = steps
        self.validation_fraction = validation_fraction
        self.log = log
        self.num_samples = num_samples
        self.history_fraction = history_fraction
        self.id = id
        self.time = time
        self.values = values
        self.time_unit = time_unit
        self.random_state = random_state
        self.device = device
        self.progress = progress

    def _fit(self, series: SeriesBatch) -> tuple[Fitted, Scaling]:
        train, validation = held_out(series, self.validation_fraction, self.seed_)
        scaling = fit_scaling(train, self.log, self.likelihood)
        latent: dict[str, Any] = {"posterior": self.posterior, "encoder": self.encoder, "likelihood": self.likelihood}
        latent |= {"hidden_size": self.hidden_size}
        if self.posterior != "smoother":
            latent["latent_size"] = self.latent_size
        schedules = {} if self.steps is None else {"latent_sde": {"steps": self.steps}}
        training = Training(
            self.seed_, self.device, progress=self.progress, schedules=schedules, latent=latent | (self.options or {})
        )
        return fit_forecaster("latent_sde", scaling.apply(train), scaling.apply(validation), training), scaling


class LinearSDEForecaster(SeriesForecaster):
    """A `LinearSDE` as a scikit-learn estimator: level, slope and Ornstein-Uhlenbeck parts, by exact evidence.

    Args:
        components: some of "level", "slope", "ou".
        joint: correlated over variables, or one model per variable.
        max_iterations: of the search.
        log, num_samples, history_fraction, id, time, values, time_unit, random_state: as in `LatentSDEForecaster`;
            only the forecasts' paths are random.

    What X may be, and the attributes after `fit`, are told in `SeriesForecaster`.
    """

    _model_class = LinearSDE
    _name = "linear_sde"

    def __init__(
        self,
        *,
        components: Sequence[str] = COMPONENTS,
        joint: bool = True,
        max_iterations: int = 150,
        log: Sequence[str] = (),
        num_samples: int = 200,
        history_fraction: float = 0.5,
        id: str = "unique_id",
        time: str = "ds",
        values: Sequence[str] | None = None,
        time_unit: str | None = None,
        random_state: Any = 0,
    ) -> None:
        self.components = components
        self.joint = joint
        self.max_iterations = max_iterations
        self.log = log
        self.num_samples = num_samples
        self.history_fraction = history_fraction
        self.id = id
        self.time = time
        self.values = values
        self.time_unit = time_unit
        self.random_state = random_state

    def _fit(self, series: SeriesBatch) -> tuple[Fitted, Scaling]:
        scaling = fit_scaling(series, self.log)
        model, started = LinearSDE(series.num_variables, self.components, self.joint), time.monotonic()
        model.fit(scaling.apply(series), max_iterations=self.max_iterations)
        return Fitted(self._name, model, time.monotonic() - started), scaling


def held_out(series: SeriesBatch, fraction: float, seed: int) -> tuple[SeriesBatch, SeriesBatch]:
    """Training and validation rows; with fewer than `FEW_ROWS` the first three quarters of all rows, and all of them.

    Raises:
        ValueError: a fraction that leaves either part without a row.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction: {fraction} given, a number between 0 and 1 wanted")
    if len(series) < FEW_ROWS:
        return series.history(fraction=0.75), series
    train, validation = series.split_rows((1 - fraction, fraction), seed)
    return train, validation
