"""The simulated posterior: exact with Doob's control, Girsanov's identities, equal gradients, rows of their own."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toy_models import DOUBLE, context_for, drawn_from, free_core, ragged

from neurodyn.nets.context import Context
from neurodyn.noise import RowNoise
from neurodyn.posteriors.simulated import NARROWEST, SimulatedPosterior, _Control
from neurodyn.sde.base import SDE
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.kalman import Information, Observation, kalman_information, kalman_smoother, smooth_at
from neurodyn.sde.linear_gaussian import FreeLinearGaussian, LinearGaussian
from neurodyn.sde.neural import MLPSDE
from neurodyn.sde.prior import CoreInitial, Prior
from neurodyn.sde.residual import ResidualLaw
from neurodyn.series import SeriesBatch
from neurodyn.solvers.brownian import Brownian
from neurodyn.solvers.grid import packed_grid, step_grid
from neurodyn.solvers.native import integrate

FEATURES = 4


def neural_prior(diffusion: str = "constant") -> Prior:
    torch.manual_seed(1)
    return Prior(MLPSDE(2, 8, linear=True, diffusion=diffusion), GaussianInitial(2)).double()


def linear_prior(core: LinearGaussian) -> Prior:
    return Prior(ResidualLaw(core.law, 8).double(), CoreInitial(core))


def posterior_for(prior: Prior, lively: float = 0.0, **options: object) -> SimulatedPosterior:
    """A fresh posterior, or with weights of this size."""
    torch.manual_seed(2)
    sizes = (prior.state_size, prior.sde.noise_size, FEATURES)
    posterior = SimulatedPosterior(*sizes, **({"longest_step": 0.05, "hidden_size": 16} | options)).double()
    if lively:
        for parameter in posterior.parameters():
            nn.init.normal_(parameter, std=lively)
    return posterior


def gaussian_log_prob(batch: SeriesBatch, observation: Observation, z: Tensor) -> Tensor:
    """(S, B)."""
    gap = batch.values - observation.bias - z @ observation.loading.mT
    density = -0.5 * (gap.square() / observation.variance + (2 * math.pi * observation.variance).log())
    return (density * batch.mask).sum((2, 3))


@pytest.mark.parametrize("diffusion", ["constant", "network"])
def test_a_fresh_posterior_is_the_prior_path_by_path_at_no_cost(diffusion: str) -> None:
    prior, batch = neural_prior(diffusion), ragged(1)
    found = posterior_for(prior)(context_for(batch, FEATURES), prior, RowNoise(0, batch.ids or ()), 3)
    assert torch.equal(found.path_kl, torch.zeros(3, dtype=DOUBLE))
    torch.testing.assert_close(found.initial_kl, torch.zeros(3, dtype=DOUBLE))
    noise, grid = RowNoise(0, batch.ids or ()), step_grid(batch.times, 0.05)
    z0 = noise.samples("start", 3, 2)
    brownian = Brownian(grid, (3, 3), 2, seeds=noise, dtype=DOUBLE)
    path = integrate(
        lambda k, t, z: prior.sde.drift(t, z), lambda k, t, z: prior.sde.diffusion(t, z), z0, grid, brownian
    )
    torch.testing.assert_close(found.z, path.states[..., list(grid.index), :], atol=1e-12, rtol=1e-12)


class DoobPosterior(SimulatedPosterior):
    """The exact smoother of a linear core as a simulated posterior: u = G^T (lambda - Lambda z)."""

    def give(self, core: LinearGaussian, batch: SeriesBatch) -> None:
        self.core = core
        self.data = (batch.times, batch.values, batch.mask)
        self.filtered = core.filter(batch)
        self.information: Information = kalman_information(core.law, core.observation(), *self.data)

    def start(self, context: Context, prior: Prior) -> tuple[Tensor, Tensor]:
        smoothed = kalman_smoother(self.filtered, self.information)
        return smoothed.mean[:, 0], torch.linalg.cholesky(smoothed.covariance[:, 0])

    def control_at(self, context: Context, t: Tensor, gaps: Tensor) -> _Control:
        there = smooth_at(self.core.law, self.filtered, self.information, self.data[0], t)
        noise = self.core.law.noise()
        return _Control(self, there.vector @ noise, -(noise.mT @ there.matrix), None)


@pytest.mark.parametrize("method", ["euler", "heun", "reversible_heun"])
def test_with_doobs_control_the_elbo_comes_to_the_exact_evidence_from_below(method: str) -> None:
    core, samples = free_core(), 4000
    batch = drawn_from(core, ragged(2, rows=3), seed=5)
    gaps = []
    for step in (0.05, 0.01):
        posterior = DoobPosterior(2, 2, FEATURES, longest_step=step, method=method).double()
        posterior.give(core, batch)
        with torch.no_grad():
            prior = linear_prior(core)
            found = posterior(context_for(batch, FEATURES), prior, RowNoise(0, batch.ids or ()), samples)
            log_prob = gaussian_log_prob(batch, core.observation(), found.z)
            gaps.append(core.evidence(batch) - (log_prob.mean(0) - found.path_kl - found.initial_kl))
            error = 4.5 * log_prob.std(0) / samples**0.5
    assert (gaps[1] > -error).all()
    assert (gaps[1] < 0.03 * batch.mask.sum((1, 2)) + error).all()  # per observed value; of first order in the step
    assert gaps[1].sum() < 0.5 * gaps[0].sum()


class ExactStepsPosterior(SimulatedPosterior):
    """The exact posterior of a scalar linear model in Euler steps, one row, by its messages from the future."""

    def give(self, core: LinearGaussian, batch: SeriesBatch) -> None:
        """`evidence` becomes log p(y) of the model in these steps, and `mean`, `root` the law of the start."""
        a, b, noise = (float(x.detach()) for x in (core.law.matrix(), core.law.offset(), core.law.noise()))
        loading, bias, variance = (float(x.detach()) for x in core.observation())
        grid = packed_grid(batch.times, self.longest_step)
        assert grid.places is not None
        seen = {
            int(k): (float(y), bool(m)) for k, y, m in zip(grid.places[0], batch.values[0], batch.mask[0], strict=True)
        }
        # the message at z is scale + vector z - matrix z^2 / 2
        matrix, vector, scale, offsets, gains, pulls = 0.0, 0.0, 0.0, [], [], []
        for k in reversed(range(grid.num_steps + 1)):
            if k < grid.num_steps:
                dt = float(grid.steps[0, k])
                slope, shift, q = 1 + a * dt, b * dt, noise**2 * dt
                shrink = 1 / (1 + matrix * q)
                offsets.append(noise * shrink * (vector - matrix * shift))
                gains.append(-noise * shrink * matrix * slope)
                pulls.append(NARROWEST * math.atanh(-math.log(shrink) / NARROWEST) / dt)
                scale += 0.5 * math.log(shrink) + shrink * (
                    0.5 * q * vector**2 + vector * shift - matrix * shift**2 / 2
                )
                matrix, vector = shrink * matrix * slope**2, shrink * slope * (vector - matrix * shift)
            if seen.get(k, (0.0, False))[1]:
                gap = seen[k][0] - bias
                matrix, vector = matrix + loading**2 / variance, vector + loading * gap / variance
                scale -= 0.5 * (math.log(2 * math.pi * variance) + gap**2 / variance)
        mean, cov = (float(x.detach()) for x in core.initial())
        shrink = 1 / (1 + matrix * cov)
        self.evidence = scale + 0.5 * math.log(shrink) + shrink * (0.5 * cov * vector**2 + vector * mean)
        self.evidence -= shrink * matrix * mean**2 / 2
        self.first = torch.tensor([[shrink * (mean + cov * vector)]], dtype=DOUBLE), math.sqrt(shrink * cov)
        self.steps = [torch.tensor(x[::-1], dtype=DOUBLE)[None, :, None] for x in (offsets, gains, pulls)]

    def start(self, context: Context, prior: Prior) -> tuple[Tensor, Tensor]:
        mean, root = self.first
        return mean, torch.full((1, 1, 1), root, dtype=DOUBLE)

    def control_at(self, context: Context, t: Tensor, gaps: Tensor) -> _Control:
        offset, gain, pull = self.steps
        return _Control(self, offset, gain[..., None], None, pull)


def test_the_family_has_the_exact_posterior_of_a_linear_model_in_euler_steps() -> None:
    """However coarse the steps, the ELBO then is the evidence of the model in these steps."""
    one = torch.ones(1, 1, dtype=DOUBLE)
    core = FreeLinearGaussian(-0.8 * one, 1.2 * one, 0.3 * one[0], 0.6 * one, 1.3 * one, 0.05 * one[0], 0.4 * one[0])
    batch, samples = drawn_from(core, ragged(1, rows=1, visits=6), seed=1), 20_000
    found = []
    for step in (0.5, 0.1, 0.01):
        posterior = ExactStepsPosterior(1, 1, FEATURES, longest_step=step, network=False).double()
        posterior.give(core, batch)
        prior = Prior(core.law, CoreInitial(core))
        with torch.no_grad():
            paths = posterior(context_for(batch, FEATURES), prior, RowNoise(0, batch.ids or ()), samples)
            log_prob = gaussian_log_prob(batch, core.observation(), paths.z)
        elbo = log_prob.mean() - paths.path_kl - paths.initial_kl
        # prices and densities vary together from path to path; the error of each is an upper bound
        assert abs(float(elbo) - posterior.evidence) < 4.5 * float(log_prob.std()) * 2 / samples**0.5
        found.append(posterior.evidence)
    evidence = float(core.evidence(batch).detach().sum())
    errors = [abs(value - evidence) for value in found]
    assert errors[2] < 0.02 and errors[2] < 0.3 * errors[1] < 0.3 * errors[0]  # of first order in the step


def log_weights(
    posterior: SimulatedPosterior, prior: Prior, batch: SeriesBatch, noise: RowNoise, samples: int
) -> tuple[Tensor, Tensor]:
    """Along simulated paths, step by step from the two Gaussians: log dP/dQ given the start, and its price, (S, B).

    With eps the step's standard normal, P sees u sqrt(dt) + s eps where Q drew eps and made it s eps.
    """
    context = context_for(batch, FEATURES)
    detail = posterior.detail(context, prior, noise, num_samples=samples)
    grid, control = posterior._control(context)
    dw = Brownian(grid, (samples, batch.num_rows), posterior.noise_size, seeds=noise, dtype=DOUBLE).increments()
    root = grid.steps.sqrt()[..., None]
    eps = torch.where(root > 0, dw.movedim(0, -2) / root, 0.0)
    spread = torch.stack(control.spread, 1) if control.spread else torch.ones_like(root)
    seen = detail.control * root + spread * eps
    log_ratio = (0.5 * (eps.square() - seen.square()) + spread.log()).sum((-2, -1))
    price = 0.5 * detail.control.square() * root**2 + 0.5 * (spread.square() - 1) - spread.log()
    return log_ratio, price.sum((-2, -1))


@pytest.mark.parametrize("kind", ["constant", "network", "core"])
@pytest.mark.parametrize("method", ["euler", "milstein"])
def test_girsanovs_weights_average_to_one_and_their_log_is_the_kl(kind: str, method: str) -> None:
    prior = linear_prior(free_core()) if kind == "core" else neural_prior(kind)
    posterior, samples = posterior_for(prior, lively=0.12, method=method), 10_000
    batch, noise = ragged(2, rows=2, visits=3), RowNoise(1, ["a", "b"])
    with torch.no_grad():
        log_weight, cost = log_weights(posterior, prior, batch, noise, samples)
        found = posterior(context_for(batch, FEATURES), prior, noise, samples)
    weight = log_weight.exp()
    assert (cost.mean(0) > 0.02).all()  # the control does something
    assert ((weight.mean(0) - 1).abs() < 4.5 * weight.std(0) / samples**0.5).all()
    torch.testing.assert_close(found.path_kl, cost.mean(0), atol=1e-10, rtol=1e-10)
    difference = -log_weight - cost  # a martingale at its end: of mean 0
    assert (difference.mean(0).abs() < 4.5 * difference.std(0) / samples**0.5).all()


def test_weighted_paths_of_any_posterior_give_the_exact_evidence() -> None:
    """p(y) = E_q[ p(y | z) dP/dQ ], start and path, for a control that is not the best one."""
    core, samples = free_core(), 40_000
    prior, batch, noise = linear_prior(core), ragged(2, rows=2, visits=3), RowNoise(3, ["a", "b"])
    posterior = posterior_for(prior, lively=0.1, longest_step=0.02)
    context = context_for(batch, FEATURES)
    with torch.no_grad():
        found = posterior(context, prior, noise, samples)
        log_weight = log_weights(posterior, prior, batch, noise, samples)[0]
        mean, root = posterior.start(context, prior)
        q0 = torch.distributions.MultivariateNormal(mean, scale_tril=root)
        z0 = found.z[:, :, 0]
        log_weight = log_weight + prior.initial.log_prob(z0) - q0.log_prob(z0)
        log_joint = gaussian_log_prob(batch, core.observation(), found.z) + log_weight
        evidence = torch.logsumexp(log_joint, 0) - math.log(samples)
        relative = (log_joint - log_joint.amax(0)).exp()
        error = relative.std(0) / relative.mean(0) / samples**0.5
        # KL of the start: the mean of the same log ratio
        torch.testing.assert_close(
            (q0.log_prob(z0) - prior.initial.log_prob(z0)).mean(0), found.initial_kl, atol=0.03, rtol=0
        )
    assert (error < 0.05).all()
    assert ((evidence - core.evidence(batch)).abs() < 4.5 * error + 0.02).all()


def gradients(posterior: SimulatedPosterior, prior: Prior, batch: SeriesBatch, samples: int = 2) -> dict[str, Tensor]:
    """Gradients of a loss of the latents and both KLs, by every parameter and by the features."""
    context = context_for(batch, FEATURES)
    features = context.features.requires_grad_()
    found = posterior(context, prior, RowNoise(0, batch.ids or ()), samples)
    loss = (found.z.square().mean(0).sum((1, 2)) + found.path_kl + found.initial_kl).sum()
    both = nn.ModuleDict({"posterior": posterior, "prior": prior})
    names, tensors = zip(*((n, p) for n, p in both.named_parameters() if p.requires_grad), strict=True)
    grads = torch.autograd.grad(loss, [*tensors, features], allow_unused=True)
    return {n: g for n, g in zip((*names, "features"), grads, strict=True) if g is not None}


WAYS = [
    (method, gradient, kind)
    for method, gradient in [
        ("euler", "checkpoint"),
        ("milstein", "checkpoint"),
        ("heun", "checkpoint"),
        ("reversible_heun", "checkpoint"),
        ("reversible_heun", "reversible"),
    ]
    for kind in ("constant", "network", "core")
    if kind != "network" or "heun" not in method  # these are for noise that does not depend on the state
]


@pytest.mark.parametrize("coupling", ["full", "diagonal", "none"])
@pytest.mark.parametrize(("method", "gradient", "kind"), WAYS)
def test_frugal_gradients_equal_backprop(method: str, gradient: str, kind: str, coupling: str) -> None:
    prior = linear_prior(free_core()) if kind == "core" else neural_prior(kind)
    posterior = posterior_for(prior, lively=0.3, method=method, coupling=coupling)
    batch = ragged(2)
    wanted = gradients(posterior, prior, batch)
    posterior.gradient = gradient
    found = gradients(posterior, prior, batch)
    assert wanted.keys() == found.keys() and len(found) > 15
    for name, grad in wanted.items():
        torch.testing.assert_close(found[name], grad, atol=1e-9, rtol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


class Quiet(SDE):
    """Almost no noise: every way of drawing it gives nearly the same path."""

    noise_type, sde_type, state_size, noise_size, state_independent = "diagonal", "ito", 2, 2, True

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 2)

    def drift(self, t: float | Tensor, z: Tensor) -> Tensor:
        return torch.tanh(self.net(z))

    def diffusion(self, t: float | Tensor, z: Tensor) -> Tensor:
        return torch.full_like(z, 1e-4)


@pytest.mark.parametrize("method", ["euler", "heun", "reversible_heun"])
def test_the_adjoint_has_the_gradient_of_backprop_where_noise_is_small(method: str) -> None:
    torch.manual_seed(0)
    prior = Prior(Quiet(), GaussianInitial(2)).double()
    posterior = posterior_for(prior, lively=0.3, method=method, longest_step=0.01)
    posterior.start_net.requires_grad_(False)
    batch = ragged(1, rows=2, visits=3)
    # both paths start from the same draws
    wanted = gradients(posterior, prior, batch, samples=1)
    posterior.gradient = "adjoint"
    found = gradients(posterior, prior, batch, samples=1)
    assert wanted.keys() == found.keys()
    for name, grad in wanted.items():
        assert (found[name] - grad).norm() <= 0.03 * grad.norm() + 1e-6, name


def test_the_adjoint_has_the_mean_kl_and_gradient_of_backprop() -> None:
    prior = linear_prior(free_core())
    posterior = posterior_for(prior, lively=0.3)
    batch = ragged(2, rows=2, visits=3)
    wanted = gradients(posterior, prior, batch, samples=400)
    posterior.gradient = "adjoint"
    found = gradients(posterior, prior, batch, samples=400)
    one, two = (torch.cat([grads[name].flatten() for name in wanted]) for grads in (wanted, found))
    assert torch.nn.functional.cosine_similarity(one, two, dim=0) > 0.98
    assert 0.8 < one.norm() / two.norm() < 1.25


@settings(max_examples=10, deadline=None)
@given(
    padding=st.integers(0, 3),
    order=st.permutations(range(3)),
    keep=st.integers(1, 3),
    method=st.sampled_from(["euler", "reversible_heun"]),
)
def test_padding_order_and_company_of_rows_change_nothing(
    padding: int, order: list[int], keep: int, method: str
) -> None:
    order = order[:keep]
    prior, batch = neural_prior(), ragged(1)
    posterior = posterior_for(prior, lively=0.3, method=method)
    context = context_for(batch, FEATURES)
    features = nn.functional.pad(context.features, (0, 0, 0, padding), value=7.0)[order]
    turned = Context(batch.padded(batch.num_times + padding).rows(order), features, context.summary[order])
    plain = posterior(context, prior, RowNoise(5, batch.ids or ()), 2)
    again = posterior(turned, prior, RowNoise(5, turned.batch.ids or ()), 2)
    torch.testing.assert_close(again.path_kl, plain.path_kl[order], atol=1e-10, rtol=1e-9)
    torch.testing.assert_close(again.initial_kl, plain.initial_kl[order], atol=1e-10, rtol=1e-9)
    torch.testing.assert_close(again.z[:, :, : batch.num_times], plain.z[:, order], atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("gradient", ["backprop", "checkpoint", "adjoint"])
def test_one_visit_needs_no_path(gradient: str) -> None:
    prior, batch = neural_prior(), ragged(1, rows=1, visits=1)
    found = posterior_for(prior, lively=0.3, gradient=gradient)(
        context_for(batch, FEATURES), prior, RowNoise(0, ["a"]), 4
    )
    assert found.z.shape == (4, 1, 1, 2) and found.path_kl.item() == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"gradient": "magic"}, "gradient: 'magic' given"),
        ({"gradient": "reversible"}, "gradient: 'reversible' given with method 'euler'"),
        ({"coupling": "some"}, "coupling: 'some' given"),
        ({"coupling": "none", "engine": "fused"}, "engine: 'fused' given with another method, gradient or coupling"),
        ({"longest_step": 0.0}, "longest_step: 0.0 given"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SimulatedPosterior(2, 2, FEATURES, **({"longest_step": 0.1} | options))


def test_diagonal_coupling_needs_as_many_noises_as_states() -> None:
    with pytest.raises(ValueError, match="coupling: 'diagonal' given for d = 3, m = 2"):
        SimulatedPosterior(3, 2, FEATURES, longest_step=0.1, coupling="diagonal")
