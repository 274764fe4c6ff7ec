"""`sdeint`: the door to every SDE solver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from neurodyn.noise import RowNoise
from neurodyn.sde.base import SDE
from neurodyn.solvers.adapt import TorchSDELaw, as_law
from neurodyn.solvers.brownian import Brownian
from neurodyn.solvers.compiled import integrate_compiled
from neurodyn.solvers.fused import runs_on_cpu
from neurodyn.solvers.fused_cpu import NoKernel, warn_of_fallback
from neurodyn.solvers.fused_laws import solve_fused
from neurodyn.solvers.grid import Grid, step_grid
from neurodyn.solvers.loop import Cost
from neurodyn.solvers.native import Visits, integrate, integrate_visits
from neurodyn.solvers.path_kl import path_kl, path_kl_rate
from neurodyn.solvers.schemes import Problem
from neurodyn.solvers.splitting import SPLITTINGS, integrate_splitting, splitting_noise_size
from neurodyn.solvers.torchsde_engine import Adaptive, solve_torchsde


def sdeint(
    sde: SDE | nn.Module,
    y0: Tensor,
    ts: Tensor | Sequence[float],
    *,
    dt: float,
    method: str | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | Tensor | RowNoise | None = None,
    gradient: Literal["backprop", "checkpoint", "reversible", "adjoint"] = "backprop",
    params: Sequence[Tensor] = (),
    logqp: bool = False,
    engine: Literal["native", "torchsde", "fused"] = "native",
    adaptive: Adaptive | None = None,
    compile: bool = False,
) -> Any:
    """Solve dz = f(t, z) dt + g(t, z) dW from z = y0 at the first time, and return z at all times.

    Args:
        sde: a law, or any module written for torchsde (f, g, for logqp also h; noise_type, sde_type).
        y0: (..., d) states at the first time of each row.
        ts: (T,) times that all rows share, strictly increasing, or (..., T) per row, not decreasing (padding repeats
            the last time). Their leading axes are broadcast against those of y0.
        dt: longest step, in units of time. Every gap is cut into equal steps, so that steps end at the times.
        method: native: "euler" (default for Ito laws), "milstein", "heun" (default for Stratonovich laws) or
            "reversible_heun"; for underdamped Langevin laws also "baoab" and "obabo". torchsde: any of its names, with
            its defaults.
        noise: Brownian increments (N, ..., m) on ``step_grid(ts, dt)``, for "obabo" of size 2 m; drawn if not given.
        generator: source of the noise; torch's global one if not given.
        seeds: instead of a generator, one integer per row (for the last leading axis), or a `RowNoise`: a row's
            solution then does not depend on the batch that it is in. Native engine.
        gradient: "backprop", "checkpoint" or "reversible", as in `integrate_visits`; "adjoint" (torchsde): the
            stochastic adjoint, memory O(1), approximate gradients (exact ones for its reversible Heun).
        params: for every gradient but "backprop": tensors besides the law's own parameters that it uses and that need
            gradients, a context for example.
        logqp: also return the path KL against the drift h, (..., T - 1) nats, one sample per path and gap.
        engine: "native", or "torchsde" for adaptive steps, the adjoint, and its other methods; or "fused": all steps in
            one kernel, for an `MLPSDE` with one hidden layer, or a `ContextSDE` of one, by Euler-Maruyama. It needs
            Triton on CUDA, and on a CPU a C++ compiler, without which it is "native", with a warning.
        adaptive: step-size control by these tolerances (torchsde); dt is then the first step.
        compile: take the steps through `torch.compile`, a few at a time (native engine, gradient "backprop", laws of
            ours). The first solve of a law and shape compiles, up to a minute or two; without a compiler the steps run
            as they are, with a warning.

    Returns:
        (..., T, d), or with `logqp` the pair `Visits` of it and the path KL.

    Raises:
        ValueError: shapes that do not fit, unsorted times, a method for other noise, options of another engine.
    """
    grid = step_grid(ts, dt)
    z0 = _start(y0, grid)
    law = as_law(sde, z0.shape[-1])
    if logqp and not hasattr(sde, "h"):
        raise ValueError(f"logqp: got {type(sde).__name__} without a prior drift h, want one that has it")
    _check_law(law, grid, z0)
    trained = [*law.parameters(), *params]

    if compile and engine != "native":
        raise ValueError(f"compile: got True with engine {engine!r}, want 'native'")
    if engine == "torchsde":
        if seeds is not None or gradient not in ("backprop", "adjoint"):
            raise ValueError("engine: got 'torchsde' with seeds, checkpoint or reversible; these are native")
        adjoint = trained if gradient == "adjoint" else None
        return solve_torchsde(law, z0, grid, method, noise, generator, logqp, adaptive, adjoint)
    if engine not in ("native", "fused"):
        raise ValueError(f"engine: got {engine!r}, want 'native', 'torchsde' or 'fused'")
    if engine == "fused":
        if method not in (None, "euler") or gradient != "backprop" or adaptive is not None:
            raise ValueError(
                "engine: got 'fused' with another method, gradient or adaptive steps, want euler, backprop"
            )
        if noise is None and runs_on_cpu(z0):
            noise = _draw(law.noise_size, z0, grid, generator, seeds).increments()
        try:
            return solve_fused(law, z0, grid, noise, generator, seeds, logqp)
        except NoKernel as reason:
            warn_of_fallback(str(reason))
    if adaptive is not None or gradient == "adjoint":
        raise ValueError("engine: got 'native' with adaptive steps or the adjoint, want engine='torchsde' for them")
    if compile and (gradient != "backprop" or isinstance(law, TorchSDELaw) or method in SPLITTINGS):
        raise ValueError("compile: got True with another gradient, a foreign module or a splitting, want none of them")
    if method is None:
        method = "euler" if law.sde_type == "ito" else "heun"
    if method == "milstein" and law.noise_type == "diagonal" and not (law.coordinatewise or law.state_independent):
        raise ValueError("method: got 'milstein' for diagonal noise that mixes coordinates, want coordinatewise noise")
    splitting = method in SPLITTINGS
    if splitting and logqp:
        raise ValueError(f"logqp: got True with method {method!r}, which has no path price; want 'euler'")
    noise_size = splitting_noise_size(law, method) if splitting else law.noise_size
    source = noise if noise is not None else _draw(noise_size, z0, grid, generator, seeds)
    if splitting:
        split: Any = gradient  # checked there
        return integrate_splitting(law, z0, grid, source, method=method, gradient=split, params=trained).states
    options: dict[str, Any] = {
        "method": method,
        "noise_type": law.noise_type,
        "sde_type": law.sde_type,
        "state_independent": law.state_independent,
        "slope": (lambda k, t, z: _own_slope(law, t, z)) if law.coordinatewise else None,
    }

    def drift(k: int, t: Any, z: Tensor) -> Tensor:
        return law.drift(t, z)

    def diffusion(k: int, t: Any, z: Tensor) -> Tensor:
        return law.diffusion(t, z)

    if compile:
        problem = Problem(drift, diffusion, law.noise_type, law.sde_type, options["slope"])
        increments = source if isinstance(source, Tensor) else source.increments()
        visits = integrate_compiled(law, problem, z0, grid, increments, method=method, priced=logqp)
        return visits if logqp else visits.states

    # A law of ours takes all times at once, so h runs once on the stacked path. Not where the path is not kept, nor for
    # reversible Heun, which is charged at the ends too.
    stacked = gradient == "backprop" and method != "reversible_heun" and not isinstance(law, TorchSDELaw)
    if logqp and stacked and grid.num_steps:
        path = integrate(drift, diffusion, z0, grid, source, **options)
        return Visits(path.states[..., list(grid.index), :], path_kl(law, path, grid))
    cost: Cost | None = None
    if logqp:

        def cost(k: int, t: Any, left: Any) -> Tensor:
            return path_kl_rate(left.drift - law.h(t, left.point), left.diffusion, law.noise_type)

    visits = integrate_visits(
        drift, diffusion, z0, grid, source, cost=cost, gradient=gradient, params=trained, **options
    )
    return visits if logqp else visits.states


def _start(y0: Tensor, grid: Grid) -> Tensor:
    """y0 with the full leading shape."""
    if y0.ndim < 1 or not y0.is_floating_point():
        raise ValueError(f"y0: got {y0.dtype} of shape {tuple(y0.shape)}, want floating (..., d)")
    try:
        lead = torch.broadcast_shapes(y0.shape[:-1], grid.rows)
    except RuntimeError:
        raise ValueError(
            f"y0: got leading shape {tuple(y0.shape[:-1])}, want one that fits the times' {tuple(grid.rows)}"
        ) from None
    return y0.expand(*lead, y0.shape[-1])


def _check_law(law: SDE, grid: Grid, z0: Tensor) -> None:
    """The state has the law's size. A foreign module tells its noise size by its diffusion."""
    if law.state_size != z0.shape[-1]:
        raise ValueError(f"y0: got states of size {z0.shape[-1]}, want {law.state_size}, that of the law")
    if isinstance(law, TorchSDELaw):
        with torch.no_grad():
            first = grid.times.flatten()[0].to(z0)
            shape = law.diffusion(first, z0).shape
        lead, size = z0.shape[:-1], z0.shape[-1]
        law.noise_size = shape[-1]
        wanted = (*lead, size) if law.noise_type == "diagonal" else (*lead, size, shape[-1])
        if shape != wanted:
            raise ValueError(f"sde: g gives {tuple(shape)} for {law.noise_type} noise, want {tuple(wanted)}")


def _draw(
    noise_size: int,
    z0: Tensor,
    grid: Grid,
    generator: torch.Generator | None,
    seeds: Sequence[int] | Tensor | RowNoise | None,
) -> Brownian:
    if generator is not None and seeds is not None:
        raise ValueError("seeds: got a generator too, want one of the two")
    return Brownian(grid, z0.shape[:-1], noise_size, generator=generator, seeds=seeds, dtype=z0.dtype, device=z0.device)


def _own_slope(law: SDE, t: Any, z: Tensor) -> tuple[Tensor, Tensor]:
    value, slope = law.coordinate_slope(t, z)
    return value, value * slope
