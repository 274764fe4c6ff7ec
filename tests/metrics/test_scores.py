"""Scores against closed forms, definitions, and the laws that make them proper."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodyn.metrics import scores
from neurodyn.quantiles import sample_quantiles


def draws(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def crps_by_definition(samples, truth, pairs):
    """mean |x - y| - 1/2 sum over all pairs / pairs, one entry at a time."""
    error = (samples - truth).abs().mean(0)
    spread = (samples[:, None] - samples[None]).abs().sum((0, 1)) / pairs
    return error - 0.5 * spread


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 30),
    st.integers(0, 10_000),
    st.sampled_from([0.0, 1e6]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_crps_is_the_double_sum(count, seed, offset, dtype):
    samples = (draws(count, 3, 2, seed=seed) * 2).round(decimals=1) + offset  # rounded: ties occur
    truth = draws(3, 2, seed=seed + 1) + offset
    samples, truth = samples.to(dtype), truth.to(dtype)
    # Far from zero float32 holds samples 0.06 apart; the score of those very numbers must still be exact.
    near = 1e-12 if dtype == torch.float64 else 2e-5
    wanted = crps_by_definition(samples.double(), truth.double(), count**2)
    torch.testing.assert_close(scores.crps(samples, truth).double(), wanted, rtol=near, atol=near)
    if count > 1:
        wanted = crps_by_definition(samples.double(), truth.double(), count * (count - 1))
        torch.testing.assert_close(scores.crps_fair(samples, truth).double(), wanted, rtol=near, atol=near)


def test_crps_of_a_gaussian():
    # Gneiting and Raftery 2007, eq. 21: sd (z (2 Phi(z) - 1) + 2 phi(z) - 1/sqrt(pi)).
    mean, sd = 1.5, 2.0
    truth = torch.tensor([-3.0, 0.0, 1.5, 2.0, 6.0], dtype=torch.float64)
    z = (truth.numpy() - mean) / sd
    normal = scipy.stats.norm
    exact = sd * (z * (2 * normal.cdf(z) - 1) + 2 * normal.pdf(z) - 1 / math.sqrt(math.pi))
    # Quantiles at the midpoints of equal slices stand for the distribution, with error of order 1/S.
    count = 20_001
    grid = torch.as_tensor(normal.ppf((np.arange(count) + 0.5) / count, mean, sd))
    found = scores.crps(grid[:, None].expand(-1, 5), truth)
    np.testing.assert_allclose(found, exact, rtol=2e-4)


def test_fair_crps_does_not_depend_on_the_number_of_samples():
    # E crps = E fair crps + E|X - X'| / (2 S), and E|X - X'| = 2/sqrt(pi) for a standard normal.
    truth = draws(200_000, seed=1)
    fair, plain = [], []
    for count in (2, 8):
        samples = draws(count, 200_000, seed=count)
        fair.append(float(scores.crps_fair(samples, truth).mean()))
        plain.append(float(scores.crps(samples, truth).mean()))
    perfect = 1 / math.sqrt(math.pi)  # expected CRPS of a perfect standard normal forecast
    assert fair == pytest.approx([perfect, perfect], abs=0.005)
    assert plain == pytest.approx([perfect * (1 + 1 / 2), perfect * (1 + 1 / 8)], abs=0.005)


def test_point_masses_score_their_error():
    truth = draws(4, 3)
    point = draws(4, 3, seed=1)
    wanted = (point - truth).abs()
    torch.testing.assert_close(scores.crps(point[None], truth), wanted)
    torch.testing.assert_close(scores.crps(point.expand(7, -1, -1), truth), wanted)
    torch.testing.assert_close(scores.crps_fair(point.expand(7, -1, -1), truth), wanted)
    torch.testing.assert_close(scores.absolute_error(point.expand(4, -1, -1), truth), wanted)
    torch.testing.assert_close(scores.energy_score(point[None], truth), (point - truth).norm(dim=-1))


@pytest.mark.parametrize("count", [2, 3, 6, 7])
@pytest.mark.parametrize("fair", [False, True])
def test_energy_score_is_the_double_sum_and_in_one_dimension_the_crps(count, fair):
    samples, truth = draws(count, 5, 3), draws(5, 3, seed=1)
    pairs = count * (count - 1) if fair else count**2
    wanted = (samples - truth).norm(dim=-1).mean(0) - 0.5 * (samples[:, None] - samples).norm(dim=-1).sum(
        (0, 1)
    ) / pairs
    torch.testing.assert_close(scores.energy_score(samples, truth, fair=fair), wanted)
    one = scores.energy_score(samples[..., :1], truth[..., :1], fair=fair)
    crps = scores.crps_fair if fair else scores.crps
    torch.testing.assert_close(one, crps(samples[..., 0], truth[..., 0]))


def test_energy_score_leaves_masked_variables_out_of_the_norm():
    samples, truth = draws(6, 4, 3), draws(4, 3, seed=1)
    mask = torch.tensor([[True, True, True], [True, False, True], [False, False, True], [False, False, False]])
    truth[1, 1] = math.nan
    found = scores.energy_score(samples, truth, mask)
    torch.testing.assert_close(found[1], scores.energy_score(samples[:, 1, [0, 2]], truth[1, [0, 2]]))
    torch.testing.assert_close(found[2], scores.crps(samples[:, 2, 2], truth[2, 2]))
    assert found[3].isnan()


def test_energy_score_sees_dependence_that_the_marginals_hide():
    truth = draws(20_000, 1, seed=1).expand(-1, 2)  # the two variables move as one
    together = draws(30, 20_000, 1, seed=2).expand(-1, -1, 2)
    apart = draws(30, 20_000, 2, seed=3)
    assert scores.crps(together, truth).mean() == pytest.approx(float(scores.crps(apart, truth).mean()), abs=0.01)
    assert scores.energy_score(together, truth).mean() < scores.energy_score(apart, truth).mean() - 0.02


SCORES = {
    "crps_fair": scores.crps_fair,
    "gaussian_nll": scores.gaussian_nll,
    "energy_score": lambda x, y: scores.energy_score(x[..., None], y[..., None]),
}


@pytest.mark.parametrize("name", SCORES)
def test_the_truth_beats_a_shifted_a_narrow_and_a_wide_forecast(name):
    truth, noise = draws(20_000, seed=1), draws(40, 20_000, seed=2)
    right = float(SCORES[name](noise, truth).mean())
    for shift, scale in ((0.3, 1.0), (0.0, 0.6), (0.0, 1.7)):
        assert right < float(SCORES[name](noise * scale + shift, truth).mean()) - 0.005


def test_gaussian_nll_and_log_score_against_scipy():
    samples, truth = draws(9, 4), draws(4, seed=1)
    wanted = -scipy.stats.norm.logpdf(truth, samples.mean(0), samples.std(0))
    np.testing.assert_allclose(scores.gaussian_nll(samples, truth), wanted)
    assert scores.gaussian_nll(torch.ones(3, 1), torch.zeros(1)).item() == math.inf
    # The mixture of 9 normals of sd .5 around the samples.
    log_probs = torch.as_tensor(scipy.stats.norm.logpdf(truth[None], samples, 0.5))
    mixture = scipy.stats.norm.pdf(truth[None], samples, 0.5).mean(0)
    np.testing.assert_allclose(scores.log_score(log_probs), -np.log(mixture))
    assert scores.log_score(log_probs, torch.tensor([True, False, True, True])).isnan().tolist() == [0, 1, 0, 0]


def test_quantiles_are_hyndman_and_fan_6():
    samples = draws(11, 4)
    probabilities = [0.0, 0.01, 0.05, 0.3, 0.5, 0.77, 0.95, 1.0]
    wanted = np.quantile(samples.numpy(), probabilities, axis=0, method="weibull")
    np.testing.assert_allclose(sample_quantiles(samples, probabilities), wanted, rtol=1e-12)
    assert sample_quantiles(samples[:1], [0.1, 0.9]).tolist() == [samples[0].tolist()] * 2


def test_coverage_and_width_of_known_intervals():
    samples = torch.arange(1.0, 20.0)[:, None].expand(
        -1, 5
    )  # 1..19: the 90 % interval is [1, 19], the 50 % one [5, 15]
    truth = torch.tensor([0.9, 1.0, 15.1, 15.0, 10.0])
    assert scores.interval_coverage(samples, truth, 0.9).tolist() == [0, 1, 1, 1, 1]
    assert scores.interval_coverage(samples, truth, 0.5).tolist() == [0, 0, 0, 1, 1]
    assert scores.interval_width(samples, 0.5).tolist() == [10.0] * 5
    mask = torch.tensor([True, False, True, True, True])
    assert scores.masked_mean(scores.interval_coverage(samples, truth, 0.9, mask)).item() == 0.75


@pytest.mark.parametrize("count", [3, 19, 99])
def test_intervals_of_few_exchangeable_samples_cover_exactly_their_level(count):
    samples, truth = draws(count, 100_000, seed=1), draws(100_000, seed=2)
    for level in (0.5, 0.9) if count > 3 else (0.5,):
        found = float(scores.interval_coverage(samples, truth, level).mean())
        assert found == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 100_000))


def test_pit_is_uniform_for_a_calibrated_forecast_with_ties_or_without():
    generator = torch.Generator().manual_seed(5)
    for make in (lambda *s: draws(*s, seed=sum(s)), lambda *s: torch.poisson(draws(*s, seed=sum(s)).exp())):
        values = scores.pit(make(10, 4000), make(4000), generator=generator)
        assert scipy.stats.kstest(values.numpy(), "uniform").pvalue > 0.01
    narrow = scores.pit(0.5 * draws(10, 4000), draws(4000, seed=1), generator=generator)
    assert scipy.stats.kstest(narrow.numpy(), "uniform").pvalue < 1e-6


def test_pit_histogram_and_calibration_curve():
    values = torch.tensor([0.05, 0.15, 0.15, 0.95, math.nan])
    density, edges = scores.pit_histogram(values, bins=10)
    assert density.tolist() == [2.5, 5.0, 0, 0, 0, 0, 0, 0, 0, 2.5]
    assert edges[0] == 0 and edges[-1] == 1 and len(edges) == 11
    # Inside the central 80 %: |2u - 1| <= .8, so .15 and .15 of the four.
    assert scores.calibration_curve(values, torch.tensor([0.5, 0.8, 0.95])).tolist() == [0.0, 0.5, 1.0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100.0))
def test_scores_carry_the_unit_of_the_data(seed, scale):
    samples, truth = draws(8, 5, 2, seed=seed), draws(5, 2, seed=seed + 1)
    for name, power in (
        ("crps", 1),
        ("crps_fair", 1),
        ("energy_score", 1),
        ("absolute_error", 1),
        ("squared_error", 2),
    ):
        function = getattr(scores, name)
        torch.testing.assert_close(function(samples * scale, truth * scale), function(samples, truth) * scale**power)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_masked_entries_have_no_influence(seed):
    samples, truth = draws(6, 5, 2, seed=seed), draws(5, 2, seed=seed + 1)
    mask = draws(5, 2, seed=seed + 2) > 0
    dirty_samples, dirty_truth = samples.clone(), truth.clone()
    dirty_samples[:, ~mask] = math.nan
    dirty_truth[~mask] = math.inf
    for function in (scores.crps, scores.crps_fair, scores.absolute_error, scores.squared_error, scores.gaussian_nll):
        clean = function(samples, truth)
        x = dirty_samples.requires_grad_()
        found = function(x, dirty_truth, mask)
        torch.testing.assert_close(found[mask], clean[mask])
        assert bool(found[~mask].isnan().all())
        (gradient,) = torch.autograd.grad(found[mask].sum(), x)
        assert bool(gradient.isfinite().all()) and not gradient[:, ~mask].any()


def test_bad_input_is_named():
    samples, truth = draws(4, 3), draws(3)
    with pytest.raises(ValueError, match=r"^truth: want shape \(3,\)"):
        scores.crps(samples, draws(4))
    with pytest.raises(ValueError, match="^samples: want .* S >= 2"):
        scores.crps_fair(samples[:1], truth)
    with pytest.raises(ValueError, match="^mask: want a bool"):
        scores.crps(samples, truth, torch.ones(3))
    with pytest.raises(ValueError, match="^level: "):
        scores.interval_coverage(samples, truth, 90)
    with pytest.raises(ValueError, match="^probabilities: "):
        sample_quantiles(samples, [90])
    with pytest.raises(ValueError, match="^samples: want a floating"):
        scores.crps(torch.ones(3, 2, dtype=torch.long), torch.ones(2))
    with pytest.raises(ValueError, match="^values: "):
        scores.pit_histogram(torch.tensor([math.nan]))
    with pytest.raises(ValueError, match="^truth: its last axis"):
        scores.energy_score(draws(3), draws(1)[0])
