"""Neural scores against numbers that `nlb_tools` 0.0.4 gave on the same inputs, and against what must hold exactly."""

import math
from typing import Any

import numpy as np
import pytest

from neurodyn.metrics.neural import (
    bits_per_spike,
    condition_psths,
    few_shot_bits_per_spike,
    poisson_nll,
    population_scores,
    psth_r2,
    rate_r2,
    tp_correlation,
    velocity_r2,
)
from neurodyn.metrics.poisson_regression import PoissonRegressions


def inputs() -> dict[str, Any]:
    """The draws that were handed to `nlb_tools.evaluation`."""
    random = np.random.RandomState(7)
    found: dict[str, Any] = {"rates": random.gamma(1.0, 0.5, (12, 10, 5))}
    found["counts"] = random.poisson(found["rates"]).astype(float)
    found["rates"][0, 0, 0] = 0.0
    found["gappy"] = found["counts"].copy()
    found["gappy"][random.uniform(size=(12, 10)) < 0.2] = np.nan
    found["train_rates"] = random.gamma(1.0, 0.5, (12, 10, 5))
    weights = random.normal(size=(5, 2))
    found["train_behaviour"] = found["train_rates"] @ weights + random.normal(size=(12, 10, 2))
    found["behaviour"] = found["rates"] @ weights + random.normal(size=(12, 10, 2))
    found["train_behaviour"][3, :4] = np.nan
    found["behaviour"][5, 7:] = np.nan
    found["psth"] = random.gamma(1.0, 0.5, (4, 10, 5))
    found["psth"][:, :2] = np.nan
    found["psth"][:, 8:] = np.nan
    found["trials"] = [np.array([0, 3, 5]), np.array([1]), np.array([], int), np.array([2, 4, 6, 7])]
    found["jitter"] = random.randint(-2, 3, 12)
    found["produced"] = random.uniform(0.5, 1, 12)
    return found


def test_counts_are_scored_as_the_benchmark_scores_them() -> None:
    d = inputs()
    assert poisson_nll(d["rates"], d["gappy"]) == pytest.approx(375.59628033020243, rel=1e-12)
    assert bits_per_spike(d["rates"], d["counts"]) == pytest.approx(0.6199020607650447, rel=1e-12)
    assert bits_per_spike(d["rates"], d["gappy"]) == pytest.approx(0.6155576421243483, rel=1e-12)
    assert d["rates"][0, 0, 0] == 0  # the argument is left as it was


def test_behaviour_is_decoded_as_the_benchmark_decodes_it() -> None:
    d = inputs()
    parts = (d["train_rates"], d["train_behaviour"], d["rates"], d["behaviour"])
    groups = np.stack([np.arange(12) % 2 == 0, np.arange(12) % 3 != 0], 1)
    assert velocity_r2(*parts) == pytest.approx(0.3471138590699471, rel=1e-9)
    assert velocity_r2(*parts, train_groups=groups, groups=groups) == pytest.approx(0.2643022016546757, rel=1e-9)


def test_condition_means_are_scored_as_the_benchmark_scores_them() -> None:
    d = inputs()
    assert psth_r2(d["psth"], d["rates"], d["trials"]) == pytest.approx(-1.0105106617339983, rel=1e-12)
    assert psth_r2(d["psth"], d["rates"], d["trials"], d["jitter"]) == pytest.approx(-0.9986143701678845, rel=1e-12)


def test_speed_is_correlated_as_the_benchmark_correlates_it() -> None:
    d, trials = inputs(), np.arange(12)
    conditions = np.stack([trials % 2, trials // 6 % 2, 0 * trials], 1).astype(float)
    found = tp_correlation(d["rates"], ~np.isnan(d["gappy"][..., 0]), conditions, d["produced"])
    assert found == pytest.approx(0.1222585950598925, rel=1e-12)


def test_condition_means_are_smoothed_means_of_what_was_observed() -> None:
    random = np.random.default_rng(3)
    counts, labels = random.poisson(2.0, (6, 9, 2)).astype(float), np.array([4, 1, 4, 1, 4, 1])
    counts[0, :5] = np.nan
    found, kinds = condition_psths(counts, labels, 1e-3)
    assert kinds.tolist() == [1, 4]
    np.testing.assert_allclose(found[0], counts[[1, 3, 5]].mean(0))
    np.testing.assert_allclose(found[1, :5], counts[[2, 4], :5].mean(0))
    np.testing.assert_allclose(found[1, 5:], counts[[0, 2, 4], 5:].mean(0))
    flat = np.full((4, 30, 1), 3.0)
    impulse = flat.copy()
    impulse[:2, 15] += 8.0
    smooth = condition_psths(np.concatenate([flat, impulse]), [0] * 4 + [1] * 4, 2.0)[0]
    np.testing.assert_allclose(smooth[0], 3.0)
    place = np.arange(30) - 15
    gauss = np.exp(-(place**2) / 8)
    np.testing.assert_allclose(smooth[1, :, 0] - 3.0, 4 * gauss / gauss.sum(), atol=2e-3)


def test_scores_of_a_population_are_those_of_its_parts() -> None:
    d, trials = inputs(), np.arange(12)
    d["rates"][0, 0, 0] = 0.1
    scored = d["counts"].copy()
    scored[:, :2, 4] = np.nan
    groups = np.stack([trials % 2 == 0, trials % 3 != 0], 1)
    conditions = np.stack([trials % 2, trials // 6 % 2], 1).astype(float)
    found = population_scores(
        d["rates"],
        scored,
        (4,),
        8,
        train_rates=d["train_rates"],
        moves=(d["train_behaviour"], d["behaviour"]),
        groups=(groups, groups),
        psth=(d["psth"][:, :8], d["trials"]),
        timing=np.column_stack([conditions, d["produced"]]),
    )
    seen = d["rates"][:, :8]
    assert found["co-bps"] == bits_per_spike(seen[..., [4]], scored[:, :8, [4]])
    assert found["fp-bps"] == bits_per_spike(d["rates"][:, 8:], scored[:, 8:])
    parts = [d[name][:, :8] for name in ("train_rates", "train_behaviour", "rates", "behaviour")]
    assert found["decoding R2"] == velocity_r2(*parts, train_groups=groups, groups=groups)
    assert found["PSTH R2"] == psth_r2(d["psth"][:, :8], seen, d["trials"])
    bins = np.broadcast_to(np.arange(8) >= 2, (12, 8))
    assert found["tp correlation"] == tp_correlation(seen, bins, conditions, d["produced"])


def test_bits_of_the_mean_are_zero_and_of_two_levels_are_known() -> None:
    counts = np.zeros((2, 4, 1))
    counts[:, ::2] = 2.0
    assert bits_per_spike(np.ones_like(counts), counts) == pytest.approx(0, abs=1e-12)
    # the true levels 2 and 0 gain log 2 per spike; the totals of the rates are equal
    assert bits_per_spike(counts, counts) == pytest.approx(1, abs=1e-7)


def test_rate_r2_by_neuron() -> None:
    truth = np.random.default_rng(0).normal(size=(6, 7, 3))
    truth[..., 2] = 1.0
    found = rate_r2(np.stack([truth[..., 0], np.full((6, 7), truth[..., 1].mean()), truth[..., 2]], -1), truth)
    assert found[:2] == pytest.approx([1, 0]) and math.isnan(found[2])


def test_poisson_regressions_find_the_rates_that_made_the_counts() -> None:
    random = np.random.default_rng(1)
    x, weights = random.normal(size=(20_000, 2)), np.array([[0.5, -0.3], [0.2, 0.4]])
    counts = np.concatenate([random.poisson(np.exp(x @ weights - 0.5)), np.zeros((len(x), 1))], 1)
    regressions = PoissonRegressions(x, counts, alpha=0.0)
    found = regressions.rates(x[:50])
    assert np.allclose(found[:, :2], np.exp(x[:50] @ weights - 0.5), rtol=0.1)
    assert (found[:, 2] == 0.5 / len(x)).all()  # silent
    far, fitted = regressions.rates(np.array([[50.0, 50.0], [-50.0, -50.0]]))[:, 0], regressions.rates(x)[:, 0]
    assert far == pytest.approx([fitted.max(), fitted.min()])
    assert far == pytest.approx(np.quantile(np.exp(x @ weights[:, 0] - 0.5), [0.999, 0.001]), rel=0.1)


def test_few_shots_cost_more_where_latents_hold_what_the_counts_do_not_need() -> None:
    random = np.random.default_rng(2)
    z = random.normal(size=(60, 20, 1))
    counts = random.poisson(np.exp(0.8 * z)).astype(float)
    extra = np.concatenate([z, random.normal(size=(60, 20, 25))], -1)
    scores = {}
    for name, latents in (("lean", z), ("rich", extra)):
        for shots in (2, 30):
            halves = (latents[:30], counts[:30], latents[30:], counts[30:])
            scores[name, shots] = few_shot_bits_per_spike(*halves, shots=shots)
    assert scores["lean", 30] - scores["rich", 30] < 0.1
    assert scores["lean", 2] - scores["rich", 2] > 0.3


def test_bad_input_names_what_is_wrong() -> None:
    d = inputs()
    with pytest.raises(ValueError, match=r"rates, counts: shapes \(12, 10, 5\) and \(12, 10, 4\)"):
        poisson_nll(d["rates"], d["counts"][..., :4])
    with pytest.raises(ValueError, match=r"rates: -1 given at \[2, 0, 1\]"):
        wrong = d["rates"].copy()
        wrong[2, 0, 1] = -1
        bits_per_spike(wrong, d["counts"])
    with pytest.raises(ValueError, match="no spike"):
        bits_per_spike(d["rates"], 0 * d["counts"])
    with pytest.raises(ValueError, match="train_behaviour: shape"):
        velocity_r2(d["train_rates"], d["train_behaviour"][:, 1:], d["rates"], d["behaviour"])
    with pytest.raises(ValueError, match="shots: 13 given"):
        few_shot_bits_per_spike(d["rates"], d["counts"], d["rates"], d["counts"], shots=13)
    with pytest.raises(ValueError, match="condition 0"):
        psth_r2(np.nan_to_num(d["psth"]), d["rates"], d["trials"], d["jitter"])
    scored = np.ones((12, 10), bool)
    with pytest.raises(ValueError, match="conditions: a condition with 1 trial given"):
        tp_correlation(d["rates"], scored, np.arange(12)[:, None], d["produced"])
    with pytest.raises(ValueError, match="conditions: no condition given"):
        tp_correlation(d["rates"], scored, np.full((12, 1), np.nan), d["produced"])
    with pytest.raises(ValueError, match="scored: a trial with 1 bins given"):
        tp_correlation(d["rates"], np.arange(10) == 9 * np.ones((12, 1)), np.zeros((12, 1)), d["produced"])
