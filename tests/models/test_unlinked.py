"""Unlinked series and what scores are worth against them, on numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neurodyn.datasets import load_structure
from neurodyn.models.unlinked import edge_probabilities, unlinked
from neurodyn.series import SeriesBatch


def test_every_variable_keeps_its_values_and_times_and_its_row_changes() -> None:
    data = load_structure("coupled_sdes", variables=4, rows=3, points=12, dropped=0.3, missing=0.2, shared=False).series
    times = data.times + torch.tensor([[0.0], [5.0], [-2.0]], dtype=torch.float64)  # rows need not begin together
    data = SeriesBatch(times, data.values, data.mask, ids=data.ids)
    made, apart = unlinked(data, 0)
    assert made.ids == data.ids and made.variables == data.variables and not apart.diagonal().any()

    def curves(batch: SeriesBatch, k: int) -> list[list[tuple[float, float]]]:
        found = []
        for row in range(batch.num_rows):
            seen = batch.mask[row, :, k]
            since = batch.times[row, seen] - batch.times[row, batch.mask[row].any(-1)][0]
            found.append(
                [(round(float(t), 9), float(x)) for t, x in zip(since, batch.values[row, seen, k], strict=True)]
            )
        return found

    for k in range(4):
        before, after = curves(data, k), curves(made, k)
        assert sorted(before) == sorted(after)
    moved = [[curves(data, k).index(one) for one in curves(made, k)] for k in range(4)]
    for i in range(4):
        for j in range(4):
            assert apart[i, j] == all(a != b for a, b in zip(moved[i], moved[j], strict=True))
    assert apart.sum() == 4 * 3 - 2  # four variables on three shifts: one pair shares


def test_one_series_has_no_partner() -> None:
    with pytest.raises(ValueError, match="series: 1 given, 2 or more wanted"):
        unlinked(load_structure("coupled_sdes", rows=1, points=10).series, 0)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
def test_probabilities_are_the_share_of_true_edges_with_such_scores(share: float) -> None:
    """Scores N(0, 1) of no edge and N(2, 1) of an edge: the exact probability is a logistic function of the score."""
    random, gaps, shares, kept = np.random.default_rng(0), [], [], []
    off = ~np.eye(12, dtype=bool)
    for _ in range(40):
        truth = random.random((12, 12)) < share
        scores = random.normal(size=(12, 12)) + 2.0 * truth
        found = edge_probabilities(scores, random.normal(size=132))
        exact = share / (share + (1 - share) * np.exp(2 - 2 * scores))
        gaps.append(np.abs(found - exact)[off].mean())
        shares.append(found[off].mean())
        kept.append((found[off] > 0.5).mean())
    assert np.mean(gaps) < 0.1 and abs(np.mean(shares) - share) < 0.1
    if share == 0:
        assert np.mean(kept) < 0.03


def test_what_lies_above_all_unlinked_edges_is_an_edge_if_it_is_not_alone() -> None:
    scores = np.full((6, 6), 0.1)
    scores[0, 1:] = 0.9
    np.fill_diagonal(scores, 0.95)
    found = edge_probabilities(scores, np.linspace(0.05, 0.3, 30))
    # five against the one above all: 1 - (1/6) / (5/6) * 30 / 31
    assert np.allclose(found[0, 1:], 1 - 0.2 * 30 / 31) and np.allclose(found.diagonal(), 1 - 6**-0.5 / 31)
    assert (found[1:][~np.eye(6, dtype=bool)[1:]] < 0.1).all()
    scores[0, 2:] = 0.1
    alone = edge_probabilities(scores, np.linspace(0.05, 0.3, 30))
    assert alone[0, 1] < 0.6
