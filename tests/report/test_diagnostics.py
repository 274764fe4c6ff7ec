"""Each diagnostic on a healthy case whose reading is known exactly, and on the disease it is named after."""

import math

import pytest
import torch

from neurodyn import diagnostics
from neurodyn.metrics.scores import pit


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian_posterior(noise, rows=4000, samples=8, visits=3):
    """Exact posterior samples (S, B, T, 1) of z ~ N(0, 1) seen with the noise variance given; its KL per series."""
    z = draws(1, rows, visits, 1)
    y = z + math.sqrt(noise) * draws(1, rows, visits, 1, seed=1)
    variance = noise / (1 + noise)
    path = y / (1 + noise) + math.sqrt(variance) * draws(samples, rows, visits, 1, seed=2)
    kl = 0.5 * (variance - 1 - math.log(variance) + (y[0, ..., 0] / (1 + noise)).square()).sum(1)
    return kl, path


@pytest.mark.parametrize("noise", [0.25, 1.0, 4.0])
def test_posterior_collapse_reads_the_exact_share(noise):
    kl, path = gaussian_posterior(noise)
    found = diagnostics.posterior_collapse(kl, path)
    assert found.parts["z1"] == pytest.approx(1 / (1 + noise), abs=0.02)
    assert found.value == 1 and found.verdict == "good"
    assert float(kl.mean()) == pytest.approx(1.5 * math.log(1 + 1 / noise), rel=0.05)  # the mutual information


def test_a_posterior_that_is_the_prior_has_collapsed():
    path = draws(8, 500, 3, 2)  # ignores the row altogether
    found = diagnostics.posterior_collapse(torch.zeros(500), path)
    assert found.value == 0 and found.verdict == "bad" and "ignores the data" in found.sentence
    assert max(found.parts.values()) < diagnostics.ACTIVE_SHARE


def test_half_dead_latents_are_worth_a_look():
    kl, path = gaussian_posterior(0.25)
    both = torch.cat([path, draws(*path.shape, seed=9), draws(*path.shape, seed=10)], -1)
    found = diagnostics.posterior_collapse(kl, both)
    assert found.value == pytest.approx(1 / 3) and found.verdict == "look"


def test_posterior_collapse_ignores_padding():
    kl, path = gaussian_posterior(1.0, rows=50)
    present = torch.rand(50, 3, generator=torch.Generator().manual_seed(3)) > 0.3
    dirty = torch.where(present[..., None], path, 77.0)
    a = diagnostics.posterior_collapse(kl, torch.where(present[..., None], path, 0.0), present)
    assert diagnostics.posterior_collapse(kl, dirty, present).parts == pytest.approx(a.parts)


def test_reconstruction_gain_is_the_explained_share():
    values, mask = draws(200, 5, 2), torch.rand(200, 5, 2, generator=torch.Generator().manual_seed(1)) > 0.3
    zeros = torch.zeros_like(values)
    found = diagnostics.reconstruction_gain(values, mask, 0.5 * values, zeros, ("a", "b"))
    assert found.value == pytest.approx(0.75) and found.parts == pytest.approx({"a": 0.75, "b": 0.75})
    assert found.verdict == "good"
    assert diagnostics.reconstruction_gain(values, mask, 0.01 * values, zeros).verdict == "bad"
    dirty = torch.where(mask, values, torch.nan)
    assert diagnostics.reconstruction_gain(dirty, mask, 0.5 * values, zeros).value == pytest.approx(0.75)


def irregular(rows=20, points=401, span=2.0, seed=0):
    gaps = torch.rand(rows, points - 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5
    times = torch.cat([torch.zeros(rows, 1, dtype=torch.float64), gaps.cumsum(1)], 1)
    return times * span / times[:, -1:]


def brownian(times, g, samples=6, seed=0):
    """Exact paths with independent increments of variance g^2 dt; g broadcasts to (S, B, N - 1, d)."""
    rows, points = times.shape
    size = g.shape[-1]
    step = g * times.diff(dim=1)[..., None].sqrt() * draws(samples, rows, points - 1, size, seed=seed)
    return torch.cat([torch.zeros(samples, rows, 1, size, dtype=torch.float64), step.cumsum(2)], 2)


def test_roughness_of_the_prior_itself_is_one_whatever_the_smooth_drift():
    times = irregular()
    g = torch.tensor([0.5, 2.0], dtype=torch.float64)
    bend = torch.stack([torch.sin(3 * times), 5 * times], -1)
    path = brownian(times, g) + bend
    found = diagnostics.diffusion_collapse(path, times, g.expand(path.shape))
    # 48,000 increments per coordinate: sd of a variance estimate about sqrt(3 / 48000).
    assert found.value == pytest.approx(1.0, abs=0.03) and list(found.parts.values()) == pytest.approx([1, 1], abs=0.03)
    assert found.verdict == "good"


def test_roughness_under_a_diffusion_that_changes_along_the_path():
    times = irregular()
    g = (1 + times[..., None]).expand(6, -1, -1, -1)
    path = brownian(times, g[:, :, :-1])
    assert diagnostics.diffusion_collapse(path, times, g).value == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("points", [21, 401])
def test_smooth_posterior_paths_have_collapsed_on_coarse_grids_too(points):
    times = irregular(points=points)
    path = torch.sin(3 * times + draws(6, 20, 1))[..., None]
    found = diagnostics.diffusion_collapse(path, times, torch.full_like(path, 0.7))
    assert found.value < 0.1 and found.verdict == "bad" and "smoother than the prior" in found.sentence


def test_one_smooth_coordinate_is_not_hidden_by_a_rough_one():
    times = irregular()
    rough = brownian(times, torch.ones(1, dtype=torch.float64))
    smooth = torch.sin(3 * times).expand(6, -1, -1)[..., None]
    found = diagnostics.diffusion_collapse(torch.cat([rough, smooth], -1), times, torch.ones(6, 20, 401, 2))
    assert found.verdict == "bad" and found.value == pytest.approx(found.parts["z2"]) and found.value < 0.1


def test_a_diffusion_near_zero_is_an_ode_even_where_path_and_prior_agree():
    times = irregular()
    g = torch.full((1,), 0.005, dtype=torch.float64)
    path = brownian(times, g) + torch.sin(3 * times)[..., None]
    found = diagnostics.diffusion_collapse(path, times, g.expand(path.shape))
    assert found.value == pytest.approx(1.0, abs=0.2)
    assert found.verdict == "bad" and "nearly an ODE" in found.sentence


def test_diffusion_matrices_and_padding():
    times = irregular()
    matrix = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    path = brownian(times, torch.ones(2, dtype=torch.float64)) @ matrix.T
    full = matrix.expand(*path.shape, 2)
    found = diagnostics.diffusion_collapse(path, times, full)
    assert found.parts == pytest.approx({"z1": 1.0, "z2": 1.0}, abs=0.04)
    padded_times = torch.cat([times, times[:, -1:].expand(-1, 5)], 1)
    padding = path.new_full((*path.shape[:2], 5, 2), 123.0)
    padded = torch.cat([path, padding], 2)
    again = diagnostics.diffusion_collapse(padded, padded_times, matrix.expand(*padded.shape, 2))
    assert again.value == pytest.approx(found.value) and again.sentence == found.sentence


def bridge(seen_noise=0.3, g=0.8, span=2.0, rows=3000, points=201, shift=0.0):
    """Posterior of Brownian motion given y = z_T + noise: u = g (y - z_t) / (g^2 (T - t) + r), sampled exactly in law.

    ``shift`` moves the data away from the prior: the prior's drift is then wrong by shift / T.
    """
    times = torch.linspace(0, span, points, dtype=torch.float64).expand(rows, -1)
    y = shift + math.sqrt(g * g * span + seen_noise) * draws(rows, 1, seed=1)
    dt, z, drift = span / (points - 1), torch.zeros(2, rows, 1, dtype=torch.float64), []
    noise = draws(points, 2, rows, 1, seed=2)
    states = []
    for k in range(points):
        drift.append(g * g * (y - z) / (g * g * (span - k * dt) + seen_noise))
        states.append(z)
        z = z + drift[-1] * dt + g * math.sqrt(dt) * noise[k]
    drift = torch.stack(drift, 2)
    return drift, torch.zeros_like(drift), torch.full_like(drift, g), times


def test_drift_gap_of_an_exact_posterior():
    r, g, span = 0.3, 0.8, 2.0
    found = diagnostics.drift_gap(*bridge(r, g, span))
    # u_t is normal with variance g^2 / (g^2 (T - t) + r); its energy integrates to logarithms.
    t = torch.linspace(0, span, 2001, dtype=torch.float64)
    wanted = math.sqrt(2 / math.pi) * float((g / (g * g * (span - t) + r).sqrt()).mean())
    assert found.value == pytest.approx(wanted, rel=0.02)
    left = g * g * span * (1 - torch.linspace(0, 1, 11, dtype=torch.float64)) + r
    shares = -left.log().diff() / (left[0] / left[-1]).log()
    assert list(found.parts.values()) == pytest.approx(shares.tolist(), abs=0.01)
    # The mean path KL is the mutual information of the path and y, 1/2 log(1 + g^2 T / r), printed to three digits.
    nats = float(found.sentence.split(" noise units, ")[1].split(" nats")[0])
    assert nats == pytest.approx(0.5 * math.log(1 + g * g * span / r), rel=0.03)
    assert found.verdict == "good"


def test_a_prior_whose_drift_is_off_is_told_apart():
    found = diagnostics.drift_gap(*bridge(shift=4.0))
    assert found.verdict == "bad" and "systematic" in found.sentence
    few = diagnostics.drift_gap(*(x[:, :4] if x.dim() == 4 else x[:4] for x in bridge(shift=8.0)))
    assert few.verdict == "bad"
    alone = diagnostics.drift_gap(*(x[:, :1] if x.dim() == 4 else x[:1] for x in bridge(shift=8.0)))
    assert "the same way" not in alone.sentence


def test_a_burst_of_path_kl_is_found_and_matrices_divide_by_their_inverse():
    drift, prior, diffusion, times = bridge(rows=40)
    burst = drift.new_zeros(drift.shape)
    burst[:, :, 60:80] = 3 * draws(1, 40, 1, 1, seed=4)  # random sign: nothing systematic
    found = diagnostics.drift_gap(burst, prior, diffusion, times)
    assert found.verdict == "look" and found.parts["30-40 %"] > 0.99 and "30-40 %" in found.sentence
    matrix = diagnostics.drift_gap(burst, prior, diffusion[..., None], times)
    assert matrix.value == pytest.approx(found.value)


def test_forecast_calibration_tells_narrow_wide_and_shifted_from_right():
    truth = draws(4000, seed=1)
    cases = {"good": (0.0, 1.0, ""), "narrow": (0.0, 0.5, "too narrow"), "wide": (0.0, 2.5, "too wide")}
    cases |= {"high": (1.0, 1.0, "too high"), "low": (-1.0, 1.0, "too low")}
    for name, (shift, scale, words) in cases.items():
        values = pit(shift + scale * draws(99, 4000, seed=2), truth, generator=torch.Generator().manual_seed(0))
        found = diagnostics.forecast_calibration(values)
        assert words in found.sentence
        assert (found.verdict == "good") == (name == "good")
        if name == "good":
            assert found.value == pytest.approx(0.9, abs=0.015)
            assert max(map(abs, found.parts.values())) < 0.03 and "too" not in found.sentence


def test_few_values_are_not_called_bad_for_chance():
    values = torch.tensor([0.02, *torch.linspace(0.2, 0.94, 8).tolist(), 0.99])
    assert diagnostics.forecast_calibration(values).verdict == "good"  # 8 of 10 inside: within two standard errors


def test_bad_input_is_named():
    path, times = torch.zeros(2, 3, 4, 1), torch.arange(4.0).expand(3, -1)
    with pytest.raises(ValueError, match="^path: want at least 2 samples"):
        diagnostics.posterior_collapse(torch.zeros(3), path[:1])
    with pytest.raises(ValueError, match=r"^kl: want shape \(3,\)"):
        diagnostics.posterior_collapse(torch.zeros(2), path)
    with pytest.raises(ValueError, match="^mask: nothing"):
        diagnostics.reconstruction_gain(path[0], path[0] > 0, path[0], path[0])
    with pytest.raises(ValueError, match="^path: want at least 3 times"):
        diagnostics.diffusion_collapse(path[:, :, :2], times[:, :2], path[:, :, :2])
    with pytest.raises(ValueError, match="^times: want a row"):
        diagnostics.diffusion_collapse(path, torch.zeros(3, 4), path)
    with pytest.raises(ValueError, match="^diffusion: want no zeros"):
        diagnostics.drift_gap(path, path, path, times)
    with pytest.raises(ValueError, match="^times: want at least two"):
        diagnostics.drift_gap(path, path, path + 1, torch.zeros(3, 4))
    with pytest.raises(ValueError, match="^pit: "):
        diagnostics.forecast_calibration(torch.tensor([math.nan]))
