"""Intensive-care stays of `physionet2012` with one latent SDE: fill in hidden visits, or forecast the second day.

    python recipes/physionet2012.py                       hidden visits, 50 to 90 % of a stay's visits shown
    python recipes/physionet2012.py --task extrapolation  the first 24 hours known, the next 24 to come

Interpolation is scored by the squared error at hidden visits in the benchmark's units (each variable's largest value),
and training weighs variables as these units do. Extrapolation is scored in standardised units. `python -m
benchmarks.physionet2012` makes the tables, baselines included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import tyro
from torch import Tensor, nn

from neurodyn.datasets import physionet2012
from neurodyn.datasets.splits import histories
from neurodyn.metrics.scores import crps, interval_coverage, squared_error
from neurodyn.models.latent_sde import LatentSDE
from neurodyn.scaling import Scaling
from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig, FitResult, fit

SHOWN = (0.5, 0.6, 0.7, 0.8, 0.9)
SPAN = 48.0  # hours, the unit of scaled time
CUT = 0.5  # in scaled time
CHUNK = 50  # rows that are forecast or filled in at a time


@dataclass
class Config:
    """Intensive-care stays with one latent SDE, by SDE Matching."""

    task: Literal["interpolation", "extrapolation"] = "interpolation"
    """Fill in hidden visits, or forecast the second day from the first."""
    latent_size: int = 24
    """Latents."""
    noise: float = 0.04
    """Interpolation: standard deviation of the values' noise in the benchmark's units."""
    steps: int = 600
    """Training steps, of 64 stays each."""
    seed: int = 0
    """Of weights, order of stays and noise."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train: auto, cpu or cuda."""
    max_rows: int | None = None
    """Only the first stays, for trials."""
    progress: bool = True
    """Show training's progress."""


class Stays(NamedTuple):
    """The data of a task, standardised by the training stays.

    unit: (D,), how many standard deviations the benchmark's unit of a variable is.
    """

    train: SeriesBatch
    validation: SeriesBatch
    test: SeriesBatch
    unit: Tensor


def prepare(task: str, max_rows: int | None = None) -> Stays:
    """Load and standardise; time 1 is the end of the second day. A variable that never changes is only centred."""
    if task == "interpolation":
        splits = physionet2012.interpolation(max_rows=max_rows)
    else:
        splits = physionet2012.load(max_rows=max_rows)
    values, mask = splits.train.values.double(), splits.train.mask
    count = mask.sum((0, 1)).clamp(min=1)
    mean = torch.where(mask, values, 0.0).sum((0, 1)) / count
    sd = (torch.where(mask, values - mean, 0.0).square().sum((0, 1)) / count).sqrt()
    sd = torch.where(sd > 0, sd, 1.0)
    never = torch.zeros_like(mean, dtype=torch.bool)
    scaling = Scaling(mean, sd, never, 0.0, SPAN, splits.train.variables)
    bare = (SeriesBatch(p.times, p.values, p.mask, ids=p.ids, variables=p.variables) for p in splits[:3])
    train, validation, test = (scaling.apply(part) for part in bare)
    return Stays(train, validation, test, splits.info.get("unit", sd) / sd)


def build(config: Config, stays: Stays) -> LatentSDE:
    """The model of a configuration, with weights by its seed."""
    torch.manual_seed(config.seed)
    fills = config.task == "interpolation"
    noise = {"noise": (config.noise * stays.unit).tolist()}
    return LatentSDE.build(
        num_variables=stays.train.num_variables,
        latent_size=config.latent_size,
        likelihood="gaussian" if fills else "student_t",
        likelihood_options=noise if fills else None,
        context_size=64,
        hidden_size=64,
        inner_knots=0,
        num_times=16,
        start_cuts=4,
        hide_visits=0.5 if fills else 0.0,
        longest_step=0.02,
    )


def train(config: Config, stays: Stays) -> tuple[LatentSDE, FitResult]:
    """Train one model, and keep the weights that do best on a part of the validation stays."""
    model = build(config, stays)
    settings = FitConfig(
        steps=config.steps,
        batch_size=64,
        optimizer="adamw",
        weight_decay=0.01,
        ema=0.99,
        clip_norm=1000.0,
        validate_every=max(1, config.steps // 8),
        seed=config.seed,
        device=config.device,
        progress=config.progress,
    )
    look = validation_of(config.task, stays)
    return model, fit(model, stays.train, stays.validation, settings, validate=look)


def validation_of(task: str, stays: Stays, rows: int = 200) -> Callable[[nn.Module, SeriesBatch], float]:
    """What weights are chosen by: the error at 30 % hidden visits, or the CRPS of the second day, of the first rows."""

    def look(model: nn.Module, batch: SeriesBatch) -> float:
        some = batch.rows(slice(0, rows)).trim()
        if task == "interpolation":
            return interpolation_errors(model, some, 0.7, stays.unit, num_samples=8)["hidden"]
        return forecast_scores(model, some, num_samples=40)["CRPS"]

    return look


@torch.no_grad()
def interpolation_errors(
    model: Any, batch: SeriesBatch, shown: float, unit: Tensor, *, num_samples: int = 32, seed: int = 0
) -> dict[str, float]:
    """Mean squared errors in the benchmark's units: at hidden visits ("hidden"), and at all of them ("all").

    Args:
        model: with an `interpolate` as `LatentSDE` has it.
        shown: share of each row's visits that the model sees.
    """
    batch = batch.to(device="cpu")
    held = physionet2012.hidden(batch, shown, seed)
    totals = {"hidden": 0.0, "all": 0.0}
    counts = dict.fromkeys(totals, 0)
    for index in _chunks(batch):
        some = batch.rows(index).trim()
        away = held[index, : some.num_times, None] & some.mask
        known = SeriesBatch(some.times, some.values, some.mask & ~away, ids=some.ids, variables=some.variables)
        generator = torch.Generator().manual_seed(seed)
        filled = model.interpolate(known, some.times, num_samples, generator=generator).mean(0)
        error = ((filled - some.values) / unit).square()
        for name, where in (("hidden", away), ("all", some.mask)):
            totals[name] += float(error[where].sum())
            counts[name] += int(where.sum())
    return {name: totals[name] / counts[name] for name in totals}


@torch.no_grad()
def forecast_scores(model: Any, batch: SeriesBatch, *, num_samples: int = 99, seed: int = 0) -> dict[str, float]:
    """Scores of the second day's values forecast from the first day, of the rows that have both; means over values."""
    history, future = histories(batch.to(device="cpu"), until=CUT)
    parts: dict[str, list[Tensor]] = {"CRPS": [], "MSE of the mean": [], "90 % coverage": []}
    for index in _chunks(future):
        known, later = (part.rows(index).trim() for part in (history, future))
        generator = torch.Generator().manual_seed(seed)
        samples = model.forecast(known, later.times, num_samples, generator=generator).samples
        drawn, truth = samples[:, later.mask], later.values[later.mask]
        parts["CRPS"].append(crps(drawn, truth))
        parts["MSE of the mean"].append(squared_error(drawn, truth))
        parts["90 % coverage"].append(interval_coverage(drawn, truth, 0.9).to(truth))
    return {name: float(torch.cat(found).double().mean()) for name, found in parts.items()}


def _chunks(batch: SeriesBatch) -> tuple[Tensor, ...]:
    """Rows of about the same length together, which saves padding."""
    return batch.present.sum(1).argsort(stable=True).split(CHUNK)


def run(config: Config) -> dict[str, float]:
    """Train, and print the scores on the test stays."""
    stays = prepare(config.task, config.max_rows)
    model, result = train(config, stays)
    if config.task == "interpolation":
        found = {
            f"{100 * shown:.0f} % shown": interpolation_errors(model, stays.test, shown, stays.unit)["hidden"]
            for shown in SHOWN
        }
    else:
        found = forecast_scores(model, stays.test)
    print(f"weights of step {result.best_step}, {result.seconds:.0f} s of training")
    for name, value in found.items():
        print(f"{name:16s} {value:10.5f}")
    return found


if __name__ == "__main__":
    run(tyro.cli(Config))
