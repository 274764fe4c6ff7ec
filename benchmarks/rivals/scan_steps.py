"""The step by hand in `jax.lax.scan`: noise drawn once, one product of the contexts, a loop over gaps and steps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.rivals.jax_networks import JaxStep, Tree, diffusion, kl_rate, post_drift, prior_drift, shifts
from benchmarks.rivals.problem import STEP, Problem
from benchmarks.rivals.step import Way


class ScanStep(JaxStep):
    """Prior and KL inside the loop, or after it on the stacked path.

    Args:
        later: after it.
        unroll: steps per turn of the compiled loop.
    """

    def __init__(self, problem: Problem, later: bool = False, unroll: int = 1) -> None:
        super().__init__(problem)
        self.later, self.unroll = later, unroll

    def loss(self, w: Tree, noise: jax.Array) -> jax.Array:
        def gap(state: Any, inputs: Any) -> Any:
            shift, increments = inputs

            def step(state: Any, dw: jax.Array) -> Any:
                z, paid = state
                drift, scale = post_drift(w, shift, z), diffusion(w, z)
                kept = (z, drift, scale) if self.later else None
                if not self.later:
                    paid = paid + kl_rate(w, drift, scale, z) * STEP
                return (z + drift * STEP + scale * dw, paid), kept

            state, kept = jax.lax.scan(step, state, increments, unroll=min(self.unroll, len(increments)))
            return state, (state[0], kept)

        z0 = w["z0"]
        start = (z0, jnp.zeros(z0.shape[:-1], z0.dtype))
        (_, paid), (states, kept) = jax.lax.scan(gap, start, (shifts(w), self.increments(noise)))
        if self.later:
            z, drift, scale = kept
            paid = kl_rate(w, drift, scale, z) * STEP
        return self.score(states, paid)

    def draw(self, w: Tree, noise: jax.Array) -> jax.Array:
        def gap(z: jax.Array, increments: jax.Array) -> Any:
            def step(z: jax.Array, dw: jax.Array) -> Any:
                return z + prior_drift(w, z) * STEP + diffusion(w, z) * dw, None

            z, _ = jax.lax.scan(step, z, increments, unroll=min(self.unroll, len(increments)))
            return z, z

        states: jax.Array = jax.lax.scan(gap, w["z0"], self.increments(noise))[1]
        return states


WAYS = [
    Way("jax.lax.scan", ScanStep, samples=True, swept=True, exact=True),
    Way("jax.lax.scan, KL after the loop", lambda p: ScanStep(p, later=True), swept=True, exact=True),
    Way("jax.lax.scan, unrolled by 4", lambda p: ScanStep(p, unroll=4), samples=True, exact=True),
]
