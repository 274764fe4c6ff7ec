"""Laws of motion whose coordinates see only their parents in a graph.

Graphs are (..., d, d) with G[i, j] = 1 where *i drives j*: the j-th entry of the drift depends on z_i only where
G[i, j] is not 0. Cycles and self-loops are allowed. A graph may have leading axes, which broadcast against those of the
state, so one evaluation can hold many graphs; entries between 0 and 1 weigh what passes along an edge, which is what
gradients with respect to a graph differentiate.

The embedding network is that of SCOTCH (Wang, Jennings and Gong, ICLR 2024, arXiv 2311.03309, appendix), after Geffner
et al. (2022), DECI, arXiv 2202.02195.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from neurodyn.sde.base import SDE, Time

EMBEDDING = 32
NETWORKS = ("embedding", "targets")
NARROWEST, WIDEST = 0.05, 2.0  # of a diffusion network, in units of its scale


class EmbeddingNet(nn.Module):
    """f_j(z, G) = zeta_j(e_j, sum_i W_ij G_ij l(e_i, z_i)): networks that all nodes share, told apart by embeddings.

    Args:
        size: d. hidden_size: of the hidden layers of l and zeta; max(4 d, 32, 64) as published if not given.
    """

    def __init__(self, size: int, hidden_size: int | None = None) -> None:
        super().__init__()
        hidden = hidden_size or max(4 * size, 64)
        self.embedding = nn.Parameter(0.01 * torch.randn(size, EMBEDDING))
        # not zero as published: with W = 0 no gradient reaches the graph until W has moved
        self.mixing = nn.Parameter(torch.full((size, size), size**-0.5))
        self.value_weight = nn.Parameter(torch.randn(size, hidden))
        self.read, self.think = nn.Linear(EMBEDDING, hidden), nn.Linear(hidden, hidden)  # l
        self.send = nn.Linear(hidden, EMBEDDING)
        self.receive, self.settle = nn.Linear(2 * EMBEDDING, hidden), nn.Linear(hidden, hidden)  # zeta
        self.weight_out = nn.Parameter(torch.empty(size, hidden).uniform_(-1, 1) / math.sqrt(hidden))
        self.bias_out = nn.Parameter(torch.zeros(size))

    def forward(self, z: Tensor, graph: Tensor) -> Tensor:
        """(..., d) for z (..., d) and graphs (..., d, d)."""
        return self._jet(z, graph, slope=False)[0]

    def value_and_slope(self, z: Tensor, graph: Tensor) -> tuple[Tensor, Tensor]:
        """f and d f_j / d z_j, both (..., d), in one pass."""
        return self._jet(z, graph, slope=True)

    def _jet(self, z: Tensor, graph: Tensor, slope: bool) -> tuple[Tensor, Tensor]:
        rate: Tensor | None = self.value_weight if slope else None
        hidden, rate = _silu(torch.addcmul(self.read(self.embedding), z[..., None], self.value_weight), rate)
        message, rate = _residual(self.think, hidden, rate)
        message, rate = self.send(message), None if rate is None else rate @ self.send.weight.mT
        weight = self.mixing * graph
        gathered = weight.mT @ message  # (..., target, source) @ (..., source, E)
        own, passed = self.receive.weight.split(EMBEDDING, 1)
        hidden = self.embedding @ own.mT + self.receive.bias + gathered @ passed.mT
        if rate is not None:
            rate = weight.diagonal(dim1=-2, dim2=-1)[..., None] * rate @ passed.mT
        hidden, rate = _silu(hidden, rate)
        hidden, rate = _residual(self.settle, hidden, rate)
        out = (hidden * self.weight_out).sum(-1) + self.bias_out
        return out, out if rate is None else (rate * self.weight_out).sum(-1)


class TargetNets(nn.Module):
    """f_j(z, G) = network_j(G_1j z_1, ..., G_dj z_d): one small network per coordinate, all evaluated at once.

    Args:
        size: d. hidden_size: of the two hidden layers of each; 32 if not given.
    """

    def __init__(self, size: int, hidden_size: int | None = None) -> None:
        super().__init__()
        hidden = hidden_size or 32

        def uniform(inputs: int, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(size, *shape).uniform_(-1, 1) / math.sqrt(inputs))

        # as if of a few inputs only, since a graph lets few of them through
        self.weight_in, self.bias_in = uniform(min(size, 4), size, hidden), uniform(min(size, 4), hidden)
        self.weight, self.bias = uniform(hidden, hidden, hidden), uniform(hidden, hidden)
        self.weight_out, self.bias_out = uniform(hidden, hidden), nn.Parameter(torch.zeros(size))

    def forward(self, z: Tensor, graph: Tensor) -> Tensor:
        """(..., d) for z (..., d) and graphs (..., d, d)."""
        return self._jet(z, graph, slope=False)[0]

    def value_and_slope(self, z: Tensor, graph: Tensor) -> tuple[Tensor, Tensor]:
        """f and d f_j / d z_j, both (..., d), in one pass."""
        return self._jet(z, graph, slope=True)

    def _jet(self, z: Tensor, graph: Tensor, slope: bool) -> tuple[Tensor, Tensor]:
        seen = graph.mT * z[..., None, :]  # (..., target, source)
        hidden = _grouped(seen, self.weight_in) + self.bias_in
        rate = None
        if slope:
            own = self.weight_in.diagonal(dim1=0, dim2=1).mT
            rate = graph.diagonal(dim1=-2, dim2=-1)[..., None] * own
        hidden, rate = _silu(hidden, rate)
        rate = None if rate is None else _grouped(rate, self.weight)
        hidden, rate = _silu(_grouped(hidden, self.weight) + self.bias, rate)
        out = (hidden * self.weight_out).sum(-1) + self.bias_out
        return out, out if rate is None else (rate * self.weight_out).sum(-1)


class GraphLaw(SDE):
    """dz = f(z, G) dt + g(z, G) dW with diagonal g; `under` gives it graphs, without which every edge is there.

    Args:
        state_size: d.
        network: "embedding", shared over coordinates as published, or "targets", one for each.
        hidden_size: of the networks, or their default.
        diffusion: "constant", learned; or "network", as published: masked by the graph with all self-loops added, and
            within `NARROWEST` and `WIDEST` times its learned scale.
        speed: (d,), the unit of the drift, typical absolute velocities; 1 if not given.
        scale: (d,), the diffusion to begin with; 1 if not given.

    Raises:
        ValueError: unknown names, sizes below 1, units that are not positive.
    """

    noise_type = "diagonal"

    def __init__(
        self,
        state_size: int,
        network: Literal["embedding", "targets"] = "embedding",
        hidden_size: int | None = None,
        *,
        diffusion: Literal["constant", "network"] = "constant",
        speed: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> None:
        if state_size < 1:
            raise ValueError(f"state_size: {state_size} given, 1 or more wanted")
        if network not in NETWORKS:
            raise ValueError(f"network: {network!r} given, one of {', '.join(NETWORKS)} wanted")
        if diffusion not in ("constant", "network"):
            raise ValueError(f"diffusion: {diffusion!r} given, 'constant' or 'network' wanted")
        units = {"speed": speed, "scale": scale}
        for name, unit in units.items():
            if unit is not None and (unit.shape != (state_size,) or not bool((unit > 0).all())):
                raise ValueError(f"{name}: {unit.tolist()} given, {state_size} positive numbers wanted")
        super().__init__()
        self.state_size = self.noise_size = state_size
        self.state_independent = self.coordinatewise = diffusion == "constant"
        make = EmbeddingNet if network == "embedding" else TargetNets
        self.net = make(state_size, hidden_size)
        self.spread = make(state_size, hidden_size) if diffusion == "network" else None
        one = torch.ones(state_size)
        self.log_scale = nn.Parameter((one if scale is None else scale.to(one)).log())
        self.register_buffer("speed", one if speed is None else speed.to(one))
        self.register_buffer("graph", torch.ones(state_size, state_size))
        self.speed: Tensor
        self.graph: Tensor

    def under(self, graph: Tensor) -> SDE:
        """The same law with edges as in `graph` (..., d, d), whose leading axes broadcast with the state's.

        Raises:
            ValueError: another size.
        """
        if graph.shape[-2:] != self.graph.shape:
            size = self.state_size
            raise ValueError(f"graph: shape {tuple(graph.shape)} given, (..., {size}, {size}) wanted")
        return _UnderGraph(self, graph)

    def drift(self, t: Time, z: Tensor) -> Tensor:
        """(..., d)."""
        return self.masked_drift(z, self.graph)

    def diffusion(self, t: Time, z: Tensor) -> Tensor:
        """(..., d)."""
        return self.masked_diffusion(z, self.graph)

    def masked_drift(self, z: Tensor, graph: Tensor) -> Tensor:
        """The drift under a graph, (..., d)."""
        return self.speed * self.net(z, graph)

    def drift_slope(self, z: Tensor, graph: Tensor) -> tuple[Tensor, Tensor]:
        """The drift under a graph and d f_j / d z_j, both (..., d)."""
        value, slope = self.net.value_and_slope(z, graph)
        return self.speed * value, self.speed * slope

    def masked_diffusion(self, z: Tensor, graph: Tensor) -> Tensor:
        """The diffusion under a graph, (..., d)."""
        scale = self.log_scale.exp()
        if self.spread is None:
            return scale.expand_as(z)
        loops = torch.eye(self.state_size, dtype=graph.dtype, device=graph.device)
        gate = torch.sigmoid(self.spread(z, torch.maximum(graph, loops)))
        return scale * (NARROWEST + (WIDEST - NARROWEST) * gate)


class _UnderGraph(SDE):
    noise_type = "diagonal"

    def __init__(self, law: GraphLaw, graph: Tensor) -> None:
        super().__init__()
        self.law, self.graph = law, graph
        self.state_size = self.noise_size = law.state_size
        self.state_independent, self.coordinatewise = law.state_independent, law.coordinatewise

    def drift(self, t: Time, z: Tensor) -> Tensor:
        return self.law.masked_drift(z, self.graph)

    def diffusion(self, t: Time, z: Tensor) -> Tensor:
        return self.law.masked_diffusion(z, self.graph)


class Intervened(SDE):
    """A law under an intervention: some coordinates are held where they are, whatever drives them otherwise.

    Args:
        law: with diagonal noise.
        held: (d,) bool, True where a coordinate does not move. Set their values in the starting state.

    Raises:
        ValueError: a law with other noise, or a mask of another size.
    """

    noise_type = "diagonal"

    def __init__(self, law: SDE, held: Tensor) -> None:
        if law.noise_type != "diagonal":
            raise ValueError(f"law: {law.noise_type} noise given, diagonal noise wanted")
        if held.dtype != torch.bool or held.shape != (law.state_size,):
            raise ValueError(f"held: {held.dtype} {tuple(held.shape)} given, bool ({law.state_size},) wanted")
        super().__init__()
        self.law = law
        self.register_buffer("free", ~held)
        self.free: Tensor
        self.state_size = self.noise_size = law.state_size
        self.state_independent, self.coordinatewise = law.state_independent, law.coordinatewise

    def drift(self, t: Time, z: Tensor) -> Tensor:
        """(..., d), zero where held."""
        return self.law.drift(t, z) * self.free

    def diffusion(self, t: Time, z: Tensor) -> Tensor:
        """(..., d), zero where held."""
        return self.law.diffusion(t, z) * self.free


def _silu(before: Tensor, rate: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """silu(before), and the rate of it where `before` has this rate."""
    gate = torch.sigmoid(before)
    value = before * gate
    return value, None if rate is None else (gate + value * (1 - gate)) * rate


def _residual(layer: nn.Linear, hidden: Tensor, rate: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """hidden + silu(layer(hidden)), with its rate."""
    more, its_rate = _silu(layer(hidden), None if rate is None else rate @ layer.weight.mT)
    return hidden + more, None if rate is None or its_rate is None else rate + its_rate


def _grouped(inputs: Tensor, weight: Tensor) -> Tensor:
    """Each group's own matrix: (..., g, i) by (g, i, o) gives (..., g, o)."""
    flat = inputs.reshape(-1, *inputs.shape[-2:]).transpose(0, 1)
    return (flat @ weight).transpose(0, 1).reshape(*inputs.shape[:-1], weight.shape[-1])
