"""A classifier without a network: MiniRocket's convolutions of the filled series, and ridge regression."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from neurodyn.nets.paths import control_path
from neurodyn.series import SeriesBatch

SHORTEST = 9
"""Length of MiniRocket's kernels, and so the fewest points of a grid."""
PENALTIES = np.logspace(-3, 3, 10)
"""Of the ridge regression: the authors' own."""
SHARPNESS = (1e-2, 1e3)


class MiniRocketClassifier:
    """Ridge regression on 9996 features: shares of times at which a dilated convolution exceeds a threshold.

    A series is filled by straight lines between the observations of each variable, held at its ends, and read on a grid
    that all series share: time since the first visit, up to the longest span among the training rows, with as many
    points as the longest of them has visits, 9 at least. A variable that a row never observes is zero, the mean of
    standardised ones.

    The penalty is the one of ten with the least squared error when each row is left out. Probabilities are a softmax of
    the regression's values; its one parameter, how sharp it is, has the least log score on the values that
    left-out rows get. Smoothed labels keep it finite where all of those are right. Which class is the likeliest does
    not depend on it.

    Source: Dempster, Schmidt and Webb (2021), arXiv 2012.08791; features by sktime.

    Args:
        seed: of the variables that a convolution reads together, and of the training rows that thresholds come from.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.rocket: Any = None
        self.num_classes = 0

    def filled(self, batch: SeriesBatch) -> np.ndarray:
        """The series on the grid, (B, D, points) float32, as sktime wants them."""
        batch = batch.to(dtype=torch.float64)
        path = control_path(batch, "linear", time=False)
        clock = batch.first_time.unsqueeze(1) + torch.linspace(0, self.span, self.points, dtype=torch.float64)
        return path.value(clock).mT.float().numpy()

    def features(self, batch: SeriesBatch) -> np.ndarray:
        """(B, 9996) float64."""
        return np.asarray(self.rocket.transform(self.filled(batch)), dtype=np.float64)

    def fit(self, train: SeriesBatch, num_classes: int) -> Self:
        """Fit to rows whose labels are class codes.

        Raises:
            ImportError: without sktime, numba or scikit-learn, naming the extra that brings them.
            ValueError: no labels, or a single row.
        """
        try:
            import numba  # noqa: F401  (sktime asks for it later, and names no extra of ours)
            from sklearn.linear_model import RidgeCV
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler
            from sktime.transformations.rocket import MiniRocketMultivariate
        except ImportError as error:
            raise ImportError("sktime and numba are needed here: pip install 'neurodyn[minirocket]'") from error
        if train.labels is None:
            raise ValueError("labels: none given, class codes (B,) wanted")
        if len(train) < 2:
            raise ValueError(f"train: {len(train)} row given, 2 or more wanted, each to be left out once")
        self.num_classes = num_classes
        self.span = float((train.last_time - train.first_time).max())
        self.points = max(SHORTEST, train.trim().num_times)
        self.rocket = MiniRocketMultivariate(random_state=self.seed)
        before = np.random.get_state()  # sktime seeds numpy's global generator
        try:
            self.rocket.fit(self.filled(train))
        finally:
            np.random.set_state(before)
        self.classes, codes = train.labels.unique(return_inverse=True)
        targets = 2.0 * torch.nn.functional.one_hot(codes).numpy() - 1
        # what RidgeClassifierCV does; its own class does not tell the values of rows left out
        ridge = RidgeCV(PENALTIES, scoring="neg_mean_squared_error", store_cv_results=True)
        self.regression = make_pipeline(StandardScaler(with_mean=False), ridge)
        self.regression.fit(self.features(train), targets)
        chosen = int(np.flatnonzero(PENALTIES == ridge.alpha_)[0])
        self.left_out = torch.as_tensor(ridge.cv_results_[..., chosen]).reshape(len(train), -1)
        self.sharpness = sharpness(self.left_out, codes)
        return self

    def probabilities(self, batch: SeriesBatch) -> Tensor:
        """(B, K) float64; zero for classes that were not among the training rows."""
        if self.rocket is None:
            raise ValueError("probabilities: asked of a model that was not fitted, fit(train) wanted before")
        values = torch.as_tensor(self.regression.predict(self.features(batch))).reshape(len(batch), -1)
        found = torch.zeros(len(batch), self.num_classes, dtype=torch.float64)
        found[:, self.classes] = (self.sharpness * values).softmax(1)
        return found


def sharpness(values: Tensor, codes: Tensor) -> float:
    """The s for which softmax(s * values) has the least log score of smoothed labels.

    Labels are smoothed by the rule of succession, (N + 1) / (N + K) for a row's own class, as Platt (1999) smooths two.

    Args:
        values: (N, K), of rows that were left out. codes: (N,), each row's column.
    """
    rows, classes = values.shape
    targets = (rows * torch.nn.functional.one_hot(codes, classes).double() + 1) / (rows + classes)

    def score(log_sharpness: float) -> float:
        return -float((targets * (np.exp(log_sharpness) * values).log_softmax(1)).sum(1).mean())

    return float(np.exp(minimize_scalar(score, bounds=np.log(SHARPNESS), method="bounded").x))
