"""One training step of one latent SDE by every library, side by side: `python -m benchmarks.speed`.

The step (benchmarks/rivals/problem.py): posterior and prior drift with one hidden layer of 64, one network 1-64-1 per
coordinate for the diffusion, a context of size 32 per gap between visits, Euler-Maruyama, states scored at 25 visits,
path KL. Base point: batch 256, 100 steps, latent 4. Every side gets the same weights, inputs and number of steps, and
tests hold their losses and gradients together. All sides run in this process with all cores, in turn (A, B, C, A, ...)
after a warm-up; medians, and quartiles in brackets; ratios are taken within each round. Compiling is left out, and
stands in the column "first call".
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.plots import line_plot
from benchmarks.records import RESULTS, ROOT, Record, merge_records
from benchmarks.rivals.matching_steps import MatchedStep
from benchmarks.rivals.problem import Sizes, make_problem
from benchmarks.rivals.step import Way
from benchmarks.rivals.ways import all_ways, make_steps
from benchmarks.timing import Spread, Timed, cores, interleave, ratio, say, spread, timing_record

COMMAND = "python -m benchmarks.speed"
PICTURE = ROOT / "docs" / "images" / "speed-steps.svg"
AXES = {"steps": (25, 100, 400, 1600, 3200), "batch": (64, 256, 1024), "latent": (4, 16, 64)}
QUICK = {"steps": (25,), "batch": (64,)}
OBSERVATIONS = (25, 100, 1000)
ENCODERS: dict[str, dict[str, Any]] = {
    "gru": {"encoder": "gru"},
    "attention": {"encoder": "attention"},
    "window": {"encoder": "window"},
    "window, every 10th visit": {"encoder": "window", "every": 10},
    "logsignature, every 10th visit": {"encoder": "logsignature", "every": 10},
}


def fastest(timed: dict[str, Timed], ways: Iterable[Way]) -> str | None:
    """Name of neurodyn's fastest simulated way among those timed."""
    ours = [way.name for way in ways if way.ours and way.name in timed]
    return min(ours, key=lambda name: spread(timed[name].rounds).median) if ours else None


def measure_base(ways: Sequence[Way], sizes: Sizes, rounds: int, seconds: float) -> list[Record]:
    """Tables speed/step and speed/sampling: every way at one point."""
    steps = make_steps(ways, make_problem(sizes))
    made: list[Record] = []
    kinds: tuple[tuple[str, str, Callable[[Way], bool]], ...] = (
        ("speed/step", "train", lambda way: way.trains),
        ("speed/sampling", "sample", lambda way: way.samples),
    )
    for table, method, wanted in kinds:
        say(f"{table}: {sizes}")
        calls = {way.name: getattr(steps[way.name], method) for way in ways if wanted(way) and way.name in steps}
        timed = interleave(calls, rounds=rounds, seconds=seconds)
        made += base_records(table, timed, ways)
    return made


def base_records(table: str, timed: dict[str, Timed], ways: Sequence[Way]) -> list[Record]:
    """Milliseconds, how many times those of neurodyn's fastest simulated way, and the first call."""
    best = fastest(timed, ways)
    made = []
    for name, times in timed.items():
        cells: list[tuple[str, Spread | float, str]] = [("step", milliseconds(times), "ms")]
        if best is not None:
            cells.append(("times neurodyn's fastest simulated", ratio(times, timed[best]), ""))
        cells.append(("first call", times.first, "s"))
        made += [timing_record(table, name, column, value, command=COMMAND, unit=unit) for column, value, unit in cells]
    return made


def measure_axis(axis: str, values: Sequence[int], ways: Sequence[Way], options: argparse.Namespace) -> list[Record]:
    """Table speed/AXIS: the swept ways along one size, the others at the base point."""
    swept = [way for way in ways if way.swept]
    slow: set[str] = set()
    made = []
    for value in sorted(values):
        sizes = replace(Sizes(), **{axis: value})
        say(f"speed/{axis}: {sizes}")
        steps = make_steps([way for way in swept if way.name not in slow], make_problem(sizes))
        calls = {name: step.train for name, step in steps.items()}
        timed = interleave(calls, rounds=options.rounds, seconds=options.seconds, slowest=options.slowest)
        slow |= calls.keys() - timed.keys()  # what is too slow here is not tried on more
        for name, times in timed.items():
            made.append(
                timing_record(f"speed/{axis}", name, str(value), milliseconds(times), command=COMMAND, unit="ms")
            )
    return made


def measure_encoders(observations: Sequence[int], options: argparse.Namespace) -> list[Record]:
    """Table speed/encoder: the encoder's share of a step of SDE Matching."""
    made = []
    chosen = {name: given for name, given in ENCODERS.items() if name.startswith(tuple(options.only))}
    for encoder, encoder_options in chosen.items():
        for count in observations:
            row = f"{encoder}, {count} observations"
            say(f"speed/encoder: {row}")
            step = MatchedStep(make_problem(Sizes()), observations=count, **encoder_options)
            calls = {"step": step.train, "encoder": step.encode}
            timed = interleave(calls, rounds=options.rounds, seconds=options.seconds / 2, slowest=options.slowest)
            if timed.keys() != calls.keys():
                break  # longer series take longer still
            cells = [
                ("step", milliseconds(timed["step"]), "ms"),
                ("encoder alone", milliseconds(timed["encoder"]), "ms"),
            ]
            cells.append(("encoder's share", ratio(timed["encoder"], timed["step"]), ""))
            made += [
                timing_record("speed/encoder", row, column, value, command=COMMAND, unit=unit)
                for column, value, unit in cells
            ]
    return made


def milliseconds(timed: Timed) -> Spread:
    """Median and quartiles of the rounds."""
    found = spread(timed.rounds)
    return Spread(1e3 * found.median, 1e3 * found.low, 1e3 * found.high)


def plot(records: Iterable[Record], path: Path) -> None:
    """Milliseconds against steps, one line per way."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        if record.table == "speed/steps":
            lines.setdefault(record.row, []).append((float(record.column), record.value))
    line_plot(lines, path, x="solver steps", y="one training step (ms)", log_x=True, log_y=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write benchmarks/results/speed.json and docs/images/speed-steps.svg."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=("base", *AXES, "encoder"), default=["base", *AXES, "encoder"])
    parser.add_argument("--only", nargs="+", default=[""], help="ways and encoders whose names start with one of these")
    parser.add_argument("--rounds", type=int, default=21, help="at most, at each point")
    parser.add_argument("--seconds", type=float, default=30.0, help="after which no round starts at a point")
    parser.add_argument("--slowest", type=float, default=12.0, help="seconds of a call above which a way is left out")
    parser.add_argument("--quick", action="store_true", help="few rounds and sizes, nothing is written")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds, options.slowest = 3, 5.0, 3.0
    torch.set_num_threads(cores())  # XLA takes all cores by itself
    ways = [way for way in all_ways() if way.name.startswith(tuple(options.only))]
    if "base" in options.tables:
        keep(measure_base(ways, Sizes(), options.rounds, 2 * options.seconds), options.quick)
    for axis, values in (QUICK if options.quick else AXES).items():
        if axis in options.tables:
            keep(measure_axis(axis, values, ways, options), options.quick)
    if "encoder" in options.tables:
        keep(measure_encoders(OBSERVATIONS[:2] if options.quick else OBSERVATIONS, options), options.quick)
    if not options.quick:
        print("written to benchmarks/results/speed.json; python -m benchmarks.render puts it into the docs")


def keep(made: Sequence[Record], quick: bool) -> None:
    """Print a table's records and, unless the run is a quick one, write them: what is measured survives a kill."""
    for record in made:
        spread_text = "" if record.low is None else f" ({record.low:.3g}-{record.high:.3g})"
        print(f"{record.table:16s} {record.row:46s} {record.column:36s} {record.value:.4g}{spread_text} {record.unit}")
    if not quick:
        whole = merge_records(RESULTS / "speed.json", made)
        if any(record.table == "speed/steps" for record in made):
            plot(whole, PICTURE)


if __name__ == "__main__":
    main()
