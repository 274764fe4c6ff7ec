"""Forecast walks of the motion-capture benchmark `mocap35` with one latent SDE.

    python recipes/mocap35.py                    set-up 2: 100 frames known, 200 to come
    python recipes/mocap35.py --setup 1          set-up 1: 3 frames known, 297 to come
    python recipes/mocap35.py --posterior simulated --warp 0

The score is the benchmark's: the squared error of the predictive mean over all 50 dimensions, in the data's units.
Weights are chosen in the second half of training, by the errors of forecasts of the validation walks from several
frames on: their geometric mean, since one validation walk nearly pauses and would rule alone. `python -m
benchmarks.mocap35` makes the table over seeds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import tyro
from torch import Tensor, nn

from neurodyn.datasets import mocap35
from neurodyn.models.latent_sde import LatentSDE
from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig, FitResult, fit

KNOWN = {1: 3, 2: 100}
HORIZON = {1: 297, 2: 200}
# frames of the validation walks that forecasts begin at, to choose weights by
STARTS = {1: (0, 25, 50, 75), 2: (0, 15, 30)}
EXPLODED = 1e3  # the error of a forecast that is not finite, or larger than this


@dataclass
class Config:
    """Forecast walks of the motion-capture benchmark with one latent SDE."""

    setup: Literal[1, 2] = 2
    """1: all frames of the training walks, and 3 known frames. 2: their first 200 frames, and 100 known frames."""
    posterior: Literal["matched", "simulated"] = "matched"
    """SDE Matching, or through the solver."""
    kl_weight: float = 1.0
    """Weight of the KL terms; 1 maximises the ELBO."""
    noise: float | Literal["shared"] = 0.75
    """Standard deviation of the observation noise in units of the data's own, or "shared": learned, one for all."""
    warp: float = 0.08
    """Augmentation: log standard deviation of the speed at which a step sees a walk; 0 for none."""
    stretch: int = 0
    """Train on random stretches of so many frames; 0 for whole walks."""
    pace: float = 0.0
    """Log standard deviation of the walks' speeds under the prior; 0 for a law without speeds."""
    slopes: bool = True
    """Whether encoders read slopes beside a frame, or values."""
    latent_size: int = 6
    """Latents beside the speed."""
    knot_every: int = 5
    """Frames between the knots of a matched posterior."""
    steps: int = 1000
    """Training steps, of 8 walks each."""
    seed: int = 0
    """Of weights, order of walks, augmentation and noise."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    num_samples: int = 500
    """Rollouts per test forecast."""
    progress: bool = True
    """Show training's progress."""


class Walks(NamedTuple):
    """The data without the dimensions that never change, centred and divided by one number, `scale`.

    share: of the 50 dimensions, those that are left; the others are known and cost no error.
    """

    train: SeriesBatch
    validation: SeriesBatch
    test: SeriesBatch
    scale: float
    share: float


class Look(NamedTuple):
    """A validation during training: what weights are chosen by, and what else they could be chosen by."""

    score: float
    by_start: list[float]
    elbo: float


def prepare(setup: int) -> Walks:
    """Load the walks; mean and scale are those of the training frames that the set-up allows."""
    data = mocap35.load(setup)
    values = data.train.values
    mean = values.mean((0, 1))
    scale = float((values - mean).square().mean().sqrt())
    left = [k for k, name in enumerate(data.train.variables) if name not in mocap35.CONSTANT]

    def part(batch: SeriesBatch) -> SeriesBatch:
        scaled = (batch.values - mean)[..., left] / scale
        return SeriesBatch(batch.times, scaled, ids=batch.ids, variables=tuple(batch.variables[k] for k in left))

    rows = (part(data.train), part(data.validation), part(data.test))
    return Walks(*rows, scale, len(left) / values.shape[-1])


def build(config: Config, num_variables: int) -> LatentSDE:
    """The model of a configuration, with weights by its seed."""
    torch.manual_seed(config.seed)
    matched = config.posterior == "matched"
    # the start of a forecast reads all that is known: 3 frames, or every tenth of the last 91
    history = {"before": 2} if config.setup == 1 else {"before": 9, "stride": 10}
    return LatentSDE.build(
        num_variables=num_variables,
        latent_size=config.latent_size,
        static_latents=1 if config.pace else 0,
        pace=config.pace,
        posterior=config.posterior,
        encoder="window",
        encoder_options={
            "before": 5,
            "after": 5,
            "slopes": config.slopes,
            "every": config.knot_every if matched else 1,
        },
        start_options=history | {"slopes": config.slopes},
        start_cuts=24,
        inner_knots=0,
        num_times=24,
        likelihood_options={"noise": config.noise},
        longest_step=mocap35.FRAME,
    )


def train(
    config: Config, walks: Walks, watch: Callable[[LatentSDE], None] | None = None
) -> tuple[LatentSDE, FitResult, list[Look]]:
    """Train one model, and keep the weights that forecast the validation walks best.

    `watch` sees the model at each look; nothing of it reaches training or the choice.
    """
    model = build(config, walks.train.num_variables)
    looks: list[Look] = []

    def validate(module: nn.Module, rows: SeriesBatch) -> float:
        assert isinstance(module, LatentSDE)
        looks.append(look(module, rows, config.setup, walks))
        if watch is not None:
            watch(module)
        return looks[-1].score

    settings = FitConfig(
        steps=config.steps,
        batch_size=8,
        optimizer="adamw",
        weight_decay=0.1,
        ema=0.995,
        clip_norm=1000.0,
        kl_weight=config.kl_weight,
        validate_every=max(1, config.steps // 8),
        select_after=0.5,
        seed=config.seed,
        device=config.device,
        progress=config.progress,
    )
    augment = functools.partial(_augment, config=config) if config.warp or config.stretch else None
    return model, fit(model, walks.train, walks.validation, settings, validate=validate, augment=augment), looks


def _augment(rows: SeriesBatch, generator: torch.Generator, config: Config) -> SeriesBatch:
    if config.warp:
        rows = mocap35.change_speed(rows, config.warp, generator)
    return mocap35.stretches(rows, config.stretch, generator) if config.stretch else rows


def look(model: LatentSDE, rows: SeriesBatch, setup: int, walks: Walks) -> Look:
    """Errors of forecasts of the validation walks from several frames on, and their ELBO."""
    by_start = [float(errors(model, rows, setup, walks, first=k, num_samples=48).mean()) for k in STARTS[setup]]
    elbo = float(model.loss(rows, generator=torch.Generator().manual_seed(0)).elbo.mean())
    return Look(float(torch.tensor(by_start).log().mean().exp()), by_start, elbo)


def split(rows: SeriesBatch, setup: int, first: int = 0) -> tuple[SeriesBatch, SeriesBatch]:
    """What is known of fully observed walks that begin at a frame, and what then comes, with times from 0 on."""
    cut = first + KNOWN[setup]
    start = rows.times[:, first : first + 1]
    parts = (slice(first, cut), slice(cut, cut + HORIZON[setup]))
    known, future = (
        SeriesBatch(rows.times[:, part] - start, rows.values[:, part], ids=rows.ids, variables=rows.variables)
        for part in parts
    )
    return known, future


def errors(
    model: LatentSDE,
    rows: SeriesBatch,
    setup: int,
    walks: Walks,
    *,
    first: int = 0,
    num_samples: int = 500,
    seed: int = 1,
) -> Tensor:
    """Squared error of the predictive mean of each walk, (B,): over time and all dimensions, in the data's units."""
    known, future = split(rows, setup, first)
    mean = model.forecast_mean(known, future.times, num_samples, generator=torch.Generator().manual_seed(seed))
    found = ((mean - future.values) * walks.scale).square().mean((1, 2)) * walks.share
    return found.nan_to_num(EXPLODED, EXPLODED, EXPLODED).clamp(max=EXPLODED)


def run(config: Config) -> dict[str, Any]:
    """Train, forecast the test walks, and print their errors."""
    walks = prepare(config.setup)
    model, result, _ = train(config, walks)
    found = errors(model, walks.test, config.setup, walks, num_samples=config.num_samples)
    print(f"weights of step {result.best_step}, {result.seconds:.0f} s of training")
    for name, error in zip(walks.test.ids or (), found.tolist(), strict=True):
        print(f"{name:8s} {error:8.3f}")
    print(f"mean     {float(found.mean()):8.3f}")
    return {"errors": found, "result": result, "model": model}


if __name__ == "__main__":
    run(tyro.cli(Config))
