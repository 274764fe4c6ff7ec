"""Baselines of populations without a network: smoothed counts, and a factor model, each with Poisson regressions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from neurodyn.metrics.neural import poisson_regression
from neurodyn.series import SeriesBatch

Array = NDArray[np.float64]


class _Regressed:
    """Rates of all neurons by a Poisson regression on features of the held-in ones.

    Args:
        held_out: positions of neurons that are not read. num_observed: bins that are read, all if not given. All later
            bins get one rate, regressed on the features of the last bin that is read.
        bin_width: in s. smooth: standard deviation of the Gaussian kernel, in s. alpha: penalty of the regressions.
    """

    def __init__(
        self,
        bin_width: float,
        held_out: tuple[int, ...] = (),
        num_observed: int | None = None,
        smooth: float = 0.05,
        alpha: float = 0.03,
    ) -> None:
        for name, given in (("bin_width", bin_width), ("smooth", smooth)):
            if not given > 0:
                raise ValueError(f"{name}: {given} given, a positive number of seconds wanted")
        self.held_out, self.num_observed, self.alpha = tuple(held_out), num_observed, alpha
        self.kernel = smooth / bin_width
        self.features: Array | None = None
        self.counts: Array | None = None

    def _read(self, batch: SeriesBatch) -> Array:
        """Held-in counts of the bins that are read, zero where unobserved, (B, T, held-in)."""
        inside = [k for k in range(batch.num_variables) if k not in self.held_out]
        return batch.values[:, : self.num_observed, inside].double().cpu().numpy()

    def _features(self, batch: SeriesBatch) -> Array:
        raise NotImplementedError

    def _own(self, neurons: int) -> list[int | None] | None:
        """Which feature is a neuron's own counts, if one is."""
        return None

    def _learn(self, train: SeriesBatch) -> None:
        """Before regressions."""

    def fit(self, train: SeriesBatch) -> _Regressed:
        """Keep the training bins; the regressions are fitted when rates are asked for."""
        self._learn(train)
        self.features = self._features(train)
        self.counts = torch.where(train.mask, train.values.double(), torch.nan).cpu().numpy()
        return self

    def rates(self, batch: SeriesBatch, bins: int | None = None, num_samples: int = 1, *, seed: int = 0) -> Tensor:
        """Expected counts per bin, (B, bins, N); nothing here is random."""
        if self.features is None or self.counts is None:
            raise ValueError("rates: asked of a model that was not fitted, fit(train) wanted before")
        new = self._features(batch)
        size, read = new.shape[-1], self.features.shape[1]
        seen = self.counts[:, :read].reshape(-1, self.counts.shape[-1])
        own = self._own(batch.num_variables)
        found = poisson_regression(self.features.reshape(-1, size), seen, new.reshape(-1, size), self.alpha, own=own)
        found = found.reshape(*new.shape[:2], -1)
        more = (batch.num_times if bins is None else bins) - found.shape[1]
        if more <= 0:
            return torch.as_tensor(found)
        after = self.counts[:, read:]
        if after.shape[1]:
            known = (~np.isnan(after)).sum(1)
            total = np.where(known > 0, np.nansum(after, 1) * after.shape[1] / known.clip(1), np.nan)
            last = poisson_regression(self.features[:, -1], total, new[:, -1], self.alpha) / after.shape[1]
        else:
            last = found[:, -1]
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

    def _features(self, batch: SeriesBatch) -> Array:
        return np.log(gaussian_filter1d(self._read(batch), self.kernel, axis=1) + self.offset)


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
        roots = np.sqrt(self._read(train))
        self.analysis = FactorAnalysis(self.num_factors, random_state=0).fit(roots.reshape(-1, roots.shape[-1]))

    def _features(self, batch: SeriesBatch) -> Array:
        roots = np.sqrt(self._read(batch))
        factors = self.analysis.transform(roots.reshape(-1, roots.shape[-1]))
        return gaussian_filter1d(factors.reshape(*roots.shape[:2], -1), self.kernel, axis=1)
