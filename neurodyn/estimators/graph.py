"""Which variable drives which, as a scikit-learn estimator: `ScotchGraph`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from neurodyn.estimators.base import Estimator, seed_of
from neurodyn.estimators.inputs import Columns, series_of_array
from neurodyn.models.scotch import Scotch
from neurodyn.models.structure import LearnedStructure, edge_table, known_edges, learn_structure, tables_of
from neurodyn.scaling import Scaling
from neurodyn.series import SeriesBatch

LEARNERS = {"bridge": "scotch", "step": "scotch_step"}


class ScotchGraph(Estimator):
    """A `Scotch` as a scikit-learn estimator: a graph of which variable drives which, from irregular series.

    An edge's score in a fit is its mean over a price of edges that rises during training. Its probability comes from a
    comparison with the scores of series that cannot be linked (`neurodyn.models.unlinked`), which takes a second fit;
    of one series alone it is the score. Both are means over fits from different weights.

    Args:
        posterior: "bridge" (a law of motion, by SDE Matching) or "step" (a one-step map, for visits too far apart).
        num_fits: from how many different weights.
        known, forbidden: edges that are there, or are not, as "cause>effect".
        noise: standard deviation of the observation noise in standardised units; None: values are exact.
        steps: of the training of a fit; its own number if not given.
        options: further settings of `ScotchConfig`.
        log: variables to take logarithms of.
        id, time, values, time_unit: columns of frames, see `from_frame`.
        random_state: of the weights and the noise of the first fit; the next ones count on from it.
        device: "auto", "cpu" or "cuda". progress: a bar with the time left.

    Attributes, after `fit`:
        edge_probabilities_: frame (D, D), rows drive columns. edge_sd_: their standard deviation over fits.
        edge_scores_: frame (D, D), which ranks edges where few variables leave little to compare with.
        fits_: see `neurodyn.models.LearnedStructure`; their `model` forecasts and takes interventions.
        scaling_: from the data's units to the models'. n_features_in_: D.
    """

    def __init__(
        self,
        *,
        posterior: str = "bridge",
        num_fits: int = 1,
        known: Sequence[str] = (),
        forbidden: Sequence[str] = (),
        noise: float | None = None,
        steps: int | None = None,
        options: dict[str, Any] | None = None,
        log: Sequence[str] = (),
        id: str = "unique_id",
        time: str = "ds",
        values: Sequence[str] | None = None,
        time_unit: str | None = None,
        random_state: Any = 0,
        device: str = "auto",
        progress: bool = False,
    ) -> None:
        self.posterior = posterior
        self.num_fits = num_fits
        self.known = known
        self.forbidden = forbidden
        self.noise = noise
        self.steps = steps
        self.options = options
        self.log = log
        self.id = id
        self.time = time
        self.values = values
        self.time_unit = time_unit
        self.random_state = random_state
        self.device = device
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Learn the graph.

        Args:
            X: a frame with one line per visit: a column for which series, one for when, one per variable, empty cells
                where nothing was measured, or with one line per observation, in columns `variable` and `value`; a
                `SeriesBatch`; or an array (T, D) of one series, or (n, T, D) of n, at the times 0, 1, ..., NaN where
                missing.
            y: not used.

        Raises:
            ValueError: bad arguments or data, in one line; fewer than two variables or too few visits.
        """
        if self.posterior not in LEARNERS:
            raise ValueError(f"posterior: {self.posterior!r} given, one of {', '.join(LEARNERS)} wanted")
        if self.num_fits < 1:
            raise ValueError(f"num_fits: {self.num_fits} given, 1 or more wanted")
        series = self._series(X)
        fixed = known_edges(series.variables, self.known, self.forbidden)
        settings = dict(self.options or {})
        settings |= {} if self.noise is None else {"noise": self.noise}
        settings |= {} if fixed is None else {"fixed": fixed}
        self.scaling_ = Scaling.fit(series, log=list(self.log))
        scaled, first = self.scaling_.apply(series), seed_of(self.random_state)
        device: Any = self.device
        self.fits_ = [
            learn_structure(
                LEARNERS[self.posterior],
                scaled,
                seed=seed,
                device=device,
                progress=self.progress,
                steps=self.steps,
                settings=settings,
                calibrate=True,
            )
            for seed in range(first, first + self.num_fits)
        ]
        self._tables(series.variables)
        return self

    def edges(self) -> pd.DataFrame:
        """A line per possible edge, the highest score first: probability and score, each with its sd over fits."""
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        return edge_table(*tables_of(self.fits_), self.scaling_.variables)

    def _tables(self, variables: Sequence[str]) -> None:
        probabilities, scores = tables_of(self.fits_)
        names = pd.Index(variables, name="drives")
        self.edge_probabilities_ = pd.DataFrame(probabilities.mean(0), index=names, columns=list(variables))
        self.edge_sd_ = pd.DataFrame(probabilities.std(0), index=names, columns=list(variables))
        self.edge_scores_ = pd.DataFrame(scores.mean(0), index=names, columns=list(variables))
        self.n_features_in_ = len(variables)

    def _series(self, X: Any) -> SeriesBatch:  # noqa: N803
        if isinstance(X, SeriesBatch):
            return X
        if isinstance(X, pd.DataFrame):
            return Columns(self.id, self.time, self.values, self.time_unit).read(X)
        from sklearn.utils import check_array
        from sklearn.utils.validation import validate_data

        accepts: dict[str, Any] = {"dtype": np.float64, "ensure_all_finite": "allow-nan"}
        if (X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim) == 3:
            return series_of_array(check_array(X, allow_nd=True, **accepts), None, alike=False)
        table = validate_data(self, X, ensure_min_samples=2, ensure_min_features=2, **accepts)
        return series_of_array(table[None], None, alike=False)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.three_d_array = True
        tags.target_tags.required = False
        return tags

    def _write(self, path: Path) -> dict[str, Any]:
        for number, fit in enumerate(self.fits_):
            assert fit.model is not None
            fit.model.save(path / f"model-{number}")
        fits = [
            {
                "scores": fit.scores.tolist(),
                "seconds": fit.seconds,
                "probabilities": None if fit.probabilities is None else fit.probabilities.tolist(),
                "unlinked": None if fit.unlinked is None else fit.unlinked.tolist(),
            }
            for fit in self.fits_
        ]
        return {"scaling": self.scaling_.to_dict(), "fits": fits}

    def _read(self, path: Path, fitted: dict[str, Any]) -> None:
        self.scaling_, name = Scaling.from_dict(fitted["scaling"]), LEARNERS[self.posterior]
        self.fits_ = [
            LearnedStructure(
                name,
                np.array(one["scores"]),
                one["seconds"],
                probabilities=_array(one["probabilities"]),
                unlinked=_array(one["unlinked"]),
                model=Scotch.load(path / f"model-{number}"),
            )
            for number, one in enumerate(fitted["fits"])
        ]
        self._tables(self.scaling_.variables)


def _array(values: list[Any] | None) -> np.ndarray | None:
    return None if values is None else np.array(values)
