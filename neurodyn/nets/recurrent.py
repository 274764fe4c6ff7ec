"""Any time-aware recurrent cell as an encoder of irregular, partly observed series."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurodyn.nets.cells import CfCCell, LTCCell, ODECell
from neurodyn.nets.context import Context, last_observed_index, visit_inputs
from neurodyn.nets.paths import held
from neurodyn.series import SeriesBatch

CELLS = ("ltc", "cfc", "ode_rnn", "gru_ode")
"""The names that `RecurrentEncoder` knows."""


class RecurrentEncoder(nn.Module):
    """Runs a cell over the visits of each series: values (where missing: the last ones), mask, covariates, static.

    The gap that a cell is told is the time since the row's previous observed visit; the first is zero. Visits with
    nothing observed are passed over, and their features are those of the visit before.

    Args:
        num_variables: D. context_size: C, the size of the features and of the summary.
        cell: one of `CELLS`, or a module as `neurodyn.nets.cells` describes it, made for ``input_size`` inputs.
        hidden_size: H of a cell by name.
        num_covariates, num_static: how many columns of each the batches bring; 0 leaves them unread.

    ``forward(batch)`` returns a `Context`: features (B, T, C) and the summary (B, C) after the last visit. All is
    causal.

    Raises:
        ValueError: an unknown cell; a batch of other sizes than the encoder's.
    """

    def __init__(
        self,
        num_variables: int,
        context_size: int,
        cell: str | nn.Module = "cfc",
        hidden_size: int = 64,
        *,
        num_covariates: int = 0,
        num_static: int = 0,
    ) -> None:
        super().__init__()
        self.num_variables, self.context_size = num_variables, context_size
        self.num_covariates, self.num_static = num_covariates, num_static
        inputs = self.input_size(num_variables, num_covariates, num_static)
        self.cell = cell if isinstance(cell, nn.Module) else _make(cell, inputs, hidden_size)
        self.head = nn.Linear(int(self.cell.hidden_size), context_size)  # type: ignore[arg-type]

    @staticmethod
    def input_size(num_variables: int, num_covariates: int = 0, num_static: int = 0) -> int:
        """What a cell of one's own has to read at a visit."""
        return 2 * num_variables + num_covariates + num_static

    def forward(self, batch: SeriesBatch) -> Context:
        """Encode a batch; see the class."""
        visits = visit_inputs(batch, self.num_variables, self.num_covariates, self.num_static)
        inputs = torch.cat((held(visits.values, visits.mask), visits.mask.to(visits.values), visits.extra), -1)
        previous = last_observed_index(visits.present)
        previous = torch.cat([torch.full_like(previous[:, :1], -1), previous[:, :-1]], 1)
        before = visits.times.gather(1, previous.clamp_min(0))
        gap = torch.where(previous >= 0, visits.times - before, 0.0).to(inputs.dtype).unsqueeze(-1)
        state = inputs.new_zeros(len(inputs), int(self.cell.hidden_size))  # type: ignore[arg-type]
        states: list[Tensor] = []
        steps = zip(inputs.unbind(1), gap.unbind(1), visits.present.unsqueeze(-1).unbind(1), strict=True)
        for x, passed, present in steps:
            state = torch.where(present, self.cell(x, state, passed), state)
            states.append(state)
        features = self.head(torch.stack(states, 1))
        return Context(batch, features, features[:, -1])


def _make(cell: str, inputs: int, hidden_size: int) -> nn.Module:
    if cell == "ltc":
        return LTCCell(inputs, hidden_size)
    if cell == "cfc":
        return CfCCell(inputs, hidden_size)
    if cell in ("ode_rnn", "gru_ode"):
        return ODECell(inputs, hidden_size, "mlp" if cell == "ode_rnn" else "gru")
    raise ValueError(f"cell: got {cell!r}, want one of {', '.join(CELLS)} or a module")
