"""The benchmark of irregular forecasts on made-up windows: each entity's score, and the tables."""

import pytest
import torch

from benchmarks import irregular_forecast as benchmark
from neurodyn.datasets import time_imm
from neurodyn.datasets.splits import Splits
from neurodyn.series import SeriesBatch


def windows(part: int, rows: int = 12) -> SeriesBatch:
    """Entity a stands still but for noise, entity b moves; four days known, two to come."""
    generator = torch.Generator().manual_seed(part)
    times = torch.arange(7.0)[None].repeat(rows, 1)
    noise = torch.randn(rows, 7, 1, generator=generator)
    moving = (torch.arange(rows) % 2).bool()[:, None, None]
    values = torch.where(moving, 3 * noise.cumsum(1), 0.1 * noise)
    return SeriesBatch(times, values, ids=tuple(f"{'ab'[k % 2]}@{part}.{k}" for k in range(rows)))


@pytest.fixture
def made_up(monkeypatch):
    info = {"protocols": {"window": {"until": 4.0}}, "log": ()}
    splits = Splits(windows(0, 40), windows(1), windows(2), info)
    monkeypatch.setattr(time_imm, "load", lambda subset: splits)


def test_each_entitys_windows_are_scored_apart(made_up) -> None:
    found = benchmark.measure("EPA-Air", "last_value", 0, 2)
    assert found["rows"] == 12 and list(found["entities"]) == ["a", "b"]
    assert found["entities"]["a"] < 0.5 * found["entities"]["b"]
    assert sum(found["entities"].values()) / 2 == pytest.approx(found["scores"]["crps"], rel=1e-6)


def test_tables_have_means_over_seeds_in_the_order_of_models() -> None:
    def job(name: str, seed: int, crps: float) -> dict:
        scores = {key: crps for key in benchmark.COLUMNS}
        return {
            "subset": "ILINet",
            "name": name,
            "seed": seed,
            "result": {"scores": scores, "entities": {"USA": crps}, "rows": 3},
        }

    made = benchmark.records([job("direct_gru", 0, 0.2), job("direct_gru", 1, 0.4), job("last_value", 0, 0.5)])
    own = [record for record in made if record.table == "irregular_forecast/ILINet" and record.column == "CRPS"]
    assert [record.row for record in own] == ["last value", "direct GRU"]
    assert (own[1].value, own[1].low, own[1].high) == (pytest.approx(0.3), 0.2, 0.4)
    entity = next(record for record in made if record.table == "irregular_forecast/ILINet-entities")
    assert (entity.row, entity.column, entity.value, entity.better) == ("last value", "USA", 0.5, "lower")


def test_every_row_is_fitted_by_one_protocol(made_up) -> None:
    for name in ("ridge", "stable_gsde", "direct_gru"):
        found = benchmark.measure("EPA-Air", name, 0, 2)
        assert found["rows"] == 12 and 0 < found["scores"]["crps"] < 5 and found["scores"]["seconds"] > 0


def test_the_hopper_has_its_errors_by_share_beside_published_ones(data_folder) -> None:
    found = benchmark.measure("hopper-70", "last_value", 0, 2)
    assert found["rows"] == 150 and not found["entities"]
    job = {"subset": "hopper-70", "name": "last_value", "seed": 0, "result": found}
    made = {(r.table, r.row, r.column): r for r in benchmark.records([job])}
    assert made["irregular_forecast/hopper", "last value", "MSE, 70 % dropped"].value == found["scores"]["mse"]
    assert made["irregular_forecast/hopper", "neural CDE", "MSE, 0 % dropped"].source
