"""Likelihoods of real values: Gaussian, Student's t, Laplace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodyn.likelihoods.base import Likelihood, Source, open_uniform, standard_normal

MIN_NETWORK_SD = 1e-3
"""Smallest standard deviation that a network may predict, in units of the values: a density on a point is infinite."""


class GaussianLikelihood(Likelihood):
    """y ~ N(decoder(z), sd²).

    Args:
        noise: "learned" (one sd per variable, starting at ``0.5``), "shared" (one for all, learned), "network" (the
            decoder gives an sd for every entry, not below `MIN_NETWORK_SD`), or a fixed sd: a positive number, or one
            per variable.
    """

    def __init__(
        self,
        decoder: str | nn.Module,
        num_variables: int,
        noise: Literal["learned", "shared", "network"] | float | Sequence[float] | Tensor = "learned",
        *,
        latent_size: int | None = None,
        hidden_size: int = 64,
    ):
        if isinstance(noise, str) and noise not in ("learned", "shared", "network"):
            raise ValueError(f"noise: got {noise!r}, want 'learned', 'shared', 'network' or a positive sd")
        self.parameters_per_variable = 2 if noise == "network" else 1
        super().__init__(decoder, num_variables, latent_size=latent_size, hidden_size=hidden_size)
        if noise == "network":
            self.log_noise_sd: Tensor | None = None
        elif noise in ("learned", "shared"):
            count = num_variables if noise == "learned" else 1
            self.log_noise_sd = nn.Parameter(torch.full((count,), math.log(0.5)))
        else:
            sd = torch.as_tensor(noise, dtype=torch.get_default_dtype())
            if (
                sd.ndim > 1
                or (sd.ndim == 1 and sd.shape[0] != num_variables)
                or not bool(((sd > 0) & sd.isfinite()).all())
            ):
                raise ValueError(f"noise: got {noise}, want a positive sd, or {num_variables} of them")
            self.register_buffer("log_noise_sd", sd.log().expand(num_variables).clone())

    def noise_sd(self, latent: Tensor | None = None) -> Tensor:
        """Standard deviation of the noise: (D,), or (..., D) at the given latents if a network gives it.

        Raises:
            ValueError: ``noise="network"`` and no latent.
        """
        if self.log_noise_sd is not None:
            return self.log_noise_sd.exp().expand(self.num_variables)
        if latent is None:
            raise ValueError("latent: got None, want the latents (..., d), since a network gives this noise")
        return self._sd(self._decode(latent))

    def _sd(self, raw: Tensor) -> Tensor:
        if self.log_noise_sd is not None:
            return self.log_noise_sd.exp()
        return MIN_NETWORK_SD + F.softplus(raw[..., 1, :])

    def _log_density(self, values: Tensor, raw: Tensor) -> Tensor:
        sd = self._sd(raw)
        return -0.5 * ((values - raw[..., 0, :]) / sd).square() - sd.log() - 0.5 * math.log(2.0 * math.pi)

    def _mean(self, raw: Tensor) -> Tensor:
        return raw[..., 0, :]

    def _sample(self, raw: Tensor, generator: Source) -> Tensor:
        location = raw[..., 0, :]
        return location + self._sd(raw) * standard_normal(location, generator)


class _LocationScale(Likelihood):
    """A decoder for the location, and one learned scale per variable (starting at 0.5)."""

    def __init__(
        self, decoder: str | nn.Module, num_variables: int, *, latent_size: int | None = None, hidden_size: int = 64
    ):
        super().__init__(decoder, num_variables, latent_size=latent_size, hidden_size=hidden_size)
        self.log_scale = nn.Parameter(torch.full((num_variables,), math.log(0.5)))

    @property
    def scale(self) -> Tensor:
        """(D,) positive."""
        return self.log_scale.exp()

    def _mean(self, raw: Tensor) -> Tensor:
        return raw[..., 0, :]


class StudentTLikelihood(_LocationScale):
    """Student's t around the decoder's output, with a learned scale and learned degrees of freedom per variable.

    The degrees of freedom stay above 2 (they start at 10), so that the variance, scale² df / (df - 2), exists.
    """

    def __init__(
        self, decoder: str | nn.Module, num_variables: int, *, latent_size: int | None = None, hidden_size: int = 64
    ):
        super().__init__(decoder, num_variables, latent_size=latent_size, hidden_size=hidden_size)
        self.raw_df = nn.Parameter(torch.full((num_variables,), math.log(math.expm1(8.0))))

    @property
    def df(self) -> Tensor:
        """(D,) degrees of freedom."""
        return 2.0 + F.softplus(self.raw_df)

    def _log_density(self, values: Tensor, raw: Tensor) -> Tensor:
        df, scale = self.df, self.scale
        normaliser = torch.lgamma(0.5 * (df + 1.0)) - torch.lgamma(0.5 * df) - 0.5 * (df * math.pi).log() - scale.log()
        z = (values - raw[..., 0, :]) / scale
        return normaliser - 0.5 * (df + 1.0) * torch.log1p(z.square() / df)

    def _sample(self, raw: Tensor, generator: Source) -> Tensor:
        # Bailey (1994), "Polar generation of random variates with the t-distribution": exact for any df.
        location, df = raw[..., 0, :], self.df
        radius = (df * torch.expm1(-2.0 / df * open_uniform(location, generator).log())).sqrt()
        return location + self.scale * radius * torch.cos(2.0 * math.pi * open_uniform(location, generator, "angle"))


class LaplaceLikelihood(_LocationScale):
    """Laplace around the decoder's output, with a learned scale b per variable (variance 2 b²)."""

    def _log_density(self, values: Tensor, raw: Tensor) -> Tensor:
        scale = self.scale
        return -(values - raw[..., 0, :]).abs() / scale - (2.0 * scale).log()

    def _sample(self, raw: Tensor, generator: Source) -> Tensor:
        # The difference of two independent exponential variates.
        location = raw[..., 0, :]
        excess = open_uniform(location, generator).log() - open_uniform(location, generator, "other").log()
        return location + self.scale * excess
