"""The loop with a backward pass of its own against the loop under autograd: values, every gradient, means over time."""

import pytest
import torch

from neurodyn.nets.controlled import ControlledSDE, num_channels, time_mean
from neurodyn.noise import RowNoise
from neurodyn.sde.stable import NeuralGSDE, NeuralLNSDE, NeuralLSDE
from neurodyn.series import SeriesBatch


def batch_of(rows=4, visits=7) -> SeriesBatch:
    g = torch.Generator().manual_seed(0)
    times = torch.rand(rows, visits, generator=g, dtype=torch.float64).cumsum(1)
    mask = torch.rand(rows, visits, 2, generator=g) > 0.3
    mask[:, 0], mask[1, 4:] = True, False
    values = torch.randn(rows, visits, 2, generator=g, dtype=torch.float64)
    return SeriesBatch(times, values, mask, ids=tuple(map(str, range(rows))))


@pytest.mark.parametrize("law", [NeuralLSDE, NeuralLNSDE, NeuralGSDE])
@pytest.mark.parametrize("asked", ["end", "mean", "times"])
def test_values_and_gradients_are_those_of_autograd(law, asked, monkeypatch):
    torch.manual_seed(1)
    layer = ControlledSDE(law(3, num_channels(2), 5), longest_step=0.2).double()
    batch = batch_of()
    options = {"end": {}, "mean": {"mean": True}, "times": {"at": batch.times + 0.1}}[asked]

    def states_and_gradients():
        found = layer(batch, 3, noise=RowNoise(0, batch.ids), **options)
        weight = torch.linspace(-1, 2, found.numel(), dtype=torch.float64).reshape(found.shape)
        return found, torch.autograd.grad((weight * found.square()).sum(), list(layer.parameters()))

    states, own = states_and_gradients()
    assert states.shape[:2] == (3, 4) and states.shape[-1] == (6 if asked == "mean" else 3)
    monkeypatch.setattr(law, "tanh_form", lambda self, pull, level: None)
    wanted, autograds = states_and_gradients()
    torch.testing.assert_close(states, wanted)
    for (name, _), one, other in zip(layer.named_parameters(), own, autograds, strict=True):
        assert other.abs().sum() > 0, name
        torch.testing.assert_close(one, other, msg=name)


def test_means_over_time_weigh_states_by_how_long_they_last():
    states = torch.tensor([[[1.0], [3.0], [9.0]], [[2.0], [4.0], [4.0]]])
    steps = torch.tensor([[0.5, 1.5], [0.0, 0.0]])
    assert time_mean(states, steps).tolist() == [[2.5], [2.0]]
    with pytest.raises(ValueError, match="mean: got True"):
        ControlledSDE(NeuralLSDE(3, num_channels(2))).double()(batch_of(), at=torch.ones(4, 1), mean=True)


def test_fields_of_several_layers_go_through_the_general_loop():
    torch.manual_seed(0)
    deep = ControlledSDE(NeuralLNSDE(3, num_channels(2), 5, hidden_layers=2), longest_step=0.2).double()
    batch = batch_of()
    assert deep.law.tanh_form(torch.zeros(1), torch.zeros(1)) is None
    assert deep(batch, 2, noise=RowNoise(0, batch.ids)).isfinite().all()
