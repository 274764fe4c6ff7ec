"""Classes of series as a scikit-learn estimator: `StableSDEClassifier`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from neurodyn.datasets.splits import stratified
from neurodyn.estimators.base import ClassifierMixin, Estimator, seed_of
from neurodyn.estimators.inputs import Columns
from neurodyn.models.classifier import READERS, SeriesClassifier
from neurodyn.models.classifiers import FittedClassifier, fit_classifier
from neurodyn.models.forecasters import Training
from neurodyn.scaling import Scaling
from neurodyn.series import SeriesBatch

Array = np.ndarray[Any, Any]


class StableSDEClassifier(ClassifierMixin, Estimator):
    """A `SeriesClassifier` as a scikit-learn estimator: classes of irregular, partly observed series.

    X is

    - an array (n, T, D) or (n, T) of n series at the times 0, 1, ..., NaN where missing, as scikit-learn splits it,
    - a frame with one line per visit: a column for which series, one for when, one per variable, empty cells where
      nothing was measured; or with one line per observation, in columns `variable` and `value` (see `from_frame`),
    - a `SeriesBatch`.

    Args:
        reader: what reads a series, see `ClassifierConfig`: "lsde", "lnsde", "gsde", "neural_cde", "gru_d", ...
        hidden_size: of the state and the networks.
        form: of the stable SDEs, "theory" or "released". path: of the data, "hermite", "linear", ....
        intensity: whether SDEs and CDE also see how often each variable was observed.
        steps: of training; its own schedule if not given.
        validation_fraction: of each class, held out to choose the weights by; 0: the training series choose.
        num_samples: sample paths of a probability.
        log: variables to take logarithms of.
        label: the column of a frame with the class of the series, where y is not given.
        id, time, values, time_unit: columns of frames, see `from_frame`.
        random_state: of the split, weights, order of series and noise.
        device: "auto", "cpu" or "cuda". progress: a bar with the time left.

    Attributes, after `fit`:
        classes_: (K,) sorted. fitted_: the model with its training, see `neurodyn.models.FittedClassifier`. scaling_:
        from the data's units to the model's. n_features_in_: columns of an array's last axis. dates_: whether times
        were dates, which they then have to be, or numbers; None for a `SeriesBatch`, which does not say.
    """

    def __init__(
        self,
        *,
        reader: str = "lnsde",
        hidden_size: int = 32,
        form: str = "theory",
        path: str = "hermite",
        intensity: bool = False,
        steps: int | None = None,
        validation_fraction: float = 0.2,
        num_samples: int = 32,
        log: Sequence[str] = (),
        label: str | None = None,
        id: str = "unique_id",
        time: str = "ds",
        values: Sequence[str] | None = None,
        time_unit: str | None = None,
        random_state: Any = 0,
        device: str = "auto",
        progress: bool = False,
    ) -> None:
        self.reader = reader
        self.hidden_size = hidden_size
        self.form = form
        self.path = path
        self.intensity = intensity
        self.steps = steps
        self.validation_fraction = validation_fraction
        self.num_samples = num_samples
        self.log = log
        self.label = label
        self.id = id
        self.time = time
        self.values = values
        self.time_unit = time_unit
        self.random_state = random_state
        self.device = device
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Fit to series with classes.

        Args:
            X: see the class.
            y: classes in words or numbers, one per series; or, with a frame, one per line, the same in all lines of a
                series. May be left out with a frame that has the column `label`.

        Raises:
            ValueError: bad arguments or data, in one line; fewer than two classes.
            DivergedError: see `neurodyn.training.fit`.
        """
        if self.reader not in READERS:
            raise ValueError(f"reader: {self.reader!r} given, one of {', '.join(READERS)} wanted")
        if self.num_samples < 1:
            raise ValueError(f"num_samples: {self.num_samples} given, 1 or more wanted")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction: {self.validation_fraction} given, from 0 to below 1 wanted")
        series = self._series(X, reset=True)
        self.classes_, codes = np.unique(self._targets(X, y, len(series)), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: {len(self.classes_)} class given, 2 or more wanted")
        self.seed_, self.dates_ = seed_of(self.random_state), self._columns().given_dates(X)
        labelled = series._with(labels=torch.as_tensor(codes))
        train = validation = labelled
        if self.validation_fraction:
            parts = stratified(labelled.labels, (1 - self.validation_fraction, self.validation_fraction), self.seed_)
            train, validation = (labelled.rows(index).trim() for index in parts)
        self.scaling_ = Scaling.fit(train, log=list(self.log))
        schedules: dict[str, dict[str, int]] = {} if self.steps is None else {self.reader: {"steps": self.steps}}
        training = Training(self.seed_, self.device, progress=self.progress, schedules=schedules)
        own = {name: getattr(self, name) for name in ("hidden_size", "form", "path", "intensity")}
        parts_ = (self.scaling_.apply(train), self.scaling_.apply(validation))
        self.fitted_: FittedClassifier = fit_classifier(self.reader, *parts_, len(self.classes_), training, **own)
        return self

    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        """Probabilities of the classes, (n, K) in the order of `classes_`; for a frame, a frame with a line per series.

        Raises:
            ValueError: other variables than in `fit`, dates where it was fitted to numbers or numbers where to dates.
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        series = self.scaling_.apply(self._series(X, reset=False))
        found = self.fitted_.probabilities(series, self.num_samples, seed=self.seed_).double().numpy()
        if not isinstance(X, pd.DataFrame):
            return found
        return pd.DataFrame(found, index=self._index(X), columns=pd.Index(self.classes_))

    def predict(self, X: Any) -> Any:  # noqa: N803
        """The most probable class of each series, (n,); for a frame, a pandas series by the ids of the series."""
        found = self.predict_proba(X)
        chosen = self.classes_[np.asarray(found).argmax(1)]
        return pd.Series(chosen, index=found.index, name=self.label) if isinstance(X, pd.DataFrame) else chosen

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:  # noqa: N803
        """Accuracy, over series.

        Args:
            X, y: as in `fit`. sample_weight: (n,), of the series.
        """
        right = np.asarray(self.predict(X))
        return float(np.average(right == self._targets(X, y, len(right)), weights=sample_weight))

    def _columns(self, *, fitted: bool = False) -> Columns:
        return Columns(self.id, self.time, self.values, self.time_unit, self.dates_ if fitted else None)

    def _index(self, frame: pd.DataFrame) -> pd.Index:
        return pd.Index(frame[self.id].unique(), name=self.id)

    def _series(self, X: Any, *, reset: bool) -> SeriesBatch:  # noqa: N803
        variables = None if reset else list(self.scaling_.variables)
        if isinstance(X, SeriesBatch):
            return X if variables is None else X.select(variables)
        columns = self._columns(fitted=not reset)
        if isinstance(X, pd.DataFrame):
            frame = X if self.label is None or self.label not in X else X.drop(columns=self.label)
            return columns.read(frame, variables)
        return columns.read_array(self._array(X, reset=reset), variables, alike=not reset)

    def _array(self, X: Any, *, reset: bool) -> Array:  # noqa: N803
        """(n, T, D)."""
        from sklearn.utils import check_array
        from sklearn.utils.validation import validate_data

        accepts: dict[str, Any] = {"dtype": np.float64, "ensure_all_finite": "allow-nan"}
        if (X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim) != 3:
            found: Array = validate_data(self, X, reset=reset, **accepts)
            return found[..., None]
        found = check_array(X, allow_nd=True, **accepts)
        if reset:
            self.n_features_in_ = found.shape[2]
        elif found.shape[2] != self.n_features_in_:
            raise ValueError(f"X: {found.shape[2]} variables given, {self.n_features_in_} wanted as in fit")
        return found

    def _targets(self, X: Any, y: Any, count: int) -> Array:  # noqa: N803
        """Classes (n,) of the series."""
        from sklearn.utils import check_consistent_length, column_or_1d
        from sklearn.utils.multiclass import check_classification_targets

        if y is None:
            if not isinstance(X, pd.DataFrame) or self.label is None:
                raise ValueError("requires y to be passed, but the target y is None")
            if self.label not in X:
                raise ValueError(f"label: no column {self.label!r}, one of {list(X.columns)} wanted")
            y = X[self.label]
        found: Array = column_or_1d(y, warn=True)
        if isinstance(X, pd.DataFrame) and len(found) == len(X) != count:
            codes, ids = pd.factorize(X[self.id])
            first = found[np.unique(codes, return_index=True)[1]]
            changed = found != first[codes]
            if changed.any():
                name = str(ids[codes[int(changed.argmax())]])
                raise ValueError(f"y: two classes of {self.id} {name!r} given, one per series wanted")
            found = first
        check_classification_targets(found)
        if len(found) != count:
            check_consistent_length(np.empty(count), found)
        return found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.three_d_array = True
        tags.classifier_tags.poor_score = True  # on features that are no series, after a few steps
        return tags

    def _write(self, path: Path) -> dict[str, Any]:
        self.fitted_.model.save(path / "model")
        fitted = {"scaling": self.scaling_.to_dict(), "seed": self.seed_, "seconds": self.fitted_.seconds}
        known = {"n_features_in": self.n_features_in_} if hasattr(self, "n_features_in_") else {}
        return fitted | {"classes": self.classes_.tolist(), "dates": self.dates_} | known

    def _read(self, path: Path, fitted: dict[str, Any]) -> None:
        self.scaling_, self.seed_ = Scaling.from_dict(fitted["scaling"]), fitted["seed"]
        self.classes_, self.dates_ = np.array(fitted["classes"]), fitted.get("dates")
        if "n_features_in" in fitted:
            self.n_features_in_ = fitted["n_features_in"]
        self.fitted_ = FittedClassifier(self.reader, SeriesClassifier.load(path / "model"), fitted["seconds"])
