"""Coordinates that never move, and laws whose clock runs at a series' own speed."""

import math

import pytest
import torch

from neurodyn.noise import RowNoise
from neurodyn.sde.neural import MLPSDE
from neurodyn.sde.paced import PacedLaw
from neurodyn.solvers.fused_laws import plain_drift
from neurodyn.solvers.rollout import rollout

DOUBLE = torch.float64


def law(diffusion: str = "network", static: int = 1, **options) -> MLPSDE:
    torch.manual_seed(0)
    return MLPSDE(3, 8, linear=True, diffusion=diffusion, static_size=static, **options).double()


@pytest.mark.parametrize("diffusion", ["network", "constant"])
@pytest.mark.parametrize("static", [1, 2])
def test_static_coordinates_do_not_move_and_are_seen_by_the_drift_alone(diffusion: str, static: int) -> None:
    one, z = law(diffusion, static), torch.randn(4, 5, 3, dtype=DOUBLE)
    moved = z.clone()
    moved[..., -1] += 1.0
    for function in (one.drift, one.diffusion, one.half_divergence):
        assert function(0.3, z).shape == z.shape
        assert (function(0.3, z)[..., 3 - static :] == 0).all()
    assert ((one.drift(0.3, z) - one.drift(0.3, moved))[..., : 3 - static].abs() > 1e-6).all()
    assert torch.equal(one.diffusion(0.3, z), one.diffusion(0.3, moved))
    times = torch.tensor([[0.5, 2.0]] * 5, dtype=DOUBLE)
    path = rollout(one, z, torch.zeros(5, dtype=DOUBLE), times, RowNoise(0, [str(k) for k in range(5)]), 0.1)
    assert torch.equal(path[..., 3 - static :], z[:, :, None, 3 - static :].expand(-1, -1, 2, -1))
    assert (path[..., 0] != z[:, :, None, 0]).all()


@pytest.mark.parametrize("paced", [False, True])
@pytest.mark.parametrize("diffusion", ["network", "constant"])
def test_half_divergence_and_ito_correction_equal_finite_differences(diffusion: str, paced: bool) -> None:
    one = PacedLaw(law(diffusion), 0.7) if paced else law(diffusion)
    z, step = torch.randn(6, 3, dtype=DOUBLE), 1e-5
    wanted = torch.zeros_like(z)
    for k in range(3):
        e = step * torch.eye(3, dtype=DOUBLE)[k]
        rise = one.diffusion(0.0, z + e)[:, k] ** 2 - one.diffusion(0.0, z - e)[:, k] ** 2
        wanted[:, k] = 0.5 * rise / (2 * step)
    torch.testing.assert_close(one.half_divergence(0.0, z), wanted, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(one.ito_correction(0.0, z), 0.5 * wanted, rtol=1e-6, atol=1e-8)


def test_a_paced_law_is_the_law_with_another_clock() -> None:
    """Euler steps of v h dt + sqrt(v) g dW with steps dt are those of h dt + g dW with steps v dt, each number."""
    plain = law()
    paced, z = PacedLaw(plain, 0.5), torch.randn(7, 1, 3, dtype=DOUBLE)
    z[..., -1] = 0.8
    speed = math.exp(0.5 * 0.8)
    assert torch.allclose(paced.speed(z), torch.tensor(speed, dtype=DOUBLE))
    times, start = torch.linspace(0.1, 2.0, 20, dtype=DOUBLE)[None], torch.zeros(1, dtype=DOUBLE)
    slow = rollout(paced, z, start, times, RowNoise(3, ["a"]), 0.1)
    fast = rollout(plain, z, start, speed * times, RowNoise(3, ["a"]), 0.1 * speed)
    torch.testing.assert_close(slow, fast, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: MLPSDE(3, static_size=3), "static_size: got 3 of 3"),
        (lambda: MLPSDE(3, noise_type="scalar", static_size=1), "static_size: got 1 of 3 with scalar noise"),
        (lambda: PacedLaw(MLPSDE(3), 0.1), "law: 0 static coordinates"),
        (lambda: PacedLaw(law(), 0.0), "scale: 0.0 given"),
        (lambda: plain_drift(MLPSDE(3, static_size=1)), "engine: .* no static coordinates"),
    ],
)
def test_bad_input(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
