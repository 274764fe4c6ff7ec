"""One training step of one latent SDE on a GPU, by every way, side by side: `python -m benchmarks.speed_gpu`.

The step is that of benchmarks.speed (base point: batch 256, 100 steps, latent 4), in float32 without TF32. All ways run
in this process in turn (A, B, C, A, ...) after a warm-up, and each call ends when the GPU is done; medians, and
quartiles in brackets; ratios are taken within each round. Compiling and recording are in the column "first call".

The table of floors: how many kernels a step launches and how long they keep the GPU busy, by torch's profiler; the
least time that the step's launches, its arithmetic and its bytes would take, at rates measured here; and how many times
the largest of them the step is.
"""

from __future__ import annotations

import argparse
import gc
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.records import RESULTS, Record, merge_records
from benchmarks.rivals.gpu_steps import BASELINE, WAYS, DeviceWay, EagerStep, MatchingStep
from benchmarks.rivals.problem import CONTEXT, GAPS, HIDDEN, Problem, Sizes, make_problem
from benchmarks.rivals.step import Unavailable
from benchmarks.timing import Spread, interleave, ratio, say, spread, timing_record

COMMAND = "python -m benchmarks.speed_gpu"
AXES = {"steps": (25, 100, 400, 1600, 3200), "batch": (64, 256, 1024, 4096), "latent": (4, 16, 64)}
QUICK = {"steps": (25, 50), "batch": (16,), "latent": (4,)}
TABLES = ("exact", "step", "floor", *AXES)


def make(way: DeviceWay, problem: Problem, device: str) -> Callable[[], object] | None:
    """The way's training step, or None, and a line says why."""
    try:
        return way.make(problem, device).train
    except (Unavailable, RuntimeError) as error:
        say(f"  {way.name}: skipped, {str(error).splitlines()[0]}")
        return None


def working(calls: dict[str, Callable[[], object]]) -> dict[str, Callable[[], object]]:
    """Those that can be called; a line for each that can't. Their first call, which compiles, is timed elsewhere."""
    fine = {}
    for name, call in calls.items():
        started = time.perf_counter()
        try:
            call()
        except Exception as error:  # one way's failure must not cost the others' numbers
            say(f"  {name}: failed, {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            continue
        FIRST[name] = time.perf_counter() - started
        fine[name] = call
    return fine


FIRST: dict[str, float] = {}  # seconds of each way's latest first call


def steps_of(ways: Sequence[DeviceWay], sizes: Sizes, device: str) -> dict[str, Callable[[], object]]:
    """Steps of the ways that work at these sizes."""
    problem = make_problem(sizes)
    made = {way.name: make(way, problem, device) for way in ways if sizes.steps <= way.most_steps}
    return working({name: call for name, call in made.items() if call is not None})


def record(table: str, row: str, column: str, value: Spread | float, unit: str = "") -> Record:
    return timing_record(table, row, column, value, command=COMMAND, unit=unit)


def measure_exact(options: argparse.Namespace) -> list[Record]:
    """Table speed_gpu/exact: loss and gradients on given increments against the eager float64 ones of the CPU."""
    sizes, device = options.base, options.device
    wanted = EagerStep(make_problem(sizes, np.float64), "cpu").answer(make_problem(sizes, np.float64).increments(1))
    made = []
    for way in WAYS:
        if not way.exact:
            continue
        try:
            found = way.make(make_problem(sizes), device).answer(make_problem(sizes).increments(1))
        except Exception as error:
            say(f"  {way.name}: failed, {error}")
            continue
        errors = [abs(found.loss - wanted.loss) / abs(wanted.loss)]
        for name, value in wanted.gradients.items():
            errors.append(float(np.linalg.norm(found.gradients[name] - value) / np.linalg.norm(value)))
        made.append(record("speed_gpu/exact", way.name, "largest relative error", float(np.max(errors))))
    return made


def measure_step(options: argparse.Namespace) -> list[Record]:
    """Table speed_gpu/step: every way at the base point."""
    calls = steps_of(WAYS, options.base, options.device)
    timed = interleave(calls, rounds=options.rounds, seconds=2.5 * options.seconds)
    made = []
    for name, times in timed.items():
        made.append(record("speed_gpu/step", name, "step", milliseconds(times.rounds), "ms"))
        if BASELINE in timed:
            made.append(record("speed_gpu/step", name, "times faster than torchsde", ratio(timed[BASELINE], times)))
        made.append(record("speed_gpu/step", name, "first call", FIRST[name], "s"))
        if options.device == "cuda":
            made.append(record("speed_gpu/step", name, "peak memory of a step", peak_memory(calls[name]), "MiB"))
    return made


def measure_axis(axis: str, options: argparse.Namespace, until: float) -> list[Record]:
    """Table speed_gpu/AXIS: the swept ways along one size."""
    made = []
    last: dict[str, tuple[int, float]] = {}
    for value in (QUICK if options.quick else AXES)[axis]:
        if time.perf_counter() > until:
            say(f"speed_gpu/{axis}: {value} and later ones skipped, out of time")
            break
        sizes = replace(options.base, **{axis: value})
        say(f"speed_gpu/{axis}: {sizes}")
        # what would be too slow here, if its time grew with the size, is not tried
        grown = {name: seconds * (value / before if axis == "steps" else 1) for name, (before, seconds) in last.items()}
        ways = [way for way in WAYS if way.swept and grown.get(way.name, 0.0) < options.slowest]
        timed = interleave(steps_of(ways, sizes, options.device), rounds=options.rounds, seconds=options.seconds)
        for name, times in timed.items():
            found = milliseconds(times.rounds)
            last[name] = (value, found.median / 1e3)
            made.append(record(f"speed_gpu/{axis}", name, str(value), found, "ms"))
        free()
    return made


class Rates(NamedTuple):
    """What this GPU does: bytes and float32 operations per second, seconds per launch, eager and in a graph."""

    bandwidth: float
    arithmetic: float
    launch: float
    node: float


def measure_rates() -> Rates:
    """By a large copy, a large product of matrices, and many small launches."""
    large = torch.randn(2**28, device="cuda")
    into = torch.empty_like(large)
    bandwidth = 2 * large.nbytes / seconds_of(lambda: into.copy_(large))
    matrix = torch.randn(8192, 8192, device="cuda")
    arithmetic = 2 * 8192**3 / seconds_of(lambda: matrix @ matrix)
    small, count = torch.zeros(256, 4, device="cuda"), 1000

    def launches() -> None:
        for _ in range(count):
            small.add_(1.0)

    launch = seconds_of(launches) / count
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launches()
    return Rates(bandwidth, arithmetic, launch, seconds_of(graph.replay) / count)


def seconds_of(call: Callable[[], object], repeats: int = 7) -> float:
    """Median between events, after a warm-up."""
    call()
    taken = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        taken.append(start.elapsed_time(end) / 1e3)
    return spread(taken).median


class Kernels(NamedTuple):
    """Of one step: how many, and their time on the GPU in seconds."""

    count: int
    busy: float


def count_kernels(call: Callable[[], object]) -> Kernels:
    """By torch's profiler, memory operations included."""
    call()
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        call()
        torch.cuda.synchronize()
    on_gpu = [event for event in profile.events() if "CUDA" in str(event.device_type)]
    return Kernels(len(on_gpu), sum(event.device_time_total for event in on_gpu) / 1e6)


def needed(sizes: Sizes) -> tuple[float, float]:
    """Operations and bytes that a simulated step needs at least.

    Operations: each weight is multiplied and added once per row and step forward and twice backward, and once more
    where steps are taken again. Bytes: weights and inputs read and their gradients written once, each state written and
    read once, the context's share of the hidden layer written, read twice, and its gradient written and read.
    """
    d, rows, steps = sizes.latent, sizes.batch, sizes.steps
    weights = 2 * d * HIDDEN + 2 * d * HIDDEN + 3 * d * HIDDEN
    operations = 2.0 * weights * rows * steps * 4 + 2.0 * CONTEXT * HIDDEN * rows * GAPS * 3
    moved = 2 * weights + 2 * rows * steps * d + 3 * rows * GAPS * CONTEXT + 5 * rows * GAPS * HIDDEN + 4 * rows * d
    return operations, 4.0 * moved


def measure_floor(options: argparse.Namespace) -> list[Record]:
    """Table speed_gpu/floor, at the base point."""
    rates = measure_rates()
    say(f"  {rates}")
    table = "speed_gpu/floor"
    made = [
        record(table, "this GPU", "launch, eager", 1e6 * rates.launch, "us"),
        record(table, "this GPU", "launch, recorded", 1e6 * rates.node, "us"),
        record(table, "this GPU", "bandwidth", rates.bandwidth / 1e9, "GB/s"),
        record(table, "this GPU", "float32", rates.arithmetic / 1e12, "TFLOP/s"),
    ]
    operations, moved = needed(options.base)
    ways = [way for way in WAYS if way.swept and "adjoint" not in way.name]
    calls = steps_of(ways, options.base, options.device)
    for name, call in calls.items():
        kernels = count_kernels(call)
        step = spread([timed_call(call) for _ in range(9)]).median
        floors = {"launches": kernels.count * (rates.node if "recorded" in name else rates.launch)}
        if not isinstance(getattr(call, "__self__", None), MatchingStep):
            floors |= {"arithmetic": operations / rates.arithmetic, "bytes": moved / rates.bandwidth}
        made.append(record(table, name, "kernels", kernels.count))
        made.append(record(table, name, "GPU busy", 1e6 * kernels.busy, "us"))
        made += [record(table, name, f"floor by {kind}", 1e6 * value, "us") for kind, value in floors.items()]
        made.append(record(table, name, "step", 1e6 * step, "us"))
        made.append(record(table, name, "times its floor", step / max(floors.values())))
    return made


def timed_call(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def peak_memory(call: Callable[[], object]) -> float:
    """MiB that one step allocates at most on top of what lives before it; a recording holds its memory beforehand."""
    free()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def milliseconds(rounds: Sequence[float]) -> Spread:
    found = spread(rounds)
    return Spread(1e3 * found.median, 1e3 * found.low, 1e3 * found.high)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write benchmarks/results/speed_gpu.json after every table."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--rounds", type=int, default=21, help="at most, at each point")
    parser.add_argument("--seconds", type=float, default=6.0, help="after which no round starts at a point")
    parser.add_argument("--slowest", type=float, default=2.5, help="expected seconds of a call that is not tried")
    parser.add_argument("--budget", type=float, default=240.0, help="seconds after which no further size is tried")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--out", type=Path, default=RESULTS / "speed_gpu.json")
    parser.add_argument("--quick", action="store_true", help="few rounds and sizes, nothing is written")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        say("there is no GPU here, nothing is measured; --device cpu --quick tries the command")
        return
    if options.quick:
        options.rounds, options.seconds, options.slowest = 3, 1.0, 3.0
    options.base = Sizes(batch=8, steps=25) if options.quick else Sizes()
    until = time.perf_counter() + options.budget
    failed: list[str] = []
    for table in TABLES:
        if table not in options.tables or (table == "floor" and options.device == "cpu"):
            continue
        say(f"speed_gpu/{table}")
        try:
            made = measure(table, options, until)
        except Exception:  # the other tables are still wanted
            traceback.print_exc()
            failed.append(table)
            continue
        free()
        for one in made:
            spread_text = "" if one.low is None else f" ({one.low:.3g}-{one.high:.3g})"
            print(f"{one.table:16s} {one.row:40s} {one.column:28s} {one.value:.4g}{spread_text} {one.unit}", flush=True)
        if not options.quick:
            merge_records(options.out, made)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def measure(table: str, options: argparse.Namespace, until: float) -> list[Record]:
    """The records of one table."""
    if table == "exact":
        return measure_exact(options)
    if table == "step":
        return measure_step(options)
    return measure_floor(options) if table == "floor" else measure_axis(table, options, until)


if __name__ == "__main__":
    main()
