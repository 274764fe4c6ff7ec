"""The fused engine: a whole Euler-Maruyama solve in one kernel forward and one backward, for laws made of small nets.

    drift:      net(z) = W2 act(W1 z + shift) + b2, with a shift per gap between visits and row (what a context adds)
    diffusion:  low + (high - low) sigmoid(one network 1-J-1 per coordinate)
    price:      1/2 |(net - prior) / g|^2 against a prior drift of the same form, as `path_kl`; or, where the drift is
                prior + g u with u = offset + gain z + net(z), 1/2 |u|^2

Plain PyTorch (`neurodyn.solvers.native`) is the reference that this is tested against, and what every other law takes.
The kernels for CUDA are in `neurodyn.solvers.fused_kernel`, which is read when it is first needed: Triton comes with
torch for CUDA. With TRITON_INTERPRET=1 in the environment they run on CPU tensors, slowly, for tests. The one for CPUs
is in `neurodyn.solvers.fused_cpu`, compiled by the C++ compiler that is found.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neurodyn.noise import RowNoise
from neurodyn.solvers.brownian import Brownian
from neurodyn.solvers.fused_cpu import CPUSolve, over_samples
from neurodyn.solvers.grid import Grid
from neurodyn.solvers.loop import check_noise
from neurodyn.solvers.native import Visits

_ALONE, _PRICED, _STEERED = 0, 1, 2
LARGEST_TILE = 4096  # coordinates times hidden units: more do not fit a program's registers


class Net(NamedTuple):
    """W2 act(W1 z + shift) + b2: weight_in (H, d) and weight_out (d, H) as in `nn.Linear`, bias (d,).

    shift: (H,), or (G, *rows, H): one per gap between visits and row.
    """

    weight_in: Tensor
    shift: Tensor
    weight_out: Tensor
    bias: Tensor


class CoordinateNets(NamedTuple):
    """The diffusion as in `CoordinatewiseNet`: weight_in, bias_in, weight_out (d, J), bias_out (d,), and its bounds."""

    weight_in: Tensor
    bias_in: Tensor
    weight_out: Tensor
    bias_out: Tensor
    low: float
    high: float


class Steering(NamedTuple):
    """What a control adds to its net: offset (*rows, N, d), gain (*rows, N, d), a diagonal, or (*rows, N, d, d)."""

    offset: Tensor
    gain: Tensor


class FusedLaw(NamedTuple):
    """A law as the kernels see it.

    Attributes:
        net: the drift, or the control's network if there is a steering.
        diffusion: g.
        prior: the drift that the path is priced against; no price if not given. Its shift is (K,).
        steering: makes the drift prior + g u.
        activation: of the net, "softplus" or "silu". The prior and the diffusion have softplus.
    """

    net: Net
    diffusion: CoordinateNets
    prior: Net | None = None
    steering: Steering | None = None
    activation: str = "softplus"


def integrate_fused(law: FusedLaw, z0: Tensor, grid: Grid, noise: Tensor) -> Visits:
    """Solve on a grid by Euler-Maruyama, and keep the visits, with gradients to z0 and to every tensor of the law.

    Args:
        law: of which rows are the last axes of the leading shape of z0.
        z0: (..., d), float32 or float64, with the full leading shape.
        grid: N steps; its rows are the last axes of the leading shape too.
        noise: Brownian increments (N, ..., d); or int64 keys, one per row (the last axes of the leading shape; axes in
            front are samples). A row's noise then depends on its key, the number of the sample and its own steps only.
            On CUDA it is drawn in the kernel and takes no memory; on a CPU it is that of `Brownian`.

    Returns:
        States (..., T, d) and, with a prior, the price of each gap (..., T - 1) in nats.

    Raises:
        ValueError: shapes that do not fit, networks that are too large, or a device that Triton does not run on.
        ModuleNotFoundError: on CUDA, without Triton.
        NoKernel: on a CPU, without a C++ compiler.
    """
    if z0.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"y0: got {z0.dtype} with engine 'fused', want float32 or float64")
    on_cpu = runs_on_cpu(z0)
    kernels = None if on_cpu else _kernels(z0)
    lead, d = z0.shape[:-1], z0.shape[-1]
    if on_cpu and not noise.is_floating_point():
        source = Brownian(grid, lead, d, seeds=RowNoise.keyed(noise), dtype=z0.dtype, device=z0.device)
        noise = source.increments()  # as the native engine draws it
    given = noise.is_floating_point()
    if given:
        check_noise(noise, grid, z0)
    series = _series(law, lead, grid, noise if not given else None)
    widths = [law.net.weight_out.shape[-1], law.diffusion.weight_out.shape[-1]]
    widths += [law.prior.weight_out.shape[-1]] if law.prior is not None else []
    tile = _power(d) * max(_power(width) for width in widths)
    if tile > LARGEST_TILE and not on_cpu:
        raise ValueError(
            f"engine: got 'fused' for {d} coordinates and {max(widths)} hidden units, "
            f"want at most {LARGEST_TILE} of their product, rounded up to powers of two"
        )
    if not grid.num_steps:
        states = z0.unsqueeze(-2).expand(*lead, len(grid.index), d)
        return Visits(states, z0.new_zeros(*lead, len(grid.index) - 1) if law.prior is not None else None)
    plan = _plan(grid, series, z0)
    gaps, rows = len(grid.index) - 1, series.numel()
    width = law.net.weight_out.shape[-1]
    shift = law.net.shift if law.net.shift.ndim > 1 else law.net.shift.reshape(1, *(1,) * len(series), width)
    shift = shift.to(z0.dtype).expand(gaps, *series, width)
    if len(series) != 1:
        shift = shift.reshape(gaps, rows, width)
    if shift.stride(-1) != 1:
        shift = shift.contiguous()
    steering = law.steering or (None, None)
    offset, gain = (
        None if part is None else part.to(z0.dtype).reshape(rows, *part.shape[len(series) :]) for part in steering
    )
    problem = Problem(kernels, plan, law, noise.contiguous().reshape(-1), given, tile, rows)
    solve = CPUSolve if on_cpu else _FusedSolve
    seen, cost = solve.apply(problem, z0.reshape(-1, d), _packed(law).to(z0.dtype), shift, offset, gain)
    if plan.repeats is not None:
        seen = seen[plan.repeats]
    states = seen.movedim(0, 1).reshape(*lead, len(grid.index), d)
    return Visits(states, cost.movedim(0, 1).reshape(*lead, gaps) if law.prior is not None else None)


class _Plan(NamedTuple):
    """A grid on the device: steps (N,) or (rows, N), the gap of each step, the visit after each, the visits' places."""

    steps: Tensor
    gap_of: Tensor
    slot_of: Tensor
    places: Tensor
    repeats: Tensor | None


# Kept with the grid, so that a second solve on it copies nothing to the device.
_PLANS: WeakKeyDictionary[Grid, dict[Any, _Plan]] = WeakKeyDictionary()


def _plan(grid: Grid, series: torch.Size, z0: Tensor) -> _Plan:
    made = _PLANS.setdefault(grid, {})
    key = (series, z0.dtype, z0.device)
    if key not in made:
        steps = grid.steps if grid.shared else grid.steps.expand(*series, grid.num_steps).reshape(-1, grid.num_steps)
        unique = sorted(set(grid.index))
        slots = [-1] * (grid.num_steps + 1)
        for slot, place in enumerate(unique):
            slots[place] = slot
        repeats = [slots[place] for place in grid.index] if len(unique) < len(grid.index) else None
        whole: dict[str, Any] = {"device": z0.device, "dtype": torch.int32}
        made[key] = _Plan(
            steps.to(dtype=z0.dtype, device=z0.device).contiguous(),
            torch.tensor(grid.intervals, **whole),
            torch.tensor(slots, **whole),
            torch.tensor(unique, device=z0.device),
            None if repeats is None else torch.tensor(repeats, device=z0.device),
        )
    return made[key]


class Problem(NamedTuple):
    """What the kernels need besides tensors with gradients."""

    kernels: Any
    plan: _Plan
    law: FusedLaw
    noise: Tensor
    given: bool
    tile: int
    series: int

    @property
    def form(self) -> int:
        """Which of the three forms of the drift the law has."""
        return _STEERED if self.law.steering is not None else _ALONE if self.law.prior is None else _PRICED

    def sizes(self, rows: int) -> tuple[int, ...]:
        """Numbers of steps, rows and series, the widths of the nets, and the size of the prior's weights."""
        law = self.law
        d, width = law.net.weight_out.shape
        prior = law.prior.weight_out.shape[-1] if law.prior is not None else 0
        held = (2 * d + 1) * prior + d if law.prior is not None else 0
        noise = law.diffusion.weight_out.shape[-1]
        return len(self.plan.gap_of), rows, self.series, d, width, prior, noise, held

    def strides(self, shift: Tensor) -> tuple[int, ...]:
        """Of the shift, by gap and by row, and of the steps by row."""
        steps = self.plan.steps
        return (*shift.stride()[:2], steps.stride(0) if steps.ndim == 2 else 0)

    def constants(self) -> dict[str, Any]:
        """What a kernel is compiled for."""
        law = self.law
        d, width = law.net.weight_out.shape
        prior = law.prior.weight_out.shape[-1] if law.prior is not None else 1
        return {
            "LOW": law.diffusion.low,
            "HIGH": law.diffusion.high,
            "D": _power(d),
            "HB": _power(width),
            "KB": _power(prior),
            "JB": _power(law.diffusion.weight_out.shape[-1]),
            "FORM": self.form,
            "SILU": law.activation == "silu",
            "FULL": law.steering is not None and law.steering.gain.ndim > law.steering.offset.ndim,
            "GIVEN": self.given,
        }

    def warps(self, backward: bool) -> int:
        """Warps of a program: as few as hold its weights, and going back their gradients, in registers."""
        # one warp sums without shared memory; seen by the compiler's report for sm_90: no spills up to tiles of 1024
        return min(max(self.tile // (128 if backward and self.tile > 256 else 256), 1), 8)


class _FusedSolve(torch.autograd.Function):
    """States at the visits (T, R, d) and prices (T - 1, R)."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        problem: Problem,
        z0: Tensor,
        weights: Tensor,
        shift: Tensor,
        offset: Tensor | None,
        gain: Tensor | None,
    ) -> Any:
        plan = problem.plan
        rows, d = z0.shape
        z0 = z0.contiguous()
        offset = offset.contiguous() if offset is not None else None
        gain = gain.contiguous() if gain is not None else None
        path = z0.new_empty(len(plan.gap_of) + 1, rows, d)
        cost = z0.new_zeros(shift.shape[0], rows)  # a gap in which no row moves is free
        moves = torch.empty(rows, dtype=torch.int32, device=z0.device)
        spare = weights  # for what this form does not read
        problem.kernels.fused_forward[(rows,)](
            z0,
            weights,
            shift,
            offset if offset is not None else spare,
            gain if gain is not None else spare,
            plan.steps,
            plan.gap_of,
            problem.noise,
            problem.noise,
            path,
            cost,
            moves,
            *problem.sizes(rows),
            *problem.strides(shift),
            **problem.constants(),
            num_warps=problem.warps(backward=False),
        )
        ctx.problem = problem
        ctx.save_for_backward(path, moves, weights, shift, offset, gain)
        ctx.set_materialize_grads(True)
        return path.index_select(0, plan.places), cost

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, seen_grad: Tensor, cost_grad: Tensor) -> Any:  # noqa: D102
        problem, plan = ctx.problem, ctx.problem.plan
        path, moves, weights, shift, offset, gain = ctx.saved_tensors
        rows, d = path.shape[1:]
        samples, count = rows // problem.series, len(weights)
        z0_grad = torch.empty_like(path[0])
        weights_grad = weights.new_empty(rows, count)
        shift_grad = shift.new_zeros(shift.shape[0], rows, shift.shape[-1])
        offset_grad = None if offset is None else offset.new_empty(rows, *offset.shape[1:])
        gain_grad = None if gain is None else gain.new_empty(rows, *gain.shape[1:])
        problem.kernels.fused_backward[(rows,)](
            path,
            weights,
            shift,
            offset if offset is not None else weights,
            gain if gain is not None else weights,
            plan.steps,
            plan.gap_of,
            plan.slot_of,
            problem.noise,
            problem.noise,
            moves,
            seen_grad.contiguous(),
            cost_grad.contiguous(),
            z0_grad,
            weights_grad,
            shift_grad,
            offset_grad if offset_grad is not None else weights_grad,
            gain_grad if gain_grad is not None else weights_grad,
            *problem.sizes(rows),
            count,
            *problem.strides(shift),
            **problem.constants(),
            num_warps=problem.warps(backward=True),
        )
        shift_grad = over_samples(shift_grad, 1, samples)
        parts = (None if part is None else over_samples(part, 0, samples) for part in (offset_grad, gain_grad))
        return (None, z0_grad, weights_grad.sum(0), shift_grad, *parts)


def _packed(law: FusedLaw) -> Tensor:
    """All weights in one vector, in the order in which the kernels read them."""
    net, prior, own = law.net, law.prior, law.diffusion
    parts = [net.weight_in.T, net.weight_out, net.bias]
    if prior is not None:
        parts += [prior.weight_in.T, prior.shift, prior.weight_out, prior.bias]
    parts += [own.weight_in, own.bias_in, own.weight_out, own.bias_out]
    return torch.cat([part.reshape(-1) for part in parts])


def _series(law: FusedLaw, lead: torch.Size, grid: Grid, keys: Tensor | None) -> torch.Size:
    """The last axes of the leading shape, along which rows differ by more than their noise."""
    count = max(len(grid.rows), law.net.shift.ndim - 2, 0 if keys is None else keys.ndim)
    if law.steering is not None:
        count = max(count, law.steering.offset.ndim - 2)
    series = lead[len(lead) - count :]
    if count > len(lead) or (keys is not None and keys.shape != series):
        given = () if keys is None else tuple(keys.shape)
        raise ValueError(f"noise: got keys of shape {given} for rows {tuple(series)}, want one for each row")
    return torch.Size(series)


def runs_on_cpu(z0: Tensor) -> bool:
    """Whether the kernel for CPUs is the one for these states."""
    return z0.device.type == "cpu" and not _interpreted()


def _interpreted() -> bool:
    """Whether Triton's kernels run on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _kernels(z0: Tensor) -> Any:
    """The module of kernels, where it can run."""
    if z0.device.type != "cuda" and not _interpreted():
        raise ValueError(f"engine: got 'fused' on {z0.device.type}, want states on a CPU or a CUDA device")
    try:
        from neurodyn.solvers import fused_kernel
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"engine: got 'fused', which needs {error.name}: it comes with torch for CUDA, or pip install triton"
        ) from None
    return fused_kernel


def _power(size: int) -> int:
    """The next power of two, 2 or more."""
    return max(2, 1 << (size - 1).bit_length())
