"""The interpolation benchmark on made-up windows, and its tables."""

import pytest
import torch

from benchmarks import interpolation as benchmark
from neurodyn.datasets import time_imm
from neurodyn.datasets.splits import Splits
from neurodyn.series import SeriesBatch


def windows(part: int, rows: int) -> SeriesBatch:
    """Slow waves: a line between neighbours is nearly right."""
    phase = 6 * torch.rand(rows, 1, generator=torch.Generator().manual_seed(part), dtype=torch.float64)
    times = torch.arange(24.0, dtype=torch.float64).expand(rows, -1)
    values = torch.stack(((times / 4 + phase).sin(), (times / 4 + phase).cos()), -1).float()
    return SeriesBatch(times, values, ids=tuple(f"a@{part}.{k}" for k in range(rows)))


def test_every_row_is_fitted_by_one_protocol(monkeypatch) -> None:
    splits = Splits(windows(0, 40), windows(1, 8), windows(2, 8), {"protocols": {}, "log": ()})
    monkeypatch.setattr(time_imm, "load", lambda subset: splits)
    found = {name: benchmark.measure("ILINet", name, 0, 2) for name in ("last_value", "line", "ridge", "stable_lsde")}
    assert found["line"]["30"]["mse"] < 0.3 * found["last_value"]["30"]["mse"]
    assert found["ridge"]["30"]["mse"] < 0.5 and found["line"]["30"]["crps"] < found["line"]["70"]["crps"]
    jobs = [{"subset": "ILINet", "name": name, "seed": 0, "result": result} for name, result in found.items()]
    made = {(r.table, r.row, r.column): r for r in benchmark.records(jobs)}
    line = made["interpolation/ILINet", "straight line", "MSE, 50 % hidden"]
    assert line.value == pytest.approx(found["line"]["50"]["mse"]) and line.better == "lower"
    assert made["interpolation/ILINet", "stable LSDE", "fit"].unit == "s"
