"""Which laws the fused engine takes, read into its form; and `sdeint`'s way to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neurodyn.noise import RowNoise
from neurodyn.sde.base import SDE
from neurodyn.sde.contextual import ContextSDE
from neurodyn.sde.neural import MLPSDE, CoordinatewiseNet
from neurodyn.solvers.fused import CoordinateNets, FusedLaw, Net, integrate_fused
from neurodyn.solvers.grid import Grid
from neurodyn.solvers.native import Visits


def solve_fused(
    law: SDE,
    z0: Tensor,
    grid: Grid,
    noise: Tensor | None,
    generator: torch.Generator | None,
    seeds: Sequence[int] | Tensor | RowNoise | None,
    logqp: bool,
) -> Tensor | Visits:
    """As `sdeint`: states (..., T, d), with `logqp` the price of each gap too.

    Raises:
        ValueError: another law.
        NoKernel: on a CPU, where there is no compiler for its kernel.
    """
    fused = fused_law(law)
    source = noise if noise is not None else draw_keys(z0, generator, seeds)
    states, cost = integrate_fused(fused, z0, grid, source)
    if not logqp:
        return states
    # a law on its own is its own prior
    return Visits(states, cost if cost is not None else states.new_zeros(*states.shape[:-2], states.shape[-2] - 1))


def fused_law(law: SDE) -> FusedLaw:
    """An `MLPSDE`, or a `ContextSDE` of one, as the kernels see it.

    Raises:
        ValueError: another law, or one with parts that the kernels do not have.
    """
    if isinstance(law, ContextSDE):
        network = law.network
        if not isinstance(network.activation, nn.Softplus | nn.SiLU):
            raise ValueError("engine: got 'fused' for a drift with tanh, want softplus or silu")
        shift = law.shift.movedim(-2, 0)
        net = Net(network.state_layer.weight, shift, network.output_layer.weight, network.output_layer.bias)
        activation = "silu" if isinstance(network.activation, nn.SiLU) else "softplus"
        return FusedLaw(net, plain_diffusion(law.prior), plain_drift(law.prior), activation=activation)
    return FusedLaw(plain_drift(law), plain_diffusion(law))


def plain_drift(law: SDE) -> Net:
    """The drift of an `MLPSDE` that is a network with one hidden layer with softplus. Raises ValueError for others."""
    plain = _mlp(law)
    layers: list[Any] = list(plain.residual)
    fits = len(layers) == 3 and isinstance(layers[1], nn.Softplus)
    if not fits or plain.linear is not None or plain.bounded is not None or plain.time_dependent or plain.static_size:
        raise ValueError(
            "engine: got 'fused' for an MLPSDE with another drift, want one hidden layer with softplus alone: "
            "no linear part, no bound, no time, no static coordinates"
        )
    return Net(layers[0].weight, layers[0].bias, layers[2].weight, layers[2].bias)


def plain_diffusion(law: SDE) -> CoordinateNets:
    """The diffusion of an Ito `MLPSDE` with one network 1-J-1 per coordinate. Raises ValueError for others."""
    plain = _mlp(law)
    net = plain.net
    if not isinstance(net, CoordinatewiseNet) or plain.sde_type != "ito":
        raise ValueError(
            "engine: got 'fused' for an MLPSDE with another diffusion, want an Ito law with diagonal network noise"
        )
    if len(net.weights) or net.time_dependent or not isinstance(net.activation, nn.Softplus):
        raise ValueError(
            "engine: got 'fused' for a diffusion with other networks, want one hidden layer with softplus and no time"
        )
    return CoordinateNets(net.weight_in, net.bias_in, net.weight_out, net.bias_out, net.low, net.high)


def _mlp(law: SDE) -> MLPSDE:
    if not isinstance(law, MLPSDE):
        raise ValueError(f"engine: got 'fused' for a {type(law).__name__}, want an MLPSDE or a ContextSDE of one")
    return law


def draw_keys(z0: Tensor, generator: torch.Generator | None, seeds: Sequence[int] | Tensor | RowNoise | None) -> Tensor:
    """Keys of the noise, int64, one for each row of the last leading axis.

    Args:
        z0: (..., d).
        generator: source of the keys; the global one of the device if not given, so nothing waits for the host.
        seeds: one integer per row, or a `RowNoise`, instead.
    """
    if seeds is None:
        where = generator.device if generator is not None else z0.device
        return torch.randint(2**62, z0.shape[-2:-1], generator=generator, device=where).to(z0.device)
    if generator is not None:
        raise ValueError("seeds: got a generator too, want one of the two")
    rows = seeds if isinstance(seeds, RowNoise) else RowNoise(0, [str(int(seed)) for seed in seeds], z0.device)
    if z0.ndim < 2 or len(rows.keys) != z0.shape[-2]:
        raise ValueError(f"seeds: got {len(rows.keys)}, want one for each row of the last axis of {tuple(z0.shape)}")
    return rows.keys
