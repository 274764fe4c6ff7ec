"""Scores of probabilities of classes: accuracy, log score, Brier score, calibration error, confusion."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ClassScores(NamedTuple):
    """How good probabilities of classes are; see `score_classes`."""

    accuracy: float
    """Share of rows whose most probable class is right."""
    log_score: float
    """Mean of -log p(right class), nats; lower is better."""
    brier: float
    """Mean of sum_k (p_k - [k is right])^2, from 0 to 2; lower is better. Brier (1950)."""
    calibration_error: float
    """Expected calibration error: |share right - mean confidence| over ten equal bins of confidence, weighted by rows.
    Guo, Pleiss, Sun and Weinberger (2017), arXiv 1706.04599, eq. 3."""


def score_classes(probabilities: Tensor, labels: Tensor) -> ClassScores:
    """Scores of probabilities (B, K) whose rows sum to one, given class codes (B,).

    Raises:
        ValueError: shapes that do not fit, codes outside 0 ... K - 1, rows that do not sum to one.
    """
    p, y = _checked(probabilities, labels)
    right = p.gather(1, y[:, None])[:, 0]
    truth = torch.nn.functional.one_hot(y, p.shape[1])
    bins = reliability(probabilities, labels)
    gap = (bins.share_right - bins.confidence).abs() * bins.rows
    return ClassScores(
        accuracy=float((p.argmax(1) == y).double().mean()),
        log_score=float(-right.clamp_min(torch.finfo(torch.float64).tiny).log().mean()),
        brier=float((p - truth).square().sum(1).mean()),
        calibration_error=float(gap.nan_to_num().sum() / len(y)),
    )


class Reliability(NamedTuple):
    """Bins of confidence: (N,) each; NaN where a bin is empty."""

    confidence: Tensor
    """Mean probability of the most probable class."""
    share_right: Tensor
    """How often it was right."""
    rows: Tensor
    """How many rows are in the bin."""


def reliability(probabilities: Tensor, labels: Tensor, num_bins: int = 10) -> Reliability:
    """How often the most probable class is right, by how probable it was, in equal bins of (0, 1]."""
    p, y = _checked(probabilities, labels)
    sure, guess = p.max(1)
    where = (sure * num_bins).ceil().long().clamp(1, num_bins) - 1
    count = torch.zeros(num_bins, dtype=torch.float64).index_add_(0, where, torch.ones_like(sure))
    total = torch.zeros_like(count).index_add_(0, where, sure)
    right = torch.zeros_like(count).index_add_(0, where, (guess == y).double())
    return Reliability(total / count, right / count, count)


def confusion(probabilities: Tensor, labels: Tensor) -> Tensor:
    """(K, K) counts: rows are the right classes, columns the most probable ones."""
    p, y = _checked(probabilities, labels)
    size = p.shape[1]
    return torch.bincount(y * size + p.argmax(1), minlength=size * size).reshape(size, size)


def _checked(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    p, y = probabilities.detach().double().cpu(), labels.detach().cpu()
    if p.ndim != 2 or y.shape != p.shape[:1] or not len(y):
        raise ValueError(
            f"probabilities, labels: got shapes {tuple(p.shape)} and {tuple(y.shape)}, want (B, K) and (B,)"
        )
    if y.is_floating_point() or int(y.min()) < 0 or int(y.max()) >= p.shape[1]:
        raise ValueError(f"labels: got {y.dtype} from {y.min()} to {y.max()}, want whole numbers below {p.shape[1]}")
    if not torch.allclose(p.sum(1), torch.ones(len(p), dtype=p.dtype), atol=1e-4):
        raise ValueError("probabilities: got rows that do not sum to one, want probabilities")
    return p, y.long()
