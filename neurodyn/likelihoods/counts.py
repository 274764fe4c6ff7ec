"""Likelihoods of counts: Poisson and negative binomial."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodyn.likelihoods.base import Likelihood, Source
from neurodyn.likelihoods.count_draws import draw_gamma, draw_poisson


class _CountLikelihood(Likelihood):
    """Counts with expectation rate * exposure, where rate = exp or softplus of the decoder's output.

    Args:
        exposure: the time (or area, population...) that a count was collected over: the bin width of binned spikes.
        link: "log" (rate = exp(output)) or "softplus" (rate = log(1 + exp(output)), which cannot explode).
    """

    wanted_values = "whole numbers from 0"

    def __init__(
        self,
        decoder: str | nn.Module,
        num_variables: int,
        *,
        exposure: float = 1.0,
        link: Literal["log", "softplus"] = "log",
        latent_size: int | None = None,
        hidden_size: int = 64,
    ):
        super().__init__(decoder, num_variables, latent_size=latent_size, hidden_size=hidden_size)
        if not (exposure > 0 and math.isfinite(exposure)):
            raise ValueError(f"exposure: got {exposure}, want a positive number")
        if link not in ("log", "softplus"):
            raise ValueError(f"link: got {link!r}, want 'log' or 'softplus'")
        self.exposure, self.link = float(exposure), link

    def rate(self, latent: Tensor) -> Tensor:
        """Expected counts per unit of exposure (..., D) given latents (..., d)."""
        return self.mean(latent) / self.exposure

    def _log_mean(self, raw: Tensor) -> Tensor:
        eta = raw[..., 0, :]
        if self.link == "softplus":
            # Below -20, log(softplus(x)) = x to rounding, and softplus itself underflows.
            eta = torch.where(eta > -20.0, F.softplus(eta.clamp_min(-20.0)).log(), eta)
        return eta + math.log(self.exposure)

    def _mean(self, raw: Tensor) -> Tensor:
        return self._log_mean(raw).exp()

    def _acceptable(self, values: Tensor) -> Tensor:
        return torch.isfinite(values) & (values >= 0) & (values == values.round())


class PoissonLikelihood(_CountLikelihood):
    """Poisson counts; arguments as in the base: ``exposure`` and ``link``."""

    def _log_density(self, values: Tensor, raw: Tensor) -> Tensor:
        log_mean = self._log_mean(raw)
        return values * log_mean - log_mean.exp() - torch.lgamma(values + 1.0)

    def _sample(self, raw: Tensor, generator: Source) -> Tensor:
        mean = self._mean(raw)
        return draw_poisson(mean, generator).to(mean.dtype)


class NegativeBinomialLikelihood(_CountLikelihood):
    """Overdispersed counts: mean m, variance m + m² / r, with a learned r per variable (starting at 5).

    This is the gamma mixture of Poisson laws; ``exposure`` and ``link`` as in the base.
    """

    def __init__(
        self,
        decoder: str | nn.Module,
        num_variables: int,
        *,
        exposure: float = 1.0,
        link: Literal["log", "softplus"] = "log",
        latent_size: int | None = None,
        hidden_size: int = 64,
    ):
        super().__init__(
            decoder, num_variables, exposure=exposure, link=link, latent_size=latent_size, hidden_size=hidden_size
        )
        self.log_dispersion = nn.Parameter(torch.full((num_variables,), math.log(5.0)))

    @property
    def dispersion(self) -> Tensor:
        """(D,) the r of the variance m + m² / r; the law tends to Poisson as r grows."""
        return self.log_dispersion.exp()

    def _log_density(self, values: Tensor, raw: Tensor) -> Tensor:
        log_mean, log_r, r = self._log_mean(raw), self.log_dispersion, self.dispersion
        log_total = torch.logaddexp(log_mean, log_r)
        choices = torch.lgamma(values + r) - torch.lgamma(r) - torch.lgamma(values + 1.0)
        return choices + r * (log_r - log_total) + values * (log_mean - log_total)

    def _sample(self, raw: Tensor, generator: Source) -> Tensor:
        mean = self._mean(raw)
        r = self.dispersion.double().expand_as(mean)
        return draw_poisson(mean * draw_gamma(r, generator) / r, generator).to(mean.dtype)
