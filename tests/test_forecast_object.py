"""The forecast container: summaries, frames, scaling, rows, files, pictures, and bad input."""

import pandas as pd
import pytest
import torch

from neurodyn.forecast import Forecast, check_forecast_times
from neurodyn.quantiles import sample_quantiles
from neurodyn.scaling import Scaling
from neurodyn.series import SeriesBatch


@pytest.fixture
def history():
    g = torch.Generator().manual_seed(0)
    times = torch.tensor([[0.0, 1.0, 2.0], [0.5, 3.0, 3.0]])
    mask = torch.ones(2, 3, 2, dtype=torch.bool)
    mask[1, 2] = False
    values = torch.rand(2, 3, 2, generator=g, dtype=torch.float64) + 1
    return SeriesBatch(times, values, mask, ids=("ann", "bob"), variables=("albumin", "bilirubin"))


@pytest.fixture
def forecast(history):
    g = torch.Generator().manual_seed(1)
    times = check_forecast_times(history, torch.tensor([[3.0, 4.0, 5.0], [4.0, 6.0, 6.0]]))
    return Forecast.of(history, times, torch.randn(19, 2, 3, 2, generator=g, dtype=torch.float64))


def test_of_takes_names_origin_and_padding_from_the_request(forecast):
    assert forecast.ids == ("ann", "bob") and forecast.variables == ("albumin", "bilirubin")
    assert forecast.origin.tolist() == [2.0, 3.0]
    assert forecast.present.tolist() == [[True, True, True], [True, True, False]]
    assert (forecast.num_samples, forecast.num_rows, forecast.horizon) == (19, 2, 3)


def test_summaries_are_those_of_the_samples(forecast):
    torch.testing.assert_close(forecast.mean, forecast.samples.mean(0))
    torch.testing.assert_close(forecast.sd, forecast.samples.std(0))
    ordered = forecast.samples.sort(0).values
    torch.testing.assert_close(forecast.median, ordered[9])
    low, high = forecast.interval(0.9)  # ranks 1 and 19 of 19
    torch.testing.assert_close(torch.stack([low, high]), ordered[[0, 18]])
    torch.testing.assert_close(forecast.quantile(0.75), ordered[14])


def test_frame_has_neuralforecasts_columns(forecast):
    frame = forecast.to_frame(levels=(80, 90))
    wanted = ["unique_id", "ds"]
    for name in ("albumin", "bilirubin"):
        wanted += [name, f"{name}-median", f"{name}-lo-80", f"{name}-hi-80", f"{name}-lo-90", f"{name}-hi-90"]
    assert frame.columns.tolist() == wanted
    assert frame["unique_id"].tolist() == ["ann"] * 3 + ["bob"] * 2
    assert frame["ds"].tolist() == [3, 4, 5, 4, 6]
    assert frame["bilirubin"][3] == pytest.approx(float(forecast.mean[1, 0, 1]))
    low, high = forecast.interval(0.8)
    assert frame["albumin-lo-80"][4] == pytest.approx(float(low[1, 1, 0]))
    assert frame["albumin-hi-80"][4] == pytest.approx(float(high[1, 1, 0]))


def test_long_frame_holds_the_same_numbers(forecast):
    wide, long = forecast.to_frame(), forecast.to_long_frame()
    assert long.columns.tolist()[:5] == ["unique_id", "ds", "variable", "y", "y-median"]
    assert len(long) == 2 * len(wide)
    for name in forecast.variables:
        part = long[long["variable"] == name].reset_index(drop=True)
        for suffix in ("", "-median", "-lo-90", "-hi-90"):
            pd.testing.assert_series_equal(part["y" + suffix], wide[name + suffix], check_names=False)


def test_parquet_reads_back(forecast, tmp_path):
    path = forecast.to_parquet(tmp_path / "forecast.parquet", levels=(90,))
    pd.testing.assert_frame_equal(pd.read_parquet(path), forecast.to_frame(levels=(90,)), check_dtype=False)
    assert [p.name for p in tmp_path.iterdir()] == ["forecast.parquet"]


def test_a_models_frame_is_neuralforecasts_own_layout(forecast, tmp_path):
    path = forecast.to_parquet(tmp_path / "forecast.parquet", levels=(80, 90), model="LatentSDE")
    frame, wide = pd.read_parquet(path), forecast.to_frame(levels=(80, 90))
    suffixes = ["", "-median", "-lo-80", "-hi-80", "-lo-90", "-hi-90"]
    assert frame.columns.tolist() == ["unique_id", "ds", *("LatentSDE" + suffix for suffix in suffixes)]
    for name in forecast.variables:  # every variable is a series
        part = frame[frame["unique_id"].str.endswith("/" + name)].reset_index(drop=True)
        assert (part["unique_id"].str.removesuffix("/" + name) == wide["unique_id"]).all()
        pd.testing.assert_series_equal(part["ds"], wide["ds"])
        for suffix in suffixes:
            pd.testing.assert_series_equal(part["LatentSDE" + suffix], wide[name + suffix], check_names=False)
    one = make(times=torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    assert one.to_frame(model="M")["unique_id"].tolist() == ["a", "a", "b", "b"]


def test_times_are_written_as_timestamps(forecast):
    frame = forecast.to_frame(time_unit="h")
    assert frame["ds"].iloc[0] == pd.Timestamp("1970-01-01 03:00", tz="UTC")


def test_xarray_holds_the_forecast_and_gives_it_back(forecast):
    pytest.importorskip("xarray")
    dataset = forecast.to_xarray()
    assert dict(dataset.sizes) == {"sample": 19, "unique_id": 2, "step": 3}
    bob = dataset["bilirubin"].sel(unique_id="bob")
    assert bob.isel(step=1, sample=4).item() == pytest.approx(float(forecast.samples[4, 1, 1, 1]))
    assert dataset["ds"].sel(unique_id="bob").values.tolist() == [4, 6, 6] and bool(bob.isel(step=2).isnull().all())
    torch.testing.assert_close(torch.tensor(dataset["albumin"].mean("sample").values[0]), forecast.mean[0, :, 0])
    back = Forecast.from_xarray(dataset.transpose("step", ...))
    here = forecast.present
    assert torch.equal(back.samples[:, here], forecast.samples[:, here])
    for name in ("times", "present", "origin"):
        assert torch.equal(getattr(back, name), getattr(forecast, name))
    assert (back.ids, back.variables) == (forecast.ids, forecast.variables)
    assert make().to_xarray().coords.keys() == {"unique_id", "ds"} and Forecast.from_xarray(make().to_xarray()).ids
    with pytest.raises(ValueError, match="^dataset: coordinates"):
        Forecast.from_xarray(dataset.mean("sample"))
    with pytest.raises(ValueError, match="^variables: 'ds' given"):
        make(variables=("ds",)).to_xarray()


def test_undo_returns_to_the_units_of_the_data(history, forecast):
    scaling = Scaling.fit(history, log=["bilirubin"])
    raw = forecast.undo(scaling)
    torch.testing.assert_close(scaling.apply_times(raw.times), forecast.times)
    torch.testing.assert_close(scaling.apply_times(raw.origin), forecast.origin)
    torch.testing.assert_close(raw.median[..., 1], (forecast.median[..., 1] * scaling.sd[1] + scaling.mean[1]).exp())
    # The mean is taken after the exponential, so it lies above the exponential of the mean (Jensen).
    assert bool((raw.mean[..., 1] > (forecast.mean[..., 1] * scaling.sd[1] + scaling.mean[1]).exp()).all())


@pytest.mark.parametrize("index", [1, "bob", [1], ["bob"], slice(1, 2), [False, True], torch.tensor([-1])])
def test_rows_by_number_name_slice_or_mask(forecast, index):
    one = forecast.rows(index)
    assert one.ids == ("bob",) and one.origin.tolist() == [3.0]
    torch.testing.assert_close(one.samples, forecast.samples[:, 1:])
    assert one.present.tolist() == [[True, True, False]]


def test_float32_and_dtype_moves_keep_times_in_double(forecast):
    single = forecast.to(dtype=torch.float32)
    assert single.samples.dtype == torch.float32 and single.times.dtype == torch.float64
    torch.testing.assert_close(single.median.double(), forecast.median, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("row, variable", [(0, 0), ("bob", "bilirubin")])
def test_plot_draws_the_median_the_bands_and_both_kinds_of_points(history, forecast, row, variable):
    axes = forecast.plot(row, variable, history=history, truth=history)
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["90 % interval", "50 % interval", "median", "known", "what happened"]
    r, d = forecast.ids.index(row) if isinstance(row, str) else row, int(variable != 0)
    median = next(line for line in axes.lines if line.get_label() == "median")
    here = forecast.present[r]
    assert median.get_ydata().tolist() == pytest.approx(forecast.median[r, here, d].tolist())
    known = next(line for line in axes.lines if line.get_label() == "known")
    assert known.get_xdata().tolist() == history.times[r][history.mask[r, :, d]].tolist()


def test_quantiles_of_one_sample_are_the_sample():
    assert sample_quantiles(torch.tensor([3.0]), [0.0, 0.5, 1.0]).tolist() == [3, 3, 3]


def make(**changes):
    good = {
        "samples": torch.zeros(3, 2, 2, 1),
        "times": torch.tensor([[0.0, 1.0], [0.0, 1.0]]),
        "ids": ("a", "b"),
        "variables": ("y",),
    }
    return Forecast(**(good | changes))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"samples": torch.zeros(3, 2, 2)}, r"^samples: want \(S, B, H, D\)"),
        ({"samples": torch.zeros(0, 2, 2, 1)}, "^samples: want .* S >= 1"),
        ({"times": torch.zeros(2, 3)}, r"^times: want shape \(2, 2\)"),
        ({"times": torch.tensor([[0.0, 1.0], [1.0, 0.0]])}, "^times: want nondecreasing"),
        ({"times": torch.tensor([[0.0, 1.0], [0.0, torch.nan]])}, "^times: not all finite"),
        ({"ids": ("a",)}, "^ids: want 2 names"),
        ({"variables": ("y", "z")}, "^variables: want 1 names"),
        ({"present": torch.ones(2, 2)}, "^present: want a bool"),
        ({"origin": torch.zeros(3)}, "^origin: want one time per row"),
        ({"samples": torch.full((3, 2, 2, 1), torch.inf)}, "^samples: 1 of them are not finite.*diverged"),
    ],
)
def test_bad_construction_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_bad_questions_are_named(forecast, history):
    with pytest.raises(ValueError, match="^levels: "):
        forecast.to_frame(levels=(0.9,))
    with pytest.raises(ValueError, match="^row: no row 'eve'"):
        forecast.rows("eve")
    with pytest.raises(ValueError, match="^row: want a number below 2, got 2"):
        forecast.rows([0, 2])
    with pytest.raises(ValueError, match="^variable: no variable 'copper'; want one of albumin, bilirubin"):
        forecast.plot(0, "copper")
    with pytest.raises(ValueError, match="^samples: a standard deviation"):
        _ = make(samples=torch.zeros(1, 2, 2, 1)).sd
    with pytest.raises(ValueError, match="^level: "):
        forecast.interval(1.0)
    for times, message in (
        (torch.tensor([[3.0], [2.5]]), r"^times: 2\.5 \(row 'bob', place 0\) comes before the row's last observed"),
        (torch.tensor([[3.0, 2.5], [4.0, 5.0]]), r"^times: 2\.5 \(row 'ann', place 1\) comes before the time asked"),
        (torch.tensor([4.0, torch.nan]), "^times: nan .* not finite"),
        (torch.zeros(3, 2), r"^times: shape \(3, 2\) given, \(2, H\)"),
    ):
        with pytest.raises(ValueError, match=message):
            check_forecast_times(history, times)
