"""A recurrent encoder for irregular, partly observed series: GRU steps at visits, exponential decay between them."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from neurodyn.nets.context import Context, VisitInputs, last_observed_index, visit_inputs
from neurodyn.series import SeriesBatch

Direction = Literal["forward", "backward", "both"]


class _Reading(NamedTuple):
    """One direction's inputs, in its own reading order."""

    inputs: Tensor  # (B, T, I)
    gap: Tensor  # (B, T) time since the previous present visit, 0 before there is one
    present: Tensor  # (B, T) bool


class GRUDecayEncoder(nn.Module):
    """GRU over the visits whose state decays exponentially in the time between them.

    At a visit with something observed, the network reads each variable's value (where missing: its last value, decayed
    towards a learned mean), the mask, how fresh each value is, the logarithm of the time since the previous such visit
    and since the row's first, covariates and static features. A visit with nothing observed only lets the state decay,
    and decay composes (exp(-a (s + t)) = exp(-a s) exp(-a t)), so such visits change nothing anywhere else.

    Differences from GRU-D (Che et al. 2018, "Recurrent neural networks for multivariate time series with missing
    values", eqs. 3-6 and 10-14): the decay is exp(-a gap) with a > 0 per hidden unit, without the bias and the
    rectifier that break the composition; rates start log-spaced over [0.01, 10] per unit of time, a bank of memories.

    Args:
        num_variables: D.
        context_size: C, the size of the features and of the summary.
        hidden_size: size of the recurrent state of each direction.
        direction: "forward" reads the past only (features at a visit depend on that visit and on earlier ones);
            "backward" reads the future only; "both" reads both and projects the two states to ``context_size``.
        num_covariates, num_static: how many columns of each the batches bring; 0 leaves them unread.

    ``forward(batch)`` returns a `Context`: features (B, T, C), and a summary (B, C) of the state at the row's last
    observed visit (forward), at its first (backward), or of both.

    Raises:
        ValueError: an unknown direction or a size below one; a batch of other sizes than the encoder's.
    """

    def __init__(
        self,
        num_variables: int,
        context_size: int,
        hidden_size: int = 64,
        direction: Direction = "both",
        num_covariates: int = 0,
        num_static: int = 0,
    ):
        super().__init__()
        if direction not in get_args(Direction):
            raise ValueError(f"direction: got {direction!r}, want one of {', '.join(get_args(Direction))}")
        for name, size in (
            ("num_variables", num_variables),
            ("context_size", context_size),
            ("hidden_size", hidden_size),
        ):
            if size < 1:
                raise ValueError(f"{name}: got {size}, want 1 or more")
        self.num_variables, self.context_size, self.hidden_size = num_variables, context_size, hidden_size
        self.num_covariates, self.num_static = num_covariates, num_static
        self.direction = direction

        ways = 2 if direction == "both" else 1
        num_inputs = 3 * num_variables + 2 + num_covariates + num_static
        self.log_decay = nn.Parameter(torch.linspace(math.log(0.01), math.log(10.0), hidden_size).repeat(ways, 1))
        self.log_value_decay = nn.Parameter(torch.full((ways, num_variables), math.log(0.1)))
        self.value_mean = nn.Parameter(torch.zeros(ways, num_variables))
        bound = 1.0 / math.sqrt(hidden_size)
        self.input_weight = nn.Parameter(torch.empty(ways, num_inputs, 3 * hidden_size).uniform_(-bound, bound))
        self.input_bias = nn.Parameter(torch.empty(ways, 1, 3 * hidden_size).uniform_(-bound, bound))
        self.state_weight = nn.Parameter(torch.empty(ways, hidden_size, 3 * hidden_size).uniform_(-bound, bound))
        self.state_bias = nn.Parameter(torch.empty(ways, 1, 3 * hidden_size).uniform_(-bound, bound))
        self.feature_head = nn.Linear(ways * hidden_size, context_size)
        self.summary_head = nn.Linear(ways * hidden_size, context_size)

    def forward(self, batch: SeriesBatch) -> Context:
        """Encode a batch; see the class."""
        visits = visit_inputs(batch, self.num_variables, self.num_covariates, self.num_static)
        flips = {"forward": (False,), "backward": (True,), "both": (False, True)}[self.direction]
        readings = [self._read(visits, way, flip) for way, flip in enumerate(flips)]
        # Both directions run in one loop, as a batch of two: (ways, B, T, ...).
        inputs = torch.stack([r.inputs for r in readings])
        gap = torch.stack([r.gap for r in readings])
        present = torch.stack([r.present for r in readings]).unsqueeze(-1)
        states, last = self._run(inputs, gap, present)
        features = torch.cat([s.flip(1) if flip else s for s, flip in zip(states.unbind(0), flips, strict=True)], -1)
        summary = torch.cat(last.unbind(0), -1)
        return Context(batch, self.feature_head(features), self.summary_head(summary))

    def _read(self, visits: VisitInputs, way: int, flip: bool) -> _Reading:
        values, mask, present, times, extra = (x.flip(1) if flip else x for x in visits)
        dtype = values.dtype
        elapsed = times.clamp_min(0.0).to(dtype)
        times = -times if flip else times

        # Each variable's latest value, this visit's own included, and how long ago it was seen.
        index = last_observed_index(mask)
        seen = index >= 0
        index = index.clamp_min(0)
        age = (times.unsqueeze(-1) - times.unsqueeze(-1).expand_as(mask).gather(1, index)).to(dtype)
        fresh = torch.exp(-self.log_value_decay[way].exp() * age) * seen
        mean = self.value_mean[way]
        filled = torch.where(mask, values, mean + fresh * (values.gather(1, index) - mean))

        # The gap runs from the previous *present* visit, however many unobserved visits lie between.
        previous = last_observed_index(present)
        previous = torch.cat([torch.full_like(previous[:, :1], -1), previous[:, :-1]], 1)
        gap = torch.where(previous >= 0, times - times.gather(1, previous.clamp_min(0)), torch.zeros_like(times))
        gap = gap.to(dtype)
        columns = [filled, mask.to(dtype), fresh, gap.log1p().unsqueeze(-1), elapsed.log1p().unsqueeze(-1), extra]
        return _Reading(torch.cat(columns, -1), gap, present)

    def _run(self, inputs: Tensor, gap: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """States at every visit (ways, B, T, H) and after the last present one (ways, B, H), in reading order."""
        ways, rows, steps, _ = inputs.shape
        size, dtype = self.hidden_size, inputs.dtype
        # Everything that does not depend on the state is computed for all steps at once.
        drive = torch.baddbmm(self.input_bias, inputs.flatten(1, 2), self.input_weight).to(dtype)
        drive = drive.view(ways, rows, steps, 3 * size)
        gates, candidates = drive[..., : 2 * size].unbind(2), drive[..., 2 * size :].unbind(2)
        decay = torch.exp(-self.log_decay.exp()[:, None, None] * gap.unsqueeze(-1))
        decays, presents = decay.unbind(2), present.unbind(2)

        state = inputs.new_zeros(ways, rows, size)
        kept = []
        for step in range(steps):
            decayed = state * decays[step]
            recurrent = torch.baddbmm(self.state_bias, decayed, self.state_weight).to(dtype)
            reset, update = torch.sigmoid(gates[step] + recurrent[..., : 2 * size]).chunk(2, -1)
            candidate = torch.tanh(candidates[step] + reset * recurrent[..., 2 * size :])
            # The undecayed state is carried over unobserved visits: the next present visit decays it in one go.
            state = torch.where(presents[step], torch.lerp(candidate, decayed, update), state)
            kept.append(state)
        states = torch.stack(kept, 2)
        return torch.where(present, states, states * decay), state
