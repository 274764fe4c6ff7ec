"""The divergence-free correction: the best rotation of a Gaussian posterior's drift that leaves its marginals alone.

Marginals fix a posterior's drift only up to a field h with div(q h) = 0. Among the linear ones,

    h(x) = Omega S^-1 (x - m), Omega skew, S the covariance,

the path KL is least where Omega S^-1 + S^-1 Omega = C S^-1 - S^-1 C^T, C = E_q[grad r] S, r the prior's drift less the
posterior's, all in coordinates where the diffusion is the identity. (Helmholtz-SDE, arXiv 2606.16138, with polynomial
degree 1; the diffusion does not depend on z.)
"""

from __future__ import annotations

import torch
from torch import Tensor


def skew_correction(gap_jacobian: Tensor, covariance: Tensor) -> Tensor:
    """The best Omega, (..., d, d) skew, in coordinates where the diffusion is the identity.

    Args:
        gap_jacobian: E_q of the Jacobian of (prior drift - posterior drift), (..., d, d).
        covariance: S of the marginal, (..., d, d), positive definite.
    """
    value, vector = torch.linalg.eigh(covariance)
    cross = vector.mT @ gap_jacobian @ covariance @ vector  # C in the eigenbasis of S
    rows, columns = value[..., :, None], value[..., None, :]
    omega = (rows * cross - columns * cross.mT) / (rows + columns)
    return vector @ omega @ vector.mT
