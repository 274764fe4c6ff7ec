"""The systems of the SigLasso benchmark are what they say, and its jobs and tables work."""

import numpy as np
import pytest

from benchmarks.siglasso import MODELS, SYSTEMS, measure, records
from benchmarks.siglasso_systems import SEEN, TARGETS, simulate


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_is_seen_is_part_of_the_truth(system):
    one = simulate(system, 5, 3, 0)
    assert one.x.shape[:2] == one.times.shape == (5, SEEN) and one.y.shape == one.target_times.shape == (5, TARGETS)
    places = (one.target_times * 1000).round().astype(int)
    np.testing.assert_array_equal(np.take_along_axis(one.truth, places, 1), one.y)
    assert bool((np.diff(one.times) > 0).all()) and set(one.times[:, 0]) == {0.0} and set(one.times[:, -1]) == {1.0}
    assert all(set(when) <= set(times) for when, times in zip(one.target_times, one.times, strict=True))
    again, other = simulate(system, 5, 3, 0), simulate(system, 5, 3, 1)
    np.testing.assert_array_equal(one.truth, again.truth)
    assert not np.allclose(one.truth[:, -1], other.truth[:, -1])


def test_ou_has_its_mean_and_variance():
    truth = simulate("ou", 4000, 0, 0).truth[:, -1]
    assert truth.mean() == pytest.approx(1 - np.exp(-3), abs=0.05)
    assert truth.var() == pytest.approx(2 * (1 - np.exp(-6)) / 6, rel=0.1)


def test_cde_solves_its_equation_whatever_the_speed():
    """Driven only by the path's moves: the targets' moves stay within the sum of the path's, for |tanh| < 1."""
    one = simulate("cde", 20, 1, 0)
    assert not one.truth[:, 0].any()
    x = np.abs(np.diff(one.x, axis=1)).sum(2)
    y = np.abs(np.diff(np.take_along_axis(one.truth, (one.times * 1000).round().astype(int), 1)))
    assert float((y / x).max()) < 1.3  # a path may turn between the points that are seen


def test_tumours_grow_and_drugs_hold_them_back():
    one = simulate("tumor", 200, 0, 0)
    assert set(one.truth[:, 0]) == {2.0} and bool((one.truth > 0).all())
    dose = one.x[:, :, 0].mean(1)
    assert np.corrcoef(dose, one.truth[:, -1])[0, 1] < -0.5
    # linear growth at most, 0.7 a day for ten days, after the exponential phase
    assert one.truth[:, -1].max() < 2 + 0.9 * 10


def test_jobs_and_tables():
    pytest.importorskip("sklearn")
    found = {name: measure(name, "ou", 0, 2) for name in MODELS}
    assert found["training mean"]["share"] > 0.9
    assert found["SigLasso"]["share"] < 0.2 and found["signature ridge"]["share"] < 0.2
    assert found["SigLasso"]["seconds"] > 0 and np.isfinite(found["neural CDE"]["trajectory"])
    results = {f"{name}, {system}, seed 0": found[name] for name in MODELS for system in SYSTEMS}
    made = {(r.table, r.row, r.column): r for r in records(results, [0])}
    assert made["siglasso/share", "SigLasso", "ou"].value == pytest.approx(found["SigLasso"]["share"])
    assert made["siglasso/seconds", "GRU", "tumor"].unit == "s"
