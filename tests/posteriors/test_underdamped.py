"""The underdamped posterior: its SDE has its marginals exactly, its KL is Girsanov's, its ELBO meets the evidence."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toy_models import DOUBLE, context_for, drawn_from, ragged

from neurodyn.likelihoods import make_likelihood
from neurodyn.models.latent_sde import LatentSDE
from neurodyn.nets.context import Context
from neurodyn.nets.encoders import make_encoder
from neurodyn.noise import RowNoise
from neurodyn.posteriors.matched import Curve
from neurodyn.posteriors.path_times import path_times
from neurodyn.posteriors.phase import PHASES, resting_spread
from neurodyn.posteriors.start import EncodedStart
from neurodyn.posteriors.underdamped import PosteriorLaw, UnderdampedPosterior, jet, one_slope
from neurodyn.sde.base import Time
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.kalman import smooth_at
from neurodyn.sde.langevin import StateFriction, UnderdampedLangevin
from neurodyn.sde.linear_gaussian import FreeLinearGaussian
from neurodyn.sde.neural import MLPSDE
from neurodyn.sde.potentials import MLPPotential, QuadraticPotential
from neurodyn.sde.prior import Prior
from neurodyn.sde.second_order import SecondOrderLaw, SecondOrderMLP
from neurodyn.series import SeriesBatch

FEATURES = 4
CASES = [("diagonal", False), ("diagonal", True), ("full", False), ("full", True)]


class Linear(SecondOrderLaw):
    """a = -K q - C v with any matrices, so velocities may be coupled as by a magnetic field; constant noise."""

    def __init__(self, stiffness: Tensor, friction: Tensor, noise: Tensor) -> None:
        super().__init__(len(noise), constant_noise=True)
        self.stiffness, self.friction, self.noise = stiffness, friction, noise

    def acceleration(self, t: Time, q: Tensor, v: Tensor) -> Tensor:
        return -q @ self.stiffness.mT - v @ self.friction.mT

    def velocity_noise(self, t: Time, q: Tensor) -> Tensor:
        return self.noise.expand(q.shape)

    def model(self, loading: Tensor, variance: Tensor, mean: Tensor, covariance: Tensor) -> FreeLinearGaussian:
        """The same law as a linear-Gaussian model, which is scored exactly."""
        size = self.size
        eye, none = torch.eye(size, dtype=DOUBLE), torch.zeros(size, size, dtype=DOUBLE)
        matrix = torch.cat((torch.cat((none, eye), 1), torch.cat((-self.stiffness, -self.friction), 1)))
        return FreeLinearGaussian(
            matrix, torch.cat((none, torch.diag(self.noise))), mean, covariance, loading, variance
        )


def langevin(size: int) -> SecondOrderLaw:
    torch.manual_seed(3)
    friction = StateFriction(size, 8, low=0.3, high=3.0)
    return UnderdampedLangevin(MLPPotential(size, 8), friction=friction, temperature=0.8).double()


def magnetic(size: int) -> SecondOrderLaw:
    """Without structure: coupled velocities that depend on the state."""
    torch.manual_seed(4)
    law = SecondOrderMLP(size, 8, time_dependent=True)
    for parameter in law.net.parameters():
        nn.init.normal_(parameter, std=0.6)
    return law.double()


def free_curve(posterior: UnderdampedPosterior, seed: int = 0, knots: tuple[float, ...] = (0.0, 0.6, 1.5)) -> Curve:
    """Marginals of any shape."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, len(knots), posterior.family.num_channels)
    tables = (torch.randn(shape, generator=generator, dtype=DOUBLE) * 0.4 for _ in range(3))
    return one_slope(Curve(torch.tensor([knots], dtype=DOUBLE), *tables), posterior.family.num_smooth)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(("family", "correction"), CASES)
@pytest.mark.parametrize("prior", [langevin, magnetic])
def test_marginals_solve_the_fokker_planck_equation_of_the_posterior_sde(prior, family, correction, size) -> None:
    posterior = UnderdampedPosterior(2 * size, FEATURES, family=family, correction=correction).double()
    curve = free_curve(posterior, seed=size)
    sde = prior(size)
    law = PosteriorLaw(posterior, curve, sde)

    def log_density(t: Tensor, z: Tensor) -> Tensor:
        mean, root = (part[0, 0] for part in posterior.family.moments(jet(curve, t.reshape(1, 1))))
        return torch.distributions.MultivariateNormal(mean, scale_tril=root).log_prob(z)

    for k, time in enumerate((0.2, 0.55, 1.1)):
        t = torch.tensor(time, dtype=DOUBLE, requires_grad=True)
        z = torch.randn(2 * size, dtype=DOUBLE, generator=torch.Generator().manual_seed(k))
        (rate,) = torch.autograd.grad(log_density(t, z), t)
        t = t.detach()

        def drift(x: Tensor, t: Tensor = t) -> Tensor:
            return law.drift(t, x[None])[0]

        slope = torch.autograd.functional.jacobian(lambda x, t=t: log_density(t, x), z)
        bend = torch.autograd.functional.hessian(lambda x, t=t: log_density(t, x), z)
        spread = 0.5 * sde.velocity_noise(t, z[None, :size])[0].square()
        along_v = (spread * (bend.diagonal() + slope.square())[size:]).sum()
        divergence = torch.trace(torch.autograd.functional.jacobian(drift, z))
        residual = rate + divergence + drift(z) @ slope - along_v
        scale = rate.abs() + divergence.abs() + along_v.abs()
        assert residual.abs() < 1e-9 * (1 + scale), (time, residual)


@pytest.mark.parametrize("family", PHASES)
def test_families_invert_and_their_moments_are_those_of_their_samples(family: str) -> None:
    posterior = UnderdampedPosterior(6, FEATURES, family=family).double()
    there = jet(free_curve(posterior), torch.tensor([[0.3, 1.2]], dtype=DOUBLE))
    eps = torch.randn(5, 1, 2, 6, dtype=DOUBLE)
    torch.testing.assert_close(posterior.family.inverse(there, posterior.family.sample(there, eps).z), eps)
    mean, root = posterior.family.moments(there)
    # the map is affine in eps: its columns are a root of the covariance
    zero = torch.zeros(1, 1, 2, 6, dtype=DOUBLE)
    basis = torch.eye(6, dtype=DOUBLE)[:, None, None].expand(6, 1, 2, 6)
    centre = posterior.family.sample(there, zero).z
    columns = (posterior.family.sample(there, basis).z - centre).movedim(0, -1)
    torch.testing.assert_close(centre[0], mean)
    torch.testing.assert_close(columns @ columns.mT, root @ root.mT)
    assert (root.triu(1) == 0).all() and (root.diagonal(dim1=-2, dim2=-1) > 0).all()


@pytest.mark.parametrize(("family", "correction"), [("diagonal", False), ("full", True)])
def test_simulated_posterior_sde_has_the_marginals_and_girsanovs_price(family: str, correction: bool) -> None:
    size, paths, steps = 2, 10_000, 400
    prior = langevin(size)
    posterior = UnderdampedPosterior(2 * size, FEATURES, family=family, correction=correction).double()
    curve = free_curve(posterior, seed=1)
    law, generator = PosteriorLaw(posterior, curve, prior), torch.Generator().manual_seed(0)
    last = curve.knots[0, -1].item()
    with torch.no_grad():
        eps = torch.randn(paths, 1, 2, 2 * size, generator=generator, dtype=DOUBLE)
        ends = posterior.family.sample(jet(curve, torch.tensor([[0.0, last]], dtype=DOUBLE)), eps).z[:, 0]
        z, dt, paid = ends[:, None, 0], last / steps, 0.0
        for k in range(steps):
            t = (k + 0.5) * dt  # drifts at midpoints in time: second order in what depends on time alone
            drift, noise = law.drift(t, z), law.velocity_noise(t, z[..., :size])
            excess = drift[..., size:] - prior.drift(t, z)[..., size:]
            paid = paid + 0.5 * (excess / noise).square().sum(-1) * dt
            kick = noise * torch.randn(paths, 1, size, generator=generator, dtype=DOUBLE) * dt**0.5
            z = z + drift * dt + torch.cat((torch.zeros_like(kick), kick), -1)
        rows = RowNoise(0, ["a"])
        points, weights = path_times(curve.knots, rows, None)
        control = posterior.control(curve, prior, points, rows.samples("x", 4000, points.shape[1], 2 * size))[1]
        price = (0.5 * control.square().sum(-1) * weights).sum(-1)
    mean, root = (
        part[0, 1] for part in posterior.family.moments(jet(curve, torch.tensor([[0.0, last]], dtype=DOUBLE)))
    )
    found, spread = z[:, 0], (root @ root.mT).diagonal().sqrt()
    assert ((found.mean(0) - mean).abs() < (4.5 / paths**0.5 + 0.01) * spread).all()
    difference = (torch.cov(found.mT) - root @ root.mT).abs() / (spread[:, None] * spread)
    assert (difference < 4.5 * 1.5 / paths**0.5 + 0.02).all(), difference
    error = (paid.var() / paths + price.var() / len(price)).sqrt()
    assert (paid.mean() - price.mean()).abs() < 4 * error + 0.01 * price.mean()


def test_a_posterior_that_is_the_stationary_prior_costs_nothing() -> None:
    frequency, friction, temperature = 1.7, 0.6, 0.8
    number = lambda value: torch.tensor(value, dtype=DOUBLE)  # noqa: E731
    prior = UnderdampedLangevin(
        QuadraticPotential(1, number(frequency**2)), friction=number(friction), temperature=number(temperature)
    )
    posterior = UnderdampedPosterior(2, FEATURES, noise_scale=(2 * friction * temperature) ** 0.5).double()
    s, r = temperature**0.5 / frequency, temperature**0.5
    resting = (2 * friction * temperature * s) ** (1 / 3) / 2**0.5
    channels = torch.stack((number(0.0), number(s).log(), (number(r) / resting).log()))
    still = torch.zeros(1, 3, 3, dtype=DOUBLE)
    curve = Curve(torch.tensor([[0.0, 0.6, 1.5]], dtype=DOUBLE), channels.expand(1, 3, 3), still, still)
    control = posterior.control(
        curve, prior, torch.tensor([[0.1, 1.0]], dtype=DOUBLE), torch.randn(50, 1, 2, 2).double()
    )
    assert control[1].abs().max() < 1e-12


def test_drift_has_the_coefficients_of_the_derivation() -> None:
    # B and C of f = m'' + B (q - m) + C (v - m'), matched to d/dt Cov(q, v) and d/dt Var(v)
    posterior, noise = UnderdampedPosterior(2, FEATURES).double(), 0.9
    one = torch.ones(1, 1, dtype=DOUBLE)
    prior = Linear(one, one, torch.tensor([noise], dtype=DOUBLE))
    curve, t = free_curve(posterior), torch.tensor([[0.35]], dtype=DOUBLE)
    (m, ls, _), (m1, ls1, e1), (m2, ls2, _) = (part.flatten().unbind() for part in jet(curve, t))
    s, log_r = ls.exp(), jet(curve, t)[0][0, 0, 2] + ls / 3 - 0.5 * torch.log(torch.tensor(2.0, dtype=DOUBLE))
    r, s1 = log_r.exp(), ls.exp() * ls1
    s2, r_rate = s * (ls2 + ls1**2), e1 + ls1 / 3
    c = r_rate + s1 / s - noise**2 / (2 * r**2)
    b = s2 / s - r**2 / s**2 - c * s1 / s
    z = torch.randn(7, 1, 2, dtype=DOUBLE)
    q, v = z.unbind(-1)
    f = PosteriorLaw(posterior, curve, prior).drift(t[0], z)[..., 1]
    torch.testing.assert_close(f, m2 + b * (q - m) + c * (v - m1))


def exact_elbo(
    posterior: UnderdampedPosterior, curve: Curve, prior: Linear, model: FreeLinearGaussian, batch: SeriesBatch
) -> Tensor:
    """The ELBO of one row in closed form, but for quadrature in time: all is Gaussian and the control is affine."""
    family, size = posterior.family, 2 * posterior.size
    mean, root = family.moments(jet(curve, batch.times))
    loading, bias, variance = model.observation()
    gap = (batch.values - mean @ loading.mT - bias).square() + (loading @ root).square().sum(-1)
    scores = -0.5 * (gap / variance + (2 * torch.pi * variance).log()) * batch.mask
    normal = torch.distributions.MultivariateNormal
    start = normal(mean[0, 0], scale_tril=root[0, 0])
    initial = torch.distributions.kl_divergence(start, normal(*model.initial()))
    points, weights = path_times(curve.knots, RowNoise(0, ["a"]), None)
    basis = torch.cat((torch.zeros(1, size, dtype=DOUBLE), torch.eye(size, dtype=DOUBLE)))
    control = posterior.control(curve, prior, points, basis[:, None, None].expand(-1, 1, points.shape[1], -1))[1]
    rate = 0.5 * (control[0].square() + (control[1:] - control[0]).square().sum(0)).sum(-1)
    return scores.sum() - initial - (rate * weights).sum()


def with_inner(times: Tensor, inner: int) -> Tensor:
    """Knots (1, K) at the visits and `inner` ones in every gap."""
    stride = inner + 1
    body = times[:, :-1, None] + times.diff(dim=1)[..., None] * torch.arange(stride) / stride
    return torch.cat((body.flatten(1), times[:, -1:]), 1)


def smoother_curve(posterior: UnderdampedPosterior, model: FreeLinearGaussian, batch: SeriesBatch, inner: int) -> Curve:
    """Channels of the exact smoother at the knots.

    S' = Cov(v, q) S^-T and R R^T = Var(v) - Cov(v, q) Var(q)^-1 Cov(q, v).
    """
    size, knots, h = posterior.size, with_inner(batch.times, inner), 1e-4
    filtered, information = model.filter(batch), model.information(batch)

    def moments(query: Tensor) -> tuple[Tensor, Tensor]:
        there = smooth_at(model.law, filtered, information, batch.times, query.reshape(1, -1))
        return there.mean[0], there.covariance[0]

    def position_rate(root: Tensor, covariance: Tensor) -> Tensor:
        return torch.linalg.solve(root, covariance[:size, size:]).mT

    def velocity_root(query: Tensor) -> Tensor:
        covariance = moments(query)[1]
        cross = covariance[:, :size, size:]
        schur = covariance[:, size:, size:] - cross.mT @ torch.linalg.solve(covariance[:, :size, :size], cross)
        return torch.linalg.cholesky(schur)

    # S by Runge and Kutta's method from knot to knot
    fine = 40
    mean, covariance = moments(knots)
    roots = [torch.linalg.cholesky(covariance[0, :size, :size])]
    for left, right in zip(knots[0, :-1], knots[0, 1:], strict=True):
        step, root = (right - left) / fine, roots[-1]
        between = moments(left + torch.arange(2 * fine + 1) * step / 2)[1]
        for k in range(0, 2 * fine, 2):
            one = position_rate(root, between[k])
            two = position_rate(root + 0.5 * step * one, between[k + 1])
            three = position_rate(root + 0.5 * step * two, between[k + 1])
            four = position_rate(root + step * three, between[k + 2])
            root = root + step / 6 * (one + 2 * two + 2 * three + four)
        roots.append(root)
    s = torch.stack(roots)
    s_rate = torch.stack([position_rate(*pair) for pair in zip(s, covariance, strict=True)])

    def relative(root: Tensor, rate: Tensor) -> tuple[Tensor, ...]:
        """Log of the diagonal, the matrix in its units, and their rates."""
        scale, scale_rate = (part.diagonal(dim1=-2, dim2=-1)[..., None] for part in (root, rate))
        mixed = root / scale
        return (scale.log()[..., 0], mixed, (scale_rate / scale)[..., 0], (rate - mixed * scale_rate) / scale)

    log_sd, mixing, log_rate, mixing_rate = relative(s, s_rate)
    off, below = ~torch.eye(size, dtype=torch.bool), torch.ones(size, size).tril(-1).bool()
    sides = []
    for side in (-h, h):
        near = [velocity_root(knots + k * side) for k in range(3)]
        r_rate = (-3 * near[0] + 4 * near[1] - near[2]) / (2 * side)
        log_r, lower, log_r_rate, lower_rate = relative(near[0], r_rate)
        sides.append(
            torch.cat(
                (mean[:, size:], log_rate, mixing_rate[:, off], log_r_rate - log_rate / 3, lower_rate[:, below]), 1
            )
        )
    extra = log_r - resting_spread(log_sd, posterior.family.noise_scale)
    values = torch.cat((mean[:, :size], log_sd, mixing[:, off], extra, lower[:, below]), 1)
    # the ends have one side, and smooth_at does not look beyond them
    return Curve(knots, values[None], sides[0][None], sides[1][None])


def best_elbo(
    posterior: UnderdampedPosterior, prior: Linear, model: FreeLinearGaussian, batch: SeriesBatch, inner: int
) -> Tensor:
    """The ELBO at its best over the knots themselves, from a fresh start; slopes in units of the intervals."""
    knots = with_inner(batch.times, inner)
    gaps = knots.diff(dim=1)[..., None]
    fresh = posterior.head.start.to(DOUBLE).expand(1, knots.shape[1], -1)
    values = fresh.clone().requires_grad_()
    bends = torch.zeros(2, *fresh.shape, dtype=DOUBLE, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [values, bends], max_iter=300, history_size=60, line_search_fn="strong_wolfe", tolerance_change=1e-11
    )

    def curve() -> Curve:
        chord = values.diff(dim=1) / gaps
        left = nn.functional.pad(chord + bends[0, :, 1:] / gaps, (0, 0, 1, 0))
        right = nn.functional.pad(chord + bends[1, :, :-1] / gaps, (0, 0, 0, 1))
        return one_slope(Curve(knots, values, left, right), posterior.family.num_smooth)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -exact_elbo(posterior, curve(), prior, model, batch)
        loss.backward()
        return loss

    optimizer.step(closure)
    return exact_elbo(posterior, curve(), prior, model, batch).detach()


def few_visits(variables: int, seed: int = 0) -> SeriesBatch:
    generator = torch.Generator().manual_seed(seed)
    times = torch.tensor([[0.0, 0.4, 1.1, 1.5, 2.3]], dtype=DOUBLE)
    values = torch.randn(1, 5, variables, generator=generator, dtype=DOUBLE)
    mask = torch.ones(1, 5, variables, dtype=torch.bool)
    mask[:, 2, 0] = variables == 1
    return SeriesBatch(times, values, mask, ids=("a",))


def harmonic_case(reads: str) -> tuple[Linear, FreeLinearGaussian, SeriesBatch]:
    """One oscillator whose position is observed, or its velocity too; or two, coupled in positions and velocities."""

    def number(value: list) -> Tensor:
        return torch.tensor(value, dtype=DOUBLE)

    if reads == "coupled":
        prior = Linear(number([[2.0, 0.8], [0.8, 1.5]]), number([[0.6, 1.5], [-1.5, 0.9]]), number([1.0, 1.3]))
        loading, start = number([[1.0, 0.0, 0.0, 0.0], [0.5, 1.0, 0.0, 0.0]]), torch.diag(number([0.8, 0.6, 1.0, 1.2]))
    else:
        prior = Linear(number([[2.0]]), number([[0.7]]), number([1.2]))
        loading = number([[1.0, 0.0], [0.3, 1.0]][: 1 + (reads == "both")])
        start = number([[0.8, 0.2], [0.2, 1.1]])
    mean = torch.linspace(0.3, -0.2, len(start), dtype=DOUBLE)
    model = prior.model(loading, torch.full((len(loading),), 0.1, dtype=DOUBLE), mean, start)
    return prior, model, few_visits(len(loading))


HARMONIC = [("position", "diagonal", False), ("both", "diagonal", False), ("coupled", "full", True)]


@pytest.mark.parametrize(("reads", "family", "correction"), HARMONIC)
def test_exact_smoother_is_in_the_family_so_the_elbo_converges_to_the_evidence(reads, family, correction) -> None:
    prior, model, batch = harmonic_case(reads)
    posterior = UnderdampedPosterior(
        prior.state_size, FEATURES, family=family, correction=correction, noise_scale=1.2
    ).double()
    gaps = []
    with torch.no_grad():
        for inner in (1, 3, 7, 15):
            curve = smoother_curve(posterior, model, batch, inner)
            gaps.append((model.evidence(batch)[0] - exact_elbo(posterior, curve, prior, model, batch)).item())
    assert min(gaps) > 0, "no ELBO exceeds the evidence"
    assert gaps[-1] < 3e-5, gaps
    # cubic splines miss second derivatives by h^2, and the KL is quadratic in what is missed
    assert gaps[0] / gaps[1] > 7 and all(rough / fine > 11 for rough, fine in pairwise(gaps[1:])), gaps


@pytest.mark.parametrize(("reads", "family", "correction"), HARMONIC)
def test_optimised_knots_meet_the_evidence_from_below(reads, family, correction) -> None:
    prior, model, batch = harmonic_case(reads)
    posterior = UnderdampedPosterior(
        prior.state_size, FEATURES, family=family, correction=correction, noise_scale=1.2
    ).double()
    evidence = model.evidence(batch).detach()[0]
    gap = (evidence - best_elbo(posterior, prior, model, batch, 1)).item()
    smoother = exact_elbo(posterior, smoother_curve(posterior, model, batch, 1), prior, model, batch)
    assert 0 < gap < (evidence - smoother).item() + 1e-3, "the best knots beat the smoother's own values there"
    assert gap < 0.05


def test_the_turn_is_what_a_coupled_smoother_needs() -> None:
    prior, model, batch = harmonic_case("coupled")
    evidence, gaps = model.evidence(batch).detach()[0], {}
    for family, correction in CASES:
        posterior = UnderdampedPosterior(4, FEATURES, family=family, correction=correction).double()
        gaps[family, correction] = (evidence - best_elbo(posterior, prior, model, batch, 1)).item()
    assert min(gaps.values()) > 0
    assert gaps["full", True] < gaps["full", False] / 3 and gaps["full", True] < gaps["diagonal", True] / 3, gaps
    assert gaps["diagonal", True] < gaps["diagonal", False] / 2, gaps


@pytest.mark.parametrize("family", PHASES)
def test_the_turn_never_raises_the_price_under_a_linear_prior(family: str) -> None:
    for seed in range(8):
        torch.manual_seed(seed)
        prior = Linear(*torch.randn(2, 3, 3, dtype=DOUBLE), torch.rand(3, dtype=DOUBLE) + 0.5)
        prices = []
        for correction in (False, True):
            posterior = UnderdampedPosterior(6, FEATURES, family=family, correction=correction).double()
            curve = free_curve(posterior, seed)
            points, weights = path_times(curve.knots, RowNoise(0, ["a"]), None)
            basis = torch.cat((torch.zeros(1, 6, dtype=DOUBLE), torch.eye(6, dtype=DOUBLE)))[:, None, None]
            control = posterior.control(curve, prior, points, basis.expand(-1, 1, points.shape[1], -1))[1]
            rate = 0.5 * (control[0].square() + (control[1:] - control[0]).square().sum(0)).sum(-1)
            prices.append((rate * weights).sum().item())
        assert prices[1] < prices[0], prices


def lively(family: str, correction: bool, inner_knots: int, num_times: Any = 8) -> UnderdampedPosterior:
    torch.manual_seed(0)
    posterior = UnderdampedPosterior(
        4, FEATURES, family=family, correction=correction, inner_knots=inner_knots, num_times=num_times
    )
    for parameter in posterior.parameters():
        nn.init.normal_(parameter, std=0.25)
    return posterior.double()


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(CASES),
    st.booleans(),
    st.integers(0, 2),
    st.permutations(range(4)),
    st.integers(0, 2),
    st.sampled_from([8, "each"]),
)
def test_rows_do_not_see_padding_order_or_each_other(case, training, inner, order, padding, num_times) -> None:
    posterior = lively(*case, inner, num_times).train(training)
    prior = Prior(langevin(2), GaussianInitial(4)).double()
    batch = ragged(1, rows=4, visits=5)
    context = context_for(batch, FEATURES)
    whole = posterior(context, prior, RowNoise(7, batch.ids or ()), 2)
    turned = batch.rows(list(order))
    wide = turned.padded(batch.num_times + padding)
    features = nn.functional.pad(context.features[list(order)], (0, 0, 0, padding), value=3.0)
    again = posterior(Context(wide, features, context.summary), prior, RowNoise(7, wide.ids or ()), 2)
    for name in ("path_kl", "initial_kl"):
        torch.testing.assert_close(getattr(again, name), getattr(whole, name)[list(order)], atol=1e-9, rtol=1e-9)
    seen = turned.present[:, :, None]
    difference = (again.z[:, :, : batch.num_times] - whole.z[:, list(order)]) * seen
    assert difference.abs().max() < 1e-9


@pytest.mark.parametrize("num_times", [8, "each"])
def test_training_estimate_of_the_price_is_unbiased(num_times: Any) -> None:
    posterior, batch = lively("full", True, 1, num_times), ragged(1)
    prior = Prior(langevin(2), GaussianInitial(4)).double()
    context = context_for(batch, FEATURES)
    with torch.no_grad():
        exact = posterior.eval()(context, prior, RowNoise(0, batch.ids or ()), 4000).path_kl
        posterior.train()
        draws = torch.stack([posterior(context, prior, RowNoise(k, batch.ids or ()), 20).path_kl for k in range(200)])
    assert (draws.mean(0) - exact).abs().lt(5 * draws.std(0) / 200**0.5 + 0.01 * exact).all()


@pytest.mark.parametrize("case", CASES)
def test_float32_gradients_are_finite_with_one_visit_and_many(case) -> None:
    posterior = lively(*case, 1).float()
    prior = Prior(magnetic(2).float(), GaussianInitial(4))
    for batch in (ragged(1), ragged(1, rows=2, visits=1)):
        single = batch.to(dtype=torch.float32)
        features = context_for(batch, FEATURES).features.float()
        paths = posterior(Context(single, features, features[:, -1]), prior, RowNoise(0, batch.ids or ()), 2)
        assert paths.z.dtype == paths.path_kl.dtype == paths.initial_kl.dtype == torch.float32
        assert paths.z.shape == (2, batch.num_rows, batch.num_times, 4) and (paths.path_kl >= 0).all()
        loss = paths.z.square().sum() + (paths.path_kl + paths.initial_kl).sum()
        found = torch.autograd.grad(loss, [*posterior.parameters(), *prior.parameters()], allow_unused=True)
        assert all(torch.isfinite(part).all() for part in found if part is not None)
        posterior.detail(Context(single, features, features[:, -1]), prior, RowNoise(0, batch.ids or ()), 9, 3)


def test_latent_sde_learns_a_bound_close_to_the_evidence() -> None:
    """The whole model, with an encoder: its ELBO stays below the exact evidence and comes near."""
    prior_law, model, _ = harmonic_case("position")
    generator = torch.Generator().manual_seed(0)
    times = (0.1 + 0.3 * torch.rand(64, 10, generator=generator, dtype=DOUBLE)).cumsum(1)
    blank = SeriesBatch(times, torch.zeros(64, 10, 1, dtype=DOUBLE), ids=tuple(str(k) for k in range(64)))
    batch = drawn_from(model, blank)
    evidence = model.evidence(batch).detach().mean()

    initial = GaussianInitial(2, "full")
    mean, covariance = (part.detach() for part in model.initial())
    root = torch.linalg.cholesky(covariance)
    read_out = nn.Linear(2, 1)
    with torch.no_grad():
        initial.mean.copy_(mean)
        initial.log_scale.copy_(root.diagonal().log())
        assert initial.mixing is not None
        initial.mixing.copy_(root.tril(-1) / root.diagonal()[:, None])
        read_out.weight.copy_(torch.tensor([[1.0, 0.0]]))
        read_out.bias.zero_()
    likelihood = make_likelihood("gaussian", 2, 1, decoder=read_out)
    with torch.no_grad():
        likelihood.log_noise_sd.fill_(0.5 * math.log(0.1))
    law = Prior(prior_law, initial).requires_grad_(False)
    encoder = make_encoder("gru", 1, 16, hidden_size=32, causal=False)
    start = EncodedStart(make_encoder("gru", 1, 16, hidden_size=16, causal=True), 16, 2)
    posterior = UnderdampedPosterior(2, 16, noise_scale=1.2, hidden_size=32)
    latent = LatentSDE(law, encoder, posterior, likelihood.requires_grad_(False), start, num_samples=4).double()
    optimizer = torch.optim.Adam([*encoder.parameters(), *posterior.parameters()], lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 250)
    with torch.no_grad():
        fresh = latent.loss(batch, generator=generator).elbo.mean()
    for _ in range(250):
        optimizer.zero_grad()
        loss = latent.loss(batch, generator=generator)
        (-loss.elbo.mean()).backward()
        optimizer.step()
        scheduler.step()
    latent.eval().num_samples = 200
    with torch.no_grad():
        trained = latent.loss(batch, generator=generator).elbo.mean()
    assert fresh < trained < evidence + 0.02
    assert evidence - fresh > 30 and evidence - trained < 0.8  # four times the steps leave 0.15
    forecast = latent.forecast(batch, batch.last_time[:, None] + 1.0, 8, generator=generator)
    assert forecast.samples.shape == (8, 64, 1, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UnderdampedPosterior(3, 4), "^latent_size: 3 given"),
        (lambda: UnderdampedPosterior(4, 4, family="flow"), "^family: 'flow' given"),
        (lambda: UnderdampedPosterior(4, 4, scale=0.0), "^scale: 0.0 given"),
        (lambda: UnderdampedPosterior(4, 4, noise_scale=-1.0), "^noise_scale"),
        (lambda: UnderdampedPosterior(4, 4, num_times=0), "^num_times"),
    ],
)
def test_bad_choices_are_named(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("sde", [MLPSDE(4, 8), SecondOrderMLP(3, 8)])
def test_another_prior_is_named(sde) -> None:
    batch = ragged(1)
    posterior = UnderdampedPosterior(4, FEATURES).double()
    prior = Prior(sde, GaussianInitial(sde.state_size)).double()
    with pytest.raises(ValueError, match=f"^prior: a {type(sde).__name__} of {sde.state_size} latents given"):
        posterior(context_for(batch, FEATURES), prior, RowNoise(0, batch.ids or ()))
