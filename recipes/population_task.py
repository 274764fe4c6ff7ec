"""What the recipe for populations is asked, and the trials that it fits and tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from neurodyn import datasets
from neurodyn.datasets import recordings
from neurodyn.datasets.neural_latents import BenchmarkPart, benchmark_set, condition_means, read_benchmark_set
from neurodyn.datasets.nwb import Recording, open_nwb, read_nwb
from neurodyn.datasets.spike_files import h5_tables, read_lfads, read_nlb
from neurodyn.datasets.spikes import Window, counts_of
from neurodyn.metrics.neural import condition_psths
from neurodyn.recipes.command import Execution
from neurodyn.series import SeriesBatch

Array = NDArray[Any]
BaselineName = Literal["smoothing", "factors", "gru", "transformer", "released", "simulated", "simulation_free"]
SIMULATED = ("population_dynamics", "lorenz_spikes")
PSTH_WIDTH = 0.05
"""Standard deviation, in s, of the Gaussian that smooths PSTHs outside the benchmark's sets."""


@dataclass
class Config(Execution):
    """Fit LangevinFlow and baselines to binned spikes, and compare their rates on test trials."""

    dataset: str = "population_dynamics"
    """population_dynamics, lorenz_spikes, hippocampus, reach_spikes, rat_motor_cortex or miller_m1; without --data."""
    data: Path | None = None
    """Your own file: .nwb, or .h5 with LFADS's or the Neural Latents Benchmark's tensors."""
    set: str | None = None
    """With an NWB file of the benchmark: which set, for instance mc_maze."""
    bin_width: float = 0.02
    """With --data: seconds per bin."""
    align: str = "start_time"
    """With an NWB file: the column of the trial table to align to."""
    start: float = 0.0
    """With an NWB file: begin of the window, s from there."""
    stop: float = 0.6
    """With an NWB file: end of the window."""
    forward: float = 0.2
    """With an NWB file: seconds after the window to predict."""
    behaviour: str | None = None
    """With an NWB file: the time series to decode."""
    lag: float = 0.0
    """With an NWB file: seconds by which behaviour follows spikes."""
    inside: bool = True
    """With an NWB file: windows have to lie inside their trials."""
    model: Literal["simulation_free", "simulated"] = "simulation_free"
    """The posterior of LangevinFlow."""
    drift: Literal["mlp", "oscillators", "quadratic", "double_well", "potential", "convex"] = "mlp"
    """Its law of motion: any acceleration, or down a potential."""
    latent_size: int = 6
    """Its positions."""
    baselines: tuple[BaselineName, ...] = ("smoothing", "factors", "gru", "transformer")
    """What to compare with."""
    steps: int = 300
    """Training steps of each network."""
    seed: int = 0
    """Of weights, order of trials and noise."""
    quick: bool = False
    """A few steps only, to see that everything runs: the numbers then mean nothing."""


class Task(NamedTuple):
    """Trials to fit and trials to test, all neurons and all bins; `observed` bins and held-in neurons are read.

    Behaviour and true rates (expected counts per bin) are (trials, bins, .) where there are any. `further` is what
    `population_scores` takes besides: groups, psth, jitter and timing, where there are any.
    """

    train: SeriesBatch
    test: SeriesBatch
    held_out: tuple[int, ...]
    observed: int
    bin_width: float
    moves: tuple[Array, Array] | None
    names: tuple[str, ...]
    truth: Array | None
    name: str
    source: str
    further: dict[str, Any]


def load(config: Config) -> Task:
    """Read and split.

    Raises ValueError for options that do not fit together or to the data, OSError for a file that cannot be read.
    """
    for option in ("steps", "latent_size"):
        if getattr(config, option) < 1:
            raise ValueError(f"{option}: {getattr(config, option)} given, 1 or more wanted")
    if config.data is None:
        return _known(config)
    if config.data.suffix == ".nwb":
        return _from_nwb(config)
    if config.set is not None:
        raise ValueError("set: given for a file that is no NWB file, where tensors are cut already")
    if config.data.suffix not in (".h5", ".hdf5"):
        raise ValueError(f"data: {config.data} given, a file ending in .nwb, .h5 or .hdf5 wanted")
    if any(name.startswith("train_spikes") for name in h5_tables(config.data)):
        parts = read_nlb(config.data, config.bin_width)
    else:
        parts = read_lfads(config.data, config.bin_width)
    bins, held_out, observed = parts.train.num_times, parts.held_out, parts.observed
    if not held_out:  # a file in which everything is read
        held_out = tuple(range(0, parts.train.num_variables, 5))
        observed = bins - max(1, bins // 5) if observed == bins else observed
    return Task(
        parts.train,
        parts.evaluation,
        held_out,
        observed,
        config.bin_width,
        None,
        (),
        parts.truth.get("valid"),
        config.data.name,
        f"File {config.data.name}.",
        {},
    )


def _known(config: Config) -> Task:
    if config.dataset in recordings.SOURCES:
        splits = datasets.load("recordings", recording=config.dataset)
    elif config.dataset in SIMULATED:
        splits = datasets.load(config.dataset)
    else:
        known = ", ".join((*SIMULATED, *recordings.SOURCES))
        raise ValueError(f"dataset: {config.dataset!r} given, one of {known} wanted")
    info, train = splits.info, SeriesBatch.concat([splits.train, splits.validation])
    bins, moves = train.num_times, None
    if train.covariates is not None and splits.test.covariates is not None:
        moves = (train.covariates.double().numpy(), splits.test.covariates.double().numpy())
    truth = info["rates"]["test"].numpy() if "rates" in info else None
    if moves is None and "latents" in info:  # a simulated system's own state takes the place of behaviour
        states = info["latents"]
        moves = (torch.cat([states["train"], states["validation"]]).numpy()[..., :3], states["test"].numpy()[..., :3])
    names = info.get("behaviour") or tuple(f"state {k + 1}" for k in range(0 if moves is None else moves[0].shape[-1]))
    source = f"{info['source']}. Licence: {info['licence']}. {info['citation']}."
    observed, width = info.get("num_observed", bins - bins // 5), info["bin_width"]
    further: dict[str, Any] = {}
    if train.labels is not None and splits.test.labels is not None:
        both, tested = SeriesBatch.concat([train, splits.test]), splits.test.labels.numpy()
        labels = np.concatenate([train.labels.numpy(), tested])
        psth, kinds = condition_psths(counts_of(both)[:, :observed], labels, PSTH_WIDTH / width)
        further["psth"] = (psth, [np.flatnonzero(tested == kind) for kind in kinds])
    parts = (train, splits.test, info["held_out"], observed, width, moves, names, truth)
    return Task(*parts, config.dataset, source, further)


def _from_nwb(config: Config) -> Task:
    assert config.data is not None
    further: dict[str, Any] = {}
    train: Recording | BenchmarkPart
    test: Recording | BenchmarkPart
    if config.set is not None:
        train, test, further = _benchmark(config.data, config.set, config.bin_width)
    else:
        window = Window(config.start, config.stop, config.bin_width)
        whole = read_nwb(
            config.data,
            window,
            align=config.align,
            behaviour=config.behaviour,
            lag=config.lag,
            forward=config.forward,
            inside=config.inside,
        )
        place = np.arange(whole.batch.num_rows) % 5 == 0
        train, test = (_rows(whole, np.flatnonzero(chosen)) for chosen in (~place, place))
    held_out = train.held_out or tuple(range(0, train.batch.num_variables, 5))
    moves = None if train.behaviour is None or test.behaviour is None else (train.behaviour, test.behaviour)
    columns = 0 if moves is None else moves[0].shape[-1]
    told = config.behaviour or "column"
    names = tuple(told if columns == 1 else f"{told} {k + 1}" for k in range(columns))
    parts = (train.batch, test.batch, held_out, train.observed, config.bin_width, moves, names, None)
    return Task(*parts, config.data.name, f"File {config.data.name}.", further)


def _benchmark(path: Path, name: str, bin_width: float) -> tuple[BenchmarkPart, BenchmarkPart, dict[str, Any]]:
    """Training and validation trials of a set, and what their scores take."""
    session = open_nwb(path, benchmark_set(name, bin_width).behaviour)
    train, test = (read_benchmark_set(session, name, bin_width=bin_width, part=part) for part in ("train", "val"))
    further: dict[str, Any] = {"jitter": test.jitter}
    if train.groups is not None and test.groups is not None:
        further["groups"] = (train.groups, test.groups)
    if test.timing is not None:
        further["timing"] = test.timing
    means = condition_means(session, name, bin_width=bin_width)
    if means is not None:
        further["psth"] = tuple(means)
    return train, test, further


def _rows(recording: Recording, index: Array) -> Recording:
    moves = None if recording.behaviour is None else recording.behaviour[index]
    return recording._replace(
        batch=recording.batch.rows(torch.as_tensor(index)), behaviour=moves, trials=recording.trials.iloc[index]
    )
