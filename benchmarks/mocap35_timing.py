"""What is wrong in the forecasts of `mocap35`, the walk or its timing: `python -m benchmarks.mocap35_timing`.

For the best row of each set-up of `benchmarks.mocap35`, over seeds of its own (table mocap35/timing): the error; that
of the mean of all seeds' forecasts, which would be less if seeds erred by chance; and the error that is left where each
walk's forecast is shifted and stretched in time as fits the walk to be forecast best, which no forecaster can.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.jobs import add_job_options, run_jobs
from benchmarks.mocap35 import ROWS
from benchmarks.records import RESULTS, Record, measured, publish
from neurodyn.recipes.mocap35 import prepare, split, train

COMMAND = "python -m benchmarks.mocap35_timing"
SEEDS = tuple(range(20, 26))
BEST: dict[Literal[1, 2], str] = {2: "SDE Matching, beta = 10, warp", 1: "SDE Matching, ELBO, warp"}
SHIFTS = torch.arange(-15.0, 16.0, dtype=torch.float64)  # frames
STRETCHES = torch.arange(85, 116, dtype=torch.float64) / 100


def measure(setup: Literal[1, 2], seed: int) -> dict[str, Any]:
    """The predictive means of the test walks by one model, thousandths of the unit of scaled data."""
    walks = prepare(setup)
    model, _, _ = train(replace(ROWS[BEST[setup]], setup=setup, seed=seed, device="cpu"), walks)
    known, future = split(walks.test, setup)
    mean = model.forecast_mean(known, future.times, 500, generator=torch.Generator().manual_seed(1))
    return {"thousandths": (1000 * mean).round().int().tolist()}


def retimed(forecast: Tensor, future: Tensor) -> Tensor:
    """Least squared error of each row, a mean over time and dimensions, of f(r t + a) over shifts a and stretches r.

    Args:
        forecast, future: (B, T, D), a frame apart; before the first and after the last frame the forecast stands still.
    """
    last = forecast.shape[1] - 1
    frames = torch.arange(last + 1, dtype=torch.float64)
    best = torch.full((len(forecast),), torch.inf, dtype=forecast.dtype)
    for shift in SHIFTS:
        for stretch in STRETCHES:
            place = (stretch * frames + shift).clamp(0, last)
            low = place.floor().long().clamp(max=last - 1)
            share = (place - low).to(forecast.dtype)[:, None]
            moved = forecast[:, low].lerp(forecast[:, low + 1], share)
            best = torch.minimum(best, (moved - future).square().mean((1, 2)))
    return best


def records(means: dict[int, list[Tensor]], seeds: Sequence[int]) -> list[Record]:
    """The table, from the predictive means (4, H, D) of each seed by set-up."""
    made: list[Record] = []
    for setup, found in means.items():
        walks = prepare(setup)
        future, size = split(walks.test, setup)[1].values, walks.scale**2 * walks.share
        plain = [size * float((mean - future).square().mean()) for mean in found]
        together = size * float((torch.stack(found).mean(0) - future).square().mean())
        timed = [size * float(retimed(mean, future).mean()) for mean in found]
        row = f"{BEST[setup]}, set-up {setup}"  # type: ignore[index]
        for column, values, of in (
            ("error", plain, seeds),
            (f"of the mean of {len(seeds)} forecasts", [together], [0]),
            ("in the best timing", timed, seeds),
        ):
            made.append(measured("mocap35/timing", row, column, values, seeds=of, command=COMMAND))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write benchmarks/results/mocap35_timing.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    add_job_options(parser, SEEDS)
    chosen = parser.parse_args(arguments)
    jobs = {f"set-up {setup}, seed {seed}": {"setup": setup, "seed": seed} for setup in BEST for seed in chosen.seeds}
    results = run_jobs("mocap35_timing", measure, jobs, processes=chosen.processes, fresh=chosen.fresh)
    means: dict[int, list[Tensor]] = {setup: [] for setup in BEST}
    for job, result in results.items():
        means[jobs[job]["setup"]].append(torch.tensor(result["thousandths"]) / 1000)
    made = records(means, chosen.seeds)
    for record in made:
        print(f"{record.row:44s} {record.column:28s} {record.value:8.3f}")
    publish(RESULTS / "mocap35_timing.json", made)


if __name__ == "__main__":
    main()
