"""Classes as a scikit-learn estimator: recovers what is there, from arrays and frames; scikit-learn's checks."""

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from neurodyn.estimators import StableSDEClassifier
from neurodyn.series import SeriesBatch

QUICK = {"hidden_size": 4, "num_samples": 3, "device": "cpu"}


def waves(n=40, length=8, seed=0):
    """Rising and falling series with gaps; classes in words."""
    rng = np.random.default_rng(seed)
    up = np.arange(n) % 2 == 0
    slope = np.where(up, 1.0, -1.0)[:, None, None]
    x = slope * np.linspace(-1, 1, length)[None, :, None] + 0.1 * rng.normal(size=(n, length, 2))
    x[rng.random(x.shape) < 0.2] = np.nan
    x[:, 0] = np.nan_to_num(x[:, 0])
    return x, np.where(up, "up", "down")


def as_frame(x, y):
    """One line per visit that has a value, with the class in each line."""
    n, length, _ = x.shape
    ids, times = np.repeat(np.arange(n) + 100, length), np.tile(np.arange(float(length)), n)
    frame = pd.DataFrame({"id": ids, "t": times, "a": x[..., 0].ravel(), "b": x[..., 1].ravel(), "kind": y[ids - 100]})
    return frame.dropna(subset=["a", "b"], how="all")


@pytest.fixture(scope="module")
def fitted():
    x, y = waves()
    return StableSDEClassifier(steps=40, **QUICK).fit(x, y)


def test_recovers_classes_from_arrays(fitted):
    x, y = waves(seed=1)
    assert fitted.classes_.tolist() == ["down", "up"] and fitted.n_features_in_ == 2
    assert fitted.score(x, y) > 0.9
    probabilities = fitted.predict_proba(x)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    assert (fitted.predict(x) == fitted.classes_[probabilities.argmax(1)]).all()
    np.testing.assert_allclose(fitted.predict_proba(x[5:7]), probabilities[5:7], rtol=1e-4, atol=1e-6)  # no place
    weights = np.where(fitted.predict(x) == y, 1.0, 0.0)
    assert fitted.score(x, y, weights) == 1.0


def test_numbers_are_those_of_the_model(fitted):
    x, _ = waves(n=4, seed=2)
    batch = SeriesBatch(
        torch.arange(8.0).expand(4, -1), torch.tensor(x).nan_to_num(), ~torch.tensor(x).isnan(), ids=("series",) * 4
    )
    scaled = fitted.scaling_.apply(batch)
    generator = torch.Generator().manual_seed(fitted.seed_)
    by_hand = fitted.fitted_.model.probabilities(scaled, 3, generator=generator)
    np.testing.assert_allclose(fitted.predict_proba(x), by_hand.numpy(), rtol=1e-6)
    np.testing.assert_allclose(fitted.predict_proba(batch), by_hand.numpy(), rtol=1e-6)


def test_frames_give_pandas_with_their_ids():
    x, y = waves()
    frame = as_frame(x, y)
    model = StableSDEClassifier(steps=40, label="kind", id="id", time="t", **QUICK).fit(frame)
    found = model.predict(frame.drop(columns="kind"))
    assert found.index.tolist() == list(range(100, 140)) and found.name == "kind"
    assert (found.to_numpy() == y).mean() > 0.9 == 0.9 < model.score(frame)
    table = model.predict_proba(frame)
    assert table.columns.tolist() == ["down", "up"] and table.index.equals(found.index)
    dated = frame.assign(t=pd.Timestamp("2024-05-01") + pd.to_timedelta(frame["t"], unit="D"))
    with pytest.raises(ValueError, match="^time: dates given in column 't', numbers in column 't' wanted as in fit"):
        model.predict(dated)
    plain = frame.drop(columns="kind")
    by_line, by_series = (clone(model).set_params(label=None).fit(plain, t) for t in (frame["kind"], y))
    for other in (by_line, by_series):
        np.testing.assert_allclose(other.predict_proba(plain), table, rtol=1e-5, atol=1e-6)
    wrong = frame["kind"].copy()
    wrong.iloc[1] = "other"
    with pytest.raises(ValueError, match="^y: two classes of id '100' given"):
        by_line.fit(plain, wrong)
    with pytest.raises(ValueError, match="^label: no column 'kind'"):
        model.fit(plain)


def test_cross_validation_grid_search_and_pipelines():
    x, y = waves(n=24)
    model = StableSDEClassifier(steps=15, reader="gru_decay", **QUICK)
    pipeline = make_pipeline(FunctionTransformer(lambda table: table * 2), model)
    assert cross_val_score(pipeline, x, y, cv=2, scoring="neg_log_loss").shape == (2,)
    frame = as_frame(x, y)
    framed = clone(model).set_params(id="id", time="t", values=["a", "b"])
    search = GridSearchCV(framed, {"hidden_size": [2, 4]}, cv=StratifiedGroupKFold(2))
    search.fit(frame, frame["kind"], groups=frame["id"])
    assert search.best_params_["hidden_size"] in (2, 4) and np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(search.predict(frame)) == 24


def test_one_fitted_to_dates_takes_no_arrays(tmp_path):
    x, y = waves(n=8)
    frame = as_frame(x, y)
    frame["t"] = pd.Timestamp("2024-05-01") + pd.to_timedelta(frame["t"], unit="D")
    model = StableSDEClassifier(steps=1, label="kind", id="id", time="t", **QUICK).fit(frame)
    for one in (model, StableSDEClassifier.load(model.save(tmp_path / "model"))):
        assert one.dates_ is True and len(one.predict(frame)) == 8
        with pytest.raises(ValueError, match="^X: an array given, whose times are numbers, dates in column 't' wanted"):
            one.predict(x[..., 0])


def test_saved_and_loaded_it_says_the_same(fitted, tmp_path):
    x, _ = waves(n=6, seed=3)
    back = StableSDEClassifier.load(fitted.save(tmp_path / "model"))
    np.testing.assert_array_equal(back.predict_proba(x), fitted.predict_proba(x))
    assert back.predict(x).dtype == fitted.predict(x).dtype and back.n_features_in_ == 2
    assert {p.suffix for p in (tmp_path / "model").rglob("*") if p.is_file()} == {".json", ".safetensors"}
    x3, y3 = waves(n=12)
    numbers = clone(fitted).set_params(steps=1, reader="gru_decay").fit(x3, (y3 == "up").astype(int) + 3)
    assert StableSDEClassifier.load(numbers.save(tmp_path / "numbers")).classes_.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_samples": 0}, "^num_samples: 0 given"),
        ({"validation_fraction": 1.0}, "^validation_fraction: 1.0 given"),
        ({"reader": "lsd"}, "^reader: 'lsd' given"),
    ],
)
def test_bad_settings_are_named(change, message):
    x, y = waves(n=8)
    with pytest.raises(ValueError, match=message):
        StableSDEClassifier(**change).fit(x, y)


def test_bad_data_are_named(fitted):
    x, y = waves(n=8)
    with pytest.raises(ValueError, match="^y: 1 class given, 2 or more wanted"):
        clone(fitted).fit(x[:4], ["a"] * 4)
    with pytest.raises(ValueError, match="^X: 1 variables given, 2 wanted as in fit"):
        fitted.predict(x[..., :1])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        clone(fitted).fit(x, y[:5])


NOT_FOR_SERIES = {
    "check_dataframe_column_names_consistency": "a frame is a table of visits with ids and times, not one of features",
    "check_classifier_data_not_an_array": "the same",
    "check_methods_sample_order_invariance": "in single precision the last digit depends on the place in a batch",
    "check_methods_subset_invariance": "the same; test_recovers_classes_from_arrays holds it to rounding",
}


def quick_checks():
    """A row of scikit-learn's arrays is one variable at as many times as there are features."""
    return StableSDEClassifier(
        reader="gru_decay", hidden_size=2, steps=1, validation_fraction=0.0, num_samples=1, device="cpu"
    )


@parametrize_with_checks([quick_checks()], expected_failed_checks=lambda estimator: NOT_FOR_SERIES)
def test_is_a_scikit_learn_estimator(estimator, check):
    assert check(estimator) is None  # it raises what is wrong
