"""The step by diffrax, jitted, with the KL as a second part of the state, as its users write it.

Its default Brownian motion, `VirtualBrownianTree`, with its default adjoint and with plain backprop; its fast one,
`UnsafeBrownianPath`, which diffrax does not differentiate through, for sampling; and, for training, the fastest that it
can be given: increments drawn beforehand, as a control of one's own.
"""

from __future__ import annotations

from typing import Any

import diffrax
import jax
import jax.numpy as jnp

from benchmarks.rivals.jax_networks import JaxStep, Tree, diffusion, kl_rate, post_drift, prior_drift, shifts
from benchmarks.rivals.problem import GAPS, STEP, Problem
from benchmarks.rivals.step import Way


class _Noise(diffrax.AbstractTerm):
    """g(z) dW with g entry by entry, for a state (z, KL) or z alone: no matrix is made of a diagonal."""

    brownian: Any
    with_kl: bool

    def vf(self, t: Any, y: Any, args: Any) -> Any:
        return diffusion(args[0], y[0] if self.with_kl else y)

    def contr(self, t0: Any, t1: Any, **_: Any) -> Any:
        return self.brownian.evaluate(t0, t1)

    def prod(self, vf: Any, control: Any) -> Any:
        moved = vf * control
        return (moved, jnp.zeros(moved.shape[:-1], moved.dtype)) if self.with_kl else moved


class _Given(diffrax.AbstractBrownianPath):
    """Increments (N, B, d) on the grid, looked up by the number of the step."""

    increments: jax.Array
    levy_area: Any = diffrax.BrownianIncrement

    @property
    def t0(self) -> Any:
        return None

    @property
    def t1(self) -> Any:
        return None

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True, use_levy: bool = False) -> jax.Array:
        return self.increments[jnp.round(t0 / STEP).astype(int)]


class DiffraxStep(JaxStep):
    """One way of diffrax's.

    Args:
        brownian: "tree", "unsafe" or "given".
        adjoint: "checkpoint" (its default) or "direct".
    """

    def __init__(self, problem: Problem, brownian: str, adjoint: str = "checkpoint") -> None:
        super().__init__(problem)
        self.brownian = brownian
        self.adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint == "checkpoint" else diffrax.DirectAdjoint()
        self.visits = jnp.asarray(problem.visits, self.targets.dtype)

    def loss(self, w: Tree, noise: jax.Array) -> jax.Array:
        def drift(t: Any, y: Any, args: Any) -> Any:
            w, shift = args
            z = y[0]
            gap = jnp.minimum((t / (self.problem.per_gap * STEP) + 1e-4).astype(int), GAPS - 1)
            moved = post_drift(w, shift[gap], z)
            return moved, kl_rate(w, moved, diffusion(w, z), z)

        z0 = w["z0"]
        start = (z0, jnp.zeros(z0.shape[:-1], z0.dtype))
        states, paid = self._solve(drift, start, (w, shifts(w)), noise, with_kl=True)
        return self.score(states[1:], paid[-1])

    def draw(self, w: Tree, noise: jax.Array) -> jax.Array:
        solved: jax.Array = self._solve(lambda t, z, args: prior_drift(args[0], z), w["z0"], (w,), noise, with_kl=False)
        return solved

    def _solve(self, drift: Any, start: Any, args: Any, noise: jax.Array, with_kl: bool) -> Any:
        brownian: Any
        sizes, dtype = self.problem.sizes, self.targets.dtype
        shape = jax.ShapeDtypeStruct((sizes.batch, sizes.latent), dtype)
        if self.brownian == "given" or not jnp.issubdtype(noise.dtype, jax.dtypes.prng_key):
            brownian = _Given(self.increments(noise).reshape(sizes.steps, *shape.shape))
        elif self.brownian == "tree":
            end = sizes.steps * STEP
            brownian = diffrax.VirtualBrownianTree(0.0, end, tol=STEP / 2, shape=shape, key=noise)
        else:
            brownian = diffrax.UnsafeBrownianPath(shape=shape, key=noise)
        solution = diffrax.diffeqsolve(
            diffrax.MultiTerm(diffrax.ODETerm(drift), _Noise(brownian, with_kl)),
            diffrax.Euler(),
            t0=0.0,
            t1=self.visits[-1],
            dt0=STEP,
            y0=start,
            args=args,
            saveat=diffrax.SaveAt(ts=self.visits),
            adjoint=self.adjoint,
            max_steps=sizes.steps,
        )
        return solution.ys


WAYS = [
    Way("diffrax, VirtualBrownianTree", lambda p: DiffraxStep(p, "tree"), samples=True, swept=True, exact=True),
    Way("diffrax, VirtualBrownianTree, DirectAdjoint", lambda p: DiffraxStep(p, "tree", "direct")),
    Way("diffrax, UnsafeBrownianPath", lambda p: DiffraxStep(p, "unsafe", "direct"), trains=False, samples=True),
    Way("diffrax, increments drawn beforehand", lambda p: DiffraxStep(p, "given"), exact=True, samples=True),
]
