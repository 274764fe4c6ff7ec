"""A classifier without a network: logistic regression on logsignatures."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from neurodyn.nets.paths import control_path
from neurodyn.nets.signatures import logsignature_size, window_logsignatures
from neurodyn.series import SeriesBatch

POINTS = 128
PIECES = (1, 2, 4)
LARGEST = 300


class SignatureClassifier:
    """Logistic regression on logsignatures of a series' path with time, whole and in halves and quarters.

    The path is linear between observations and read at 129 equally spaced times. Features are standardised, and the
    strength of the L2 penalty is chosen by cross-validation.

    Args:
        depth: of the logsignatures; if not given, the largest up to 5 with at most 300 entries.

    Raises:
        ImportError: without scikit-learn, naming the extra that brings it.
    """

    def __init__(self, depth: int | None = None) -> None:
        self.depth = depth
        self.pipeline: Any = None
        self.num_classes = 0

    def features(self, batch: SeriesBatch) -> Tensor:
        """(B, number of features) float64."""
        batch = batch.to(dtype=torch.float64).compact()
        span = (batch.last_time - batch.first_time).unsqueeze(1)
        clock = batch.first_time.unsqueeze(1) + span * torch.linspace(0, 1, POINTS + 1, dtype=torch.float64)
        path = control_path(batch, "linear").value(clock)
        channels = path.shape[-1]
        depth = self.depth or max(d for d in range(1, 6) if d == 1 or logsignature_size(channels, d) <= LARGEST)
        pieces = [window_logsignatures(path, depth, POINTS // count).flatten(1) for count in PIECES]
        return torch.cat((path[:, 0], *pieces), 1)

    def fit(self, train: SeriesBatch, num_classes: int) -> Self:
        """Fit to rows whose labels are class codes."""
        try:
            from sklearn.linear_model import LogisticRegression
            from sklearn.model_selection import GridSearchCV
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler
        except ImportError as error:
            raise ImportError("scikit-learn is needed here: pip install 'neurodyn[signatures]'") from error
        if train.labels is None:
            raise ValueError("labels: none given, class codes (B,) wanted")
        self.num_classes = num_classes
        folds = min(5, int(torch.bincount(train.labels).clamp_min(2).min()))
        strengths = {"logisticregression__C": [10.0**k for k in range(-4, 4)]}
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        self.pipeline = GridSearchCV(pipeline, strengths, cv=folds, scoring="neg_log_loss")
        self.pipeline.fit(self.features(train).numpy(), train.labels.numpy())
        return self

    def probabilities(self, batch: SeriesBatch) -> Tensor:
        """(B, K) float64; zero for classes that were not among the training rows."""
        if self.pipeline is None:
            raise ValueError("probabilities: asked of a model that was not fitted, fit(train) wanted before")
        found = torch.zeros(len(batch), self.num_classes, dtype=torch.float64)
        classes = torch.as_tensor(self.pipeline.classes_, dtype=torch.long)
        found[:, classes] = torch.as_tensor(self.pipeline.predict_proba(self.features(batch).numpy()))
        return found
