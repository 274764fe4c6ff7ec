"""Continuous-discrete Kalman filter, smoother and evidence, batched over series, differentiable, with missing values.

A linear law with Gaussian observations y_v = (H z)_v + bias_v + N(0, R_v) is filtered forwards in moments and backwards
in information, log p(later data | z(t)) = lambda^T z - z^T Lambda z / 2 + const. The two meet at any time, visit or
not:

    P_s = (I + P_f Lambda)^-1 P_f,    m_s = (I + P_f Lambda)^-1 (m_f + P_f lambda),

and the conditioned law has the drift A z + b + G G^T (lambda - Lambda z) (Doob's transform), with no inverse of P_f or
G G^T, so both may be singular.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from neurodyn.sde.linear import LinearLaw


class Observation(NamedTuple):
    """y = H z + bias + noise, noise independent over variables.

    loading H (D, d); bias (D,); variance R (D,) or one per value (B, T, D).
    """

    loading: Tensor
    bias: Tensor
    variance: Tensor


class Filtered(NamedTuple):
    """What the forward pass knows at T visits; "before" excludes the visit's own values, "after" includes them.

    mean, covariance: after the visit, (B, T, d), (B, T, d, d); mean_before, covariance_before likewise.
    evidence: (B, T), the log-density of each visit's observed values given the earlier ones, in nats.
    """

    mean: Tensor
    covariance: Tensor
    mean_before: Tensor
    covariance_before: Tensor
    evidence: Tensor


class Information(NamedTuple):
    """log p(data | z) = vector^T z - z^T matrix z / 2 + const, for data at and after ("from"), or after, each visit.

    vector_from, vector_after: (B, T, d); matrix_from, matrix_after: (B, T, d, d).
    """

    vector_from: Tensor
    matrix_from: Tensor
    vector_after: Tensor
    matrix_after: Tensor


class Gaussian(NamedTuple):
    """A batch of Gaussians: mean (..., d), covariance (..., d, d)."""

    mean: Tensor
    covariance: Tensor


class Smoothed(NamedTuple):
    """The law of z(t) given all data: mean (..., d), covariance (..., d, d); and the information from the data after t,
    vector (..., d) and matrix (..., d, d), which is what moves the conditioned drift: G G^T (vector - matrix z)."""

    mean: Tensor
    covariance: Tensor
    vector: Tensor
    matrix: Tensor


def _symmetric(matrix: Tensor) -> Tensor:
    return 0.5 * (matrix + matrix.mT)


def kalman_filter(
    law: LinearLaw, initial: Gaussian, observation: Observation, times: Tensor, values: Tensor, mask: Tensor
) -> Filtered:
    """Filter B series; the initial law holds at each row's first time.

    Args:
        initial: mean (d,) or (B, d), covariance (d, d) or (B, d, d).
        times: (B, T), not decreasing. values: (B, T, D). mask: (B, T, D) bool; masked values have no influence.

    Returns:
        Filtered moments and the evidence of every visit, in the dtype of the initial law.
    """
    dtype = initial.mean.dtype
    rows, visits, _ = values.shape
    steps = law.transition(times[:, 1:] - times[:, :-1])
    loading = observation.loading
    variance = observation.variance.expand(rows, visits, -1)
    seen = mask.to(dtype)
    # a masked value becomes 0 = 0 z + N(0, 1): it changes nothing but a constant of the evidence, which is left out
    residual_value = torch.where(
        mask, values.to(dtype) - observation.bias, torch.zeros((), dtype=dtype, device=values.device)
    )
    loadings = seen[..., None] * loading
    variances = torch.where(mask, variance, torch.ones((), dtype=dtype, device=values.device))
    log_constant = 0.5 * math.log(2 * math.pi) * seen.sum(-1)

    mean = initial.mean.expand(rows, -1)
    covariance = initial.covariance.expand(rows, -1, -1)
    means, covariances, means_before, covariances_before, evidences = [], [], [], [], []
    unbound = zip(loadings.unbind(1), variances.unbind(1), residual_value.unbind(1), strict=True)
    phi, shift, noise = (part.unbind(1) for part in steps)
    for k, (h, r, y) in enumerate(unbound):
        if k:
            mean = (phi[k - 1] @ mean[..., None])[..., 0] + shift[k - 1]
            covariance = phi[k - 1] @ covariance @ phi[k - 1].mT + noise[k - 1]
        means_before.append(mean)
        covariances_before.append(covariance)
        ph = covariance @ h.mT
        root = torch.linalg.cholesky(h @ ph + torch.diag_embed(r))
        innovation = y - (h @ mean[..., None])[..., 0]
        joint = torch.cat((ph.mT, innovation[..., None]), -1)
        solved = torch.linalg.solve_triangular(root, joint, upper=False)
        white_gain, white = solved[..., :-1], solved[..., -1]
        mean = mean + (white_gain.mT @ white[..., None])[..., 0]
        covariance = _symmetric(covariance - white_gain.mT @ white_gain)
        evidences.append(-0.5 * white.square().sum(-1) - root.diagonal(dim1=-2, dim2=-1).log().sum(-1))
        means.append(mean)
        covariances.append(covariance)
    stack = (torch.stack(part, 1) for part in (means, covariances, means_before, covariances_before, evidences))
    mean, covariance, mean_before, covariance_before, evidence = stack
    return Filtered(mean, covariance, mean_before, covariance_before, evidence - log_constant)


def _pull_back(phi: Tensor, shift: Tensor, noise: Tensor, vector: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Information about z(t + dt) turned into information about z(t)."""
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    right = torch.cat((matrix, (vector - (matrix @ shift[..., None])[..., 0])[..., None]), -1)
    solved = phi.mT @ torch.linalg.solve(eye + matrix @ noise, right)
    return solved[..., -1], _symmetric(solved[..., :-1] @ phi)


def kalman_information(
    law: LinearLaw, observation: Observation, times: Tensor, values: Tensor, mask: Tensor
) -> Information:
    """Backward information filter: what the data at and after each visit say about the state there."""
    dtype = observation.loading.dtype
    rows, visits, _ = values.shape
    size = observation.loading.shape[1]
    phi, shift, noise = (part.unbind(1) for part in law.transition(times[:, 1:] - times[:, :-1]))
    precision = torch.where(
        mask, 1.0 / observation.variance.expand(rows, visits, -1), torch.zeros((), dtype=dtype, device=values.device)
    )
    centred = torch.where(mask, values.to(dtype) - observation.bias, torch.zeros((), dtype=dtype, device=values.device))
    own_vector = ((precision * centred) @ observation.loading).unbind(1)
    own_matrix = ((observation.loading.mT * precision[..., None, :]) @ observation.loading).unbind(1)
    vector = observation.loading.new_zeros(rows, size)
    matrix = observation.loading.new_zeros(rows, size, size)
    found = []
    for k in reversed(range(visits)):
        after = (vector, matrix)
        vector, matrix = vector + own_vector[k], matrix + own_matrix[k]
        found.append((vector, matrix, *after))
        if k:
            vector, matrix = _pull_back(phi[k - 1], shift[k - 1], noise[k - 1], vector, matrix)
    return Information(*(torch.stack(part[::-1], 1) for part in zip(*found, strict=True)))


def _meet(mean: Tensor, covariance: Tensor, vector: Tensor, matrix: Tensor) -> Smoothed:
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    right = torch.cat((covariance, (mean + (covariance @ vector[..., None])[..., 0])[..., None]), -1)
    solved = torch.linalg.solve(eye + covariance @ matrix, right)
    return Smoothed(solved[..., -1], _symmetric(solved[..., :-1]), vector, matrix)


def kalman_smoother(filtered: Filtered, information: Information) -> Smoothed:
    """The law of the state at every visit given all of the row's data, and the information from later visits."""
    met = _meet(filtered.mean, filtered.covariance, information.vector_after, information.matrix_after)
    return met


def smooth_at(law: LinearLaw, filtered: Filtered, information: Information, times: Tensor, query: Tensor) -> Smoothed:
    """The same at any times: `query` (B, Q) within each row's first and last time, without another pass."""
    visits = times.shape[1]
    query = query.to(times.dtype)
    left = (torch.searchsorted(times.contiguous(), query.contiguous(), right=True) - 1).clamp(0, max(visits - 2, 0))
    right = (left + 1).clamp(max=visits - 1)

    def at(part: Tensor, index: Tensor) -> Tensor:
        return part[torch.arange(len(part), device=part.device)[:, None], index]

    ahead = law.transition((query - at(times, left)).clamp(min=0))
    mean = (ahead.matrix @ at(filtered.mean, left)[..., None])[..., 0] + ahead.offset
    covariance = ahead.matrix @ at(filtered.covariance, left) @ ahead.matrix.mT + ahead.covariance
    if visits == 1:  # the only visit is on the left already: nothing is known from the right
        nothing = information.vector_after.expand_as(mean), information.matrix_after.expand_as(covariance)
        return _meet(mean, covariance, *nothing)
    back = law.transition((at(times, right) - query).clamp(min=0))
    vector, matrix = _pull_back(*back, at(information.vector_from, right), at(information.matrix_from, right))
    return _meet(mean, covariance, vector, matrix)
