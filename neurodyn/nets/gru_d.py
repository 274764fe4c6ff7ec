"""GRU-D: a GRU for irregular, partly observed series whose inputs and state decay with the time since each value."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from neurodyn.nets.context import Context, VisitInputs, last_observed_index, visit_inputs
from neurodyn.series import SeriesBatch


class Decays(NamedTuple):
    """How much is left, in (0, 1], of the last values (..., D) and of the state (..., H)."""

    inputs: Tensor
    state: Tensor


class GRUD(nn.Module):
    """GRU-D of Che et al. (2018), "Recurrent neural networks for multivariate time series with missing values".

    With delta the time since each variable was last observed (before this visit; since the row's first visit where it
    never was), m the mask and h the state,

        x'      = m x + (1 - m) (gamma_x x_last + (1 - gamma_x) mean),   gamma_x = exp(-max(0, w delta + b)),
        h'      = gamma_h h,                                             gamma_h = exp(-max(0, W delta + c)),
        z, r    = sigmoid of linear maps of (x', h', m),
        h_new   = (1 - z) h' + z tanh(linear map of (x', r h', m))

    (eqs. 3-6 and 10-14). Covariates and static features, if any, stand beside m. At a visit with nothing observed there
    is no update: it changes nothing anywhere else, and its features are the decayed state. Causal: features at a visit
    depend on that visit and on earlier ones only. `GRUDecayEncoder` is the relative of it that reads both ways.

    Args:
        num_variables: D.
        hidden_size: H, of the state; the features are the states, so it is ``context_size`` too.
        num_covariates, num_static: how many columns of each the batches bring; 0 leaves them unread.
        mean: (D,), what missing values decay to; the training set's means, which are 0 (the default) where values are
            standardised.

    ``forward(batch)`` returns a `Context`: features (B, T, H), and the state at the row's last observed visit (B, H).

    Raises:
        ValueError: a size below one, a mean of another size; a batch of other sizes than the layer's.
    """

    def __init__(
        self,
        num_variables: int,
        hidden_size: int = 64,
        num_covariates: int = 0,
        num_static: int = 0,
        mean: Tensor | None = None,
    ) -> None:
        for name, size in (("num_variables", num_variables), ("hidden_size", hidden_size)):
            if size < 1:
                raise ValueError(f"{name}: got {size}, want 1 or more")
        mean = torch.zeros(num_variables) if mean is None else torch.as_tensor(mean)
        if mean.shape != (num_variables,):
            raise ValueError(f"mean: got shape {tuple(mean.shape)}, want ({num_variables},)")
        super().__init__()
        self.num_variables, self.hidden_size, self.context_size = num_variables, hidden_size, hidden_size
        self.num_covariates, self.num_static = num_covariates, num_static
        self.register_buffer("mean", mean.to(torch.get_default_dtype()))
        self.mean: Tensor
        # Positive at first: a rectifier that starts closed would never open.
        self.input_decay = nn.Parameter(torch.rand(num_variables))
        self.input_decay_bias = nn.Parameter(torch.zeros(num_variables))
        self.state_decay = nn.Linear(num_variables, hidden_size)
        nn.init.uniform_(self.state_decay.weight, 0.0, 1.0 / num_variables)
        nn.init.zeros_(self.state_decay.bias)
        self.input_map = nn.Linear(2 * num_variables + num_covariates + num_static, 3 * hidden_size)
        self.gate_map = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        self.candidate_map = nn.Linear(hidden_size, hidden_size, bias=False)
        bound = 1.0 / math.sqrt(hidden_size)
        for layer in (self.input_map, self.gate_map, self.candidate_map):
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound)

    def decays(self, delta: Tensor) -> Decays:
        """What is left after the times (..., D) since the variables' last values."""
        return Decays(
            torch.exp(-torch.relu(self.input_decay * delta + self.input_decay_bias)),
            torch.exp(-torch.relu(self.state_decay(delta))),
        )

    def forward(self, batch: SeriesBatch) -> Context:
        """Encode a batch; see the class."""
        visits = visit_inputs(batch, self.num_variables, self.num_covariates, self.num_static)
        drive, decay = self._read(visits)
        size, present = self.hidden_size, visits.present.unsqueeze(-1)
        gates, candidates = drive[..., : 2 * size].unbind(1), drive[..., 2 * size :].unbind(1)
        decays, presents = decay.unbind(1), present.unbind(1)
        state = drive.new_zeros(len(drive), size)
        kept = []
        for step in range(drive.shape[1]):
            decayed = decays[step] * state
            update, reset = torch.sigmoid(gates[step] + self.gate_map(decayed)).chunk(2, -1)
            candidate = torch.tanh(candidates[step] + self.candidate_map(reset * decayed))
            # delta runs from the last values, over unobserved visits too, so those leave the state as it is
            state = torch.where(presents[step], torch.lerp(decayed, candidate, update), state)
            kept.append(state)
        states = torch.stack(kept, 1)
        return Context(batch, torch.where(present, states, states * decay), state)

    def _read(self, visits: VisitInputs) -> tuple[Tensor, Tensor]:
        """What does not depend on the state: the linear map of the inputs (B, T, 3 H), and gamma_h (B, T, H)."""
        values, mask, _, times, extra = visits
        index = last_observed_index(mask)
        index = torch.cat((torch.full_like(index[:, :1], -1), index[:, :-1]), 1)  # before this visit
        seen = index >= 0
        index = index.clamp_min(0)
        when = times.unsqueeze(-1)
        since = torch.where(seen, when - when.expand_as(mask).gather(1, index), when.clamp_min(0.0))
        decay = self.decays(since.to(values.dtype))
        last = torch.where(seen, values.gather(1, index), self.mean)
        filled = torch.where(mask, values, self.mean + decay.inputs * (last - self.mean))
        return self.input_map(torch.cat((filled, mask.to(values.dtype), extra), -1)), decay.state
