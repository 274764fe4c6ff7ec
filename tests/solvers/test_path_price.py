"""The path KL against closed forms, and the same by every way of solving."""

import pytest
import torch
from example_laws import DTYPE, OrnsteinUhlenbeck
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodyn.sde.neural import MLPSDE
from neurodyn.solvers.adapt import convert
from neurodyn.solvers.brownian import brownian_increments
from neurodyn.solvers.grid import packed_grid, step_grid
from neurodyn.solvers.native import integrate_visits
from neurodyn.solvers.path_kl import path_kl_rate
from neurodyn.solvers.solve import sdeint


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 100))
def test_rate_is_the_shortest_control_that_makes_the_excess(size, noise_size, seed):
    generator = torch.Generator().manual_seed(seed)
    left, scale, right = torch.linalg.svd(torch.randn(3, size, noise_size, generator=generator, dtype=DTYPE), False)
    g = left @ torch.diag_embed(scale.clamp(0.3, 3.0)) @ right
    # In the span of g, so that there is a control.
    excess = (g @ torch.randn(3, noise_size, 1, generator=generator, dtype=DTYPE)).squeeze(-1)
    control = torch.linalg.pinv(g) @ excess.unsqueeze(-1)
    wanted = 0.5 * control.square().sum((-2, -1))
    torch.testing.assert_close(path_kl_rate(excess, g, "general"), wanted, rtol=1e-9, atol=1e-10)


def test_rate_of_diagonal_noise():
    excess, g = torch.randn(4, 3, dtype=DTYPE), torch.rand(4, 3, dtype=DTYPE) + 0.5
    torch.testing.assert_close(
        path_kl_rate(excess, g, "diagonal"), path_kl_rate(excess, torch.diag_embed(g), "general")
    )


class Priced(MLPSDE):
    def h(self, t, y):
        return -y * (1 + 0.1 * (t if isinstance(t, float) else t.unsqueeze(-1)))


@pytest.mark.parametrize("noise", ["diagonal", "scalar", "additive", "general"])
@pytest.mark.parametrize("shared", [True, False])
def test_every_way_of_solving_has_the_same_price(noise, shared):
    torch.manual_seed(0)
    law = Priced(2, 5, noise_type=noise, sde_type="stratonovich", time_dependent=True).to(DTYPE)
    ts = torch.tensor([[0.0, 0.4, 1.0], [0.5, 0.6, 0.6]], dtype=DTYPE)
    ts = ts[0] if shared else ts
    dw = brownian_increments(step_grid(ts, 0.1), (3, 2), law.noise_size, dtype=DTYPE)
    start = torch.randn(3, 2, 2, dtype=DTYPE)
    options = {"dt": 0.1, "method": "reversible_heun", "noise": dw, "logqp": True}
    stacked = sdeint(law, start, ts, **options)[1]
    assert stacked.shape == (3, 2, 2) and stacked[..., 0].min() > 0
    for way in ("checkpoint", "reversible"):
        torch.testing.assert_close(sdeint(law, start, ts, gradient=way, **options)[1], stacked, rtol=1e-10, atol=1e-12)


class Apart(OrnsteinUhlenbeck):
    """Against another Ornstein-Uhlenbeck process with rate 0.5: the excess is -(k - 0.5) z."""

    def h(self, t, y):
        return -0.5 * y


def test_price_between_two_ornstein_uhlenbeck_laws():
    # KL = (k - .5)^2 / 2 int tr((G G^T)^-1 E z z^T), and E z z^T (G G^T)^-1 = (1 - exp(-2 k t)) / (2 k) from zero
    law, end = Apart(), 1.0
    generator = torch.Generator().manual_seed(0)
    start = torch.zeros(8000, 2, dtype=DTYPE)
    price = sdeint(law, start, [0.0, end], dt=0.01, generator=generator, logqp=True)[1].squeeze(-1)
    k = law.k
    moment = (end - (1 - torch.exp(torch.tensor(-2 * k * end))) / (2 * k)) / (2 * k)
    wanted = 0.5 * (k - 0.5) ** 2 * 2 * moment
    assert price.mean().item() == pytest.approx(wanted.item(), abs=4 * price.std().item() / 8000**0.5 + 0.005)


@pytest.mark.parametrize("noise", ["diagonal", "scalar", "general"])
def test_converting_the_calculus_keeps_the_process_and_its_price(noise):
    torch.manual_seed(0)
    law = Priced(2, 5, noise_type=noise).to(DTYPE)
    with torch.no_grad():
        law.residual[-1].bias.add_(1.0)
        if noise == "general":
            law.base.copy_(3 * torch.eye(2))  # else it comes near a singular matrix, and the price near infinity
    other = convert(law, "stratonovich")
    assert other.sde_type == "stratonovich" and convert(law, "ito") is law
    fine = step_grid([0.0, 1.0], 1 / 1024)
    dw = brownian_increments(fine, (200,), law.noise_size, dtype=DTYPE)
    start = torch.randn(200, 2, dtype=DTYPE)
    with torch.no_grad():
        ito, price = sdeint(law, start, [0.0, 1.0], dt=1 / 1024, noise=dw, logqp=True)
        both, other_price = sdeint(other, start, [0.0, 1.0], dt=1 / 1024, noise=dw, logqp=True)
    correction = law.ito_correction(0.0, start).abs().max()
    assert correction > 0.01, "else nothing is tested"
    # Euler's and Heun's own errors remain, of order sqrt(dt).
    assert (both - ito).square().mean().sqrt() < 0.02 < 0.1 < (ito[:, -1] - start).abs().mean()
    assert (other_price - price).abs().mean() < 0.02 * price.mean()


def test_reversible_heun_charges_what_pushes_at_the_end_of_a_gap():
    # A control that is zero at the start of every gap and u at its end moves z by u dt / 2, for u^2 dt / 4.
    grid = packed_grid(torch.tensor([[0.0, 1.0]], dtype=DTYPE), 1.0, rests=True)
    push = [0.0, 3.0]  # of the one step, and of the rest at its end
    for way in ("backprop", "checkpoint", "reversible"):
        visits = integrate_visits(
            lambda k, t, z: torch.full_like(z, push[k]),
            lambda k, t, z: torch.ones_like(z),
            torch.zeros(1, 1, dtype=DTYPE),
            grid,
            torch.zeros(grid.num_steps, 1, 1, dtype=DTYPE),
            method="reversible_heun",
            sde_type="stratonovich",
            cost=lambda k, t, left: 0.5 * left.drift.square().sum(-1),
            gradient=way,
        )
        assert visits.states[0, -1].item() == pytest.approx(1.5)
        assert visits.cost.item() == pytest.approx(0.25 * 3.0**2)
