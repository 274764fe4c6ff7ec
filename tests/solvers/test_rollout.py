"""Rollouts: exact moments with a linear law, convergence with a neural one, and every row its own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from neurodyn.noise import RowNoise
from neurodyn.sde.base import SDE
from neurodyn.sde.linear import FreeLinearLaw, LinearLaw
from neurodyn.sde.linear_gaussian import TrendOU
from neurodyn.sde.neural import MLPSDE
from neurodyn.sde.residual import ResidualLaw
from neurodyn.solvers.rollout import noise_root, rollout

DOUBLE = torch.float64
START = torch.tensor([0.2, 1.0, 0.0], dtype=DOUBLE)
TIMES = torch.tensor([[0.2, 0.9, 1.0], [1.5, 1.5, 3.0], [0.4, 2.0, 2.0]], dtype=DOUBLE)  # at once; twice; padding
IDS = ["a", "b", "c"]


def free_law() -> FreeLinearLaw:
    matrix = torch.tensor([[-0.5, 1.0], [-2.0, -0.3]], dtype=DOUBLE)
    return FreeLinearLaw(
        matrix, torch.tensor([[0.6, 0.0], [0.2, 0.4]], dtype=DOUBLE), torch.tensor([0.5, -0.2]).double()
    )


def one_noise_law() -> FreeLinearLaw:
    """One noise for two states: after a step it has spread to both."""
    return FreeLinearLaw(
        torch.tensor([[0.0, 1.0], [-2.0, -0.3]], dtype=DOUBLE), torch.tensor([[0.0], [0.7]], dtype=DOUBLE)
    )


def trend_law() -> LinearLaw:
    torch.manual_seed(0)
    law = TrendOU(2).law
    with torch.no_grad():
        law.mixing.normal_(std=0.5)
    return law


def equal_spread_law() -> FreeLinearLaw:
    """Every covariance a multiple of the identity but for rounding: its eigenvectors are anything."""
    turn = torch.tensor([[-1.0, 0.1, 0.1], [-0.1, -1.0, 0.1], [-0.1, -0.1, -1.0]], dtype=DOUBLE)
    return FreeLinearLaw(turn, torch.eye(3, dtype=DOUBLE))


LAWS = {"free": free_law, "one noise": one_noise_law, "trend": trend_law, "equal spread": equal_spread_law}


@pytest.mark.parametrize("longest_step", [100.0, 0.3])
@pytest.mark.parametrize("name", LAWS)
def test_with_no_residual_the_transition_is_exact_for_any_step(name: str, longest_step: float) -> None:
    linear, samples = LAWS[name](), 20_000
    law = ResidualLaw(linear, 4).double()
    z0 = torch.linspace(-1, 1, linear.state_size, dtype=DOUBLE).expand(samples, 3, -1)
    with torch.no_grad():
        found = rollout(law, z0, START, TIMES, RowNoise(0, IDS), longest_step)
        exact = linear.transition(TIMES - START[:, None])
        mean = (exact.matrix @ z0[0, 0]) + exact.offset
    spread = exact.covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    assert ((found.mean(0) - mean).abs() <= 4.5 * spread / samples**0.5 + 1e-9).all()
    centred = found - mean
    covariance = torch.einsum("sbhi,sbhj->bhij", centred, centred) / samples
    scale = spread[..., :, None] * spread[..., None, :]
    assert ((covariance - exact.covariance).abs() <= 4.5 * 1.5 * scale / samples**0.5 + 1e-9).all()
    assert torch.equal(found[:, 0, 0], z0[:, 0])  # a forecast for the very start
    assert torch.equal(found[:, 1, 0], found[:, 1, 1])
    # jointly over times: Cov(z2, z1) = Phi(t2 - t1) Cov(z1)
    phi = linear.transition(TIMES[:, 2] - TIMES[:, 1]).matrix
    cross = torch.einsum("sbi,sbj->bij", centred[:, :, 2], centred[:, :, 1]) / samples
    wanted = phi @ exact.covariance[:, 1]
    scale = spread[:, 2, :, None] * spread[:, 1, None, :]
    assert ((cross - wanted).abs() <= 4.5 * 1.5 * scale / samples**0.5 + 1e-9).all()


def lively(law: ResidualLaw) -> ResidualLaw:
    torch.manual_seed(3)
    for parameter in law.net.parameters():
        nn.init.normal_(parameter, std=0.8)
    return law


@pytest.mark.parametrize("kind", ["euler", "exponential"])
def test_rollouts_converge_at_first_order_where_there_is_little_noise(kind: str) -> None:
    """Almost an ODE, so that halved steps halve the error, against a fine solution."""
    matrix = torch.tensor([[-0.5, 1.0], [-2.0, -0.3]], dtype=DOUBLE)
    small = FreeLinearLaw(matrix, 1e-9 * torch.eye(2, dtype=DOUBLE))
    law: SDE = small  # on its own a linear law is rolled out by Euler steps
    if kind == "exponential":
        law = lively(ResidualLaw(small, 8, bound=1e9).double())
        with torch.no_grad():
            law.net[-1].weight.mul_(1e9)  # G r stays of order 1
    z0 = torch.ones(1, 3, 2, dtype=DOUBLE)

    def end(step: float) -> Tensor:
        with torch.no_grad():
            path = rollout(law, z0, START, TIMES, RowNoise(0, IDS), step)
        return path

    fine = end(0.0005)
    errors = [(end(step) - fine).norm().item() for step in (0.08, 0.04, 0.02)]
    assert errors[0] > 1e-4
    for large, less in zip(errors, errors[1:], strict=False):
        assert 1.6 < large / less < 2.6


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("kind", [*LAWS, "constant", "network"])
@settings(max_examples=6, deadline=None)
@given(
    order=st.permutations(range(3)),
    keep=st.integers(1, 3),
    seed=st.integers(0, 100),
    padding=st.integers(0, 2),
    longest_step=st.sampled_from([0.1, 100.0]),
)
def test_a_row_is_the_same_in_any_batch(
    kind: str, dtype: torch.dtype, order: list[int], keep: int, seed: int, padding: int, longest_step: float
) -> None:
    order = order[:keep]
    torch.manual_seed(1)
    law: SDE
    if kind in LAWS:
        law = lively(ResidualLaw(LAWS[kind](), 8).to(dtype))
    else:
        law = MLPSDE(2, 8, diffusion=kind).to(dtype)
    z0 = torch.randn(5, 3, law.state_size, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        whole = rollout(law, z0, START, TIMES, RowNoise(seed, IDS), longest_step)
        times = torch.cat((TIMES, TIMES[:, -1:].expand(-1, padding)), 1)[order]
        noise = RowNoise(seed, [IDS[k] for k in order])
        part = rollout(law, z0[:, order], START[order], times, noise, longest_step)
    assert whole.shape == (5, 3, 3, law.state_size) and whole.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(part[:, :, :3], whole[:, order], atol=tolerance, rtol=tolerance)


def test_the_euler_rollout_has_the_moments_of_the_law_it_comes_near_to() -> None:
    """A linear law handed over as a plain SDE, against its exact transition."""
    linear, samples = free_law(), 20_000
    z0 = torch.ones(samples, 3, 2, dtype=DOUBLE)
    with torch.no_grad():
        found = rollout(linear, z0, START, TIMES, RowNoise(0, IDS), 0.01)
        exact = linear.transition(TIMES - START[:, None])
        mean = (exact.matrix @ z0[0, 0]) + exact.offset
        spread = exact.covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    assert ((found.mean(0) - mean).abs() <= 4.5 * spread / samples**0.5 + 0.02).all()
    assert ((found.std(0) - spread).abs() <= 4.5 * spread / (2 * samples) ** 0.5 + 0.02 * spread).all()


@pytest.mark.parametrize(("name", "columns"), [("free", 2), ("one noise", 2), ("trend", 2)])
def test_noise_root_has_as_many_columns_as_the_noise_reaches_states(name: str, columns: int) -> None:
    law = LAWS[name]()
    covariance = law.transition(torch.tensor([0.0, 1e-6, 0.3, 20.0], dtype=DOUBLE)).covariance.detach()
    root = noise_root(covariance, law.reached_states())
    assert root.shape == (4, law.state_size, columns)
    torch.testing.assert_close(root @ root.mT, covariance, atol=1e-12, rtol=1e-12)


def test_noise_reaches_states_through_others_and_no_further() -> None:
    chain = torch.zeros(4, 4, dtype=DOUBLE)
    chain[1, 0] = chain[2, 1] = chain[0, 3] = 1.0  # 3 moves 0, 0 moves 1, 1 moves 2
    noise = torch.zeros(4, 1, dtype=DOUBLE)
    noise[0] = 0.5
    assert FreeLinearLaw(chain, noise).reached().tolist() == [True, True, True, False]
    assert not FreeLinearLaw(chain, noise[:, :0]).reached().any()
