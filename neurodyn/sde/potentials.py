"""Potentials U(q) of n coordinates: energies, gradients in closed form, and Hessian-vector products.

A Langevin law moves down the gradient of one, and rests in the density exp(-U / kT), which must be normalisable: all
here grow at least quadratically in every direction, but for the released form of `CoupledOscillators`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn


class Potential(nn.Module):
    """U(q) for q (..., n). Subclasses write `energy`; a `gradient` in closed form is faster than the one by autograd.

    Attributes:
        size: n, the number of coordinates.
    """

    size: int

    def energy(self, q: Tensor) -> Tensor:
        """U, (...), in the units of kT."""
        raise NotImplementedError(f"{type(self).__name__} has no energy")

    def gradient(self, q: Tensor) -> Tensor:
        """dU/dq, (..., n); differentiable again where gradients are on."""
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            state = q if q.requires_grad and again else q.detach().requires_grad_()
            (found,) = torch.autograd.grad(self.energy(state).sum(), state, create_graph=again)
        return found

    def hessian_product(self, q: Tensor, direction: Tensor) -> Tensor:
        """The Hessian at q (..., n) times `direction` (..., n), by one backward pass through the gradient."""
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            state = q if q.requires_grad and again else q.detach().requires_grad_()
            along = (self.gradient(state) * direction).sum()
            (found,) = torch.autograd.grad(along, state, create_graph=again)
        return found


def _positive(name: str, given: float | Tensor) -> None:
    if not bool((torch.as_tensor(given) > 0).all()):
        raise ValueError(f"{name}: got {given}, want positive")


class QuadraticPotential(Potential):
    """U = (q - c)^T K (q - c) / 2, K positive definite: the harmonic well. Centre and stiffness are learned.

    Args:
        size: n.
        stiffness: initial K: a number, (n,) for a diagonal K, or (n, n), symmetric, for a full one.
    """

    def __init__(self, size: int, stiffness: float | Tensor = 1.0) -> None:
        super().__init__()
        self.size = size
        given = torch.as_tensor(stiffness)
        given = given if given.is_floating_point() else given.to(torch.get_default_dtype())
        if tuple(given.shape) not in ((), (size,), (size, size)):
            raise ValueError(f"stiffness: got shape {tuple(given.shape)}, want a number, ({size},) or ({size}, {size})")
        self.below: nn.Parameter | None = None
        if given.ndim == 2:
            root, failed = torch.linalg.cholesky_ex(given)
            if failed or not torch.allclose(given, given.mT):
                raise ValueError("stiffness: got a matrix that is not symmetric positive definite, want one that is")
            self.below = nn.Parameter(root.tril(-1))
            diagonal = root.diagonal().square()
        else:
            _positive("stiffness", stiffness)
            diagonal = given.expand(size)
        self.log_diagonal = nn.Parameter(diagonal.log())
        self.centre = nn.Parameter(torch.zeros_like(diagonal))

    def stiffness(self) -> Tensor:
        """K, (n, n)."""
        if self.below is None:
            return torch.diag(self.log_diagonal.exp())
        root = self.below.tril(-1) + torch.diag((0.5 * self.log_diagonal).exp())
        return root @ root.mT

    def energy(self, q: Tensor) -> Tensor:
        """See `Potential`."""
        return 0.5 * (self.gradient(q) * (q - self.centre)).sum(-1)

    def gradient(self, q: Tensor) -> Tensor:
        """K (q - c)."""
        return self._times(q - self.centre)

    def hessian_product(self, q: Tensor, direction: Tensor) -> Tensor:
        """K direction."""
        return self._times(direction).expand_as(q)

    def _times(self, vector: Tensor) -> Tensor:
        return vector * self.log_diagonal.exp() if self.below is None else vector @ self.stiffness()


class DoubleWellPotential(Potential):
    """U = sum_i b_i ((q_i / w_i)^2 - 1)^2: minima at +-w_i, barriers of height b_i at 0. Both are learned.

    Args:
        size: n.
        barrier: initial b, in the units of kT.
        width: initial w.
    """

    def __init__(self, size: int, barrier: float = 1.0, width: float = 1.0) -> None:
        _positive("barrier", barrier)
        _positive("width", width)
        super().__init__()
        self.size = size
        self.log_barrier = nn.Parameter(torch.full((size,), math.log(barrier)))
        self.log_width = nn.Parameter(torch.full((size,), math.log(width)))

    def _parts(self, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """b, 1 / w, q / w."""
        narrow = (-self.log_width).exp()
        return self.log_barrier.exp(), narrow, q * narrow

    def energy(self, q: Tensor) -> Tensor:
        """See `Potential`."""
        barrier, _, x = self._parts(q)
        return (barrier * (x.square() - 1).square()).sum(-1)

    def gradient(self, q: Tensor) -> Tensor:
        """4 b x (x^2 - 1) / w, x = q / w."""
        barrier, narrow, x = self._parts(q)
        return 4 * barrier * narrow * x * (x.square() - 1)

    def hessian_product(self, q: Tensor, direction: Tensor) -> Tensor:
        """4 b (3 x^2 - 1) / w^2 times the direction."""
        barrier, narrow, x = self._parts(q)
        return 4 * barrier * narrow.square() * (3 * x.square() - 1) * direction


class CoupledOscillators(Potential):
    """Groups of oscillators on a line, coupled to their neighbours and to the other groups by a convolution.

    The coordinates are read as (groups, n / groups) and V is a convolution over places that mixes groups, with zeros
    beyond the ends. All forms are quadratic in q:

        "squares"   k |q|^2 / 2 + |V q|^2 / 2: a lattice of springs, bounded below whatever V is
        "product"   k |q|^2 / 2 + c(V) |q|^2 + sum_gg' <(V q)_g, q_g'>: the coupling of LangevinFlow, with the least
                    confinement c that Young's inequality proves enough for U >= k |q|^2 / 2
        "released"  sum_gg' <(V q)_g, q_g'> alone, as the released code has it: not bounded below

    The last two normalise the taps of each pair of groups to length 1, as the released code does; weights start at
    random, since at its zero start the normalisation freezes them. Source: Song et al. (2025), arXiv 2507.11531.

    Args:
        size: n, a multiple of `groups`.
        groups: how many.
        taps: of the convolution, odd.
        form: see above.
        stiffness: initial k, learned per coordinate.
        kernel: start of V: "random", or for "squares" "wave": differences of neighbours within a group, the discrete
            wave equation (fixed at the first end), in which waves travel.
    """

    def __init__(
        self,
        size: int,
        groups: int = 4,
        taps: int = 3,
        *,
        form: Literal["squares", "product", "released"] = "squares",
        stiffness: float = 1.0,
        kernel: Literal["random", "wave"] = "random",
    ) -> None:
        if groups < 1 or size % groups:
            raise ValueError(f"groups: got {groups}, want a divisor of the size {size}")
        if taps < 1 or taps % 2 == 0:
            raise ValueError(f"taps: got {taps}, want an odd number")
        if form not in ("squares", "product", "released"):
            raise ValueError(f"form: got {form!r}, want squares, product or released")
        if kernel not in ("random", "wave") or (kernel == "wave" and (form != "squares" or taps < 3)):
            raise ValueError(f"kernel: got {kernel!r}, want 'random', or 'wave' with form='squares' and 3 taps or more")
        _positive("stiffness", stiffness)
        super().__init__()
        self.size, self.groups, self.form = size, groups, form
        weight = torch.randn(groups, groups, taps) / math.sqrt(groups * taps)
        if kernel == "wave":
            eye = torch.eye(groups)
            weight = 0.01 * weight
            weight[..., taps // 2] += eye
            weight[..., taps // 2 - 1] -= eye
        self.weight = nn.Parameter(weight)
        self.log_stiffness = nn.Parameter(torch.full((size,), math.log(stiffness))) if form != "released" else None

    def energy(self, q: Tensor) -> Tensor:
        """See `Potential`. A quadratic form is half the product of its gradient and q."""
        return 0.5 * (self.gradient(q) * q).sum(-1)

    def gradient(self, q: Tensor) -> Tensor:
        """K q, K the constant Hessian, by convolutions."""
        places = q.reshape(-1, self.groups, self.size // self.groups)
        pad = self.weight.shape[-1] // 2
        if self.form == "squares":
            moved = nn.functional.conv1d(places, self.weight, padding=pad)
            pulled = nn.functional.conv_transpose1d(moved, self.weight, padding=pad)
        else:
            kernel, total = self._summed_kernel(), places.sum(1, keepdim=True)
            pulled = nn.functional.conv_transpose1d(total, kernel, padding=pad)
            pulled = pulled + nn.functional.conv1d(places, kernel, padding=pad)
        found = pulled.reshape(q.shape)
        if self.log_stiffness is None:
            return found
        stiffness = self.log_stiffness.exp()
        return found + (stiffness if self.form == "squares" else stiffness + 2 * self._confinement()) * q

    def hessian_product(self, q: Tensor, direction: Tensor) -> Tensor:
        """K direction."""
        return self.gradient(direction).expand_as(q)

    def _summed_kernel(self) -> Tensor:
        """The normalised kernel, summed over the groups that it leads to, (1, groups, taps)."""
        return nn.functional.normalize(self.weight, dim=2).sum(0, keepdim=True)

    def _confinement(self) -> Tensor:
        """c with |coupling| <= c |q|^2.

        |sum_g (V q)_g| <= sum_g' a_g' |q_g'|, a the 1-norms of the summed kernel (Young), and |sum_g' q_g'| <= sum_g'
        |q_g'|, so c is the largest eigenvalue of (a 1^T + 1 a^T) / 2.
        """
        reach = self._summed_kernel()[0].abs().sum(-1)
        return 0.5 * (reach.sum() + math.sqrt(self.groups) * torch.linalg.vector_norm(reach))


class MLPPotential(Potential):
    """U = k |q|^2 / 2 + a network with tanh layers, hence at least k |q|^2 / 2 + bias - the sum of its last weights.

    Args:
        size: n.
        hidden_size, hidden_layers: of the network.
        stiffness: initial k, one number, learned.
    """

    def __init__(self, size: int, hidden_size: int = 64, hidden_layers: int = 2, *, stiffness: float = 1.0) -> None:
        _positive("stiffness", stiffness)
        super().__init__()
        self.size = size
        widths = [size] + [hidden_size] * hidden_layers
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.last = nn.Linear(widths[-1], 1)
        self.log_stiffness = nn.Parameter(torch.tensor(math.log(stiffness)))

    def energy(self, q: Tensor) -> Tensor:
        """See `Potential`."""
        hidden = q
        for layer in self.layers:
            hidden = torch.tanh(layer(hidden))
        return 0.5 * self.log_stiffness.exp() * q.square().sum(-1) + self.last(hidden)[..., 0]

    def gradient(self, q: Tensor) -> Tensor:
        """The network's backward pass, written out."""
        slopes, hidden = [], q
        for layer in self.layers:
            hidden = torch.tanh(layer(hidden))
            slopes.append(1 - hidden.square())
        pulled = self.last.weight[0]
        for layer, slope in zip(reversed(self.layers), reversed(slopes), strict=True):
            pulled = (pulled * slope) @ layer.weight  # type: ignore[operator]
        return self.log_stiffness.exp() * q + pulled


class ConvexPotential(Potential):
    """U = k |q|^2 / 2 + an input-convex network: one well, of any convex shape, never below k |q|^2 / 2.

    Layers softplus(P h + A q + b) with P >= 0 and a last product with weights >= 0 (Amos, Xu and Kolter 2017,
    arXiv 1609.07152, eq. 2); softplus keeps the energy smooth.

    Args:
        size: n.
        hidden_size, hidden_layers: of the network.
        stiffness: initial k, one number, learned; the least curvature of U.
    """

    def __init__(self, size: int, hidden_size: int = 64, hidden_layers: int = 2, *, stiffness: float = 1.0) -> None:
        _positive("stiffness", stiffness)
        super().__init__()
        self.size = size
        self.reads = nn.ModuleList(nn.Linear(size, hidden_size) for _ in range(hidden_layers))
        # softplus of these is positive and sums to about one over a layer's inputs, so that depth does not inflate U
        small = math.log(math.expm1(1 / hidden_size))
        self.raw_passes = nn.ParameterList(
            small + torch.randn(hidden_size, hidden_size) for _ in range(hidden_layers - 1)
        )
        self.raw_last = nn.Parameter(small + torch.randn(hidden_size))
        self.log_stiffness = nn.Parameter(torch.tensor(math.log(stiffness)))

    def _forward(self, q: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The network's value, what each layer had before its softplus, and the weights P."""
        passes = [nn.functional.softplus(raw) for raw in self.raw_passes]
        before = [self.reads[0](q)]
        for read, weight in zip(list(self.reads)[1:], passes, strict=True):
            before.append(read(q) + nn.functional.softplus(before[-1]) @ weight.mT)
        return nn.functional.softplus(before[-1]) @ nn.functional.softplus(self.raw_last), before, passes

    def energy(self, q: Tensor) -> Tensor:
        """See `Potential`."""
        return 0.5 * self.log_stiffness.exp() * q.square().sum(-1) + self._forward(q)[0]

    def gradient(self, q: Tensor) -> Tensor:
        """The network's backward pass, written out."""
        _, before, passes = self._forward(q)
        pulled = nn.functional.softplus(self.raw_last) * torch.sigmoid(before[-1])
        reads: list[Tensor] = [read.weight for read in self.reads]  # type: ignore[misc]
        found = self.log_stiffness.exp() * q + pulled @ reads[-1]
        for k in reversed(range(len(passes))):
            pulled = (pulled @ passes[k]) * torch.sigmoid(before[k])
            found = found + pulled @ reads[k]
        return found


POTENTIALS: dict[str, Callable[..., Potential]] = {
    "quadratic": QuadraticPotential,
    "double_well": DoubleWellPotential,
    "oscillators": CoupledOscillators,
    "mlp": MLPPotential,
    "convex": ConvexPotential,
}


def make_potential(potential: str | Potential, size: int, **options: float | str | Sequence[float]) -> Potential:
    """A potential of `size` coordinates by name, with options of its class; or one that is there already, checked.

    Raises:
        ValueError: an unknown name, or a potential of another size.
    """
    if isinstance(potential, Potential):
        if potential.size != size:
            raise ValueError(f"potential: got one of {potential.size} coordinates, want {size}")
        return potential
    if potential not in POTENTIALS:
        raise ValueError(f"potential: got {potential!r}, want one of {', '.join(POTENTIALS)}")
    return POTENTIALS[potential](size, **options)
