"""Scores of graphs against numbers worked out by hand, and the orientation of a chain."""

from __future__ import annotations

import numpy as np
import pytest

from neurodyn.metrics.graphs import (
    auprc,
    auroc,
    calibration_error,
    graph_scores,
    hamming_distance,
    threshold_scores,
)

CHAIN = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]])


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    random = np.random.default_rng(0)
    truth = random.random((5, 5)) < 0.4
    scores = random.integers(0, 6, (5, 5)).astype(float)  # ties too
    edges, others = scores[truth], scores[~truth]
    pairs = (edges[:, None] > others).mean() + 0.5 * (edges[:, None] == others).mean()
    assert auroc(scores, truth) == pytest.approx(pairs)
    off = ~np.eye(5, dtype=bool)
    edges, others = scores[truth & off], scores[~truth & off]
    pairs = (edges[:, None] > others).mean() + 0.5 * (edges[:, None] == others).mean()
    assert auroc(scores, truth, diagonal=False) == pytest.approx(pairs)


def test_average_precision_by_hand() -> None:
    # ranked: edge, non-edge, edge, non-edge: precisions 1 and 2/3 at the two edges
    assert auprc([[0.9, 0.5], [0.7, 0.1]], [[1, 1], [0, 0]]) == pytest.approx((1 + 2 / 3) / 2)


def test_leading_axes_are_pooled() -> None:
    scores, truth = np.random.default_rng(1).random((2, 3, 3)), np.stack([CHAIN, CHAIN.T])
    flat = auroc(scores.reshape(1, 6, 3)[0].reshape(2, 3, 3), truth)
    edges, others = scores[truth > 0], scores[truth == 0]
    assert flat == pytest.approx((edges[:, None] > others).mean())


def test_orientation_on_a_chain() -> None:
    """A[i, j] = 1 means that i drives j: x1 -> x2 -> x3 scores 1 by its own matrix, and fails by the transposed one."""
    times, step = np.arange(4000), np.random.default_rng(0).normal(size=(4000, 3))
    x = np.zeros((4000, 3))
    for k in times[1:]:
        x[k] = 0.5 * x[k - 1] + 0.8 * np.array([0, x[k - 1, 0], x[k - 1, 1]]) + step[k]
    # coefficient of the past of i in the present of j, by least squares
    found = np.abs(np.linalg.lstsq(x[:-1], x[1:], rcond=None)[0])
    assert auroc(found, CHAIN) == 1 and auroc(found, CHAIN, diagonal=False) == 1
    assert auroc(found.T, CHAIN, diagonal=False) < 0.6
    assert hamming_distance((found > 0.2).astype(int), CHAIN) == 0


def test_hamming_distance_counts_a_turned_edge_once() -> None:
    assert hamming_distance(CHAIN, CHAIN) == 0
    turned = CHAIN.copy()
    turned[0, 1], turned[1, 0] = 0, 1
    assert hamming_distance(turned, CHAIN) == 1
    both = CHAIN.copy()
    both[1, 0] = 1  # one edge too many, none turned
    assert hamming_distance(both, CHAIN) == 1
    assert hamming_distance(np.zeros((3, 3)), CHAIN) == 5
    assert hamming_distance(np.zeros((3, 3)), CHAIN, diagonal=False) == 2
    assert hamming_distance(both, np.zeros((3, 3)), diagonal=False) == 3


def test_threshold_scores_by_hand() -> None:
    found = threshold_scores([[0.9, 0.6], [0.7, 0.1]], [[1, 0], [1, 1]])
    assert found["tpr"] == pytest.approx(2 / 3) and found["fdr"] == pytest.approx(1 / 3)
    assert found["f1"] == pytest.approx(2 * (2 / 3) * (2 / 3) / (4 / 3))
    none = threshold_scores(np.zeros((2, 2)), [[1, 0], [0, 1]])
    assert (none["f1"], none["tpr"], none["fdr"]) == (0, 0, 0)


def test_calibration_error_by_hand_and_in_the_limit() -> None:
    # two bins: (.1, .3) with no edge, (.7, .9) with one of two: |.2 - 0| / 2 + |.8 - .5| / 2
    assert calibration_error([[0.1, 0.3], [0.7, 0.9]], [[0, 0], [0, 1]], bins=2) == pytest.approx(0.25)
    random = np.random.default_rng(0)
    probability = random.random((50, 40, 40))
    truth = random.random(probability.shape) < probability
    assert calibration_error(probability, truth) < 0.01
    assert calibration_error(probability**3, truth) > 0.1


def test_all_scores_of_one_graph() -> None:
    found = graph_scores(np.where(CHAIN, 0.9, 0.1), CHAIN)
    assert found["auroc"] == found["auroc_off"] == found["f1"] == 1 and found["shd"] == 0
    assert found["ece"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("scores", "truth", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3)), r"shapes \(2, 3\) and \(2, 3\) given"),
        (np.zeros((2, 2)), np.zeros((3, 3)), "twice the same"),
        (np.zeros((2, 2)), np.full((2, 2), 0.5), "truth: entries other than 0 and 1"),
        (np.zeros((2, 2)), np.zeros((2, 2)), "truth: no edges given"),
        (np.zeros((2, 2)), np.ones((2, 2)), "truth: all edges given"),
        (np.full((2, 2), np.nan), np.eye(2), "scores: a number that is not finite"),
    ],
)
def test_bad_input_is_named(scores: np.ndarray, truth: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        auroc(scores, truth)


def test_probabilities_outside_the_unit_interval_are_refused() -> None:
    with pytest.raises(ValueError, match="probabilities: 0 to 2 given"):
        calibration_error([[0, 2.0], [1, 1]], np.eye(2))
