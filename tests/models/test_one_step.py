"""Baselines of structure learning on systems whose graph they can find, and pairs by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from neurodyn.metrics.graphs import auroc
from neurodyn.models.baselines import one_step, pcmci
from neurodyn.models.structure import BASELINES, STRUCTURE_LEARNERS, learn_structure, self_correlation
from neurodyn.series import SeriesBatch

GRAPH = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]])


def chain(square: bool = False, rows: int = 6, points: int = 150, seed: int = 0) -> SeriesBatch:
    """x1 -> x2 -> x3 in steps of one; with `square` through a square, which no correlation sees."""
    random = np.random.default_rng(seed)
    x = np.zeros((rows, points, 3))
    x[:, 0] = random.normal(size=(rows, 3))
    for k in range(1, points):
        past = x[:, k - 1]
        drive = past[:, :2] ** 2 - 1 if square else past[:, :2]
        x[:, k] = 0.5 * past + random.normal(size=(rows, 3)) * 0.7
        x[:, k, 1:] += 0.6 * drive
    times = torch.arange(points, dtype=torch.float64).expand(rows, -1).clone()
    return SeriesBatch(times, torch.as_tensor(x, dtype=torch.float32))


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "componentwise_mlp"])
def test_every_baseline_finds_a_linear_chain(name: str) -> None:
    if name == "pcmci_plus":
        pytest.importorskip("tigramite")
    scores = learn_structure(name, chain()).scores
    assert scores.shape == (3, 3) and (scores >= 0).all()
    floor = 0.8 if name == "lagged_correlation" else 0.99  # which also sees x1 -> x3 through x2
    assert auroc(scores, GRAPH) >= floor and auroc(scores.T, GRAPH, diagonal=False) < 0.7


@pytest.mark.parametrize("name", ["quadratic_ridge", "boosted_trees"])
def test_those_that_bend_find_squares(name: str) -> None:
    series = chain(square=True)
    assert auroc(learn_structure(name, series).scores, GRAPH, diagonal=False) == 1
    linear = learn_structure("ridge", series).scores
    assert linear[0, 1] < 0.3 * linear[1, 1]  # a square of symmetric values has no line


def test_the_perceptrons_find_squares() -> None:
    series = chain(square=True)
    scores = one_step.componentwise_mlp(series, steps=700)
    assert auroc(scores, GRAPH) == 1
    assert np.array_equal(scores, one_step.componentwise_mlp(series, steps=700))


def test_t_statistics_are_those_of_least_squares() -> None:
    """Against scipy's regression of one variable on one other."""
    from scipy.stats import linregress

    series = chain().select(["y1"])
    x, y = one_step.one_step_pairs(series)
    wanted = linregress(x[:, 0], y[:, 0])
    found = one_step.vector_autoregression(series)
    assert found[0, 0] == pytest.approx(wanted.slope / wanted.stderr)


def test_pairs_are_one_step_apart_and_gaps_are_filled() -> None:
    times = torch.tensor([[0.0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14]], dtype=torch.float64)
    values = torch.stack((times[0], -times[0]), -1)[None].float()
    mask = torch.ones(1, 13, 2, dtype=torch.bool)
    mask[0, 4, 1] = False
    x, y = one_step.one_step_pairs(SeriesBatch(times, values, mask))
    assert x.shape == (10, 2)  # twelve gaps, two of them double
    # standardised by x: the steps are all equal, the filled one included
    assert np.allclose(y - x, (y - x)[0]) and x.mean(0) == pytest.approx([0, 0]) and x.std(0) == pytest.approx([1, 1])


def test_times_of_all_kinds_take_gaps_up_to_the_median() -> None:
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(2, 40, generator=generator, dtype=torch.float64).cumsum(1)
    x, _ = one_step.one_step_pairs(SeriesBatch(times, torch.randn(2, 40, 2, generator=generator)))
    gaps = times.diff(dim=1).numpy().ravel()
    assert len(x) == (gaps <= 1.25 * np.median(gaps)).sum()


def test_the_grid_of_steps_holds_what_was_seen() -> None:
    times = torch.tensor([[1.0, 1.5, 2.0, 3.0, 3.5], [0.0, 0.5, 1.02, 1.5, 1.5]], dtype=torch.float64)
    values = torch.arange(20.0).reshape(2, 5, 2)
    mask = torch.ones(2, 5, 2, dtype=torch.bool)
    mask[0, 1, 1] = mask[1, 4] = False
    one, two = pcmci.on_grid(SeriesBatch(times, values, mask))
    gap = pcmci.MISSING
    assert one.tolist() == [[0, 1], [2, gap], [4, 5], [gap, gap], [6, 7], [8, 9]]
    assert two.tolist() == [[10, 11], [12, 13], [14, 15], [16, 17]]


def test_without_tigramite_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tigramite.data_processing", None)
    with pytest.raises(ImportError, match=r"neurodyn\[pcmci\]"):
        learn_structure("pcmci_plus", chain())


def test_too_few_pairs_are_refused() -> None:
    series = chain(rows=1, points=8)
    with pytest.raises(ValueError, match="batch: 7 pairs"):
        one_step.one_step_pairs(series)


def test_self_correlation_tells_what_visits_resolve() -> None:
    assert 0.3 < self_correlation(chain()) < 0.75
    white = SeriesBatch(chain().times, torch.randn(6, 150, 3))
    assert abs(self_correlation(white)) < 0.1
    walk = SeriesBatch(chain().times, torch.randn(6, 150, 3).cumsum(1))
    assert self_correlation(walk) > 0.9


def test_names_are_checked() -> None:
    with pytest.raises(ValueError, match="name: 'tree' given, one of lagged_correlation"):
        learn_structure("tree", chain())
    assert all(entry.label and entry.about for entry in STRUCTURE_LEARNERS.values())
