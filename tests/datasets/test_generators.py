"""Simulated data sets: exact moments, standardisation, seeds."""

from __future__ import annotations

import math

import pytest
import scipy.linalg
import torch

from neurodyn.datasets import histories, linear_gaussian, lorenz, ornstein_uhlenbeck


def system_of(dimension: int, seed: int = 0) -> linear_gaussian.LinearSystem:
    return linear_gaussian.random_system(dimension, dimension, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dimension", [1, 2, 3, 4])
def test_systems_are_stable_and_start_in_their_stationary_law(dimension) -> None:
    for seed in range(5):
        A, b, L, m0, P0, H, R = system_of(dimension, seed)
        assert torch.linalg.eigvals(A).real.max() < -0.1
        assert torch.allclose(A @ m0 + b, torch.zeros(dimension, dtype=torch.float64), atol=1e-12)
        lyapunov = scipy.linalg.solve_continuous_lyapunov(A.numpy(), -(L @ L.T).numpy())
        assert torch.allclose(P0, torch.from_numpy(lyapunov), atol=1e-10)
        assert torch.equal(H, torch.eye(dimension, dtype=torch.float64))
        assert torch.equal(R, 0.04 * torch.eye(dimension, dtype=torch.float64))


@pytest.mark.parametrize("dt", [1e-3, 0.3, 1.5])
def test_transitions_agree_with_the_block_exponential_of_van_loan(dt) -> None:
    system = system_of(3)
    A, L = system.A.numpy(), system.L.numpy()
    block = scipy.linalg.expm(
        dt
        * torch.cat(
            [torch.cat([-system.A, system.L @ system.L.T], 1), torch.cat([torch.zeros(3, 3), system.A.T], 1)]
        ).numpy()
    )
    F, c, Q = linear_gaussian.transition(system, torch.tensor(dt))
    assert torch.allclose(F, torch.from_numpy(block[3:, 3:].T.copy()), atol=1e-12)
    assert torch.allclose(Q, torch.from_numpy(block[3:, 3:].T @ block[:3, 3:]), atol=1e-9)
    shift = scipy.linalg.solve(A, (F.numpy() - torch.eye(3).numpy()) @ system.b.numpy())
    assert torch.allclose(c, torch.from_numpy(shift), atol=1e-12)
    assert L.shape == (3, 3)


def test_paths_have_the_moments_of_the_law() -> None:
    """Mean, covariance and lagged covariance at irregular times, within five standard errors."""
    system = system_of(2, seed=3)
    times = torch.tensor([[0.0, 0.2, 1.5]], dtype=torch.float64).expand(40_000, 3)
    latent, values, mask = linear_gaussian.simulate(system, times, 0.3, torch.Generator().manual_seed(0))
    rows = len(latent)
    for k in range(3):
        error = (latent[:, k].mean(0) - system.m0).abs() / (system.P0.diagonal() / rows).sqrt()
        assert error.max() < 5
        spread = (torch.cov(latent[:, k].T) - system.P0).abs().max() / system.P0.abs().max()
        assert spread < 5 * math.sqrt(2 / rows)
    F, _, _ = linear_gaussian.transition(system, torch.tensor(1.3, dtype=torch.float64))
    centred = latent - system.m0
    lagged = centred[:, 2].T @ centred[:, 1] / rows
    assert (lagged - F @ system.P0).abs().max() < 5 * system.P0.abs().max() / math.sqrt(rows)
    noise = (values - latent @ system.H.T).flatten()
    assert noise.std().item() == pytest.approx(0.2, rel=0.02)
    assert mask.double().mean().item() == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize(("dimension", "variables"), [(1, None), (4, None), (2, 5)])
def test_linear_gaussian_splits_are_irregular_ragged_and_have_gaps(dimension, variables) -> None:
    splits = linear_gaussian.load(dimension=dimension, num_variables=variables, rows=100, held_out=10)
    train, validation, test, info = splits
    assert (train.num_rows, validation.num_rows, test.num_rows) == (100, 10, 10)
    assert train.num_variables == (variables or dimension)
    assert info["system"].H.shape == (train.num_variables, dimension)
    gaps = train.times.diff(dim=1)
    assert gaps[gaps > 0].std() > 0.1
    assert len(set(train.present.sum(1).tolist())) > 3
    fraction = train.mask.double().sum((1, 2)) / (train.present.sum(1) * train.num_variables)
    assert train.mask[:, 0, 0].all()
    assert fraction.mean() < 0.95 or dimension == 1
    history, future = histories(test, **info["protocols"]["half"])
    assert history.num_rows == future.num_rows > 0


def test_ornstein_uhlenbeck_knows_its_law() -> None:
    info = ornstein_uhlenbeck.load(dimension=2, rate=2.0, mean=3.0, volatility=0.8, noise=0.1, rows=5, held_out=2).info
    system = info["system"]
    assert torch.allclose(system.m0, torch.full((2,), 3.0, dtype=torch.float64))
    assert torch.allclose(system.P0, 0.8**2 / 4 * torch.eye(2, dtype=torch.float64))
    F, _, Q = linear_gaussian.transition(system, torch.tensor(0.7))
    assert F[0, 0].item() == pytest.approx(math.exp(-1.4), rel=1e-6)
    assert Q[0, 0].item() == pytest.approx(0.16 * (1 - math.exp(-2.8)), rel=1e-6)


@pytest.mark.parametrize("module", [linear_gaussian, ornstein_uhlenbeck, lorenz])
def test_data_follow_the_seed(module) -> None:
    first, same, other = (module.load(rows=3, held_out=2, seed=seed).train for seed in (1, 1, 2))
    assert torch.equal(first.values, same.values)
    assert not torch.equal(first.values[:, 0], other.values[:, 0])


@pytest.mark.parametrize(
    ("setting", "times", "end"), [("matching", 41, 1.0), ("torchsde", 100, 2.0), ("noisy", 21, 5.0)]
)
def test_lorenz_is_standardised_by_its_training_rows(setting, times, end) -> None:
    splits = lorenz.load(setting, rows=64, held_out=8)
    assert splits.train.values.shape == (64, times, 3)
    assert splits.test.num_rows == splits.validation.num_rows == 8
    assert splits.train.times[0, -1].item() == end
    noise = splits.info["noise_sd"]  # added after the standardisation
    error = 5 * noise / math.sqrt(64 * times)
    assert splits.train.values.mean((0, 1)).abs().max() < error
    assert splits.train.values.std((0, 1)).numpy() == pytest.approx([math.sqrt(1 + noise**2)] * 3, abs=error)


@pytest.mark.parametrize("additive", [False, True])
def test_lorenz_starts_as_its_drift_and_noise_say(additive) -> None:
    """One short step from x(0): mean and variance of the increments against drift dt and (b x)^2 dt or b^2 dt."""
    dt, noise = 1e-4, (0.1, 0.28, 0.3)
    times = torch.tensor([0.0, dt], dtype=torch.float64)
    x = lorenz.simulate(200_000, times, noise, 1, torch.Generator().manual_seed(0), additive=additive)
    start, step = x[:, 0], x[:, 1] - x[:, 0]
    x1, x2, x3 = start.T
    drift = torch.stack([10 * (x2 - x1), 28 * x1 - x2 - x1 * x3, x1 * x2 - 8 / 3 * x3], 1)
    scaled = (step - drift * dt) / (torch.tensor(noise) * (1.0 if additive else start) * dt**0.5)
    assert scaled.mean(0).abs().max() < 5 / math.sqrt(200_000)
    assert (scaled.var(0) - 1).abs().max() < 5 * math.sqrt(2 / 200_000)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: lorenz.load("rough"), ["setting", "'rough'", "matching"]),
        (lambda: lorenz.load(rows=0), ["rows", "0"]),
        (lambda: linear_gaussian.load(dimension=0), ["dimension", "0"]),
        (lambda: linear_gaussian.load(visits=0), ["visits", "0"]),
        (lambda: linear_gaussian.load(missing=1.0), ["missing", "1.0"]),
        (lambda: ornstein_uhlenbeck.load(rate=-1.0), ["rate", "-1.0"]),
    ],
)
def test_bad_options_are_named_in_one_line(call, words) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
