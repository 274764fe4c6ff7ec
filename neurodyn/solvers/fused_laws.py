"""Which laws the fused engine takes, read into its form; and `sdeint`'s way to it."""

from __future__ import annotations

from collections.abc import Sequence

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
    """As `sdeint`: states (..., T, d), with `logqp` the price of each gap too. Raises ValueError for other laws."""
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
    if isinstance(law, MLPSDE):
        return FusedLaw(own_drift(law), own_diffusion(law))
    if isinstance(law, ContextSDE) and isinstance(law.prior, MLPSDE):
        network = law.network
        if not isinstance(network.activation, nn.Softplus | nn.SiLU):
            raise ValueError("engine: got 'fused' for a drift with tanh, want softplus or silu")
        shift = law.shift.movedim(-2, 0)
        net = Net(network.state_layer.weight, shift, network.output_layer.weight, network.output_layer.bias)
        activation = "silu" if isinstance(network.activation, nn.SiLU) else "softplus"
        return FusedLaw(net, own_diffusion(law.prior), own_drift(law.prior), activation=activation)
    raise ValueError(f"engine: got 'fused' for a {type(law).__name__}, want an MLPSDE or a ContextSDE of one")


def own_drift(law: MLPSDE) -> Net:
    """The drift of a plain `MLPSDE`. Raises ValueError for one that has more than one hidden layer with softplus."""
    layers = list(law.residual)
    plain = len(layers) == 3 and isinstance(layers[1], nn.Softplus)
    if not plain or law.linear is not None or law.bounded is not None or law.time_dependent:
        raise ValueError(
            "engine: got 'fused' for an MLPSDE with another drift, want one hidden layer with softplus alone: "
            "no linear part, no bound, no time"
        )
    return Net(layers[0].weight, layers[0].bias, layers[2].weight, layers[2].bias)


def own_diffusion(law: MLPSDE) -> CoordinateNets:
    """The diffusion of an `MLPSDE` with one network per coordinate. Raises ValueError for every other."""
    if not isinstance(law.net, CoordinatewiseNet) or law.sde_type != "ito":
        raise ValueError(
            "engine: got 'fused' for an MLPSDE with another diffusion, want an Ito law with diagonal network noise"
        )
    net = law.net
    return CoordinateNets(net.weight_in, net.bias_in, net.weight_out, net.bias_out, net.low, net.high)


def draw_keys(
    z0: Tensor, generator: torch.Generator | None, seeds: Sequence[int] | Tensor | RowNoise | None
) -> Tensor:
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
