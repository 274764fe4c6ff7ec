"""The problem's networks and loss in JAX, shared by the hand-written loop and diffrax."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from benchmarks.rivals.problem import GAPS, HIGH, LOW, STEP, Problem
from benchmarks.rivals.step import Answer

Tree = dict[str, Any]


def leaves(problem: Problem) -> Tree:
    """Everything that gets a gradient, on the device."""
    return {name: jnp.asarray(value) for name, value in {**problem.weights, **problem.inputs}.items()}


def shifts(w: Tree) -> jax.Array:
    """What the context adds to the posterior drift's hidden layer, (GAPS, B, 64)."""
    return w["contexts"] @ w["post_context"] + w["post_bias"]


def post_drift(w: Tree, shift: jax.Array, z: jax.Array) -> jax.Array:
    """f([z, context]), (..., d)."""
    return jax.nn.softplus(z @ w["post_state"] + shift) @ w["post_out"] + w["post_out_bias"]


def prior_drift(w: Tree, z: jax.Array) -> jax.Array:
    """h(z), (..., d)."""
    return jax.nn.softplus(z @ w["prior_state"] + w["prior_bias"]) @ w["prior_out"] + w["prior_out_bias"]


def diffusion(w: Tree, z: jax.Array) -> jax.Array:
    """g(z), (..., d)."""
    hidden = jax.nn.softplus(z[..., None] * w["noise_in"] + w["noise_bias"])
    return LOW + (HIGH - LOW) * jax.nn.sigmoid((hidden * w["noise_out"]).sum(-1) + w["noise_out_bias"])


def kl_rate(w: Tree, drift: jax.Array, scale: jax.Array, z: jax.Array) -> jax.Array:
    """1/2 |(f - h) / g|^2, (...)."""
    return 0.5 * jnp.square((drift - prior_drift(w, z)) / scale).sum(-1)


class JaxStep:
    """A step made of two jitted functions.

    Subclasses write `loss(leaves, noise)` and `draw(leaves, noise)`, where noise is a key, or increments (N, B, d).
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.leaves = problem, leaves(problem)
        self.targets = jnp.asarray(problem.targets)
        self.key = jax.random.key(0)
        self._train = jax.jit(jax.value_and_grad(self.loss))
        self._sample = jax.jit(self.draw)

    def loss(self, w: Tree, noise: jax.Array) -> jax.Array:
        raise NotImplementedError

    def draw(self, w: Tree, noise: jax.Array) -> jax.Array:
        raise NotImplementedError

    def score(self, states: jax.Array, path_kl: jax.Array) -> jax.Array:
        """The loss, from states at the ends of the gaps (GAPS, B, d) and the KL of each row in whatever parts."""
        return (0.5 * jnp.square(states - self.targets).sum() + path_kl.sum()) / self.problem.sizes.batch

    def train(self) -> None:
        jax.block_until_ready(self._train(self.leaves, self._next()))

    def sample(self) -> None:
        jax.block_until_ready(self._sample(self.leaves, self._next()))

    def answer(self, increments: NDArray[np.floating]) -> Answer:
        loss, gradients = self._train(self.leaves, jnp.asarray(increments))
        return Answer(float(loss), {name: np.asarray(value) for name, value in gradients.items()})

    def increments(self, noise: jax.Array) -> jax.Array:
        """(GAPS, N / GAPS, B, d): those given, or drawn from a key, all at once."""
        sizes = self.problem.sizes
        shape = (GAPS, sizes.steps // GAPS, sizes.batch, sizes.latent)
        if jnp.issubdtype(noise.dtype, jax.dtypes.prng_key):
            return jax.random.normal(noise, shape, self.targets.dtype) * STEP**0.5
        return noise.reshape(shape)

    def _next(self) -> jax.Array:
        self.key, key = jax.random.split(self.key)
        return key
