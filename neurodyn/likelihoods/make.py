"""The one door to likelihoods: by name, or an instance of one's own."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from torch import nn

from neurodyn.likelihoods.base import Likelihood
from neurodyn.likelihoods.classes import BernoulliLikelihood, CategoricalLikelihood
from neurodyn.likelihoods.counts import NegativeBinomialLikelihood, PoissonLikelihood
from neurodyn.likelihoods.real import GaussianLikelihood, LaplaceLikelihood, StudentTLikelihood
from neurodyn.spelling import check_options

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

_COMMON = ("decoder", "num_variables", "latent_size", "hidden_size")


def check_likelihood(likelihood: str, options: Iterable[str] = ()) -> None:
    """Check names alone, before anything is made: of the likelihood and of its options.

    Raises:
        ValueError: an unknown name, an option that the class lacks (naming the nearest), or one that it needs.
    """
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"likelihood: {likelihood!r} given, one of {', '.join(LIKELIHOODS)} wanted")
    own = {k: p for k, p in inspect.signature(LIKELIHOODS[likelihood]).parameters.items() if k not in _COMMON}
    needed = [name for name, parameter in own.items() if parameter.default is parameter.empty]
    check_options(f"options of {likelihood}", options, own, needed)


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
        ValueError: see `check_likelihood`; an instance for another number of variables.
    """
    if isinstance(likelihood, Likelihood):
        if likelihood.num_variables != num_variables:
            raise ValueError(f"likelihood: got one for {likelihood.num_variables} variables, want {num_variables}")
        return likelihood
    check_likelihood(likelihood, options)
    return LIKELIHOODS[likelihood](decoder, num_variables, latent_size=latent_size, hidden_size=hidden_size, **options)
