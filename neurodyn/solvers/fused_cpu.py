"""The fused solve on a CPU: fused_cpu.cpp, compiled for one law's sizes when it is first solved, and kept on disk.

The whole of a step is a few hundred vector instructions per row, where eager PyTorch launches some forty operations and
carries every hidden unit through memory, forward and back. Here tiles of rows go through all steps on one core, only
states and the networks' values are kept, and hidden units are taken again in the backward pass.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Problem = Any  # that of `neurodyn.solvers.fused`, which reads this file

SOURCE = Path(__file__).with_suffix(".cpp")
OPTIONS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-pthread", "-w")
VECTOR_BYTES = 64


class NoKernel(RuntimeError):
    """There is no kernel here, and why: no C++ compiler, or one that fails."""


class Kernel(NamedTuple):
    """A compiled law: rows of a tile, numbers kept per tile and step, and the two functions of fused_cpu.cpp."""

    tile: int
    kept: int
    forward: Any
    backward: Any


class _Sizes(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("steps", "rows", "series", "gaps", "visits")),
        *((name, ctypes.c_int64) for name in ("shift_gap", "shift_row", "steps_row", "threads")),
        *((name, ctypes.c_double) for name in ("low", "high")),
    ]


def cpu_kernel(problem: Problem, rows: int, dtype: torch.dtype) -> Kernel:
    """The kernel of a problem's law, compiled (some seconds) if it has not been before.

    Raises:
        NoKernel: no compiler is found, or it fails.
    """
    law = problem.law
    d, width = law.net.weight_out.shape
    lanes = VECTOR_BYTES // dtype.itemsize
    sizes = {
        "REAL": "float" if dtype == torch.float32 else "double",
        # two vectors of rows per tile share the sums of the weights' gradients, where that leaves no core idle
        "VECTORS": 2 if rows > lanes * torch.get_num_threads() else 1,
        "DIM": d,
        "HIDDEN": width,
        "PRIOR": law.prior.weight_out.shape[-1] if law.prior is not None else 0,
        "NOISE": law.diffusion.weight_out.shape[-1],
        "FORM": problem.form,
        "SILU": int(law.activation == "silu"),
        "FULL": int(law.steering is not None and law.steering.gain.ndim > law.steering.offset.ndim),
    }
    return _load(tuple(f"-D{name}={value}" for name, value in sizes.items()))


@cache
def warn_of_fallback(reason: str) -> None:
    """Say once that the native engine takes over, and why."""
    warnings.warn(f"engine: got 'fused', but {reason}; using 'native'", stacklevel=3)


@cache
def _load(sizes: tuple[str, ...]) -> Kernel:
    library = ctypes.CDLL(str(_compiled(sizes)))
    layout = (ctypes.c_int64 * 3)()
    library.fused_layout(layout)
    pointer, sizes_pointer = ctypes.c_void_p, ctypes.POINTER(_Sizes)
    library.fused_forward.argtypes = [sizes_pointer] + [pointer] * 12
    library.fused_backward.argtypes = [sizes_pointer] + [pointer] * 17
    return Kernel(layout[0], layout[1], library.fused_forward, library.fused_backward)


def _compiled(sizes: tuple[str, ...]) -> Path:
    """The library for these sizes, in the user's cache under all that it depends on."""
    compiler, about = _compiler()
    known = hashlib.sha256(repr((SOURCE.read_text(), sizes, OPTIONS, about)).encode()).hexdigest()[:24]
    import pooch  # here, since importing a model should not bring what downloads data

    path = Path(pooch.os_cache("neurodyn")) / "kernels" / f"{known}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    # made beside and moved, so that another process never reads half of it
    handle, made = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(handle)
    done = subprocess.run([compiler, *OPTIONS, *sizes, str(SOURCE), "-o", made], capture_output=True, text=True)
    if done.returncode:
        os.unlink(made)
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise NoKernel(f"{compiler} fails: {reason}")
    os.replace(made, path)
    return path


@cache
def _compiler() -> tuple[str, str]:
    """The C++ compiler, and what it says about itself and this processor."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise NoKernel(f"no C++ compiler is found ({', '.join(names)})")
    asked = [found, "-march=native", "-dM", "-E", "-x", "c++", os.devnull]
    about = subprocess.run(asked, capture_output=True, text=True)
    if about.returncode:
        raise NoKernel(f"{found} does not know this processor")
    return found, about.stdout


class CPUSolve(torch.autograd.Function):
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
        plan, (rows, d) = problem.plan, z0.shape
        kernel = cpu_kernel(problem, rows, z0.dtype)
        inputs = (weights, shift, *(None if part is None else part.contiguous() for part in (offset, gain)))
        seen = z0.new_empty(len(plan.places), rows, d)
        cost = z0.new_zeros(shift.shape[0], rows)  # a gap in which no row moves is free
        kept = None
        if any(ctx.needs_input_grad):
            kept = z0.new_empty(-(-rows // kernel.tile) * len(plan.gap_of) * kernel.kept)
        z0 = z0.contiguous()
        kernel.forward(
            _sizes(problem, rows, shift),
            *(_at(part) for part in (z0, *inputs, plan.steps, plan.gap_of, plan.slot_of, problem.noise)),
            *(_at(part) for part in (kept, seen, cost)),
        )
        if kept is not None:
            ctx.problem, ctx.kernel, ctx.size = problem, kernel, z0.shape
            ctx.save_for_backward(kept, *inputs)
        return seen, cost

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, seen_grad: Tensor, cost_grad: Tensor) -> Any:  # noqa: D102
        problem, kernel, plan = ctx.problem, ctx.kernel, ctx.problem.plan
        kept, weights, shift, offset, gain = ctx.saved_tensors
        rows, _ = ctx.size
        samples, tiles = rows // problem.series, -(-rows // kernel.tile)
        lanes = VECTOR_BYTES // weights.element_size()
        z0_grad = weights.new_empty(ctx.size)
        weights_grad = weights.new_empty(tiles, len(weights))
        shift_grad = shift.new_zeros(shift.shape[0], rows, shift.shape[-1])
        steering = [None if part is None else part.new_empty(rows, *part.shape[1:]) for part in (offset, gain)]
        room = weights.new_empty(tiles, len(weights), lanes)
        seen_grad, cost_grad = seen_grad.contiguous(), cost_grad.contiguous()
        kernel.backward(
            _sizes(problem, rows, shift),
            *(_at(part) for part in (weights, shift, offset, gain, plan.steps, plan.gap_of, plan.slot_of)),
            *(_at(part) for part in (problem.noise, kept, seen_grad, cost_grad)),
            *(_at(part) for part in (z0_grad, weights_grad, shift_grad, *steering, room)),
        )
        parts = (None if part is None else over_samples(part, 0, samples) for part in steering)
        return (None, z0_grad, weights_grad.sum(0), over_samples(shift_grad, 1, samples), *parts)


def over_samples(grad: Tensor, axis: int, samples: int) -> Tensor:
    """The sum over samples of what they share: (samples * rows) along `axis` to (rows)."""
    return grad if samples == 1 else grad.unflatten(axis, (samples, -1)).sum(axis)


def _sizes(problem: Problem, rows: int, shift: Tensor) -> Any:
    plan, bounds = problem.plan, problem.law.diffusion
    per_row = plan.steps.stride(0) if plan.steps.ndim == 2 else 0
    counts = (len(plan.gap_of), rows, problem.series, shift.shape[0], len(plan.places))
    return ctypes.byref(_Sizes(*counts, *shift.stride()[:2], per_row, torch.get_num_threads(), bounds.low, bounds.high))


def _at(part: Tensor | None) -> int | None:
    return None if part is None else part.data_ptr()
