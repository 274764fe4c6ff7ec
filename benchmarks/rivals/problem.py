"""The step that every library takes: weights, data and sizes, as plain arrays.

A latent SDE as in torchsde's Lorenz example (Li et al. 2020, arXiv 2001.01328): posterior drift f([z, context]), prior
drift h(z), each with one hidden layer of 64 and softplus, and one network 1-64-1 per coordinate for the diffusion,
bounded by a sigmoid. One context of size 32 per gap between visits. Euler-Maruyama on a grid with VISITS gaps.

    loss = mean over rows of  sum over visits |z - target|^2 / 2  +  integral of |(f - h) / g|^2 / 2 dt

The step length is a power of two, so that times are exact in float32 and every library takes exactly N steps; the
horizon is N times that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HIDDEN, CONTEXT, GAPS = 64, 32, 25
LOW, HIGH = 0.1, 1.0  # bounds of the diffusion
STEP = 2.0**-8

Arrays = dict[str, NDArray[np.floating]]


@dataclass(frozen=True)
class Sizes:
    """Rows, steps of the grid (a multiple of GAPS) and latents."""

    batch: int = 256
    steps: int = 100
    latent: int = 4

    def __post_init__(self) -> None:
        if self.steps < GAPS or self.steps % GAPS:
            raise ValueError(f"steps: {self.steps} given, a multiple of {GAPS} wanted: {GAPS} gaps between visits")


@dataclass(frozen=True)
class Problem:
    """Sizes and numbers.

    weights: of the networks. inputs: z0 (B, d), contexts (GAPS, B, CONTEXT). Both get gradients. targets: (GAPS, B, d),
    of the states at the ends of the gaps.
    """

    sizes: Sizes
    weights: Arrays
    inputs: Arrays
    targets: NDArray[np.floating]

    @property
    def per_gap(self) -> int:
        """Steps in each gap."""
        return self.sizes.steps // GAPS

    @property
    def visits(self) -> NDArray[np.floating]:
        """Times of the GAPS + 1 visits, the first at 0."""
        return np.arange(GAPS + 1) * (self.per_gap * STEP)

    def increments(self, seed: int = 0) -> NDArray[np.floating]:
        """Brownian increments of every step, (N, B, d)."""
        sizes = self.sizes
        drawn = np.random.default_rng(seed).standard_normal((sizes.steps, sizes.batch, sizes.latent))
        return (drawn * STEP**0.5).astype(self.targets.dtype)


def make_problem(sizes: Sizes, dtype: type = np.float32, seed: int = 0) -> Problem:
    """The same numbers for the same sizes and seed."""
    rng = np.random.default_rng(seed)
    d, rows = sizes.latent, sizes.batch

    def uniform(inputs: int, *shape: int) -> NDArray[np.floating]:
        return (rng.uniform(-1, 1, shape) / inputs**0.5).astype(dtype)

    weights = {
        "post_state": uniform(d + CONTEXT, d, HIDDEN),
        "post_context": uniform(d + CONTEXT, CONTEXT, HIDDEN),
        "post_bias": uniform(d + CONTEXT, HIDDEN),
        "post_out": uniform(HIDDEN, HIDDEN, d),
        "post_out_bias": uniform(HIDDEN, d),
        "prior_state": uniform(d, d, HIDDEN),
        "prior_bias": uniform(d, HIDDEN),
        "prior_out": uniform(HIDDEN, HIDDEN, d),
        "prior_out_bias": uniform(HIDDEN, d),
        "noise_in": uniform(1, d, HIDDEN),
        "noise_bias": uniform(1, d, HIDDEN),
        "noise_out": uniform(HIDDEN, d, HIDDEN),
        "noise_out_bias": uniform(HIDDEN, d),
    }
    inputs = {
        "z0": rng.standard_normal((rows, d)).astype(dtype),
        "contexts": rng.standard_normal((GAPS, rows, CONTEXT)).astype(dtype),
    }
    return Problem(sizes, weights, inputs, rng.standard_normal((GAPS, rows, d)).astype(dtype))
