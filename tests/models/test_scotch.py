"""`Scotch` finds the graph of a system that is known, and keeps the contracts of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from neurodyn.datasets import load_structure
from neurodyn.metrics.graphs import auroc
from neurodyn.models.scotch import Scotch, ScotchConfig, motion
from neurodyn.models.structure import fit_settings, law_of_graph, learn_structure, seeded
from neurodyn.scaling import Scaling
from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig, fit

SMALL: dict[str, Any] = {"hidden_size": 8, "num_times": 4, "warmup_steps": 0, "ramp_steps": 10}


def system(**options: Any) -> tuple[SeriesBatch, np.ndarray]:
    """A standardised chain of three, and its graph."""
    chosen = {"variables": 3, "rows": 16, "points": 100, "dropped": 0.2, "missing": 0.1, "shared": False}
    data = load_structure("coupled_sdes", **chosen | options)
    return Scaling.fit(data.series).apply(data.series), data.graph.numpy()


def ragged() -> SeriesBatch:
    generator = torch.Generator().manual_seed(3)
    times = torch.rand(4, 6, generator=generator, dtype=torch.float64).cumsum(1)
    mask = torch.rand(4, 6, 3, generator=generator) < 0.7
    mask[:, 0] = True
    return SeriesBatch(times, torch.randn(4, 6, 3, generator=generator), mask, ids=tuple("abcd"))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"network": "embedding", "hidden_size": 32},
        {"gradient": "score", "num_graphs": 4},
        {"noise": 0.1},
        {"posterior": "step"},
        {"posterior": "simulated", "noise": 0.05, "num_graphs": 1, "warmup_steps": 100, "ramp_steps": 60},
    ],
    ids=["targets", "embedding", "score", "noise", "step", "simulated"],
)
def test_it_finds_the_graph_of_a_chain(settings: dict[str, Any]) -> None:
    series, graph = system()
    steps = settings.get("ramp_steps", 400)
    learned = learn_structure("scotch", series, steps=steps, settings={"warmup_steps": 150} | settings)
    assert auroc(learned.scores, graph) > 0.99 and auroc(learned.scores, graph, diagonal=False) == 1
    # the other way round it is no chain
    assert auroc(learned.scores.T, graph, diagonal=False) < 0.8


def test_on_noise_alone_no_edge_between_variables_survives() -> None:
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(8, 60, 4, generator=generator, dtype=torch.float64)
    times = 0.1 * torch.arange(60, dtype=torch.float64).expand(8, -1).clone()
    series = SeriesBatch(times, steps.cumsum(1).float())
    learned = learn_structure("scotch", Scaling.fit(series).apply(series), steps=400)
    off = learned.scores[~np.eye(4, dtype=bool)]
    assert off.max() < 0.5 and off.mean() < 0.35


def test_probabilities_are_high_for_a_chains_edges_and_low_without_links() -> None:
    off = ~np.eye(4, dtype=bool)
    for layout in ("chain", "none"):
        series, graph = system(variables=4, layout=layout)
        chosen = {"warmup_steps": 150, "num_times": 8, "hidden_size": 16}
        learned = learn_structure("scotch", series, steps=400, settings=chosen, calibrate=True)
        assert learned.probabilities is not None and learned.unlinked is not None
        assert learned.probabilities.diagonal().min() > 0.5 and learned.unlinked.shape == (12,)
        if layout == "chain":
            assert ((learned.probabilities > 0.5) == (graph > 0)).all()
        else:
            assert (learned.probabilities[off] > 0.5).sum() <= 1
    assert learn_structure("scotch", series.rows(slice(0, 1)), settings=SMALL, calibrate=True).probabilities is None


def test_the_price_rises_geometrically_and_scores_are_means_over_the_ramp() -> None:
    series, _ = system()
    model = seeded(series, 0, **SMALL | {"sparsity_start": 2.0, "sparsity": 200.0})
    prices, probabilities = [], []
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(14):
        prices.append(float(model.price))
        if step < 10:
            probabilities.append(model.edge_probabilities())
        optimiser.zero_grad()
        model.loss(series, generator=torch.Generator().manual_seed(step)).objective().backward()
        optimiser.step()
    assert prices[:2] == pytest.approx([2.0, 2.0 * 100**0.1]) and prices[10:] == pytest.approx([200.0] * 4)
    assert torch.allclose(model.edge_scores(), torch.stack(probabilities).mean(0))
    model.eval()
    before = model.edge_scores()
    model.loss(series)
    assert torch.equal(model.edge_scores(), before)  # looking changes nothing


def test_known_and_forbidden_edges_are_kept() -> None:
    series, _ = system()
    fixed = [[None, 0.0, None], [None, None, 1.0], [None, None, None]]
    learned = learn_structure("scotch", series, steps=20, settings={"fixed": fixed, **SMALL, "ramp_steps": 20})
    assert learned.scores[0, 1] == 0 and learned.scores[1, 2] == pytest.approx(1)


@pytest.mark.parametrize(
    "settings", [{}, {"noise": 0.2}, {"posterior": "step"}, {"posterior": "simulated", "noise": 0.2}]
)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_loss_does_not_depend_on_order_padding_or_batches(settings: dict[str, Any], mode: str) -> None:
    batch = ragged()
    model = seeded(batch, 0, **SMALL | settings).double().train(mode == "train")

    def parts(rows: SeriesBatch) -> torch.Tensor:
        with torch.no_grad():
            return torch.stack(model.loss(rows.to(dtype=torch.float64), generator=torch.Generator().manual_seed(1)))

    whole = parts(batch)
    assert whole.dtype == torch.float64 and whole.isfinite().all()
    order = [2, 0, 3, 1]
    assert torch.allclose(parts(batch.rows(order)), whole[:, order], rtol=1e-9)
    assert torch.allclose(parts(batch.padded(11)), whole, rtol=1e-9)
    assert torch.allclose(parts(batch.rows([1])), whole[:, [1]], rtol=1e-9)


def test_it_is_saved_and_loaded_whole(tmp_path) -> None:
    series, _ = system()
    model = learn_structure("scotch", series, settings=SMALL).model
    assert model is not None
    model.save(tmp_path / "model")
    other = Scotch.load(tmp_path / "model").eval()
    assert torch.equal(other.edge_scores(), model.edge_scores())
    times = series.last_time[:, None] + torch.tensor([0.2, 0.4])
    one, two = (
        m.forecast(series, times, 5, generator=torch.Generator().manual_seed(0)).samples for m in (model, other)
    )
    assert torch.equal(one, two)


def test_a_killed_fit_resumes_to_the_same_scores(tmp_path) -> None:
    series, _ = system(rows=3, points=20)
    whole = learn_structure("scotch", series, settings=SMALL | {"ramp_steps": 12}).scores
    model = seeded(series, 0, **SMALL | {"ramp_steps": 12})
    config = fit_settings(model, 0, "cpu", False)
    config.checkpoint_every = 5
    calls = 0
    loss = model.loss

    def stop(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return loss(*arguments, **options)

    model.loss = stop  # type: ignore[method-assign]
    assert fit(model, series, None, config, folder=tmp_path).stopped == "interrupted"
    again = seeded(series, 0, **SMALL | {"ramp_steps": 12})
    fit(again, series, None, config, folder=tmp_path)
    assert np.array_equal(again.edge_scores().double().numpy(), whole)


def test_forecasts_of_the_known_graph_follow_its_law() -> None:
    """An Ornstein-Uhlenbeck pair: the mean under the fitted law decays as it should, within a tolerance of learning."""
    series, graph = system(variables=2, dropped=0.0, missing=0.0)
    model = law_of_graph(series, graph, steps=500)
    assert torch.equal(model.edge_probabilities(), torch.as_tensor(graph).float())
    history = series.history(fraction=0.5)
    held = 1.5
    times = history.last_time[:, None] + torch.tensor([0.2, 0.25])
    generator = torch.Generator().manual_seed(0)
    plain = model.forecast(history, times, 300, generator=generator).samples
    free = model.forecast(history, times, 300, interventions={"x2": held}).samples
    moved = model.forecast(history, times, 300, interventions={"x1": held}).samples
    assert (moved[..., 0] == held).all() and (free[..., 1] == held).all()
    # x1 drives x2 by a weight whose sign the data know, and not the other way round
    assert abs(float(moved[..., 1].mean() - plain[..., 1].mean())) > 0.4
    assert abs(float(free[..., 0].mean() - plain[..., 0].mean())) < 0.25


def test_units_are_the_datas() -> None:
    times = torch.tensor([[0.0, 1.0, 3.0]], dtype=torch.float64)
    batch = SeriesBatch(times, torch.tensor([[[0.0, 1.0], [2.0, 1.0], [2.0, 5.0]]]))
    speed, rough, spacing = motion(batch)
    assert speed.tolist() == pytest.approx([(4 / 2) ** 0.5, (4 / 2) ** 0.5])
    assert rough.tolist() == pytest.approx([(4 / 2) ** 0.5, (16 / 2 / 2) ** 0.5]) and spacing == 1.0
    model = Scotch.on(batch)
    assert model.law.speed.tolist() == pytest.approx(speed.tolist())
    assert model.settings.longest_step == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"posterior": "simulated"}, "noise: None given with a simulated posterior"),
        ({"diffusion": "network"}, "diffusion: 'network' given with posterior 'bridge'"),
        ({"gradient": "score", "num_graphs": 1}, "gradient: 'score' given"),
        ({"network": "dense"}, "network: 'dense' given, one of embedding, targets"),
        ({"sparsity": 0.0}, "sparsity: 0.0 given, a positive"),
        ({"num_times": 0}, "num_times: 0 given, 1 or more"),
        ({"sparsty": 1.0}, r"Scotch: 'sparsty' given \(did you mean 'sparsity'"),
        ({"fixed": [[0.0, 1.0]]}, "fixed: a table"),
    ],
)
def test_bad_settings_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scotch.build(**{"num_variables": 3, "num_series": 2} | options)


def test_bad_series_are_named() -> None:
    series, _ = system(rows=2, points=10)
    with pytest.raises(ValueError, match="series: .* intervals between visits given over 2 series, 30 or more"):
        learn_structure("scotch", series)
    with pytest.raises(ValueError, match="series: 1 variable given"):
        learn_structure("scotch", system()[0].select(["x1"]))
    still = SeriesBatch(series.times, torch.ones(series.values.shape))
    with pytest.raises(ValueError, match="variable 'y1' that never changes given"):
        Scotch.on(still)
    model = seeded(series, 0, **SMALL)
    with pytest.raises(ValueError, match="batch: 2 variables given, 3 wanted"):
        model.loss(series.select(["x1", "x2"]))
    with pytest.raises(ValueError, match="interventions: 'x9' given"):
        model.forecast(series, series.last_time[:, None] + 1, 2, interventions={"x9": 0.0})


def test_config_holds_what_the_model_was_made_of() -> None:
    model = Scotch.on(ragged(), **SMALL)
    assert model.config is not None and ScotchConfig.of(**model.config) == model.settings
    assert FitConfig(steps=10).steps == fit_settings(model, 0, "cpu", False).steps
