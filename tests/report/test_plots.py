"""Pictures: what they draw is what they were given, and they leave no trace in matplotlib's global state."""

import subprocess
import sys
import warnings

import matplotlib.dates
import pandas as pd
import pytest
import torch

from neurodyn import plots, style
from neurodyn.diagnostics import Diagnostic
from neurodyn.forecast import Forecast
from neurodyn.frames import from_frame
from neurodyn.metrics.scores import calibration_curve
from neurodyn.series import SeriesBatch


def panels(figure):
    return [axes for axes in figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"]


def is_png(figure):
    return style.png(figure, dpi=60).startswith(b"\x89PNG")


@pytest.fixture
def data():
    g = torch.Generator().manual_seed(0)
    times = torch.rand(6, 8, generator=g, dtype=torch.float64).add(0.1).cumsum(1)
    mask = torch.rand(6, 8, 2, generator=g) < torch.tensor([0.9, 0.4])
    mask[:, :, 0] |= ~mask.any(-1)
    return SeriesBatch(times, torch.randn(6, 8, 2, generator=g), mask, ids=tuple("abcdef"), variables=("u", "v"))


@pytest.fixture
def forecast(data):
    history, truth = data.history(fraction=0.5), data.after(fraction=0.5)
    samples = torch.randn(50, 6, truth.num_times, 2, generator=torch.Generator().manual_seed(1))
    return history, truth, Forecast.of(history, truth.times, samples)


def test_fan_has_a_panel_per_row_and_variable_with_its_own_numbers(forecast):
    history, truth, made = forecast
    figure = plots.forecast_fan(
        made, rows=[2, "e"], variables=["v", 0], history=history, truth=truth, units={"u": "mg"}, time_label="time (h)"
    )
    grid = panels(figure)
    assert len(grid) == 4 and [a.get_title(loc="left") for a in grid] == ["c", "e", "", ""]
    assert [grid[0].get_ylabel(), grid[2].get_ylabel()] == ["v", "u (mg)"] and grid[3].get_xlabel() == "time (h)"
    median = next(line for line in grid[3].lines if line.get_label() == "median")
    assert median.get_ydata().tolist() == pytest.approx(made.median[4, made.present[4], 0].tolist())
    happened = next(line for line in grid[3].lines if line.get_label() == "what happened")
    assert happened.get_xdata().tolist() == truth.times[4][truth.mask[4, :, 0]].tolist()
    assert is_png(figure)


def test_loss_curves_draw_the_records_and_frame_the_late_part():
    records = [{"step": s, "objective": 1000.0 / s, "path_kl": 2.0, "filter_loss": 0.0} for s in range(10, 1010, 10)]
    records += [{"step": s, "validation": None if s == 500 else 3.0 + s} for s in range(100, 1100, 100)]
    figure = plots.loss_curves(records, best_step=100)
    objective, kl, validation = panels(figure)
    assert objective.lines[0].get_ydata().tolist() == pytest.approx([1000 / s for s in range(10, 1010, 10)])
    assert objective.get_ylim()[1] < 15  # the start, at 100, runs out of the frame
    assert len(kl.lines) == 2 and kl.lines[0].get_label() == "path KL"  # and the mark; a filter loss of 0 is no curve
    assert len(validation.lines[0].get_xdata()) == 9  # the value that was not finite is left out
    assert is_png(figure)
    without = [{"step": s, "objective": 1.0 / s, "initial_kl": 0.0, "path_kl": 0.0} for s in (10, 20)]
    assert len(panels(plots.loss_curves(without))) == 1  # a model without a KL has no panel for it
    with pytest.raises(ValueError, match="^history: "):
        plots.loss_curves([{"step": 1}])


def test_calibration_draws_the_curve_of_the_pit():
    pit = torch.rand(500, generator=torch.Generator().manual_seed(0)).pow(2)
    pit[:50] = torch.nan
    left, right = panels(plots.calibration(pit))
    x, y = left.lines[1].get_data()
    torch.testing.assert_close(torch.as_tensor(y), calibration_curve(pit.double(), torch.as_tensor(x)))
    assert len(right.patches) - 1 == 10  # bins, and the band
    assert sum(p.get_height() for p in right.patches[:10]) == pytest.approx(10)


def test_by_horizon_draws_every_model_and_level():
    table = pd.DataFrame({"lead": [1.0, 2.0], "crps": [0.3, 0.4], "coverage_50": [0.5, 0.4], "coverage_90": [0.9, 0.8]})
    figure = plots.by_horizon({"one": table, "two": table * 2}, unit="mg")
    left, right = panels(figure)
    assert left.get_ylabel() == "CRPS (mg)" and left.lines[1].get_ydata().tolist() == [0.6, 0.8]
    assert len(right.lines) == 2 * 2 + 2
    assert is_png(figure)
    with pytest.raises(ValueError, match="^tables: "):
        plots.by_horizon({})


def test_missingness_counts_visits_and_shares(data):
    figure = plots.missingness(data, time_label="t", max_rows=4)
    left, right = panels(figure)
    shares = (data.mask.double().sum((0, 1)) / data.present.sum()).tolist()
    assert [p.get_width() for p in right.patches] == pytest.approx(shares)
    drawn = left.collections[0].get_offsets()
    chosen = data.last_time.argsort()[[0, 2, 3, 5]]
    assert len(drawn) == int(data.present[chosen].sum()) and left.get_ylabel() == "4 of 6 series"
    assert is_png(figure)


def ticks(axes):
    """The texts under an x-axis and at its end."""
    axes.figure.draw_without_rendering()
    said = [text.get_text() for text in axes.get_xticklabels() if text.get_text()]
    return said, axes.xaxis.get_offset_text().get_text()


@pytest.mark.parametrize("unit", ["s", "h", "D", "Y"])
def test_numbers_since_1970_are_drawn_as_dates(unit):
    dates = pd.DatetimeIndex(["2024-03-01", "2024-03-09 06:00", "2024-04-01"], tz="UTC")
    frame = pd.DataFrame({"unique_id": "a", "ds": dates, "y": [1.0, 2.0, 3.0]})
    series = from_frame(frame, time_unit=unit)
    middle = float(series.times[0, 1])
    history, truth = series.history(until=middle), series.after(until=middle)
    made = Forecast.of(history, truth.times, torch.randn(20, 1, 1, 1))
    fan = plots.forecast_fan(made, [0], history=history, truth=truth, time_unit=unit)
    left = panels(plots.missingness(series, time_unit=unit))[0]
    drawn = {line.get_label(): line.get_xdata() for line in panels(fan)[0].lines}
    for axes in (panels(fan)[0], left):
        said, where = ticks(axes)
        assert set(said) <= {f"{day:02d}" for day in range(1, 32)} | {"Mar", "Apr"} and where.startswith("2024")
        assert axes.get_xlabel() == ""
    wanted = [float(day) for day in matplotlib.dates.date2num(dates)]
    assert [*drawn["known"], *drawn["what happened"]] == pytest.approx(wanted, abs=1e-6)
    assert drawn["median"].tolist() == pytest.approx(wanted[2:], abs=1e-6)
    assert left.collections[0].get_offsets()[:, 0].tolist() == pytest.approx(wanted, abs=1e-6)
    with pytest.raises(ValueError, match="^time_unit: 'day' given"):
        made.plot(time_unit="day")


@pytest.mark.parametrize("span", [1e-4, 2e-3, 0.1, 1.1, 2.9, 20, 80, 91, 400, 900, 1090, 1e4])
def test_dates_are_found_for_any_span(span):
    figure, axes = style.grid_of_axes(1, 1, width=3, height=2)
    axes[0, 0].plot([19700.3, 19700.3 + span], [0, 1])
    style.date_axis(axes[0, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said, _ = ticks(axes[0, 0])
    assert 2 <= len(said) <= 9


def test_latents_leave_padding_out():
    times = torch.tensor([[0.0, 1, 2, 3], [0.0, 1, 1, 1]])
    path = torch.arange(5.0)[:, None, None, None] + torch.zeros(5, 2, 4, 3)
    figure = plots.latents(path, times, rows=(0, 1), ids=("a", "b"))
    grid = panels(figure)
    assert len(grid) == 6
    assert grid[1].lines[-1].get_xdata().tolist() == [0, 1] and grid[0].lines[-1].get_ydata().tolist() == [2] * 4
    with pytest.raises(ValueError, match="^path: "):
        plots.latents(path, times[:, :3])


def test_diagnostic_bars_show_parts_and_small_ones_as_small():
    one = Diagnostic("gap", 0.1, "", "look", "", {"z1": 0.01, "z2": 0.02}, "share", (0.0, 1.0), 0.5)
    figure = plots.diagnostic_bars([one, one._replace(parts={})])
    (axes,) = panels(figure)
    assert [p.get_width() for p in axes.patches] == [0.01, 0.02] and axes.get_xlim() == (0, 1)
    assert axes.get_title(loc="left") == "gap: look" and axes.lines[0].get_xdata()[0] == 0.5
    with pytest.raises(ValueError, match="^diagnostics: "):
        plots.diagnostic_bars([one._replace(parts={})])


def test_importing_neurodyn_costs_no_matplotlib_and_pictures_no_pyplot():
    code = """
import sys, torch, neurodyn, neurodyn.plots, neurodyn.metrics, neurodyn.report
print("imported:", "matplotlib" in sys.modules)
forecast = neurodyn.forecast.Forecast(torch.randn(9, 1, 4, 1), torch.arange(4.0)[None], ("a",), ("y",))
neurodyn.style.png(neurodyn.plots.forecast_fan(forecast, rows=[0]))
print("drawn:", "matplotlib" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["imported: False", "drawn: True False"]
