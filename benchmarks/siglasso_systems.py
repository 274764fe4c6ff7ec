"""The four simulated systems that SigLasso was published with: a path, and a target that it drives.

Source: Bleistein et al. (2023), arXiv 2301.11647, section 5 and appendix; LinusBleistein/SigLasso: experiments/configs.
All on [0, 1] with 1000 steps; of the path 102 points are seen, of the target 5.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.interpolate import CubicHermiteSpline

Array = np.ndarray[Any, Any]
STEPS = 1000
SEEN, TARGETS = 102, 5


class Simulated(NamedTuple):
    """n series: what is seen, and the whole truth.

    x: (n, 102, C) at times (n, 102); y: (n, 5) at target_times (n, 5), which are among the times; truth: (n, 1001) on
    an even grid of [0, 1].
    """

    x: Array
    times: Array
    y: Array
    target_times: Array
    truth: Array


def simulate(system: str, n: int, seed: int, part: int) -> Simulated:
    """Series of "cde", "ou", "tumor" or "ill-specified". The system's own random weights come from `seed` alone; `part`
    tells training, validation and test series of one system apart."""
    system_rng, rng = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1, part])
    x, truth = _SYSTEMS[system](n, rng, system_rng)
    inner = [np.sort(rng.choice(np.arange(1, STEPS), SEEN - 2, replace=False)) for _ in range(n)]
    places = np.stack([np.r_[0, one, STEPS] for one in inner])
    which = np.stack([np.r_[0, np.sort(rng.choice(np.arange(1, SEEN), TARGETS - 1, replace=False))] for _ in range(n)])
    targets = np.take_along_axis(places, which, 1)
    return Simulated(
        np.take_along_axis(x, places[..., None], 1),
        places / STEPS,
        np.take_along_axis(truth, targets, 1),
        targets / STEPS,
        truth,
    )


def spline_paths(n: int, channels: int, rng: np.random.Generator) -> Array:
    """(n, 1001, C): cubic Hermite curves through 15 standard normal knots, slopes by finite differences."""
    knots = np.linspace(0, 1, 15)
    values = rng.normal(size=(n, 15, channels))
    slopes = np.gradient(values, knots, axis=1)
    curve = CubicHermiteSpline(knots, values, slopes, axis=1)
    return np.asarray(curve(np.linspace(0, 1, STEPS + 1)))


def _cde(n: int, rng: np.random.Generator, system: np.random.Generator) -> tuple[Array, Array]:
    """dy = tanh(w y + b) dx, one layer with random weights, by Heun's method."""
    x = spline_paths(n, 3, rng)
    w, b = system.normal(size=(2, 3))
    y = np.zeros((n, STEPS + 1))
    for k, dx in enumerate(np.diff(x, axis=1).transpose(1, 0, 2)):
        here = np.tanh(y[:, k : k + 1] * w + b)
        ahead = np.tanh((y[:, k] + (here * dx).sum(1))[:, None] * w + b)
        y[:, k + 1] = y[:, k] + (0.5 * (here + ahead) * dx).sum(1)
    return x, y


def _ou(n: int, rng: np.random.Generator, system: np.random.Generator) -> tuple[Array, Array]:
    """dY = 3 (1 - Y) dt + dX1 + dX2 along two Brownian motions."""
    moves = rng.normal(size=(n, STEPS, 2)) / np.sqrt(STEPS)
    x = np.concatenate([np.zeros((n, 1, 2)), moves.cumsum(1)], 1)
    y = np.zeros((n, STEPS + 1))
    for k in range(STEPS):
        y[:, k + 1] = y[:, k] + 3 * (1 - y[:, k]) / STEPS + moves[:, k].sum(1)
    return x, y


def _tumor(n: int, rng: np.random.Generator, system: np.random.Generator) -> tuple[Array, Array]:
    """Weight of a tumour under a drug (Simeoni et al. 2004): growing cells, three stages of dying ones; ten days."""
    x = spline_paths(n, 1, rng) ** 2 / 5
    growth, linear, passing, effect, psi, span = 0.9, 0.7, 10.0, 0.5, 20.0, 10.0

    def field(u: Array, drug: Array) -> Array:
        weight = u.sum(0)
        grow = growth * u[0] / (1 + (growth / linear * weight) ** psi) ** (1 / psi)
        killed = effect * drug * u[0]
        return np.stack([grow - killed, killed - passing * u[1], passing * (u[1] - u[2]), passing * (u[2] - u[3])])

    u = np.zeros((4, n))
    u[0] = 2.0
    y = np.empty((n, STEPS + 1))
    y[:, 0] = 2.0
    step = span / STEPS
    for k in range(STEPS):
        here = field(u, x[:, k, 0])
        u = u + 0.5 * step * (here + field(u + step * here, x[:, k + 1, 0]))
        y[:, k + 1] = u.sum(0)
    return x, y


def _ill_specified(n: int, rng: np.random.Generator, system: np.random.Generator) -> tuple[Array, Array]:
    """The logarithm of the norm of the sum of the path's last ten points: no controlled equation."""
    x = spline_paths(n, 3, rng)
    longer = np.concatenate([x[:, :1].repeat(9, 1), x], 1)  # before its start the path stands still
    total = np.concatenate([np.zeros((n, 1, 3)), longer.cumsum(1)], 1)
    return x, np.log(np.linalg.norm(total[:, 10:] - total[:, :-10], axis=2))


_SYSTEMS = {"cde": _cde, "ou": _ou, "tumor": _tumor, "ill-specified": _ill_specified}
SYSTEMS = tuple(_SYSTEMS)
