"""A windowed encoder: features at a visit from the few visits around it, with no loop over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurodyn.nets.context import Context, VisitInputs, visit_inputs
from neurodyn.nets.mlp import LinearAndMLP
from neurodyn.series import SeriesBatch


class WindowEncoder(nn.Module):
    """A linear map plus an MLP of the visits in a window: for long, densely observed series, where it costs no loop.

    The window counts observed visits, so unobserved ones change nothing anywhere else. Of each visit in it the network
    reads the values (zero where missing), the mask and the time from the visit that the window belongs to; places
    before the first and after the last observed visit are zeros under a zero mask.

    Args:
        num_variables: D.
        context_size: C, the size of the features.
        hidden_size: of the network's two hidden layers.
        before, after: how many visits on each side; with after = 0 the encoder is causal.
        stride: 1 takes neighbours, k takes every k-th visit on each side, for a longer reach at the same cost.
        slopes: of the other visits read the slope from this one, (their value - this one's) / (time between them), in
            place of the value: where visits are so close that values hardly differ and speeds matter.
        every: 1 gives features at every visit; k at every k-th observed one and at the row's last, for posteriors that
            need no more, which then compute no more.
        num_covariates, num_static: how many columns of each the batches bring; 0 leaves them unread.

    ``forward(batch)`` returns a `Context`: features (B, T, C), or (B, K, C) with their places if ``every`` is not 1,
    and their mean over the row's observed visits (B, C).

    Raises:
        ValueError: a size, ``stride`` or ``every`` below one, a window of negative length; a batch of other sizes than
            the encoder's.
    """

    def __init__(
        self,
        num_variables: int,
        context_size: int,
        hidden_size: int = 64,
        before: int = 5,
        after: int = 5,
        stride: int = 1,
        slopes: bool = False,
        every: int = 1,
        num_covariates: int = 0,
        num_static: int = 0,
    ) -> None:
        for name, size, least in (
            ("num_variables", num_variables, 1),
            ("context_size", context_size, 1),
            ("before", before, 0),
            ("after", after, 0),
            ("stride", stride, 1),
            ("every", every, 1),
        ):
            if size < least:
                raise ValueError(f"{name}: got {size}, want {least} or more")
        super().__init__()
        self.num_variables, self.context_size = num_variables, context_size
        self.num_covariates, self.num_static = num_covariates, num_static
        self.before, self.slopes, self.every = before, slopes, every
        self.register_buffer("offsets", stride * torch.arange(-before, after + 1), persistent=False)
        self.offsets: Tensor
        inputs = (before + after + 1) * (2 * num_variables + 1) + num_covariates + num_static
        self.net = LinearAndMLP([inputs, hidden_size, hidden_size, context_size])

    def forward(self, batch: SeriesBatch) -> Context:
        """Encode a batch; see the class."""
        visits = visit_inputs(batch, self.num_variables, self.num_covariates, self.num_static)
        present = visits.present
        order = torch.sort(~present, dim=1, stable=True).indices  # the places of observed visits come first
        count = present.sum(1, keepdim=True)
        if self.every == 1:
            rank, counted = present.cumsum(1) - 1, present  # an unobserved visit stands at the observed one before it
            features = self._at(visits, order, rank, order.gather(1, rank.clamp(min=0)), visits.extra)
            places = None
        else:
            steps = torch.arange(0, present.shape[1] - 1 + self.every, self.every, device=present.device)
            rank = torch.minimum(steps.expand(len(count), -1), (count - 1).clamp(min=0))
            places = order.gather(1, rank)
            features = self._at(visits, order, rank, places, _pick(visits.extra, places))
            counted = steps - self.every < count - 1  # what follows repeats the last visit
        share = counted[..., None].to(features.dtype)
        summary = (features * share).sum(1) / share.sum(1).clamp(min=1)
        return Context(batch, features, summary, places)

    def at(self, batch: SeriesBatch, ranks: Tensor) -> Tensor:
        """Features (B, K, C) at chosen observed visits alone, `ranks` (B, K) counting each row's observed visits."""
        visits = visit_inputs(batch, self.num_variables, self.num_covariates, self.num_static)
        order = torch.sort(~visits.present, dim=1, stable=True).indices
        places = order.gather(1, ranks)
        return self._at(visits, order, ranks, places, _pick(visits.extra, places))

    def _at(self, visits: VisitInputs, order: Tensor, rank: Tensor, places: Tensor, extra: Tensor) -> Tensor:
        """Features (B, K, C) at the visits of a rank (B, K), whose places among all visits are given."""
        dtype = visits.values.dtype
        count = visits.present.sum(1)[:, None, None]
        wanted = rank[..., None] + self.offsets
        inside = (wanted >= 0) & (wanted < count)
        index = order.gather(1, wanted.clamp(0, order.shape[1] - 1).flatten(1))
        lag = visits.times.gather(1, index).view(wanted.shape) - visits.times.gather(1, places)[..., None]
        lag = torch.where(inside, lag, 0.0).to(dtype)[..., None]
        shape = (*wanted.shape, self.num_variables)
        mask = _pick(visits.mask, index).view(shape) & inside[..., None]
        values = torch.where(mask, _pick(visits.values, index).view(shape), 0.0)
        if self.slopes:
            centre = slice(self.before, self.before + 1)
            here, known = values[:, :, centre], mask[:, :, centre]
            beside = (self.offsets != 0)[:, None]
            slope = (values - here) / torch.where(lag == 0, 1.0, lag)
            mask = mask & (known | ~beside)
            values = torch.where(mask, torch.where(beside, slope, values), 0.0)
        window = torch.cat((values, mask.to(dtype), lag), -1).flatten(2)
        features: Tensor = self.net(torch.cat((window, extra), -1))
        return features


def _pick(table: Tensor, places: Tensor) -> Tensor:
    """Visits (B, K) of a table (B, T, ...): (B, K, ...)."""
    return table.gather(1, places[..., None].expand(-1, -1, table.shape[-1]))
