"""Scores of learned graphs against known ones.

Graphs are (..., d, d) arrays with ``A[i, j] = 1`` where *i drives j*, the diagonal being self-loops; leading axes
(seeds, data sets) are pooled. `scores` rank edges (any numbers, larger is surer), `probabilities` lie in [0, 1]. AUROC
and AUPRC need the extra `structure` (scikit-learn).

Sources: Fawcett (2006), *An introduction to ROC analysis*; Tsamardinos, Brown and Aliferis (2006) for the structural
Hamming distance; Guo, Pleiss, Sun and Weinberger (2017), arXiv 1706.04599, eq. 3, for the calibration error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


def auroc(scores: ArrayLike, truth: ArrayLike, *, diagonal: bool = True) -> float:
    """Area under the receiver operating characteristic: the chance that an edge scores above a non-edge, ties a half.

    Args:
        scores: (..., d, d). truth: (..., d, d) of zeros and ones.
        diagonal: whether self-loops count.

    Raises:
        ValueError: unlike shapes, scores that are not finite, a truth that is not 0 and 1, or without both.
        ImportError: without scikit-learn.
    """
    found, real = _both_kinds(scores, truth, diagonal)
    return float(_sklearn().roc_auc_score(real, found))


def auprc(scores: ArrayLike, truth: ArrayLike, *, diagonal: bool = True) -> float:
    """Area under the precision-recall curve as average precision; chance is the share of edges. Arguments: `auroc`."""
    found, real = _both_kinds(scores, truth, diagonal)
    return float(_sklearn().average_precision_score(real, found))


def hamming_distance(graph: ArrayLike, truth: ArrayLike, *, diagonal: bool = True) -> int:
    """Structural Hamming distance: edges to add, take away or turn round; one that points the wrong way counts once.

    Args:
        graph, truth: (..., d, d) of zeros and ones.

    Raises:
        ValueError: unlike shapes, or entries other than 0 and 1.
    """
    found, real = _graphs(graph, truth)
    for name, table in (("graph", found), ("truth", real)):
        _check_binary(name, table)
    wrong = found != real
    if not diagonal:
        wrong = wrong & ~np.eye(real.shape[-1], dtype=bool)
    # turned round: alone in its pair on both sides, and the wrong one
    turned = wrong & wrong.swapaxes(-1, -2) & (found == real.swapaxes(-1, -2)) & (found != found.swapaxes(-1, -2))
    return int(wrong.sum() - turned.sum() // 2)


def threshold_scores(
    probabilities: ArrayLike, truth: ArrayLike, *, threshold: float = 0.5, diagonal: bool = True
) -> dict[str, float]:
    """F1, true positive rate (recall) and false discovery rate of the edges with a probability above the threshold.

    Without a found edge the false discovery rate is 0; without a true one F1 and the true positive rate are NaN.
    """
    found, real = _entries(probabilities, truth, diagonal)
    chosen, real = found > threshold, real > 0
    hits, number, edges = int((chosen & real).sum()), int(chosen.sum()), int(real.sum())
    return {
        "f1": 2 * hits / (number + edges) if edges else float("nan"),
        "tpr": hits / edges if edges else float("nan"),
        "fdr": (number - hits) / number if number else 0.0,
    }


def calibration_error(probabilities: ArrayLike, truth: ArrayLike, *, bins: int = 10, diagonal: bool = True) -> float:
    """Expected calibration error: over equal bins of probability, the mean gap between probability and share of edges.

    Bins count by their entries. 0 is perfect; a constant probability equal to the share of edges scores 0 too, so read
    it beside the AUROC.

    Raises:
        ValueError: probabilities outside [0, 1]; no bins.
    """
    found, real = _entries(probabilities, truth, diagonal)
    if bins < 1:
        raise ValueError(f"bins: {bins} given, 1 or more wanted")
    if found.min() < 0 or found.max() > 1:
        raise ValueError(f"probabilities: {found.min():g} to {found.max():g} given, numbers from 0 to 1 wanted")
    place = np.minimum((found * bins).astype(int), bins - 1)
    gap = np.bincount(place, weights=found - real, minlength=bins)
    return float(np.abs(gap).sum() / len(found))


def graph_scores(probabilities: ArrayLike, truth: ArrayLike, *, threshold: float = 0.5) -> dict[str, float]:
    """All scores of one graph by name, those without the diagonal with `_off` behind their names."""
    table = np.asarray(probabilities, dtype=float)
    found = {}
    for diagonal, end in ((True, ""), (False, "_off")):
        found[f"auroc{end}"] = auroc(table, truth, diagonal=diagonal)
        found[f"auprc{end}"] = auprc(table, truth, diagonal=diagonal)
    chosen = (table > threshold).astype(int)
    found |= threshold_scores(table, truth, threshold=threshold)
    return found | {"shd": hamming_distance(chosen, truth), "ece": calibration_error(table, truth)}


def _graphs(found: ArrayLike, truth: ArrayLike) -> tuple[Array, Array]:
    found, real = np.asarray(found, dtype=float), np.asarray(truth, dtype=float)
    if real.ndim < 2 or real.shape[-1] != real.shape[-2] or found.shape != real.shape:
        raise ValueError(
            f"scores, truth: shapes {found.shape} and {real.shape} given, twice the same (..., d, d) wanted"
        )
    return found, real


def _entries(found: ArrayLike, truth: ArrayLike, diagonal: bool) -> tuple[Array, Array]:
    """The entries to compare, flat."""
    found, real = _graphs(found, truth)
    _check_binary("truth", real)
    if not np.isfinite(found).all():
        raise ValueError("scores: a number that is not finite given, finite numbers wanted")
    keep = np.ones(real.shape[-2:], dtype=bool) if diagonal else ~np.eye(real.shape[-1], dtype=bool)
    return found[..., keep].ravel(), real[..., keep].ravel()


def _both_kinds(scores: ArrayLike, truth: ArrayLike, diagonal: bool) -> tuple[Array, Array]:
    found, real = _entries(scores, truth, diagonal)
    if real.min(initial=1) == real.max(initial=0):
        raise ValueError(f"truth: {'all' if real.max(initial=0) else 'no'} edges given, some of both kinds wanted")
    return found, real


def _check_binary(name: str, table: Array) -> None:
    if not np.isin(table, (0, 1)).all():
        raise ValueError(f"{name}: entries other than 0 and 1 given, a graph of zeros and ones wanted")


def _sklearn() -> Any:
    try:
        from sklearn import metrics
    except ImportError as error:
        raise ImportError("scikit-learn is needed for this: pip install 'neurodyn[structure]'") from error
    return metrics
