"""Every model of a population by name: what a comparison fits, in one place for the recipe and the benchmarks."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from neurodyn.models.baselines.population_linear import FactorModel, SmoothingGLM
from neurodyn.models.baselines.population_networks import GRUAutoencoder, PopulationTransformer
from neurodyn.models.langevin_flow import LangevinFlow
from neurodyn.models.population import random_windows
from neurodyn.models.released_flow import ReleasedFlow
from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig, FitResult, fit


class RateModel(Protocol):
    """Anything that infers rates: all models here."""

    def rates(self, batch: SeriesBatch, bins: int | None = None, num_samples: int = 32, *, seed: int = 0) -> Tensor:
        """Expected counts per bin (B, bins, N), see `PopulationModel.rates`."""


class Entry(NamedTuple):
    """A model in a table: its label, what it is in one sentence, its class, its settings and its schedule."""

    label: str
    about: str
    make: Any
    settings: Mapping[str, Any]
    schedule: Mapping[str, Any]


_SCHEDULE: dict[str, Any] = {"steps": 600, "batch_size": 64, "learning_rate": 1e-2, "warmup_steps": 20}
_LATENT = _SCHEDULE | {"kl_weight": 0.3}
# where all bins are read, on stretches of trials of at least this share of the bins
_FLOW = _LATENT | {"shortest": 0.4}
_FREE, _PATHS = {"mode": "simulation_free"}, {"mode": "simulated", "num_samples": 1}

POPULATION_MODELS: dict[str, Entry] = {
    "smoothing": Entry("smoothing + GLM", "Poisson regressions on smoothed counts.", SmoothingGLM, {}, {}),
    "factors": Entry(
        "factor model",
        "Poisson regressions on smoothed factors of the counts' roots.",
        FactorModel,
        {},
        {},
    ),
    "gru": Entry(
        "GRU autoencoder", "LFADS-like: a GRU that runs on from a Gaussian first state.", GRUAutoencoder, {}, _LATENT
    ),
    "transformer": Entry(
        "Transformer",
        "NDT-like: attention over bins that fills in hidden counts.",
        PopulationTransformer,
        {"hidden_size": 40},
        _SCHEDULE | {"learning_rate": 3e-3},
    ),
    "released": Entry(
        "LangevinFlow as released",
        "The published recurrences, with their quirks.",
        ReleasedFlow,
        {"coordinated_dropout": 0.3, "hidden_size": 32},
        _SCHEDULE | {"learning_rate": 3e-3, "kl_weight": 0.1, "clip_norm": 0.0},
    ),
    "simulated": Entry("LangevinFlow, simulated", "Posterior paths simulated bin by bin.", LangevinFlow, _PATHS, _FLOW),
    "simulation_free": Entry(
        "LangevinFlow, simulation-free",
        "Posterior given by its marginals, all bins at once.",
        LangevinFlow,
        _FREE,
        _FLOW,
    ),
    "simulated_elbo": Entry(
        "LangevinFlow, simulated, β = 1",
        "The same trained by its ELBO.",
        LangevinFlow,
        _PATHS,
        _FLOW | {"kl_weight": 1.0},
    ),
    "simulation_free_elbo": Entry(
        "LangevinFlow, simulation-free, β = 1",
        "The same trained by its ELBO.",
        LangevinFlow,
        _FREE,
        _FLOW | {"kl_weight": 1.0},
    ),
}
"""By name, in the order in which tables have them."""


@dataclass(frozen=True)
class FittedPopulation:
    """A fitted model of a population. result: of `fit`, for networks."""

    name: str
    model: RateModel
    seconds: float
    result: FitResult | None = None

    def rates(self, batch: SeriesBatch, bins: int | None = None) -> Tensor:
        """Expected counts per bin, float64 on the CPU."""
        return self.model.rates(batch, bins).double().cpu()


def fit_population(
    name: str,
    train: SeriesBatch,
    *,
    bin_width: float,
    held_out: tuple[int, ...] = (),
    num_observed: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
    folder: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    schedule: Mapping[str, Any] | None = None,
) -> FittedPopulation:
    """Fit one model on training trials, to the end of its schedule (weights are not selected).

    Args:
        name: in `POPULATION_MODELS`. train: counts in regular bins.
        bin_width, held_out, num_observed: see `PopulationConfig`.
        steps: of the schedule, if not its own. folder: of the fit, which goes on from there after a kill.
        settings: further ones of the model's configuration.
        schedule: of a network's `FitConfig`, in place of its own, and `shortest`, see `random_windows`.

    Raises:
        ValueError: an unknown name, and what the model raises.
        DivergedError: see `neurodyn.training.fit`.
    """
    if name not in POPULATION_MODELS:
        raise ValueError(f"name: {name!r} given, one of {', '.join(POPULATION_MODELS)} wanted")
    entry, started = POPULATION_MODELS[name], time.monotonic()
    reads: dict[str, Any] = {"bin_width": bin_width, "held_out": held_out, "num_observed": num_observed}
    chosen = {**entry.settings, **reads, **(settings or {})}
    if not entry.schedule:
        model = entry.make(**chosen).fit(train)
        return FittedPopulation(name, model, time.monotonic() - started)
    own = dict(entry.schedule) | dict(schedule or {}) | ({} if steps is None else {"steps": steps})
    own.setdefault("kl_warmup_steps", int(0.3 * own["steps"]))
    own["warmup_steps"] = min(own["warmup_steps"], own["steps"] // 2)
    shortest = own.pop("shortest", 1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = entry.make.build(train, **chosen)
    assert isinstance(network, nn.Module)
    config = FitConfig(**own, seed=seed, device=device, progress=progress)  # type: ignore[arg-type]
    whole = (num_observed is None or num_observed >= train.num_times) and bool(train.mask.all())
    augment = functools.partial(random_windows, shortest=shortest) if shortest < 1 and whole else None
    result = fit(network, train, None, config, folder=folder, augment=augment)
    network.eval()
    return FittedPopulation(name, network, result.seconds, result)  # type: ignore[arg-type]
