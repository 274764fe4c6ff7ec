"""Peak memory of one training step, by way and number of steps: `python -m benchmarks.memory`.

The step of `benchmarks.speed` (batch 256, latent 4), each way and size in a process of its own: libraries are loaded
and a small step is taken, then the peak of the process's resident memory is reset, one step is taken, and the peak less
what was resident before is recorded. The step is then repeated for its time. On Linux, where a process can reset its
peak; elsewhere the difference of `ru_maxrss`, which cannot see less than what loading took.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.plots import line_plot
from benchmarks.records import RESULTS, ROOT, Record, merge_records
from benchmarks.rivals.problem import GAPS, Sizes, make_problem
from benchmarks.rivals.step import Unavailable, Way
from benchmarks.rivals.ways import all_ways
from benchmarks.timing import Spread, cores, say, spread, timing_record

COMMAND = "python -m benchmarks.memory"
PICTURE = ROOT / "docs" / "images" / "memory-steps.svg"
STEPS = (100, 400, 1600, 3200)
NAMES = (
    "neurodyn, fused",
    "neurodyn, backprop",
    "neurodyn, checkpoint",
    "neurodyn, reversible Heun",
    "neurodyn, SDE Matching",
    "torchsde, backprop",
    "torchsde, adjoint",
    "torchsde, reversible Heun",
)
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure(way: Way, steps: int, repeats: int) -> dict[str, float | list[float]]:
    """In this process: peak MB of one step above what was resident, and the seconds of `repeats` of them."""
    import torch

    torch.set_num_threads(cores())
    way.make(make_problem(Sizes(steps=GAPS, batch=8))).train()  # loads what loads at the first step
    step = way.make(make_problem(Sizes(steps=steps)))
    before = _reset_peak()
    step.train()
    peak = _peak() - before
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        step.train()
        seconds.append(time.perf_counter() - started)
    return {"peak": peak, "seconds": seconds}


def _reset_peak() -> float:
    """Set the peak to what is resident now, if the system can, and return it, in MB."""
    try:
        _RESET.write_text("5")
    except OSError:
        return _peak()
    return _field("VmRSS")


def _peak() -> float:
    """The process's peak of resident memory, in MB."""
    if _STATUS.exists():
        return _field("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _field(name: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) / 1024


def in_own_process(name: str, steps: int, repeats: int, limit: float) -> dict[str, float | list[float]] | None:
    """`measure` in a fresh interpreter; None if it takes longer than `limit` seconds or is not available."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", name, str(steps), str(repeats)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        say(f"  {name}, {steps} steps: more than {limit:g} s: left out")
        return None
    if done.returncode:
        say(f"  {name}, {steps} steps: skipped, {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
        return None
    found: dict[str, float | list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def records(results: dict[tuple[str, int], dict], most: int) -> list[Record]:
    """Tables memory (MB by steps) and memory/price (against backprop at the most steps)."""
    made = [
        timing_record("memory", name, f"{steps} steps", found["peak"], command=COMMAND, unit="MB", better="lower")
        for (name, steps), found in results.items()
    ]
    base = results.get(("neurodyn, backprop", most))
    for (name, steps), found in results.items():
        if steps == most and base is not None:
            time_spread, base_time = spread(found["seconds"]), spread(base["seconds"]).median
            cells: list[tuple[str, Spread | float, str]] = [
                ("peak", found["peak"], "MB"),
                ("peak / backprop", found["peak"] / base["peak"], ""),
                ("step", time_spread, "s"),
                ("step / backprop", time_spread.median / base_time, ""),
            ]
            for column, value, unit in cells:
                made.append(timing_record("memory/price", name, column, value, command=COMMAND, unit=unit))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write benchmarks/results/memory.json and docs/images/memory-steps.svg."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", nargs="+", type=int, default=list(STEPS))
    parser.add_argument("--only", nargs="+", default=[""], help="ways whose names start with one of these")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds for one way at one size")
    parser.add_argument("--quick", action="store_true", help="few steps, nothing is written")
    parser.add_argument("--child", nargs=3, metavar=("WAY", "STEPS", "REPEATS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        name, steps, repeats = options.child
        modules = ("native_steps", "matching_steps", "torchsde_steps")
        way = next(way for way in all_ways(modules) if way.name == name)
        try:
            print(json.dumps(measure(way, int(steps), int(repeats))))
        except Unavailable as error:
            sys.exit(str(error))
        return
    if options.quick:
        options.steps = [100, 400]
    results: dict[tuple[str, int], dict] = {}
    for name in NAMES:
        for steps in sorted(options.steps) if name.startswith(tuple(options.only)) else ():
            found = in_own_process(name, steps, 1 if options.quick else 3, options.limit)
            if found is None:
                break
            results[name, steps] = found
            print(f"{name:28s} {steps:5d} steps  {found['peak']:8.1f} MB  {min(found['seconds']):6.2f} s", flush=True)
    if options.quick:
        return
    whole = merge_records(RESULTS / "memory.json", records(results, max(options.steps)))
    lines: dict[str, list[tuple[float, float]]] = {}
    for record in whole:
        if record.table == "memory":
            lines.setdefault(record.row, []).append((float(record.column.split()[0]), max(record.value, 1.0)))
    line_plot(lines, PICTURE, x="solver steps", y="peak memory of a step (MB, at least 1)", log_x=True, log_y=True)
    print("written to benchmarks/results/memory.json; python -m benchmarks.render puts it into the docs")


if __name__ == "__main__":
    main()
