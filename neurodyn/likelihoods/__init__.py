"""Likelihoods: what is observed, given the latent state; see `neurodyn.likelihoods.base`."""

from neurodyn.likelihoods.base import Likelihood
from neurodyn.likelihoods.classes import BernoulliLikelihood, CategoricalLikelihood
from neurodyn.likelihoods.counts import NegativeBinomialLikelihood, PoissonLikelihood
from neurodyn.likelihoods.make import LIKELIHOODS, make_likelihood
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
    "make_likelihood",
]
