"""Baselines of populations without a network: smoothed counts, and a factor model, each with Poisson regressions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from neurodyn.metrics.neural import poisson_nll
from neurodyn.metrics.poisson_regression import PoissonRegressions
from neurodyn.models.population import PopulationConfig, check_bins
from neurodyn.series import SeriesBatch

Array = NDArray[np.float64]
_EVERY = 5
"""One trial of so many is held out when settings are chosen."""


class _Regressed:
    """Rates of all neurons by a Poisson regression on features of the held-in ones.

    Args:
        bin_width, held_out, num_observed: see `PopulationConfig`. All bins after those that are read get one rate,
            regressed on the features of the last bin that is read.
        smooth: standard deviations of the Gaussian kernel, in bins; alpha: penalties of the regressions. Of several
            those are taken that predict a fifth of the training trials best, held-out neurons if there are any, when
            fitted to the others.
    """

    def __init__(
        self,
        bin_width: float,
        held_out: tuple[int, ...] = (),
        num_observed: int | None = None,
        smooth: Sequence[float] = (1.0, 2.0, 4.0, 8.0),
        alpha: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0),
    ) -> None:
        for name, given in (("smooth", smooth), ("alpha", alpha)):
            if not given or not all(one > 0 for one in given):
                raise ValueError(f"{name}: {tuple(given)} given, positive numbers wanted")
        self.bin_width, self.held_out, self.num_observed = bin_width, tuple(held_out), num_observed
        self.smooth, self.alpha = tuple(smooth), tuple(alpha)
        self.kernel = self.smooth[0]
        self.seen: PoissonRegressions | None = None
        self.later: PoissonRegressions | None = None
        self.num_later = 0

    def _read(self, batch: SeriesBatch) -> Array:
        """Held-in counts of the bins that are read, zero where unobserved, (B, T, held-in)."""
        inside = [k for k in range(batch.num_variables) if k not in self.held_out]
        counts = torch.where(batch.mask, batch.values.double(), 0.0)
        return counts[:, : self.num_observed, inside].cpu().numpy()

    def _features(self, batch: SeriesBatch, kernel: float) -> Array:
        raise NotImplementedError

    def _own(self, neurons: int) -> list[int | None] | None:
        """Which feature is a neuron's own counts, if one is."""
        return None

    def _learn(self, train: SeriesBatch) -> None:
        """Before regressions."""

    def fit(self, train: SeriesBatch) -> _Regressed:
        """Choose, and regress.

        Raises:
            ValueError: settings that do not go with the trials, see `PopulationConfig`; bins of another width.
        """
        PopulationConfig(train.num_variables, self.bin_width, self.held_out, self.num_observed)
        check_bins(train, self.bin_width)
        self._learn(train)
        counts = torch.where(train.mask, train.values.double(), torch.nan).cpu().numpy()
        read = self._read(train).shape[1]
        known, after = counts[:, :read], counts[:, read:]
        targets = list(self.held_out) or list(range(train.num_variables))
        own = self._own(train.num_variables)
        own_of_targets = None if own is None else [own[k] for k in targets]
        tables = {kernel: self._features(train, kernel) for kernel in self.smooth}
        self.kernel, alpha = self._chosen(tables, known[..., targets], own_of_targets)
        features = tables[self.kernel]
        self.seen = PoissonRegressions(_flat(features), _flat(known), alpha, own=own)
        if after.shape[1]:
            bins = (~np.isnan(after)).sum(1)
            self.num_later = after.shape[1]
            total = np.where(bins > 0, np.nansum(after, 1) * self.num_later / bins.clip(1), np.nan)
            last = features[:, -1:]
            _, alpha = self._chosen({self.kernel: last}, total[:, None], None)
            self.later = PoissonRegressions(_flat(last), total, alpha)
        return self

    def _chosen(self, tables: dict[float, Array], counts: Array, own: list[int | None] | None) -> tuple[float, float]:
        """Of kernels with their features (B, T, k), and of penalties, those that predict held-out trials best."""
        trials = np.arange(len(counts))
        out = trials % _EVERY == _EVERY - 1
        pairs = list(itertools.product(tables, self.alpha))
        if len(pairs) == 1 or not out.any():
            return pairs[len(pairs) // 2]

        def loss(pair: tuple[float, float]) -> float:
            features = tables[pair[0]]
            found = PoissonRegressions(_flat(features[~out]), _flat(counts[~out]), pair[1], own=own)
            rates, held = found.rates(_flat(features[out])), _flat(counts[out])
            return poisson_nll(rates, held)

        return min(pairs, key=loss)

    def rates(self, batch: SeriesBatch, bins: int | None = None, num_samples: int = 1, *, seed: int = 0) -> Tensor:
        """Expected counts per bin, (B, bins, N); nothing here is random."""
        if self.seen is None:
            raise ValueError("rates: asked of a model that was not fitted, fit(train) wanted before")
        check_bins(batch, self.bin_width)
        new = self._features(batch, self.kernel)
        found = self.seen.rates(_flat(new)).reshape(*new.shape[:2], -1)
        more = (batch.num_times if bins is None else bins) - found.shape[1]
        if more <= 0:
            return torch.as_tensor(found)
        last = found[:, -1] if self.later is None else self.later.rates(new[:, -1]) / self.num_later
        return torch.as_tensor(np.concatenate([found, np.repeat(last[:, None], more, 1)], 1))


class SmoothingGLM(_Regressed):
    """Poisson regressions on logarithms of smoothed held-in counts of other neurons, after the benchmark's baseline.

    Args: those of the base; offset: counts added before the logarithm, 1e-4 in the benchmark. More is better where
        neurons are nearly silent.
    """

    def __init__(self, bin_width: float, *, offset: float = 0.03, **options: Any) -> None:
        super().__init__(bin_width, **options)
        self.offset = offset

    def _own(self, neurons: int) -> list[int | None] | None:
        inside = [k for k in range(neurons) if k not in self.held_out]
        return [inside.index(k) if k in inside else None for k in range(neurons)]

    def _features(self, batch: SeriesBatch, kernel: float) -> Array:
        return np.log(gaussian_filter1d(self._read(batch), kernel, axis=1) + self.offset)


class FactorModel(_Regressed):
    """Poisson regressions on smoothed factors of the square roots of held-in counts (scikit-learn's FactorAnalysis).

    GPFA-like: factors first, then smoothness in time, with one width for all factors.

    Args: `num_factors` and those of `SmoothingGLM`.
    """

    def __init__(self, bin_width: float, *, num_factors: int = 6, **options: Any) -> None:
        super().__init__(bin_width, **options)
        self.num_factors = num_factors
        self.analysis: Any = None

    def _learn(self, train: SeriesBatch) -> None:
        try:
            from sklearn.decomposition import FactorAnalysis
        except ImportError as error:
            raise ImportError("scikit-learn is needed for FactorModel: pip install 'neurodyn[neural]'") from error
        self.analysis = FactorAnalysis(self.num_factors, random_state=0).fit(_flat(np.sqrt(self._read(train))))

    def _features(self, batch: SeriesBatch, kernel: float) -> Array:
        roots = np.sqrt(self._read(batch))
        factors = self.analysis.transform(_flat(roots))
        return gaussian_filter1d(factors.reshape(*roots.shape[:2], -1), kernel, axis=1)


def _flat(table: Array) -> Array:
    return table.reshape(-1, table.shape[-1])
