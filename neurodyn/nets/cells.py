"""Recurrent cells that know how much time has passed: liquid time constants, their closed form, ODE-RNN, GRU-ODE.

A cell is a module with ``hidden_size`` and ``forward(x, state, gap)``: the state (B, H) after reading x (B, I), which
comes `gap` (B, 1) units of time after what was read before. `RecurrentEncoder` runs one over irregular series.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from neurodyn.nets.mlp import mlp


class LTCCell(nn.Module):
    """Liquid time constants: dh/dt = -(1/tau + f(h, x)) h + f(h, x) A, with f = gain sigmoid(linear in h and x).

    By the fused semi-implicit step h' = (h + s f A) / (1 + s (1/tau + f)), which keeps every state between min(0, A)
    and max(0, A) for steps s of any length. An input acts over the gap that it ends, and a learned time more: one that
    comes at once would else not be seen. Rates 1/tau and gains start log-spaced over [1, 100] per unit of time.

    Args:
        input_size: I. hidden_size: H.
        unfolds: equal steps that a gap is cut into.

    Source: Hasani, Lechner, Amini, Rus and Grosu (2021), arXiv 2006.04439, eq. 1 and 3 and theorem 2.
    """

    def __init__(self, input_size: int, hidden_size: int, unfolds: int = 6) -> None:
        if unfolds < 1:
            raise ValueError(f"unfolds: got {unfolds}, want 1 or more")
        super().__init__()
        self.hidden_size, self.unfolds = hidden_size, unfolds
        self.read = nn.Linear(input_size, hidden_size)
        self.recur = nn.Linear(hidden_size, hidden_size, bias=False)
        spaced = torch.linspace(0.0, math.log(100.0), hidden_size)
        self.log_leak = nn.Parameter(spaced.clone())  # log 1/tau
        self.log_gain = nn.Parameter(spaced.clone())
        self.log_dwell = nn.Parameter(torch.tensor(math.log(0.05)))
        self.target = nn.Parameter(torch.randn(hidden_size))  # A

    def forward(self, x: Tensor, state: Tensor, gap: Tensor) -> Tensor:
        """The state after the gap, under the input x."""
        drive, leak, gain = self.read(x), self.log_leak.exp(), self.log_gain.exp()
        step = (gap + self.log_dwell.exp()) / self.unfolds
        rise, base = step * gain, 1 + step * leak
        for _ in range(self.unfolds):
            gate = rise * torch.sigmoid(torch.addmm(drive, state, self.recur.weight.mT))
            state = torch.addcmul(state, gate, self.target) / (base + gate)
        return state


class CfCCell(nn.Module):
    """The closed form: h' = (1 - s) ff1 + s ff2, s = sigmoid(a gap + b), all four read from a backbone of (x, h).

    Args:
        input_size: I. hidden_size: H. backbone_size: of the one hidden layer that the heads share.

    Source: Hasani et al. (2022), "Closed-form continuous-time neural networks", Nature Machine Intelligence 4, eq. 3.
    """

    def __init__(self, input_size: int, hidden_size: int, backbone_size: int = 64) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.backbone = nn.Linear(input_size + hidden_size, backbone_size)
        self.heads = nn.Linear(backbone_size, 4 * hidden_size)

    def forward(self, x: Tensor, state: Tensor, gap: Tensor) -> Tensor:
        """The state at x."""
        # LeCun's tanh, whose variance of one is kept from layer to layer
        shared = 1.7159 * torch.tanh(0.666 * self.backbone(torch.cat((x, state), -1)))
        early, late, rate, offset = self.heads(shared).chunk(4, -1)
        share = torch.sigmoid(rate * gap + offset)
        return torch.lerp(torch.tanh(early), torch.tanh(late), share)


Flow = Literal["mlp", "gru"]


class ODECell(nn.Module):
    """A state that follows dh/dt = f(h) between visits and takes a GRU step at each.

    Args:
        input_size: I. hidden_size: H.
        flow: "mlp", ODE-RNN: f a network with one hidden layer and a last tanh. "gru", GRU-ODE: f = (1 - z) (g - h),
            the continuous limit of a GRU without input, which keeps every state within [-1, 1].
        width: of the network. unfolds: midpoint steps ("mlp") or exponential ones ("gru") in a gap.

    Source: Rubanova, Chen and Duvenaud (2019), arXiv 1907.03907, algorithm 1; De Brouwer, Simm, Arany and Moreau
    (2019), arXiv 1905.12374, eq. 3 and 4.
    """

    def __init__(
        self, input_size: int, hidden_size: int, flow: Flow = "mlp", *, width: int = 64, unfolds: int = 2
    ) -> None:
        if flow not in get_args(Flow):
            raise ValueError(f"flow: got {flow!r}, want one of {', '.join(get_args(Flow))}")
        if unfolds < 1:
            raise ValueError(f"unfolds: got {unfolds}, want 1 or more")
        super().__init__()
        self.hidden_size, self.flow, self.unfolds = hidden_size, flow, unfolds
        self.jump = nn.GRUCell(input_size, hidden_size)
        self.field = mlp([hidden_size, width, hidden_size], "tanh") if flow == "mlp" else None
        self.gates = nn.Linear(hidden_size, 2 * hidden_size) if flow == "gru" else None
        self.candidate = nn.Linear(hidden_size, hidden_size) if flow == "gru" else None

    def forward(self, x: Tensor, state: Tensor, gap: Tensor) -> Tensor:
        """The state after the gap, and then x."""
        moved: Tensor = self.jump(x, self.between(state, gap))
        return moved

    def between(self, state: Tensor, gap: Tensor) -> Tensor:
        """The state (B, H) after a gap (B, 1) with nothing to read."""
        step = gap / self.unfolds
        for _ in range(self.unfolds):
            state = self._mlp_step(state, step) if self.flow == "mlp" else self._gru_step(state, step)
        return state

    def _mlp_step(self, state: Tensor, step: Tensor) -> Tensor:
        assert self.field is not None
        middle = state + 0.5 * step * torch.tanh(self.field(state))
        return state + step * torch.tanh(self.field(middle))

    def _gru_step(self, state: Tensor, step: Tensor) -> Tensor:
        """Exact for gates that stand still: h moves towards g at the rate 1 - z, and never beyond it."""
        assert self.gates is not None and self.candidate is not None
        reset, update = torch.sigmoid(self.gates(state)).chunk(2, -1)
        target = torch.tanh(self.candidate(reset * state))
        return torch.lerp(target, state, torch.exp(-(1 - update) * step))
