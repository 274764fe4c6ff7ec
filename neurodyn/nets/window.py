"""A windowed encoder: features at a visit from the few visits around it, with no loop over time."""

from __future__ import annotations

import torch
from torch import nn

from neurodyn.nets.context import Context, visit_inputs
from neurodyn.nets.mlp import mlp
from neurodyn.series import SeriesBatch


class WindowEncoder(nn.Module):
    """An MLP of the visits in a window around a visit: for long, densely observed series, where it costs no loop.

    The window counts observed visits, so unobserved ones change nothing anywhere else. Of each visit in it the network
    reads the values (zero where missing), the mask and the time from the visit that the window belongs to; places
    before the first and after the last observed visit are zeros under a zero mask.

    Args:
        num_variables: D.
        context_size: C, the size of the features.
        hidden_size: of the network's two hidden layers.
        before, after: how many visits on each side; with after = 0 the encoder is causal.
        every: 1 gives features at every visit; k at every k-th observed one and at the row's last, for posteriors that
            need no more, which then compute no more.
        num_covariates, num_static: how many columns of each the batches bring; 0 leaves them unread.

    ``forward(batch)`` returns a `Context`: features (B, T, C), or (B, K, C) with their places if ``every`` is not 1,
    and their mean over the row's observed visits (B, C).

    Raises:
        ValueError: a size or ``every`` below one, a window of negative length; a batch of other sizes than the
            encoder's.
    """

    def __init__(
        self,
        num_variables: int,
        context_size: int,
        hidden_size: int = 64,
        before: int = 5,
        after: int = 5,
        every: int = 1,
        num_covariates: int = 0,
        num_static: int = 0,
    ) -> None:
        for name, size, least in (
            ("num_variables", num_variables, 1),
            ("context_size", context_size, 1),
            ("before", before, 0),
            ("after", after, 0),
            ("every", every, 1),
        ):
            if size < least:
                raise ValueError(f"{name}: got {size}, want {least} or more")
        super().__init__()
        self.num_variables, self.context_size = num_variables, context_size
        self.num_covariates, self.num_static = num_covariates, num_static
        self.before, self.after, self.every = before, after, every
        inputs = (before + after + 1) * (2 * num_variables + 1) + num_covariates + num_static
        self.net = mlp([inputs, hidden_size, hidden_size, context_size])

    def forward(self, batch: SeriesBatch) -> Context:
        """Encode a batch; see the class."""
        visits = visit_inputs(batch, self.num_variables, self.num_covariates, self.num_static)
        present, dtype = visits.present, visits.values.dtype
        order = torch.sort(~present, dim=1, stable=True).indices  # the places of observed visits come first
        count = present.sum(1, keepdim=True)
        if self.every == 1:
            rank = present.cumsum(1) - 1  # an unobserved visit stands at the observed one before it
            places, extra, counted = order.gather(1, rank.clamp(min=0)), visits.extra, present
        else:
            steps = torch.arange(0, present.shape[1] - 1 + self.every, self.every, device=present.device)
            rank = torch.minimum(steps.expand(len(count), -1), (count - 1).clamp(min=0))
            places = order.gather(1, rank)
            extra = visits.extra.gather(1, places[..., None].expand(-1, -1, visits.extra.shape[-1]))
            counted = steps - self.every < count - 1  # what follows repeats the last visit
        wanted = rank[..., None] + torch.arange(-self.before, self.after + 1, device=rank.device)
        inside = (wanted >= 0) & (wanted < count[..., None])
        index = order.gather(1, wanted.clamp(0, present.shape[1] - 1).flatten(1))
        lag = visits.times.gather(1, index) - visits.times.gather(1, places).repeat_interleave(wanted.shape[2], 1)
        table = torch.cat((visits.values, visits.mask.to(dtype)), -1)
        seen = table.gather(1, index[..., None].expand(-1, -1, table.shape[-1]))
        window = torch.cat((seen, lag[..., None].to(dtype)), -1) * inside.flatten(1)[..., None]
        features = self.net(torch.cat((window.view(*rank.shape, -1), extra), -1))
        share = counted[..., None].to(dtype)
        summary = (features * share).sum(1) / share.sum(1).clamp(min=1)
        return Context(batch, features, summary, None if self.every == 1 else places)
