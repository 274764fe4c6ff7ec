"""Scores of class probabilities against scikit-learn's and values by hand."""

import numpy as np
import pytest
import torch

from neurodyn.metrics.classes import confusion, reliability, score_classes


def forecasts(rows=500, classes=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    p = torch.randn(rows, classes, generator=g, dtype=torch.float64).mul(2).softmax(1)
    return p, torch.multinomial(p, 1, generator=g)[:, 0]


def test_agrees_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    p, y = forecasts()
    found = score_classes(p, y)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(y, p.argmax(1)))
    assert found.log_score == pytest.approx(metrics.log_loss(y, p))
    np.testing.assert_array_equal(confusion(p, y), metrics.confusion_matrix(y, p.argmax(1)))


def test_by_hand():
    p = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.25, 0.75]], dtype=torch.float64)
    y = torch.tensor([0, 1, 1])
    found = score_classes(p, y)
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.log_score == pytest.approx(-np.log([0.8, 0.4, 0.75]).mean())
    assert found.brier == pytest.approx(np.mean([2 * 0.04, 2 * 0.36, 2 * 0.0625]))
    # bins (0.7, 0.8]: mean confidence 0.775, both right; (0.5, 0.6]: 0.6, wrong
    assert found.calibration_error == pytest.approx((2 * 0.225 + 0.6) / 3)
    assert confusion(p, y).tolist() == [[1, 0], [1, 1]]


def test_truthful_probabilities_are_calibrated_and_sure_ones_are_not():
    p, y = forecasts(20_000)
    assert score_classes(p, y).calibration_error < 0.02
    sharp = p.pow(4) / p.pow(4).sum(1, keepdim=True)
    assert score_classes(sharp, y).calibration_error > 0.1
    bins = reliability(p, y)
    assert int(bins.rows.sum()) == 20_000
    full = bins.rows > 200
    torch.testing.assert_close(bins.share_right[full], bins.confidence[full], atol=0.05, rtol=0)


def test_bad_input_is_named():
    p, y = forecasts(5)
    for bad, labels, message in [
        (p[0], y, "probabilities, labels: got shapes"),
        (p, y[:3], "probabilities, labels: got shapes"),
        (p, y + 4, "labels: got torch.int64"),
        (p, y.double(), "labels: got torch.float64"),
        (2 * p, y, "rows that do not sum to one"),
    ]:
        with pytest.raises(ValueError, match=message):
            score_classes(bad, labels)
