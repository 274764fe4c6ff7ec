"""A graph as a scikit-learn estimator: the same tables as by hand, and scikit-learn's checks."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from neurodyn.estimators import ScotchGraph
from neurodyn.models import structure
from neurodyn.models.structure import known_edges, learn_structure, tables_of
from neurodyn.scaling import Scaling
from neurodyn.series import SeriesBatch

QUICK = {"steps": 2, "options": {"hidden_size": 4, "warmup_steps": 1}, "device": "cpu"}


def driven(n=2, length=20, seed=0):
    """x wanders, and y follows it: (n, T, 2)."""
    rng = np.random.default_rng(seed)
    out = np.zeros((n, length, 2))
    for k in range(1, length):
        out[:, k, 0] = 0.9 * out[:, k - 1, 0] + 0.5 * rng.normal(size=n)
        out[:, k, 1] = 0.5 * out[:, k - 1, 1] + 0.8 * out[:, k - 1, 0] + 0.05 * rng.normal(size=n)
    return out


def test_tables_are_means_over_the_fits_made_by_hand():
    x = driven()
    model = ScotchGraph(num_fits=2, forbidden=("y2>y1",), random_state=5, **QUICK).fit(x)
    assert model.edge_probabilities_.columns.tolist() == ["y1", "y2"]
    assert model.edge_probabilities_.index.tolist() == ["y1", "y2"] and model.n_features_in_ == 2
    batch = model._series(x)
    settings = QUICK["options"] | {"fixed": known_edges(("y1", "y2"), forbidden=("y2>y1",))}
    scaled = Scaling.fit(batch).apply(batch)
    fits = [
        learn_structure("scotch", scaled, seed=s, steps=2, settings=settings, calibrate=True, device="cpu")
        for s in (5, 6)
    ]
    tables, scores = tables_of(fits)
    np.testing.assert_allclose(model.edge_probabilities_, np.mean(tables, 0), rtol=1e-6)
    np.testing.assert_allclose(model.edge_sd_, np.std(tables, 0), atol=1e-9)
    assert model.edge_probabilities_.loc["y2", "y1"] == 0.0
    edges = model.edges()
    assert edges.columns.tolist() == ["source", "target", "probability", "sd", "score", "score sd"] and len(edges) == 4
    best = edges.iloc[0]
    assert best.probability == model.edge_probabilities_.loc[best.source, best.target]
    assert best.score == pytest.approx(scores.mean(0).max(), rel=1e-6)


def test_the_driver_is_found():
    model = ScotchGraph(posterior="step", steps=150, options={"warmup_steps": 50}, device="cpu").fit(
        driven(n=4, length=40)
    )
    found = model.edge_scores_
    assert found.loc["y1", "y2"] > found.loc["y2", "y1"] + 0.2


def test_frames_batches_and_arrays_are_the_same_data():
    x = driven()
    n, length, _ = x.shape
    frame = pd.DataFrame({"unique_id": np.repeat(np.arange(n), length), "ds": np.tile(np.arange(length), n)})
    frame["y1"], frame["y2"] = x[..., 0].ravel(), x[..., 1].ravel()
    long = frame.melt(["unique_id", "ds"])
    wanted = ScotchGraph(**QUICK).fit(x).edge_probabilities_
    for given in (frame, long, ScotchGraph()._series(x)):
        assert isinstance(given, (pd.DataFrame, SeriesBatch))
        pd.testing.assert_frame_equal(ScotchGraph(**QUICK).fit(given).edge_probabilities_, wanted, rtol=1e-5)
    one = ScotchGraph(**QUICK).fit(driven(n=1, length=40)[0])
    assert len(one.fits_[0].model.forecast(one.scaling_.apply(one._series(driven(1, 40)[0])), [50.0], 2).ids) == 1


def test_saved_and_loaded_it_is_the_same(tmp_path):
    model = ScotchGraph(num_fits=2, known=["y1>y2"], **QUICK).fit(driven())
    back = ScotchGraph.load(model.save(tmp_path / "graph"))
    pd.testing.assert_frame_equal(back.edges(), model.edges())
    np.testing.assert_allclose(back.fits_[1].model.edge_scores().double(), model.fits_[1].scores)
    assert back.get_params() == model.get_params() | {"forbidden": [], "log": []}
    assert {p.suffix for p in (tmp_path / "graph").rglob("*") if p.is_file()} == {".json", ".safetensors"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"posterior": "simulated"}, "^posterior: 'simulated' given"),
        ({"num_fits": 0}, "^num_fits: 0 given"),
        ({"known": ["x>y2"]}, "^known: 'x>y2' given"),
        ({"known": ["y1>y2"], "forbidden": ["y1>y2"]}, "^known, forbidden: 'y1>y2' given in both"),
        ({"options": {"warmup": 3}}, "warmup"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        ScotchGraph(**QUICK | change).fit(driven())


def test_a_clone_is_not_fitted():
    model = ScotchGraph(**QUICK).fit(driven())
    assert not hasattr(clone(model), "edge_probabilities_")


NOT_FOR_SERIES = {
    "check_dataframe_column_names_consistency": "a frame is a table of visits with ids and times, not one of features",
}


@pytest.fixture
def short_series_will_do(monkeypatch):
    """The checks' tables have fewer lines than a graph can be learned from."""
    monkeypatch.setattr(structure, "FEWEST_INTERVALS", 2)


@pytest.mark.usefixtures("short_series_will_do")
@parametrize_with_checks([ScotchGraph(**QUICK)], expected_failed_checks=lambda estimator: NOT_FOR_SERIES)
def test_is_a_scikit_learn_estimator(estimator, check):
    assert check(estimator) is None  # it raises what is wrong
