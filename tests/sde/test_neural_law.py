"""Neural laws: what they promise about bounds, coordinates, linear cores and shapes."""

import pytest
import torch
from torch import nn

from neurodyn.sde.base import SDE
from neurodyn.sde.neural import MLPSDE, CoordinatewiseNet

NOISES = ["diagonal", "scalar", "additive", "general"]


def build(noise, diffusion="network", **options):
    torch.manual_seed(0)
    size = 2 if noise in ("additive", "general") else None
    return MLPSDE(3, 8, noise_type=noise, noise_size=size, diffusion=diffusion, **options).double()


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("diffusion", ["network", "constant"])
@pytest.mark.parametrize("time_dependent", [False, True])
def test_rows_are_independent_and_times_are_per_row(noise, diffusion, time_dependent):
    law = build(noise, diffusion, time_dependent=time_dependent)
    z = torch.randn(2, 4, 3, dtype=torch.float64)
    t = torch.rand(4, dtype=torch.float64)
    for function in (law.drift, law.diffusion, law.half_divergence):
        together = function(t, z)
        for row in range(4):
            torch.testing.assert_close(together[:, row], function(float(t[row]), z[:, row]))
            torch.testing.assert_close(together[1, row], function(t[row], z[1, row]))


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("diffusion", ["network", "constant"])
def test_half_divergence_equals_finite_differences(noise, diffusion):
    law, z, step = build(noise, diffusion, time_dependent=True), torch.randn(5, 3, dtype=torch.float64), 1e-5

    def covariance(state):
        g = law.diffusion(0.4, state)
        return torch.diag_embed(g * g) if noise == "diagonal" else g @ g.mT

    wanted = torch.zeros_like(z)
    for j in range(3):
        shift = torch.zeros_like(z)
        shift[:, j] = step
        wanted += 0.5 * ((covariance(z + shift) - covariance(z - shift)) / (2 * step))[..., j]
    torch.testing.assert_close(law.half_divergence(0.4, z), wanted, rtol=1e-7, atol=1e-9)
    moves = noise != "additive" and diffusion == "network"
    assert (wanted.abs().max() > 1e-4) == moves
    assert law.state_independent != moves


@pytest.mark.parametrize("activation", ["softplus", "silu", "tanh"])
@pytest.mark.parametrize("layers", [1, 3])
def test_coordinatewise_net_slope_is_its_derivative_and_sees_one_coordinate(activation, layers):
    torch.manual_seed(1)
    net = CoordinatewiseNet(3, 6, layers, low=0.1, high=2.0, time_dependent=True, activation=activation).double()
    z = torch.randn(4, 3, dtype=torch.float64)
    value, slope = net.value_and_slope(0.7, z)
    torch.testing.assert_close(value, net(0.7, z))
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: net(0.7, row)))(z)
    torch.testing.assert_close(jacobian, torch.diag_embed(slope))


def test_coordinatewise_net_equals_separate_networks():
    torch.manual_seed(2)
    net = CoordinatewiseNet(3, 6, 2, time_dependent=True).double()
    z = torch.randn(5, 3, dtype=torch.float64)
    t = torch.rand(5, dtype=torch.float64)
    for i in range(3):
        alone = nn.Sequential(nn.Linear(2, 6), nn.Softplus(), nn.Linear(6, 6), nn.Softplus(), nn.Linear(6, 1)).double()
        with torch.no_grad():
            alone[0].weight.copy_(torch.stack((net.weight_in[i], net.weight_time[i]), 1))
            alone[0].bias.copy_(net.bias_in[i])
            alone[2].weight.copy_(net.weights[0][i].mT)
            alone[2].bias.copy_(net.biases[0][i])
            alone[4].weight.copy_(net.weight_out[i][None])
            alone[4].bias.copy_(net.bias_out[i][None])
        wanted = torch.sigmoid(alone(torch.stack((z[:, i], t), 1))).squeeze(-1)
        torch.testing.assert_close(net(t, z)[:, i], wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_diffusion_stays_in_its_bounds(dtype):
    law = MLPSDE(2, 8, diffusion_bounds=(0.2, 0.7)).to(dtype)
    g = law.diffusion(0.0, torch.linspace(-1e4, 1e4, 201, dtype=dtype)[:, None].expand(-1, 2))
    assert g.dtype == dtype and g.min() >= 0.2 - 1e-6 and g.max() <= 0.7 + 1e-6 and g.std() > 0.01


def test_bounded_residual_leaves_the_linear_part_in_charge_far_out():
    law = build("diagonal", linear=True, bounded=0.5)
    with torch.no_grad():
        law.linear.weight.copy_(-torch.eye(3))
    z = 1e3 * torch.randn(50, 3, dtype=torch.float64)
    assert ((law.drift(0.0, z) + z).abs() <= 0.5 + 1e-9).all()


def test_a_given_linear_law_rules_at_the_start_and_is_trained_along():
    class Decay(SDE):
        noise_type, state_size, noise_size = "diagonal", 3, 3

        def __init__(self):
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

        def drift(self, t, z):
            return -self.rate * z

    core = Decay()
    law = build("diagonal", linear=core)
    z = torch.randn(4, 3, dtype=torch.float64)
    assert torch.equal(law.drift(0.0, z), -0.7 * z)
    assert any(parameter is core.rate for parameter in law.parameters())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"state_size": 0}, "state_size"),
        ({"noise_type": "levy"}, "noise_type"),
        ({"sde_type": "backward"}, "sde_type"),
        ({"noise_size": 2}, "noise_size"),
        ({"noise_type": "scalar", "noise_size": 3}, "noise_size"),
        ({"diffusion": "zero"}, "diffusion"),
        ({"diffusion_bounds": (1.0, 0.5)}, "diffusion_bounds"),
        ({"bounded": 0.0}, "bounded"),
        ({"activation": "swish"}, "activation"),
        ({"linear": MLPSDE(2)}, "linear"),
    ],
)
def test_bad_options_are_named(options, named):
    with pytest.raises(ValueError, match=f"^{named}"):
        MLPSDE(**{"state_size": 3, **options})
