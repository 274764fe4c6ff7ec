"""SignatureRegression recovers what is linear in signatures, at irregular times, without looking ahead."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from neurodyn.models.signature_regression import SignatureRegression


def driven(n=60, length=81, channels=2, seed=0):
    """Paths, and targets that are a signature's: the integral of x1 dx2 less twice the last x1 and the time's half."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, length, channels)).cumsum(1) / 9
    middle = 0.5 * (x[:, 1:, 0] + x[:, :-1, 0]) - x[:, :1, 0]
    area = np.concatenate([np.zeros((n, 1)), np.cumsum(middle * np.diff(x[:, :, 1], axis=1), 1)], 1)
    times = np.linspace(0, 1, length)
    return x, area - 2 * (x[:, :, 0] - x[:, :1, 0]) + 0.5 * times


def sampled(y, count, seed=1):
    rng = np.random.default_rng(seed)
    where = np.sort(np.stack([rng.choice(np.arange(1, y.shape[1]), count, replace=False) for _ in y]), 1)
    return where / (y.shape[1] - 1), np.take_along_axis(y, where, 1)


@pytest.mark.parametrize("penalty", ["lasso", "ridge"])
def test_recovers_whole_trajectories_from_a_few_targets_each(penalty):
    x, y = driven()
    when, seen = sampled(y[:40], 4)
    model = SignatureRegression(max_depth=3, penalty=penalty).fit(x[:40], seen, target_times=when)
    found = model.predict(x[40:], target_times=np.linspace(0, 1, 81))
    assert found.shape == (20, 81) and model.depth_ >= 2
    error = np.sqrt(np.mean((found - y[40:]) ** 2)) / y[40:].std()
    assert error < (0.08 if penalty == "lasso" else 0.02)


def test_lasso_finds_the_words_that_matter():
    x, y = driven(n=100)
    when, seen = sampled(y, 6)
    model = SignatureRegression(depth=2).fit(x, seen, target_times=when)
    # words of (time, x1, x2): t, 1, 2, tt, t1, t2, 1t, 11, 12, 2t, 21, 22
    size = np.abs(model.regression_.coef_)
    assert set(np.argsort(size)[-2:]) == {1, 8}
    assert model.regression_.coef_[8] == pytest.approx(model.scale_[0] * model.scale_[1], rel=0.1)


def test_irregular_times_missing_values_and_targets_are_taken_as_they_are():
    """The same paths seen at their own irregular times, with gaps and absent targets, give nearly the same model."""
    x, y = driven(length=161)
    rng = np.random.default_rng(3)
    keep = np.sort(np.stack([np.r_[0, rng.choice(np.arange(1, 160), 118, replace=False), 160] for _ in x]), 1)
    thin = np.take_along_axis(x, keep[..., None], 1)
    when, seen = sampled(y, 5)
    seen[rng.random(seen.shape) < 0.2] = np.nan
    model = SignatureRegression(depth=2, penalty="ridge").fit(
        thin[:45], seen[:45], times=keep[:45] / 160, target_times=when[:45]
    )
    found = model.predict(thin[45:], times=keep[45:] / 160, target_times=np.linspace(0, 1, 161))
    assert np.sqrt(np.mean((found - y[45:]) ** 2)) / y[45:].std() < 0.15


def test_what_comes_after_a_target_does_not_count():
    x, y = driven()
    when, seen = sampled(y, 4)
    model = SignatureRegression(depth=3, penalty="ridge").fit(x, seen, target_times=when)
    at = np.array([0.25, 0.5, 0.502])
    other = x.copy()
    other[:, 41:] += 5.0  # visits after time 0.5
    before = model.predict(x, target_times=at)
    np.testing.assert_allclose(model.predict(other, target_times=at), before)
    cut = model.predict(x[:, :41], times=np.linspace(0, 0.5, 41), target_times=at)
    np.testing.assert_allclose(cut, before)
    other[:, 40] += 1.0
    assert not np.allclose(model.predict(other, target_times=at)[:, 1], before[:, 1])  # the visit at 0.5 is seen


def test_several_targets_and_the_end_of_the_series():
    x, y = driven()
    both = np.stack([y, 3 - y], -1)
    model = SignatureRegression(depth=2, penalty="ridge").fit(x[:40], both[:40, -1])
    found = model.predict(x[40:])
    assert found.shape == (20, 2)
    np.testing.assert_allclose(found.sum(1), 3, atol=1e-4)
    several = SignatureRegression(depth=2).fit(x[:40], both[:40, ::20], target_times=np.linspace(0, 1, 5))
    assert several.predict(x[40:], target_times=[0.5]).shape == (20, 1, 2)
    assert several.predict(x[40:]).shape == (20, 2)


def test_level_weights_are_factorials():
    x, y = driven(n=30)
    plain, weighted = (SignatureRegression(depth=3, level_weights=w) for w in (False, True))
    when, seen = sampled(y, 3)
    for model in (plain, weighted):
        model.fit(x, seen, target_times=when)
    path, clock = plain._read(x, None, reset=False)
    ratio = weighted._design(path, clock, when, 3) / plain._design(path, clock, when, 3)
    np.testing.assert_allclose(ratio[..., :3], 1)
    np.testing.assert_allclose(ratio[..., 3:12], 2)
    np.testing.assert_allclose(ratio[..., 12:], 6)


def test_results_do_not_depend_on_how_rows_are_cut(monkeypatch):
    x, y = driven(n=20)
    when, seen = sampled(y, 3)
    model = SignatureRegression(depth=3, penalty="ridge").fit(x, seen, target_times=when)
    whole = model.predict(x, target_times=when)
    monkeypatch.setattr("neurodyn.models.signature_regression.CHUNK", 1)
    np.testing.assert_allclose(model.predict(x, target_times=when), whole)
    np.testing.assert_allclose(model.predict(x[5:6], target_times=when[5:6]), whole[5:6])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"penalty": "elastic"}}, "penalty: got 'elastic'"),
        ({"options": {"depth": 0}}, "depth: got 0"),
        ({"options": {"cv": 1}}, "cv: got 1"),
        ({"times": np.linspace(1, 0, 81)}, "times: got a series whose times decrease"),
        ({"times": np.zeros(5)}, r"times: got shape \(10, 5\)"),
        ({"target_times": np.full((10, 3), -1.0)}, "target_times: got one before"),
        ({"target_times": np.zeros((10, 2))}, r"y: got shape \(10, 3\)"),
        ({"y": np.full((10, 3), np.nan)}, "y: got 0 observed target"),
    ],
)
def test_bad_input_is_named(change, message):
    x, y = driven(n=10)
    given = {"y": y[:, :3], "target_times": np.full((10, 3), 0.5), "options": {}} | change
    model = SignatureRegression(**given.pop("options"))
    with pytest.raises(ValueError, match=message):
        model.fit(x, **given)


def test_the_start_counts_if_asked():
    x, _ = driven(n=40)
    blind, seeing = (SignatureRegression(depth=1, penalty="ridge", start=start).fit(x, x[:, 0, 0]) for start in (0, 1))
    level = x[:, -1, 0] + 0.0
    assert blind.score(x, x[:, 0, 0]) < 0.9
    seeing = SignatureRegression(depth=1, penalty="ridge", start=True).fit(x, level)
    assert seeing.score(x, level) > 0.999 > SignatureRegression(depth=1, penalty="ridge").fit(x, level).score(x, level)


def test_clones_and_parameters():
    model = SignatureRegression(3, penalty="ridge", level_weights=True)
    assert clone(model).get_params() == model.get_params()


@parametrize_with_checks([SignatureRegression(depth=1, penalty="ridge"), SignatureRegression(depth=1)])
def test_is_a_scikit_learn_estimator(estimator, check):
    assert check(estimator) is None  # it raises what is wrong


def test_ridge_errors_are_those_of_scikit_learns_ridge():
    from sklearn.linear_model import Ridge

    from neurodyn.models.signature_regression import _ridge_errors

    rng = np.random.default_rng(0)
    design, targets = rng.normal(size=(30, 50)), rng.normal(size=(30, 2))
    train, test = np.arange(20), np.arange(20, 30)
    alphas = np.array([1e-3, 0.1, 10.0])
    wanted = [
        np.mean((Ridge(a).fit(design[train], targets[train]).predict(design[test]) - targets[test]) ** 2)
        for a in alphas
    ]
    np.testing.assert_allclose(_ridge_errors(design, targets, train, test, alphas), wanted)
