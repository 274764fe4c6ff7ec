"""Where models compute, and in which dtype: their parameters decide, before and after `fit`, `save` and `load`."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neurodyn.forecast import Forecast
from neurodyn.models.baselines import DirectGRU, LatentODE
from neurodyn.models.latent_sde import LatentSDE
from neurodyn.models.linear_sde import LinearSDE
from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig, fit

SIZES: dict[str, Any] = {"hidden_size": 8, "context_size": 6, "longest_step": 0.3, "num_times": 4}
MAKERS = {
    "smoother": lambda: LatentSDE.on(LinearSDE(2), **SIZES),
    "smoother-student": lambda: LatentSDE.on(LinearSDE(2), likelihood="student_t", **SIZES),
    "simulated-on-core": lambda: LatentSDE.on(LinearSDE(2), posterior="simulated", **SIZES),
    "matched": lambda: LatentSDE.build(num_variables=2, latent_size=2, **SIZES),
    "simulated": lambda: LatentSDE.build(num_variables=2, latent_size=2, posterior="simulated", **SIZES),
}
NETWORKS = MAKERS | {
    "direct_gru": lambda: DirectGRU(2, context_size=6, hidden_size=8),
    "latent_ode": lambda: LatentODE(2, hidden_size=8),
}
ALL = NETWORKS | {"linear": lambda: LinearSDE(2)}


def series(dtype: torch.dtype = torch.float32) -> SeriesBatch:
    g = torch.Generator().manual_seed(3)
    times = torch.rand(4, 5, generator=g, dtype=torch.float64).cumsum(1)
    mask = torch.rand(4, 5, 2, generator=g) < 0.7
    mask[:, 0] = True
    return SeriesBatch(times, torch.randn(4, 5, 2, generator=g).to(dtype), mask, ids=tuple("abcd"))


def forecast(model: Any, batch: SeriesBatch) -> Forecast:
    times = batch.last_time[:, None] + torch.tensor([0.1, 0.5])
    return model.forecast(batch, times, 6, generator=torch.Generator().manual_seed(1))


def loss(model: Any, batch: SeriesBatch) -> Tensor:
    return torch.stack(model.loss(batch, generator=torch.Generator().manual_seed(1)))


def unmoved_fit(model: nn.Module, **options: Any) -> nn.Module:
    """`fit` with a step too small to move a weight that is not zero: what remains is what `fit` does around it."""
    config = FitConfig(steps=1, learning_rate=1e-30, warmup_steps=0, device="cpu", progress=False, **options)
    fit(model, series(), None, config)
    return model


@pytest.mark.parametrize("name", MAKERS)
def test_fit_save_and_load_change_neither_dtype_nor_bits_of_forecasts(name: str, tmp_path) -> None:
    fresh = MAKERS[name]().eval()
    before, before_loss = forecast(fresh, series()).samples, loss(fresh, series())
    assert before.dtype == before_loss.dtype == torch.float32
    loaded = LatentSDE.load(fresh.save(tmp_path / "fresh")).eval()
    fitted = unmoved_fit(copy.deepcopy(fresh)).eval()
    again = LatentSDE.load(fitted.save(tmp_path / "fitted")).eval()
    for model in (loaded, fitted, again):
        assert [p.dtype for p in model.parameters()] == [p.dtype for p in fresh.parameters()]
        assert torch.equal(forecast(model, series()).samples, before)
        assert torch.equal(loss(model, series()), before_loss)
    double = unmoved_fit(copy.deepcopy(fresh), precision="float64").eval()
    wide = forecast(double, series()).samples
    assert wide.dtype == loss(double, series()).dtype == torch.float64
    torch.testing.assert_close(wide.float(), before, rtol=1e-3, atol=1e-3)
    assert torch.equal(forecast(LatentSDE.load(double.save(tmp_path / "double")).eval(), series()).samples, wide)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_dtype_is_that_of_the_networks_not_of_the_data(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name]().to(dtype).eval()
    for given in (torch.float32, torch.float64):
        assert forecast(model, series(given)).samples.dtype == dtype
        assert loss(model, series(given)).dtype == dtype


def test_a_linear_core_stays_in_float64_and_a_linear_sde_answers_in_the_datas_dtype() -> None:
    model = MAKERS["smoother"]().to(torch.float32)
    assert {p.dtype for p in model.prior.initial.parameters()} == {torch.float64}
    linear = LinearSDE(2).to(torch.float32)
    for dtype in (torch.float32, torch.float64):
        assert linear.evidence(series(dtype)).dtype == torch.float64
        assert forecast(linear, series(dtype)).samples.dtype == dtype


@pytest.mark.parametrize("name", ALL)
def test_batches_are_taken_to_the_models_device(name: str, monkeypatch) -> None:
    model = ALL[name]()
    asked = []
    move = SeriesBatch.to

    def watched(batch: SeriesBatch, device: Any = None, dtype: Any = None) -> SeriesBatch:
        asked.append((device, dtype))
        return move(batch, device, dtype)

    monkeypatch.setattr(SeriesBatch, "to", watched)
    wanted = (torch.device("cpu"), None if name == "linear" else torch.float32)
    calls = [lambda: loss(model, series()), lambda: forecast(model, series())]
    if isinstance(model, LatentSDE):
        calls.append(lambda: model.detail(series()))
    for call in calls:
        asked.clear()
        call()
        assert asked[0] == wanted


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ALL)
def test_a_model_on_cuda_takes_batches_from_the_cpu_and_gives_forecasts_back_there(name: str) -> None:
    torch.manual_seed(0)
    model = ALL[name]().eval()
    here = forecast(model, series())
    model.to("cuda")
    there = forecast(model, series())
    assert there.samples.device.type == there.times.device.type == "cpu"
    torch.testing.assert_close(there.samples, here.samples, rtol=1e-3, atol=1e-3)
    assert loss(model, series()).device.type == "cuda"
    assert forecast(model, series().to("cuda")).samples.device.type == "cuda"
