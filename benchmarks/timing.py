"""Time several ways of doing one thing side by side: taking turns in one process, after a warm-up of each.

What else the machine does changes from minute to minute, so ratios are taken between calls of the same round, which
are neighbours in time, and medians and quartiles are over rounds.
"""

from __future__ import annotations

import datetime
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.records import Record, hardware, versions

PACKAGES = ("neurodyn", "torch", "torchsde", "jax", "diffrax", "sdematching", "numpy")


@dataclass
class Timed:
    """Seconds of one way: of its first call, which compiles what there is to compile, and of each round."""

    first: float
    rounds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def interleave(
    calls: Mapping[str, Callable[[], object]], *, rounds: int, seconds: float, slowest: float = float("inf")
) -> dict[str, Timed]:
    """Time `calls` in turn: A, B, C, A, B, C, ...

    Args:
        calls: functions that return when their work is done.
        rounds: at most so many. At least 3, whatever they take.
        seconds: start no round when so many have passed.
        slowest: seconds of a warm call above which it is left out, and a line says so.
    """
    timed: dict[str, Timed] = {}
    for name, call in calls.items():
        first = _seconds(call)
        # the first call may have compiled something: then another one tells
        warm = _seconds(call) if first <= 3 * slowest else first
        if warm > slowest:
            say(f"  {name}: {warm:.1f} s a call, more than {slowest:g} s: left out")
            continue
        timed[name] = Timed(first)
    gc.collect()
    gc.freeze()  # nobody pays for looking through what the others have left
    started = time.perf_counter()
    for number in range(max(rounds, 3)):
        if number >= 3 and time.perf_counter() - started > seconds:
            break
        for name, times in timed.items():
            times.rounds.append(_seconds(calls[name]))
    gc.unfreeze()
    return timed


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of a sample of at least one number."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio(above: Timed, below: Timed) -> Spread:
    """Of the quotients within each round."""
    return spread([a / b for a, b in zip(above.rounds, below.rounds, strict=True)])


def timing_record(
    table: str,
    row: str,
    column: str,
    value: Spread | float,
    *,
    command: str,
    unit: str = "",
    better: Literal["lower", "higher", ""] = "",
    threads: int | None = None,
) -> Record:
    """A record of a median, with the quartiles as its range.

    Args:
        threads: that the process computes with; all cores if not given.
    """
    found = value if isinstance(value, Spread) else Spread(value, value, value)
    return Record(
        table=table,
        row=row,
        column=column,
        value=found.median,
        unit=unit,
        better=better,
        low=found.low if found.low != found.high else None,
        high=found.high if found.low != found.high else None,
        command=command,
        date=datetime.date.today().isoformat(),
        hardware=f"{hardware()}, {threads or cores()} threads",
        versions=versions(PACKAGES),
    )


def say(text: str) -> None:
    """To the terminal, at once."""
    print(text, file=sys.stderr, flush=True)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
