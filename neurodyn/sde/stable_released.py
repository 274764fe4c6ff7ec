"""Stable neural SDEs, and the neural SDE that they are compared with, as the authors' released code computes them.

    drift      tanh(network),   network = MLP of [linear(z, s), linear(X(t))],   s = (sin t, cos t)
    diffusion  tanh(sigmoid(theta) n),   n as the class has it

"langevin": the state alone in the drift, n(s). "linear_noise": the time too, n(s) z. "geometric": the network's output
times tanh(z) before the outer tanh, n(s) z. "plain": the drift sees (s, z) and no path at all, so that all it knows of
a series is its first visit; n(s, z) is a network. "controlled": the same, with the path in the drift.

The outer tanh and the sines keep solutions finite on a finite horizon; they are not what the theory asks for (which is
in `neurodyn.sde.stable`). In particular no drift is a gradient, and noise may grow.

Source: the equations of the README and of the code of arXiv 2402.14989, yongkyung-oh/Stable-Neural-SDEs at dbda657.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from neurodyn.sde.controlled import ControlledLaw

ReleasedKind = Literal["langevin", "linear_noise", "geometric", "plain", "controlled"]


class ReleasedNeuralSDE(ControlledLaw):
    """One of the released laws.

    Args:
        kind: which, see above.
        state_size: H. control_size: C.
        hidden_layers: of the drift's network after its first, 1 or more, each of width H.

    Raises:
        ValueError: an unknown kind or a size below one.
    """

    def __init__(self, kind: ReleasedKind, state_size: int, control_size: int, hidden_layers: int = 1) -> None:
        if kind not in get_args(ReleasedKind):
            raise ValueError(f"kind: got {kind!r}, want one of {', '.join(get_args(ReleasedKind))}")
        for name, given in (
            ("state_size", state_size),
            ("control_size", control_size),
            ("hidden_layers", hidden_layers),
        ):
            if given < 1:
                raise ValueError(f"{name}: got {given}, want 1 or more")
        super().__init__()
        self.kind, self.state_size, self.control_size = kind, state_size, control_size
        self.state_independent = kind == "langevin"
        self.coordinatewise = kind in ("langevin", "linear_noise", "geometric")
        size = state_size
        self.read_state = nn.Linear(size, size)
        self.read_time = None if kind == "langevin" else nn.Linear(2, size, bias=False)
        self.read_control = None if kind == "plain" else nn.Linear(control_size, size)
        self.merge = None if kind == "plain" else nn.Linear(2 * size, size)
        self.layers = nn.ModuleList(nn.Linear(size, size) for _ in range(hidden_layers))
        self.theta = nn.Parameter(torch.ones(()))
        self.noise_in = nn.Linear(2, size)
        self.noise_state = None if self.coordinatewise else nn.Linear(size, size, bias=False)
        self.noise_out = nn.Linear(size, size)

    def prepare(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `ControlledLaw`: what the first layer adds to the state's share; the noise of the time or its input."""
        season = torch.stack((t.sin(), t.cos()), -1)
        pull = season.new_zeros(*season.shape[:-1], self.state_size)
        if self.read_time is not None:
            pull = pull + self.read_time(season)
        if self.merge is not None and self.read_control is not None:
            own, other = self.merge.weight.split(self.state_size, -1)
            pull = pull @ own.mT + self.read_control(x) @ other.mT + self.merge.bias
        level = self.noise_in(season)
        return pull, torch.relu(self.noise_out(torch.relu(level))) if self.coordinatewise else level

    def velocity(self, u: Tensor, pull: Tensor) -> Tensor:
        """tanh of the network."""
        hidden = self.read_state(u)
        if self.merge is not None:
            hidden = hidden @ self.merge.weight[:, : self.state_size].mT
        hidden = torch.relu(hidden + pull)
        for layer in self.layers[:-1]:
            hidden = torch.relu(layer(hidden))
        hidden = self.layers[-1](hidden)
        if self.kind == "geometric":
            hidden = hidden * torch.tanh(u)
        return torch.tanh(hidden)

    def spread(self, u: Tensor, level: Tensor) -> Tensor:
        """tanh(sigmoid(theta) n)."""
        if self.noise_state is not None:
            noise = torch.relu(self.noise_out(torch.relu(level + self.noise_state(u))))
        else:
            noise = level if self.kind == "langevin" else level * u
        return torch.tanh(torch.sigmoid(self.theta) * noise)
