"""Ridge regression on a series read along straight lines: what a linear map of the data forecasts, or fills in."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

from neurodyn.datasets.splits import histories
from neurodyn.forecast import Forecast, check_forecast_times
from neurodyn.models.path_model import neighbours
from neurodyn.noise import RowNoise
from neurodyn.series import SeriesBatch

PENALTIES = torch.logspace(-3, 5, 17, dtype=torch.float64)
MOST = 5000
"""Lines of one regression; more are thinned."""


class Fit(NamedTuple):
    """weights (F + 1, D), the last for the constant; spread (D,), root mean square of the errors of left-out lines."""

    weights: Tensor
    spread: Tensor


def ridge(features: Tensor, targets: Tensor, known: Tensor) -> Fit:
    """Ridge of each target on all features, its penalty chosen by the error of each line from the fit to the others.

    That error is the residual over 1 - h with h the line's leverage, so one singular value decomposition has it for all
    penalties (Golub, Heath and Wahba 1979).

    Args:
        features: (n, F). targets: (n, D). known: (n, D) bool.
    """
    if len(known) > 2 and bool(known.all()):
        return _complete(features.double(), targets.double())
    columns = []
    for d, there in enumerate(known.unbind(1)):
        if int(there.sum()) < 3:  # too few to learn from: the mean of standardised values, with their spread
            columns.append(Fit(features.new_zeros(features.shape[1] + 1, 1).double(), torch.ones(1).double()))
        else:
            columns.append(_complete(features[there].double(), targets[there, d, None].double()))
    return Fit(torch.cat([one.weights for one in columns], 1), torch.cat([one.spread for one in columns]))


def _complete(features: Tensor, targets: Tensor) -> Fit:
    centre, level = features.mean(0), targets.mean(0)
    left, size, right = torch.linalg.svd(features - centre, full_matrices=False)
    along = left.mT @ (targets - level)
    best = torch.full_like(level, torch.inf)
    weights = along.new_zeros(features.shape[1], targets.shape[1])
    for penalty in PENALTIES:
        share = size.square() / (size.square() + penalty)
        leverage = 1 / len(features) + left.square() @ share
        error = (targets - level - left @ (share[:, None] * along)) / (1 - leverage).clamp_min(1e-6)[:, None]
        mean = error.square().mean(0)
        found = right.mT @ ((size / (size.square() + penalty))[:, None] * along)
        weights, best = torch.where(mean < best, found, weights), torch.minimum(mean, best)
    return Fit(torch.cat((weights, (level - centre @ weights)[None])), best.sqrt())


def _thinned(count: int) -> Tensor:
    """Numbers of at most MOST lines of so many."""
    if count <= MOST:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:MOST]


class RidgeForecast:
    """Values after a cut, by ridge on the history at its end and at times before it that double in distance.

    The history is read on straight lines between observations, all variables together; the last values stay. Horizons
    fall into classes of equal numbers, each with a regression of its own, in which the horizon is a feature too. Errors
    are normal, of the size that leaving out says.

    Args:
        until: where histories end, in the batch's time.
        classes: of horizons, at most. reach: how many times the distance doubles.
    """

    def __init__(self, until: float, classes: int = 12, reach: int = 7) -> None:
        self.until, self.classes, self.reach = until, classes, reach

    def fit(self, train: SeriesBatch) -> Self:
        """Fit to rows that have visits on both sides of the cut."""
        history, future = histories(train, until=self.until)
        span = float(self.until - history.first_time.min())
        self.back = torch.tensor([0.0, *(span * 2.0**-k for k in range(self.reach, -1, -1))], dtype=torch.float64)
        base = self._features(history)
        row, visit = future.present.nonzero(as_tuple=True)
        horizon = future.times[row, visit] - self.until
        quantiles = torch.linspace(0, 1, self.classes + 1, dtype=torch.float64)[1:-1]
        edges = torch.quantile(horizon[_thinned(len(horizon))], quantiles, interpolation="lower").unique()
        self.edges = edges[edges < horizon.max()]  # every class has a horizon of the training rows in it
        of = torch.bucketize(horizon, self.edges)
        self.fits: list[Fit] = []
        for k in range(len(self.edges) + 1):
            mine = (of == k).nonzero()[:, 0]
            mine = mine[_thinned(len(mine))]
            features = torch.cat((base[row[mine]], horizon[mine, None]), 1)
            known = future.mask[row[mine], visit[mine]]
            self.fits.append(ridge(features, future.values[row[mine], visit[mine]], known))
        return self

    def _features(self, history: SeriesBatch) -> Tensor:
        known = history.compact()
        return neighbours(known, (self.until - self.back.flip(0)).expand(len(known), -1)).line.flatten(1).double()

    def forecast(
        self, history: SeriesBatch, times: Tensor, num_samples: int = 200, *, generator: torch.Generator | None = None
    ) -> Forecast:
        """Sample values at `times`, (B, H) or (H,); errors at different times are independent."""
        times = check_forecast_times(history, times)
        horizon = (times - self.until).unsqueeze(-1)
        base = self._features(history).unsqueeze(1).expand(-1, times.shape[1], -1)
        features = torch.cat((base, horizon, torch.ones_like(horizon)), -1)
        of = torch.bucketize(horizon[..., 0].contiguous(), self.edges)
        point = torch.zeros(*times.shape, history.num_variables, dtype=torch.float64)
        spread = torch.ones_like(point)
        for k, fit in enumerate(self.fits):
            point[of == k], spread[of == k] = features[of == k] @ fit.weights, fit.spread
        return _drawn(history, times, point, spread, num_samples, generator)


class RidgeInterpolation:
    """Hidden values, by ridge on the rest at their time and at times before and after that double in distance.

    Read and drawn as in `RidgeForecast`.

    Args:
        hidden: share of the training values that are hidden to learn from. reach: how many times the distance doubles.
    """

    def __init__(self, hidden: float = 0.5, reach: int = 6) -> None:
        self.hidden, self.reach = hidden, reach

    def fit(self, train: SeriesBatch) -> Self:
        """Fit to values that are hidden at random from the rest of their rows."""
        return self.learn(*train.drop_observed(self.hidden, torch.Generator().manual_seed(0)))

    def learn(self, known: SeriesBatch, hidden: SeriesBatch) -> Self:
        """Fit to given hidden values and the rest of the same rows, two batches of one shape."""
        span = float((known.last_time - known.first_time).max()) / 2
        far = [span * 2.0**-k for k in range(self.reach)]
        self.around = torch.tensor([*(-x for x in far), 0.0, *reversed(far)], dtype=torch.float64)
        features = self._features(known, hidden.times)
        there = hidden.present.flatten().nonzero()[:, 0]
        there = there[_thinned(len(there))]
        values, mask = hidden.values.flatten(0, 1)[there], hidden.mask.flatten(0, 1)[there]
        self.found = ridge(features.flatten(0, 1)[there], values, mask)
        return self

    def _features(self, batch: SeriesBatch, times: Tensor) -> Tensor:
        """(B, Q, F)."""
        known, size = batch.compact(), times.shape[1]
        asked = (times.double().unsqueeze(-1) + self.around).flatten(1)
        return neighbours(known, asked).line.double().unflatten(1, (size, -1)).flatten(2)

    def point(self, batch: SeriesBatch, times: Tensor) -> Tensor:
        """What the regression says at `times` (B, Q), float64 (B, Q, D)."""
        return self._features(batch, times) @ self.found.weights[:-1] + self.found.weights[-1]

    def sample(
        self, batch: SeriesBatch, times: Tensor, num_samples: int = 200, *, generator: torch.Generator | None = None
    ) -> Forecast:
        """Sample values at `times` (B, Q)."""
        point = self.point(batch, times)
        return _drawn(batch, times, point, self.found.spread.expand_as(point), num_samples, generator)


def _drawn(
    batch: SeriesBatch,
    times: Tensor,
    point: Tensor,
    spread: Tensor,
    num_samples: int,
    generator: torch.Generator | None,
) -> Forecast:
    error = RowNoise.of(batch, generator).samples("error", num_samples, *point.shape[1:])
    return Forecast.of(batch, times, (point + spread * error).to(batch.dtype))
