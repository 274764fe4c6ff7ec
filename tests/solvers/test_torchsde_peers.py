"""Against torchsde on the same Brownian paths, in both directions, and its methods behind our door."""

import pytest
import torch
import torchsde
from example_laws import DTYPE, Decay, GeometricBrownian, OrnsteinUhlenbeck, Spiral
from torch import nn

from neurodyn.sde.neural import MLPSDE
from neurodyn.solvers.brownian import brownian_increments, coarsen
from neurodyn.solvers.grid import step_grid
from neurodyn.solvers.solve import sdeint
from neurodyn.solvers.torchsde_engine import Adaptive

NOISES = ["diagonal", "scalar", "additive", "general"]
# A binary step, so that torchsde's running sum of steps has no rounding of its own.
DT = 1 / 32
METHODS = [
    (method, kind, noise)
    for method, kind in [
        ("euler", "ito"),
        ("milstein", "ito"),
        ("milstein", "stratonovich"),
        ("heun", "stratonovich"),
        ("reversible_heun", "stratonovich"),
    ]
    for noise in NOISES
    # For scalar noise torchsde's Milstein is another scheme: see below.
    if (method, noise) not in (("milstein", "general"), ("milstein", "scalar"))
]


class KnownPath(torchsde.BaseBrownian):
    """The Brownian motion that torchsde asks for, from increments (N, batch, m) over steps of DT."""

    levy_area_approximation = "none"

    def __init__(self, increments, spare=0):
        self.increments = nn.functional.pad(increments, (0, spare))

    def __call__(self, ta, tb=None, return_U=False, return_A=False):
        first, last = round(float(ta) / DT), round(float(tb) / DT)
        return self.increments[first:last].sum(0)

    def __repr__(self):
        return "KnownPath"

    dtype = property(lambda self: self.increments.dtype)
    device = property(lambda self: self.increments.device)
    shape = property(lambda self: self.increments.shape[1:])


class WithPrior(MLPSDE):
    def h(self, t, y):
        return -y


def build(noise, kind):
    torch.manual_seed(0)
    free = noise in ("additive", "general")
    law = WithPrior(3, 6, noise_type=noise, sde_type=kind, time_dependent=True, noise_size=2 if free else None)
    # torchsde prices paths by a pseudo-inverse: with two noises for three states, as we do.
    return law.to(DTYPE)


class LatentLorenz(nn.Module):
    """A latent SDE in torchsde's style, with the layout of the Lorenz example of Li et al. (2020).

    A recurrent encoder of the series backwards in time, looked up by time; y and context into the posterior's drift, y
    alone into the prior's; one network per coordinate for the diffusion, between 0 and 1.
    """

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, latent=4, context=5, hidden=8):
        super().__init__()
        self.encoder = nn.GRU(3, hidden)
        self.to_context = nn.Linear(hidden, context)

        def drift_net(inputs):
            layers = [nn.Linear(inputs, hidden), nn.Softplus(), nn.Linear(hidden, hidden), nn.Softplus()]
            return nn.Sequential(*layers, nn.Linear(hidden, latent))

        self.posterior_net, self.prior_net = drift_net(latent + context), drift_net(latent)
        self.noise_nets = nn.ModuleList(
            nn.Sequential(nn.Linear(1, hidden), nn.Softplus(), nn.Linear(hidden, 1), nn.Sigmoid())
            for _ in range(latent)
        )
        self.table = None

    def contextualize(self, ts, series):
        out, _ = self.encoder(series.flip(0))
        self.table = (ts, self.to_context(out).flip(0))

    def f(self, t, y):
        ts, contexts = self.table
        place = min(int(torch.searchsorted(ts, t, right=True)), len(ts) - 1)
        return self.posterior_net(torch.cat((y, contexts[place]), dim=1))

    def h(self, t, y):
        return self.prior_net(y)

    def g(self, t, y):
        columns = torch.split(y, split_size_or_sections=1, dim=1)
        return torch.cat([net(column) for net, column in zip(self.noise_nets, columns, strict=True)], dim=1)


def lorenz_module():
    torch.manual_seed(0)
    module, ts = LatentLorenz().to(DTYPE), torch.arange(9, dtype=DTYPE) / 8
    module.contextualize(ts, torch.randn(9, 6, 3, dtype=DTYPE))
    start = torch.randn(6, 4, dtype=DTYPE)
    dw = brownian_increments(step_grid(ts, DT), (6,), 4, dtype=DTYPE)
    return module, ts, start, dw


def test_a_torchsde_module_runs_unchanged():
    module, ts, start, dw = lorenz_module()
    peer, peer_kl = torchsde.sdeint(module, start, ts, bm=KnownPath(dw, 1), method="euler", dt=DT, logqp=True)
    ours, kl = sdeint(module, start, ts, dt=DT, noise=dw, logqp=True)
    torch.testing.assert_close(ours, peer.transpose(0, 1), rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(kl, peer_kl.mT, rtol=1e-10, atol=1e-11)
    assert kl.shape == (6, 8) and kl.min() > 0

    parameters = [p for name, p in module.named_parameters()]
    peer_loss, loss = peer.square().sum() + peer_kl.sum(), ours.square().sum() + kl.sum()
    peer_grads = torch.autograd.grad(peer_loss, parameters, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, parameters), peer_grads, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("way", ["checkpoint", "torchsde"])
def test_a_torchsde_module_runs_every_way(way):
    module, ts, start, dw = lorenz_module()
    plain = sdeint(module, start, ts, dt=DT, noise=dw, logqp=True)
    choice = {"engine": "torchsde", "method": "euler"} if way == "torchsde" else {"gradient": way}
    with torch.no_grad():
        other = sdeint(module, start, ts, dt=DT, noise=dw, logqp=True, **choice)
    torch.testing.assert_close(other, plain, rtol=1e-10, atol=1e-11)


def test_a_law_held_out_of_sight_is_noticed():
    module, ts, start, dw = lorenz_module()
    with pytest.raises(ValueError, match="^params: lacks"):
        sdeint(_Detached(module), start, ts, dt=DT, noise=dw, gradient="checkpoint")
    params = [*module.parameters(), module.table[1]]
    sdeint(_Detached(module), start, ts, dt=DT, noise=dw, gradient="checkpoint", params=params)


class _Detached(nn.Module):
    """Holds a law outside of its registered modules, as a closure would."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, module):
        super().__init__()
        self.held = [module]

    def f(self, t, y):
        return self.held[0].f(t, y)

    def g(self, t, y):
        return self.held[0].g(t, y)


@pytest.mark.parametrize(("method", "kind", "noise"), METHODS)
def test_our_laws_run_under_torchsde_with_our_solution(method, kind, noise):
    law = build(noise, kind)
    ts = torch.tensor([0.0, 0.25, 1.0], dtype=DTYPE)
    start = torch.randn(5, 3, dtype=DTYPE)
    dw = brownian_increments(step_grid(ts, DT), (5,), law.noise_size, dtype=DTYPE)
    peer = torchsde.sdeint(law, start, ts, bm=KnownPath(dw), method=method, dt=DT)
    ours = sdeint(law, start, ts, dt=DT, noise=dw, method=method)
    torch.testing.assert_close(ours, peer.transpose(0, 1), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("method", "kind", "noise"), METHODS)
@pytest.mark.parametrize("shared", [True, False])
def test_both_engines_agree(method, kind, noise, shared):
    law = build(noise, kind)
    # One gap: torchsde's reversible Heun is started anew in every gap, ours goes on.
    gaps = [0.0, 1.0] if method == "reversible_heun" else [0.0, 0.3, 1.0]
    ts = torch.tensor(gaps, dtype=DTYPE)
    rows = torch.tensor([1.0, 0.99, 0.97], dtype=DTYPE)[:, None] * ts
    ts = ts if shared else rows + torch.tensor([[0.0], [1.0], [2.0]])
    dw = brownian_increments(step_grid(ts, 0.1), (4, 3), law.noise_size, dtype=DTYPE)
    start = torch.randn(4, 3, 3, dtype=DTYPE)
    options = {"dt": 0.1, "method": method, "noise": dw, "logqp": True}
    ours, kl = sdeint(law, start, ts, **options)
    theirs, their_kl = sdeint(law, start, ts, engine="torchsde", **options)
    torch.testing.assert_close(theirs, ours, rtol=1e-10, atol=1e-11)
    # torchsde runs the price through the method's stages; ours sums over left ends, as these methods do.
    if method in ("euler", "milstein"):
        torch.testing.assert_close(their_kl, kl, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["ito", "stratonovich"])
def test_milstein_for_scalar_noise_converges_in_both_engines(kind):
    # Left to itself, torchsde 0.2.6 has order 1/2 here in the Ito sense, and a wrong limit in the other.
    law, fine = Spiral(kind), 256
    grid = step_grid([0.0, 1.0], 1 / fine)
    dw = brownian_increments(grid, (1000,), 1, dtype=DTYPE)
    start = torch.ones(1000, 2, dtype=DTYPE)
    exact = law.exact(start, 1.0, dw.sum(0))
    for engine in ("native", "torchsde"):
        options = {"method": "milstein", "engine": engine}
        errors = [
            (sdeint(law, start, [0.0, 1.0], dt=1 / n, noise=coarsen(dw, fine // n), **options)[:, -1] - exact)
            for n in (16, 256)
        ]
        coarse, close = (error.square().mean().sqrt().item() for error in errors)
        assert close == pytest.approx(coarse / 16, rel=0.3)


def test_adjoint_of_torchsde_s_reversible_heun_has_our_gradients():
    law = build("diagonal", "stratonovich")
    dw = brownian_increments(step_grid([0.0, 1.0], DT), (5,), 3, dtype=DTYPE)
    start = torch.randn(5, 3, dtype=DTYPE, requires_grad=True)
    wanted, found = (
        torch.autograd.grad(
            sdeint(law, start, [0.0, 1.0], dt=DT, method="reversible_heun", noise=dw, **way).sin().sum(),
            [start, *law.residual.parameters(), *law.net.parameters()],
        )
        for way in ({"gradient": "reversible"}, {"engine": "torchsde", "gradient": "adjoint"})
    )
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)


def test_the_stochastic_adjoint_comes_near_backprop_as_steps_shrink():
    law = GeometricBrownian("stratonovich")
    start = torch.ones(200, 2, dtype=DTYPE)
    errors = []
    for steps in (16, 128):
        dw = brownian_increments(step_grid([0.0, 0.5, 1.0], 1 / steps), (200,), 2, dtype=DTYPE)
        options = {"dt": 1 / steps, "engine": "torchsde", "noise": dw}
        back, adjoint = (
            torch.autograd.grad(
                sdeint(law, start, [0.0, 0.5, 1.0], method="heun", gradient=way, **options).sum(), [law.a, law.b]
            )
            for way in ("backprop", "adjoint")
        )
        errors.append(max(((a - b).norm() / b.norm()).item() for a, b in zip(adjoint, back, strict=True)))
    assert errors[1] < 0.3 * errors[0] and errors[1] < 0.02


def test_context_gets_its_adjoint_gradient():
    class Pulled(OrnsteinUhlenbeck):
        target = None

        def drift(self, t, z):
            return super().drift(t, z) + self.target

    law, network = Pulled("ito"), nn.Linear(2, 2).double()
    grads = []
    for options in ({"gradient": "backprop"}, {"gradient": "adjoint"}):
        law.target = network(torch.ones(3, 2, dtype=DTYPE))
        dw = brownian_increments(
            step_grid([0.0, 1.0], 1 / 256), (3,), 2, generator=torch.Generator().manual_seed(0), dtype=DTYPE
        )
        states = sdeint(
            law,
            torch.zeros(3, 2, dtype=DTYPE),
            [0.0, 1.0],
            dt=1 / 256,
            method="euler",
            engine="torchsde",
            noise=dw,
            params=[law.target],
            **options,
        )
        grads.append(torch.autograd.grad(states.sum(), list(network.parameters())))
    torch.testing.assert_close(grads[1], grads[0], rtol=0.02, atol=1e-3)


def test_higher_order_methods_of_torchsde_on_rows_at_their_own_times():
    ts = torch.tensor([[0.0, 0.5, 1.0], [0.2, 0.9, 0.9], [1.0, 1.5, 3.0]], dtype=DTYPE)
    start = torch.ones(2, 3, 2, dtype=DTYPE)
    states = sdeint(Decay(), start, ts, dt=0.05, engine="torchsde", method="srk")
    wanted = torch.stack([Decay().exact(start, ts[:, 0], ts[:, j]) for j in range(3)], -2)
    torch.testing.assert_close(states, wanted, rtol=1e-4, atol=1e-5)


def test_torchsde_s_own_noise_has_the_right_law_in_every_row():
    ts = torch.tensor([[0.0, 0.4, 1.0], [0.0, 1.0, 3.0]], dtype=DTYPE)
    generator = torch.Generator().manual_seed(3)
    law, start = OrnsteinUhlenbeck(), torch.zeros(4000, 2, 2, dtype=DTYPE)
    states = sdeint(law, start, ts, dt=0.1, engine="torchsde", generator=generator)
    same = sdeint(law, start, ts, dt=0.1, engine="torchsde", generator=torch.Generator().manual_seed(3))
    assert torch.equal(states, same)
    for row in range(2):
        for j in (1, 2):
            spread = (1 - torch.exp(-2 * law.k * ts[row, j])) / (2 * law.k) * law.matrix @ law.matrix.mT
            torch.testing.assert_close(torch.cov(states[:, row, j].mT), spread, atol=0.02, rtol=0)


def test_adaptive_steps_keep_their_tolerance():
    start, ts = torch.ones(3, 2, dtype=DTYPE), [0.0, 1.0, 2.0]
    fixed, adapted = (
        sdeint(Decay("stratonovich"), start, ts, dt=0.5, engine="torchsde", method="midpoint", adaptive=control)
        for control in (None, Adaptive(rtol=1e-6, atol=1e-7))
    )
    exact = torch.exp(torch.tensor(-4.0, dtype=DTYPE))
    assert (adapted[:, -1] - exact).abs().max() < 1e-4 < (fixed[:, -1] - exact).abs().max()


def test_adaptive_adjoint_gradients_come_near_the_closed_form():
    start = torch.ones(3, 2, dtype=DTYPE, requires_grad=True)
    options = {"engine": "torchsde", "method": "midpoint", "gradient": "adjoint"}
    states = sdeint(Decay("stratonovich"), start, [0.0, 1.0], dt=0.5, adaptive=Adaptive(1e-6, 1e-7), **options)
    (found,) = torch.autograd.grad(states[:, -1].sum(), start)
    torch.testing.assert_close(found, torch.full_like(found, -1.5).exp(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "torchsde", "seeds": [1, 2]}, "^engine: got 'torchsde' with seeds"),
        ({"engine": "torchsde", "gradient": "checkpoint"}, "^engine: got 'torchsde' with"),
        ({"engine": "jax"}, "^engine: got 'jax'"),
        ({"gradient": "adjoint"}, "^engine: got 'native'"),
        ({"adaptive": Adaptive()}, "^engine: got 'native'"),
    ],
)
def test_options_of_the_other_engine_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        sdeint(Decay(), torch.ones(2, 2), [0.0, 1.0], dt=0.1, **options)


def test_noise_that_torchsde_cannot_use_is_named():
    ts = torch.tensor([[0.0, 1.0], [0.0, 0.5]], dtype=DTYPE)
    dw = brownian_increments(step_grid(ts, 0.1), (2,), 2, dtype=DTYPE)
    with pytest.raises(ValueError, match="^noise: given for rows with unlike numbers"):
        sdeint(Decay(), torch.ones(2, 2, dtype=DTYPE), ts, dt=0.1, engine="torchsde", method="euler", noise=dw)
    even = brownian_increments(step_grid([0.0, 1.0], 0.1), (2,), 2, dtype=DTYPE)
    with pytest.raises(ValueError, match="levy|Levy|Lévy"):
        sdeint(Decay(), torch.ones(2, 2, dtype=DTYPE), [0.0, 1.0], dt=0.1, engine="torchsde", method="srk", noise=even)
