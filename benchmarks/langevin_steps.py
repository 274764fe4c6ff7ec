"""What a training step of LangevinFlow costs as trials grow longer: `python -m benchmarks.langevin_steps`.

Seconds of one CPU core for a loss and its gradient, eight trials of a simulated population (30 neurons), the default
model; the median of a few steps. Both ways run in turn in one process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import torch

from benchmarks.records import RESULTS, measured, publish
from neurodyn import datasets
from neurodyn.models.langevin_flow import LangevinFlow
from neurodyn.models.populations import POPULATION_MODELS

COMMAND = "python -m benchmarks.langevin_steps"
BINS = (100, 400, 1600)
WAYS = ("simulation_free", "simulated")
ROWS, STEPS = 8, 5


def step_seconds(bins: int) -> dict[str, float]:
    """Median CPU seconds of a step by way."""
    parts = datasets.load("population_dynamics", conditions=2, bins=bins)
    batch, width = parts.train.rows(slice(0, ROWS)), parts.info["bin_width"]
    models = {
        way: LangevinFlow.build(batch, bin_width=width, num_samples=1, mode=POPULATION_MODELS[way].settings["mode"])
        for way in WAYS
    }
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(STEPS + 1):
        for way, model in models.items():
            model.zero_grad()
            started = time.process_time()
            model.loss(batch).objective().backward()
            found[way].append(time.process_time() - started)
    return {way: statistics.median(seconds[1:]) for way, seconds in found.items()}  # the first one warms up


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write benchmarks/results/langevin_steps.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bins", nargs="+", type=int, default=list(BINS))
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = []
    for bins in chosen.bins:
        for way, seconds in step_seconds(bins).items():
            where = ("langevin_steps", POPULATION_MODELS[way].label, f"{bins} bins")
            made.append(measured(*where, [seconds], seeds=[0], command=COMMAND, unit="s", better="lower"))
            print(f"{where[1]:32s} {where[2]:12s} {seconds:.3f} s", flush=True)
    path = RESULTS / "langevin_steps.json"
    publish(path, made)


if __name__ == "__main__":
    main()
