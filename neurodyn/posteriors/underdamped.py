"""A simulation-free posterior for laws of second order: positions that move by velocities, noise on velocities alone.

Under a prior dq = v dt, dv = a(t, q, v) dt + g(t, q) dW, a posterior has a finite path KL only if its positions move by
its velocities too, so the marginals of (q, v) cannot be chosen freely. Those of `neurodyn.posteriors.phase` move so by
construction. A flow v' that keeps marginals becomes an SDE with the noise of the prior, and the same marginals, by half
of g^2 times the score in v (g does not depend on v): the posterior's drift on v and its price are

    f = v' + g^2 (score in v) / 2 [+ R K e2],      KL(q || p) = E_q of the integral of |(f - a) / g|^2 / 2.

K is any skew matrix of time; for diagonal marginals it matters where the prior couples velocities of different
coordinates. No path is simulated: visits are sampled at once, and the KL at random times. For diagonal marginals

    f = m'' + (s'' - r^2 / s) e1 + (r' + r s' / s - g^2 / (2 r)) e2.

No other drift that is linear in (q, v) keeps the marginals. So with a harmonic potential and Gaussian observations the
exact smoother is in the family (full, with K; diagonal in one dimension), up to the cubic splines.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from neurodyn.nets.context import Context
from neurodyn.nets.spline import hermite_jet
from neurodyn.noise import RowNoise
from neurodyn.posteriors.base import PathDetail, Posterior, PosteriorPaths
from neurodyn.posteriors.matched import Curve, CurveHead
from neurodyn.posteriors.path_times import path_times
from neurodyn.posteriors.phase import PHASES, Jet, PhaseFamily, PhaseSample
from neurodyn.sde.base import SDE, Time
from neurodyn.sde.prior import Prior
from neurodyn.sde.second_order import SecondOrderLaw


class UnderdampedPosterior(Posterior):
    """The simulation-free posterior of a `SecondOrderLaw` prior; latents are (q, v), d = 2 n.

    Args:
        latent_size: d, even.
        context_size: of the encoder's features.
        family: "diagonal" or "full" marginals.
        inner_knots: spline knots between two visits.
        num_times: times per row and step for the path KL: one in each interval between knots, or so many, stratified,
            which costs less and makes training noisier. In evaluation mode, a fixed quadrature.
        correction: add the best skew turn K, for priors that couple the velocities of different coordinates.
        scale: standard deviation of the positions of a fresh posterior.
        noise_scale: typical velocity noise of the prior, from which the start of the velocities' spread is made.
        hidden_size: of the networks.
    """

    def __init__(
        self,
        latent_size: int,
        context_size: int,
        *,
        family: str = "diagonal",
        inner_knots: int = 0,
        num_times: int | Literal["each"] = "each",
        correction: bool = False,
        scale: float = 0.3,
        noise_scale: float = 1.0,
        hidden_size: int = 64,
    ) -> None:
        if latent_size < 2 or latent_size % 2:
            raise ValueError(f"latent_size: {latent_size} given, an even number wanted: positions and velocities")
        if family not in PHASES:
            raise ValueError(f"family: {family!r} given, one of {', '.join(PHASES)} wanted")
        for name, given in (("scale", scale), ("noise_scale", noise_scale), ("num_times", num_times)):
            if given != "each" and not given > 0:
                raise ValueError(f"{name}: {given} given, a positive number wanted")
        super().__init__()
        self.context_size = context_size
        self.size, self.num_times, self.correction = latent_size // 2, num_times, correction
        self.family: PhaseFamily = PHASES[family](self.size, noise_scale)
        start = self.family.start(scale)
        self.head = CurveHead(context_size, self.family.num_channels, inner_knots, start, hidden_size)

    def curve(self, context: Context) -> Curve:
        """The channels of B rows as functions of time; those of positions have one slope at each knot."""
        return one_slope(self.head(context.features, context.times), self.family.num_smooth)

    def forward(self, context: Context, prior: Prior, noise: RowNoise, num_samples: int = 1) -> PosteriorPaths:
        """See `Posterior`. The KL is an unbiased estimate over times and eps."""
        return self.along(self.curve(context), context.batch.times, prior, noise, num_samples)

    def along(self, curve: Curve, times: Tensor, prior: Prior, noise: RowNoise, num_samples: int = 1) -> PosteriorPaths:
        """States at `times` (B, T), which need not be the curve's knots, and the KL over the knots' span."""
        law = self._law(prior.sde)
        dtype = curve.values.dtype
        at_visits = jet(curve, times)
        eps = noise.paired("visits", num_samples, times.shape[1], 2 * self.size, dtype=dtype)
        z = self.family.sample(at_visits, eps).z
        points, weights = path_times(curve.knots, noise, self.num_times if self.training else None)
        eps = noise.paired("times", num_samples, points.shape[1], 2 * self.size, dtype=dtype)
        rate = 0.5 * self.control(curve, law, points, eps)[1].square().sum(-1).mean(0)
        start = jet(curve, curve.knots[:, :1])
        mean, root = self.family.moments((start[0][:, 0], start[1][:, 0], start[2][:, 0]))
        return PosteriorPaths(z, (rate * weights.to(dtype)).sum(-1), prior.initial.kl_from(mean, root))

    def _law(self, sde: SDE) -> SecondOrderLaw:
        if not isinstance(sde, SecondOrderLaw) or sde.size != self.size:
            raise ValueError(
                f"prior: a {type(sde).__name__} of {sde.state_size} latents given, a SecondOrderLaw of {2 * self.size} "
                "wanted"
            )
        return sde

    def control(self, curve: Curve, law: SecondOrderLaw, times: Tensor, eps: Tensor) -> tuple[PhaseSample, Tensor]:
        """States and (f - a) / g at times (B, M) and eps (S, B, M, 2 n): what the path KL squares, (S, B, M, n)."""
        sample, drift, noise = self.drift(curve, law, times, eps)
        q, v = sample.z.chunk(2, -1)
        return sample, (drift - law.acceleration(times, q, v)) / noise

    def drift(
        self, curve: Curve, law: SecondOrderLaw, times: Tensor, eps: Tensor
    ) -> tuple[PhaseSample, Tensor, Tensor]:
        """States, the posterior's drift f on velocities there, and the noise g: (S, B, M, n) each."""
        there = jet(curve, times)
        sample = self.family.sample(there, eps)
        noise = law.velocity_noise(times, sample.z[..., : self.size])
        drift = sample.flow + 0.5 * noise.square() * sample.score
        if self.correction:
            turn = self.family.spread(there) @ self._turn(there, law, times)
            drift = drift + (turn @ eps[..., self.size :, None])[..., 0]
        return sample, drift, noise

    @torch.no_grad()
    def _turn(self, there: Jet, law: SecondOrderLaw, times: Tensor) -> Tensor:
        """K, (B, M, n, n), a function of time alone: the best one for the prior linearised at the mean.

        With P = g^-1 R and Y the slope of the control in e2 without K, it minimises |P K + Y|^2, so it solves
        P^T P K + K P^T P = Y^T P - P^T Y. Any skew K is valid, and the best one stationary, so no gradient is taken.
        """
        size = self.size
        basis = times.new_zeros(size + 1, 1, 1, 2 * size, dtype=there[0].dtype)
        basis[1:, 0, 0, size:] = torch.eye(size)
        flow = self.family.sample(there, basis.expand(-1, *times.shape, -1)).flow
        q, v = self.family.moments(there)[0].chunk(2, -1)
        noise, spread = law.velocity_noise(times, q)[..., None], self.family.spread(there)
        # half of g^2 times the score has no part here: P^T of it is symmetric
        slope = ((flow[1:] - flow[0]).movedim(0, -1) - velocity_slope(law, times, q, v) @ spread) / noise
        white = spread / noise
        value, vector = torch.linalg.eigh(white.mT @ white)
        skew = vector.mT @ (slope.mT @ white - white.mT @ slope) @ vector
        return vector @ (skew / (value[..., :, None] + value[..., None, :])) @ vector.mT

    def law(self, context: Context, sde: SDE) -> SecondOrderLaw:
        """The posterior over paths as an SDE of its own, for B rows: z is (..., B, d), t a number or (B,).

        Simulated from its first marginal it has, at every time, the marginals of the curve.
        """
        return PosteriorLaw(self, self.curve(context), self._law(sde))

    @torch.no_grad()
    def detail(
        self, context: Context, prior: Prior, noise: RowNoise, num_times: int = 64, num_samples: int = 16
    ) -> PathDetail:
        """See `Posterior`: marginal samples with one eps per path."""
        times, law = context.batch.times, self._law(prior.sde)
        fraction = torch.linspace(0, 1, num_times, dtype=times.dtype, device=times.device)
        points = times[:, :1] + fraction * (times[:, -1:] - times[:, :1])
        eps = noise.samples("detail", num_samples, 1, 2 * self.size, dtype=context.features.dtype)
        sample, control = self.control(self.curve(context), law, points, eps.expand(-1, -1, num_times, -1))
        return PathDetail(points, sample.z, control)


class PosteriorLaw(SecondOrderLaw):
    """An `UnderdampedPosterior` of B rows as a law of its own; see its method `law`."""

    def __init__(self, posterior: UnderdampedPosterior, curve: Curve, prior: SecondOrderLaw) -> None:
        super().__init__(prior.size, constant_noise=prior.state_independent)
        self.posterior, self.curve, self.prior = posterior, curve, prior

    def acceleration(self, t: Time, q: Tensor, v: Tensor) -> Tensor:
        """The drift f on velocities, (..., B, n)."""
        rows = len(self.curve.knots)
        times = torch.as_tensor(t, dtype=self.curve.knots.dtype, device=q.device).expand(rows)[:, None]
        state = torch.cat((q, v), -1).reshape(-1, rows, 1, 2 * self.size)
        eps = self.posterior.family.inverse(jet(self.curve, times), state)
        return self.posterior.drift(self.curve, self.prior, times, eps)[1].reshape(q.shape)

    def velocity_noise(self, t: Time, q: Tensor) -> Tensor:
        """That of the prior."""
        return self.prior.velocity_noise(t, q)


def jet(curve: Curve, times: Tensor) -> Jet:
    """Channels and their first two rates (B, M, C) at times (B, M)."""
    return hermite_jet(*curve, times)


def one_slope(curve: Curve, count: int) -> Curve:
    """The curve with one slope at each knot in its first `count` channels, so that these have no kinks.

    The mean of both sides' slopes, weighted by the inverse lengths of their intervals, as a parabola through three
    knots has it; where only one side has an interval (the ends, padding), that side's.
    """
    gaps = curve.knots.diff(dim=1)
    nearness = torch.where(gaps > 0, 1 / torch.where(gaps > 0, gaps, 1.0), 0.0)
    left, right = nn.functional.pad(nearness, (1, 0)), nn.functional.pad(nearness, (0, 1))
    share = (left / torch.where(left + right > 0, left + right, 1.0)).to(curve.values.dtype)[..., None]
    merged = share * curve.slope_left[..., :count] + (1 - share) * curve.slope_right[..., :count]
    sides = (torch.cat((merged, side[..., count:]), -1) for side in (curve.slope_left, curve.slope_right))
    return Curve(curve.knots, curve.values, *sides)


def velocity_slope(law: SecondOrderLaw, times: Tensor, q: Tensor, v: Tensor) -> Tensor:
    """da_i/dv_j, (..., n, n), by one forward-mode pass per coordinate."""
    columns = []
    for direction in torch.eye(law.size, dtype=v.dtype, device=v.device):
        columns.append(torch.func.jvp(lambda at: law.acceleration(times, q, at), (v,), (direction.expand_as(v),))[1])
    return torch.stack(columns, -1)
