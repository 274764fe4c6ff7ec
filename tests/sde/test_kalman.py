"""The continuous-discrete Kalman passes against the explicit joint Gaussian of all observed values."""

import math

import pytest
import torch
from torch import Tensor

from neurodyn.sde.kalman import kalman_smoother, smooth_at
from neurodyn.sde.linear import linear_transition
from neurodyn.sde.linear_gaussian import FreeLinearGaussian, LinearGaussian, TrendOU
from neurodyn.series import SeriesBatch

DOUBLE = torch.float64


def free_model(size: int, variables: int, seed: int, noises: int | None = None) -> FreeLinearGaussian:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=DOUBLE)

    root = normal(size, size) * 0.5 + torch.eye(size, dtype=DOUBLE)
    return FreeLinearGaussian(
        matrix=normal(size, size) * 0.6 - torch.eye(size, dtype=DOUBLE),
        noise=normal(size, size if noises is None else noises),
        mean=normal(size),
        covariance=root @ root.mT,
        loading=normal(variables, size),
        variance=torch.rand(variables, generator=generator, dtype=DOUBLE) + 0.1,
        offset=normal(size),
    )


def ragged_batch(variables: int, seed: int, rows: int = 3, visits: int = 5) -> SeriesBatch:
    generator = torch.Generator().manual_seed(seed)
    times = torch.rand(rows, visits, generator=generator, dtype=DOUBLE).cumsum(1) * 1.5
    values = torch.randn(rows, visits, variables, generator=generator, dtype=DOUBLE)
    mask = torch.rand(rows, visits, variables, generator=generator) > 0.3
    mask[:, 0, 0] = True
    mask[0, 3:] = False
    return SeriesBatch(times, values, mask)


def joint_moments(model: LinearGaussian, times: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (T, d) and covariance (T, d, T, d) of the states of one row, from transitions between all pairs of times."""
    mean0, cov0 = model.initial()
    size, count = len(mean0), len(times)
    mean, cov = torch.zeros(count, size, dtype=DOUBLE), torch.zeros(count, size, count, size, dtype=DOUBLE)
    for i in range(count):
        from_start = model.law.transition(times[i] - times[0])
        mean[i] = from_start.matrix @ mean0 + from_start.offset
        at_i = from_start.matrix @ cov0 @ from_start.matrix.mT + from_start.covariance
        for j in range(i, count):
            later = model.law.transition(times[j] - times[i]).matrix
            cov[j, :, i, :] = later @ at_i
            cov[i, :, j, :] = (later @ at_i).mT
    return mean, cov


def explicit_posterior(
    model: LinearGaussian, batch: SeriesBatch, row: int, query: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Evidence of a row, and moments of its states at `query`, by conditioning one big Gaussian."""
    times = torch.cat((batch.times[row], query))
    mean, cov = joint_moments_sorted(model, times)
    visits, size = batch.num_times, mean.shape[1]
    h, bias, variance = model.observation()
    seen = batch.mask[row].flatten()
    big_h = torch.block_diag(*[h] * visits)[seen]
    y = batch.values[row].flatten()[seen] - bias.repeat(visits)[seen]
    k_xx = cov[:visits, :, :visits, :].reshape(visits * size, visits * size)
    k_yy = big_h @ k_xx @ big_h.mT + torch.diag(variance.repeat(visits)[seen])
    residual = y - big_h @ mean[:visits].flatten()
    evidence = torch.distributions.MultivariateNormal(torch.zeros_like(residual), k_yy).log_prob(residual)
    cross = cov[visits:, :, :visits, :].reshape(len(query) * size, visits * size) @ big_h.mT
    posterior_mean = mean[visits:].flatten() + cross @ torch.linalg.solve(k_yy, residual)
    prior = cov[visits:, :, visits:, :].reshape(len(query) * size, -1)
    posterior_cov = prior - cross @ torch.linalg.solve(k_yy, cross.mT)
    blocks = posterior_cov.reshape(len(query), size, len(query), size)
    return evidence, posterior_mean.reshape(len(query), size), torch.stack([blocks[i, :, i] for i in range(len(query))])


def joint_moments_sorted(model: LinearGaussian, times: Tensor) -> tuple[Tensor, Tensor]:
    order = torch.argsort(times, stable=True)
    mean, cov = joint_moments(model, times[order])
    back = torch.argsort(order)
    return mean[back], cov[back][:, :, back]


MODELS = {
    "free-1": lambda: (free_model(1, 1, 0), 1),
    "free-3": lambda: (free_model(3, 2, 1), 2),
    "fewer-noises": lambda: (free_model(4, 2, 2, noises=2), 2),
    "trend-ou": lambda: (TrendOU(2), 2),
    "trend": lambda: (TrendOU(2, ("level", "slope"), joint=False), 2),
    "ou": lambda: (TrendOU(3, ("ou",)), 3),
}


@pytest.mark.parametrize("name", MODELS)
def test_evidence_and_smoother_equal_the_joint_gaussian(name: str) -> None:
    model, variables = MODELS[name]()
    batch = ragged_batch(variables, seed=3)
    filtered, information = model.filter(batch), model.information(batch)
    at_visits = kalman_smoother(filtered, information)
    fractions = torch.tensor([0.0, 0.21, 0.5, 0.83, 1.0], dtype=DOUBLE)
    query = batch.times[:, :1] + fractions * (batch.last_time - batch.times[:, 0])[:, None]
    between = smooth_at(model.law, filtered, information, batch.times, query)
    for row in range(batch.num_rows):
        evidence, mean, cov = explicit_posterior(model, batch, row, query[row])
        assert model.evidence(batch)[row].item() == pytest.approx(evidence.item(), abs=1e-8)
        torch.testing.assert_close(between.mean[row], mean, atol=1e-7, rtol=1e-6)
        torch.testing.assert_close(between.covariance[row], cov, atol=1e-7, rtol=1e-6)
        _, mean, cov = explicit_posterior(model, batch, row, batch.times[row])
        torch.testing.assert_close(at_visits.mean[row], mean, atol=1e-7, rtol=1e-6)
        torch.testing.assert_close(at_visits.covariance[row], cov, atol=1e-7, rtol=1e-6)


def test_information_is_the_gradient_of_the_later_datas_log_density() -> None:
    model = free_model(2, 2, 5)
    batch = ragged_batch(2, seed=6, rows=1)
    z = torch.tensor([0.3, -0.7], dtype=DOUBLE, requires_grad=True)
    later = batch._with(mask=batch.mask & (torch.arange(batch.num_times) > 1)[:, None])
    visits = later.mask[0].any(-1).nonzero()[:, 0].tolist()
    # p(later data | z at visit 1): start a copy of the model at that visit, with no uncertainty
    mean, cov, log_prob = z, torch.zeros(2, 2, dtype=DOUBLE), torch.zeros((), dtype=DOUBLE)
    h, bias, variance = model.observation()
    now = batch.times[0, 1]
    for k in visits:
        step = model.law.transition(batch.times[0, k] - now)
        mean, cov, now = (
            step.matrix @ mean + step.offset,
            step.matrix @ cov @ step.matrix.mT + step.covariance,
            batch.times[0, k],
        )
        seen = batch.mask[0, k]
        s = h[seen] @ cov @ h[seen].mT + torch.diag(variance[seen])
        gap = batch.values[0, k][seen] - bias[seen] - h[seen] @ mean
        log_prob = log_prob + torch.distributions.MultivariateNormal(torch.zeros_like(gap), s).log_prob(gap)
        gain = cov @ h[seen].mT @ torch.linalg.inv(s)
        mean, cov = mean + gain @ gap, cov - gain @ h[seen] @ cov
    (gradient,) = torch.autograd.grad(log_prob, z)
    information = model.information(batch)
    expected = information.vector_after[0, 1] - information.matrix_after[0, 1] @ z
    torch.testing.assert_close(gradient, expected, atol=1e-9, rtol=1e-7)


def test_evidence_has_the_gradient_of_finite_differences() -> None:
    model = free_model(2, 2, 7)
    batch = ragged_batch(2, seed=8)
    names, values = zip(*model.named_parameters(), strict=True)

    def evidence(*parameters: Tensor) -> Tensor:
        return torch.func.functional_call(
            _Evidence(model), {f"model.{n}": p for n, p in zip(names, parameters, strict=True)}, (batch,)
        )

    inputs = tuple(value.detach().clone().requires_grad_() for value in values)
    assert torch.autograd.gradcheck(evidence, inputs, eps=1e-6, atol=1e-5)


class _Evidence(torch.nn.Module):
    def __init__(self, model: LinearGaussian) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: SeriesBatch) -> Tensor:
        return self.model.evidence(batch)


def test_transitions_over_long_gaps_stay_exact_when_rates_differ_widely() -> None:
    rates = torch.tensor([0.01, 300.0], dtype=DOUBLE)
    turn = torch.tensor([[math.cos(0.4), -math.sin(0.4)], [math.sin(0.4), math.cos(0.4)]], dtype=DOUBLE)
    model = free_model(2, 1, 0)
    noise = torch.tensor([[1.0, 0.2], [0.4, 0.8]], dtype=DOUBLE)
    law = type(model.law)(turn @ torch.diag(-rates) @ turn.mT, noise)
    dt = torch.tensor([0.0, 1e-4, 1.0, 30.0], dtype=DOUBLE)
    found = law.transition(dt)
    decay = torch.exp(-rates * dt[:, None])
    own = turn.mT @ noise @ noise.mT @ turn
    total = rates[:, None] + rates
    covariance = turn @ (own * -torch.expm1(-total * dt[:, None, None]) / total) @ turn.mT
    torch.testing.assert_close(found.matrix, turn @ torch.diag_embed(decay) @ turn.mT, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(found.covariance, covariance, atol=1e-12, rtol=1e-9)


def test_short_steps_stay_exact_beside_long_ones() -> None:
    # to first and second order in the step: what is left out is smaller than rounding
    matrix = torch.tensor([[-1000.0, 1.0], [0.5, -1e-3]], dtype=DOUBLE)
    noise, offset = torch.tensor([[1.0, 0.2], [0.4, 0.8]], dtype=DOUBLE), torch.tensor([0.3, -2.0], dtype=DOUBLE)
    step = 1e-9
    beside = linear_transition(matrix, offset, noise @ noise.mT, torch.tensor([step, 1e4], dtype=DOUBLE))
    power, spread = step * matrix, step * noise @ noise.mT
    drifted = power @ spread
    change = power + 0.5 * power @ power
    torch.testing.assert_close(beside.matrix[0] - torch.eye(2), change, rtol=1e-9, atol=2e-16)
    torch.testing.assert_close(beside.offset[0], step * (offset + 0.5 * power @ offset), rtol=1e-11, atol=0)
    torch.testing.assert_close(beside.covariance[0], spread + 0.5 * (drifted + drifted.mT), rtol=1e-11, atol=0)
    alone = linear_transition(matrix, offset, noise @ noise.mT, torch.tensor([step], dtype=DOUBLE))
    for one, other in zip(alone, beside, strict=True):
        torch.testing.assert_close(one[0], other[0], rtol=1e-14, atol=0)


def test_closed_form_of_the_trend_law_equals_the_matrix_exponential() -> None:
    torch.manual_seed(0)
    law = TrendOU(3).law
    with torch.no_grad():
        law.mixing.normal_(std=0.5)
        law.log_rate.normal_()
    dt = torch.tensor([[0.0, 0.3], [2.0, 11.0]], dtype=DOUBLE)
    closed, general = law.transition(dt), super(type(law), law).transition(dt)
    for one, other in zip(closed, general, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-9)
