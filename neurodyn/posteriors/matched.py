"""SDE Matching: a posterior given by its marginals, priced without simulating a path.

Bartosh, Vetrov and Naesseth (ICML 2025, arXiv 2502.02472). The marginals z(t) = F(eps; channels(t)) fix a posterior SDE
with the prior's diffusion g and the drift

    f = dF/dt + g g^T grad log q / 2 + div(g g^T) / 2,

whose path KL against the prior's drift h is the integral of E_q |g^-1 (f - h)|^2 / 2. Here the channels are cubic
splines in time with a kink allowed at each visit, since the exact smoother's drift jumps there, so rates are exact and
cost no extra pass.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from neurodyn.nets.context import Context
from neurodyn.nets.mlp import LinearAndMLP, mlp
from neurodyn.nets.spline import hermite, refine_knots
from neurodyn.noise import RowNoise
from neurodyn.posteriors.base import PathDetail, Posterior, PosteriorPaths
from neurodyn.posteriors.divergence_free import skew_correction
from neurodyn.posteriors.families import FAMILIES, DiagonalAffine, Family, FullAffine, MarginalSample
from neurodyn.posteriors.path_times import path_times
from neurodyn.sde.base import SDE, Time
from neurodyn.sde.prior import Prior


class Curve(NamedTuple):
    """Channels as piecewise cubics: knots (B, K), values and slopes on both sides (B, K, C)."""

    knots: Tensor
    values: Tensor
    slope_left: Tensor
    slope_right: Tensor

    def at(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Channels and their rates (B, M, C) at times (B, M)."""
        return hermite(self.knots, self.values, self.slope_left, self.slope_right, times)

    def at_knots(self, stride: int) -> Tensor:
        """Channels at every `stride`-th knot, (B, T, C), as `at` has them there; knots of padding are as the last."""
        last = torch.searchsorted(self.knots, self.knots[:, -1:].contiguous())
        every = torch.arange(0, self.knots.shape[1], stride, device=self.knots.device)
        index = torch.minimum(every, last).unsqueeze(-1)
        return self.values.gather(1, index.expand(-1, -1, self.values.shape[-1]))


class CurveHead(nn.Module):
    """From features at the visits to a curve of channels, with knots at the visits and between them.

    Slopes are the chord's plus a learned part in units of one interval, so that a fresh head gives straight lines.

    Args:
        context_size: C of the features. num_channels: of the curve. inner_knots: per interval between visits.
        start: channels (C,) of a fresh head.
        hidden_size: of the two networks.
    """

    def __init__(
        self, context_size: int, num_channels: int, inner_knots: int, start: Tensor, hidden_size: int = 64
    ) -> None:
        super().__init__()
        self.inner, self.num_channels = inner_knots, num_channels
        self.visit_net = LinearAndMLP([context_size, hidden_size, 3 * num_channels], scale=0.1)
        if inner_knots:
            self.inner_net = LinearAndMLP([2 * context_size + 2, hidden_size, 2 * num_channels], scale=0.1)
        self.register_buffer("start", start)
        self.start: Tensor

    def forward(self, features: Tensor, times: Tensor) -> Curve:
        """The curve of B rows, features (B, T, C) at times (B, T)."""
        value, left, right = self.visit_net(features).chunk(3, -1)
        value = value + self.start
        knots, _ = refine_knots(times, self.inner)
        if self.inner:
            stride = self.inner + 1
            gap = (times[:, 1:] - times[:, :-1]).to(features.dtype)
            fraction = torch.arange(1, stride, device=times.device, dtype=features.dtype) / stride
            rows, intervals = gap.shape
            wide = (rows, intervals, self.inner)
            ends = torch.cat((features[:, :-1], features[:, 1:]), -1)[:, :, None].expand(*wide, -1)
            where = torch.stack((fraction.expand(wide), torch.log1p(gap)[..., None].expand(wide)), -1)
            bump, bend = self.inner_net(torch.cat((ends, where), -1)).chunk(2, -1)
            weight = fraction[:, None]
            middle = value[:, :-1, None] * (1 - weight) + value[:, 1:, None] * weight + bump
            value = _weave(value, middle)
            left, right = _weave(left, bend), _weave(right, bend)
        length = (knots[:, 1:] - knots[:, :-1]).to(features.dtype)[..., None]
        proper = length > 0
        length = torch.where(proper, length, torch.ones_like(length))
        chord = torch.where(proper, (value[:, 1:] - value[:, :-1]) / length, torch.zeros_like(length))
        slope_right = nn.functional.pad(chord + right[:, :-1] / length, (0, 0, 0, 1))
        slope_left = nn.functional.pad(chord + left[:, 1:] / length, (0, 0, 1, 0))
        return Curve(knots, value, slope_left, slope_right)


def _weave(visits: Tensor, inner: Tensor) -> Tensor:
    """Knots of visits (B, T, C) and inner knots (B, T-1, I, C) in the order of time."""
    body = torch.cat((visits[:, :-1, None], inner), 2).flatten(1, 2)
    return torch.cat((body, visits[:, -1:]), 1)


def _beside(moving: Tensor, static: Tensor) -> Tensor:
    """Channels (mu, log sigma) of the moving latents, then of the static ones, as those of all together."""
    (mean, log_sd), (static_mean, static_log_sd) = moving.chunk(2, -1), static.chunk(2, -1)
    return torch.cat((mean, static_mean, log_sd, static_log_sd), -1)


class MatchedPosterior(Posterior):
    """The simulation-free posterior of SDE Matching.

    Args:
        latent_size: d. context_size: of the encoder's features.
        family: "diagonal", "full" or "flow" marginals.
        inner_knots: spline knots between two visits (two of those that the encoder gives features at).
        num_times: stratified times per row and step for the path KL. In evaluation mode, a fixed quadrature.
        correction: add the divergence-free correction (Gaussian families; a diffusion that does not depend on z). It
            never raises the KL under a prior whose mean slope is found exactly, as a linear one's (`mean_jacobian`).
        scale: standard deviation of the marginals of a fresh posterior.
        static_size: how many of the last latents never move, as the prior's law says; their marginal comes from the
            context's summary and is the same at all times. For diagonal marginals.
    """

    def __init__(
        self,
        latent_size: int,
        context_size: int,
        *,
        family: str = "diagonal",
        inner_knots: int = 1,
        num_times: int = 16,
        correction: bool = False,
        hidden_size: int = 64,
        scale: float = 0.3,
        static_size: int = 0,
    ) -> None:
        if family not in FAMILIES:
            raise ValueError(f"family: {family!r} given, one of {sorted(FAMILIES)} wanted")
        if correction and family == "flow":
            raise ValueError("correction: given with family 'flow', a Gaussian family ('diagonal', 'full') is wanted")
        if not 0 <= static_size < latent_size or (static_size and (family != "diagonal" or correction)):
            raise ValueError(
                f"static_size: {static_size} of {latent_size} given with family {family!r}; fewer than all, 'diagonal' "
                "and no correction wanted"
            )
        super().__init__()
        self.context_size = context_size
        self.family: Family = FAMILIES[family](latent_size)
        self.num_times, self.correction, self.static_size = num_times, correction, static_size
        moving = FAMILIES[family](latent_size - static_size)
        self.head = CurveHead(context_size, moving.num_channels, inner_knots, moving.start(scale), hidden_size)
        if static_size:
            self.static_net = mlp([context_size, hidden_size, 2 * static_size], zero_last=True)
            last = self.static_net[-1]
            assert isinstance(last, nn.Linear)
            with torch.no_grad():
                last.bias.copy_(DiagonalAffine(static_size).start(scale))

    def curve(self, context: Context) -> Curve:
        """The channels' splines, for B rows, with knots where the features stand and `inner_knots` between them."""
        curve = self.head(context.features, context.times)
        if not self.static_size:
            return curve
        constant = self.static_net(context.summary)[:, None].expand(-1, curve.knots.shape[1], -1)
        flat = torch.zeros_like(constant)
        return Curve(
            curve.knots,
            _beside(curve.values, constant),
            _beside(curve.slope_left, flat),
            _beside(curve.slope_right, flat),
        )

    def forward(self, context: Context, prior: Prior, noise: RowNoise, num_samples: int = 1) -> PosteriorPaths:
        """See `Posterior`. The KL is an unbiased estimate over times and eps."""
        if self.static_size != prior.sde.static_size:
            raise ValueError(
                f"prior: a law with {prior.sde.static_size} static coordinates given, {self.static_size} wanted, as the"
                " posterior has"
            )
        times, dtype = context.batch.times, context.features.dtype
        size = self.family.size
        curve = self.curve(context)
        eps = noise.paired("visits", num_samples, times.shape[1], size, dtype=dtype)
        here = curve.at_knots(self.head.inner + 1) if context.places is None else curve.at(times)[0]
        visits = self.family.sample(here, torch.zeros_like(here), eps)
        points, weights = path_times(curve.knots, noise, self.num_times if self.training else None)
        eps = noise.paired("times", num_samples, points.shape[1], size, dtype=dtype)
        rate = 0.5 * self.control(curve, prior.sde, points, eps)[1].square().sum(-1).mean(0)
        return PosteriorPaths(visits.z, (rate * weights).sum(-1), self._initial_kl(curve, prior, visits))

    def _initial_kl(self, curve: Curve, prior: Prior, visits: MarginalSample) -> Tensor:
        if isinstance(self.family, DiagonalAffine | FullAffine):
            start = curve.values[:, 0]
            moments = self.family.moments(start, torch.zeros_like(start))
            return prior.initial.kl_from(moments.mean, moments.root)
        return (visits.log_prob[:, :, 0] - prior.initial.log_prob(visits.z[:, :, 0])).mean(0)

    def drift(self, curve: Curve, sde: SDE, times: Tensor, eps: Tensor) -> tuple[MarginalSample, Tensor]:
        """The posterior SDE's drift f at z = F(eps; t), without the correction: the sample and f, (S, B, M, d)."""
        sample = self.family.sample(*curve.at(times), eps)
        pull = 0.5 * _outer(sde, times, sample.z, sample.score) + sde.half_divergence(times, sample.z)
        return sample, sample.velocity + pull

    def law(self, context: Context, sde: SDE) -> SDE:
        """The posterior over paths as an SDE of its own, for B rows: z is (..., B, d), t a number, (B,) or (..., B).

        Simulated from its first marginal it has, at every time, the marginals of the curve.
        """
        return _MatchedLaw(self, self.curve(context), sde)

    def control(self, curve: Curve, sde: SDE, times: Tensor, eps: Tensor) -> tuple[MarginalSample, Tensor]:
        """The sample and g^-1 (f - h), (S, B, M, m), the correction included; m counts no static coordinates."""
        if sde.noise_type == "diagonal" and sde.coordinatewise and not sde.state_independent:
            # g^-1 (velocity + g^2 score / 2 + g g' - h), with g and its slope evaluated once
            sample = self.family.sample(*curve.at(times), eps)
            value, slope = (_moving(sde, part) for part in sde.coordinate_slope(times, sample.z))
            gap = _moving(sde, sample.velocity - sde.drift(times, sample.z))
            control = gap / value + 0.5 * value * _moving(sde, sample.score) + slope
        else:
            sample, drift = self.drift(curve, sde, times, eps)
            control = _whiten(sde, times, sample.z, drift - sde.drift(times, sample.z))
        if self.correction:
            control = control + self._rotation(curve, sde, times, sample.z)
        return sample, control

    def _rotation(self, curve: Curve, sde: SDE, times: Tensor, z: Tensor) -> Tensor:
        """The correction h in coordinates where the diffusion is the identity, at z (S, B, M, d)."""
        if not sde.state_independent:
            raise ValueError(
                "correction: the prior's diffusion depends on the state; the correction is for one that does not"
            )
        assert isinstance(self.family, DiagonalAffine | FullAffine)
        moments = self.family.moments(*curve.at(times))
        scale = sde.diffusion(times, moments.mean)
        scale = torch.diag_embed(scale) if sde.noise_type == "diagonal" else scale
        if scale.shape[-1] != scale.shape[-2]:
            raise ValueError(f"correction: a diffusion of shape {tuple(scale.shape[-2:])} given, a square one wanted")
        white_root = torch.linalg.solve(scale, moments.root)
        covariance = white_root @ white_root.mT
        # The best Omega is stationary for the KL, so its own gradient vanishes; any skew Omega keeps the marginals, as
        # long as it does not depend on z: it is worked out from the marginal, not from the samples at hand.
        with torch.no_grad():
            inverse = torch.linalg.inv(moments.root)
            posterior = moments.root_rate @ inverse - 0.5 * scale @ scale.mT @ inverse.mT @ inverse
            gap = mean_jacobian(sde, times, moments.mean, moments.root, inverse) - posterior
            omega = skew_correction(torch.linalg.solve(scale, gap @ scale), covariance)
        centred = torch.linalg.solve(scale, (z - moments.mean)[..., None])
        return (omega @ torch.linalg.solve(covariance, centred))[..., 0]

    @torch.no_grad()
    def detail(
        self, context: Context, prior: Prior, noise: RowNoise, num_times: int = 64, num_samples: int = 16
    ) -> PathDetail:
        """See `Posterior`: marginal samples with one eps per path."""
        times = context.batch.times
        fraction = torch.linspace(0, 1, num_times, dtype=times.dtype, device=times.device)
        points = times[:, :1] + fraction * (times[:, -1:] - times[:, :1])
        eps = noise.samples("detail", num_samples, 1, self.family.size, dtype=context.features.dtype)
        sample, control = self.control(self.curve(context), prior.sde, points, eps.expand(-1, -1, num_times, -1))
        return PathDetail(points, sample.z, control)


class _MatchedLaw(SDE):
    def __init__(self, posterior: MatchedPosterior, curve: Curve, prior: SDE) -> None:
        super().__init__()
        self.posterior, self.curve, self.prior = posterior, curve, prior
        self.noise_type, self.sde_type = prior.noise_type, prior.sde_type
        self.state_size, self.noise_size = prior.state_size, prior.noise_size
        self.coordinatewise, self.state_independent = prior.coordinatewise, prior.state_independent

    def drift(self, t: Time, z: Tensor) -> Tensor:
        rows, size = len(self.curve.knots), z.shape[-1]
        times = torch.as_tensor(t, dtype=self.curve.knots.dtype, device=z.device)
        if shared := times.ndim == 0 or times.numel() == times.shape[-1]:  # by all samples: the curve is read once
            times = times.reshape(-1).expand(rows)[:, None]
            state = z.reshape(-1, rows, 1, size)
        else:  # a time per sample: samples stand where times do
            times = times.expand(z.shape[:-1]).reshape(-1, rows).mT
            state = z.reshape(-1, rows, size).transpose(0, 1)[None]
        eps = self.posterior.family.inverse(self.curve.at(times)[0], state)
        drift = self.posterior.drift(self.curve, self.prior, times, eps)[1]
        if self.posterior.correction:
            drift = drift + _diffuse(
                self.prior, times, state, self.posterior._rotation(self.curve, self.prior, times, state)
            )
        return (drift if shared else drift[0].transpose(0, 1)).reshape(z.shape)

    def diffusion(self, t: Time, z: Tensor) -> Tensor:
        return self.prior.diffusion(t, z)


def mean_jacobian(sde: SDE, times: Tensor, mean: Tensor, root: Tensor, inverse: Tensor) -> Tensor:
    """E[Jacobian of the drift in z] over z ~ N(mean, root root^T), (B, M, d, d), from 2 d evaluations of the drift.

    By Stein's identity it is E[drift(mean + root e) e^T] root^-1, here with the three Gauss-Hermite nodes 0 and
    +-sqrt(3) along each axis of e: exact for drifts that are cubic along each axis; a function of the marginal alone.
    """
    step = 3**0.5 * root.movedim(-1, 0)
    higher, lower = sde.drift(times, torch.stack((mean + step, mean - step)))
    return ((higher - lower) / (2 * 3**0.5)).movedim(0, -1) @ inverse


def _moving(sde: SDE, vector: Tensor) -> Tensor:
    """The coordinates that move: the others have nothing to be compared."""
    return vector[..., : vector.shape[-1] - sde.static_size]


def _outer(sde: SDE, times: Tensor, z: Tensor, vector: Tensor) -> Tensor:
    """g g^T vector, (..., d)."""
    diffusion = sde.diffusion(times, z)
    if sde.noise_type == "diagonal":
        return diffusion.square() * vector
    return (diffusion @ (diffusion.mT @ vector[..., None]))[..., 0]


def _diffuse(sde: SDE, times: Tensor, z: Tensor, control: Tensor) -> Tensor:
    """g control, (..., d)."""
    diffusion = sde.diffusion(times, z)
    return diffusion * control if sde.noise_type == "diagonal" else (diffusion @ control[..., None])[..., 0]


def _whiten(sde: SDE, times: Tensor, z: Tensor, gap: Tensor) -> Tensor:
    """g^-1 gap, (..., d)."""
    diffusion = sde.diffusion(times, z)
    if sde.noise_type == "diagonal":
        return _moving(sde, gap) / _moving(sde, diffusion)
    if diffusion.shape[-1] != diffusion.shape[-2]:
        raise ValueError(
            f"prior: noise of shape {tuple(diffusion.shape[-2:])} given; a matched posterior needs noise on every "
            "latent, a square one"
        )
    return torch.linalg.solve(diffusion, gap[..., None])[..., 0]
