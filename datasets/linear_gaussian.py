"""`linear_gaussian`: a random stable linear SDE, observed irregularly, with noise and gaps; all of it is known.

    dz = (A z + b) dt + L dW,   z ~ N(m0, P0) at each row's first visit,   y = H z + N(0, R).

Paths are drawn from the exact transitions at the visits, never by stepping. A is stable and (m0, P0) is the
stationary law, so it makes no difference where time starts. Source: simulated here. Licence: that of this software.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from neurodyn.datasets.splits import Splits
from neurodyn.series import SeriesBatch


class LinearSystem(NamedTuple):
    """A (d, d), b (d,), L (d, d), m0 (d,), P0 (d, d), H (D, d), R (D, D) as in the module's equation, float64."""

    A: Tensor
    b: Tensor
    L: Tensor
    m0: Tensor
    P0: Tensor
    H: Tensor
    R: Tensor


def load(
    dimension: int = 2,
    num_variables: int | None = None,
    rows: int = 256,
    held_out: int = 64,
    visits: int = 20,
    missing: float = 0.3,
    seed: int = 0,
) -> Splits:
    """`rows` training rows and `held_out` each for validation and test; `info["system"]` is the true `LinearSystem`.

    Args:
        dimension: of z, d.
        num_variables: of y, D; as many as d, and H the identity, where left out.
        visits: a row has visits/2 to `visits` visits, with gaps from an exponential law of mean 1/4 (plus 0.01).
        missing: probability that an entry of y is missing; the first entry of every row is observed.
        seed: of the system and of the data.

    Raises:
        ValueError: sizes below 1; `missing` outside [0, 1).
    """
    generator = torch.Generator().manual_seed(seed)
    if min(dimension, dimension if num_variables is None else num_variables) < 1:
        raise ValueError(f"dimension, num_variables: {dimension}, {num_variables} given, at least 1 wanted")
    system = random_system(dimension, num_variables or dimension, generator)
    return splits_of("linear_gaussian", system, rows, held_out, visits, missing, seed, generator)


def random_system(dimension: int, num_variables: int, generator: torch.Generator) -> LinearSystem:
    """A random stable system with rates of order 1 and signals of order 1; H is the identity where it can be."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    eye = torch.eye(dimension, dtype=torch.float64)
    root, turn = normal(dimension, dimension), normal(dimension, dimension)
    # the symmetric part is negative definite, so every eigenvalue has a negative real part
    A = -(root @ root.mT / dimension + 0.3 * eye) + 0.7 * (turn - turn.mT)
    L = torch.tril(0.3 * normal(dimension, dimension), -1) + torch.diag(0.7 + 0.5 * normal(dimension).abs())
    square = num_variables == dimension
    H = eye if square else normal(num_variables, dimension) / dimension**0.5
    R = 0.04 * torch.eye(num_variables, dtype=torch.float64)
    return stationary_system(A, 0.5 * normal(dimension), L, H, R)


def stationary_system(A: Tensor, b: Tensor, L: Tensor, H: Tensor, R: Tensor) -> LinearSystem:
    """The system that starts in its stationary law: A m0 + b = 0 and A P0 + P0 A^T + L L^T = 0."""
    size = A.shape[0]
    eye = torch.eye(size, dtype=A.dtype)
    both = torch.kron(A, eye) + torch.kron(eye, A)
    P0 = torch.linalg.solve(both, -(L @ L.mT).flatten()).reshape(size, size)
    return LinearSystem(A, b, L, torch.linalg.solve(A, -b), 0.5 * (P0 + P0.mT), H, R)


def transition(system: LinearSystem, dt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Exact z(t + dt) | z(t) ~ N(F z + c, Q) for steps dt of any shape: F (..., d, d), c (..., d), Q (..., d, d).

    For a system in its stationary law: F = exp(A dt), c = m0 - F m0 and Q = P0 - F P0 F^T.
    """
    F = torch.linalg.matrix_exp(system.A * dt.to(torch.float64)[..., None, None])
    Q = system.P0 - F @ system.P0 @ F.mT
    return F, system.m0 - F @ system.m0, 0.5 * (Q + Q.mT)


def simulate(
    system: LinearSystem, times: Tensor, missing: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Latent paths (B, T, d), observations (B, T, D) and a random mask (B, T, D) at non-decreasing `times` (B, T)."""
    rows, visits = times.shape
    size, variables = system.H.shape[1], system.H.shape[0]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    F, c, Q = transition(system, times.diff(dim=1))
    value, vector = torch.linalg.eigh(Q)
    root = vector * value.clamp(min=0).sqrt()[..., None, :]  # dt = 0 gives Q = 0, which has no Cholesky factor
    z = system.m0 + normal(rows, size) @ torch.linalg.cholesky(system.P0).mT
    path = [z]
    for k in range(visits - 1):
        z = (F[:, k] @ z[..., None])[..., 0] + c[:, k] + (root[:, k] @ normal(rows, size, 1))[..., 0]
        path.append(z)
    latent = torch.stack(path, 1)
    noise = normal(rows, visits, variables) @ torch.linalg.cholesky(system.R).mT
    mask = torch.rand(rows, visits, variables, dtype=torch.float64, generator=generator) >= missing
    return latent, latent @ system.H.mT + noise, mask


def splits_of(
    name: str,
    system: LinearSystem,
    rows: int,
    held_out: int,
    visits: int,
    missing: float,
    seed: int,
    generator: torch.Generator,
) -> Splits:
    """Ragged, irregular splits drawn from a system; arguments as in `load`."""
    if min(rows, held_out, visits) < 1:
        raise ValueError(f"rows, held_out, visits: {rows}, {held_out}, {visits} given, at least 1 wanted")
    if not 0 <= missing < 1:
        raise ValueError(f"missing: {missing} given, a number from 0 up to 1 wanted")
    total = rows + 2 * held_out
    gaps = torch.empty(total, visits, dtype=torch.float64).exponential_(4.0, generator=generator) + 0.01
    gaps[:, 0] = 0
    times = gaps.cumsum(1)
    _, values, mask = simulate(system, times, missing, generator)
    length = torch.randint((visits + 1) // 2, visits + 1, (total, 1), generator=generator)
    mask &= (torch.arange(visits) < length)[..., None]
    mask[:, 0, 0] = True
    whole = SeriesBatch(times, values.to(torch.get_default_dtype()), mask, ids=tuple(f"row-{k}" for k in range(total)))
    return Splits(
        whole.rows(slice(0, rows)),
        whole.rows(slice(rows, rows + held_out)),
        whole.rows(slice(rows + held_out, None)),
        {
            "name": name,
            "source": f"simulated, seed {seed}",
            "licence": "that of this software",
            "citation": "none",
            "time_unit": "1",
            "log": (),
            "static_names": (),
            "protocols": {"half": {"fraction": 0.5}},
            "system": system,
        },
    )
