"""MiniRocket's features of filled series, ridge regression with exact values of left-out rows, and probabilities."""

import math
import sys

import numpy as np
import pytest
import torch

from neurodyn.metrics.classes import score_classes
from neurodyn.models.baselines.minirocket_classifier import MiniRocketClassifier, sharpness
from neurodyn.models.classifiers import fit_classifier
from neurodyn.models.forecasters import Training
from neurodyn.series import SeriesBatch


def waves(rows=60, visits=20, seed=0, missing=0.3):
    """Three classes that differ in how fast the first variable swings; the second is noise."""
    g = torch.Generator().manual_seed(seed)
    times = torch.sort(torch.rand(rows, visits, generator=g, dtype=torch.float64), 1).values
    labels = torch.arange(rows) % 3
    phase = 6 * torch.rand(rows, 1, generator=g)
    swing = torch.sin((labels[:, None] + 1) * 5 * times + phase) + 0.1 * torch.randn(rows, visits, generator=g)
    values = torch.stack((swing, torch.randn(rows, visits, generator=g)), -1).float()
    mask = torch.rand(rows, visits, 2, generator=g) >= missing
    mask[:, 0] = True
    return SeriesBatch(times, values, mask, labels=labels, ids=tuple(map(str, range(rows))))


def test_series_are_filled_by_lines_and_held_at_their_ends():
    model = MiniRocketClassifier()
    model.span, model.points = 4.0, 9
    times = torch.tensor([[1.0, 2.0, 4.0], [0.0, 4.0, 4.0]], dtype=torch.float64)
    values = torch.tensor([[[1.0, 0.0], [0.0, 5.0], [3.0, 0.0]], [[2.0, 0.0], [4.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[[1, 0], [0, 1], [1, 0]], [[1, 0], [1, 0], [0, 0]]]).bool()
    filled = model.filled(SeriesBatch(times, values, mask))
    assert filled.shape == (2, 2, 9) and filled.dtype == np.float32
    # since the first visit at 1: a line from 1 to 3 over three units of time, then 3; one observation is there always
    assert filled[0, 0].tolist() == pytest.approx([1 + k / 3 for k in range(7)] + [3, 3])
    assert filled[0, 1].tolist() == [5.0] * 9
    assert filled[1, 0].tolist() == pytest.approx([2 + k / 4 for k in range(9)])
    assert filled[1, 1].tolist() == [0.0] * 9  # never observed


def test_sharpness_has_the_least_score_of_smoothed_labels():
    # of four rows with values (1, 0), three are of the first class: with labels smoothed by (N + 1) / (N + 2) its share
    # is (3 * 5 / 6 + 1 / 6) / 4 = 2 / 3, and softmax(s, 0) says that where s = log 2
    values = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(4, 2)
    assert sharpness(values, torch.tensor([0, 0, 0, 1])) == pytest.approx(math.log(2), rel=1e-4)
    # all are right: finite, at the smoothed share of 5 / 6
    assert sharpness(values, torch.zeros(4, dtype=torch.long)) == pytest.approx(math.log(5), rel=1e-4)


def test_values_of_left_out_rows_are_those_of_refits():
    pytest.importorskip("sktime")
    pytest.importorskip("numba")
    from sklearn.linear_model import Ridge, RidgeClassifierCV
    from sklearn.preprocessing import StandardScaler

    from neurodyn.models.baselines.minirocket_classifier import PENALTIES

    train, test = waves(30), waves(30, seed=1)
    model = MiniRocketClassifier().fit(train, 3)
    features = StandardScaler(with_mean=False).fit_transform(model.features(train))
    assert features.shape == (30, 9996)
    whole = RidgeClassifierCV(PENALTIES).fit(features, train.labels.numpy())
    assert model.regression[-1].alpha_ == whole.alpha_
    asked = model.regression[0].transform(model.features(test))
    assert model.probabilities(test).argmax(1).tolist() == whole.predict(asked).tolist()
    targets = 2.0 * torch.nn.functional.one_hot(train.labels).numpy() - 1
    for row in (0, 13):
        others = np.arange(30) != row
        again = Ridge(whole.alpha_).fit(features[others], targets[others])
        assert model.left_out[row].tolist() == pytest.approx(again.predict(features[[row]])[0].tolist(), abs=1e-6)


def test_learns_waves_row_by_row_and_leaves_numpy_alone():
    pytest.importorskip("sktime")
    pytest.importorskip("numba")
    train, test = waves(120), waves(60, seed=1)
    np.random.seed(5)
    fitted = fit_classifier("minirocket", train, test, 4, Training(seed=1))
    drawn = np.random.rand()
    np.random.seed(5)
    assert drawn == np.random.rand()
    found = fitted.probabilities(test)
    assert found.dtype == torch.float64 and not found[:, 3].any()  # no training row is of the fourth class
    torch.testing.assert_close(found.sum(1), torch.ones(60, dtype=torch.float64))
    scores = score_classes(found[:, :3], test.labels)
    assert scores.accuracy >= 0.85 and scores.log_score <= 0.6
    torch.testing.assert_close(fitted.probabilities(test.padded(30).rows([5])), found[5:6])
    again, other = (
        fit_classifier("minirocket", train.padded(25), test, 4, Training(seed=seed)).probabilities(test)
        for seed in (1, 2)
    )
    torch.testing.assert_close(again, found)
    assert not torch.allclose(other, found)


def test_series_shorter_than_a_kernel():
    pytest.importorskip("sktime")
    pytest.importorskip("numba")
    train = waves(12, visits=2)
    assert MiniRocketClassifier().fit(train, 3).filled(train).shape == (12, 2, 9)


def test_what_is_wrong_is_named(monkeypatch):
    batch = waves(3)
    with pytest.raises(ValueError, match="not fitted"):
        MiniRocketClassifier().probabilities(batch)
    for package in ("sktime.transformations.rocket", "numba"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            with pytest.raises(ImportError, match=r"neurodyn\[minirocket\]"):
                fit_classifier("minirocket", batch, batch, 3)


def test_too_little_is_named():
    pytest.importorskip("sktime")
    pytest.importorskip("numba")
    batch = waves(3)
    with pytest.raises(ValueError, match="labels: none given"):
        MiniRocketClassifier().fit(SeriesBatch(batch.times, batch.values, batch.mask), 3)
    with pytest.raises(ValueError, match="train: 1 row given"):
        MiniRocketClassifier().fit(batch.rows([0]), 3)
