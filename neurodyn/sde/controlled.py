"""Laws of motion that a path steers: dz = f(t, z, X(t)) dt + g(t, z) dW, with diagonal Ito noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from neurodyn.sde.base import SDE, Time

Control = Callable[[Time], Tensor]


class TanhForm(NamedTuple):
    """velocity(u) = outside tanh(inside u + pull) + shift - rate u,  spread(u) = level, or level u: see `tanh_form`.

    Attributes:
        inside: (h, d). outside: (d, h). pull: (..., h). shift: (d,) or (..., d). rate: (), per unit of time.
        level: (..., d). multiplies: whether the level multiplies the state.
    """

    inside: Tensor
    outside: Tensor
    pull: Tensor
    shift: Tensor
    rate: Tensor
    level: Tensor
    multiplies: bool


class ControlledLaw(nn.Module):
    """What time and control do to a law is worked out by `prepare`, for all steps of a solve at once; what is left
    inside the loop takes the state alone.

    Subclasses write `prepare`, `velocity` and `spread`. A law may move another coordinate u of the state z than z
    itself (the logarithm, say): then all three speak of u, and `inner` and `outer` translate.

    Attributes:
        state_size: d. control_size: C.
        coordinatewise, state_independent: of the diffusion, as in `SDE`.
    """

    state_size: int
    control_size: int
    coordinatewise: bool = True
    state_independent: bool = False

    def prepare(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """(pull, level), each (..., some size), at times t (...) since a series began and controls x (..., C)."""
        raise NotImplementedError(f"{type(self).__name__} has no prepare")

    def velocity(self, u: Tensor, pull: Tensor) -> Tensor:
        """The drift (..., d) at u (..., d), given what `prepare` made for the same time."""
        raise NotImplementedError(f"{type(self).__name__} has no velocity")

    def spread(self, u: Tensor, level: Tensor) -> Tensor:
        """The diagonal of the diffusion (..., d) at u (..., d), given what `prepare` made for the same time."""
        raise NotImplementedError(f"{type(self).__name__} has no spread")

    def tanh_form(self, pull: Tensor, level: Tensor) -> TanhForm | None:
        """The law at all steps in the form that is solved without autograd inside the loop, if it has that form.

        Args:
            pull, level: what `prepare` made.
        """
        return None

    def inner(self, z: Tensor) -> Tensor:
        """u of z, (..., d)."""
        return z

    def outer(self, u: Tensor) -> Tensor:
        """z of u, (..., d)."""
        return u

    def along(self, control: Control) -> SDE:
        """The law of u along a path, for `sdeint`: `control(t)` is X at a time, broadcastable to (..., C)."""
        return Along(self, control)


class Along(SDE):
    """A `ControlledLaw` along one control path."""

    noise_type = "diagonal"

    def __init__(self, law: ControlledLaw, control: Control) -> None:
        super().__init__()
        self.law, self.control = law, control
        self.state_size = self.noise_size = law.state_size
        self.coordinatewise, self.state_independent = law.coordinatewise, law.state_independent

    def _prepared(self, t: Time, z: Tensor) -> tuple[Tensor, Tensor]:
        x = self.control(t).to(z)
        return self.law.prepare(torch.as_tensor(t, dtype=z.dtype, device=z.device).expand(x.shape[:-1]), x)

    def drift(self, t: Time, z: Tensor) -> Tensor:
        """(..., d)."""
        return self.law.velocity(z, self._prepared(t, z)[0])

    def diffusion(self, t: Time, z: Tensor) -> Tensor:
        """(..., d)."""
        return self.law.spread(z, self._prepared(t, z)[1]).expand_as(z)
