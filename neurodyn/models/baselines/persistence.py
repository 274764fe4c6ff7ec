"""Last value, and last value regressed to the mean by horizon: forecasts that any model of short series has to beat."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from neurodyn.forecast import Forecast, check_forecast_times
from neurodyn.models.baselines.pairs import Pairs, last_seen, training_pairs
from neurodyn.models.baselines.residuals import ResidualBank
from neurodyn.noise import RowNoise
from neurodyn.series import SeriesBatch


class LastValue:
    """Each variable stays at its last value; the spread is what the training set's errors were at that horizon.

    A variable that the history never observed is forecast by the training values' distribution.

    Args:
        neighbours: how many training pairs, nearest in horizon, a draw of the error chooses from (`ResidualBank`).
        max_pairs: a larger training set is thinned to this many random pairs of a visit and a later one.
    """

    def __init__(self, neighbours: int = 400, max_pairs: int = 50_000) -> None:
        self.neighbours, self.max_pairs = neighbours, max_pairs

    def fit(
        self, train: SeriesBatch, validation: SeriesBatch | None = None, *, generator: torch.Generator | None = None
    ) -> Self:
        """Collect the training set's errors by horizon; `validation` is not used.

        Raises ValueError if no row has two visits, or if a variable is never observed after an earlier visit.
        """
        count = train.mask.sum((0, 1)).clamp(min=1)
        self.mean = train.values.sum((0, 1)) / count
        generator = generator or torch.Generator(train.device).manual_seed(0)
        pairs = training_pairs(train, limit=self.max_pairs, generator=generator)
        for k, found in enumerate((pairs.seen & pairs.observed).any(0).tolist()):
            if not found:  # so rare that thinning lost it
                pairs = Pairs(
                    *(torch.cat(both) for both in zip(pairs, self._pairs_of(train, k, generator), strict=True))
                )
        usable = pairs.seen & pairs.observed
        self._learn(pairs)
        self._bank = ResidualBank(
            pairs.horizon, pairs.truth - self._point(pairs.last, pairs.age), usable, self.neighbours
        )
        self._marginal = _marginal(train, self.mean)
        return self

    def _pairs_of(self, train: SeriesBatch, variable: int, generator: torch.Generator) -> Pairs:
        """Pairs of one variable's own observations, in which no other is seen."""
        alone = torch.zeros_like(train.mask)
        alone[..., variable] = train.mask[..., variable]
        twice = alone.sum((1, 2)) > 1
        if not twice.any():
            name = (train.variables or range(train.num_variables))[variable]
            raise ValueError(f"train: variable {name!r} has no two observations in any row, one such row is wanted")
        rows = SeriesBatch(train.times[twice], train.values[twice], alone[twice])
        return training_pairs(rows, limit=self.max_pairs, generator=generator)

    def _learn(self, pairs: Pairs) -> None:
        """What the point forecast needs from the training pairs: nothing here."""

    def _point(self, last: Tensor, age: Tensor) -> Tensor:
        """Point forecast from last values and their ages, both (..., D)."""
        return last

    @torch.no_grad()
    def forecast(
        self, history: SeriesBatch, times: Tensor, num_samples: int = 200, *, generator: torch.Generator | None = None
    ) -> Forecast:
        """Sample values at `times`, (B, H) or (H,), not before a row's last observed visit.

        Errors at different times of a row are drawn independently.
        """
        if history.num_variables != len(self.mean):
            raise ValueError(
                f"history: {history.num_variables} variables given, {len(self.mean)} wanted as in training"
            )
        known = last_seen(history)
        last, when, seen = (part[:, -1, None] for part in known)
        times = check_forecast_times(history, times)
        horizon = times - history.last_time[:, None]
        point = torch.where(seen, self._point(last, times[..., None] - when), self.mean)
        noise = RowNoise.of(history, generator)
        error = self._bank.sample(horizon, num_samples, noise)
        if not seen.all():
            error = torch.where(seen, error, self._marginal.sample(horizon, num_samples, noise))
        return Forecast.of(history, times, point + error)


class TrainingValues:
    """The training values' distribution at every time, whatever the history: the training mean, with its spread."""

    def fit(self, train: SeriesBatch) -> Self:
        """Collect the training values. Raises ValueError if a variable has none."""
        self.num_variables = train.num_variables
        self._bank = _marginal(train, torch.zeros((), dtype=train.dtype, device=train.device))
        return self

    @torch.no_grad()
    def forecast(
        self, history: SeriesBatch, times: Tensor, num_samples: int = 200, *, generator: torch.Generator | None = None
    ) -> Forecast:
        """Draws of training visits' values at `times`, (B, H) or (H,), independent over times."""
        if history.num_variables != self.num_variables:
            raise ValueError(
                f"history: {history.num_variables} variables given, {self.num_variables} wanted as in training"
            )
        times = check_forecast_times(history, times)
        return Forecast.of(history, times, self._bank.sample(times, num_samples, RowNoise.of(history, generator)))


def _marginal(train: SeriesBatch, centre: Tensor) -> ResidualBank:
    """The training visits' deviations from a centre, of which every draw may choose any."""
    visits = train.present
    deviation, known = (train.values - centre)[visits], train.mask[visits]
    return ResidualBank(train.times.new_zeros(len(known)), deviation, known, neighbours=len(known))


class RegressedLastValue(LastValue):
    """Last value, drawn towards the mean the more the longer it is ago: y = mean(h) + phi(h) (last - mean) + error.

    Per variable, phi(h) and the drift mean(h) are sums of a constant and exponentials exp(-h / tau) with scales tau
    from the shortest to the longest training horizons, fitted by ridge regression on all training pairs. h is the time
    since that variable's own last value. For an Ornstein-Uhlenbeck process without noise, phi(h) = exp(-rate h).

    Args:
        neighbours, max_pairs: as in `LastValue`.
        num_scales: how many exponentials.
        ridge: weight of the penalty, in pairs: it is the number of standardised pairs that would balance it.
    """

    def __init__(self, neighbours: int = 400, max_pairs: int = 50_000, num_scales: int = 3, ridge: float = 1.0) -> None:
        super().__init__(neighbours, max_pairs)
        self.num_scales, self.ridge = num_scales, ridge

    def _basis(self, age: Tensor) -> Tensor:
        """(..., D) ages to (..., D, K) basis functions. Ages beyond the training set's longest are held there."""
        age = age.clamp(max=self._longest)[..., None]
        return torch.cat((torch.ones_like(age), torch.exp(-age / self._scales)), -1)

    def _learn(self, pairs: Pairs) -> None:
        used = pairs.seen & pairs.observed
        ages = pairs.age[used]
        self._longest = float(ages.max())
        low, high = (
            torch.quantile(ages[:: 1 + len(ages) // 100_000], torch.tensor([0.02, 0.98]).to(ages)).log().tolist()
        )
        self._scales = torch.linspace(low, high, self.num_scales).exp().to(ages)
        basis = self._basis(pairs.age)
        deviation = (pairs.last - self.mean).to(basis)[..., None]
        features = torch.cat((basis * deviation, basis), -1)
        target = (pairs.truth - self.mean).to(basis)
        eye = torch.eye(features.shape[-1], dtype=basis.dtype, device=basis.device)
        weights = []
        for v, known in enumerate(used.unbind(1)):
            x, y = features[known, v], target[known, v]
            weights.append(torch.linalg.solve(x.mT @ x + self.ridge * eye, x.mT @ y))
        self._weights = torch.stack(weights)

    def coefficient(self, horizon: Tensor) -> Tensor:
        """phi(h), how much of the last value's deviation from the mean is left after `horizon` (N,): (N, D)."""
        basis = self._basis(horizon.to(self._scales)[:, None])
        return (basis * self._weights[:, : basis.shape[-1]]).sum(-1)

    def _point(self, last: Tensor, age: Tensor) -> Tensor:
        basis = self._basis(age)
        kept, drift = self._weights.split(basis.shape[-1], -1)
        deviation = (last - self.mean).to(basis)
        return (self.mean + (basis * kept).sum(-1) * deviation + (basis * drift).sum(-1)).to(last.dtype)
