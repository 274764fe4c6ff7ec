"""An encoder for long series: a recurrence over windows of visits, each told by its logsignature."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurodyn.nets.context import Context, visit_inputs
from neurodyn.nets.paths import held
from neurodyn.nets.signatures import logsignature_size, window_logsignatures
from neurodyn.series import SeriesBatch


class LogSignatureEncoder(nn.Module):
    """GRUs over windows of `every` observed visits: as many steps as there are windows, not visits.

    A window is the path of (time, values), where a missing value is the last one seen, from the visit where the window
    before it ends to its own end. The networks read its logsignature (moves and areas: what happened inside), the
    values at its end, how often each variable was seen, covariates and static features. Visits with nothing observed
    change nothing anywhere.

    Args:
        num_variables: D. A window has (D + 1) (D + 2) / 2 numbers at depth 2.
        context_size: C, the size of the features and of the summary.
        hidden_size: of the recurrent state of each direction.
        every: visits in a window. The last window of a row may have fewer.
        depth: of the logsignatures; 1 has the moves only.
        causal: read forward only, so that features depend on that visit and on earlier ones.
        num_covariates, num_static: how many columns of each the batches bring; 0 leaves them unread.

    ``forward(batch)`` returns a `Context`: features (B, K, C) at the row's first visit, at the end of each window, and
    their places; and a summary (B, C) of the state at the last one and, unless causal, of that at the first.

    Source: Morrill, Salvi, Kidger and Foster (2021), arXiv 2009.08295, for windows of logsignatures in place of points.

    Raises:
        ValueError: a size or ``depth`` below one, ``every`` below two; a batch of other sizes than the encoder's.
    """

    def __init__(
        self,
        num_variables: int,
        context_size: int,
        hidden_size: int = 64,
        every: int = 10,
        depth: int = 2,
        causal: bool = False,
        num_covariates: int = 0,
        num_static: int = 0,
    ) -> None:
        sizes = (
            ("num_variables", num_variables, 1),
            ("context_size", context_size, 1),
            ("hidden_size", hidden_size, 1),
        )
        for name, size, least in (*sizes, ("every", every, 2), ("depth", depth, 1)):
            if size < least:
                raise ValueError(f"{name}: got {size}, want {least} or more")
        super().__init__()
        self.num_variables, self.context_size = num_variables, context_size
        self.num_covariates, self.num_static = num_covariates, num_static
        self.every, self.depth = every, depth
        self.words = logsignature_size(1 + num_variables, depth)
        inputs = self.words + 2 * num_variables + num_covariates + num_static
        self.ways = nn.ModuleList(nn.GRU(inputs, hidden_size, batch_first=True) for _ in range(1 if causal else 2))
        self.feature_head = nn.Linear(len(self.ways) * hidden_size, context_size)
        self.summary_head = nn.Linear(len(self.ways) * hidden_size, context_size)

    def forward(self, batch: SeriesBatch) -> Context:
        """Encode a batch; see the class."""
        visits = visit_inputs(batch, self.num_variables, self.num_covariates, self.num_static)
        present, dtype = visits.present, visits.values.dtype
        length, count = present.shape[1], present.sum(1, keepdim=True)
        order = torch.sort(~present, dim=1, stable=True).indices  # the places of observed visits come first
        # after the last observed visit the path stands still
        number = torch.arange(length, device=present.device)
        here = order.gather(1, torch.minimum(number.expand_as(order), (count - 1).clamp_min(0)))
        mask = _rows(visits.mask, order)
        values = held(_rows(visits.values, order), mask)
        path = torch.cat((visits.times.gather(1, here).to(dtype)[..., None], values), -1)

        ends = torch.arange(
            0, length - 1 + self.every, self.every, device=present.device
        )  # of windows; the first visit
        last = -(-(count - 1).clamp_min(0) // self.every)  # (B, 1), which of them is the row's last
        rank = torch.minimum(ends.expand(len(order), -1), (count - 1).clamp_min(0))
        words = path.new_zeros(len(path), 1, self.words)
        if length > 1:
            words = torch.cat((words, window_logsignatures(path, self.depth, self.every)), 1)
        seen = mask.to(dtype).cumsum(1)
        seen = _rows(seen, rank).diff(dim=1, prepend=torch.zeros_like(seen[:, :1])) / self.every
        places = order.gather(1, rank)
        inputs = torch.cat((words, _rows(values, rank), seen, _rows(visits.extra, places)), -1)

        # backwards from each row's own last window; what lies after it comes last either way
        step = torch.arange(len(ends), device=present.device).expand(len(order), -1)
        turned = torch.where(step <= last, last - step, step)
        kept = torch.minimum(step, last)  # and repeats the last
        states = [_rows(self.ways[0](inputs)[0], kept)]
        finals = [states[0][:, -1]]
        if len(self.ways) == 2:
            states.append(_rows(_rows(self.ways[1](_rows(inputs, turned))[0], turned), kept))
            finals.append(states[1][:, 0])
        features = self.feature_head(torch.cat(states, -1))
        return Context(batch, features, self.summary_head(torch.cat(finals, -1)), places)


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """(B, T, C) at places (B, K): (B, K, C)."""
    return table.gather(1, index[..., None].expand(-1, -1, table.shape[-1]))
