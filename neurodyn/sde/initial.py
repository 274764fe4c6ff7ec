"""Laws of the state at a series' first time."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn


class GaussianInitial(nn.Module):
    """z_0 ~ N(mean, scale_tril scale_tril^T), learned.

    Args:
        size: d, size of the state.
        covariance: "diagonal" or "full".
        scale: initial standard deviation of every entry.

    Attributes:
        mean: (d,) parameter, zero at the start.
    """

    def __init__(self, size: int, covariance: Literal["diagonal", "full"] = "diagonal", *, scale: float = 1.0) -> None:
        if size < 1:
            raise ValueError(f"size: got {size}, want 1 or more")
        if covariance not in ("diagonal", "full"):
            raise ValueError(f"covariance: got {covariance!r}, want 'diagonal' or 'full'")
        if not scale > 0:
            raise ValueError(f"scale: got {scale}, want a positive standard deviation")
        super().__init__()
        self.state_size = size
        self.covariance = covariance
        self.mean = nn.Parameter(torch.zeros(size))
        self.log_scale = nn.Parameter(torch.full((size,), math.log(scale)))
        # Relative to the row's own scale, so that scaling a variable does not change its correlations.
        self.mixing = nn.Parameter(torch.zeros(size, size)) if covariance == "full" else None

    def scale_tril(self) -> Tensor:
        """Lower Cholesky factor of the covariance, (d, d)."""
        scale = self.log_scale.exp()
        if self.mixing is None:
            return torch.diag(scale)
        eye = torch.eye(self.state_size, dtype=scale.dtype, device=scale.device)
        return scale[:, None] * (eye + self.mixing.tril(-1))

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats of z (..., d): (...)."""
        white = self._whiten((z - self.mean).unsqueeze(-1)).squeeze(-1)
        return -0.5 * white.square().sum(-1) - self.log_scale.sum() - 0.5 * self.state_size * math.log(2 * math.pi)

    def sample(self, shape: tuple[int, ...] = (), *, generator: torch.Generator | None = None) -> Tensor:
        """Reparametrised draws, (*shape, d)."""
        mean = self.mean
        noise = torch.randn(*shape, self.state_size, generator=generator, dtype=mean.dtype, device=mean.device)
        if self.mixing is None:
            return mean + self.log_scale.exp() * noise
        return mean + noise @ self.scale_tril().mT

    def kl_from(self, mean: Tensor, scale: Tensor) -> Tensor:
        """KL( N(mean, S) || this law ) in nats, (...).

        Args:
            mean: (..., d).
            scale: standard deviations (..., d), or a lower Cholesky factor of S (..., d, d).

        Raises:
            ValueError: `scale` is neither.
        """
        wanted = (*mean.shape, mean.shape[-1])
        if scale.ndim == mean.ndim + 1 and scale.shape[-2:] == wanted[-2:]:
            factor, log_det = scale, scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        elif scale.ndim == mean.ndim and scale.shape[-1] == mean.shape[-1]:
            factor, log_det = torch.diag_embed(scale), scale.log().sum(-1)
        else:
            raise ValueError(
                f"scale: got shape {tuple(scale.shape)}, want standard deviations {tuple(mean.shape)} "
                f"or a Cholesky factor {wanted}"
            )
        both = self._whiten(torch.cat((factor, (mean - self.mean).unsqueeze(-1)), -1))
        return 0.5 * (both.square().sum((-2, -1)) - self.state_size) + self.log_scale.sum() - log_det

    def _whiten(self, columns: Tensor) -> Tensor:
        """scale_tril^-1 columns, for columns (..., d, k)."""
        if self.mixing is None:
            return columns * (-self.log_scale).exp().unsqueeze(-1)
        return torch.linalg.solve_triangular(self.scale_tril(), columns, upper=False)
