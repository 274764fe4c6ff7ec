"""The smoother posterior against exact evidences, closed-form KLs, and simulation of its own SDE."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toy_models import (
    DOUBLE,
    conditioned_states,
    context_for,
    free_core,
    gaussian_kl,
    lively_trend,
    ragged,
    visit_states,
)

from neurodyn.models.latent_sde import LatentSDE
from neurodyn.models.linear_sde import LinearSDE
from neurodyn.noise import RowNoise
from neurodyn.posteriors.smoother import SmootherPosterior
from neurodyn.sde.kalman import smooth_at
from neurodyn.sde.linear_gaussian import LinearGaussian
from neurodyn.sde.prior import CoreInitial, Prior
from neurodyn.sde.residual import ResidualLaw
from neurodyn.series import SeriesBatch


def parts(core: LinearGaussian, features: int = 4, **options: int) -> tuple[SmootherPosterior, Prior]:
    """A fresh posterior and prior on a core."""
    torch.manual_seed(0)
    posterior = SmootherPosterior(core, features, **options).double()
    return posterior, Prior(ResidualLaw(core.law, 8).double(), CoreInitial(core))


def move_observations(posterior: SmootherPosterior) -> None:
    """Weights for which the pseudo-observations differ from the real ones."""
    assert posterior.net is not None
    for parameter in posterior.net.parameters():
        nn.init.normal_(parameter, std=0.3)


def constant_residual(prior: Prior, size: Tensor) -> None:
    """Give the residual the same value r everywhere."""
    law = prior.sde
    assert isinstance(law, ResidualLaw)
    with torch.no_grad():
        law.net[-1].weight.zero_()
        law.net[-1].bias.copy_(law.bound * torch.atanh(size / law.bound))


def lively_residual(prior: Prior) -> None:
    law = prior.sde
    assert isinstance(law, ResidualLaw)
    for parameter in law.net.parameters():
        nn.init.normal_(parameter, std=0.7)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("num_samples", [1, 5])
def test_a_fresh_model_on_a_linear_one_has_the_exact_evidence_sample_by_sample(seed: int, num_samples: int) -> None:
    linear = LinearSDE(3)
    linear.core = lively_trend(3, seed)
    model = LatentSDE.on(linear, num_samples=num_samples).double()
    with torch.no_grad():  # a fresh model's noise is the core's but for the rounding to float32
        noise = 0.5 * linear.core.observation().variance.log()
        torch.testing.assert_close(model.likelihood.log_noise_sd, noise, atol=1e-6, rtol=1e-6)
        model.likelihood.log_noise_sd.copy_(noise)
    batch = ragged(3, rows=6, visits=7, seed=seed)
    for mode in (True, False):
        for draw in range(3):
            loss = model.train(mode).loss(batch, generator=torch.Generator().manual_seed(draw))
            torch.testing.assert_close(loss.elbo, linear.evidence(batch), atol=1e-9, rtol=1e-9)


def explicit_gap(posterior: SmootherPosterior, batch: SeriesBatch, row: int) -> tuple[Tensor, Tensor, Tensor]:
    """Evidence of a row, KL of q to the exact posterior, and KL of q to the prior, by joint Gaussians of the visits.

    Both laws re-weight the core at the visits only, so given the states there their paths are the same bridges.
    """
    core, smoothing = posterior.core, posterior.smoothing(context_for(batch, 4))
    count = int(batch.present[row].sum())
    times, mask = batch.times[row, :count], batch.mask[row, :count]
    evidence, *exact = conditioned_states(core, times, batch.values[row, :count], mask, core.observation())
    moved = smoothing.observation._replace(variance=smoothing.observation.variance[row, :count])
    _, *own = conditioned_states(core, times, smoothing.values[row, :count], mask, moved)
    return evidence, gaussian_kl(*own, *exact), gaussian_kl(*own, *visit_states(core, times))


def test_moved_observations_cost_the_kl_to_the_exact_posterior() -> None:
    core = free_core()
    posterior, prior = parts(core)
    move_observations(posterior)
    batch = ragged(2, rows=3)
    samples = 20_000
    with torch.no_grad():
        found = posterior(context_for(batch, 4), prior, RowNoise(0, batch.ids or ()), samples)
        h, bias, variance = core.observation()
        gaps = (batch.values - bias - found.z @ h.mT).square() / variance + (2 * math.pi * variance).log()
        log_prob = (-0.5 * gaps * batch.mask).sum((2, 3))
        elbo = log_prob - found.path_kl - found.initial_kl
        for row in range(batch.num_rows):
            evidence, gap, kl = explicit_gap(posterior, batch, row)
            # the control variate of the estimate: -log psi, whose noise is that of log_prob
            error = 4.5 * log_prob[:, row].std() / samples**0.5
            assert gap > 0.05  # the case says something
            assert abs(elbo[:, row].mean() - (evidence - gap)) < error
            assert abs(found.path_kl[row] + found.initial_kl[row] - kl) < error + 0.02 * kl


def exact_path_kl(posterior: SmootherPosterior, batch: SeriesBatch, residual: Tensor) -> Tensor:
    """Integral of E_q |G^T (lambda - Lambda z) - r|^2 / 2, r constant: closed moments, trapezoids between visits."""
    smoothing, law = posterior.smoothing(context_for(batch, 4)), posterior.core.law
    noise, total = law.noise(), torch.zeros(batch.num_rows, dtype=DOUBLE)
    fraction = torch.linspace(1e-9, 1 - 1e-9, 401, dtype=DOUBLE)
    for k in range(batch.num_times - 1):
        start, end = batch.times[:, k : k + 1], batch.times[:, k + 1 : k + 2]
        points = start + fraction * (end - start)
        there = smooth_at(law, smoothing.filtered, smoothing.information, batch.times, points)
        mean = (there.vector - (there.matrix @ there.mean[..., None])[..., 0]) @ noise - residual
        spread = noise.mT @ there.matrix @ torch.linalg.cholesky(there.covariance)
        rate = 0.5 * (mean.square().sum(-1) + spread.square().sum((-2, -1)))
        total = total + torch.trapezoid(rate, points)
    return total


def test_a_constant_residual_shifts_the_prior_and_the_kl_is_the_closed_form() -> None:
    """The prior is then linear-Gaussian again, with the offset b + G r: its exact evidence bounds the ELBO."""
    core = free_core()
    posterior, prior = parts(core, num_times=256)
    move_observations(posterior)
    residual = torch.tensor([0.9, -1.2], dtype=DOUBLE)
    constant_residual(prior, residual)
    shifted = free_core(core.law.offset().detach() + core.law.noise().detach() @ residual)
    batch, samples = ragged(2, rows=3), 4000
    with torch.no_grad():
        found = posterior.train()(context_for(batch, 4), prior, RowNoise(0, batch.ids or ()), samples)
        wanted = exact_path_kl(posterior, batch, residual)
        torch.testing.assert_close(found.path_kl, wanted, atol=0.03, rtol=0.01)
        h, bias, variance = core.observation()
        gaps = (batch.values - bias - found.z @ h.mT).square() / variance + (2 * math.pi * variance).log()
        log_prob = (-0.5 * gaps * batch.mask).sum((2, 3)).mean(0)
        elbo, evidence = log_prob - found.path_kl - found.initial_kl, shifted.evidence(batch)
        assert (elbo < evidence).all()
        # and without a residual the same formula gives the KL that the fresh residual has
        constant_residual(prior, torch.zeros(2, dtype=DOUBLE))
        plain = posterior(context_for(batch, 4), prior, RowNoise(0, batch.ids or ()), samples).path_kl
        torch.testing.assert_close(plain, exact_path_kl(posterior, batch, torch.zeros(2)), atol=0.03, rtol=0.01)


@pytest.mark.parametrize("kind", ["free", "trend"])
def test_simulating_the_posterior_gives_its_marginals_and_its_kl(kind: str) -> None:
    """dz = (A z + b + G G^T (lambda - Lambda z)) dt + G dW from the smoothed start; Girsanov's cost along the paths."""
    core: LinearGaussian = free_core() if kind == "free" else lively_trend(1)
    variables = 2 if kind == "free" else 1
    posterior, prior = parts(core, num_times=64)
    move_observations(posterior)
    lively_residual(prior)
    batch = ragged(variables, rows=1, visits=3, missing=0.0)
    context, paths, steps = context_for(batch, 4), 20_000, 400
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        smoothing, law = posterior.smoothing(context), core.law
        noise, size = law.noise(), law.state_size
        first, last = batch.times[0, 0], batch.times[0, -1]
        dt = (last - first) / steps
        times = (first + dt * torch.arange(steps + 1, dtype=DOUBLE)).clamp(max=last)[None]
        there = smooth_at(law, smoothing.filtered, smoothing.information, batch.times, times)
        root = torch.linalg.cholesky(there.covariance[0] + 1e-12 * torch.eye(size, dtype=DOUBLE))
        z = there.mean[0, 0] + torch.randn(paths, size, generator=generator, dtype=DOUBLE) @ root[0].mT
        cost = torch.zeros(paths, dtype=DOUBLE)
        for k in range(steps):
            pull = (there.vector[0, k] - z @ there.matrix[0, k].mT) @ noise
            cost = cost + 0.5 * (pull - prior.sde.residual(times[0, k], z)).square().sum(-1) * dt
            dw = torch.randn(paths, law.noise_size, generator=generator, dtype=DOUBLE) * dt**0.5
            z = z + law.drift(0.0, z) * dt + (pull * dt + dw) @ noise.mT
        spread = there.covariance[0, -1].diagonal().sqrt()
        assert ((z.mean(0) - there.mean[0, -1]).abs() < (4.5 / paths**0.5 + 0.01) * spread + 1e-9).all()
        off = (torch.cov(z.mT) - there.covariance[0, -1]).abs() / (spread[:, None] * spread)
        assert (off < 4.5 * 2**0.5 / paths**0.5 + 0.03).all()
        found = posterior(context, prior, RowNoise(0, ["a"]), 2000)
        error = 4.5 * cost.std().item() / paths**0.5
        assert found.path_kl.item() == pytest.approx(cost.mean().item(), rel=0.02, abs=error)


def test_the_estimate_of_the_kl_has_no_bias_with_few_times() -> None:
    core = free_core()
    posterior, prior = parts(core, num_times=4)
    move_observations(posterior)
    lively_residual(prior)
    batch = ragged(2, rows=1)
    fine, _ = parts(core, num_times=100)
    fine.load_state_dict(posterior.state_dict())
    with torch.no_grad():
        wanted = fine(context_for(batch, 4), prior, RowNoise(1, ["a"]), 10_000).path_kl[0]
        few = torch.stack(
            [posterior.train()(context_for(batch, 4), prior, RowNoise(s, ["a"]), 8).path_kl[0] for s in range(600)]
        )
    # the noise of both falls with the number of samples
    assert abs(few.mean() - wanted) < 4.5 * few.std() * (1 / 600 + 8 / 10_000) ** 0.5


@settings(max_examples=10, deadline=None)
@given(padding=st.integers(0, 3), order=st.permutations(range(3)), seed=st.integers(0, 100))
def test_padding_and_row_order_change_nothing(padding: int, order: list[int], seed: int) -> None:
    posterior, prior = parts(lively_trend(2))
    move_observations(posterior)
    lively_residual(prior)
    batch = ragged(2, rows=3, seed=seed)
    context = context_for(batch, 4)
    features = nn.functional.pad(context.features, (0, 0, 0, padding), value=7.0)[order]
    turned = context._replace(batch=batch.padded(batch.num_times + padding).rows(order), features=features)
    plain = posterior(context, prior, RowNoise(seed, batch.ids or ()), 2)
    again = posterior(turned, prior, RowNoise(seed, turned.batch.ids or ()), 2)
    torch.testing.assert_close(again.path_kl, plain.path_kl[order], atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(again.initial_kl, plain.initial_kl[order], atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(again.z[:, :, : batch.num_times], plain.z[:, order], atol=1e-8, rtol=1e-8)


def test_detail_shows_the_control_whose_cost_is_the_path_kl() -> None:
    core = free_core()
    posterior, prior = parts(core, num_times=256)
    move_observations(posterior)
    lively_residual(prior)
    batch = ragged(2, rows=2)
    context, noise = context_for(batch, 4), RowNoise(0, batch.ids or ())
    detail = posterior.detail(context, prior, noise, num_times=2001, num_samples=500)
    paid = torch.trapezoid(0.5 * detail.control.square().sum(-1).mean(0), detail.times)
    with torch.no_grad():
        wanted = posterior(context, prior, noise, 500).path_kl
    torch.testing.assert_close(paid, wanted, rtol=0.05, atol=0.05)


def test_a_prior_of_another_law_is_refused() -> None:
    posterior, _ = parts(free_core())
    _, other = parts(free_core())
    batch = ragged(2)
    with pytest.raises(ValueError, match="prior: a ResidualLaw given, a ResidualLaw of this posterior's core wanted"):
        posterior(context_for(batch, 4), other, RowNoise(0, batch.ids or ()))
