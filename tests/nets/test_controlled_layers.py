"""Layers along control paths: a controlled equation in closed form and by torchdiffeq, SDE layers against `sdeint`."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from neurodyn.nets.controlled import ControlledSDE, NeuralCDE, num_channels
from neurodyn.nets.paths import PATH_KINDS, control_path
from neurodyn.noise import RowNoise
from neurodyn.sde.controlled import ControlledLaw
from neurodyn.sde.stable import NeuralGSDE, NeuralLNSDE, NeuralLSDE
from neurodyn.series import SeriesBatch
from neurodyn.solvers.ode import odeint
from neurodyn.solvers.solve import sdeint

DOUBLE = torch.float64


def batch_of(rows=3, steps=6, channels=2, seed=0, missing=0.3):
    g = torch.Generator().manual_seed(seed)
    times = torch.cumsum(torch.rand(rows, steps, generator=g, dtype=DOUBLE) * 0.3 + 0.05, 1)
    values = torch.randn(rows, steps, channels, generator=g, dtype=DOUBLE)
    mask = torch.rand(rows, steps, channels, generator=g) >= missing
    mask[:, 0] = True
    for row in range(rows):
        mask[row, steps - row % 3 :] = False
    return SeriesBatch(times, values, mask, ids=tuple("abcdefgh"[:rows]))


class Rotation(nn.Module):
    """A field to matrices that turns the plane by the second channel's move: atanh undoes the layer's last tanh."""

    def forward(self, z):
        turned = torch.stack((-z[..., 1], z[..., 0]), -1)
        field = torch.stack((torch.zeros_like(turned), 0.4 * turned), -1)
        return torch.atanh(field.clamp(-0.999, 0.999)).flatten(-2)


def test_neural_cde_of_a_linear_field_is_a_rotation_by_the_path():
    """dz = 0.4 J z dX gives z = exp(0.4 (X_t - X_0) J) z_0, whatever the path does between."""
    batch = batch_of(channels=1, missing=0.0)
    for kind in PATH_KINDS:
        layer = NeuralCDE(1, 2, 2, path=kind, longest_step=0.005 if kind != "rectilinear" else 0.01).double()
        layer.field, layer.head = Rotation(), nn.Identity()
        with torch.no_grad():
            features = layer(batch).features
            z0 = layer.start(control_path(batch, kind).start)
        z0 = z0.detach()
        angle = 0.4 * (batch.values - batch.values[:, :1])[..., 0]
        wanted = torch.stack(
            (
                angle.cos() * z0[:, :1] - angle.sin() * z0[:, 1:],
                angle.sin() * z0[:, :1] + angle.cos() * z0[:, 1:],
            ),
            -1,
        )
        # where nothing was observed the path has ended
        torch.testing.assert_close(features[batch.present], wanted[batch.present], atol=2e-4, rtol=2e-4, msg=kind)


@pytest.mark.parametrize("kind", ["hermite", "cubic"])
def test_neural_cde_converges_to_torchdiffeqs_solution_at_second_order(kind):
    batch = batch_of(rows=2, missing=0.0).compact()
    path = control_path(batch, kind)
    errors = []
    torch.manual_seed(3)
    layer = NeuralCDE(2, 3, 4, width=8, path=kind).double().requires_grad_(False)
    layer.head = nn.Identity()

    def field(t, z):
        matrix = torch.tanh(layer.field(z)).unflatten(-1, (4, 3))
        clock = torch.as_tensor(t, dtype=DOUBLE).expand(2)[:, None]
        return (matrix @ path.derivative(clock)[:, 0, :, None])[..., 0]

    exact = odeint(field, layer.start(path.start), batch.times, dt=0.002, method="rk4")
    for step in (0.01, 0.005):
        layer.longest_step = step
        errors.append(float((layer(batch).features - exact)[batch.present].abs().max()))
    assert errors[1] < 1e-4 and math.log2(errors[0] / errors[1]) > 1.6, errors


@pytest.mark.parametrize("kind", PATH_KINDS)
def test_rows_are_their_own_under_padding_and_order(kind):
    batch = batch_of()
    torch.manual_seed(0)
    encoder = NeuralCDE(2, 3, 4, path=kind, intensity=True).double()
    whole = encoder(batch).summary
    order = [2, 0, 1]
    torch.testing.assert_close(encoder(batch.padded(9).rows(order)).summary, whole[order])
    for row in range(3):
        torch.testing.assert_close(encoder(batch.rows(row).compact()).summary, whole[row : row + 1])


def test_online_features_do_not_see_the_future():
    batch = batch_of(rows=1, missing=0.4)
    encoder = NeuralCDE(2, 3, 4, path="rectilinear").double()
    whole = encoder(batch).features
    for count in range(1, int(batch.present.sum())):
        past = batch.history(count=count)
        torch.testing.assert_close(encoder(past).summary, whole[:, past.num_times - 1])


def test_sde_layer_is_sdeint_along_the_path():
    """On shared times, with the same noise: the layer's precomputed loop and the law under `sdeint` are one."""
    times = torch.tensor([[0.0, 0.1, 0.25, 0.4]] * 2, dtype=DOUBLE)
    batch = SeriesBatch(times, torch.randn(2, 4, 2, dtype=DOUBLE), ids=("a", "b"))
    path = control_path(batch)
    for make in (NeuralLSDE, NeuralLNSDE, NeuralGSDE):
        layer = ControlledSDE(make(3, num_channels(2)), longest_step=0.05).double()
        noise = RowNoise(5, ("a", "b"))
        found = layer(batch, 4, at=times, noise=noise)
        z0 = layer.start(path.start).expand(4, -1, -1)
        law = layer.law.along(path.at)
        wanted = layer.law.outer(sdeint(law, z0, times, dt=0.05, seeds=noise))
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(layer(batch, 4, noise=noise), wanted[:, :, -1])


def test_sde_layer_rows_are_their_own():
    batch = batch_of()
    layer = ControlledSDE(NeuralLNSDE(3, num_channels(2))).double()
    whole = layer(batch, 5, noise=RowNoise(1, batch.ids))
    order = [1, 2, 0]
    moved = batch.padded(8).rows(order)
    torch.testing.assert_close(layer(moved, 5, noise=RowNoise(1, moved.ids)), whole[:, order])
    for row in range(3):
        alone = batch.rows(row)
        torch.testing.assert_close(layer(alone, 5, noise=RowNoise(1, alone.ids)), whole[:, row : row + 1])


def test_states_between_and_after_the_visits():
    """Asked for anywhere, in a grid of its own; after the last visit the path stands still and the state goes on."""
    times = torch.tensor([[0.0, 0.1, 0.3]], dtype=DOUBLE)
    batch = SeriesBatch(times, torch.randn(1, 3, 2, dtype=DOUBLE), ids=("a",))
    at = torch.tensor([[0.05, 0.1, 0.2, 0.3, 0.5]], dtype=DOUBLE)
    layer = ControlledSDE(NeuralLSDE(3, num_channels(2)), longest_step=0.05).double()
    path, noise = control_path(batch), RowNoise(2, ("a",))
    found = layer(batch, 3, at=at, noise=noise)
    whole = torch.tensor([[0.0, 0.05, 0.1, 0.2, 0.3, 0.5]], dtype=DOUBLE)
    start = layer.start(path.start).expand(3, -1, -1)
    torch.testing.assert_close(found, sdeint(layer.law.along(path.at), start, whole, dt=0.05, seeds=noise)[:, :, 1:])
    encoder = NeuralCDE(2, 3, 4, longest_step=0.001).double()
    features = encoder(batch, at).features
    torch.testing.assert_close(features[:, 1], encoder(batch).features[:, 1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features[:, 4], encoder(batch).summary)  # nothing moves it any more
    with pytest.raises(ValueError, match="at: got shape"):
        layer(batch, at=at[0])


class Brown(ControlledLaw):
    """dz = x dt + dW."""

    state_size = control_size = 2
    state_independent = True

    def prepare(self, t, x):
        return x, torch.ones_like(x)

    def velocity(self, u, pull):
        return pull.expand_as(u)

    def spread(self, u, level):
        return level.expand_as(u)


def test_sde_layer_has_the_moments_of_a_driven_brownian_motion():
    times = torch.tensor([[0.0, 0.5, 2.0]], dtype=DOUBLE)
    batch = SeriesBatch(times, torch.tensor([[[1.0], [1.0], [1.0]]], dtype=DOUBLE))
    layer = ControlledSDE(Brown(), longest_step=0.01).double()
    with torch.no_grad():
        ends = layer(batch, 20_000, at=times, generator=torch.Generator().manual_seed(0))[:, 0]
        start = layer.start(torch.tensor([0.0, 1.0], dtype=DOUBLE))
    mean, variance = ends.mean(0) - start, ends.var(0)
    # the control is (elapsed, 1), whose integral is (t^2 / 2, t)
    wanted = torch.tensor([[0.0, 0.0], [0.125, 0.5], [2.0, 2.0]], dtype=DOUBLE)
    torch.testing.assert_close(mean, wanted, atol=0.05, rtol=0.0)
    torch.testing.assert_close(variance[:, 0], times[0], atol=0.08, rtol=0.0)


def test_gradients_reach_every_parameter_and_float32_works():
    batch = batch_of().to(dtype=torch.float32)
    modules = [ControlledSDE(make(3, num_channels(2))) for make in (NeuralLSDE, NeuralLNSDE, NeuralGSDE)]
    for module in [*modules, NeuralCDE(2, 3, 4)]:
        found = module(batch).summary if isinstance(module, NeuralCDE) else module(batch, 2)
        assert found.dtype == torch.float32
        found.square().sum().backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in module.parameters())
    assert not parametrize.is_parametrized(modules[0].start)


def test_single_visits_start_and_stay():
    batch = SeriesBatch(torch.tensor([[2.0]]), torch.tensor([[[1.0, -1.0]]]))
    layer = ControlledSDE(NeuralLSDE(3, num_channels(2)))
    start = layer.start(torch.tensor([0.0, 1.0, -1.0]))
    torch.testing.assert_close(layer(batch, 2)[:, 0], start.expand(2, -1))
    torch.testing.assert_close(layer(batch, 2, at=batch.times)[:, 0, 0], start.expand(2, -1))
    encoder = NeuralCDE(2, 3, 4)
    torch.testing.assert_close(encoder(batch).summary, encoder.head(encoder.start(torch.tensor([[0.0, 1.0, -1.0]]))))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="path: got 'spline'"):
        NeuralCDE(2, 3, path="spline")
    with pytest.raises(ValueError, match="longest_step: got 0"):
        ControlledSDE(Brown(), longest_step=0)
    with pytest.raises(ValueError, match="batch: got a control path of 3 channels, want 2"):
        ControlledSDE(Brown())(batch_of())
