"""Scores of firing rates against binned spikes and behaviour, as the Neural Latents Benchmark defines them.

Rates are *expected counts per bin*, (trials, bins, neurons), and counts have the same shape, NaN where there is nothing
to score. Source: Pei et al. (2021), "Neural Latents Benchmark '21", section 3; few-shot co-smoothing: Dabholkar and
Barak (2024), arXiv 2405.14425. Regressions need the extra `neural` (scikit-learn).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.special import gammaln
from scipy.stats import pearsonr

from neurodyn.metrics.poisson_regression import PoissonRegressions

Array = NDArray[np.float64]
SMALLEST_RATE = 1e-9
"""What takes the place of a predicted rate of zero, which would make one spike infinitely unlikely."""
RIDGE_ALPHAS = np.logspace(-4, 0, 9)
"""Penalties that the benchmark's decoder chooses from, by five-fold cross-validation."""


def poisson_nll(rates: ArrayLike, counts: ArrayLike) -> float:
    """Negative Poisson log-likelihood in nats, summed over the entries where the count is not NaN.

    Raises:
        ValueError: unlike shapes; a rate that is negative or NaN where there is a count.
    """
    rates, counts = _pair(rates, counts)
    known = ~np.isnan(counts)
    rate, count = rates[known], counts[known]
    if not (rate >= 0).all():
        where = np.argwhere(known & ~(rates >= 0))[0].tolist()
        raise ValueError(f"rates: {rates[tuple(where)]:g} given at {where}, numbers from 0 wanted (counts per bin)")
    rate = np.where(rate == 0, SMALLEST_RATE, rate)
    return float((rate - count * np.log(rate) + gammaln(count + 1)).sum())


def bits_per_spike(rates: ArrayLike, counts: ArrayLike) -> float:
    """Log-likelihood above that of each neuron's mean count *in these counts*, in bits, per spike of all neurons.

    On held-out neurons this is co-bps; on bins after the window, held-in and held-out neurons together, fp-bps.

    Raises:
        ValueError: see `poisson_nll`; no spike at all.
    """
    rates, counts = _pair(rates, counts)
    spikes = np.nansum(counts)
    if not spikes > 0:
        raise ValueError("counts: no spike in any bin, at least one wanted (bits are counted per spike)")
    null = np.nanmean(counts.reshape(-1, counts.shape[-1]), axis=0)
    gain = poisson_nll(np.broadcast_to(null, counts.shape), counts) - poisson_nll(rates, counts)
    return float(gain / spikes / math.log(2))


def rate_r2(rates: ArrayLike, truth: ArrayLike) -> Array:
    """R2 of every neuron's rates against known ones, (neurons,), over trials and bins; NaN where the truth is constant.

    Near-silent neurons have wild values: report the median beside the mean.
    """
    rates, truth = (x.reshape(-1, x.shape[-1]) for x in _pair(rates, truth, "truth"))
    total = (truth - truth.mean(0)).__pow__(2).sum(0)
    missed = np.square(truth - rates).sum(0)
    return np.where(total > 0, 1 - missed / np.where(total > 0, total, 1.0), np.nan)


def velocity_r2(
    train_rates: ArrayLike,
    train_behaviour: ArrayLike,
    rates: ArrayLike,
    behaviour: ArrayLike,
    *,
    train_groups: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> float:
    """R2 of behaviour decoded linearly from the rates of the same bins, a uniform average over behaviour's columns.

    Ridge regression fitted on the training trials, its penalty chosen among `RIDGE_ALPHAS`; bins whose behaviour is NaN
    are left out. Shift behaviour by its lag beforehand.

    Args:
        train_rates, rates: (trials, bins, neurons), held-in and held-out ones.
        train_behaviour, behaviour: (trials, bins, columns).
        train_groups, groups: (trials, G) bool: a decoder of its own for each group of trials; scores are averaged.

    Raises:
        ValueError: shapes that do not fit; a rate that is NaN where behaviour is known.
        ImportError: without scikit-learn.
    """
    parts = [np.asarray(x, dtype=float) for x in (train_rates, train_behaviour, rates, behaviour)]
    chosen = [
        np.ones((len(table), 1), bool) if given is None else np.asarray(given, bool)
        for table, given in ((parts[0], train_groups), (parts[2], groups))
    ]
    for name, table, other in (("train_behaviour", parts[1], parts[0]), ("behaviour", parts[3], parts[2])):
        if table.shape[:2] != other.shape[:2]:
            raise ValueError(f"{name}: shape {table.shape} given, {other.shape[:2]} trials and bins wanted")
    scores = []
    for group in range(chosen[0].shape[1]):
        x, y = _known_bins("train_rates", parts[0][chosen[0][:, group]], parts[1][chosen[0][:, group]])
        decoder = ridge().fit(x, y)
        x, y = _known_bins("rates", parts[2][chosen[1][:, group]], parts[3][chosen[1][:, group]])
        scores.append(float(decoder.score(x, y)))
    return float(np.mean(scores))


def ridge() -> Any:
    """The benchmark's decoder: scikit-learn's ridge regression with a cross-validated penalty."""
    _sklearn()
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV

    return GridSearchCV(Ridge(), {"alpha": RIDGE_ALPHAS})


def psth_r2(psth: ArrayLike, rates: ArrayLike, trials: Sequence[ArrayLike], jitter: ArrayLike | None = None) -> float:
    """R2 of each condition's mean predicted rates against its PSTH, over conditions and bins, averaged over neurons.

    Args:
        psth: (conditions, bins, neurons), NaN in bins that are not scored.
        rates: (trials, bins, neurons).
        trials: for every condition the indices of its trials among those of `rates`; conditions without any are
            left out.
        jitter: (trials,) whole bins by which a trial's rates are moved later (earlier if negative) before averaging.

    Raises:
        ValueError: shapes that do not fit; no condition with trials; bins that a moved trial does not cover.
        ImportError: without scikit-learn.
    """
    truth, predicted = np.asarray(psth, dtype=float), np.asarray(rates, dtype=float)
    if truth.ndim != 3 or truth.shape[1:] != predicted.shape[1:] or len(trials) != len(truth):
        raise ValueError(
            f"psth: shape {truth.shape} given for {len(trials)} conditions and rates {predicted.shape}, "
            "(conditions, bins, neurons) wanted"
        )
    moves = np.zeros(len(predicted), int) if jitter is None else np.asarray(jitter).astype(int)
    pairs = []
    for condition, chosen in enumerate(trials):
        index = np.asarray(chosen, dtype=int)
        if index.size == 0:
            continue
        mean = np.mean([_moved(predicted[k], int(moves[k])) for k in index], axis=0)
        scored = ~np.isnan(truth[condition, :, 0])
        if np.isnan(mean[scored]).any():
            raise ValueError(f"rates: NaN in bins of condition {condition} that its PSTH covers, numbers wanted")
        pairs.append((truth[condition][scored], mean[scored]))
    if not pairs:
        raise ValueError("trials: no condition has any, at least one wanted")
    _sklearn()
    from sklearn.metrics import r2_score

    return float(r2_score(np.vstack([a for a, _ in pairs]), np.vstack([b for _, b in pairs])))


def tp_correlation(rates: ArrayLike, scored: ArrayLike, conditions: ArrayLike, produced: ArrayLike) -> float:
    """Pearson correlation of neural speed and produced interval, averaged over conditions (more negative is better).

    Speed is the mean over a trial's scored bins of |r(t+1) - r(t)|, the norm over all neurons.

    Args:
        rates: (trials, bins, neurons). scored: (trials, bins) bool, the bins from set to go.
        conditions: (trials, K), equal rows are one condition; rows of NaN are left out. produced: (trials,).

    Raises:
        ValueError: a condition with one trial, no condition, a trial with less than two scored bins.
    """
    rates, scored = np.asarray(rates, dtype=float), np.asarray(scored, bool)
    table, produced = np.asarray(conditions, dtype=float), np.asarray(produced, dtype=float)
    kinds = np.unique(table[~np.isnan(table).all(1)], axis=0)
    members = [same for kind in kinds if len(same := np.flatnonzero((table == kind).all(1)))]
    if not members or (few := min(map(len, members))) < 2:
        given = f"a condition with {few} trial" if members else "no condition"
        raise ValueError(f"conditions: {given} given, two trials or more of each wanted")
    if (short := scored[np.concatenate(members)].sum(1)).min() < 2:
        raise ValueError(f"scored: a trial with {short.min()} bins given, two or more wanted")
    found = []
    for same in members:
        speeds = [np.linalg.norm(np.diff(rates[k][scored[k]], axis=0), axis=1).mean() for k in same]
        found.append(pearsonr(speeds, produced[same])[0])
    return float(np.mean(found))


def condition_psths(counts: ArrayLike, labels: ArrayLike, smooth: float) -> tuple[Array, NDArray[Any]]:
    """Means of the counts of equal labels, smoothed in time: (conditions, bins, neurons), and the labels (conditions,).

    Args:
        counts: (trials, bins, neurons), NaN where unobserved; every neuron is observed in every bin of some trial of
            each condition.
        labels: (trials,). smooth: standard deviation of the Gaussian, in bins.
    """
    table, kind = np.asarray(counts, dtype=float), np.asarray(labels)
    kinds = np.unique(kind)
    means = np.stack([np.nanmean(table[kind == one], 0) for one in kinds])
    return gaussian_filter1d(means, smooth, axis=1, mode="nearest"), kinds


def population_scores(
    rates: ArrayLike,
    counts: ArrayLike,
    held_out: Sequence[int],
    observed: int,
    *,
    truth: ArrayLike | None = None,
    train_rates: ArrayLike | None = None,
    moves: tuple[ArrayLike, ArrayLike] | None = None,
    groups: tuple[ArrayLike, ArrayLike] | None = None,
    psth: tuple[ArrayLike, Sequence[ArrayLike]] | None = None,
    jitter: ArrayLike | None = None,
    timing: ArrayLike | None = None,
) -> dict[str, float]:
    """What the data allow of co-bps, fp-bps, decoding R2, PSTH R2, tp correlation and rate R2, by name.

    Of observed bins all but fp-bps; the rate R2 is the mean over neurons.

    Args:
        rates, counts: (trials, bins, N). held_out: neurons that were not read. observed: bins that were.
        truth: known expected counts per bin. train_rates: of the training trials. moves: their behaviour and that of
            the trials scored, (trials, bins, columns). groups: of both as well, see `velocity_r2`.
        psth, jitter: see `psth_r2`, the trials with the PSTHs; of the observed bins.
        timing: (trials, K): columns of `conditions` and then `produced` of `tp_correlation`; the scored bins are those
            where held-out neurons have counts.
    """
    found: dict[str, float] = {}
    predicted, spikes, seen = np.asarray(rates, dtype=float), np.asarray(counts, dtype=float), slice(0, observed)
    outside = list(held_out)
    if np.nansum(spikes[:, seen][..., outside]) > 0:
        found["co-bps"] = bits_per_spike(predicted[:, seen][..., outside], spikes[:, seen][..., outside])
    if np.nansum(spikes[:, observed:]) > 0:
        found["fp-bps"] = bits_per_spike(predicted[:, observed:], spikes[:, observed:])
    if moves is not None and train_rates is not None:
        parts = (np.asarray(part)[:, seen] for part in (train_rates, moves[0], predicted, moves[1]))
        of_train, of_test = (None, None) if groups is None else groups
        found["decoding R2"] = velocity_r2(*parts, train_groups=of_train, groups=of_test)
    if psth is not None:
        found["PSTH R2"] = psth_r2(psth[0], predicted[:, seen], psth[1], jitter)
    if timing is not None and outside:
        table, scored = np.asarray(timing, dtype=float), ~np.isnan(spikes[:, seen][..., outside[0]])
        found["tp correlation"] = tp_correlation(predicted[:, seen], scored, table[:, :-1], table[:, -1])
    if truth is not None:
        found["rate R2"] = float(np.nanmean(rate_r2(predicted[:, seen], np.asarray(truth)[:, seen])))
    return found


def few_shot_bits_per_spike(
    train_latents: ArrayLike,
    train_counts: ArrayLike,
    latents: ArrayLike,
    counts: ArrayLike,
    *,
    shots: int,
    draws: int = 5,
    alpha: float = 1e-3,
    seed: int = 0,
) -> float:
    """co-bps of held-out neurons that are read from the latents by Poisson regressions on few training trials.

    A model whose latents hold more than the data need loses here, though not in plain co-smoothing.

    Args:
        train_latents, latents: (trials, bins, d). train_counts, counts: (trials, bins, held-out neurons).
        shots: how many training trials a regression sees. draws: random choices of them, over which scores are
            averaged. alpha: penalty of the regression.

    Raises:
        ValueError: more shots than training trials, or fewer than one. ImportError: without scikit-learn.
    """
    z, y = np.asarray(train_latents, dtype=float), np.asarray(train_counts, dtype=float)
    new, truth = np.asarray(latents, dtype=float), np.asarray(counts, dtype=float)
    if not 1 <= shots <= len(z):
        raise ValueError(f"shots: {shots} given, 1 to {len(z)} training trials wanted")
    random, scores = np.random.default_rng(seed), []
    for _ in range(draws):
        chosen = random.choice(len(z), shots, replace=False)
        rates = PoissonRegressions(_flat(z[chosen]), _flat(y[chosen]), alpha).rates(_flat(new))
        scores.append(bits_per_spike(rates.reshape(truth.shape), truth))
    return float(np.mean(scores))


def _flat(table: Array) -> Array:
    return table.reshape(-1, table.shape[-1])


def _known_bins(name: str, rates: Array, behaviour: Array) -> tuple[Array, Array]:
    """Bins with behaviour, flat."""
    x, y = _flat(rates), _flat(behaviour)
    known = ~np.isnan(y).any(1)
    if np.isnan(x[known]).any():
        raise ValueError(f"{name}: NaN where behaviour is known, numbers wanted")
    return x[known], y[known]


def _moved(trial: Array, bins: int) -> Array:
    """(bins, neurons) moved later, NaN where nothing comes from."""
    moved = np.full_like(trial, np.nan)
    if bins >= 0:
        moved[bins:] = trial[: len(trial) - bins]
    else:
        moved[:bins] = trial[-bins:]
    return moved


def _pair(rates: ArrayLike, counts: ArrayLike, name: str = "counts") -> tuple[Array, Array]:
    first, second = np.asarray(rates, dtype=float), np.asarray(counts, dtype=float)
    if first.shape != second.shape or first.ndim < 2:
        raise ValueError(f"rates, {name}: shapes {first.shape} and {second.shape} given, equal ones wanted")
    return first, second


def _sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError("scikit-learn is needed for this: pip install 'neurodyn[neural]'") from error
