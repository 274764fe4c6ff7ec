"""The mocap35 benchmark: its baselines, its intervals, its choices of weights and its tables."""

import pytest
import scipy.stats
import torch

from benchmarks.mocap35 import PUBLISHED, analogues, choices, half_width, records
from neurodyn.recipes.mocap35 import Look


def test_what_was_seen_before_is_continued_as_it_went_on() -> None:
    library = torch.randn(3, 40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    known = library[[1, 2], 5:12]
    assert torch.equal(analogues(known, library, 28, 3), library[[1, 2], 12:40])


def test_at_the_end_of_a_walk_the_search_begins_again() -> None:
    cycle = torch.arange(12.0, dtype=torch.float64)[:, None] % 5  # 0 1 2 3 4 0 1 2 3 4 0 1
    assert analogues(cycle[None, 2:6], cycle[None], 9, 3)[0, :, 0].tolist() == [1, 2, 3, 4, 0, 1, 2, 3, 4]


def test_half_width_is_that_of_the_t_interval() -> None:
    values = [2.0, 3.5, 2.2, 4.1]
    low, high = scipy.stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=scipy.stats.sem(values))
    assert half_width(values) == pytest.approx((high - low) / 2)


def test_choices_look_the_test_error_up_where_each_would_have_stopped() -> None:
    looks = [Look(3.0, [1.0, 9.0], -50.0), Look(2.0, [4.0, 1.0], -70.0), Look(4.0, [4.0, 4.0], -60.0)]
    assert choices(looks, [5.0, 6.0, 4.0]) == {
        "selected": 6.0,
        "last weights": 4.0,
        "by the ELBO": 5.0,
        "by the first start": 5.0,
        "best on test": 4.0,
    }


def test_tables_have_means_over_seeds_each_walk_and_published_numbers_apart() -> None:
    def result(errors):
        names = ("selected", "last weights", "by the ELBO", "by the first start", "best on test")
        return {
            "errors": errors,
            "on validation": 2.5,
            "CRPS": 1.0,
            "90 % coverage": 0.9,
            "training": 10.0,
            "memory": 500.0,
            "step": 9,
            "choices": dict.fromkeys(names, 3.0),
        }

    jobs = {
        "a": {"row": "SDE Matching, ELBO", "setup": 2, "seed": 10, "result": result([2.0, 3.0, 2.0, 3.0])},
        "b": {"row": "SDE Matching, ELBO", "setup": 2, "seed": 11, "result": result([3.0, 4.0, 3.0, 4.0])},
        "t": {"row": "SDE Matching, ELBO", "setup": 2, "seed": 0, "result": result([9.0, 9.0, 9.0, 9.0])},
        "c": {"row": "noise 0.5", "setup": 2, "seed": 10, "result": result([5.0, 5.0, 6.0, 6.0])},
    }
    made = {(r.table, r.row, r.column): r for r in records(jobs, {2: {"training mean": [30.0, 31.0, 32.0, 33.0]}})}
    error = made["mocap35/setup2", "SDE Matching, ELBO", "error"]
    assert (error.value, error.low, error.high, error.seeds) == (3.0, 2.5, 3.5, (10, 11))
    assert made["mocap35/setup2", "SDE Matching, ELBO", "95 % over seeds"].value == pytest.approx(
        half_width([2.5, 3.5])
    )
    assert made["mocap35/setup2-walks", "SDE Matching, ELBO", "walk 1"].value == 3.5
    assert made["mocap35/setup2-ablations", "noise 0.5", "error"].value == 5.5
    assert ("mocap35/setup2", "noise 0.5", "error") not in made
    assert made["mocap35/setup2", "training mean", "error"].value == 31.5
    assert made["mocap35/tried", "SDE Matching, ELBO", "set-up 2, error"].value == 9.0
    row, value, _, source = PUBLISHED[2][0]
    assert made["mocap35/setup2", row, "published"].value == value
    assert made["mocap35/setup2", row, "published"].source == source
