"""Random counts and gamma variates made of uniforms and normals, so that they can come from row noise.

torch's own draws (`torch.poisson` and its like) read a generator in the order of the batch; these are functions of one
uniform (or a fixed number of them) per entry, whatever the other entries are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from neurodyn.likelihoods.base import Source, open_uniform, standard_normal

MAX_SAMPLED_MEAN = 1e9
"""Counts are drawn with their mean capped here, since no dtype holds all whole numbers."""

_SMALL_MEAN = 16.0
_GAMMA_ROUNDS = 8


def poisson_quantile(uniform: Tensor, mean: Tensor) -> Tensor:
    """The smallest count whose distribution function is at least `uniform`, in float64.

    Up to a mean of 16 the distribution function is added up, so the count is exact. Beyond, it is the floor of the
    asymptotic expansion of the quantile in 1 / sqrt(mean), to third order (Giles 2016, Algorithm 955, ACM TOMS 42), off
    by one for fewer than one uniform in 4000.

    Args:
        uniform, mean: same shape, uniforms in (0, 1) and means from 0 to `MAX_SAMPLED_MEAN`.
    """
    uniform, mean = uniform.double(), mean.double()
    small = mean.clamp(max=_SMALL_MEAN)
    # no uniform of 53 bits reaches further than this many terms
    largest = float(small.nan_to_num(0.0).max()) if small.numel() else 0.0
    term = torch.exp(-small)
    total, count = term, torch.zeros_like(term)
    for k in range(1, 13 + math.ceil(largest + 9.0 * math.sqrt(largest))):
        count = count + (uniform > total)
        term = term * (small / k)
        total = total + term
    large = mean.clamp(min=_SMALL_MEAN)
    w, root = torch.special.ndtri(uniform), large.sqrt()
    second = -(w + 0.5 * w.pow(3)) / (36.0 * root)
    third = (-8.0 / 405.0 + 7.0 / 810.0 * w.square() + w.pow(4) / 270.0) / large
    far = (large + root * w + 1.0 / 3.0 + w.square() / 6.0 + second + third).floor().clamp(min=0)
    return torch.where(mean <= _SMALL_MEAN, count, far)


def draw_poisson(mean: Tensor, source: Source, purpose: str = "values") -> Tensor:
    """Poisson counts of the given means (capped at `MAX_SAMPLED_MEAN`), in their dtype."""
    mean = mean.double().clamp(max=MAX_SAMPLED_MEAN)
    return poisson_quantile(open_uniform(mean, source, purpose), mean)


def draw_gamma(shape: Tensor, source: Source) -> Tensor:
    """Gamma variates of scale 1 and the given shapes, positive, in float64.

    Gamma(a + 1) by Marsaglia and Tsang (2000) with a fixed number of tries, all of which fail for fewer than one in
    10^10, which then takes the last one; times U^(1 / a).
    """
    shape = shape.double()
    d = shape + 2.0 / 3.0
    c = (9.0 * d).rsqrt()
    chosen, found = torch.zeros_like(d), torch.zeros_like(d, dtype=torch.bool)
    for k in range(_GAMMA_ROUNDS):
        x = standard_normal(d, source, f"gamma {k}")
        v = (1.0 + c * x).clamp(min=1e-300).pow(3)
        log_uniform = open_uniform(d, source, f"accept {k}").log()
        accepted = (c * x > -1.0) & (log_uniform < 0.5 * x.square() + d - d * v + d * v.log())
        chosen = torch.where(found, chosen, d * v)
        found = found | accepted
    return chosen * torch.exp(open_uniform(d, source, "boost").log() / shape)
