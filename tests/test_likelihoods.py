"""Likelihoods against scipy's and torch's laws, their own samples, and rubbish under the mask."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neurodyn.likelihoods import (
    LIKELIHOODS,
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    LaplaceLikelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    StudentTLikelihood,
    make_likelihood,
)

LATENT, VARIABLES, CLASSES = 3, 4, 5
BUILDERS = {
    "gaussian": lambda **k: make_likelihood("gaussian", LATENT, VARIABLES, **k),
    "gaussian-network": lambda **k: make_likelihood("gaussian", LATENT, VARIABLES, noise="network", **k),
    "gaussian-fixed": lambda **k: make_likelihood("gaussian", LATENT, VARIABLES, noise=0.3, **k),
    "student_t": lambda **k: make_likelihood("student_t", LATENT, VARIABLES, **k),
    "laplace": lambda **k: make_likelihood("laplace", LATENT, VARIABLES, **k),
    "poisson": lambda **k: make_likelihood("poisson", LATENT, VARIABLES, exposure=0.7, **k),
    "poisson-softplus": lambda **k: make_likelihood("poisson", LATENT, VARIABLES, link="softplus", **k),
    "negative_binomial": lambda **k: make_likelihood("negative_binomial", LATENT, VARIABLES, exposure=2.0, **k),
    "bernoulli": lambda **k: make_likelihood("bernoulli", LATENT, VARIABLES, **k),
    "categorical": lambda **k: make_likelihood("categorical", LATENT, VARIABLES, num_classes=CLASSES, **k),
}
KINDS = list(BUILDERS)


def build(kind, dtype=torch.float64, seed=0, **options):
    """A likelihood whose own parameters differ from variable to variable."""
    torch.manual_seed(seed)
    law = BUILDERS[kind](**options).to(dtype)
    for name, parameter in law.named_parameters():
        if not name.startswith("decoder"):
            parameter.data += torch.linspace(-0.5, 0.5, VARIABLES, dtype=dtype)
    return law


def draw(law, lead=(), rows=2, visits=5, dtype=torch.float64, seed=0):
    """Latents (*lead, B, T, d), values (B, T, D) sampled from the law, and a mask."""
    g = torch.Generator().manual_seed(seed)
    latent = torch.randn(*lead, rows, visits, LATENT, generator=g, dtype=torch.float64).to(dtype)
    values = law.sample(latent[(0,) * len(lead)], g)
    mask = torch.rand(rows, visits, VARIABLES, generator=g) > 0.3
    return latent, values, mask


def peer_log_density(law, values, latent):
    """The same log-densities (B, T, D) from scipy, with the decoder applied by hand."""
    raw, y = law.decoder(latent).detach().numpy(), values.numpy()
    first = raw[..., :VARIABLES]

    def array(x):
        return x.detach().numpy()

    if isinstance(law, GaussianLikelihood):
        sd = array(law.noise_sd(latent))
        return scipy.stats.norm.logpdf(y, first, sd)
    if isinstance(law, StudentTLikelihood):
        return scipy.stats.t.logpdf(y, array(law.df), first, array(law.scale))
    if isinstance(law, LaplaceLikelihood):
        return scipy.stats.laplace.logpdf(y, first, array(law.scale))
    if isinstance(law, PoissonLikelihood | NegativeBinomialLikelihood):
        mean = law.exposure * (np.exp(first) if law.link == "log" else np.logaddexp(0.0, first))
        if isinstance(law, PoissonLikelihood):
            return scipy.stats.poisson.logpmf(y, mean)
        r = array(law.dispersion)
        return scipy.stats.nbinom.logpmf(y, r, r / (r + mean))
    if isinstance(law, BernoulliLikelihood):
        return scipy.stats.bernoulli.logpmf(y, 1.0 / (1.0 + np.exp(-first)))
    scores = torch.as_tensor(raw).unflatten(-1, (CLASSES, VARIABLES)).transpose(-1, -2)
    return array(torch.distributions.Categorical(logits=scores).log_prob(values))


@pytest.mark.parametrize("decoder", ["linear", "mlp"])
@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_agrees_with_scipy(kind, decoder):
    law = build(kind, decoder=decoder)
    latent, values, mask = draw(law)
    want = np.where(mask.numpy(), peer_log_density(law, values, latent), 0.0).sum(-1)
    np.testing.assert_allclose(law.log_prob(values, latent, mask).detach().numpy(), want, rtol=1e-10, atol=1e-10)


def test_network_noise_is_the_decoders_second_half():
    law = build("gaussian-network", decoder="linear")
    latent = torch.randn(2, 3, LATENT, dtype=torch.float64)
    want = torch.nn.functional.softplus(law.decoder(latent)[..., VARIABLES:]) + 1e-3
    torch.testing.assert_close(law.noise_sd(latent), want)
    with pytest.raises(ValueError, match="latent"):
        law.noise_sd()


def test_fixed_noise_is_what_was_given_and_is_not_trained():
    law = GaussianLikelihood("linear", 2, noise=[0.1, 2.0], latent_size=3)
    torch.testing.assert_close(law.noise_sd(), torch.tensor([0.1, 2.0]))
    assert {name for name, _ in law.named_parameters()} == {"decoder.weight", "decoder.bias"}
    assert "log_noise_sd" in law.state_dict()
    shared = GaussianLikelihood("linear", 2, noise=0.1, latent_size=3)
    torch.testing.assert_close(shared.noise_sd(), torch.full((2,), 0.1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(samples=st.integers(1, 3), rows=st.integers(1, 3), visits=st.integers(1, 4), seed=st.integers(0, 1000))
def test_leading_sample_dimensions_broadcast(kind, dtype, samples, rows, visits, seed):
    law = build(kind, dtype)
    latent, values, mask = draw(law, (samples, 2), rows, visits, dtype, seed)
    got = law.log_prob(values, latent, mask)
    assert got.shape == (samples, 2, rows, visits) and got.dtype == dtype
    one = law.log_prob(values[-1:], latent[-1, -1, -1:], mask[-1:])
    torch.testing.assert_close(got[-1, -1, -1:], one, rtol=1e-5, atol=1e-5)
    assert law.mean(latent).shape == law.sample(latent).shape == (samples, 2, rows, visits, VARIABLES)


@pytest.mark.parametrize("rubbish", [math.nan, math.inf, -math.inf, -3.5, 1e30])
@pytest.mark.parametrize("kind", KINDS)
def test_rubbish_under_the_mask_reaches_neither_loss_nor_gradients(kind, rubbish):
    law = build(kind)
    latent, values, mask = draw(law, (2,))
    mask[0, 0] = False

    def run(values, latent):
        latent = latent.clone().requires_grad_()
        law.zero_grad()
        total = law.log_prob(values, latent, mask)
        total.sum().backward()
        return [total.detach(), latent.grad, *(p.grad.clone() for p in law.parameters())]

    plain = run(values, latent)
    assert (plain[0][:, 0, 0] == 0).all()
    for a, b in zip(plain, run(torch.where(mask, values, rubbish), latent), strict=True):
        assert torch.isfinite(b).all() and torch.equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_that_overflows_where_nothing_is_observed_does_no_harm(kind):
    law = build(kind, torch.float32, decoder="linear")
    latent, values, mask = draw(law, (), dtype=torch.float32)
    mask[0, 0] = False
    latent[0, 0] = 1e30
    latent.requires_grad_()
    total = law.log_prob(values, latent, mask)
    total.sum().backward()
    assert torch.isfinite(total).all() and torch.isfinite(latent.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in law.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_by_finite_differences(kind):
    law = build(kind)
    latent, values, mask = draw(law, rows=1, visits=2)
    names, parameters = zip(*law.named_parameters(), strict=True)
    wrapped = _LogProb(law)

    def score(latent, *parameters):
        replaced = {f"law.{name}": p for name, p in zip(names, parameters, strict=True)}
        return torch.func.functional_call(wrapped, replaced, (values, latent, mask))

    leaves = [x.detach().requires_grad_() for x in (latent, *parameters)]
    assert torch.autograd.gradcheck(score, leaves)


class _LogProb(nn.Module):
    def __init__(self, law):
        super().__init__()
        self.law = law

    def forward(self, *arguments):
        return self.law.log_prob(*arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_mean_and_the_density_of_the_law(kind):
    law = build(kind, seed=2)
    if kind == "student_t":  # light enough tails for a central limit theorem
        law.raw_df.data += 10.0
    latent = torch.randn(1, LATENT, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    count = 40_000
    draws = law.sample(latent.expand(count, -1), torch.Generator().manual_seed(4))
    error = draws.std(0) / math.sqrt(count)
    assert ((draws.mean(0) - law.mean(latent)[0]).abs() < 4.5 * error + 1e-9).all()
    # Density: the distribution function of each variable, from scipy or by summing the masses.
    for j in range(VARIABLES):
        mask = torch.zeros(1, 1, VARIABLES, dtype=torch.bool)
        mask[..., j] = True
        if bool((draws == draws.round()).all()):
            support = torch.arange(int(draws[:, j].max()) + 1, dtype=torch.float64)
            values = support.view(-1, 1, 1).expand(-1, 1, VARIABLES)
            mass = law.log_prob(values, latent[None].expand(len(support), 1, -1), mask).exp().flatten().detach()
            seen = (draws[:, j].unsqueeze(1) == support).double().mean(0)
            assert ((seen - mass).abs() < 4.5 * (mass / count).sqrt() + 1e-4).all()
        else:
            grid = torch.linspace(-40.0, 40.0, 400_001, dtype=torch.float64)
            values = grid.view(-1, 1, 1).expand(-1, 1, VARIABLES)
            density = law.log_prob(values, latent[None].expand(len(grid), 1, -1), mask).exp().flatten().detach()
            cdf = torch.cumulative_trapezoid(density, grid).numpy()
            assert cdf[-1] == pytest.approx(1.0, abs=1e-4)
            uniform = np.interp(draws[:5000, j].numpy(), grid[1:].numpy(), cdf)
            found = scipy.stats.kstest(uniform, "uniform")
            assert found.pvalue > 1e-4


def test_heavy_tails_of_student_t_samples_are_exact():
    law = StudentTLikelihood("linear", 1, latent_size=1).double()
    law.raw_df.data.fill_(-3.0)
    draws = law.sample(torch.zeros(20_000, 1, dtype=torch.float64), torch.Generator().manual_seed(0))
    location = law.decoder.bias.item()
    assert 2.0 < law.df.item() < 2.1
    peer = scipy.stats.t(law.df.item(), location, law.scale.item())
    assert scipy.stats.kstest(draws[:, 0].numpy(), peer.cdf).pvalue > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_the_generator_alone_decides_the_draw(kind):
    law = build(kind)
    latent = torch.randn(50, LATENT, dtype=torch.float64)
    draws = [law.sample(latent, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert not draws[0].requires_grad


def test_exposure_scales_the_mean_and_not_the_rate():
    short = PoissonLikelihood("linear", 2, exposure=0.02, latent_size=3)
    long = PoissonLikelihood(short.decoder, 2, exposure=0.2)
    latent = torch.randn(4, 3)
    torch.testing.assert_close(long.mean(latent), 10 * short.mean(latent))
    torch.testing.assert_close(long.rate(latent), short.rate(latent))


def test_softplus_link_is_exact_far_below_zero():
    law = PoissonLikelihood(nn.Identity(), 1, link="softplus")
    latent = torch.tensor([[[-200.0]], [[-25.0]], [[-15.0]]], requires_grad=True)
    ones = torch.ones(3, 1, 1)
    got = law.log_prob(ones, latent, ones.bool())
    want = np.log(np.log1p(np.exp(latent.detach().double().numpy())))
    np.testing.assert_allclose(got.detach().numpy(), want[..., 0], rtol=1e-5)
    got.sum().backward()
    torch.testing.assert_close(latent.grad, torch.ones_like(latent))


def test_exploding_rates_still_give_counts():
    for law in (PoissonLikelihood(nn.Identity(), 1), NegativeBinomialLikelihood(nn.Identity(), 1)):
        counts = law.sample(torch.full((5, 1), 500.0), torch.Generator().manual_seed(0))
        assert torch.isfinite(counts).all() and (counts > 1e7).all()


def test_negative_binomial_tends_to_poisson():
    wide = NegativeBinomialLikelihood(nn.Identity(), 1).double()
    wide.log_dispersion.data.fill_(20.0)
    counts = torch.arange(20.0, dtype=torch.float64).view(1, 20, 1)
    latent, mask = torch.full((1, 20, 1), 1.3, dtype=torch.float64), torch.ones(1, 20, 1, dtype=torch.bool)
    poisson = PoissonLikelihood(nn.Identity(), 1).log_prob(counts, latent, mask)
    torch.testing.assert_close(wide.log_prob(counts, latent, mask), poisson, rtol=1e-5, atol=1e-5)


def test_class_probabilities_sum_to_one_and_give_the_mean():
    law = build("categorical")
    latent = torch.randn(2, 3, LATENT, dtype=torch.float64)
    probabilities = law.probabilities(latent)
    assert probabilities.shape == (2, 3, VARIABLES, CLASSES)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, 3, VARIABLES, dtype=torch.float64))
    torch.testing.assert_close((probabilities * torch.arange(CLASSES)).sum(-1), law.mean(latent))


@pytest.mark.parametrize(
    ("kind", "bad", "wanted"),
    [
        ("gaussian", math.nan, "finite numbers"),
        ("poisson", 1.5, "whole numbers from 0"),
        ("poisson", -1.0, "whole numbers from 0"),
        ("negative_binomial", math.inf, "whole numbers from 0"),
        ("bernoulli", 2.0, "0 or 1"),
        ("categorical", float(CLASSES), "whole numbers from 0 to 4"),
        ("categorical", math.nan, "whole numbers from 0 to 4"),
    ],
)
def test_check_names_the_variable_and_reads_only_what_is_observed(kind, bad, wanted):
    law = build(kind)
    values = torch.ones(2, 3, VARIABLES)
    mask = torch.ones(2, 3, VARIABLES, dtype=torch.bool)
    law.check(values, mask)
    values[1, 2, 3] = bad
    with pytest.raises(ValueError, match=f"variable 3 holds {bad:g}, want {wanted} for"):
        law.check(values, mask)
    mask[1, 2, 3] = False
    law.check(values, mask)


def test_bfloat16_latents_are_scored_in_float32():
    law = build("gaussian", torch.float32)
    latent, values, mask = draw(law, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = law.log_prob(values, latent, mask)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, law.log_prob(values, latent, mask), rtol=0.05, atol=0.05)


def test_make_likelihood_knows_every_name_and_instances():
    for name, kind in LIKELIHOODS.items():
        options = {"num_classes": 3} if name == "categorical" else {}
        assert type(make_likelihood(name, 3, 2, **options)) is kind
    law = LaplaceLikelihood("linear", 2, latent_size=3)
    assert make_likelihood(law, 3, 2) is law


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="got one for 2 variables, want 4"):
        make_likelihood(LaplaceLikelihood("linear", 2, latent_size=3), 3, 4)
    with pytest.raises(ValueError, match="likelihood: 'cauchy' given, one of gaussian"):
        make_likelihood("cauchy", 3, 2)
    with pytest.raises(ValueError, match=r"options of laplace.*noise"):
        make_likelihood("laplace", 3, 2, noise=0.1)
    with pytest.raises(ValueError, match="decoder: got 'cnn'"):
        make_likelihood("laplace", 3, 2, decoder="cnn")
    with pytest.raises(ValueError, match="latent_size"):
        GaussianLikelihood("linear", 2)
    for noise in (0.0, -1.0, math.nan, math.inf, [0.1, 0.2, 0.3], "loud"):
        with pytest.raises(ValueError, match="noise: got"):
            GaussianLikelihood("linear", 2, noise=noise, latent_size=3)
    with pytest.raises(ValueError, match="exposure"):
        PoissonLikelihood("linear", 2, exposure=0.0, latent_size=3)
    with pytest.raises(ValueError, match="link"):
        PoissonLikelihood("linear", 2, link="sqrt", latent_size=3)
    with pytest.raises(ValueError, match="num_classes"):
        CategoricalLikelihood("linear", 2, 1, latent_size=3)
    law = LaplaceLikelihood(nn.Linear(3, 5), 2)
    with pytest.raises(ValueError, match="decoder: gives 5 outputs, want 2"):
        law.mean(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="values: got 1 variables, want 2"):
        law.log_prob(torch.zeros(1, 1, 1), torch.zeros(1, 1, 3), torch.ones(1, 1, 1, dtype=torch.bool))


def test_shared_noise_is_one_number_that_is_learned_for_all_variables():
    law = GaussianLikelihood("linear", 3, "shared", latent_size=2)
    assert law.log_noise_sd.shape == (1,)
    torch.testing.assert_close(law.noise_sd(), torch.full((3,), 0.5))
    values, latent = torch.randn(40, 3), torch.zeros(40, 2)
    fixed = GaussianLikelihood(law.decoder, 3, 0.5, latent_size=2)
    mask = torch.rand(40, 3) < 0.8
    torch.testing.assert_close(law.log_prob(values, latent, mask), fixed.log_prob(values, latent, mask))
    # its best value is the root mean square of all residuals together
    optimiser = torch.optim.LBFGS([law.log_noise_sd], max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = -law.log_prob(values, latent, mask).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    residual = (values - law.mean(latent))[mask]
    torch.testing.assert_close(law.noise_sd()[0], residual.square().mean().sqrt(), rtol=1e-3, atol=1e-3)
