"""Scores of a sample forecast against what then happened: functions of arrays.

Every function takes ``samples`` (S, ...), S equally likely draws, ``truth`` (...), and ``mask`` (...), True where the
truth is known. Scores are elementwise and NaN where the mask is False, so that an entry without a truth can be neither
counted as a zero nor forgotten; :func:`masked_mean` averages the rest. What stands at a masked entry, NaN included,
has no influence. All proper scores are negatively oriented: smaller is better.

Sources: Gneiting and Raftery (2007), *Strictly proper scoring rules, prediction, and estimation*; Ferro (2014), *Fair
scores for ensemble forecasts*; Czado, Gneiting and Held (2009) for the randomised PIT.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from neurodyn.quantiles import sample_quantiles


def crps(samples: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Continuous ranked probability score of the empirical distribution of the samples, exactly.

    ``mean_s |x_s - y| - 1/2 mean_{s,s'} |x_s - x_s'|`` (Gneiting and Raftery 2007, eq. 21). The double sum is taken
    from the sorted samples, ``sum_{s,s'} |x_s - x_s'| = 2 sum_i (2i - S - 1) x_(i)``, in O(S log S).

    A finite sample is scored as if it were the whole forecast, which costs a forecaster ``1/S`` of its spread: compare
    forecasts of the same S, or use :func:`crps_fair`.

    Args:
        samples: (S, ...).
        truth: (...).
        mask: (...) bool, True where the truth is known; all of it when absent.

    Returns:
        (...), in the unit of the data. For one sample it is the absolute error.

    Raises:
        ValueError: shapes that do not fit together.
    """
    samples, truth, mask = _checked(samples, truth, mask)
    return _blank(_crps(samples, truth, fair=False), mask)


def crps_fair(samples: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """CRPS with the unbiased spread, ``1/(S (S-1))`` for ``1/S^2`` (Ferro 2014, eq. 5).

    Its expectation is the CRPS of the distribution the samples were drawn from, for any S >= 2; it may be negative.
    Shapes, unit and errors as :func:`crps`; fewer than two samples is a ``ValueError``.
    """
    samples, truth, mask = _checked(samples, truth, mask, at_least=2)
    return _blank(_crps(samples, truth, fair=True), mask)


def energy_score(samples: Tensor, truth: Tensor, mask: Tensor | None = None, *, fair: bool = False) -> Tensor:
    """Energy score over the last axis: the CRPS of a vector (Gneiting and Raftery 2007, eq. 22).

    ``mean_s ||x_s - y|| - 1/2 mean_{s,s'} ||x_s - x_s'||`` with Euclidean norms over the known entries of each vector,
    which see whether the variables move together. The norm adds the variables up: bring them to one scale first.
    To score whole paths, flatten time and variables into the last axis.

    Args:
        samples: (S, ..., D).
        truth: (..., D).
        mask: (..., D) bool. A vector without a known entry scores NaN.
        fair: the unbiased spread, as in :func:`crps_fair`.

    Returns:
        (...), in the common unit of the D variables. With D = 1 it is the CRPS.
    """
    samples, truth, mask = _checked(samples, truth, mask, at_least=2 if fair else 1)
    if truth.dim() == 0:
        raise ValueError(f"truth: its last axis is the vector to score, but it has shape {tuple(truth.shape)}")
    count = samples.shape[0]
    samples = torch.where(mask, samples, 0.0)
    error = torch.linalg.vector_norm(samples - truth, dim=-1).mean(0)
    # Pairs at cyclic distance k: half of the distances cover every unordered pair, in O(S) memory. (torch.cdist would
    # hold S^2 distances per vector, and loses digits by expanding the square.)
    spread = torch.zeros_like(error)
    for k in range(1, count // 2 + 1):
        distance = torch.linalg.vector_norm(samples - samples.roll(k, 0), dim=-1).sum(0)
        spread = spread + (distance if 2 * k == count else 2 * distance)
    pairs = count * (count - 1) if fair else count * count
    return _blank(error - 0.5 * spread / pairs, mask.any(-1))


def squared_error(samples: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Squared error of the samples' mean, the point forecast it is proper for. (...), unit of the data squared."""
    samples, truth, mask = _checked(samples, truth, mask)
    return _blank((samples.mean(0) - truth).square(), mask)


def absolute_error(samples: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Absolute error of the samples' median, the point forecast it is proper for. (...), unit of the data."""
    samples, truth, mask = _checked(samples, truth, mask)
    return _blank((sample_quantiles(samples, [0.5])[0] - truth).abs(), mask)


def gaussian_nll(samples: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Negative log-density of the normal distribution with the samples' mean and variance; (...), in nats.

    The log score that samples alone support. It is proper (equivalent to the score of Dawid and Sebastiani 1999), sees
    the first two moments only, and needs no bandwidth, on which the log score of a kernel estimate depends more than on
    the forecast. Where the model's own density is at hand, use :func:`log_score`. At least two samples; a forecast
    without spread is a point, and scores +inf (-inf if it hits).
    """
    samples, truth, mask = _checked(samples, truth, mask, at_least=2)
    variance, mean = torch.var_mean(samples, dim=0)
    error = (truth - mean).square()
    ratio = torch.where(error > 0, error / variance, 0.0)
    score = 0.5 * (math.log(2 * math.pi) + variance.log() + ratio)
    return _blank(torch.where(ratio.isinf(), torch.inf, score), mask)  # a missed point: not log 0 + inf = NaN


def log_score(log_probs: Tensor, mask: Tensor | None = None) -> Tensor:
    """Negative log-density of the predictive mixture, ``-log mean_s p(y | latent sample s)``; (...), in nats.

    Args:
        log_probs: (S, ...), the likelihood's log-density of the truth given each latent sample. Sum over whatever is
            to be scored jointly (variables, visits) *before* calling this.
        mask: (...) bool, True where there is something to score.
    """
    if log_probs.dim() == 0 or log_probs.shape[0] == 0:
        raise ValueError(f"log_probs: want (S, ...) with at least one sample, got shape {tuple(log_probs.shape)}")
    score = math.log(log_probs.shape[0]) - torch.logsumexp(log_probs, dim=0)
    return score if mask is None else _blank(score, mask)


def interval_coverage(samples: Tensor, truth: Tensor, level: float, mask: Tensor | None = None) -> Tensor:
    """1 where the central interval of probability ``level`` holds the truth (its ends included), else 0; (...).

    The ends are quantiles by :func:`neurodyn.quantiles.sample_quantiles`, whose coverage of a calibrated forecast is
    the level itself for S with whole ``(S + 1) (1 - level) / 2 >= 1``, and near it for other S beyond the first such.
    """
    samples, truth, mask = _checked(samples, truth, mask)
    low, high = _ends(samples, level)
    return _blank(((truth >= low) & (truth <= high)).to(samples.dtype), mask)


def interval_width(samples: Tensor, level: float, mask: Tensor | None = None) -> Tensor:
    """Width of the central interval of probability ``level``; (...), unit of the data. Narrow is good once covered."""
    if samples.dim() == 0 or samples.shape[0] == 0:
        raise ValueError(f"samples: want (S, ...) with at least one sample, got shape {tuple(samples.shape)}")
    low, high = _ends(samples, level)
    return high - low if mask is None else _blank(high - low, mask)


def pit(
    samples: Tensor, truth: Tensor, mask: Tensor | None = None, *, generator: torch.Generator | None = None
) -> Tensor:
    """Probability integral transform: where in its forecast distribution the truth fell, in (0, 1).

    ``(#{x_s < y} + U (1 + #{x_s = y})) / (S + 1)`` with U uniform: exactly uniform on (0, 1) when truth and samples are
    exchangeable, for any S, with ties (counts, rounded values) or without.

    Args:
        samples: (S, ...); truth: (...); mask: (...).
        generator: source of U, for reproducible values.

    Returns:
        (...); NaN where the mask is False.
    """
    samples, truth, mask = _checked(samples, truth, mask)
    below = (samples < truth).sum(0)
    ties = (samples == truth).sum(0)
    uniform = torch.rand(truth.shape, generator=generator, dtype=samples.dtype, device=samples.device)
    return _blank((below + uniform * (1 + ties)) / (samples.shape[0] + 1), mask)


def pit_histogram(values: Tensor, bins: int = 10) -> tuple[Tensor, Tensor]:
    """Density of PIT values per bin, (bins,), and the edges, (bins + 1,); 1 everywhere for a calibrated forecast."""
    if bins < 1:
        raise ValueError(f"bins: want at least 1, got {bins}")
    known = _known(values)
    counts = torch.histc(known, bins=bins, min=0.0, max=1.0)
    return counts * bins / known.numel(), torch.linspace(0, 1, bins + 1, dtype=values.dtype, device=values.device)


def calibration_curve(values: Tensor, levels: Tensor) -> Tensor:
    """Share of the PIT values inside the central interval of each level: (L,) for ``levels`` (L,). Ideal: equal."""
    distance = (2 * _known(values) - 1).abs().sort().values
    return torch.searchsorted(distance, levels.to(distance), right=True).to(distance) / distance.numel()


def masked_mean(score: Tensor) -> Tensor:
    """Mean of the entries that are not NaN (0-d); NaN when there is none."""
    return score.nanmean()


def _crps(samples: Tensor, truth: Tensor, fair: bool) -> Tensor:
    count = samples.shape[0]
    # Centred at the truth: far from zero, x_(i) would lose the digits of its differences.
    error = (samples - truth).sort(dim=0).values
    weight = torch.arange(1 - count, count, 2, dtype=error.dtype, device=error.device)
    spread = torch.tensordot(weight, error, dims=1) * 2
    pairs = count * (count - 1) if fair else count * count
    return error.abs().mean(0) - 0.5 * spread / pairs


def _ends(samples: Tensor, level: float) -> tuple[Tensor, Tensor]:
    if not 0 < level < 1:
        raise ValueError(f"level: want a probability inside (0, 1), got {level}")
    low, high = sample_quantiles(samples, [(1 - level) / 2, (1 + level) / 2])
    return low, high


def _checked(samples: Tensor, truth: Tensor, mask: Tensor | None, at_least: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Samples and truth with zeros at the masked entries, so that NaN there reaches neither scores nor gradients."""
    if samples.dim() == 0 or samples.shape[0] < at_least:
        raise ValueError(f"samples: want (S, ...) with S >= {at_least}, got shape {tuple(samples.shape)}")
    if samples.shape[1:] != truth.shape:
        raise ValueError(
            f"truth: want shape {tuple(samples.shape[1:])}, that of the samples after their first axis, "
            f"got {tuple(truth.shape)}"
        )
    if not samples.is_floating_point():
        raise ValueError(f"samples: want a floating-point tensor, got {samples.dtype}")
    truth = truth.to(samples.dtype)
    if mask is None:
        return samples, truth, torch.ones_like(truth, dtype=torch.bool)
    if mask.shape != truth.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"mask: want a bool tensor of the truth's shape {tuple(truth.shape)}, "
            f"got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    return torch.where(mask, samples, 0.0), torch.where(mask, truth, 0.0), mask


def _blank(score: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, score, torch.nan)


def _known(values: Tensor) -> Tensor:
    known = values[~values.isnan()]
    if known.numel() == 0:
        raise ValueError("values: no PIT value that is not NaN")
    return known
