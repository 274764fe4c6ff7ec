"""Baselines of populations without a network: smoothed counts, and a factor model, each with Poisson regressions."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from neurodyn.metrics.neural import poisson_nll
from neurodyn.metrics.poisson_regression import PoissonRegressions
from neurodyn.models.population import PopulationConfig, check_asked, last_bin
from neurodyn.series import SeriesBatch

Array = NDArray[np.float64]
_EVERY = 5
"""One trial of so many, and one neuron if none are held out, is hidden when settings are chosen."""


class _Regressed:
    """Rates of all neurons by a Poisson regression on features of the held-in ones.

    Args:
        bin_width, held_out, num_observed: see `PopulationConfig`. All bins after those that are read get one rate,
            regressed on the features of the last bin that is read.
        smooth: standard deviations of the Gaussian kernel, in bins; alpha: penalties of the regressions. Of several
            those are taken that predict held-out neurons (a fifth of all, if none are) in a fifth of the training
            trials best, when fitted to the others; in later bins, the penalty that predicts all neurons best.
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
            if not isinstance(given, Sequence) or not given or not all(one > 0 for one in given):
                raise ValueError(f"{name}: {given} given, a sequence of positive numbers wanted")
        self.bin_width, self.held_out, self.num_observed = bin_width, tuple(held_out), num_observed
        self.smooth, self.alpha = tuple(smooth), tuple(alpha)
        self.kernel, self.num_neurons, self.num_later = self.smooth[0], 0, 0
        self.seen: list[tuple[PoissonRegressions, list[int], int | None]] = []
        self.later: PoissonRegressions | None = None
        self.seen_later: NDArray[np.bool_] | None = None

    def _learn(self, train: SeriesBatch, inside: list[int]) -> None:
        """Before regressions."""

    def _table(self, batch: SeriesBatch, inside: list[int], kernel: float) -> Array:
        """A column for each of the neurons `inside`, smoothed, in the bins that are read: (B, T, len(inside))."""
        raise NotImplementedError

    def _features(self, table: Array, left_out: int | None) -> Array:
        """Of a table (B, T, k), but for one of its columns: a neuron's own counts would predict them best."""
        raise NotImplementedError

    def _read(self, batch: SeriesBatch, inside: list[int]) -> Array:
        """Counts in the bins that are read, zero where unobserved, (B, T, k)."""
        counts = torch.where(batch.mask, batch.values.double(), 0.0)
        return counts[:, : self.num_observed, inside].cpu().numpy()

    def _smoothed(self, batch: SeriesBatch, table: Array, kernel: float) -> Array:
        """A table (B, T, k) smoothed in time, each row up to its own last bin, and standing still after it."""
        found, end = np.empty_like(table), last_bin(batch).cpu().numpy().clip(max=table.shape[1] - 1)
        for last in np.unique(end):
            rows = end == last
            found[rows, : last + 1] = gaussian_filter1d(table[rows, : last + 1], kernel, axis=1)
            found[rows, last:] = found[rows, last : last + 1]
        return found

    def _inside(self, hidden: tuple[int, ...]) -> list[int]:
        return [k for k in range(self.num_neurons) if k not in hidden]

    def fit(self, train: SeriesBatch) -> _Regressed:
        """Choose, and regress.

        Raises:
            ValueError: settings that do not go with the trials, see `PopulationConfig`; bins of another width; a neuron
                that is never observed in the bins that are read.
        """
        self.num_neurons, self.seen, self.later = train.num_variables, [], None
        PopulationConfig(self.num_neurons, self.bin_width, self.held_out, self.num_observed)
        check_asked(train, None, self.num_neurons, self.bin_width)
        counts = torch.where(train.mask, train.values.double(), torch.nan).cpu().numpy()
        read = counts[:, : self.num_observed].shape[1]
        known, after = counts[:, :read], counts[:, read:]
        if (never := np.isnan(known).all((0, 1))).any():
            raise ValueError(f"train: neuron {train.variables[int(never.argmax())]} is never observed in bins read")
        hidden, alpha = self.held_out, self.alpha[len(self.alpha) // 2]
        if not hidden and self.num_neurons > 1:
            hidden = tuple(range(0, self.num_neurons, _EVERY))
        if hidden:
            inside = self._inside(hidden)
            self._learn(train, inside)
            features = {kernel: self._features(self._table(train, inside, kernel), None) for kernel in self.smooth}
            self.kernel, alpha = self._chosen(features, known[..., list(hidden)])
        inside = self._inside(self.held_out)
        if not self.held_out:  # what was learned is learned again, with all neurons
            self._learn(train, inside)
        table = self._table(train, inside, self.kernel)
        groups = [([k], place) for place, k in enumerate(inside)]
        for targets, left_out in [(list(self.held_out), None), *groups] if self.held_out else groups:
            features_ = self._features(table, left_out)
            found = PoissonRegressions(_flat(features_), _flat(known[..., targets]), alpha)
            self.seen.append((found, targets, left_out))
        bins, self.num_later = (~np.isnan(after)).sum(1), after.shape[1]
        self.seen_later = bins.any(0)
        if self.seen_later.any():
            total = np.where(bins > 0, np.nansum(after, 1) * self.num_later / bins.clip(1), np.nan)[:, self.seen_later]
            last = self._features(table, None)[:, -1:]
            _, alpha = self._chosen({self.kernel: last}, total[:, None])
            self.later = PoissonRegressions(_flat(last), total, alpha)
        return self

    def _chosen(self, features: dict[float, Array], counts: Array) -> tuple[float, float]:
        """Of kernels with their features (B, T, k), and of penalties, those that predict hidden trials best."""
        out = np.arange(len(counts)) % _EVERY == _EVERY - 1
        pairs = list(itertools.product(features, self.alpha))
        seen = ~np.isnan(counts[~out]).all((0, 1))
        if len(pairs) == 1 or not out.any() or not seen.any():
            return pairs[len(pairs) // 2]

        def loss(pair: tuple[float, float]) -> float:
            inputs, targets = features[pair[0]], counts[..., seen]
            found = PoissonRegressions(_flat(inputs[~out]), _flat(targets[~out]), pair[1])
            return poisson_nll(found.rates(_flat(inputs[out])), _flat(targets[out]))

        return min(pairs, key=loss)

    def rates(self, batch: SeriesBatch, bins: int | None = None, num_samples: int = 1, *, seed: int = 0) -> Tensor:
        """Expected counts per bin, (B, bins, N), see `PopulationModel.rates`; nothing here is random."""
        if self.seen_later is None:
            raise ValueError("rates: asked of a model that was not fitted, fit(train) wanted before")
        bins = check_asked(batch, bins, self.num_neurons, self.bin_width)
        table = self._table(batch, self._inside(self.held_out), self.kernel)
        found = np.empty((*table.shape[:2], self.num_neurons))
        for regressions, targets, left_out in self.seen:
            new = self._features(table, left_out)
            found[..., targets] = regressions.rates(_flat(new)).reshape(*new.shape[:2], -1)
        last = found[:, -1].copy()
        if self.later is not None and self.num_observed is not None and bins > self.num_observed:
            last[:, self.seen_later] = self.later.rates(self._features(table[:, -1:], None)[:, 0]) / self.num_later
        return torch.as_tensor(np.concatenate([found, np.repeat(last[:, None], bins - found.shape[1], 1)], 1))


class SmoothingGLM(_Regressed):
    """Poisson regressions on logarithms of smoothed held-in counts of other neurons, after the benchmark's baseline.

    Args: those of the base; offset: counts added before the logarithm, 1e-4 in the benchmark. More is better where
        neurons are nearly silent.
    """

    def __init__(self, bin_width: float, *, offset: float = 0.03, **options: Any) -> None:
        super().__init__(bin_width, **options)
        self.offset = offset

    def _table(self, batch: SeriesBatch, inside: list[int], kernel: float) -> Array:
        return np.log(self._smoothed(batch, self._read(batch, inside), kernel) + self.offset)

    def _features(self, table: Array, left_out: int | None) -> Array:
        return table if left_out is None else np.delete(table, left_out, -1)


class FactorModel(_Regressed):
    """Poisson regressions on smoothed factors of the square roots of held-in counts (scikit-learn's FactorAnalysis).

    GPFA-like: factors and smoothness in time, with one width for all factors. Means of the factors given the other
    neurons predict a held-in one, as all held-in ones do a held-out one.

    Args: `num_factors` and those of `SmoothingGLM`.
    """

    def __init__(self, bin_width: float, *, num_factors: int = 6, **options: Any) -> None:
        super().__init__(bin_width, **options)
        self.num_factors = num_factors
        self.analysis: Any = None

    def _learn(self, train: SeriesBatch, inside: list[int]) -> None:
        try:
            from sklearn.decomposition import FactorAnalysis
        except ImportError as error:
            raise ImportError("scikit-learn is needed for FactorModel: pip install 'neurodyn[neural]'") from error
        roots = np.sqrt(self._read(train, inside))
        present = train.present[:, : roots.shape[1]].cpu().numpy()
        self.analysis = FactorAnalysis(self.num_factors, random_state=0).fit(roots[present])

    def _table(self, batch: SeriesBatch, inside: list[int], kernel: float) -> Array:
        return self._smoothed(batch, np.sqrt(self._read(batch, inside)), kernel)

    def _features(self, table: Array, left_out: int | None) -> Array:
        analysis = copy.copy(self.analysis)
        if left_out is not None and table.shape[-1] == 1:
            return table[..., :0]
        if left_out is not None:  # the model of the others is the same without its column
            table = np.delete(table, left_out, -1)
            analysis.components_ = np.delete(analysis.components_, left_out, 1)
            analysis.mean_, analysis.noise_variance_ = (
                np.delete(part, left_out) for part in (analysis.mean_, analysis.noise_variance_)
            )
            analysis.n_features_in_ = table.shape[-1]
        return analysis.transform(_flat(table)).reshape(*table.shape[:2], -1)


def _flat(table: Array) -> Array:
    return table.reshape(math.prod(table.shape[:-1]), table.shape[-1])
