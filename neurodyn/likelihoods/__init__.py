"""Likelihoods: what is observed, given the latent state; see `neurodyn.likelihoods.base`."""

from neurodyn.likelihoods.base import Likelihood, open_uniform, standard_normal
from neurodyn.likelihoods.classes import BernoulliLikelihood, CategoricalLikelihood
from neurodyn.likelihoods.counts import NegativeBinomialLikelihood, PoissonLikelihood
from neurodyn.likelihoods.make import LIKELIHOODS, check_likelihood, make_likelihood
from neurodyn.likelihoods.real import GaussianLikelihood, LaplaceLikelihood, StudentTLikelihood

__all__ = [
    "LIKELIHOODS",
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "GaussianLikelihood",
    "LaplaceLikelihood",
    "Likelihood",
    "NegativeBinomialLikelihood",
    "PoissonLikelihood",
    "StudentTLikelihood",
    "check_likelihood",
    "make_likelihood",
    "open_uniform",
    "standard_normal",
]
