"""Where a forecast starts: r(z(T) | history), trained against the posterior at every visit.

The posterior at the last visit of a *history* is not what training sees: there, later visits inform every latent but
the last. A start is causal by construction, and -log r(z) at draws z of the posterior, summed over visits, is
KL(q || r) but for a constant. It is an auxiliary loss: no gradient reaches the posterior, and the ELBO stays one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neurodyn.nets.context import Context
from neurodyn.nets.mlp import mlp
from neurodyn.nets.window import WindowEncoder
from neurodyn.noise import RowNoise
from neurodyn.posteriors.base import check_context_size
from neurodyn.sde.linear_gaussian import LinearGaussian
from neurodyn.series import SeriesBatch


class Start(nn.Module):
    """r(z at each visit | the row's history up to it) = N(mean, root root^T), from a causal encoder.

    Args:
        encoder: strictly causal, from a batch to a `Context`.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def laws(self, batch: SeriesBatch) -> tuple[Tensor, Tensor]:
        """Mean (B, T, d) and lower triangular root (B, T, d, d) at every visit."""
        raise NotImplementedError

    def loss(self, batch: SeriesBatch, z: Tensor, noise: RowNoise) -> Tensor:
        """-log r(z) summed over visits, averaged over samples z (S, B, T, d), detached: (B,), nats per series."""
        surprise = _surprise(z.detach(), *self.laws(batch))
        return (surprise * batch.present).mean(0).sum(-1).to(batch.dtype)

    def at_end(self, history: SeriesBatch) -> tuple[Tensor, Tensor]:
        """Mean (B, d) and root (B, d, d) at each row's last observed visit; rows must be compact."""
        mean, root = self.laws(history)
        last = history.present.sum(1) - 1
        rows = torch.arange(last.shape[0], device=last.device)
        return mean[rows, last], root[rows, last]


def _surprise(z: Tensor, mean: Tensor, root: Tensor) -> Tensor:
    """-log of the Gaussian density at z, without the last axis, nats."""
    gap = z.to(mean.dtype) - mean
    white = torch.linalg.solve_triangular(root, gap[..., None], upper=False)[..., 0]
    log_sd = root.diagonal(dim1=-2, dim2=-1).log()
    return (0.5 * (white.square() + math.log(2 * math.pi)) + log_sd).sum(-1)


class EncodedStart(Start):
    """A network's Gaussian from the causal features, with a full covariance.

    Args:
        encoder: causal. context_size: of its features. latent_size: d.
        num_cuts: random visits per row and training step that stand for the row's sum over visits, stratified and
            without bias: for long rows, whose neighbouring visits tell the same. 0: all visits.
    """

    def __init__(
        self, encoder: nn.Module, context_size: int, latent_size: int, hidden_size: int = 64, num_cuts: int = 0
    ) -> None:
        if num_cuts < 0:
            raise ValueError(f"num_cuts: {num_cuts} given, 0 (all visits) or more wanted")
        super().__init__(encoder)
        check_context_size(encoder, self, context_size)
        self.latent_size, self.num_cuts = latent_size, num_cuts
        self.net = mlp([context_size, hidden_size, 2 * latent_size + latent_size**2])

    def laws(self, batch: SeriesBatch) -> tuple[Tensor, Tensor]:
        """See `Start`."""
        context: Context = self.encoder(batch)
        return self._law(context.at_visits())

    def loss(self, batch: SeriesBatch, z: Tensor, noise: RowNoise) -> Tensor:
        """See `Start`; with `num_cuts`, in training, an estimate of it. Rows must be compact then."""
        if not (self.num_cuts and self.training):
            return super().loss(batch, z, noise)
        visits = batch.present.sum(1, keepdim=True)
        strata = torch.arange(self.num_cuts, device=z.device)
        cuts = ((strata + noise.uniform("cuts", self.num_cuts)) / self.num_cuts * visits).long()
        index = cuts[None, ..., None].expand(len(z), -1, -1, z.shape[-1])
        surprise = _surprise(z.detach().gather(2, index), *self._law(self._features(batch, cuts)))
        return (surprise.mean(0).sum(-1) * visits[:, 0] / self.num_cuts).to(batch.dtype)

    def at_end(self, history: SeriesBatch) -> tuple[Tensor, Tensor]:
        """See `Start`."""
        mean, root = self._law(self._features(history, history.present.sum(1, keepdim=True) - 1))
        return mean[:, 0], root[:, 0]

    def _features(self, batch: SeriesBatch, visits: Tensor) -> Tensor:
        """Features (B, K, C) at visits (B, K) of compact rows; a windowed encoder computes no others."""
        if isinstance(self.encoder, WindowEncoder):
            return self.encoder.at(batch, visits)
        features: Tensor = self.encoder(batch).at_visits()
        return features.gather(1, visits[..., None].expand(-1, -1, features.shape[-1]))

    def _law(self, features: Tensor) -> tuple[Tensor, Tensor]:
        size = self.latent_size
        mean, log_diagonal, below = self.net(features).split((size, size, size**2), -1)
        root = below.unflatten(-1, (size, size)).tril(-1) + torch.diag_embed(log_diagonal.exp())
        return mean, root


class FilterStart(Start):
    """The exact filter of a linear core, moved in its own units by a causal encoder; a fresh one is the exact filter.

    It is trained on what it is for: at a few random visits of every row, the later visits are forecast from it through
    the core's exact transitions, and the loss is the CRPS of those Gaussian forecasts (in closed form, Gneiting and
    Raftery 2007, eq. 21).

    Args:
        encoder: causal. context_size: of its features. core: the linear-Gaussian model, here with no gradient.
        num_cuts: random visits per row and step.
    """

    def __init__(
        self, encoder: nn.Module, context_size: int, core: LinearGaussian, hidden_size: int = 64, num_cuts: int = 4
    ) -> None:
        super().__init__(encoder)
        check_context_size(encoder, self, context_size)
        self.core, self.num_cuts = core, num_cuts
        self.net = mlp([context_size, hidden_size, 2 * core.law.state_size], zero_last=True)

    def laws(self, batch: SeriesBatch) -> tuple[Tensor, Tensor]:
        """See `Start`."""
        with torch.no_grad():
            filtered = self.core.filter(batch)
            eye = torch.eye(filtered.mean.shape[-1], dtype=filtered.mean.dtype, device=filtered.mean.device)
            root = torch.linalg.cholesky(filtered.covariance + 1e-10 * eye)
        context: Context = self.encoder(batch)
        shift, log_scale = self.net(context.at_visits()).to(root.dtype).chunk(2, -1)
        mean = filtered.mean + (root @ shift[..., None])[..., 0]
        return mean, root * torch.exp(torch.tanh(log_scale))[..., None, :]

    def loss(self, batch: SeriesBatch, z: Tensor, noise: RowNoise) -> Tensor:
        """CRPS of the later values, summed over visits, averaged over variables and over cuts, (B,); z is not used."""
        mean, root = self.laws(batch)
        visits = batch.present.sum(1, keepdim=True)
        cuts = (noise.uniform("cuts", self.num_cuts) * (visits - 1)).long()  # (B, K)
        rows = torch.arange(len(cuts), device=cuts.device)[:, None]
        places = torch.arange(batch.num_times, device=cuts.device)
        later = (batch.mask[:, None] & (places > cuts[..., None])[..., None]).to(root.dtype)
        with torch.no_grad():
            ahead = self.core.law.transition((batch.times[:, None] - batch.times[rows, cuts][..., None]).clamp(min=0))
            loading, bias, variance = self.core.observation()
        reach = loading @ ahead.matrix  # (B, K, T, D, d)
        middle = (reach @ mean[rows, cuts][:, :, None, :, None])[..., 0] + ahead.offset @ loading.mT + bias
        own = (reach @ root[rows, cuts][:, :, None]).square().sum(-1)
        sd = (own + ((loading @ ahead.covariance) * loading).sum(-1) + variance).sqrt()
        score = gaussian_crps(middle, sd, batch.values[:, None].to(sd.dtype)) * later
        return (score.sum((1, 2, 3)) / (self.num_cuts * batch.num_variables)).to(batch.dtype)


def gaussian_crps(mean: Tensor, sd: Tensor, value: Tensor) -> Tensor:
    """CRPS of N(mean, sd^2) at `value`, in the units of the value."""
    white = (value - mean) / sd
    density = torch.exp(-0.5 * white.square()) / math.sqrt(2 * math.pi)
    return sd * (white * torch.erf(white / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))
