"""The one door to likelihoods: by name, or an instance of one's own."""

from __future__ import annotations

from typing import Any

from torch import nn

from neurodyn.likelihoods.base import Likelihood
from neurodyn.likelihoods.classes import BernoulliLikelihood, CategoricalLikelihood
from neurodyn.likelihoods.counts import NegativeBinomialLikelihood, PoissonLikelihood
from neurodyn.likelihoods.real import GaussianLikelihood, LaplaceLikelihood, StudentTLikelihood

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "gaussian": GaussianLikelihood,
    "student_t": StudentTLikelihood,
    "laplace": LaplaceLikelihood,
    "poisson": PoissonLikelihood,
    "negative_binomial": NegativeBinomialLikelihood,
    "bernoulli": BernoulliLikelihood,
    "categorical": CategoricalLikelihood,
}
"""The names that `make_likelihood` knows."""


def make_likelihood(
    likelihood: str | Likelihood,
    latent_size: int,
    num_variables: int,
    *,
    hidden_size: int = 64,
    decoder: str | nn.Module = "mlp",
    **options: Any,
) -> Likelihood:
    """A likelihood from its name, or the given instance if it fits.

    Args:
        likelihood: a key of `LIKELIHOODS`, or an instance, which is handed back.
        latent_size, num_variables, hidden_size, decoder: see `Likelihood`.
        options: further arguments of the class: ``noise``, ``exposure``, ``link``, ``num_classes``.

    Raises:
        ValueError: an unknown name, an option that the class lacks, an instance for another number of variables.
    """
    if isinstance(likelihood, Likelihood):
        if likelihood.num_variables != num_variables:
            raise ValueError(f"likelihood: got one for {likelihood.num_variables} variables, want {num_variables}")
        return likelihood
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"likelihood: got {likelihood!r}, want one of {', '.join(LIKELIHOODS)}")
    try:
        return LIKELIHOODS[likelihood](
            decoder, num_variables, latent_size=latent_size, hidden_size=hidden_size, **options
        )
    except TypeError as error:
        raise ValueError(f"options of {likelihood}: got {sorted(options)}; {error}") from error
