"""A prior over paths: a law of motion and the law that a series starts from."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neurodyn.sde.base import SDE
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.linear_gaussian import LinearGaussian


class CoreInitial(nn.Module):
    """The start of a linear-Gaussian core, N(m0, P0), as the start of a prior that contains the core."""

    def __init__(self, core: LinearGaussian) -> None:
        super().__init__()
        self.core = core
        self.state_size = core.law.state_size

    def sample(self, shape: tuple[int, ...] = (), *, generator: torch.Generator | None = None) -> Tensor:
        """Draws, (*shape, d), in float64."""
        mean, covariance = self.core.initial()
        noise = torch.randn(*shape, self.state_size, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + noise @ torch.linalg.cholesky(covariance).mT

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats of z (..., d): (...)."""
        mean, covariance = self.core.initial()
        root = torch.linalg.cholesky(covariance)
        white = torch.linalg.solve_triangular(root, (z - mean)[..., None], upper=False)[..., 0]
        log_det = root.diagonal().log().sum()
        return (-0.5 * (white.square() + math.log(2 * math.pi)).sum(-1) - log_det).to(z.dtype)

    def kl_from(self, mean: Tensor, scale: Tensor) -> Tensor:
        """KL( N(mean, S) || this law ) in nats, (...); mean (..., d), lower Cholesky factor of S (..., d, d)."""
        centre, covariance = self.core.initial()
        root = torch.linalg.cholesky(covariance)
        columns = torch.cat((scale, (mean - centre)[..., None]), -1).to(root.dtype)
        white = torch.linalg.solve_triangular(root, columns, upper=False)
        log_det = root.diagonal().log().sum() - scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return (0.5 * (white.square().sum((-2, -1)) - mean.shape[-1]) + log_det).to(mean.dtype)


class Prior(nn.Module):
    """p(path): z(t0) ~ `initial` at a row's first observed time, then dz = drift dt + diffusion dW by `sde` (Ito).

    Raises ValueError if the two have different sizes or the law is not an Ito one.
    """

    def __init__(self, sde: SDE, initial: GaussianInitial | CoreInitial) -> None:
        if sde.state_size != initial.state_size:
            raise ValueError(f"initial: {initial.state_size} latents given, {sde.state_size} wanted, those of sde")
        if sde.sde_type != "ito":
            raise ValueError(f"sde: a {sde.sde_type} law given, an ito law wanted (the path KL is written for it)")
        super().__init__()
        self.sde, self.initial = sde, initial

    @property
    def state_size(self) -> int:
        """d, the number of latents."""
        return self.sde.state_size
