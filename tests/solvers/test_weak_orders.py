"""Weak orders of every native method in every kind of noise, without sampling: moments of linear laws are propagated.

A method takes a linear law's state to M(dW) z + c(dW), polynomial in dW. So the second moments that it has after N
steps are the N-th power of E[M x M], and Gauss-Hermite nodes give that expectation exactly. The law's own second
moments solve a linear ODE (Kloeden and Platen 1992, section 4.8).
"""

import itertools

import numpy as np
import pytest
import scipy.linalg
import torch
from example_laws import DTYPE

from neurodyn.solvers.grid import step_grid
from neurodyn.solvers.schemes import Problem, make_scheme

DRIFT = np.array([[-0.3, 0.5], [-0.5, -0.4]])
SPREAD = np.array([[0.8, 0.0], [0.3, 0.5]])
# One matrix per Brownian motion; those of general noise do not commute.
PUSH = {
    "diagonal": [np.diag([0.5, 0.0]), np.diag([0.0, 0.7])],
    "scalar": [np.array([[0.5, 0.4], [-0.4, 0.5]])],
    "general": [np.array([[0.3, 0.5], [0.0, 0.2]]), np.array([[0.1, 0.0], [0.6, -0.3]])],
    "additive": [],
}
START = np.array([1.0, 1.0])
METHODS = [
    ("euler", "ito"),
    ("milstein", "ito"),
    ("milstein", "stratonovich"),
    ("heun", "stratonovich"),
    ("reversible_heun", "stratonovich"),
]
# Trapezoidal methods have weak order 2 where the noise is additive (Kloeden and Platen 1992, section 15.1), else 1.
CASES = [
    (method, kind, noise, 2.0 if noise == "additive" and "heun" in method else 1.0)
    for method, kind in METHODS
    for noise in PUSH
    if (method, noise) != ("milstein", "general")
]


def drift(k, t, z):
    return z @ torch.tensor(DRIFT).mT


def diffusion_of(noise):
    pushes = [torch.tensor(push) for push in PUSH[noise]]
    if noise == "diagonal":
        return lambda k, t, z: z * sum(pushes).diagonal()
    if noise == "additive":
        return lambda k, t, z: torch.tensor(SPREAD).expand(*z.shape[:-1], 2, 2)
    return lambda k, t, z: torch.stack([z @ push.mT for push in pushes], -1)


def exact_moments(noise, kind):
    """E of (z, 1) (z, 1)^T at time 1."""
    ito = DRIFT + 0.5 * (kind == "stratonovich") * sum((push @ push for push in PUSH[noise]), np.zeros((2, 2)))
    moving = np.pad(ito, (0, 1))
    pushes = [np.pad(push, (0, 1)) for push in PUSH[noise]]
    if noise == "additive":
        pushes = [np.pad(column[:, None], ((0, 1), (2, 0))) for column in SPREAD.T]
    eye = np.eye(3)
    generator = np.kron(moving, eye) + np.kron(eye, moving) + sum(np.kron(push, push) for push in pushes)
    start = np.append(START, 1.0)
    return (scipy.linalg.expm(generator) @ np.kron(start, start)).reshape(3, 3)


def moments(method, kind, noise, steps):
    """E of (z, 1) (z, 1)^T at time 1 after `steps` steps of the method; reversible Heun's companion moves along."""
    count = 1 if noise == "scalar" else 2
    parts = 2 if method == "reversible_heun" else 1
    size = 2 * parts + 1
    basis = torch.eye(size, dtype=DTYPE)[:, :-1]  # the last row, zero, shows what does not depend on the state
    problem = Problem(drift, diffusion_of(noise), noise, kind)
    scheme = make_scheme(
        method, problem, step_grid([0.0, 1 / steps], 1 / steps), basis[:, :2], state_independent=noise == "additive"
    )
    expected = np.zeros((size**2, size**2))
    nodes, weights = np.array([-(3**0.5), 0.0, 3**0.5]), np.array([1.0, 4.0, 1.0]) / 6  # exact to the fifth power
    for which in itertools.product(range(3), repeat=count):
        dw = torch.tensor(nodes[list(which)] * steps**-0.5).expand(size, count)
        state = (basis,) if parts == 1 else (basis[:, :2], basis[:, 2:], *scheme.evaluate(0, basis[:, 2:]))
        moved = torch.cat(scheme.step(0, state, dw)[0][:parts], -1).detach().numpy()
        matrix = np.eye(size)
        matrix[:-1, :-1], matrix[:-1, -1] = (moved[:-1] - moved[-1]).T, moved[-1]
        expected += weights[list(which)].prod() * np.kron(matrix, matrix)
    start = np.append(np.tile(START, parts), 1.0)
    found = (np.linalg.matrix_power(expected, steps) @ np.kron(start, start)).reshape(size, size)
    return found[np.ix_([0, 1, -1], [0, 1, -1])]


@pytest.mark.parametrize(("method", "kind", "noise", "order"), CASES)
def test_weak_order_of_first_and_second_moments(method, kind, noise, order):
    levels, exact = (16, 32, 64, 128), exact_moments(noise, kind)
    errors = np.stack([np.abs(moments(method, kind, noise, steps) - exact) for steps in levels])
    for name, error in (("mean", errors[:, :2, 2].max(1)), ("second moment", errors[:, :2, :2].max((1, 2)))):
        # means that a method gets right to a higher order than its own are no fault
        found = -np.polyfit(np.log(levels), np.log(error), 1)[0]
        assert found > order - 0.15, name
    assert found == pytest.approx(order, abs=0.15), "the second moment"
