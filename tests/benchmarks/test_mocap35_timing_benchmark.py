"""The error in the best timing: none for a forecast that is only late and slow, all of it for one that is wrong."""

from pathlib import Path

import pytest
import torch

from benchmarks.mocap35_timing import records, retimed
from neurodyn.recipes.mocap35 import prepare, split


def waves(frames: torch.Tensor) -> torch.Tensor:
    return torch.stack((torch.sin(0.1 * frames), torch.cos(0.07 * frames)), -1)[None]


def test_a_forecast_that_is_only_late_and_slow_is_right_in_the_best_timing():
    frames = torch.arange(120, dtype=torch.float64)
    forecast, future = waves(frames), waves(0.95 * frames + 4)
    plain = (forecast - future).square().mean((1, 2))
    assert plain > 0.01
    # what is left is the error of lines between frames, |f''| / 8 = 0.00125 at the most, squared
    assert retimed(forecast, future) < 2e-6


def test_no_timing_mends_another_level_or_makes_things_worse():
    frames = torch.arange(60, dtype=torch.float64)
    level = torch.full((1, 60, 2), 3.0, dtype=torch.float64)
    assert retimed(level, level - 2) == pytest.approx(4.0)
    right = torch.cat((waves(frames), waves(frames + 1)))
    assert torch.equal(retimed(right, right), torch.zeros(2, dtype=torch.float64))


def test_the_mean_of_forecasts_that_err_by_chance_errs_less(data_folder: Path):
    walks = prepare(2)
    future = split(walks.test, 2)[1].values
    noise = torch.randn(4, *future.shape, generator=torch.Generator().manual_seed(0))
    found = {r.column: r.value for r in records({2: list(future + noise)}, [0, 1, 2, 3])}
    size = walks.scale**2 * walks.share
    assert found["error"] == pytest.approx(size, rel=0.02)
    assert found["of the mean of 4 forecasts"] == pytest.approx(size / 4, rel=0.02)
