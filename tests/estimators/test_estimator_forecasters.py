"""Forecasters as scikit-learn estimators: the same numbers as by hand, from frames to frames."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

from neurodyn import datasets
from neurodyn.estimators import LatentSDEForecaster, LinearSDEForecaster
from neurodyn.estimators.forecasters import held_out
from neurodyn.frames import from_frame
from neurodyn.metrics import evaluate
from neurodyn.models import LinearSDE
from neurodyn.scaling import Scaling
from neurodyn.series import SeriesBatch

QUICK = {
    "posterior": "matched",
    "latent_size": 2,
    "steps": 2,
    "hidden_size": 4,
    "options": {"context_size": 4},
    "num_samples": 5,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def series() -> SeriesBatch:
    batch = datasets.load("linear_gaussian", rows=12, visits=6).train
    return batch._with(ids=tuple(f"s{k}" for k in range(len(batch))), variables=("a", "b"))


@pytest.fixture(scope="module")
def frame(series) -> pd.DataFrame:
    return series.to_frame()


@pytest.fixture(scope="module")
def linear(frame) -> LinearSDEForecaster:
    return LinearSDEForecaster(max_iterations=5, num_samples=30).fit(frame)


def asking(frame: pd.DataFrame, leads=(0.5, 1.0)) -> pd.DataFrame:
    """The frame with lines to forecast after each series."""
    last = frame.groupby("unique_id", sort=False)["ds"].max()
    lines = [pd.DataFrame({"unique_id": last.index, "ds": last.to_numpy() + lead}) for lead in leads]
    return pd.concat([frame, *lines], ignore_index=True)


def test_numbers_are_those_of_the_model_fitted_by_hand(series, frame, linear):
    scaling = Scaling.fit(series)
    model = LinearSDE(2).fit(scaling.apply(series), max_iterations=5)
    times = series.last_time[:, None] + torch.tensor([0.5, 1.0])
    generator = torch.Generator().manual_seed(0)
    by_hand = model.forecast(scaling.apply(series), scaling.apply_times(times), 30, generator=generator).undo(scaling)
    found = linear.predict(asking(frame), levels=(50,))
    assert found.columns.tolist() == [
        "unique_id",
        "ds",
        *(n + s for n in "ab" for s in ("", "-median", "-lo-50", "-hi-50")),
    ]
    wanted = by_hand.to_frame((50,))
    pd.testing.assert_frame_equal(found, wanted, check_dtype=False, rtol=1e-4, atol=1e-5)
    sampled = linear.sample(series, times)
    torch.testing.assert_close(sampled.samples.double(), by_hand.samples.double(), rtol=1e-4, atol=1e-5)
    history, future = datasets.histories(scaling.apply(series), fraction=0.5)
    forecast = model.forecast(history, future.times, 30, generator=torch.Generator().manual_seed(0))
    assert linear.score(frame) == pytest.approx(-evaluate(forecast, future)["crps"], rel=1e-4)


def test_times_may_be_lines_a_frame_numbers_or_given_to_a_batch_or_an_array(series, frame, linear):
    wanted = linear.predict(asking(frame))
    last = frame.groupby("unique_id", sort=False)["ds"].max()
    numbers = last.to_numpy()[:, None] + np.array([0.5, 1.0])
    table = asking(frame).iloc[len(frame) :].sample(frac=1.0, random_state=0)  # lines in any order
    for times in (table, numbers, torch.tensor(numbers)):
        pd.testing.assert_frame_equal(linear.predict(frame, times), wanted)
    pd.testing.assert_frame_equal(linear.predict(series, numbers), wanted)
    far = float(last.max()) + 1.0
    assert (linear.predict(frame, [far, far + 1])["ds"].unique() == [far, far + 1]).all()
    values = np.random.default_rng(0).normal(size=(6, 5, 2))
    values[0, 2:4, 1] = np.nan
    arrays = LinearSDEForecaster(max_iterations=2, num_samples=5).fit(values)
    assert arrays.predict(values, [4.5, 6.0])["unique_id"].tolist() == [str(k) for k in range(6) for _ in range(2)]
    assert arrays.variables_ == ["y1", "y2"]


def test_a_series_forecast_is_its_own_and_repeats(frame, linear):
    whole, alone = linear.predict(asking(frame)), linear.predict(asking(frame[frame["unique_id"] == "s3"]))
    own = whole[whole["unique_id"] == "s3"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, alone, rtol=1e-5)
    shuffled = linear.predict(asking(frame).sample(frac=1.0, random_state=1))
    ordered = shuffled.sort_values(["unique_id", "ds"], ignore_index=True)
    pd.testing.assert_frame_equal(ordered, whole.sort_values(["unique_id", "ds"], ignore_index=True), rtol=1e-5)


def test_empty_lines_before_the_last_visit_ask_nothing_and_other_series_are_left_alone(frame, linear):
    some = asking(frame[frame["unique_id"].isin(["s1", "s2"])]).query("unique_id == 's1' or a == a")
    early = pd.DataFrame({"unique_id": ["s1", "s2"], "ds": frame.groupby("unique_id")["ds"].min()[["s1", "s2"]] + 1e-3})
    found = linear.predict(pd.concat([some, early]))
    assert found["unique_id"].tolist() == ["s1", "s1"]
    with pytest.raises(ValueError, match="^X: no line without values after the last visit"):
        linear.predict(frame)
    with pytest.raises(ValueError, match="^times: not given, wanted where X is no frame"):
        linear.predict(np.zeros((3, 4, 2)))
    two = asking(frame).iloc[len(frame) :].query("unique_id in ['s5', 's2']")
    assert linear.predict(frame, two)["unique_id"].tolist() == ["s2", "s2", "s5", "s5"]
    with pytest.raises(ValueError, match="^times: unique_id 's1' given, which has no visit in X"):
        linear.predict(frame.query("unique_id != 's1'"), asking(frame).iloc[len(frame) :])


@pytest.mark.parametrize("zone", [None, "Europe/Paris"])
def test_columns_ids_and_moments_come_back_as_they_were_given(frame, zone):
    own = pd.DataFrame(
        {
            "patient": frame["unique_id"].str[1:].astype(int),
            "when": (pd.Timestamp("2024-05-01") + pd.to_timedelta((frame["ds"] * 60).round(), unit="min")),
            "a": frame["a"],
            "b": frame["b"],
            "note": "x",
        }
    )
    own["when"] = own["when"].dt.tz_localize(zone)
    model = LinearSDEForecaster(
        id="patient", time="when", values=["a", "b"], time_unit="h", max_iterations=2, num_samples=5
    ).fit(own)
    later = own.groupby("patient", sort=False)["when"].max().reset_index()
    later["when"] += pd.Timedelta(minutes=30)
    found = model.predict(pd.concat([own, later]))
    pd.testing.assert_frame_equal(found[["patient", "when"]], later, check_dtype=False)
    moments = pd.date_range("2024-06-01", periods=2, freq="D", tz=zone)
    assert (model.predict(own, moments)["when"].iloc[:2] == moments).all()


def test_dates_and_numbers_are_not_taken_for_each_other(series, frame, linear, tmp_path):
    days = frame.assign(ds=pd.Timestamp("2024-05-01") + pd.to_timedelta(frame["ds"], unit="D"))
    dated = LinearSDEForecaster(max_iterations=2, num_samples=5).fit(days)
    assert (linear.dates_, dated.dates_, clone(dated).fit(series).dates_) == (False, True, None)
    back = LinearSDEForecaster.load(dated.save(tmp_path / "dated"))
    for model in (dated, back):
        with pytest.raises(
            ValueError, match="^time: numbers given in column 'ds', dates in column 'ds' wanted as in fi"
        ):
            model.predict(asking(frame))
    with pytest.raises(ValueError, match="^time: numbers given in column 'ds', dates"):
        dated.score(frame)
    with pytest.raises(ValueError, match="^X: an array given, whose times are numbers, dates in column 'ds' wanted"):
        dated.predict(np.zeros((3, 4, 2)), [5.0])
    numbers = [[19900.0], (19900, 19901), np.full((12, 1), 19900.0), torch.full((12, 1), 19900.0)]
    for times in numbers:
        with pytest.raises(ValueError, match="^times: numbers given, dates wanted as in column 'ds'"):
            dated.predict(days, times)
    asked = pd.DataFrame({"unique_id": ["s1"], "ds": [19900.0]})
    with pytest.raises(ValueError, match="^time: numbers given in column 'ds', dates"):
        dated.predict(days, asked)
    with pytest.raises(ValueError, match="^time: dates given in column 'ds', numbers in column 'ds' wanted as in fit"):
        linear.predict(days)
    for times in (["2024-07-01"], [pd.Timestamp("2024-07-01")], pd.date_range("2024-07-01", periods=2, tz="UTC")):
        with pytest.raises(ValueError, match="^times: dates given, numbers wanted as in column 'ds'"):
            linear.predict(frame, times)
        assert (dated.predict(days, times)["ds"].dt.month == 7).all()
    with pytest.raises(ValueError, match="^times: dates given, numbers wanted as in X"):
        dated.predict(series, ["2024-07-01"])
    assert dated.fit(frame).dates_ is False  # fitted anew, to other times


def test_a_long_frame_is_the_same_data(series, frame, linear):
    long = LinearSDEForecaster(max_iterations=5, num_samples=30).fit(series.to_frame("long"))
    known = series.to_frame("long").astype({"variable": str})
    asked = asking(known).iloc[len(known) :].drop(columns=["variable", "value"])
    for variables in (["a"], ["a", "b"]):  # a line for one variable asks as one for each does
        lines = asked.merge(pd.DataFrame({"variable": variables}), how="cross")
        found = long.predict(pd.concat([known, lines], ignore_index=True))
        pd.testing.assert_frame_equal(found, linear.predict(asking(frame)), rtol=1e-4)


def test_the_latent_sde_is_trained_and_forecasts(series, frame, tmp_path):
    model = LatentSDEForecaster(**QUICK, log=(), random_state=3).fit(frame)
    assert model.fitted_.result.history and model.fitted_.model.config["hidden_size"] == 4
    again = clone(model).fit(frame)
    found = model.predict(asking(frame))
    pd.testing.assert_frame_equal(again.predict(asking(frame)), found)
    other = clone(model).set_params(random_state=4).fit(frame)
    assert not np.allclose(other.predict(asking(frame))["a"], found["a"])
    counts = frame.assign(a=frame["a"].abs().round(), b=frame["b"].abs().round())
    poisson = clone(model).set_params(likelihood="poisson").fit(counts)
    drawn = poisson.sample(asking(counts)).samples
    assert torch.equal(drawn, drawn.round()) and bool((drawn >= 0).all())
    on_core = clone(model).set_params(posterior="smoother").fit(series.rows([0, 1, 2]))  # few, so split by time
    assert on_core.fitted_.model.config["core"] is not None and np.isfinite(on_core.score(series))
    back = LatentSDEForecaster.load(model.save(tmp_path / "model"))
    assert back.get_params() == model.get_params() | {"log": []}
    pd.testing.assert_frame_equal(back.predict(asking(frame)), found)
    assert {p.suffix for p in (tmp_path / "model").rglob("*") if p.is_file()} == {".json", ".safetensors"}


def test_few_series_are_split_by_time_and_many_by_rows(series):
    train, validation = held_out(series, 0.25, seed=0)
    assert (len(train), len(validation)) == (9, 3) and not set(train.ids) & set(validation.ids)
    few = series.rows([0, 1])
    train, validation = held_out(few, 0.25, seed=0)
    assert train.ids == few.ids and validation is few
    assert train.present.sum(1).tolist() == (few.present.sum(1) * 3 // 4).tolist()
    with pytest.raises(ValueError, match="^validation_fraction: 1 given"):
        held_out(series, 1, 0)


def test_saved_folders_of_others_are_refused(linear, tmp_path):
    folder = linear.save(tmp_path / "model")
    with pytest.raises(ValueError, match="holds a LinearSDEForecaster, and a LatentSDEForecaster was to be loaded"):
        LatentSDEForecaster.load(folder)
    card = json.loads((folder / "estimator.json").read_text())
    (folder / "estimator.json").write_text(json.dumps(card | {"format": 99, "neurodyn": "9.0"}))
    with pytest.raises(ValueError, match=r"has format 99 \(written by neurodyn 9.0\).*update neurodyn"):
        LinearSDEForecaster.load(folder)
    (folder / "estimator.json").write_text(json.dumps(card | {"params": {"colour": 1}}))
    with pytest.raises(ValueError, match="does not describe a LinearSDEForecaster: .*colour"):
        LinearSDEForecaster.load(folder)
    with pytest.raises(NotFittedError):
        LinearSDEForecaster().save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_grid_search_over_series_finds_the_part_that_matters():
    """Series around levels of their own: a model without levels forecasts them worse."""
    rng = np.random.default_rng(0)
    ids, times = np.repeat(np.arange(18), 6), np.tile(np.arange(6.0), 18)
    frame = pd.DataFrame(
        {"unique_id": ids, "ds": times, "y": 3 * rng.normal(size=18)[ids] + 0.1 * rng.normal(size=108)}
    )
    grid = {"sde__components": [("ou",), ("level",)]}
    pipeline = make_pipeline(FunctionTransformer(lambda table: table.assign(y=table["y"] / 3)))
    pipeline.steps.append(("sde", LinearSDEForecaster(max_iterations=8, num_samples=20)))
    search = GridSearchCV(pipeline, grid, cv=GroupKFold(2)).fit(frame, groups=frame["unique_id"])
    assert (
        search.best_params_ == {"sde__components": ("level",)}
        and not np.isnan(search.cv_results_["mean_test_score"]).any()
    )
    found = search.predict(asking(frame))
    assert len(found) == 36 and found["y"].std() == pytest.approx(
        frame.groupby("unique_id")["y"].mean().std() / 3, rel=0.1
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"history_fraction": 1.0}, "^history_fraction: 1.0 given"),
        ({"num_samples": 1}, "^num_samples: 1 given"),
        ({"id": "patient"}, "^id: no column 'patient'"),
        ({"components": ["drift"]}, r"^components: \['drift'\] given"),
        ({"log": ["c"]}, r"^log: \['c'\] given"),
    ],
)
def test_bad_input_is_named(frame, change, message):
    with pytest.raises(ValueError, match=message):
        LinearSDEForecaster(**change).fit(frame)


def test_bad_arrays_and_options_are_named(frame):
    with pytest.raises(ValueError, match=r"^X: an array of shape \(3,\) given"):
        LinearSDEForecaster().fit(np.zeros(3))
    with pytest.raises(ValueError, match="latent_sise"):
        LatentSDEForecaster(options={"latent_sise": 3}).fit(frame)
    with pytest.raises(NotFittedError):
        LinearSDEForecaster().predict(frame)


# scikit-learn's checks that need no data. The others hand `fit` rows of numbers without ids and times, or ask `predict`
# for one number per row of X; a forecaster answers with as many lines as there are times asked for.
WITHOUT_DATA = [
    "check_parameters_default_constructible",
    "check_no_attributes_set_in_init",
    "check_get_params_invariance",
    "check_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_mixin_order",
]


@pytest.mark.parametrize("check", WITHOUT_DATA)
@pytest.mark.parametrize("kind", [LatentSDEForecaster, LinearSDEForecaster])
def test_is_a_scikit_learn_estimator(kind, check):
    assert getattr(estimator_checks, check)(kind.__name__, kind()) is None  # it raises what is wrong


def test_frames_are_read_as_from_frame_reads_them(frame, linear):
    assert linear._series(frame).ids == from_frame(frame).ids
