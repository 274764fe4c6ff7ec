"""The time_imm benchmark on made-up windows: each entity's score, and the tables."""

import pytest
import torch

from benchmarks import time_imm as benchmark
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
    found = benchmark.measure("EPA-Air", "last_value", 0)
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
    own = [record for record in made if record.table == "time_imm/ILINet" and record.column == "CRPS"]
    assert [record.row for record in own] == ["last value", "direct GRU"]
    assert (own[1].value, own[1].low, own[1].high) == (pytest.approx(0.3), 0.2, 0.4)
    entity = next(record for record in made if record.table == "time_imm/ILINet-entities")
    assert (entity.row, entity.column, entity.value, entity.better) == ("last value", "USA", 0.5, "lower")
