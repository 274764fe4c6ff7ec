"""The Latent ODE on a rotation, whose future is known, and its solver and bound against closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodyn.metrics.scores import interval_coverage
from neurodyn.models.baselines.latent_ode import LatentODE
from neurodyn.models.baselines.pairs import last_seen
from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig

RATE = 2.5


def rotations(rows, visits, seed, missing=0.2, noise=0.05):
    """Noisy views of circles run through at `RATE` radians per unit of time, at irregular times in [0, 2]."""
    generator = torch.Generator().manual_seed(seed)
    times = torch.rand(rows, visits, generator=generator, dtype=torch.float64).sort(1).values * 2
    phase = 2 * math.pi * torch.rand(rows, 1, generator=generator)
    radius = 0.5 + torch.rand(rows, 1, generator=generator)
    angle = RATE * times.float() + phase
    clean = torch.stack((radius * angle.cos(), radius * angle.sin()), -1)
    values = clean + noise * torch.randn(clean.shape, generator=generator)
    mask = torch.rand(values.shape, generator=generator) >= missing
    mask[:, 0] = True
    return SeriesBatch(times, values, mask), clean


def made(seed, **sizes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LatentODE(**{"num_variables": 2, "latent_size": 4, "context_size": 16, "hidden_size": 32, **sizes})


def test_it_carries_a_rotation_on_far_better_than_persistence():
    model = made(0)
    config = FitConfig(
        steps=500, batch_size=64, learning_rate=1e-2, validate_every=50, kl_warmup_steps=100, progress=False
    )
    model.fit(rotations(256, 14, 1)[0], rotations(40, 14, 2)[0], config)
    test, _ = rotations(100, 14, 3)
    history, after = test.history(fraction=0.5), test.after(fraction=0.5)
    forecast = model.forecast(history, after.times, generator=torch.Generator().manual_seed(0))
    persistence = last_seen(history).value[:, -1, None].expand_as(after.values)

    def error(point):
        return float((point - after.values)[after.mask].square().mean())

    assert error(forecast.mean) < 0.1 * error(persistence)
    assert float(interval_coverage(forecast.samples, after.values, 0.9, after.mask).nanmean()) > 0.75


@pytest.mark.parametrize("step, tolerance", [(0.4, 8e-3), (0.1, 3e-5)])
def test_trajectories_at_per_row_times_solve_the_ode(step, tolerance):
    model = made(1, latent_size=2, step=step).double()
    matrix = torch.tensor([[-0.2, -1.5], [1.5, -0.2]], dtype=torch.float64)
    model.drift = torch.nn.Linear(2, 2, bias=False, dtype=torch.float64)
    model.drift.weight.data = matrix
    z0 = torch.randn(3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    elapsed = torch.tensor([[0.0, 0.05, 0.7], [1.3, 1.3, 2.0]], dtype=torch.float64)
    expected = (torch.linalg.matrix_exp(matrix * elapsed[..., None, None]) @ z0[:, :, None, :, None])[..., 0]
    assert torch.allclose(model.trajectory(z0, elapsed), expected, atol=tolerance)


def test_the_error_of_trajectories_falls_with_the_fourth_power_of_the_step():
    errors = []
    for step in (0.4, 0.2, 0.1):
        model = made(1, latent_size=1, step=step).double()
        model.drift = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
        model.drift.weight.data.fill_(-1.0)
        elapsed = torch.linspace(0, 2, 41, dtype=torch.float64)[None]
        solved = model.trajectory(torch.ones(1, 1, dtype=torch.float64), elapsed)[..., 0]
        errors.append(float((solved - torch.exp(-elapsed)).abs().max().detach()))
    orders = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert all(3.6 < order < 4.5 for order in orders)


def test_the_bound_of_a_linear_model_lies_below_its_exact_evidence():
    # with no motion and the identity as decoder: y_k = z0 + noise, whose evidence is a Gaussian's
    model = made(2, num_variables=1, latent_size=1).double()
    model.likelihood.decoder = torch.nn.Identity()
    times = torch.arange(3.0, dtype=torch.float64)[None]
    batch = SeriesBatch(times, torch.tensor([[[0.3], [0.8], [-0.1]]], dtype=torch.float64))
    sd = float(model.likelihood.noise_sd()[0].detach())
    covariance = torch.ones(3, 3, dtype=torch.float64) + sd**2 * torch.eye(3, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), covariance).log_prob(
        batch.values[0, :, 0]
    )
    exact_variance = 1 / (1 + 3 / sd**2)
    exact_mean = exact_variance * batch.values.sum() / sd**2

    def bound(mean, spread):
        with torch.no_grad():
            model.head.weight.zero_()
            model.head.bias[:] = torch.tensor([mean, math.log(math.expm1(spread - 1e-3))])
            seeds = range(400)
            return sum(float(model.loss(batch, generator=torch.Generator().manual_seed(k)).elbo) for k in seeds) / len(
                seeds
            )

    # at the exact posterior the bound is tight, anywhere else it is not
    assert bound(float(exact_mean), math.sqrt(exact_variance)) == pytest.approx(float(exact), abs=0.1)
    assert bound(float(exact_mean) + 0.5, math.sqrt(exact_variance)) < float(exact) - 0.5


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), extra=st.integers(0, 3))
def test_rows_padding_and_unobserved_visits_do_not_change_it(seed, extra):
    model = made(3)
    with torch.no_grad():
        model.drift[-1].weight.normal_(generator=torch.Generator().manual_seed(seed), std=0.3)
    plain, _ = rotations(5, 6, seed, missing=0.5)
    batch = SeriesBatch(plain.times, plain.values, plain.mask, ids=tuple("abcde"))
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    other = batch.compact().padded(6 + extra).rows(order)

    def seeded():
        return torch.Generator().manual_seed(seed)

    one, two = model.loss(batch, generator=seeded()), model.loss(other, generator=seeded())
    assert torch.allclose(one.elbo[order], two.elbo, atol=1e-3, rtol=1e-5)
    times = batch.last_time[:, None] + torch.tensor([0.0, 0.5])
    samples = model.forecast(batch, times, 5, generator=seeded()).samples
    assert torch.allclose(
        samples[:, order], model.forecast(other, times[order], 5, generator=seeded()).samples, atol=1e-4
    )
    alone = model.forecast(batch.rows([2]), times[2:3], 5, generator=seeded()).samples
    assert torch.allclose(samples[:, 2:3], alone, atol=1e-4)


def test_a_loaded_latent_ode_forecasts_the_same(tmp_path):
    model = made(4)
    loaded = LatentODE.load(model.save(tmp_path / "model"))
    history, _ = rotations(3, 4, 9)
    times = history.last_time[:, None] + 0.3
    one, two = (m.forecast(history, times, 4, generator=torch.Generator().manual_seed(0)) for m in (model, loaded))
    assert torch.equal(one.samples, two.samples)
