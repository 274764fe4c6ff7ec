"""What the benchmarks ask of every library: a training step, a draw from the prior, and proof that it is the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.rivals.problem import Arrays, Problem


class Unavailable(Exception):
    """A way that cannot be taken here, and why: a package is not installed, or this version lacks it."""


class Answer(NamedTuple):
    """The loss, and its gradients by the problem's weights and inputs."""

    loss: float
    gradients: Arrays


class Step(Protocol):
    """One way of taking the step, for one problem. Calls return when the work is done."""

    def train(self) -> None:
        """Draw noise, the loss, and all gradients."""

    def sample(self) -> None:
        """Draw noise and states of the prior at the visits, without gradients."""

    def answer(self, increments: NDArray[np.floating]) -> Answer:
        """Loss and gradients on the given Brownian increments (N, B, d)."""


@dataclass(frozen=True)
class Way:
    """A row of the tables.

    name: of the row. make: takes a problem; raises `Unavailable`. trains, samples: what is timed of it. swept: whether
    at every size, or at the base point only. exact: whether `answer` can be asked for, and is the Euler-Maruyama one.
    ours: whether it is a simulated way of neurodyn's.
    """

    name: str
    make: Callable[[Problem], Step]
    trains: bool = True
    samples: bool = False
    swept: bool = False
    exact: bool = False
    ours: bool = False
