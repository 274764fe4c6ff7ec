"""All ways of taking the step, those whose packages are not installed left out."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from benchmarks.rivals.problem import Problem
from benchmarks.rivals.step import Step, Unavailable, Way
from benchmarks.timing import say

# module: the packages that it needs beyond neurodyn's own
MODULES: dict[str, tuple[str, ...]] = {
    "native_steps": (),
    "matching_steps": (),
    "torchsde_steps": (),
    "scan_steps": ("jax",),
    "diffrax_steps": ("jax", "diffrax"),
    "sdematching_steps": ("SDEmatching",),
}


def all_ways(modules: Iterable[str] = tuple(MODULES)) -> list[Way]:
    """Every way of these modules that can be imported here, in their order. Says what is missing."""
    found: list[Way] = []
    for name in modules:
        try:
            for package in MODULES[name]:
                importlib.import_module(package)
            found += importlib.import_module(f"benchmarks.rivals.{name}").WAYS
        except ImportError as error:
            say(f"{name}: skipped, {error}; pip install 'neurodyn[benchmarks]' has what can be timed")
    return found


def make_steps(ways: Iterable[Way], problem: Problem) -> dict[str, Step]:
    """The steps of one problem by the names of their ways. Says which are not available, and why."""
    steps: dict[str, Step] = {}
    for way in ways:
        try:
            steps[way.name] = way.make(problem)
        except Unavailable as error:
            say(f"  {way.name}: skipped, {error}")
    return steps
