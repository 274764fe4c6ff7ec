"""Unlinked series and what scores are worth against them, on numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neurodyn.datasets import load_structure
from neurodyn.models.unlinked import edge_probabilities, linked, unlinked, upper_group
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
def test_linked_is_the_share_of_true_edges_with_such_scores(share: float) -> None:
    """Scores N(0, 1) of no edge and N(2, 1) of an edge: the exact probability is a logistic function of the score."""
    random, gaps, shares, kept = np.random.default_rng(0), [], [], []
    for _ in range(40):
        truth = random.random(132) < share
        scores = random.normal(size=132) + 2.0 * truth
        found = linked(scores, random.normal(size=132))
        exact = share / (share + (1 - share) * np.exp(2 - 2 * scores))
        gaps.append(np.abs(found - exact).mean())
        shares.append(found.mean())
        kept.append((found > 0.5).mean())
    assert np.mean(gaps) < 0.1 and abs(np.mean(shares) - share) < 0.1
    if share == 0:
        assert np.mean(kept) < 0.03


def test_what_lies_above_all_unlinked_edges_is_linked_if_it_is_not_alone() -> None:
    null = np.linspace(0.05, 0.3, 30)
    scores = np.full(30, 0.1)
    scores[:5] = 0.9
    found = linked(scores, null)
    # five against the one above all: 1 - (1/6) / (5/6) * 30 / 31
    assert np.allclose(found[:5], 1 - 0.2 * 30 / 31) and (found[5:] < 0.1).all()
    scores[1:5] = 0.1
    assert linked(scores, null)[0] < 0.6


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_two_groups_are_told_apart_as_well_as_can_be(share: float) -> None:
    """Logits N(-2, 0.5) and N(-0.5, 0.5): against the exact posterior, and far better than the share alone."""
    random, gaps, trivial = np.random.default_rng(1), [], []
    for _ in range(5):
        upper = random.random(90) < share
        logit = random.normal(size=90) * 0.5 - 2 + 1.5 * upper
        exact = 1 / (1 + (1 - share) / share * np.exp(-(1.5 * (logit + 2) - 0.5 * 1.5**2) / 0.25))
        found = upper_group(1 / (1 + np.exp(-logit)))
        assert (np.diff(found[np.argsort(logit)]) > -1e-9).all()
        gaps.append(np.abs(found - exact).mean())
        trivial.append(np.abs(share - exact).mean())
    assert np.mean(gaps) < 0.3 * np.mean(trivial)


def test_edges_are_linked_and_in_the_upper_group_and_known_ones_keep_their_score() -> None:
    random = np.random.default_rng(2)
    scores = random.uniform(0.2, 0.3, size=(6, 6))  # above what is unlinked, and yet no edges of the law
    edges = np.eye(6, k=1, dtype=bool)
    scores[edges] = random.uniform(0.6, 0.8, size=5)
    np.fill_diagonal(scores, 0.9)
    free = np.ones((6, 6), dtype=bool)
    free[5, 0], scores[5, 0] = False, 1.0
    null = random.uniform(0.05, 0.15, size=30)
    found = edge_probabilities(scores, null, free)
    assert found[edges].min() > 0.8 and found.diagonal().min() > 0.9 and found[5, 0] == 1
    assert found[free & ~edges & ~np.eye(6, dtype=bool)].max() < 0.2
    between = scores[free & ~np.eye(6, dtype=bool)]
    chance = edge_probabilities(scores, between + random.uniform(-0.01, 0.01, size=between.shape), free)
    assert chance[edges].max() < 0.5  # groups that unlinked variables have too
