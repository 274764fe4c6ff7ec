"""Counts and gamma variates from uniforms, against scipy's laws; row noise gives every row its own."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from neurodyn.likelihoods import BernoulliLikelihood, CategoricalLikelihood, Likelihood, make_likelihood
from neurodyn.likelihoods.count_draws import draw_gamma, draw_poisson, poisson_quantile
from neurodyn.noise import RowNoise

DOUBLE = torch.float64


@pytest.mark.parametrize("mean", [0.0, 1e-6, 0.3, 4.0, 15.9])
def test_small_means_give_the_exact_quantile(mean: float) -> None:
    uniform = torch.cat((torch.rand(20_000, dtype=DOUBLE), torch.tensor([1e-12, 1 - 1e-12], dtype=DOUBLE)))
    found = poisson_quantile(uniform, torch.full_like(uniform, mean))
    np.testing.assert_array_equal(found.numpy(), scipy.stats.poisson(mean).ppf(uniform.numpy()))


@pytest.mark.parametrize(("mean", "most_wrong"), [(16.1, 1 / 4000), (100.0, 1 / 20_000), (1e4, 1e-5), (1e6, 1e-5)])
def test_large_means_give_it_but_for_rare_ones_off_by_one(mean: float, most_wrong: float) -> None:
    count = 200_000 if mean < 1e5 else 5000  # scipy's quantile is slow for large means
    uniform = (torch.arange(count, dtype=DOUBLE) + 0.5) / count
    found = poisson_quantile(uniform, torch.full_like(uniform, mean)).numpy()
    expected = scipy.stats.poisson(mean).ppf(uniform.numpy())
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < most_wrong


def test_a_mean_that_is_not_a_number_gives_no_number_and_disturbs_no_other() -> None:
    mean = torch.tensor([torch.nan, 3.0, torch.inf, 0.0])
    generator = torch.Generator().manual_seed(0)
    found = draw_poisson(mean, generator)
    assert found[0].isnan()
    assert abs(found[2] - 1e9) < 1e6  # capped
    assert found[3] == 0 and 0 <= found[1] < 30


@pytest.mark.parametrize("shape", [0.05, 0.8, 3.0, 200.0])
def test_gamma_variates_have_their_law(shape: float) -> None:
    draws = draw_gamma(torch.full((20_000,), shape), torch.Generator().manual_seed(1)).numpy()
    assert scipy.stats.kstest(draws, scipy.stats.gamma(shape).cdf).pvalue > 1e-3


@pytest.mark.parametrize("shape", [0.3, 5.0])
def test_gamma_variates_from_row_noise_have_their_law_too(shape: float) -> None:
    noise = RowNoise(3, ["a", "b"])
    draws = draw_gamma(torch.full((5000, 2, 2), shape, dtype=DOUBLE), noise).flatten().numpy()
    assert scipy.stats.kstest(draws, scipy.stats.gamma(shape).cdf).pvalue > 1e-3


def identity_likelihood(name: str) -> Likelihood:
    if name == "categorical":
        return CategoricalLikelihood(nn.Identity(), 1, 3)
    if name == "bernoulli":
        return BernoulliLikelihood(nn.Identity(), 1)
    return make_likelihood(name, 1, 1, decoder=nn.Identity())


@pytest.mark.parametrize("source", ["generator", "rows"])
@pytest.mark.parametrize("mean", [0.4, 30.0])
@pytest.mark.parametrize("name", ["poisson", "negative_binomial"])
def test_sampled_counts_have_the_probabilities_of_the_law(name: str, mean: float, source: str) -> None:
    count = 4000
    latent = torch.full((count, 2, 5, 1), mean, dtype=DOUBLE).log()
    with torch.no_grad():
        draws = identity_likelihood(name).sample(
            latent, RowNoise(1, ["a", "b"]) if source == "rows" else torch.Generator().manual_seed(0)
        )
    law = scipy.stats.poisson(mean) if name == "poisson" else scipy.stats.nbinom(5, 5 / (5 + mean))
    edges = np.unique(law.ppf(np.linspace(0.001, 0.999, 40)))
    observed = np.histogram(draws.numpy(), np.concatenate(([-0.5], edges + 0.5, [np.inf])))[0]
    chances = np.diff(np.concatenate(([0.0], law.cdf(edges), [1.0])))
    assert scipy.stats.chisquare(observed, chances * draws.numel()).pvalue > 1e-3


@pytest.mark.parametrize("source", ["generator", "rows"])
def test_sampled_classes_have_their_frequencies(source: str) -> None:
    noise = RowNoise(2, ["a", "b"]) if source == "rows" else torch.Generator().manual_seed(1)
    latent = torch.tensor([0.3, -0.5, 1.0], dtype=DOUBLE).expand(20_000, 2, 1, 3)
    codes = identity_likelihood("categorical").sample(latent, noise).flatten().long()
    chances = latent[0, 0, 0].softmax(0).numpy()
    assert scipy.stats.chisquare(codes.bincount(minlength=3).numpy(), chances * len(codes)).pvalue > 1e-3
    ones = identity_likelihood("bernoulli").sample(latent[..., :1], noise)
    chance = torch.sigmoid(latent[0, 0, 0, 0]).item()
    assert abs(ones.mean().item() - chance) < 4.5 * (chance * (1 - chance) / ones.numel()) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("name", ["poisson", "negative_binomial", "bernoulli", "categorical", "student_t", "laplace"])
def test_a_rows_draws_do_not_depend_on_the_other_rows(name: str, dtype: torch.dtype) -> None:
    likelihood = identity_likelihood(name).to(dtype)
    outputs = 3 if name == "categorical" else 1
    ids = ["a", "b", "c", "d"]
    latent = 2 * torch.randn(6, 4, 7, outputs, dtype=dtype, generator=torch.Generator().manual_seed(0))
    latent[:, 1] += 5  # a row of large means
    whole = likelihood.sample(latent, RowNoise(5, ids))
    assert whole.dtype == dtype
    order = [2, 0]
    part = likelihood.sample(latent[:, order, :4], RowNoise(5, [ids[k] for k in order]))
    torch.testing.assert_close(part, whole[:, order, :4], atol=0, rtol=0)
    assert not torch.equal(whole, likelihood.sample(latent, RowNoise(6, ids)))
