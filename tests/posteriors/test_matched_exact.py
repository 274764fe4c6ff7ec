"""The matched posterior against equations it must solve exactly: Fokker-Planck, and the evidence met from below."""

import pytest
import torch
from torch import Tensor, nn
from toy_models import DOUBLE, conditioned_states, drawn_from, free_core, ragged

from neurodyn.likelihoods import GaussianLikelihood
from neurodyn.models.latent_sde import LatentSDE
from neurodyn.nets.context import Context
from neurodyn.nets.spline import refine_knots
from neurodyn.noise import RowNoise
from neurodyn.posteriors.matched import Curve, MatchedPosterior
from neurodyn.posteriors.start import Start
from neurodyn.sde.base import SDE
from neurodyn.sde.kalman import smooth_at
from neurodyn.sde.linear_gaussian import FreeLinearGaussian
from neurodyn.sde.neural import MLPSDE
from neurodyn.sde.prior import CoreInitial, Prior
from neurodyn.series import SeriesBatch

jacobian, hessian = torch.autograd.functional.jacobian, torch.autograd.functional.hessian


def random_curve(family_channels: int, seed: int) -> Curve:
    generator = torch.Generator().manual_seed(seed)
    knots = torch.tensor([[0.0, 0.6, 1.5]], dtype=DOUBLE)
    value, left, right = (0.3 * torch.randn(1, 3, family_channels, generator=generator, dtype=DOUBLE) for _ in range(3))
    return Curve(knots, value, left, right)


def with_curve(posterior: MatchedPosterior, curve: Curve) -> MatchedPosterior:
    posterior.curve = lambda context: curve  # type: ignore[method-assign]
    return posterior


class Mixing(SDE):
    """Diagonal noise whose entries see every coordinate and the time."""

    noise_type, sde_type, state_size, noise_size = "diagonal", "ito", 2, 2

    def drift(self, t: float | Tensor, z: Tensor) -> Tensor:
        return -z + torch.sin(z.flip(-1))

    def diffusion(self, t: float | Tensor, z: Tensor) -> Tensor:
        return 0.7 + 0.3 * torch.tanh(z) + 0.2 * torch.sin(z.flip(-1))


def law_of(name: str) -> SDE:
    torch.manual_seed(1)
    return (Mixing() if name == "mixing" else MLPSDE(2, 8, noise_type=name, time_dependent=True)).to(DOUBLE)  # type: ignore[arg-type]


CASES = [(family, law, False) for family in ("diagonal", "full", "flow") for law in ("diagonal", "mixing", "general")]
CASES += [(family, "additive", True) for family in ("diagonal", "full")]


@pytest.mark.parametrize(("family", "law", "correction"), CASES)
def test_marginals_solve_the_fokker_planck_equation_of_the_posterior_sde(
    family: str, law: str, correction: bool
) -> None:
    # d log q/dt = -div f - f.s + 1/2 (dd D + 2 (div D).s + D : (grad s + s s^T)), s = grad log q, D = g g^T
    sde = law_of(law)
    posterior = MatchedPosterior(2, 4, family=family, correction=correction).double()
    curve = random_curve(posterior.family.num_channels, seed=2)
    moving = with_curve(posterior, curve).law(None, sde)  # type: ignore[arg-type]
    now = torch.tensor(0.37, dtype=DOUBLE)

    def log_density(z: Tensor, t: Tensor) -> Tensor:
        channels, rates = curve.at(t.reshape(1, 1))
        eps = posterior.family.inverse(channels, z.reshape(1, 1, 1, 2))
        return posterior.family.sample(channels, rates, eps).log_prob.reshape(())

    def spread(z: Tensor) -> Tensor:
        g = sde.diffusion(now, z)
        g = torch.diag(g) if sde.noise_type == "diagonal" else g
        return g @ g.mT + 0 * z.sum()

    for z in torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE):
        score, bend = jacobian(lambda x: log_density(x, now), z), hessian(lambda x: log_density(x, now), z)
        # the correction is worked out where no gradient passes, so the drift is differentiated by differences
        steps = 1e-5 * torch.eye(2, dtype=DOUBLE)
        ahead, behind = (moving.drift(now, (z + sign * steps)[:, None])[:, 0] for sign in (1, -1))
        divergence = ((ahead - behind) / 2e-5).trace()
        twice = sum(hessian(lambda x, i=i, j=j: spread(x)[i, j], z)[i, j] for i in range(2) for j in range(2))
        once = torch.einsum("iji->j", jacobian(spread, z))
        drift = moving.drift(now, z[None])[0]
        wanted = -divergence - drift @ score
        wanted = wanted + 0.5 * (twice + 2 * once @ score + (spread(z) * (bend + torch.outer(score, score))).sum())
        rate = jacobian(lambda t, z=z: log_density(z, t), now)
        assert rate.item() == pytest.approx(wanted.item(), abs=1e-6 * max(1.0, abs(rate.item())))


class Silent(nn.Module):
    """In place of an encoder: the posterior's curve is given."""

    def __init__(self) -> None:
        super().__init__()
        self.dtype = nn.Parameter(torch.zeros((), dtype=DOUBLE))

    def forward(self, batch: SeriesBatch) -> Context:
        features = torch.zeros(*batch.times.shape, 1, dtype=DOUBLE)
        return Context(batch, features, features[:, 0])


class NoStart(Start):
    def loss(self, batch: SeriesBatch, z: Tensor, noise: RowNoise) -> Tensor:
        return torch.zeros(batch.num_rows, dtype=DOUBLE)


def smoother_curve(model: FreeLinearGaussian, batch: SeriesBatch, inner: int) -> Curve:
    """The exact smoother's mean and Cholesky factor at many knots, and one-sided differences for the slopes."""
    size, near = model.law.state_size, 1e-4
    knots, _ = refine_knots(batch.times, inner)
    offsets = near * torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0], dtype=DOUBLE)
    query = (knots[..., None] + offsets).flatten(1).clamp(batch.times[:, :1], batch.times[:, -1:])
    met = smooth_at(model.law, model.filter(batch), model.information(batch), batch.times, query)
    root = torch.linalg.cholesky(met.covariance)
    rows, columns = torch.tril_indices(size, size, -1)
    channels = torch.cat((met.mean, root.diagonal(dim1=-2, dim2=-1).log(), root[..., rows, columns]), -1)
    before, just_before, here, just_after, after = channels.unflatten(1, (-1, 5)).unbind(2)
    slope_left = (1.5 * here - 2 * just_before + 0.5 * before) / near
    slope_right = (-1.5 * here + 2 * just_after - 0.5 * after) / near
    return Curve(knots, here, slope_left, slope_right)


@pytest.fixture(scope="module")
def smoothed() -> tuple[FreeLinearGaussian, SeriesBatch, Curve]:
    """Two ragged rows, one of them padded, with 30 % missing."""
    model = free_core().requires_grad_(False)
    batch = drawn_from(model, ragged(2, rows=2, visits=5, seed=3)).padded(7)
    return model, batch, smoother_curve(model, batch.compact(), inner=12)


def latent_sde(model: FreeLinearGaussian, curve: Curve, correction: bool, num_samples: int) -> LatentSDE:
    loading, bias, variance = model.observation()
    decoder = nn.Linear(2, 2, bias=False, dtype=DOUBLE)
    decoder.weight = nn.Parameter(loading.detach().clone())
    likelihood = GaussianLikelihood(decoder, 2).double()
    assert not bias.any()
    likelihood.log_noise_sd = nn.Parameter(0.5 * variance.log())
    posterior = MatchedPosterior(2, 1, family="full", inner_knots=12, correction=correction).double()
    prior = Prior(model.law, CoreInitial(model))
    parts = (prior, Silent(), with_curve(posterior, curve), likelihood, NoStart(Silent()))
    return LatentSDE(*parts, num_samples=num_samples)


def expected_log_likelihood(model: FreeLinearGaussian, batch: SeriesBatch) -> Tensor:
    """E of log p(values | z) under the exact smoother, (B,), in closed form: the loss itself samples it."""
    loading, bias, variance = model.observation()
    rows = []
    for row in range(batch.num_rows):
        count = int(batch.present[row].sum())
        values, mask = batch.values[row, :count], batch.mask[row, :count]
        _, mean, cov = conditioned_states(model, batch.times[row, :count], values, mask, model.observation())
        cov = torch.stack([cov.reshape(count, 2, count, 2)[k, :, k] for k in range(count)])
        error = (values - bias - mean.reshape(count, 2) @ loading.mT).square() + ((loading @ cov) * loading).sum(-1)
        density = -0.5 * (error / variance + (2 * torch.pi * variance).log())
        rows.append(torch.where(mask, density, 0.0).sum())
    return torch.stack(rows)


@torch.no_grad()
def test_the_elbo_of_the_exact_smoother_is_the_exact_evidence(smoothed) -> None:
    model, batch, curve = smoothed
    exact = latent_sde(model, curve, correction=True, num_samples=4).eval()
    plain = latent_sde(model, curve, correction=False, num_samples=4).eval()
    evidence, likelihood = model.evidence(batch), expected_log_likelihood(model, batch)
    bounds = {}
    for name, this in (("corrected", exact), ("plain", plain)):
        # the path KL's remaining noise is that of eps in E |affine(eps)|^2: average it away
        kl = torch.stack(
            [this.loss(batch, generator=torch.Generator().manual_seed(k)).path_kl for k in range(150)]
        ).mean(0)
        loss = this.loss(batch, generator=torch.Generator().manual_seed(0))
        bounds[name] = likelihood - loss.initial_kl - kl
    torch.testing.assert_close(bounds["corrected"], evidence, atol=0.02, rtol=0)
    # without the correction no full-covariance posterior has the smoother's paths, only its marginals
    assert (bounds["plain"] < evidence - 0.05).all()


@torch.no_grad()
def test_the_loss_counts_every_observation_and_the_whole_time_once(smoothed) -> None:
    # training mode: stratified times; the weights of the times and of the observations must be those of the ELBO
    model, batch, curve = smoothed
    this = latent_sde(model, curve, correction=True, num_samples=2).train()
    losses = [this.loss(batch, generator=torch.Generator().manual_seed(k)) for k in range(400)]
    evidence, likelihood = model.evidence(batch), expected_log_likelihood(model, batch)
    sampled = torch.stack([loss.log_likelihood for loss in losses])
    bound = torch.stack([loss.elbo for loss in losses])
    for found, wanted in ((sampled, likelihood), (bound, evidence)):
        error = found.std(0) / len(losses) ** 0.5
        assert (error < 0.1).all()
        assert ((found.mean(0) - wanted).abs() < 4 * error + 1e-3).all()
