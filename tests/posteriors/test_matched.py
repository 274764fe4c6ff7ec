"""The matched posterior: its SDE has its marginals, its KL is the closed form, its correction never raises it."""

import pytest
import torch
from torch import Tensor, nn

from neurodyn.nets.context import Context
from neurodyn.noise import RowNoise
from neurodyn.posteriors.divergence_free import skew_correction
from neurodyn.posteriors.matched import Curve, MatchedPosterior, mean_jacobian
from neurodyn.sde.base import SDE
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.linear import FreeLinearLaw
from neurodyn.sde.neural import MLPSDE
from neurodyn.sde.prior import Prior
from neurodyn.series import SeriesBatch
from neurodyn.solvers.solve import sdeint

DOUBLE = torch.float64


def context_of(rows: int, visits: int, features: int, seed: int = 0) -> Context:
    generator = torch.Generator().manual_seed(seed)
    times = 0.2 + torch.rand(rows, visits, generator=generator, dtype=DOUBLE).cumsum(1) * 0.5
    batch = SeriesBatch(times, torch.zeros(rows, visits, 1, dtype=DOUBLE), ids=tuple(str(k) for k in range(rows)))
    table = torch.randn(rows, visits, features, generator=generator, dtype=DOUBLE)
    return Context(batch, table, table[:, -1])


def lively(posterior: MatchedPosterior, seed: int = 0) -> MatchedPosterior:
    """Larger weights in the heads, so that the marginals really move."""
    torch.manual_seed(seed)
    for parameter in posterior.parameters():
        nn.init.normal_(parameter, std=0.17)
    return posterior.double()


class Wavy(SDE):
    """Diagonal noise whose entries depend on all coordinates: the half-divergence term matters."""

    noise_type, sde_type, state_size, noise_size = "diagonal", "ito", 2, 2

    def drift(self, t: float | Tensor, z: Tensor) -> Tensor:
        return -z + torch.sin(z.flip(-1))

    def diffusion(self, t: float | Tensor, z: Tensor) -> Tensor:
        return 0.7 + 0.3 * torch.tanh(z) + 0.1 * torch.sin(z.flip(-1))


class Mixed(SDE):
    """General noise: a full matrix that depends on the state."""

    noise_type, sde_type, state_size, noise_size = "general", "ito", 2, 2

    def drift(self, t: float | Tensor, z: Tensor) -> Tensor:
        return -z

    def diffusion(self, t: float | Tensor, z: Tensor) -> Tensor:
        a, b = z.unbind(-1)
        top = torch.stack((0.8 + 0.2 * torch.tanh(b), 0.3 * torch.sin(a)), -1)
        return torch.stack((top, torch.stack((0.1 + 0 * a, 0.6 + 0.2 * torch.cos(a)), -1)), -2)


LAWS = {
    "constant": lambda: FreeLinearLaw(
        -torch.eye(2, dtype=DOUBLE), torch.tensor([[0.8, 0.2], [0.0, 0.5]], dtype=DOUBLE)
    ),
    "state-dependent": Wavy,
    "general": Mixed,
}


# the correction is for Gaussian families and constant diffusion
CASES = [(family, law, False) for family in ("diagonal", "full", "flow") for law in LAWS]
CASES += [("diagonal", "constant", True), ("full", "constant", True)]


@pytest.mark.parametrize(("family", "law", "correction"), CASES)
def test_simulated_posterior_sde_has_the_marginals(family: str, law: str, correction: bool) -> None:
    sde = LAWS[law]().double()
    context = context_of(1, 3, 4)
    posterior = lively(MatchedPosterior(2, 4, family=family, correction=correction))
    first, last = context.batch.times[0, 0].item(), context.batch.times[0, -1].item()
    paths, steps = 20_000, 400
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        curve = posterior.curve(context)
        where = torch.tensor([[first, last]], dtype=DOUBLE)
        eps = torch.randn(paths, 1, 2, 2, generator=generator, dtype=DOUBLE)
        exact = posterior.family.sample(*curve.at(where), eps).z[:, 0]
        z, dt = exact[:, None, 0], (last - first) / steps
        moving = posterior.law(context, sde)
        for k in range(steps):
            time = first + k * dt
            noise = torch.randn(z.shape, generator=generator, dtype=DOUBLE) * dt**0.5
            diffusion = sde.diffusion(time, z)
            kick = diffusion * noise if sde.noise_type == "diagonal" else (diffusion @ noise[..., None])[..., 0]
            z = z + moving.drift(time, z) * dt + kick
    found, wanted = z[:, 0], exact[:, 1]
    # 4.5 standard errors, and the Euler bias of 400 steps
    spread = wanted.std(0)
    assert ((found.mean(0) - wanted.mean(0)).abs() < 4.5 * spread * (2 / paths) ** 0.5 + 0.01).all()
    difference = (torch.cov(found.mT) - torch.cov(wanted.mT)).abs() / (spread[:, None] * spread)
    assert (difference < 4.5 * 2 / paths**0.5 + 0.03).all()


def free_curve(size: int, channels: int, seed: int) -> Curve:
    generator = torch.Generator().manual_seed(seed)
    knots = torch.tensor([[0.0, 0.6, 1.5]], dtype=DOUBLE)
    value, left, right = (torch.randn(1, 3, channels, generator=generator, dtype=DOUBLE) * 0.3 for _ in range(3))
    return Curve(knots, value, left, right)


def gaussian_path_kl(posterior: MatchedPosterior, curve: Curve, law: FreeLinearLaw, points: int = 4001) -> Tensor:
    """Path KL of a Gaussian posterior against a linear prior: affine drifts, so E|.|^2 is closed; trapezoids in t."""
    start, end = curve.knots[0, 0].item(), curve.knots[0, -1].item()
    times = torch.linspace(start + 1e-9, end - 1e-9, points, dtype=DOUBLE)[None]
    mean, root, mean_rate, root_rate = posterior.family.moments(*curve.at(times))
    noise, matrix = law.noise(), law.matrix()
    inverse = torch.linalg.inv(root)
    slope = root_rate @ inverse - 0.5 * noise @ noise.mT @ inverse.mT @ inverse
    at_mean = torch.linalg.solve(noise, (mean_rate - mean @ matrix.mT - law.offset())[..., None])[..., 0]
    spread = torch.linalg.solve(noise, (slope - matrix) @ root)
    if posterior.correction:
        white = torch.linalg.solve(noise, root)
        covariance = white @ white.mT
        omega = skew_correction(torch.linalg.solve(noise, (matrix - slope) @ noise), covariance)
        spread = spread + omega @ torch.linalg.solve(covariance, white)
    return torch.trapezoid(0.5 * (at_mean.square().sum(-1) + spread.square().sum((-2, -1))), times)


@pytest.mark.parametrize("correction", [False, True])
@pytest.mark.parametrize("family", ["diagonal", "full"])
def test_path_kl_equals_the_closed_form_for_a_linear_prior(family: str, correction: bool) -> None:
    law = FreeLinearLaw(
        torch.tensor([[-1.0, 2.0], [-1.5, -0.5]], dtype=DOUBLE), torch.tensor([[0.8, 0.0], [0.3, 0.6]], dtype=DOUBLE)
    )
    posterior = MatchedPosterior(2, 4, family=family, correction=correction).double()
    curve = free_curve(2, posterior.family.num_channels, seed=4)
    noise = RowNoise(0, ["a"])
    count = 400
    times = ((torch.arange(count, dtype=DOUBLE) + noise.uniform("points", count)) / count * 1.5).reshape(1, -1)
    eps = noise.samples("eps", 200, count, 2)
    estimate = 0.5 * 1.5 * posterior.control(curve, law, times, eps)[1].square().sum(-1).mean()
    assert estimate.item() == pytest.approx(gaussian_path_kl(posterior, curve, law).item(), rel=0.02)


@pytest.mark.parametrize("family", ["diagonal", "full"])
def test_the_correction_never_raises_the_kl(family: str) -> None:
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        matrix = torch.randn(3, 3, generator=generator, dtype=DOUBLE)
        noise = torch.randn(3, 3, generator=generator, dtype=DOUBLE) * 0.3 + torch.eye(3, dtype=DOUBLE)
        law = FreeLinearLaw(matrix, noise)
        plain = MatchedPosterior(3, 4, family=family).double()
        corrected = MatchedPosterior(3, 4, family=family, correction=True).double()
        curve = free_curve(3, plain.family.num_channels, seed)
        without, with_it = gaussian_path_kl(plain, curve, law), gaussian_path_kl(corrected, curve, law)
        assert with_it.item() <= without.item() + 1e-9
        if family == "full":
            assert with_it.item() < without.item()


def test_skew_correction_solves_its_equation_and_is_the_best() -> None:
    generator = torch.Generator().manual_seed(3)
    gap = torch.randn(4, 4, generator=generator, dtype=DOUBLE)
    root = torch.randn(4, 4, generator=generator, dtype=DOUBLE)
    covariance = root @ root.mT + 0.3 * torch.eye(4, dtype=DOUBLE)
    omega, inverse = skew_correction(gap, covariance), torch.linalg.inv(covariance)
    torch.testing.assert_close(omega, -omega.mT, atol=1e-12, rtol=0)
    cross = gap @ covariance
    torch.testing.assert_close(
        omega @ inverse + inverse @ omega, cross @ inverse - inverse @ cross.mT, atol=1e-9, rtol=1e-9
    )

    def cost(skew: Tensor) -> Tensor:
        left = gap - skew @ inverse
        return torch.trace(left @ covariance @ left.mT)

    for _ in range(50):
        bump = 0.1 * torch.randn(4, 4, generator=generator, dtype=DOUBLE)
        assert cost(omega) < cost(omega + bump - bump.mT)


def test_diagonal_family_has_the_coefficient_of_the_markov_gaussian_process() -> None:
    # ARCTA (Course and Nair 2023): the posterior drift is mu' - A (z - mu), -A = sigma'/sigma - g^2 / (2 sigma^2)
    law = FreeLinearLaw(torch.zeros(1, 1, dtype=DOUBLE), torch.tensor([[0.7]], dtype=DOUBLE))
    posterior = MatchedPosterior(1, 4).double()
    curve = free_curve(1, 2, seed=1)
    times = torch.tensor([[0.2, 0.9, 1.3]], dtype=DOUBLE)
    channels, rates = curve.at(times)
    eps = torch.randn(5, 1, 3, 1, dtype=DOUBLE)
    sample, drift = posterior.drift(curve, law, times, eps)
    sd = channels[..., 1:].exp()
    slope = rates[..., 1:] - 0.7**2 / (2 * sd**2)
    torch.testing.assert_close(drift, rates[..., :1] + slope * (sample.z - channels[..., :1]))


def test_padding_and_row_order_change_nothing() -> None:
    torch.manual_seed(0)
    context = context_of(3, 4, 5, seed=2)
    posterior = lively(MatchedPosterior(2, 5, family="full")).eval()
    prior = Prior(MLPSDE(2, 8), GaussianInitial(2)).double()
    noise = RowNoise(7, context.batch.ids or ())
    plain = posterior(context, prior, noise, 2)
    wide_batch = context.batch.padded(6)
    features = nn.functional.pad(context.features, (0, 0, 0, 2), value=3.0)
    wide = posterior(Context(wide_batch, features, context.summary), prior, noise, 2)
    torch.testing.assert_close(plain.path_kl, wide.path_kl, atol=1e-10, rtol=1e-9)
    torch.testing.assert_close(plain.z, wide.z[:, :, :4], atol=1e-10, rtol=1e-9)
    order = [2, 0, 1]
    turned = Context(context.batch.rows(order), context.features[order], context.summary[order])
    again = posterior(turned, prior, RowNoise(7, turned.batch.ids or ()), 2)
    torch.testing.assert_close(plain.path_kl[order], again.path_kl, atol=1e-10, rtol=1e-9)
    torch.testing.assert_close(plain.initial_kl[order], again.initial_kl, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize(("family", "law", "correction"), CASES)
def test_the_posterior_sde_takes_any_shape_of_time(family: str, law: str, correction: bool) -> None:
    context = context_of(2, 3, 4)
    posterior = lively(MatchedPosterior(2, 4, family=family, correction=correction))
    moving = posterior.law(context, LAWS[law]().double())
    z = torch.randn(3, 2, 2, dtype=DOUBLE)
    late = context.batch.times.mean(1)
    per_sample = late + torch.tensor([[-0.1], [0.0], [0.2]], dtype=DOUBLE)
    for t in (0.4, torch.tensor(0.4), late, late[None], per_sample, per_sample[:, :1], per_sample[:1, :1]):
        times = torch.as_tensor(t, dtype=DOUBLE).expand(3, 2)
        one_by_one = torch.stack([moving.drift(time, state) for time, state in zip(times, z, strict=True)])
        torch.testing.assert_close(moving.drift(t, z), one_by_one, rtol=1e-10, atol=1e-11)


def test_paths_of_the_posterior_sde_start_at_samples_and_keep_to_their_rows_times() -> None:
    context = context_of(2, 3, 4)
    law = lively(MatchedPosterior(2, 4)).law(context, Wavy())
    start, times = torch.randn(3, 2, 2, dtype=DOUBLE), context.batch.times
    paths = sdeint(law, start, times, dt=0.05, seeds=RowNoise(0, ("0", "1")))
    assert paths.shape == (3, 2, 3, 2)
    assert torch.equal(paths[:, :, 0], start)
    assert paths.isfinite().all()


class Cubic(SDE):
    """A drift with a turn that depends on the state, and constant noise."""

    noise_type, sde_type, state_size, noise_size, state_independent = "diagonal", "ito", 2, 2, True

    def drift(self, t: float | Tensor, z: Tensor) -> Tensor:
        return z - z**3 + 2 * z.flip(-1) * torch.tensor([1.0, -1.0], dtype=z.dtype)

    def diffusion(self, t: float | Tensor, z: Tensor) -> Tensor:
        return torch.tensor([0.6, 0.9], dtype=z.dtype).expand_as(z)


def test_mean_jacobian_is_exact_for_cubic_drifts() -> None:
    mean, sd = torch.tensor([[[0.3, -0.4]]], dtype=DOUBLE), torch.tensor([0.5, 0.8], dtype=DOUBLE)
    root = torch.diag(sd).expand(1, 1, 2, 2)
    found = mean_jacobian(Cubic(), torch.zeros(1, 1), mean, root, torch.linalg.inv(root))[0, 0]
    exact = torch.diag(1 - 3 * (mean[0, 0].square() + sd.square())) + torch.tensor([[0, 2], [-2, 0]], dtype=DOUBLE)
    torch.testing.assert_close(found, exact)


@pytest.mark.parametrize("family", ["diagonal", "full"])
def test_the_correction_for_a_nonlinear_prior_is_one_field_and_lowers_the_kl(family: str) -> None:
    # what a sample is moved by may not depend on the samples beside it: Omega would depend on z, and the field would
    # not be divergence-free
    times = torch.tensor([[0.2, 0.9, 1.3]], dtype=DOUBLE)
    corrected = MatchedPosterior(2, 4, family=family, correction=True).double()
    plain = MatchedPosterior(2, 4, family=family).double()
    for seed in range(3):
        curve = free_curve(2, plain.family.num_channels, seed)
        eps = torch.randn(4000, 1, 3, 2, dtype=DOUBLE)
        among = corrected.control(curve, Cubic(), times, eps)[1]
        alone = corrected.control(curve, Cubic(), times, eps[:1])[1]
        torch.testing.assert_close(among[:1], alone, rtol=1e-10, atol=1e-11)
        without = plain.control(curve, Cubic(), times, eps)[1]
        assert (among.square().sum(-1).mean(0) < without.square().sum(-1).mean(0)).all()
