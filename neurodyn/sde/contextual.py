"""A posterior with a drift of its own, as the latent SDE was first written: f([z, context]) against a prior's h.

    dz = f([z, c(t)]) dt + g(z, t) dW,    c(t) constant between visits,    h and g the prior's

Source: Li et al. (2020), arXiv 2001.01328, eq. 8 to 10, where c changes along the path like here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from neurodyn.sde.base import SDE, Time
from neurodyn.sde.neural import ACTIVATIONS, Activation


class ContextDrift(nn.Module):
    """f([z, c]) with one hidden layer: W2 act(W1 z + C c + b1) + b2.

    Args:
        state_size: d. context_size: of c. hidden_size: H.
        activation: "softplus", "silu" or "tanh".
    """

    def __init__(
        self, state_size: int, context_size: int, hidden_size: int = 64, activation: Activation = "softplus"
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: got {activation!r}, want one of {', '.join(ACTIVATIONS)}")
        self.state_layer = nn.Linear(state_size, hidden_size, bias=False)
        self.context_layer = nn.Linear(context_size, hidden_size)
        self.output_layer = nn.Linear(hidden_size, state_size)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, z: Tensor, shift: Tensor) -> Tensor:
        """(..., d) for z (..., d) and what the context adds to the hidden layer, ``context_layer(c)`` (..., H)."""
        moved: Tensor = self.output_layer(self.activation(self.state_layer(z) + shift))
        return moved


class ContextSDE(SDE):
    """The posterior given contexts: for `sdeint(..., logqp=True)`, which prices it against the prior's drift h.

    Args:
        prior: an Ito law; gives h and g.
        network: f.
        times: visits, (T,) if all rows share them, else (..., T), not decreasing.
        contexts: (..., T - 1, C), one per gap between visits. Leading axes are the last ones of the states'.

    Raises:
        ValueError: contexts that are not one per gap.
    """

    def __init__(self, prior: SDE, network: ContextDrift, times: Tensor, contexts: Tensor) -> None:
        super().__init__()
        if contexts.ndim < 2 or contexts.shape[-2] != times.shape[-1] - 1:
            raise ValueError(
                f"contexts: got shape {tuple(contexts.shape)}, want (..., {times.shape[-1] - 1}, C): one per gap"
            )
        self.prior, self.network = prior, network
        self.noise_type, self.sde_type = prior.noise_type, prior.sde_type
        self.state_size, self.noise_size = prior.state_size, prior.noise_size
        self.coordinatewise, self.state_independent = prior.coordinatewise, prior.state_independent
        self.times = times
        self.shift: Tensor = network.context_layer(contexts)  # once, for all steps

    def drift(self, t: Time, z: Tensor) -> Tensor:
        """f, (..., d)."""
        # rounded as the solver rounds, so that the time of a visit is found in the gap that it begins
        inner = self.times[..., 1:-1].to(z)
        now = torch.as_tensor(t, dtype=z.dtype, device=z.device).expand(z.shape[:-1])
        gap = (now.unsqueeze(-1) >= inner).sum(-1)[..., None, None]
        shift = self.shift.expand(*z.shape[:-1], *self.shift.shape[-2:])
        moved: Tensor = self.network(z, shift.gather(-2, gap.expand(*gap.shape[:-1], shift.shape[-1]))[..., 0, :])
        return moved

    def diffusion(self, t: Time, z: Tensor) -> Tensor:
        """That of the prior."""
        return self.prior.diffusion(t, z)

    def coordinate_slope(self, t: Time, z: Tensor) -> tuple[Tensor, Tensor]:
        """That of the prior."""
        return self.prior.coordinate_slope(t, z)

    def h(self, t: Time, y: Tensor) -> Any:
        """The prior's drift, (..., d)."""
        return self.prior.drift(t, y)
