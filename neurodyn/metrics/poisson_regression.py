"""Poisson regressions of many neurons on common inputs (scikit-learn's, one per neuron)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_TAIL = 1e-3
"""Share of the fitted rates beyond which no predicted rate goes, at either end."""


class PoissonRegressions:
    """Fitted regressions: log-rates are linear in the inputs; without any they are constant.

    Args:
        inputs: (n, k); they are standardised. counts: (n, neurons), NaN where unobserved.
        alpha: penalty of the weights, beside a mean over n.

    Raises:
        ValueError: a neuron without an observed count.
        ImportError: without scikit-learn.
    """

    def __init__(self, inputs: Array, counts: Array, alpha: float = 1e-3) -> None:
        try:
            from sklearn.linear_model import PoissonRegressor
        except ImportError as error:
            raise ImportError("scikit-learn is needed for this: pip install 'neurodyn[neural]'") from error
        observed = ~np.isnan(counts)
        if not observed.any(0).all():
            raise ValueError(f"counts: column {int(observed.any(0).argmin())} is never observed, a count wanted")
        used = inputs[observed.any(1)]
        self.mean, sd = used.mean(0), used.std(0)
        # the deviation of equal numbers is not quite zero
        self.sd = np.where(sd > 1e-9 * np.abs(self.mean), sd, 1.0)
        x = (inputs - self.mean) / self.sd
        self.neurons: list[tuple[Any, float, float]] = []
        for k, known in enumerate(observed.T):
            mean = float(counts[known, k].mean())
            # half a spike in all that was seen: less than that no data can tell
            least = 0.5 / int(known.sum())
            if mean == 0 or not x.shape[1]:
                self.neurons.append((None, max(mean, least), max(mean, least)))
                continue
            seen = x[known]
            regressor = PoissonRegressor(alpha=alpha, solver="newton-cholesky").fit(seen, counts[known, k])
            # an exponential of inputs far from those seen knows no bound
            low, high = np.quantile(regressor.predict(seen), (_TAIL, 1 - _TAIL))
            self.neurons.append((regressor, max(low, least), max(high, least)))

    def rates(self, inputs: Array) -> Array:
        """Expected counts (m, neurons) at inputs (m, k).

        None is beyond the thousandths at either end of those fitted, or below half a spike in all counts of a neuron,
        which is also what a silent neuron gets: one spike where a rate of 1e-9 was predicted costs as much as
        hundreds of spikes gain.
        """
        x = (inputs - self.mean) / self.sd
        found = [
            np.full(len(x), low) if regressor is None else regressor.predict(x).clip(low, high)
            for regressor, low, high in self.neurons
        ]
        return np.stack(found, 1)
