"""Neural laws of motion."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from neurodyn.sde.base import NOISE_TYPES, SDE, SDE_TYPES, NoiseType, SDEType, Time, time_column
from neurodyn.sde.coordinate_jet import PART, SoftplusJet

Activation = Literal["softplus", "silu", "tanh"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"softplus": nn.Softplus, "silu": nn.SiLU, "tanh": nn.Tanh}


class CoordinatewiseNet(nn.Module):
    """One small network per coordinate, all evaluated at once: out_i = low + (high - low) sigmoid(net_i(z_i[, t])).

    The networks do not see each other's coordinate, so d out_i / dz_j = 0 for i != j. Source of the form: Li et al.
    (2020), arXiv 2001.01328, whose diffusions are such networks with low = 0, high = 1.

    Args:
        size: d, how many coordinates.
        hidden_size, hidden_layers: width and number (1 or more) of each network's hidden layers.
        low, high: bounds of the output, not reached.
        time_dependent: whether every network also sees the time.
        activation: "softplus", "silu" or "tanh".
    """

    def __init__(
        self,
        size: int,
        hidden_size: int = 64,
        hidden_layers: int = 1,
        *,
        low: float = 0.0,
        high: float = 1.0,
        time_dependent: bool = False,
        activation: Activation = "softplus",
    ) -> None:
        if not low < high:
            raise ValueError(f"low, high: got {low} and {high}, want low < high")
        if hidden_layers < 1:
            raise ValueError(f"hidden_layers: got {hidden_layers}, want 1 or more")
        super().__init__()
        self.size, self.low, self.high, self.time_dependent = size, low, high, time_dependent
        self.activation = _activation(activation)

        # The scale of nn.Linear: uniform within 1 / sqrt(inputs).
        def uniform(inputs: int, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(size, *shape).uniform_(-1, 1) / math.sqrt(inputs))

        first = 1 + time_dependent
        self.weight_in, self.bias_in = uniform(first, hidden_size), uniform(first, hidden_size)
        self.weight_time = uniform(first, hidden_size) if time_dependent else None
        inner = range(hidden_layers - 1)
        self.weights = nn.ParameterList(uniform(hidden_size, hidden_size, hidden_size) for _ in inner)
        self.biases = nn.ParameterList(uniform(hidden_size, hidden_size) for _ in inner)
        self.weight_out, self.bias_out = uniform(hidden_size, hidden_size), uniform(hidden_size)

    def forward(self, t: Time, z: Tensor) -> Tensor:
        """(..., d) for z (..., d); t as in `SDE`."""
        hidden = self.activation(self._first(t, z))
        for weight, bias in zip(self.weights, self.biases, strict=True):
            hidden = self.activation(torch.einsum("...di,dio->...do", hidden, weight) + bias)
        # With one input and one output a matrix product has nothing to do: a product and a sum are twice as fast.
        return self._within((hidden * self.weight_out).sum(-1) + self.bias_out)

    def value_and_slope(self, t: Time, z: Tensor) -> tuple[Tensor, Tensor]:
        """The output and d out_i / dz_i, both (..., d), in one pass in closed form."""
        simple = not len(self.weights) and self.weight_time is None and isinstance(self.activation, nn.Softplus)
        if simple and z.numel() * self.weight_in.shape[-1] > PART:
            out, slope = SoftplusJet.apply(z, self.weight_in, self.bias_in, self.weight_out)
            out = self._within(out + self.bias_out)
            return out, (out - self.low) * (self.high - out) / (self.high - self.low) * slope
        before = self._first(t, z)
        hidden, slope = self.activation(before), self._activation_slope(before) * self.weight_in
        for weight, bias in zip(self.weights, self.biases, strict=True):
            before = torch.einsum("...di,dio->...do", hidden, weight) + bias
            hidden = self.activation(before)
            slope = self._activation_slope(before) * torch.einsum("...di,dio->...do", slope, weight)
        out = self._within((hidden * self.weight_out).sum(-1) + self.bias_out)
        gate_slope = (out - self.low) * (self.high - out) / (self.high - self.low)
        return out, gate_slope * (slope * self.weight_out).sum(-1)

    def _first(self, t: Time, z: Tensor) -> Tensor:
        bias: Tensor = self.bias_in
        if self.weight_time is not None:
            time = time_column(t, z).unsqueeze(-1) if isinstance(t, Tensor) and t.ndim else t
            bias = bias + time * self.weight_time
        return torch.addcmul(bias, z.unsqueeze(-1), self.weight_in)

    def _within(self, out: Tensor) -> Tensor:
        gate = torch.sigmoid(out)
        return gate if (self.low, self.high) == (0.0, 1.0) else self.low + (self.high - self.low) * gate

    def _activation_slope(self, before: Tensor) -> Tensor:
        if isinstance(self.activation, nn.Tanh):
            return 1.0 - torch.tanh(before).square()
        gate = torch.sigmoid(before)
        return gate if isinstance(self.activation, nn.Softplus) else gate * (1.0 + before * (1.0 - gate))


class MLPSDE(SDE):
    """drift = linear part + residual network, with a bounded or constant diffusion.

    Args:
        state_size: d.
        hidden_size, hidden_layers: of the drift network and of the diffusion's.
        noise_type: "diagonal" (one network per coordinate), "scalar", "additive" (a learned matrix) or "general".
        noise_size: m; d by default, 1 for scalar noise. Free for additive and general noise only.
        sde_type: "ito" or "stratonovich".
        diffusion: "network" or "constant" (learned, does not depend on state or time). Additive noise never depends on
            the state: for it "network" means a dependence on time, present if `time_dependent`.
        diffusion_bounds: the network diffusion stays between these for diagonal noise, and within +- the upper one for
            scalar noise. In general noise each entry moves by at most half the upper one about a learned matrix.
            The lower bound keeps path KLs finite. A constant diffusion is free.
        time_dependent: whether drift and network diffusion see the time.
        linear: False; True for a learned A z + b, zero at the start; or a law whose drift is that part (a fitted
            `LinearLaw`, for example), whose parameters then belong to this law too. With a law the residual starts at
            exactly zero, so that training starts where that law ends.
        static_size: how many of the last coordinates never move: constants of a series, which the drift depends on. For
            diagonal noise.
        bounded: if given, the residual is bounded * tanh(network / bounded): far from the data the linear part rules.
        activation: "softplus", "silu" or "tanh".

    Raises:
        ValueError: unknown names or sizes that do not fit the noise type.
    """

    def __init__(
        self,
        state_size: int,
        hidden_size: int = 64,
        hidden_layers: int = 1,
        *,
        noise_type: NoiseType = "diagonal",
        noise_size: int | None = None,
        sde_type: SDEType = "ito",
        diffusion: Literal["network", "constant"] = "network",
        diffusion_bounds: tuple[float, float] = (1e-3, 1.0),
        time_dependent: bool = False,
        linear: bool | SDE = False,
        static_size: int = 0,
        bounded: float | None = None,
        activation: Activation = "softplus",
    ) -> None:
        _check_choices(state_size, noise_type, noise_size, sde_type, diffusion, diffusion_bounds, linear, bounded)
        if not 0 <= static_size < state_size or (static_size and (noise_type != "diagonal" or isinstance(linear, SDE))):
            raise ValueError(
                f"static_size: got {static_size} of {state_size} with {noise_type} noise, want fewer than all, "
                "diagonal noise, and no law as linear part"
            )
        super().__init__()
        self.state_size, self.static_size = state_size, static_size
        moving = state_size - static_size
        self.noise_type, self.sde_type = noise_type, sde_type
        self.noise_size = 1 if noise_type == "scalar" else state_size if noise_size is None else noise_size
        self.state_independent = diffusion == "constant" or noise_type == "additive"
        self.coordinatewise = noise_type == "diagonal"
        self.time_dependent, self.bounded = time_dependent, bounded
        inputs = state_size + time_dependent
        self.residual = _network(inputs, hidden_size, hidden_layers, moving, activation)
        self.linear: Any = None
        if linear is True:
            self.linear = nn.Linear(state_size, moving)
            _zero(self.linear)
        elif isinstance(linear, SDE):
            self.linear = linear
            _zero(self.residual[-1])

        low, self.reach = diffusion_bounds
        middle = 0.5 * (low + self.reach)
        entries = state_size * self.noise_size
        network, diagonal = diffusion == "network", noise_type == "diagonal"
        # Learned constants: logarithms for diagonal noise, which keeps it positive; else a matrix of any sign.
        base: Tensor | None = torch.full((moving,), math.log(middle)) if diagonal else None
        if noise_type == "scalar":
            base = torch.full((state_size, 1), middle)
        elif not diagonal:
            base = middle * torch.eye(state_size, self.noise_size)
        self.net: Any = None
        if network and diagonal:
            options: dict[str, Any] = {"low": low, "high": self.reach, "time_dependent": time_dependent}
            self.net = CoordinatewiseNet(moving, hidden_size, hidden_layers, activation=activation, **options)
        elif network and noise_type in ("scalar", "general"):
            self.net = _network(inputs, hidden_size, hidden_layers, entries, activation)
        elif network and time_dependent:
            self.net = _network(1, hidden_size, hidden_layers, entries, activation)
        # Where a network stands alone it has its own bias.
        alone = self.net is not None and noise_type in ("diagonal", "scalar")
        self.base: Any = nn.Parameter(base) if base is not None and not alone else None

    def drift(self, t: Time, z: Tensor) -> Tensor:
        """A z + b + residual network, (..., d)."""
        moved = self.residual(self._inputs(t, z))
        if self.bounded is not None:
            moved = self.bounded * torch.tanh(moved / self.bounded)
        if self.linear is None:
            return self._with_rest(moved)
        return self._with_rest(moved + (self.linear.drift(t, z) if isinstance(self.linear, SDE) else self.linear(z)))

    def diffusion(self, t: Time, z: Tensor) -> Tensor:
        """(..., d) for diagonal noise, else (..., d, m)."""
        if self.noise_type == "diagonal":
            moving = z[..., : self.state_size - self.static_size]
            return self._with_rest(self.net(t, moving) if self.base is None else self.base.exp().expand_as(moving))
        shape = (*z.shape[:-1], self.state_size, self.noise_size)
        if self.net is None:
            return self.base.expand(shape)
        seen = time_column(t, z) if self.noise_type == "additive" else self._inputs(t, z)
        moved = torch.tanh(self.net(seen)).reshape(shape)
        return self.reach * moved if self.base is None else self.base + 0.5 * self.reach * moved

    def coordinate_slope(self, t: Time, z: Tensor) -> tuple[Tensor, Tensor]:
        """The diagonal diffusion and dg_i/dz_i, both (..., d), in closed form."""
        if not isinstance(self.net, CoordinatewiseNet):
            return super().coordinate_slope(t, z)
        value, slope = self.net.value_and_slope(t, z[..., : self.state_size - self.static_size])
        return self._with_rest(value), self._with_rest(slope)

    def _with_rest(self, moving: Tensor) -> Tensor:
        """Zeros added for the coordinates that do not move."""
        return nn.functional.pad(moving, (0, self.static_size)) if self.static_size else moving

    def _inputs(self, t: Time, z: Tensor) -> Tensor:
        return torch.cat((z, time_column(t, z)), -1) if self.time_dependent else z


def _activation(name: str) -> nn.Module:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: got {name!r}, want one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _network(inputs: int, hidden_size: int, hidden_layers: int, outputs: int, activation: str) -> nn.Sequential:
    widths = [inputs] + [hidden_size] * hidden_layers
    layers: list[nn.Module] = []
    for a, b in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(a, b), _activation(activation)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


def _check_choices(
    state_size: int,
    noise_type: str,
    noise_size: int | None,
    sde_type: str,
    diffusion: str,
    diffusion_bounds: tuple[float, float],
    linear: bool | SDE,
    bounded: float | None,
) -> None:
    if state_size < 1:
        raise ValueError(f"state_size: got {state_size}, want 1 or more")
    if noise_type not in NOISE_TYPES:
        raise ValueError(f"noise_type: got {noise_type!r}, want one of {', '.join(NOISE_TYPES)}")
    if sde_type not in SDE_TYPES:
        raise ValueError(f"sde_type: got {sde_type!r}, want one of {', '.join(SDE_TYPES)}")
    fixed = {"diagonal": state_size, "scalar": 1}.get(noise_type)
    if noise_size is not None and (noise_size < 1 or fixed not in (None, noise_size)):
        raise ValueError(f"noise_size: got {noise_size}, want {fixed or 'at least 1'} for {noise_type} noise")
    if diffusion not in ("network", "constant"):
        raise ValueError(f"diffusion: got {diffusion!r}, want 'network' or 'constant'")
    low, high = diffusion_bounds
    if not 0 <= low < high:
        raise ValueError(f"diffusion_bounds: got {diffusion_bounds}, want 0 <= low < high")
    if isinstance(linear, SDE) and linear.state_size != state_size:
        raise ValueError(f"linear: got a law of size {linear.state_size}, want {state_size}")
    if bounded is not None and not bounded > 0:
        raise ValueError(f"bounded: got {bounded}, want a positive bound in state units per unit time")
