"""The physionet2012 benchmark: its baselines without chance, and its tables."""

import pytest
import torch

from benchmarks.physionet2012 import PUBLISHED, SHOWN, Line, Mean, fitted, records
from neurodyn.models.path_model import PathModel
from neurodyn.recipes.physionet2012 import Stays, interpolation_errors
from neurodyn.series import SeriesBatch


def test_a_line_is_filled_in_exactly_held_at_its_ends_and_unknown_variables_are_the_mean() -> None:
    times = torch.tensor([[0.0, 1.0, 3.0, 4.0], [0.0, 2.0, 2.0, 2.0]])
    values = torch.stack((2 * times - 1, torch.full_like(times, 7.0)), -1).float()
    mask = torch.tensor([[[True, False]] * 4, [[True, True], [True, False], [False, False], [False, False]]])
    batch = SeriesBatch(times, values, mask)
    asked = torch.tensor([[-1.0, 0.5, 2.0, 9.0], [0.0, 1.0, 1.5, 3.0]], dtype=torch.float64)
    filled = Line().interpolate(batch, asked, 1)
    assert filled[0, 0, :, 0].tolist() == [-1.0, 0.0, 3.0, 7.0]
    assert filled[0, 1, :, 0].tolist() == [-1.0, 1.0, 2.0, 3.0]
    assert filled[0, 0, :, 1].tolist() == [0.0] * 4 and filled[0, 1, :, 1].tolist() == [7.0] * 4
    assert torch.equal(Mean().interpolate(batch, asked, 1), torch.zeros(1, 2, 4, 2))


def test_tables_have_hidden_and_all_entries_apart_and_published_numbers_with_the_latter() -> None:
    def filled(seed: int, hidden: float) -> dict:
        errors = [{"hidden": hidden * 1e-3, "all": 1e-3} for _ in SHOWN]
        result = {"training": 10.0, "memory": 500.0, "errors": errors}
        return {"task": "interpolation", "row": "latent SDE", "seed": seed, "result": result}

    scores = {"CRPS": 0.3, "MSE of the mean": 0.5, "90 % coverage": 0.91}
    forecast = {"task": "extrapolation", "row": "GRU-D", "seed": 0}
    forecast["result"] = {"training": 5.0, "memory": 400.0, "scores": scores}
    made = {(r.table, r.row, r.column): r for r in records([filled(0, 2.0), filled(1, 4.0), forecast])}
    error = made["physionet2012/interpolation", "latent SDE", "70 % shown"]
    assert (error.value, error.low, error.high, error.seeds) == (pytest.approx(3), 2, 4, (0, 1))
    assert made["physionet2012/interpolation-all", "latent SDE", "70 % shown"].value == pytest.approx(1)
    assert made["physionet2012/extrapolation", "GRU-D", "90 % coverage"].better == ""
    assert made["physionet2012/extrapolation", "GRU-D", "CRPS"].better == "lower"
    row = next(iter(PUBLISHED))
    assert made["physionet2012/interpolation-all", row, "50 % shown"].source
    assert ("physionet2012/interpolation", row, "50 % shown") not in made


@pytest.mark.parametrize("task", ["interpolation", "extrapolation"])
def test_stable_sdes_are_fitted_by_the_same_protocol(task: str) -> None:
    g = torch.Generator().manual_seed(0)
    times = 40 * torch.sort(torch.rand(12, 10, generator=g, dtype=torch.float64), 1).values
    values, mask = torch.randn(12, 10, 3, generator=g), torch.rand(12, 10, 3, generator=g) > 0.5
    mask[:, 0] = True
    whole = SeriesBatch(times / 48, values, mask, ids=tuple(map(str, range(12))))
    stays = Stays(whole, whole, whole, torch.ones(3))
    model = fitted(task, "stable GSDE", stays, 0, 2, "cpu")
    assert isinstance(model, PathModel) and model.settings.reader == "gsde"
    assert model.settings.task == {"interpolation": "interpolate", "extrapolation": "forecast"}[task]
    if task == "interpolation":
        errors = interpolation_errors(model, whole, 0.5, stays.unit)
        assert 0 < errors["hidden"] < 3 and 0 < errors["all"] < errors["hidden"]
